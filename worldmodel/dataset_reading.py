"""What is learned from of a dataset: its pictures decoded, its actions in [-1, 1], every so manieth frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from worldmodel.dataset_files import ACTION, STATE, TRUTH, Recording, data_files, is_depth, leaves
from worldmodel.decoding import DatasetError, cached, colours, fit, frames_of_video, picture_from_bytes
from worldmodel.interface import ActionSpace


def read(
    recording: Recording,
    cameras: tuple[str, ...],
    action_space: ActionSpace,
    *,
    blind_state_size: int | None = None,
    image_size: int | None = None,
    stride: int = 1,
    joins: tuple[str, ...] = (),
) -> dict[str, Any]:
    """What is learned from: pictures (frames, C, S, S, 3), states, actions in [-1, 1], lengths, fingerprint.

    Beside it `truth` and `probed`, the world's and the arm's state where the dataset knows them, to measure by.

    Args:
        recording: the dataset.
        cameras: whose pictures.
        action_space: bounds of the actions, at the rate that the stride leaves.
        blind_state_size: given, states (of that size) and actions stay zeros, whatever they are.
        image_size: side of the pictures; None keeps the shorter side of the first camera's.
        stride: every so manieth frame is taken.
        joins: sum, mean or last for each number of the action: how the skipped frames' actions count.
    """
    features = recording.info["features"]
    for camera in cameras:
        _check_camera(recording, camera)
    kept, lengths = strided(recording.lengths, stride)
    if blind_state_size is None:
        states = probed = recording.vector(STATE)[kept]
        actions = _in_space(recording, joined_actions(recording, stride, joins), action_space, stride)
    else:
        states = np.zeros((len(kept), blind_state_size), np.float32)
        actions = np.zeros((len(kept), action_space.size), np.float32)
        probed = _states_if_sound(recording, kept)
    shapes = {picture_shape(features[recording.cameras[camera]])[:2] for camera in cameras}
    size = image_size or min(picture_shape(features[recording.cameras[cameras[0]]])[:2])
    fingerprint = recording.fingerprint
    if shapes != {(size, size)}:
        fingerprint += f"-{size}px"
    if stride > 1:
        fingerprint += f"-every{stride}"
    return {
        "pictures": _pictures(recording, cameras, kept, size, fingerprint),
        "states": states,
        "actions": actions,
        "probed": probed,
        "truth": recording.vector(TRUTH)[kept] if TRUTH in features else None,
        "lengths": lengths,
        "fingerprint": fingerprint,
        "recipe": recording.recipe,
    }


def _states_if_sound(recording: Recording, kept: np.ndarray) -> np.ndarray | None:
    """States that nothing is learned from, only measured by: whatever is wrong with them is no reason to stop."""
    try:
        return recording.vector(STATE)[kept]
    except DatasetError:
        return None


# -- numbers -----------------------------------------------------------------------------------------------------------


def strided(lengths: np.ndarray, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Frame indices of every `stride`-th frame of each episode, and the episodes' new lengths."""
    starts = np.cumsum(lengths) - lengths
    place = np.arange(int(lengths.sum())) - np.repeat(starts, lengths)
    return np.flatnonzero(place % stride == 0), -(-lengths // stride)


def joined_actions(recording: Recording, stride: int, joins: tuple[str, ...]) -> np.ndarray:
    """(frames, A) physical: what is done between one taken frame and the next, float32.

    >>> from types import SimpleNamespace
    >>> fake = SimpleNamespace(lengths=np.array([5]), vector=lambda _: np.arange(10.0).reshape(5, 2))
    >>> joined_actions(fake, 2, ("sum", "last")).tolist()
    [[2.0, 3.0], [10.0, 7.0], [8.0, 9.0]]
    """
    actions = recording.vector(ACTION)
    if stride == 1:
        return actions
    if len(joins) != actions.shape[1]:
        raise ValueError(f"{len(joins)} ways to join skipped actions of {actions.shape[1]} numbers")
    kept, _ = strided(recording.lengths, stride)
    counts = np.diff(np.append(kept, len(actions)))[:, None]
    sums = np.add.reduceat(actions.astype(np.float64), kept, axis=0)
    ways = {"sum": sums, "mean": sums / counts, "last": actions[kept + counts[:, 0] - 1]}
    return np.stack([ways[join][:, number] for number, join in enumerate(joins)], 1).astype(np.float32)


def _in_space(recording: Recording, physical: np.ndarray, action_space: ActionSpace, stride: int) -> np.ndarray:
    """Physical actions (frames, A) in [-1, 1], checked against the action space."""
    root = recording.root
    if physical.shape[1] != action_space.size:
        raise DatasetError(
            f"{root} has actions of {physical.shape[1]} numbers; the action space has {action_space.size}"
        )
    if abs(recording.fps / stride - action_space.rate_hz) > 1e-6:
        taken = "" if stride == 1 else f" and every {stride}th frame is taken"
        fits = recording.fps / action_space.rate_hz
        hint = f"; say stride={fits:.0f}" if fits > 1.5 and abs(fits - round(fits)) < 1e-6 else ""
        raise DatasetError(
            f"{root} was recorded at {recording.info['fps']} Hz{taken}; the action space is at "
            f"{action_space.rate_hz:g} Hz{hint}"
        )
    actions = action_space.to_unit(torch.tensor(physical)).numpy()
    if np.abs(actions).max() > 1.001:
        row, column = np.unravel_index(int(np.abs(actions).argmax()), actions.shape)
        raise DatasetError(
            f"{root}: action {action_space.names[column]} is {physical[row, column]:.4g} in frame {row * stride}, "
            f"outside the bounds [{action_space.low[column]:g}, {action_space.high[column]:g}]"
        )
    return actions.astype(np.float32)


# -- pictures ----------------------------------------------------------------------------------------------------------


def picture_shape(feature: dict[str, Any]) -> tuple[int, int, int]:
    """Height, width and channels, in whichever order the dataset has them."""
    shape, names = [int(side) for side in feature["shape"]], leaves(feature.get("names"))
    if len(shape) == 2:
        shape.append(1)
    if (len(names) == 3 and names[0].startswith("channel")) or (shape[0] in (1, 3, 4) and shape[2] not in (1, 3, 4)):
        shape = [*shape[1:], shape[0]]
    return shape[0], shape[1], shape[2]


def _check_camera(recording: Recording, camera: str) -> None:
    root, has = recording.root, recording.cameras
    if camera not in has:
        depth = recording.info["features"].get(f"observation.images.{camera}")
        what = f"; {camera} is a depth map" if depth is not None and is_depth(depth) else ""
        raise DatasetError(
            f"{root} has no observation.images.{camera}; it has {', '.join(has.values()) or 'no pictures'}{what}"
        )
    feature = recording.info["features"][has[camera]]
    if len(feature["shape"]) not in (2, 3):
        raise DatasetError(
            f"{root}: {has[camera]} has shape {feature['shape']}; pictures are height x width x channels"
        )
    if feature["dtype"] == "video" and recording.info.get("video_path") is None:
        raise DatasetError(f"{root}/meta/info.json is damaged or foreign: it says nothing of video_path")


def _pictures(
    recording: Recording, cameras: tuple[str, ...], kept: np.ndarray, size: int, fingerprint: str
) -> np.ndarray:
    """The kept frames (K, C, S, S, 3), decoded into the cache on first use."""
    place = np.full(recording.table.num_rows, -1)
    place[kept] = np.arange(len(kept))

    def fill(pictures: np.ndarray) -> None:
        for number, camera in enumerate(cameras):
            key = recording.cameras[camera]
            if recording.info["features"][key]["dtype"] == "video":
                _decode_videos(recording, key, place, pictures[:, number])
            else:
                _decode_images(recording, key, place, pictures[:, number])

    shape = (len(kept), len(cameras), size, size, 3)
    return cached(recording.root, f"{'-'.join(cameras)}-{fingerprint}.npy", shape, fill)


def _decode_images(recording: Recording, key: str, place: np.ndarray, out: np.ndarray) -> None:
    """Decode pictures kept in the tables, frame n to out[place[n]] (K, S, S, 3)."""
    from rich.progress import track

    for path in track(data_files(recording.root), description=f"decode {key}", transient=True):
        opened = pq.ParquetFile(path)
        if key not in opened.schema_arrow.names:
            raise DatasetError(f"{path} has no column {key}, which meta/info.json says is stored as images")
        for batch in opened.iter_batches(batch_size=64, columns=["index", key]):
            for index, picture in zip(batch["index"].to_pylist(), batch[key].to_pylist(), strict=True):
                if place[index] < 0:
                    continue
                data = picture.get("bytes") if isinstance(picture, dict) else picture
                if not isinstance(data, bytes):
                    raise DatasetError(f"{path}: {key} of frame {index} is missing (no picture in the table)")
                out[place[index]] = fit(picture_from_bytes(data, f"{path}: {key} of frame {index}"), out.shape[1])


def _episode_rows(recording: Recording, key: str) -> list[tuple[int, int, float]]:
    """For every episode: chunk and file of its video, and when it begins there (s)."""
    root, episodes = recording.root, len(recording.lengths)
    files = sorted((root / "meta/episodes").glob("chunk-*/file-*.parquet"))
    columns = [f"videos/{key}/{name}" for name in ("chunk_index", "file_index", "from_timestamp")]
    try:
        rows = pa.concat_tables([pq.read_table(file, columns=["episode_index", *columns]) for file in files])
        rows = rows.sort_by("episode_index")
    except (pa.ArrowInvalid, OSError) as error:
        raise DatasetError(f"{root}/meta/episodes is truncated or damaged ({str(error).splitlines()[0]})") from None
    if missing := [name for name in columns if name not in rows.column_names]:
        raise DatasetError(f"{root}/meta/episodes is damaged or foreign: it has no column {missing[0]}")
    if rows.num_rows != episodes:
        raise DatasetError(f"{root} is truncated: meta/episodes knows {rows.num_rows} episodes, data/ holds {episodes}")
    return list(zip(*(rows[name].to_pylist() for name in columns), strict=True))


def _decode_videos(recording: Recording, key: str, place: np.ndarray, out: np.ndarray) -> None:
    """Decode one camera's videos, each file once, frame n to out[place[n]] (K, S, S, 3)."""
    from rich.progress import track

    by_file: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for episode, (chunk, file, begin) in enumerate(_episode_rows(recording, key)):
        by_file.setdefault((chunk, file), []).append((episode, round(begin * recording.fps)))
    ends = np.cumsum(recording.lengths)
    for (chunk, file), episodes in track(by_file.items(), description=f"decode {key}", transient=True):
        path = recording.root / recording.info["video_path"].format(video_key=key, chunk_index=chunk, file_index=file)
        # Where each frame of the file belongs; -1: nowhere.
        wanted = np.full(max(first + recording.lengths[episode] for episode, first in episodes), -1)
        for episode, first in episodes:
            wanted[first : first + recording.lengths[episode]] = place[
                ends[episode] - recording.lengths[episode] : ends[episode]
            ]
        seen = _decode_file(path, wanted, recording.fps, out)
        if seen < len(wanted):
            raise DatasetError(f"{path} is truncated: it has {seen} frames, its episodes need {len(wanted)}")


def _decode_file(path: Path, place: np.ndarray, fps: float, out: np.ndarray) -> int:
    """Decode a video frame by frame, frame n to out[place[n]]; returns how many there were."""
    seen, begin = 0, None
    for time, frame in frames_of_video(path):
        if seen < len(place):
            begin = time if begin is None else begin
            if time is not None and begin is not None and abs((time - begin) * fps - seen) > 0.5:
                raise DatasetError(
                    f"{path}: frame {seen} is shown at {time:.4g} s; at {fps:g} fps it should be {seen / fps:.4g} s "
                    "(frames are missing, or the video has another rate than meta/info.json says)"
                )
            if place[seen] >= 0:
                out[place[seen]] = fit(colours(frame), out.shape[1])
        seen += 1
    return seen
