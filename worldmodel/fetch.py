"""Fetching published weights: by name, with their licence said first, resumed where the line broke.

A download lies beside its place as `.part` until it is whole; the same command goes on where the last one stopped.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

_BLOCK = 1 << 20


class FetchError(ValueError):
    """What cannot be fetched, said in one sentence."""


@dataclass(frozen=True)
class Published:
    """Weights that others published.

    Attributes:
        url: of one file.
        licence: of the weights.
        free: whether the licence allows every use; if not, it must be accepted by word.
        about: one line for people.
        predictor_only: whether it lacks the encoder.
        size: bytes, where known.
    """

    url: str
    licence: str
    free: bool
    about: str
    predictor_only: bool = False
    size: int | None = None


PUBLISHED = {
    "vjepa2-ac": Published(
        "https://dl.fbaipublicfiles.com/vjepa2/vjepa2-ac-vitg.pt",
        "MIT",
        True,
        "V-JEPA 2-AC, encoder ViT-g and predictor; its predictor predates a fix of its rollout loss",
    ),
    "vjepa2-ac-droid": Published(
        "https://huggingface.co/facebook/jepa-wms/resolve/main/vjepa2_ac_droid.pth.tar",
        "CC-BY-NC-4.0",
        False,
        "the corrected V-JEPA 2-AC predictor of jepa-wms, without an encoder: convert it with predictor=",
        predictor_only=True,
        size=3_662_844_455,
    ),
}


def fetch(url: str, folder: Path, *, size: int | None = None) -> Path:
    """Download a file into a folder, going on where an earlier try stopped; returns its place.

    Args:
        url: http or https.
        folder: made if it is not there.
        size: what the file must have, bytes; a file of that size that lies there already is not fetched again.

    Raises:
        FetchError: it is not there, there is no room, the line broke, or its size is not what was promised.
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    name = url.rsplit("/", 1)[-1].partition("?")[0]
    place, part = folder / name, folder / f".{name}.part"
    if place.exists() and size in (None, place.stat().st_size):
        return place
    folder.mkdir(parents=True, exist_ok=True)
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            if answer.status != 206:  # the server begins anew, so do we
                have = 0
            whole = have + int(answer.headers.get("Content-Length") or 0)
            if size is not None and whole != size:
                raise FetchError(f"{url} has {whole} bytes, {size} were published: it is another file now")
            free = shutil.disk_usage(folder).free
            if whole - have > free:
                raise FetchError(
                    f"{name} needs {(whole - have) / 1e9:.1f} GB at {folder}; {free / 1e9:.1f} GB are free"
                )
            columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
            with part.open("ab" if have else "wb") as file, Progress(*columns) as progress:
                bar = progress.add_task("", total=whole, completed=have)
                while block := answer.read(_BLOCK):
                    file.write(block)
                    progress.update(bar, advance=len(block))
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # more is here than there: another file's beginning
            part.unlink()
            return fetch(url, folder, size=size)
        raise FetchError(f"{url} cannot be fetched: the server says {error.code} {error.reason}") from None
    except (OSError, ValueError) as error:
        if isinstance(error, FetchError):
            raise
        reason = getattr(error, "reason", error)
        raise FetchError(f"{url} cannot be fetched ({reason}); the same command goes on where it stopped") from None
    if part.stat().st_size != whole:
        raise FetchError(
            f"{name} ended after {part.stat().st_size} of {whole} bytes; the same command goes on where it stopped"
        )
    os.replace(part, place)
    return place


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
