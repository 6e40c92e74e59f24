"""Episodes on disk, one whole file set at a time, in LeRobotDataset v3.

An episode exists once its table does: pictures are written first, the table last, each under a temporary name and
then renamed. So kill -9 costs at most the episode being written. `finalise` derives everything under `meta/` from
the episodes found and can be repeated; LeRobot's own reader opens the result.

Frame t holds what was observed at t, the action requested at t and the action executed between t and t+1. The last
observation of an episode is stored too, with a zero action, so that no transition is lost.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CODEBASE_VERSION = "v3.0"
CHUNK = 1000
RECIPE = "collection.json"
_TABLE_COLUMNS = ("timestamp", "frame_index", "episode_index", "index", "task_index")


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


@dataclass(frozen=True)
class Episode:
    """One episode in memory: frames {camera: (T, H, W, 3) uint8}, vectors {feature: (T, n) float32}, a task."""

    index: int
    task: str
    frames: Mapping[str, np.ndarray]
    vectors: Mapping[str, np.ndarray]

    @property
    def length(self) -> int:
        """Frames in the episode."""
        return len(next(iter(self.vectors.values())))


def _write_atomically(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def encode_video(frames: np.ndarray, fps: int) -> bytes:
    """Frames (T, H, W, 3) uint8 as an H.264 MP4 whose every other frame can be entered."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.codec_context.gop_size = 2
        stream.codec_context.thread_count = 1
        stream.options = {"preset": "ultrafast", "crf": "18", "x264-params": "log-level=none"}
        for picture in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return buffer.getvalue()


def decode_video(path: Path | str) -> np.ndarray:
    """All frames (T, H, W, 3) uint8 of a video file."""
    try:
        with av.open(str(path)) as container:
            container.streams.video[0].thread_count = 1
            return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    except (av.error.FFmpegError, ValueError) as error:
        raise ValueError(f"{path} is truncated or no video ({error}); delete the episode and collect it again") from None


def _video_path(root: Path, camera: str, index: int) -> Path:
    return root / f"videos/observation.images.{camera}/chunk-{index // CHUNK:03d}/file-{index % CHUNK:03d}.mp4"


def _table_path(root: Path, index: int) -> Path:
    return root / f"data/chunk-{index // CHUNK:03d}/file-{index % CHUNK:03d}.parquet"


def write_episode(root: Path, layout: Layout, episode: Episode) -> None:
    """Store one episode; its table, written last, makes it exist."""
    for camera in layout.cameras:
        _write_atomically(_video_path(root, camera, episode.index), encode_video(episode.frames[camera], layout.fps))
    length = episode.length
    columns: dict[str, pa.Array] = {}
    for feature, values in episode.vectors.items():
        flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).ravel())
        columns[feature] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    columns["timestamp"] = pa.array(np.arange(length, dtype=np.float32) / layout.fps)
    columns["frame_index"] = pa.array(np.arange(length, dtype=np.int64))
    columns["episode_index"] = pa.array(np.full(length, episode.index, dtype=np.int64))
    # Filled in by `finalise`, which knows the episodes before this one; every episode is equally long in play.
    columns["index"] = pa.array(np.arange(length, dtype=np.int64) + episode.index * length)
    columns["task_index"] = pa.array(np.zeros(length, dtype=np.int64))
    sink = io.BytesIO()
    pq.write_table(pa.table(columns).replace_schema_metadata({"task": episode.task}), sink)
    _write_atomically(_table_path(root, episode.index), sink.getvalue())


def finished_episodes(root: Path, layout: Layout, wanted: int, *, delete_broken: bool = True) -> set[int]:
    """Indices below `wanted` of the episodes that are whole; what is left of broken ones is removed."""
    for leftover in root.glob("**/.*.part"):
        leftover.unlink(missing_ok=True)
    whole = set()
    for index in range(wanted):
        table = _table_path(root, index)
        if not table.exists():
            continue
        videos = [_video_path(root, camera, index) for camera in layout.cameras]
        if _readable(table) and all(video.exists() and _whole_mp4(video) for video in videos):
            whole.add(index)
        elif delete_broken:
            table.unlink()
    return whole


def _readable(table: Path) -> bool:
    try:
        return pq.read_metadata(table).num_rows > 0
    except (pa.ArrowInvalid, OSError):
        return False


def _whole_mp4(path: Path) -> bool:
    """Whether an MP4's boxes end where the file ends (a cheap test that catches truncation)."""
    size, position, names = path.stat().st_size, 0, set()
    with path.open("rb") as file:
        while position + 8 <= size:
            file.seek(position)
            head = file.read(8)
            length = int.from_bytes(head[:4], "big")
            if length < 8:
                return False
            names.add(head[4:])
            position += length
    return position == size and b"moov" in names


