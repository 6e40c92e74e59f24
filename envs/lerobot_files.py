"""From staged episodes to a LeRobotDataset v3: numbers and packets are moved into files of many episodes.

Nothing is encoded again, so thousands of episodes take seconds. `meta/info.json` is written last and says how many
episodes the dataset has: what is not yet in it does not count, and finishing again after an interruption, or after
more episodes were staged, only adds.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from envs.episode_store import (
    QUANTILES,
    Layout,
    add_h264,
    discard_staged,
    read_staged,
    staged_paths,
    table_bytes,
    write_atomically,
)

CODEBASE_VERSION = "v3.0"
FILES_PER_CHUNK = 1000
FRAMES_PER_FILE = 5000
INFO = "meta/info.json"
_EPISODES = "meta/episodes/chunk-000/file-000.parquet"
_TABLE_COLUMNS = ("timestamp", "frame_index", "episode_index", "index", "task_index")


def finished_episodes(root: Path) -> int:
    """How many episodes the dataset at `root` has; 0 before it was first finished."""
    path = root / INFO
    if not path.exists():
        return 0
    try:
        return int(json.loads(path.read_text())["total_episodes"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is damaged; restore it, or delete {root} and collect again") from None


def check_files(root: Path, layout: Layout) -> None:
    """Raise a ValueError unless every file the dataset's episodes refer to is there and whole."""
    for row in _episode_rows(root):
        paths = [_data_path(root, row["data/chunk_index"], row["data/file_index"])]
        for feature in layout.pictures:
            place = row[f"videos/{feature}/chunk_index"], row[f"videos/{feature}/file_index"]
            paths.append(_video_path(root, feature, *place))
        for path in dict.fromkeys(paths):
            if not path.exists() or not (_whole_parquet(path) if path.suffix == ".parquet" else _whole_mp4(path)):
                raise ValueError(
                    f"{path} is {'damaged' if path.exists() else 'missing'}; restore it, or delete {root} and "
                    "collect again"
                )


def finish(root: Path, layout: Layout, episodes: int, robot_type: str) -> int:
    """Move staged episodes into the dataset until it has `episodes`; returns its number of frames."""
    for folder in ("data", "videos", "meta"):
        for unfinished in (root / folder).glob("**/.*.part"):
            unfinished.unlink()
    had = finished_episodes(root)
    old = pq.read_table(root / _EPISODES).slice(0, had) if had else None
    rows: list[dict[str, Any]] = []
    tasks: list[str] = _tasks(root) if had else []
    start = old["dataset_to_index"][-1].as_py() if old is not None else 0
    place = (0, 0)
    if old is not None:
        place = _next_place(old["data/chunk_index"][-1].as_py(), old["data/file_index"][-1].as_py())
    for group in _groups(root, layout, range(had, episodes)):
        added = _write_files(root, layout, group, place, start, tasks)
        rows += added
        start = added[-1]["dataset_to_index"]
        place = _next_place(*place)
    if rows:
        table = pa.Table.from_pylist(rows)
        table = pa.concat_tables([old, table], promote_options="default") if old is not None else table
        write_atomically(root / _EPISODES, table_bytes(table))
        _write_tasks(root, tasks)
        stats = aggregate_statistics(table, (*layout.pictures, *layout.vectors))
        write_atomically(root / "meta/stats.json", json.dumps(stats, indent=1).encode())
        info = _info(layout, table.num_rows, start, len(tasks), robot_type)
        write_atomically(root / INFO, json.dumps(info, indent=2).encode())
    discard_staged(root)
    return start


