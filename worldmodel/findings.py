"""What frozen eyes find in every frame, kept on disk beside the decoded pictures: they look once, training looks it up.

A large encoder in every step would be nearly all of training's cost. What it finds never changes, so it is written down,
float16, in a memory-mapped file named by cameras, data and eyes. Killed in between, the next try goes on from there.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from worldmodel.data import DatasetError, Episodes
from worldmodel.decoding import CACHE, cache_folder, whole
from worldmodel.networks import BorrowedEncoder, Encoder
from worldmodel.vjepa2_eyes import FrozenEyes

# Frames between two looks at the clock, and seconds between two saves.
CHUNK = 128
SAVE_S = 20.0
# Frames that tell what is usual.
SAMPLE = 512


def remember(episodes: Episodes, eyes: FrozenEyes, device: torch.device, *, bf16: bool) -> None:
    """Let the episodes know what these eyes find in each of their frames: from disk, or by looking now."""
    name = "-".join(episodes.cameras)
    mark = eyes.mark + ("-bf16" if bf16 else "")
    episodes.keep([
        _stored(origin.root, f"{name}-{origin.fingerprint}-{mark}.npy", origin.pictures, eyes, device, bf16)
        for origin in episodes.origins
    ])  # fmt: skip
    eyes.to(torch.device("cpu"))


def encoded(encoder: Encoder, episodes: Episodes, index: Tensor, device: torch.device) -> Tensor:
    """Features (N, D) of frames (N,), from what was found in them where that is kept."""
    found = episodes.findings(index)
    return encoder(episodes.frames(index).to(device), None if found is None else found.to(device))


def get_used_to(encoder: Encoder, episodes: Episodes, training: Tensor, device: torch.device, *, bf16: bool) -> None:
    """Let an encoder with frozen eyes measure what they usually find in the training episodes."""
    if not isinstance(encoder, BorrowedEncoder):
        return
    frames = episodes.frames_of(training)
    some = frames[torch.randint(len(frames), (SAMPLE,), generator=torch.Generator().manual_seed(1))]
    found = episodes.findings(some)
    if found is None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            found = torch.cat([encoder.look(episodes.frames(part).to(device)) for part in some.split(CHUNK)])
    encoder.get_used_to(found.to(device))


def _stored(
    root: Path, name: str, pictures: np.ndarray, eyes: FrozenEyes, device: torch.device, bf16: bool
) -> np.ndarray:
    """(frames, F) float16, memory-mapped, for pictures (frames, C, S, S, 3)."""
    from rich.progress import track

    shape = (len(pictures), pictures.shape[1] * eyes.size.found)
    beside = (root if root.is_dir() else root.parent) / CACHE / name
    if (there := whole(beside, shape, np.float16)) is not None:
        return there
    place = cache_folder(root) / name
    if (there := whole(place, shape, np.float16)) is not None:
        return there
    part, done = _begun(place, shape)
    needed, free = 2 * (shape[0] - done) * shape[1], shutil.disk_usage(place.parent).free
    if needed > free:
        raise DatasetError(
            f"what the eyes find in {root} takes {needed / 1e9:.1f} GB in {place.parent}; {free / 1e9:.1f} GB are free: "
            "make room, or say store_findings=false (the eyes then look in every step)"
        )
    found = np.lib.format.open_memmap(part, "r+" if done else "w+", np.float16, None if done else shape)
    saved = time.monotonic()
    starts = range(done, shape[0], CHUNK)
    for first in track(starts, description=f"look at {root.name}", transient=True):
        rows = slice(first, min(first + CHUNK, shape[0]))
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            block = eyes.look(torch.from_numpy(np.array(pictures[rows])).to(device)).to(torch.float16).cpu().numpy()
        if not np.isfinite(block).all():
            frame = first + int(np.argwhere(~np.isfinite(block))[0, 0])
            raise DatasetError(f"the eyes find NaN or infinity in frame {frame} of {root}; are their weights sound?")
        found[rows] = block
        if time.monotonic() - saved > SAVE_S:
            found.flush()
            part, saved = part.replace(_part(place, rows.stop)), time.monotonic()
    found.flush()
    os.replace(part, place)
    return np.load(place, mmap_mode="r")


def _part(place: Path, done: int) -> Path:
    """The unfinished file of this process: its name says how many of its rows are on disk."""
    return place.with_name(f"{place.stem}.{done}.{os.getpid()}.part")


def _begun(place: Path, shape: tuple[int, ...]) -> tuple[Path, int]:
    """This process's unfinished file and how many of its rows hold; what a killed process left is taken over."""
    for left in sorted(place.parent.glob(f"{place.stem}.*.part")):
        rows, owner = left.name.split(".")[-3:-1]
        ended = owner == str(os.getpid()) or not Path(f"/proc/{owner}").exists()
        if not (ended and owner.isdigit() and rows.isdigit()):
            continue
        mine = _part(place, int(rows))
        try:
            left.replace(mine)
        except FileNotFoundError:  # another process was faster
            continue
        if 0 < int(rows) <= shape[0] and whole(mine, shape, np.float16) is not None:
            return mine, int(rows)
        mine.unlink()
    return _part(place, 0), 0