def _statistics(values: np.ndarray) -> dict[str, Any]:
    """LeRobot's statistics of values (N, n)."""
    quantiles = np.quantile(values, [0.01, 0.1, 0.5, 0.9, 0.99], axis=0)
    names = ("q01", "q10", "q50", "q90", "q99")
    out = {
        "min": values.min(0),
        "max": values.max(0),
        "mean": values.mean(0),
        "std": values.std(0),
        **dict(zip(names, quantiles, strict=True)),
    }
    return {name: np.asarray(v, dtype=np.float64).tolist() for name, v in out.items()} | {"count": [len(values)]}


def _picture_statistics(frames: np.ndarray) -> dict[str, Any]:
    """LeRobot's per-channel statistics of frames (T, H, W, 3), on [0, 1], shaped (3, 1, 1)."""
    stats = _statistics(frames[:, ::4, ::4].reshape(-1, 3) / 255.0)
    return {k: v if k == "count" else [[[channel]] for channel in v] for k, v in stats.items()} | {
        "count": [len(frames)]
    }


def finalise(root: Path, layout: Layout, episodes: Sequence[int], *, robot_type: str, extra: dict[str, Any]) -> int:
    """Write `meta/` for the episodes given (which must be 0..n-1); returns the number of frames."""
    key = "observation.images."
    rows: list[dict[str, Any]] = []
    collected: dict[str, list[np.ndarray]] = {feature: [] for feature in layout.vectors}
    tasks: list[str] = []
    start = 0
    picture_stats: dict[str, dict[str, Any]] = {}
    for index in sorted(episodes):
        table = pq.read_table(_table_path(root, index))
        task = (table.schema.metadata or {}).get(b"task", b"play").decode()
        if task not in tasks:
            tasks.append(task)
        length = table.num_rows
        row: dict[str, Any] = {
            "episode_index": index,
            "tasks": [task],
            "length": length,
            "data/chunk_index": index // CHUNK,
            "data/file_index": index % CHUNK,
            "dataset_from_index": start,
            "dataset_to_index": start + length,
        }
        for camera in layout.cameras:
            row |= {
                f"videos/{key}{camera}/chunk_index": index // CHUNK,
                f"videos/{key}{camera}/file_index": index % CHUNK,
                f"videos/{key}{camera}/from_timestamp": 0.0,
                f"videos/{key}{camera}/to_timestamp": length / layout.fps,
            }
            if index % 50 == 0:
                frames = decode_video(_video_path(root, camera, index))
                picture_stats.setdefault(camera, _picture_statistics(frames))
        for feature in layout.vectors:
            values = np.stack(table[feature].to_numpy())
            collected[feature].append(values)
        wrong = table["index"][0].as_py() != start or table["task_index"][0].as_py() != tasks.index(task)
        if wrong:
            fixed = table.set_column(table.column_names.index("index"), "index", pa.array(np.arange(start, start + length)))
            fixed = fixed.set_column(
                fixed.column_names.index("task_index"), "task_index", pa.array(np.full(length, tasks.index(task)))
            )
            sink = io.BytesIO()
            pq.write_table(fixed, sink)
            _write_atomically(_table_path(root, index), sink.getvalue())
        rows.append(row | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
        start += length
    stats = {feature: _statistics(np.concatenate(values)) for feature, values in collected.items()}
    stats |= {f"{key}{camera}": values for camera, values in picture_stats.items()}
    info = _info(layout, len(rows), start, len(tasks), robot_type)
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    _write_atomically(root / "meta/episodes/chunk-000/file-000.parquet", sink.getvalue())
    import pandas as pd

    frame = pd.DataFrame({"task_index": range(len(tasks))}, index=pd.Index(tasks, name="task"))
    sink = io.BytesIO()
    frame.to_parquet(sink)
    _write_atomically(root / "meta/tasks.parquet", sink.getvalue())
    _write_atomically(root / "meta/stats.json", json.dumps(stats).encode())
    _write_atomically(root / "meta" / RECIPE, json.dumps(extra, indent=2).encode())
    _write_atomically(root / "meta/info.json", json.dumps(info, indent=2).encode())
    return start


def _info(layout: Layout, episodes: int, frames: int, tasks: int, robot_type: str) -> dict[str, Any]:
    size = layout.image_size
    features: dict[str, Any] = {}
    for camera in layout.cameras:
        features[f"observation.images.{camera}"] = {
            "dtype": "video",
            "shape": [size, size, 3],
            "names": ["height", "width", "channels"],
            "info": {
                "video.height": size,
                "video.width": size,
                "video.codec": "h264",
                "video.pix_fmt": "yuv420p",
                "video.fps": layout.fps,
                "video.channels": 3,
                "has_audio": False,
                "is_depth_map": False,
            },
        }
    for feature, names in layout.vectors.items():
        features[feature] = {"dtype": "float32", "shape": [len(names)], "names": list(names)}
    for column in _TABLE_COLUMNS:
        dtype = "float32" if column == "timestamp" else "int64"
        features[column] = {"dtype": dtype, "shape": [1], "names": None}
    return {
        "codebase_version": CODEBASE_VERSION,
        "fps": layout.fps,
        "features": features,
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": tasks,
        "chunks_size": CHUNK,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "robot_type": robot_type,
        "splits": {"train": f"0:{episodes}"},
    }