def aggregate_statistics(episodes: pa.Table, features: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """The dataset's statistics from its episodes', as LeRobot adds them up (quantiles: the mean over frames)."""
    total: dict[str, dict[str, Any]] = {}
    for feature in features:
        each = {
            name: np.array(episodes[f"stats/{feature}/{name}"].to_pylist())
            for name in ("min", "max", "mean", "std", "count", *QUANTILES)
        }
        weight = each["count"].reshape(-1, *[1] * (each["mean"].ndim - 1)) / each["count"].sum()
        mean = (weight * each["mean"]).sum(0)
        variance = (weight * (each["std"] ** 2 + (each["mean"] - mean) ** 2)).sum(0)
        summed = {
            "min": each["min"].min(0),
            "max": each["max"].max(0),
            "mean": mean,
            "std": np.sqrt(variance),
            "count": each["count"].sum(0),
        } | {name: (weight * each[name]).sum(0) for name in QUANTILES}
        total[feature] = {name: value.tolist() for name, value in summed.items()}
    return total


# -- files -------------------------------------------------------------------------------------------------------------

_Staged = tuple[int, pa.Table, dict[str, Any]]


def _groups(root: Path, layout: Layout, indices: range) -> Iterator[list[_Staged]]:
    """Staged episodes, as many at a time as go into one file."""
    group: list[_Staged] = []
    frames = 0
    paths = staged_paths(root)
    for index in indices:
        table, notes = read_staged(paths[index], layout)
        if group and frames + table.num_rows > FRAMES_PER_FILE:
            yield group
            group, frames = [], 0
        group.append((index, table, notes))
        frames += table.num_rows
    if group:
        yield group


def _write_files(
    root: Path, layout: Layout, group: list[_Staged], place: tuple[int, int], start: int, tasks: list[str]
) -> list[dict[str, Any]]:
    """One data file and one video file a camera; returns the episodes' rows. New tasks are added to `tasks`."""
    for _, _, notes in group:
        if notes["task"] not in tasks:
            tasks.append(notes["task"])
    lengths = np.array([table.num_rows for _, table, _ in group])
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    frame = np.concatenate([np.arange(length) for length in lengths])
    numbers = pa.concat_tables([table.select(list(layout.vectors)).replace_schema_metadata() for _, table, _ in group])
    automatic = {
        "timestamp": (frame / layout.fps).astype(np.float32),
        "frame_index": frame,
        "episode_index": np.repeat([index for index, _, _ in group], lengths),
        "index": start + np.arange(bounds[-1]),
        "task_index": np.repeat([tasks.index(notes["task"]) for _, _, notes in group], lengths),
    }
    for name in _TABLE_COLUMNS:
        numbers = numbers.append_column(name, pa.array(automatic[name]))
    write_atomically(_data_path(root, *place), table_bytes(numbers.combine_chunks()))
    for feature in layout.pictures:
        _write_video(_video_path(root, feature, *place), layout, feature, group)
    rows = []
    for (index, table, notes), (first, end) in zip(group, pairwise(bounds.tolist()), strict=True):
        row: dict[str, Any] = {"episode_index": index, "tasks": [notes["task"]], "length": table.num_rows}
        row |= {"data/chunk_index": place[0], "data/file_index": place[1]}
        row |= {"dataset_from_index": start + first, "dataset_to_index": start + end}
        for feature in layout.pictures:
            row |= {f"videos/{feature}/chunk_index": place[0], f"videos/{feature}/file_index": place[1]}
            row |= {f"videos/{feature}/from_timestamp": first / layout.fps}
            row |= {f"videos/{feature}/to_timestamp": end / layout.fps}
        row |= {f"stats/{f}/{name}": value for f, stats in notes["stats"].items() for name, value in stats.items()}
        rows.append(row | notes["about"] | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
    return rows


def _write_video(path: Path, layout: Layout, feature: str, group: list[_Staged]) -> None:
    """The group's packets of one camera behind each other in an MP4."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    # The encoder is opened only for its headers, which are the same in every episode.
    with av.open(str(temporary), "w", format="mp4") as container:
        stream = add_h264(container, layout.image_size, layout.fps)
        number = 0
        for _, table, _ in group:
            for data, enters in zip(table[feature], table[f"{feature}.enters"], strict=True):
                packet = av.Packet(data.as_py())
                packet.stream = stream
                packet.time_base = Fraction(1, layout.fps)
                packet.pts = packet.dts = number
                packet.duration = 1
                packet.is_keyframe = enters.as_py()
                container.mux(packet)
                number += 1
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _next_place(chunk: int, file: int) -> tuple[int, int]:
    return (chunk, file + 1) if file + 1 < FILES_PER_CHUNK else (chunk + 1, 0)


def _data_path(root: Path, chunk: int, file: int) -> Path:
    return root / f"data/chunk-{chunk:03d}/file-{file:03d}.parquet"


def _video_path(root: Path, feature: str, chunk: int, file: int) -> Path:
    return root / f"videos/{feature}/chunk-{chunk:03d}/file-{file:03d}.mp4"


def _whole_parquet(path: Path) -> bool:
    try:
        return pq.read_metadata(path).num_rows > 0
    except (pa.ArrowException, OSError):
        return False


def _whole_mp4(path: Path) -> bool:
    """Whether an MP4's boxes end where the file ends: a cheap test that catches truncation."""
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


# -- meta --------------------------------------------------------------------------------------------------------------


def _episode_rows(root: Path) -> list[dict[str, Any]]:
    try:
        schema = pq.read_schema(root / _EPISODES)
        columns = [name for name in schema.names if name.endswith(("chunk_index", "file_index"))]
        places = pq.read_table(root / _EPISODES, columns=columns).slice(0, finished_episodes(root))
    except (pa.ArrowException, OSError):
        raise ValueError(f"{root / _EPISODES} is damaged or missing; delete {root} and collect again") from None
    return places.group_by(columns).aggregate([]).to_pylist()


def _tasks(root: Path) -> list[str]:
    table = pq.read_table(root / "meta/tasks.parquet").sort_by("task_index")
    return table["task"].to_pylist()


def _write_tasks(root: Path, tasks: list[str]) -> None:
    import pandas as pd  # LeRobot reads the tasks as the index of a pandas frame

    sink = io.BytesIO()
    pd.DataFrame({"task_index": range(len(tasks))}, index=pd.Index(tasks, name="task")).to_parquet(sink)
    write_atomically(root / "meta/tasks.parquet", sink.getvalue())


def _info(layout: Layout, episodes: int, frames: int, tasks: int, robot_type: str) -> dict[str, Any]:
    size = layout.image_size
    features: dict[str, Any] = {}
    for feature in layout.pictures:
        features[feature] = {
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
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "robot_type": robot_type,
        "splits": {"train": f"0:{episodes}"},
    }
