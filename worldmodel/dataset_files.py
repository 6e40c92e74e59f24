"""The door to a LeRobotDataset v3: its tables checked, its numbers as arrays, its pictures untouched."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from worldmodel.decoding import DatasetError

STATE, ACTION, TRUTH = "observation.state", "action", "observation.environment_state"
# How far a timestamp may be from its frame's time, in seconds: LeRobot's own tolerance.
TOLERANCE_S = 1e-4


@dataclass(frozen=True)
class Recording:
    """A LeRobotDataset whose tables are checked, its pictures untouched.

    Attributes:
        root: its folder.
        info: its meta/info.json.
        table: every frame's numbers, one row each, in order.
        lengths: (episodes,) frames of each.
        fingerprint: a short hash of what it contains.
        recipe: how it was collected or recorded, where it says so.
    """

    root: Path
    info: dict[str, Any]
    table: pa.Table
    lengths: np.ndarray
    fingerprint: str
    recipe: dict[str, Any] | None

    @property
    def fps(self) -> float:
        """Frames a second."""
        return float(self.info["fps"])

    @property
    def cameras(self) -> dict[str, str]:
        """Camera name -> feature; depth maps are no pictures to look at."""
        return _cameras(self.info)

    def vector(self, name: str) -> np.ndarray:
        """A numeric column as float32 (frames, n), checked to be there and finite."""
        if name not in self.info["features"] or name not in self.table.column_names:
            raise DatasetError(f"{self.root} has no {name}")
        return _column(self.root, self.table, name)

    def names(self, name: str) -> list[str]:
        """What a column's numbers are called, as far as the dataset says; LeRobot allows lists and nested mappings."""
        if self.is_named(name):
            return leaves(self.info["features"][name]["names"])
        return [f"{name.removeprefix('observation.')}_{number}" for number in range(self.vector(name).shape[1])]

    def is_named(self, name: str) -> bool:
        """Whether each of a column's numbers has a name of its own."""
        said = leaves(self.info["features"][name].get("names"))
        return len(said) == len(set(said)) == self.vector(name).shape[1]

    def action_bounds(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Lowest and highest action (A,) that whoever recorded it would send, where the dataset says so."""
        try:
            low, high = (np.asarray((self.recipe or {})[f"action_{end}"], dtype=np.float64) for end in ("low", "high"))
        except (KeyError, TypeError, ValueError):
            return None
        return (low, high) if low.shape == high.shape == (len(self.names(ACTION)),) and (low < high).all() else None

    def frame(self) -> str | None:
        """The frame its actions are in, where the dataset or its collection says so."""
        action = self.info["features"].get(ACTION, {})
        for where in (action, action.get("info") or {}, self.info, self.recipe or {}):
            for key in ("frame", "action_frame", "reference_frame", "coordinate_frame"):
                if isinstance(where.get(key), str):
                    return where[key]
        return None


def open_recording(root: Path) -> Recording:
    """A dataset's numbers, checked: nothing lost, no gaps, every episode whole."""
    info = _info(root)
    table = _table(root, info)
    episode = table["episode_index"].to_numpy()
    lengths = np.bincount(episode)
    _check_rows(root, info, table, episode, lengths)
    recorded = np.stack(table[ACTION].to_numpy()) if ACTION in table.column_names else episode
    fingerprint = _fingerprint(info, np.asarray(recorded, np.float32))
    return Recording(root, info, table, lengths, fingerprint, _recipe(root))


def open_cameras(root: Path) -> tuple[str, ...]:
    """The cameras of a dataset, by its description alone."""
    return tuple(_cameras(_info(root)))


def _cameras(info: dict[str, Any]) -> dict[str, str]:
    """Camera name -> feature."""
    names = {}
    for key, feature in info["features"].items():
        if feature["dtype"] in ("video", "image") and not is_depth(feature):
            names[key.removeprefix("observation.images.").removeprefix("observation.")] = key
    return names


def is_depth(feature: dict[str, Any]) -> bool:
    about = (feature.get("info") or {}) | (feature.get("video_info") or {})
    return bool(about.get("is_depth_map") or about.get("video.is_depth_map"))


# -- numbers -----------------------------------------------------------------------------------------------------------


def _column(root: Path, table: pa.Table, name: str) -> np.ndarray:
    """A vector column as float32 (frames, n), checked to be finite; LeRobot stores vectors of one number as numbers."""
    column = table[name].combine_chunks()
    if column.null_count:
        row = int(np.flatnonzero(np.asarray(column.is_null()))[0])
        where = table["episode_index"][row].as_py()
        raise DatasetError(f"{root}: {name} is missing in episode {where}, frame {table['frame_index'][row].as_py()}")
    flat = column.flatten() if pa.types.is_nested(column.type) else column
    if pa.types.is_nested(flat.type) or len(flat) % len(column):
        raise DatasetError(f"{root}: {name} is no vector of one length; vectors are read here")
    values = np.asarray(flat, dtype=np.float32).reshape(len(column), -1)
    if not np.isfinite(values).all():
        row, dimension = np.argwhere(~np.isfinite(values))[0]
        where = table["episode_index"][int(row)].as_py()
        raise DatasetError(f"{root}: {name} has NaN or infinity in dimension {dimension} of episode {where}")
    return values


def leaves(names: Any) -> list[str]:
    """The names in a list, a mapping of lists, or a mapping from name to place."""
    if isinstance(names, dict):
        if names and all(isinstance(place, int) for place in names.values()):
            return sorted(names, key=lambda name: names[name])
        return [leaf for inner in names.values() for leaf in leaves(inner)]
    if isinstance(names, list | tuple):
        return [leaf for inner in names for leaf in leaves(inner)]
    return [names] if isinstance(names, str) else []


# -- the door ----------------------------------------------------------------------------------------------------------


def _info(root: Path) -> dict[str, Any]:
    path = root / "meta/info.json"
    if not path.exists():
        raise DatasetError(
            f"{root} is no finished LeRobotDataset (meta/info.json is missing); run premotor collect ... out={root} "
            "again to finish it"
        )
    try:
        info = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise DatasetError(f"{path} is damaged ({error.msg} at line {error.lineno})") from None
    if not str(info.get("codebase_version", "")).startswith("v3"):
        raise DatasetError(f"{root} is a LeRobotDataset {info.get('codebase_version')}; version v3.0 is read here")
    missing = [name for name in ("features", "fps", "total_frames") if info.get(name) is None]
    if missing:
        raise DatasetError(f"{path} is damaged or foreign: it says nothing of {missing[0]}")
    if not (isinstance(info["fps"], int | float) and info["fps"] > 0):
        raise DatasetError(f"{path} says fps={info['fps']!r}; frames a second are more than 0")
    return info


def _recipe(root: Path) -> dict[str, Any] | None:
    """How the dataset was collected, or which arm recorded it, where it says so."""
    path = next((path for name in ("collection", "recording") if (path := root / f"meta/{name}.json").exists()), None)
    if path is None:
        return None
    try:
        recipe = json.loads(path.read_text())
    except ValueError as error:
        raise DatasetError(f"{path} is damaged ({error})") from None
    return recipe if isinstance(recipe, dict) else None


def _table(root: Path, info: dict[str, Any]) -> pa.Table:
    """Every column but pictures, which are read when they are asked for."""
    try:
        parts = []
        for file in data_files(root):
            names = pq.read_schema(file).names
            wanted = [name for name in names if info["features"].get(name, {}).get("dtype") != "image"]
            parts.append(pq.read_table(file, columns=wanted).replace_schema_metadata(None))
        table = pa.concat_tables(parts)
    except (pa.ArrowInvalid, OSError) as error:
        raise DatasetError(f"{root}/data is truncated or damaged ({str(error).splitlines()[0]})") from None
    for name in ("index", "episode_index", "frame_index", "timestamp"):
        if name not in table.column_names:
            raise DatasetError(f"{root}/data is damaged or foreign: it has no column {name}")
    table = table.sort_by("index")
    if table.num_rows != info["total_frames"]:
        raise DatasetError(
            f"{root} is truncated: meta/info.json promises {info['total_frames']} frames, data/ holds {table.num_rows}"
        )
    if not table.num_rows:
        raise DatasetError(f"{root} is empty; collect some episodes first")
    return table


def data_files(root: Path) -> list[Path]:
    """The tables of a dataset, in order."""
    return sorted((root / "data").glob("chunk-*/file-*.parquet"))


def _check_rows(root: Path, info: dict[str, Any], table: pa.Table, episode: np.ndarray, lengths: np.ndarray) -> None:
    """No frame lost, none twice, and time advancing by one frame at a time."""
    index, frame = table["index"].to_numpy(), table["frame_index"].to_numpy()
    if (index != np.arange(len(index))).any():
        row = int((index != np.arange(len(index))).argmax())
        raise DatasetError(f"{root}/data has a gap: row {row} calls itself {index[row]}; record or convert it again")
    if (lengths == 0).any() or (np.diff(episode) < 0).any():
        gone = np.flatnonzero(lengths == 0)
        what = f"episode {gone[0]} has no frames" if len(gone) else "its episodes are mixed"
        raise DatasetError(f"{root}/data has a gap: {what}; record or convert it again")
    wanted = np.arange(len(frame)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    if (frame != wanted).any():
        row = int((frame != wanted).argmax())
        raise DatasetError(
            f"{root} has a gap in episode {episode[row]}: frame {wanted[row]} is missing (frame {frame[row]} stands in "
            "its place); leave the episode out or record it again"
        )
    time = table["timestamp"].to_numpy().astype(np.float64)
    late = np.diff(time) - 1 / float(info["fps"])
    # Times are stored in 32 bits: hours into an episode they are no longer exact to the tolerance.
    allowed = TOLERANCE_S + 2.0**-23 * np.abs(time[1:])
    wrong = (wanted[1:] > 0) & ~(np.abs(late) <= allowed)
    if wrong.any():
        row = 1 + int(wrong.argmax())
        raise DatasetError(
            f"{root} has a gap in episode {episode[row]}: frame {frame[row]} comes {time[row] - time[row - 1]:.4g} s after "
            f"the one before; at {info['fps']} fps it should be {1 / float(info['fps']):.4g} s"
        )


def _fingerprint(info: dict[str, Any], actions: np.ndarray) -> str:
    """A short hash of what the dataset contains."""
    digest = hashlib.sha256(json.dumps(info["features"], sort_keys=True).encode())
    digest.update(np.ascontiguousarray(actions).tobytes())
    return digest.hexdigest()[:16]
