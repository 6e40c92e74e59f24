"""Finished episodes on disk, one file each, so that kill -9 costs at most the episode being written.

An episode is staged as a single Parquet file under `.episodes/`: its numbers, its pictures as the H.264 packets they
were encoded to, and its statistics. The file appears by one rename, whole or not at all, and carries its checksum in
its name; `lerobot_files` later moves staged episodes into a LeRobotDataset without encoding anything again.

Frame t holds what was observed at t, the action requested at t and the action executed between t and t + 1. The last
observation is a frame too, with zero actions, so that T actions give T + 1 frames and no transition is lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

STAGE = ".episodes"
QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
_NOTES = b"premotor"
# Decoding can begin at every other frame, so that random access decodes at most two.
_GOP = 2


@dataclass(frozen=True)
class Layout:
    """What every episode of a dataset holds.

    Attributes:
        cameras: picture names, without the `observation.images.` prefix.
        image_size: side of the square pictures, px.
        fps: frames per second.
        vectors: vector feature -> names of its numbers.
    """

    cameras: tuple[str, ...]
    image_size: int
    fps: int
    vectors: Mapping[str, tuple[str, ...]]

    @property
    def pictures(self) -> tuple[str, ...]:
        """The picture features' full names."""
        return tuple(f"observation.images.{camera}" for camera in self.cameras)


@dataclass(frozen=True)
class Episode:
    """One episode in memory.

    Attributes:
        index: its number in the dataset.
        task: what it is about, in words.
        frames: camera -> pictures (T, H, W, 3) uint8.
        vectors: feature -> values (T, n) float32.
        about: further facts for the table of episodes (seed, policy, ...).
    """

    index: int
    task: str
    frames: Mapping[str, np.ndarray]
    vectors: Mapping[str, np.ndarray]
    about: Mapping[str, str | int | float] = field(default_factory=dict)


def write_atomically(path: Path, data: bytes) -> None:
    """Bytes under a temporary name, onto the disk, then renamed: the file is whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def table_bytes(table: pa.Table) -> bytes:
    """A table as Parquet."""
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def add_h264(container: Any, size: int, fps: int) -> Any:
    """An H.264 stream of `size` x `size` px in a container; the same settings give streams that can be joined."""
    stream = container.add_stream("libx264", rate=fps)
    stream.width = stream.height = size
    stream.pix_fmt = "yuv420p"
    stream.codec_context.gop_size = _GOP
    stream.codec_context.thread_count = 1
    stream.options = {"preset": "ultrafast", "crf": "18", "x264-params": "log-level=none"}
    return stream


def encode(frames: np.ndarray, fps: int) -> tuple[list[bytes], list[bool]]:
    """Pictures (T, H, W, 3) uint8 as T packets, in order, and whether decoding can begin at each."""
    packets: list[Any] = []
    with av.open(io.BytesIO(), "w", format="mp4") as container:
        stream = add_h264(container, frames.shape[1], fps)
        for picture in frames:
            packets += stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24"))
        packets += stream.encode()
    return [bytes(packet) for packet in packets], [packet.is_keyframe for packet in packets]


def statistics(values: np.ndarray, count: int) -> dict[str, list[Any]]:
    """LeRobot's statistics over the first axis of values (N, ...), said to describe `count` frames."""
    quantiles = np.quantile(values, list(QUANTILES.values()), axis=0)
    measured = {
        "min": values.min(0),
        "max": values.max(0),
        "mean": values.mean(0),
        "std": values.std(0),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }
    return {name: np.asarray(value, np.float64).tolist() for name, value in measured.items()} | {"count": [count]}


def _episode_statistics(layout: Layout, episode: Episode) -> dict[str, dict[str, list[Any]]]:
    """Of every feature; pictures on [0, 1] per channel, shaped (3, 1, 1) as LeRobot wants, from every 16th pixel."""
    stats = {feature: statistics(values.astype(np.float64), len(values)) for feature, values in episode.vectors.items()}
    for camera, feature in zip(layout.cameras, layout.pictures, strict=True):
        pictures = episode.frames[camera]
        pixels = pictures[:, ::4, ::4].reshape(-1, 3, 1, 1) / 255.0
        stats[feature] = statistics(pixels, len(pictures))
    return stats


def stage(root: Path, layout: Layout, episode: Episode) -> None:
    """Put one finished episode on disk."""
    columns: dict[str, pa.Array] = {}
    for feature in layout.vectors:
        values = np.ascontiguousarray(episode.vectors[feature], dtype=np.float32)
        if not np.isfinite(values).all():
            raise ValueError(f"episode {episode.index}: {feature} has NaN or infinity")
        columns[feature] = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    for camera, feature in zip(layout.cameras, layout.pictures, strict=True):
        packets, enters = encode(episode.frames[camera], layout.fps)
        columns[feature] = pa.array(packets, pa.binary())
        columns[f"{feature}.enters"] = pa.array(enters, pa.bool_())
    notes = {"task": episode.task, "about": dict(episode.about), "stats": _episode_statistics(layout, episode)}
    data = table_bytes(pa.table(columns).replace_schema_metadata({_NOTES: json.dumps(notes)}))
    write_atomically(root / STAGE / f"episode-{episode.index:06d}-{zlib.crc32(data):08x}.parquet", data)


def read_staged(path: Path, layout: Layout) -> tuple[pa.Table, dict[str, Any]]:
    """A staged episode's columns and notes (`task`, `about`, `stats`); a ValueError if a single bit has changed."""
    data = path.read_bytes()
    if f"{zlib.crc32(data):08x}" != path.stem.rpartition("-")[2]:
        raise ValueError(f"{path} is damaged; run the same command again to collect that episode anew")
    table = pq.read_table(pa.BufferReader(data), use_threads=False)
    if not {*layout.vectors, *layout.pictures} <= set(table.column_names):
        raise ValueError(f"{path} holds {', '.join(table.column_names)}; delete it and run the same command again")
    return table, json.loads(table.schema.metadata[_NOTES])


def staged_paths(root: Path) -> dict[int, Path]:
    """Episode index -> file of what is staged, unread."""
    return {int(path.name[8:14]): path for path in sorted((root / STAGE).glob("episode-??????-*.parquet"))}


def keep_whole(root: Path, layout: Layout) -> set[int]:
    """Indices of the staged episodes that are whole; damaged ones and unfinished writes are removed."""
    whole = set()
    paths = staged_paths(root)
    for index, path in paths.items():
        with contextlib.suppress(ValueError):
            read_staged(path, layout)
            whole.add(index)
    kept = {paths[index] for index in whole}
    for path in (root / STAGE).glob("*"):
        if path not in kept:
            path.unlink()
    return whole


def discard_staged(root: Path) -> None:
    """Forget everything staged."""
    folder = root / STAGE
    for path in folder.glob("*"):
        path.unlink()
    if folder.exists():
        folder.rmdir()


def own_folder(root: Path, key: str) -> int:
    """A folder, made if need be and ours alone until the returned descriptor is closed, or the process ends however it may.

    Args:
        root: the folder.
        key: what a person says to choose another, for the sentences.
    """
    if root.exists() and not root.is_dir():
        raise ValueError(f"{root} is a file; choose another {key}=")
    try:
        root.mkdir(parents=True, exist_ok=True)
        folder = os.open(root, os.O_RDONLY)
    except OSError as error:
        raise ValueError(f"{root} cannot be made or entered ({error.strerror}); choose another {key}=") from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(folder)
        raise ValueError(f"another collection is writing into {root}; wait for it, or choose another {key}=") from None
    return folder
