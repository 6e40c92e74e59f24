"""A folder of videos as a corpus to watch: every file taken at one rate by its timestamps and cut into episodes.

There are no states and no actions here; `premotor pretrain` needs none.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel.decoding import DatasetError, cache_folder, colours, fit, frames_of_video, make_room

SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov")
# How the bytes of two files are told apart without reading them whole.
EDGE_BYTES = 1 << 16


def videos_in(root: Path) -> list[Path]:
    """The videos of a folder and those below it, sorted; hidden folders are left alone. A video is its own folder."""
    if root.is_file():
        return [root] if root.suffix.lower() in SUFFIXES else []
    found = []
    for folder, inner, files in os.walk(root):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        found += [
            Path(folder) / name for name in files if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
        ]
    return sorted(found)


def watch(root: Path, image_size: int, rate_hz: float, episode_frames: int) -> dict[str, Any]:
    """A folder's videos as episodes of at most `episode_frames` pictures at `rate_hz`.

    Returns:
        pictures (frames, 1, S, S, 3), lengths (episodes,), scenes (episodes,) the file of each, fingerprint, remarks.
    """
    files = videos_in(root)
    if not root.exists():
        raise DatasetError(f"there is no {root}; data= names a LeRobotDataset or a folder of videos")
    if not files:
        raise DatasetError(f"{root} holds neither a LeRobotDataset (meta/info.json) nor videos ({', '.join(SUFFIXES)})")
    if not rate_hz > 0:
        raise DatasetError(f"rate_hz is {rate_hz}; it must be more than 0")
    if episode_frames < 2:
        raise DatasetError(f"episode_frames is {episode_frames}; it must be at least 2")
    fingerprint = f"{_fingerprint(root, files)}-{image_size}px-{rate_hz:g}hz"
    contents, pictures = _decoded(root, files, fingerprint, image_size, rate_hz)
    lengths, scenes = [], []
    for scene, stretches in enumerate(contents["stretches"]):
        for frames in stretches:
            pieces = [min(episode_frames, frames - first) for first in range(0, frames, episode_frames)]
            lengths += pieces
            scenes += [scene] * len(pieces)
    skipped = contents["skipped"]
    remarks = [f"{sentence}: left out" for sentence in skipped]
    if skipped:
        remarks.append(f"{root}: {len(skipped)} of {len(files)} videos could not be used")
    return {
        "pictures": pictures,
        "lengths": np.array(lengths, np.int64),
        "scenes": np.array(scenes, np.int64),
        "fingerprint": f"{fingerprint}-{episode_frames}frames",
        "remarks": remarks,
    }


def _fingerprint(root: Path, files: list[Path]) -> str:
    """A short hash of names, sizes, beginnings and ends."""
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.relative_to(root) if root.is_dir() else file.name}:{size}".encode())
        with file.open("rb") as opened:
            digest.update(opened.read(EDGE_BYTES))
            opened.seek(max(0, size - EDGE_BYTES))
            digest.update(opened.read(EDGE_BYTES))
    return digest.hexdigest()[:16]


def _decoded(
    root: Path, files: list[Path], name: str, image_size: int, rate_hz: float
) -> tuple[dict[str, Any], np.ndarray]:
    """What was found in which file, and all pictures one after the other, decoded into the cache on first use.

    The bytes are renamed into place first and their description last: what is described is there.
    """
    from rich.progress import track

    folder = cache_folder(root)
    bytes_path, about_path = folder / f"videos-{name}.bytes", folder / f"videos-{name}.json"
    picture_bytes = image_size * image_size * 3
    if about_path.is_file() and bytes_path.is_file():
        about = json.loads(about_path.read_text())
        if bytes_path.stat().st_size == about["frames"] * picture_bytes:
            return about, _mapped(bytes_path, about["frames"], image_size)
    make_room(folder, 0, root)
    part, about_part = (path.with_name(f"{path.name}.{os.getpid()}.part") for path in (bytes_path, about_path))
    about: dict[str, Any] = {"frames": 0, "stretches": [], "skipped": []}
    try:
        with part.open("wb") as out:
            for file in track(files, description=f"decode {root.name}", transient=True):
                begin = out.tell()
                try:
                    stretches = _write_file(file, out, image_size, rate_hz)
                    about["stretches"].append(stretches)
                    about["frames"] += sum(stretches)
                except DatasetError as error:
                    about["skipped"].append(str(error))
                    out.truncate(out.seek(begin))
                make_room(folder, 10 * picture_bytes, root)
        if not about["frames"]:
            raise DatasetError(f"none of the {len(files)} videos in {root} can be used: {about['skipped'][0]}")
        os.replace(part, bytes_path)
        about_part.write_text(json.dumps(about))
        os.replace(about_part, about_path)
    except BaseException:
        part.unlink(missing_ok=True)
        about_part.unlink(missing_ok=True)
        raise
    return about, _mapped(bytes_path, about["frames"], image_size)


def _mapped(path: Path, frames: int, size: int) -> np.ndarray:
    return np.memmap(path, np.uint8, "r", shape=(frames, 1, size, size, 3))


def _write_file(path: Path, out: Any, image_size: int, rate_hz: float) -> list[int]:
    """Append a video's pictures at `rate_hz`; returns how many each uninterrupted stretch has."""
    stretches: list[int] = []
    for unbroken, picture in _at_rate(path, rate_hz):
        if not unbroken:
            stretches.append(0)
        stretches[-1] += 1
        out.write(fit(picture, image_size).tobytes())
    if sum(stretches) < 2:
        raise DatasetError(f"{path} has {sum(stretches)} pictures at {rate_hz:g} Hz; two are needed")
    return stretches


def _at_rate(path: Path, rate_hz: float) -> Iterator[tuple[bool, np.ndarray]]:
    """The first frame at or after every tick of 1 / rate_hz, and whether it follows the one before without a gap."""
    pace = _frame_seconds(path)
    if pace > 1.1 / rate_hz:
        raise DatasetError(f"{path} has {1 / pace:.3g} pictures a second, fewer than rate_hz={rate_hz:g}")
    # Half a frame early still counts as on time: files round their timestamps.
    slack = 0.5 * pace
    start = tick = last = 0.0
    for number, (time, frame) in enumerate(frames_of_video(path)):
        now = number * pace if time is None else time
        if number == 0:
            start = tick = now
        elif now < tick - slack:
            continue
        unbroken = number > 0 and now - last < 1.5 / rate_hz + slack
        if not unbroken:
            start = tick = now
        yield unbroken, colours(frame)
        last = now
        ticks = int((now + slack - start) * rate_hz) + 1
        tick = start + ticks / rate_hz


def _frame_seconds(path: Path) -> float:
    """Seconds from one frame to the next: the median over the file's first packets."""
    import av
    from av.error import FFmpegError

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            packets = itertools.islice(container.demux(stream), 200)
            times = sorted(float(p.pts * p.time_base) for p in packets if p.pts is not None and p.time_base is not None)
            average = float(stream.average_rate or 0)
    except (FFmpegError, ValueError, IndexError) as error:
        raise DatasetError(f"{path} is truncated or no video ({error})") from None
    if len(times) > 1 and (step := float(np.median(np.diff(times)))) > 0:
        return step
    if average > 0:
        return 1 / average
    raise DatasetError(f"{path} is empty, or does not say when its pictures were taken")
