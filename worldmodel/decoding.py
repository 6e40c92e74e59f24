"""Pictures of any camera as squares of one size, decoded once into a memory-mapped cache.

Indexing bytes is far faster than decoding video in the training loop.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

if TYPE_CHECKING:
    from av import VideoFrame

CACHE = ".decoded"
# Where decoded pictures go when nothing can be written beside what they come from.
ELSEWHERE = Path("outputs/decoded")


class DatasetError(ValueError):
    """A dataset that cannot be learned from, said in one sentence."""


def fit(picture: np.ndarray, size: int) -> np.ndarray:
    """The middle square of a picture (H, W, 3) uint8, as (size, size, 3): shrunk by area, enlarged linearly.

    An arm's camera pictures go through the same before they are shown to a model that was adapted to them.

    >>> wide = np.zeros((4, 8, 3), np.uint8)
    >>> wide[:, 2:6] = 100  # the middle square
    >>> fit(wide, 2).tolist() == [[[100] * 3] * 2] * 2
    True
    """
    height, width = picture.shape[:2]
    if height == width == size:
        return picture
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    filter_ = Image.Resampling.BOX if side >= size else Image.Resampling.BILINEAR
    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.array(image.resize((size, size), filter_, box=(left, top, left + side, top + side)))


def picture_from_bytes(data: bytes, where: str) -> np.ndarray:
    """A PNG or JPEG as (H, W, 3) uint8; grey or transparent ones as the colours they show."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode.startswith("I"):  # 16 bits a pixel: the upper eight
                grey = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
                return np.repeat(grey[..., None], 3, -1)
            return np.array(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DatasetError(f"{where} is truncated or no picture ({error})") from None


def frames_of_video(path: Path) -> Iterator[tuple[float | None, VideoFrame]]:
    """Each frame of a video, in order, and its time in seconds (None where the file says none)."""
    import av
    from av.error import FFmpegError

    try:
        with av.open(str(path)) as container:
            container.streams.video[0].thread_count = 1
            for frame in container.decode(video=0):
                yield frame.time, frame
    except (FFmpegError, ValueError, IndexError) as error:
        raise DatasetError(f"{path} is truncated or no video ({error})") from None


def colours(frame: VideoFrame) -> np.ndarray:
    """A video's frame as (H, W, 3) uint8."""
    return frame.to_ndarray(format="rgb24")


def cache_folder(root: Path) -> Path:
    """The folder for what is decoded from `root`: beside it, or under outputs/ where nothing can be written beside it."""
    beside = (root if root.is_dir() else root.parent) / CACHE
    if _writable(beside):
        return beside
    mark = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:8]
    elsewhere = ELSEWHERE / f"{root.resolve().name}-{mark}"
    if not _writable(elsewhere):
        raise DatasetError(f"decoded pictures can be written neither to {beside} nor to {elsewhere}")
    return elsewhere


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe.{os.getpid()}.part"
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def make_room(folder: Path, needed: int, what: Path) -> None:
    """Clear what killed processes left half-written, and refuse what would not fit (bytes)."""
    for part in folder.glob("*.part"):
        owner = part.name.split(".")[-2]
        if not (owner.isdigit() and Path(f"/proc/{owner}").exists()):
            part.unlink(missing_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DatasetError(f"decoding {what} needs {needed / 1e9:.1f} GB in {folder}; {free / 1e9:.1f} GB are free")


def cached(root: Path, name: str, shape: tuple[int, ...], fill: Callable[[np.ndarray], None]) -> np.ndarray:
    """Pictures of this shape from the cache file `name`; `fill` decodes into them where there are none yet.

    Written under another name and renamed when whole: several processes do not disturb each other.
    """
    beside = (root if root.is_dir() else root.parent) / CACHE / name
    if (found := whole(beside, shape)) is not None:
        return found
    cache = cache_folder(root) / name
    if (found := whole(cache, shape)) is not None:
        return found
    make_room(cache.parent, int(np.prod(shape)), root)
    temporary = cache.with_name(f"{cache.stem}.{os.getpid()}.part")
    pictures = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
    try:
        fill(pictures)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    pictures.flush()
    os.replace(temporary, cache)
    return np.load(cache, mmap_mode="r")


def whole(cache: Path, shape: tuple[int, ...], dtype: type[np.generic] = np.uint8) -> np.ndarray | None:
    """A file of the cache, memory-mapped, if it is there and of this shape and type."""
    if not cache.is_file():
        return None
    try:
        pictures = np.load(cache, mmap_mode="r")
    except (ValueError, EOFError):
        return None
    return pictures if pictures.shape == shape and pictures.dtype == dtype else None
