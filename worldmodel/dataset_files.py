"""Reading a LeRobotDataset v3: checked at the door, its videos decoded once into a memory-mapped cache beside it.

Indexing bytes is far faster than decoding video in the training loop.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from worldmodel.interface import ActionSpace

CACHE = ".decoded"


class DatasetError(ValueError):
    """A dataset that cannot be learned from, said in one sentence."""


def read(
    root: Path, cameras: tuple[str, ...], action_space: ActionSpace, blind_state_size: int | None = None
) -> dict[str, Any]:
    """One dataset; with `blind_state_size` its states (of that size) and actions stay zeros, whatever they are."""
    info_path = root / "meta/info.json"
    if not info_path.exists():
        raise DatasetError(
            f"{root} is no finished LeRobotDataset (meta/info.json is missing); run premotor collect ... out={root} "
            "again to finish it"
        )
    try:
        info = json.loads(info_path.read_text())
    except json.JSONDecodeError as error:
        raise DatasetError(f"{info_path} is damaged ({error.msg} at line {error.lineno})") from None
    if not str(info.get("codebase_version", "")).startswith("v3"):
        raise DatasetError(f"{root} is a LeRobotDataset {info.get('codebase_version')}; version v3.0 is read here")
    missing = [name for name in ("features", "fps", "total_frames", "video_path") if info.get(name) is None]
    if missing:
        raise DatasetError(f"{info_path} is damaged or foreign: it says nothing of {missing[0]}")
    features = info["features"]
    for camera in cameras:
        _check_camera(root, features, f"observation.images.{camera}")
    if len({tuple(features[f"observation.images.{camera}"]["shape"]) for camera in cameras}) > 1:
        raise DatasetError(f"the cameras {', '.join(cameras)} of {root} differ in size")
    table = _table(root, info)
    if blind_state_size is None:
        states, actions = _known(root, info, table, action_space)
    else:
        states = np.zeros((table.num_rows, blind_state_size), np.float32)
        actions = np.zeros((table.num_rows, action_space.size), np.float32)
    has_truth = "observation.environment_state" in features
    truth = _column(root, table, "observation.environment_state") if has_truth else None
    episode = table["episode_index"].to_numpy()
    lengths = np.bincount(episode)
    recorded = np.stack(table["action"].to_numpy()) if "action" in table.column_names else episode
    fingerprint = _fingerprint(info, np.asarray(recorded, np.float32))
    return {
        "pictures": _pictures(root, info, cameras, lengths, fingerprint),
        "states": states,
        "actions": actions,
        "truth": truth,
        "lengths": lengths,
        "fingerprint": fingerprint,
        "recipe": _recipe(root / "meta/collection.json"),
    }


def _recipe(path: Path) -> dict[str, Any] | None:
    """How the dataset was collected, where it says so."""
    if not path.exists():
        return None
    try:
        recipe = json.loads(path.read_text())
    except ValueError as error:
        raise DatasetError(f"{path} is damaged ({error})") from None
    return recipe if isinstance(recipe, dict) else None


def _known(
    root: Path, info: dict[str, Any], table: pa.Table, action_space: ActionSpace
) -> tuple[np.ndarray, np.ndarray]:
    """States (frames, P) and actions (frames, A) in [-1, 1], checked against the action space."""
    features = info["features"]
    for key in ("observation.state", "action"):
        if key not in features:
            raise DatasetError(f"{root} has no {key}")
    if list(features["action"]["shape"]) != [action_space.size]:
        raise DatasetError(
            f"{root} has actions of {features['action']['shape'][0]} numbers; the action space has {action_space.size}"
        )
    if abs(float(info["fps"]) - action_space.rate_hz) > 1e-6:
        raise DatasetError(
            f"{root} was recorded at {info['fps']} Hz; the action space is at {action_space.rate_hz:g} Hz"
        )
    states = _column(root, table, "observation.state")
    physical = _column(root, table, "action")
    actions = action_space.to_unit(torch.tensor(physical)).numpy()
    if np.abs(actions).max() > 1.001:
        row, column = np.unravel_index(int(np.abs(actions).argmax()), actions.shape)
        raise DatasetError(
            f"{root}: action {action_space.names[column]} is {physical[row, column]:.4g} in frame {row}, outside the "
            f"bounds [{action_space.low[column]:g}, {action_space.high[column]:g}]"
        )
    return states, actions.astype(np.float32)


def _check_camera(root: Path, features: dict[str, Any], key: str) -> None:
    if key not in features:
        has = [name for name in features if name.startswith("observation.images.")]
        raise DatasetError(f"{root} has no {key}; it has {', '.join(has) or 'no pictures'}")
    height, width, channels = features[key]["shape"]
    if height != width or channels != 3:
        raise DatasetError(f"{root}: {key} is {height} x {width} x {channels}; square colour pictures are read here")
    if features[key]["dtype"] != "video":
        raise DatasetError(f"{root}: {key} is stored as {features[key]['dtype']}s; datasets with videos are read here")


def _table(root: Path, info: dict[str, Any]) -> pa.Table:
    files = sorted((root / "data").glob("chunk-*/file-*.parquet"))
    try:
        table = pa.concat_tables([pq.read_table(file).replace_schema_metadata(None) for file in files])
    except (pa.ArrowInvalid, OSError) as error:
        raise DatasetError(f"{root}/data is truncated or damaged ({str(error).splitlines()[0]})") from None
    table = table.sort_by("index")
    if table.num_rows != info["total_frames"]:
        raise DatasetError(
            f"{root} is truncated: meta/info.json promises {info['total_frames']} frames, data/ holds {table.num_rows}"
        )
    if not table.num_rows:
        raise DatasetError(f"{root} is empty; collect some episodes first")
    return table


def _column(root: Path, table: pa.Table, name: str) -> np.ndarray:
    """A vector column as float32 (frames, n), checked to be finite."""
    column = table[name].combine_chunks()
    width = len(column[0])
    values = np.asarray(column.flatten(), dtype=np.float32).reshape(-1, width)
    if not np.isfinite(values).all():
        row, dimension = np.argwhere(~np.isfinite(values))[0]
        where = table["episode_index"][int(row)].as_py()
        raise DatasetError(f"{root}: {name} has NaN or infinity in dimension {dimension} of episode {where}")
    return values


def _fingerprint(info: dict[str, Any], actions: np.ndarray) -> str:
    """A short hash of what the dataset contains."""
    digest = hashlib.sha256(json.dumps(info["features"], sort_keys=True).encode())
    digest.update(np.ascontiguousarray(actions).tobytes())
    return digest.hexdigest()[:16]


def _pictures(
    root: Path, info: dict[str, Any], cameras: tuple[str, ...], lengths: np.ndarray, fingerprint: str
) -> np.ndarray:
    """All frames (frames, C, H, W, 3), decoded into the cache on first use."""
    height, width, _ = info["features"][f"observation.images.{cameras[0]}"]["shape"]
    shape = (int(lengths.sum()), len(cameras), height, width, 3)
    cache = root / CACHE / f"{'-'.join(cameras)}-{fingerprint}.npy"
    if cache.exists():
        pictures = np.load(cache, mmap_mode="r")
        if pictures.shape == shape:
            return pictures
    cache.parent.mkdir(exist_ok=True)
    _clear_leftovers(cache.parent)
    needed, free = int(np.prod(shape)), shutil.disk_usage(cache.parent).free
    if needed > free:
        raise DatasetError(f"decoding {root} needs {needed / 1e9:.1f} GB beside it; {free / 1e9:.1f} GB are free")
    temporary = cache.with_suffix(f".{os.getpid()}.part")
    pictures = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    try:
        rows = _episode_rows(root, len(lengths))
        for number, camera in enumerate(cameras):
            _decode_camera(root, info, rows, f"observation.images.{camera}", starts, pictures[:, number])
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    pictures.flush()
    os.replace(temporary, cache)
    return np.load(cache, mmap_mode="r")


def _clear_leftovers(folder: Path) -> None:
    """Half-written caches of processes that were killed."""
    for part in folder.glob("*.part"):
        owner = part.name.split(".")[-2]
        if not (owner.isdigit() and Path(f"/proc/{owner}").exists()):
            part.unlink(missing_ok=True)


def _episode_rows(root: Path, episodes: int) -> pa.Table:
    """One row an episode: in which video file it lies and when it begins there."""
    files = sorted((root / "meta/episodes").glob("chunk-*/file-*.parquet"))
    try:
        rows = pa.concat_tables([pq.read_table(file) for file in files]).sort_by("episode_index")
    except (pa.ArrowInvalid, OSError) as error:
        raise DatasetError(f"{root}/meta/episodes is truncated or damaged ({str(error).splitlines()[0]})") from None
    if rows.num_rows != episodes:
        raise DatasetError(f"{root} is truncated: meta/episodes knows {rows.num_rows} episodes, data/ holds {episodes}")
    return rows


def _decode_camera(
    root: Path, info: dict[str, Any], rows: pa.Table, key: str, starts: np.ndarray, out: np.ndarray
) -> None:
    """Decode one camera's videos, each file once, into `out` (frames, H, W, 3)."""
    from rich.progress import track

    by_file: dict[tuple[int, int], list[int]] = {}
    chunk, file = rows[f"videos/{key}/chunk_index"].to_pylist(), rows[f"videos/{key}/file_index"].to_pylist()
    begin = rows[f"videos/{key}/from_timestamp"].to_pylist()
    for episode in range(rows.num_rows):
        by_file.setdefault((chunk[episode], file[episode]), []).append(episode)
    for (chunk_index, file_index), episodes in track(by_file.items(), description=f"decode {key}", transient=True):
        path = root / info["video_path"].format(video_key=key, chunk_index=chunk_index, file_index=file_index)
        firsts = [round(begin[episode] * info["fps"]) for episode in episodes]
        lengths = [int(starts[episode + 1] - starts[episode]) for episode in episodes]
        # Where each frame of the file belongs; -1: to no episode.
        place = np.full(max(first + length for first, length in zip(firsts, lengths, strict=True)), -1)
        for episode, first, length in zip(episodes, firsts, lengths, strict=True):
            place[first : first + length] = np.arange(starts[episode], starts[episode + 1])
        seen = _decode_file(path, place, out)
        if seen < len(place):
            raise DatasetError(f"{path} is truncated: it has {seen} frames, its episodes need {len(place)}")


def _decode_file(path: Path, place: np.ndarray, out: np.ndarray) -> int:
    """Decode a video frame by frame, frame n to out[place[n]]; returns how many there were."""
    import av
    from av.error import FFmpegError

    seen = 0
    try:
        with av.open(str(path)) as container:
            container.streams.video[0].thread_count = 1
            for frame in container.decode(video=0):
                if seen < len(place) and place[seen] >= 0:
                    out[place[seen]] = frame.to_ndarray(format="rgb24")
                seen += 1
    except (FFmpegError, ValueError, IndexError) as error:
        raise DatasetError(f"{path} is truncated or no video ({error})") from None
    return seen
