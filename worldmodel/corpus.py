"""What a run needs to know of its data: which cameras, how large a state, which action space at which rate.

Several datasets must agree; what a config leaves open (null) is taken from them, and what was decided is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel import checkpoint, processes
from worldmodel.conventions import Conventions, examine, is_constant
from worldmodel.dataset_files import ACTION, STATE, Recording, open_cameras, open_recording
from worldmodel.dataset_reading import joined_actions, read, strided
from worldmodel.decoding import DatasetError
from worldmodel.interface import TABLETOP, ActionSpace
from worldmodel.networks import Architecture, architecture_from_dict
from worldmodel.video_folder import videos_in, watch

ACTION_SPACES = ("auto", "tabletop")
# Beyond the recorded actions, as a share of their range; and half the span of a number that never changes.
MARGIN = 0.02
TINY = 1e-3
# So many times farther out than where 98 % of the actions lie, and that seldom, is no motion but a glitch.
GLITCH, SELDOM = 20.0, 1e-4
VIDEO_CAMERA = "video"
# In so many episodes, evenly spread, it is looked whether the cameras see anything move: pictures are slow to fetch.
LOOKED_AT = 1000


# -- reading -----------------------------------------------------------------------------------------------------------


def gathered(
    roots: Sequence[Path],
    cameras: tuple[str, ...],
    action_space: ActionSpace,
    *,
    blind_state_size: int | None,
    image_size: int | None,
    stride: int,
    rate_hz: float | None,
    episode_frames: int,
) -> tuple[list[dict[str, Any]], Conventions | None]:
    """Every dataset as `dataset_files.read` gives it, and what their actions mean (None where they are not read)."""
    if stride < 1:
        raise DatasetError(f"stride is {stride}; it must be at least 1 (every frame)")
    if blind_state_size is not None:
        parts = [
            _seen(root, cameras, action_space, blind_state_size, image_size, rate_hz, episode_frames) for root in roots
        ]
        return parts, None
    recordings = open_all(roots)
    conventions = examine_all(recordings)
    return [
        read(each, cameras, action_space, image_size=image_size, stride=stride, joins=conventions.joins)
        for each in recordings
    ], conventions


def _seen(
    root: Path,
    cameras: tuple[str, ...],
    action_space: ActionSpace,
    state_size: int,
    image_size: int | None,
    rate_hz: float | None,
    episode_frames: int,
) -> dict[str, Any]:
    """One dataset or folder of videos for its pictures alone: states and actions are zeros."""
    if _is_dataset(root):
        recording = open_recording(root)
        stride = 1 if rate_hz is None else max(1, round(recording.fps / rate_hz))
        part = read(recording, cameras, action_space, blind_state_size=state_size, image_size=image_size, stride=stride)
        if stride > 1:
            part["remarks"] = [f"{root} has {recording.fps:g} frames a second: every {stride}th is taken"]
        return part
    if len(cameras) != 1:
        raise DatasetError(f"{root} is a folder of videos: one camera; architecture.cameras has {len(cameras)}")
    part = watch(root, image_size or Architecture().image_size, rate_hz or action_space.rate_hz, episode_frames)
    frames = len(part["pictures"])
    return part | {
        "states": np.zeros((frames, state_size), np.float32),
        "actions": np.zeros((frames, action_space.size), np.float32),
        "probed": None,
        "truth": None,
        "recipe": None,
    }


def open_all(roots: Sequence[Path]) -> list[Recording]:
    """The datasets' numbers, checked to be of one kind: as many states and actions, alike in name and rate."""
    for root in roots:
        if not _is_dataset(root) and videos_in(root):
            raise DatasetError(
                f"{root} is a folder of videos: there are no actions to adapt to. premotor pretrain data={root} learns an "
                "encoder from them; premotor adapt needs a LeRobotDataset"
            )
    recordings = [open_recording(root) for root in roots]
    for each in recordings:
        for name in (STATE, ACTION):
            each.vector(name)
    first = recordings[0]
    for each in recordings[1:]:
        if each.fps != first.fps:
            raise DatasetError(
                f"{first.root} was recorded at {first.fps:g} Hz, {each.root} at {each.fps:g} Hz; datasets learned from "
                "together must have one rate"
            )
        for name in (STATE, ACTION):
            one, other = first.vector(name).shape[1], each.vector(name).shape[1]
            if one != other:
                raise DatasetError(
                    f"the datasets' {name} differ in size: {first.root} has {one} numbers, {each.root} has {other}"
                )
        if first.names(ACTION) != each.names(ACTION) and each.is_named(ACTION) and first.is_named(ACTION):
            raise DatasetError(
                f"an action is ({', '.join(first.names(ACTION))}) in {first.root} and ({', '.join(each.names(ACTION))}) "
                f"in {each.root}; datasets learned from together must act alike"
            )
    return recordings


def examine_all(recordings: Sequence[Recording]) -> Conventions:
    """What the actions of datasets of one kind mean, from all of them together."""
    named = next((each for each in recordings if each.is_named(ACTION)), recordings[0])
    frames = [each.frame() for each in recordings]
    return examine(
        np.concatenate([each.vector(STATE) for each in recordings]),
        np.concatenate([each.vector(ACTION) for each in recordings]),
        np.concatenate([each.lengths for each in recordings]),
        action_names=named.names(ACTION),
        state_names=recordings[0].names(STATE),
        rate_hz=recordings[0].fps,
        frame=frames[0] if len(set(frames)) == 1 else None,
    )


def frozen_cameras(
    pictures: Any, states: np.ndarray, lengths: np.ndarray, cameras: Sequence[str], chunk: int = 256
) -> list[str]:
    """A sentence for every camera whose picture stands still through episodes in which the state moves."""
    starts = np.cumsum(lengths) - lengths
    moved = np.maximum.reduceat(states, starts) - np.minimum.reduceat(states, starts)
    moving = np.flatnonzero((moved > 0.5 * states.std(0)).any(1) & (lengths > 2))
    moving = moving[np.unique(np.linspace(0, len(moving) - 1, min(LOOKED_AT, len(moving))).astype(int))]
    still: dict[int, list[int]] = {number: [] for number in range(len(cameras))}
    for begin in range(0, len(moving), chunk):
        some = moving[begin : begin + chunk]
        rows = starts[some][:, None] + np.stack([0 * some, lengths[some] // 2, lengths[some] - 1], 1)
        three = pictures[rows.ravel()].reshape(len(some), 3, *pictures.shape[1:])
        for number in range(len(cameras)):
            for place in np.flatnonzero(_alike(three[:, :1, number], three[:, 1:, number])):
                episode = some[place]
                every = pictures[np.arange(starts[episode], starts[episode] + lengths[episode])][None, :, number]
                if _alike(every[:, :1], every[:, 1:])[0]:
                    still[number].append(int(episode))
    return [
        f"the camera {cameras[number]} shows one unchanging picture in {len(found)} of {len(moving)} episodes looked at "
        f"in which the state moves ({', '.join(map(str, found[:5]))}{', ...' if len(found) > 5 else ''}): was it frozen?"
        for number, found in still.items()
        if found
    ]


def _alike(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N,) whether pictures (N, n, S, S, 3) differ by no more than an encoder's rounding from (N, 1, S, S, 3)."""
    apart = np.abs(others.astype(np.int16) - one)
    return (apart.max((1, 2, 3, 4)) <= 12) & (apart.mean((1, 2, 3, 4)) <= 0.5)


def _is_dataset(root: Path) -> bool:
    """Whether this is a LeRobotDataset, be it an unfinished one, and not just a folder."""
    return (root / "meta").is_dir()


# -- deciding ----------------------------------------------------------------------------------------------------------


def fit_to_data(
    sizes: dict[str, Any],
    roots: Sequence[str],
    *,
    action_space: str = "auto",
    stride: int = 1,
    start: str | None = None,
) -> tuple[Architecture, ActionSpace]:
    """The architecture and action space for datasets; prints what their actions were found to mean.

    Args:
        sizes: of the architecture; cameras, state_size and action_size may be left open (null).
        roots: LeRobotDatasets.
        action_space: `tabletop`, or `auto`: the tabletop's where the data is its, else what an arm recorded with, else from
            the data (or from `start`).
        stride: every so manieth frame will be taken.
        start: the checkpoint whose weights are gone on from: its actions keep their meaning.
    """
    from rich.console import Console

    if action_space not in ACTION_SPACES:
        raise ValueError(f"action_space is {action_space!r}; known are {', '.join(ACTION_SPACES)}")
    if stride < 1:
        raise ValueError(f"stride is {stride}; it must be at least 1 (every frame)")
    recordings = open_all([Path(root) for root in roots])
    conventions = examine_all(recordings)
    has = [(str(each.root), tuple(each.cameras)) for each in recordings]
    state_size = recordings[0].vector(STATE).shape[1]
    chosen: dict[str, object] = {**sizes, "cameras": _cameras(sizes.get("cameras"), has)}
    if chosen.get("state_size") is None:
        chosen["state_size"] = state_size
    if chosen["state_size"] != state_size:
        raise ValueError(
            f"architecture.state_size is {chosen['state_size']}, {STATE} has {state_size} numbers; leave it null"
        )
    if start is not None and action_space == "auto":
        card = checkpoint.read_card(checkpoint.locate(start))
        space, sentences = ActionSpace.from_dict(card.get("action_space") or {}), []
    elif action_space == "tabletop" or _is_tabletop(recordings, stride):
        space, sentences = TABLETOP, []
    elif (said := _said(recordings, stride)) is not None:
        space, sentences = said, []
    else:
        space, sentences = action_space_of(recordings, conventions, stride)
    if chosen.get("action_size") is None:
        chosen["action_size"] = space.size
    if chosen["action_size"] != space.size:
        raise ValueError(
            f"architecture.action_size is {chosen['action_size']}, an action has {space.size} numbers; leave it null"
        )
    if processes.speaks():
        Console().print(conventions.table())
    if stride > 1:
        ways = ", ".join(f"{name} {join}" for name, join in zip(space.names, conventions.joins, strict=False))
        sentences.append(
            f"every {stride}th frame is taken, {space.rate_hz:g} Hz; of the skipped frames' actions: {ways}"
        )
    for sentence in [*conventions.warnings(), *sentences]:
        processes.say(sentence[0].upper() + sentence[1:] + ".")
    return architecture_from_dict(chosen), space


def sizes_for_video(sizes: dict[str, Any], roots: Sequence[str]) -> Architecture:
    """The architecture for learning from pictures alone; states and actions have the tabletop's sizes and stay zeros."""
    has = [(root, open_cameras(Path(root))) for root in roots if _is_dataset(Path(root))]
    if has or sizes.get("cameras"):
        cameras = _cameras(sizes.get("cameras"), has)
    else:
        cameras = [VIDEO_CAMERA]
    usual = Architecture()
    chosen: dict[str, object] = {"state_size": usual.state_size, "action_size": usual.action_size}
    chosen |= {name: value for name, value in sizes.items() if value is not None} | {"cameras": cameras}
    return architecture_from_dict(chosen)


def action_space_of(
    recordings: Sequence[Recording], conventions: Conventions, stride: int = 1
) -> tuple[ActionSpace, list[str]]:
    """Bounds a little beyond the recorded actions, the data's names and rate; and sentences about what is odd."""
    actions = np.concatenate([joined_actions(each, stride, conventions.joins) for each in recordings]).astype(
        np.float64
    )
    # Skipped targets and velocities are as possible as those taken; of changes, only the sums are done in one step.
    every = np.concatenate([each.vector(ACTION) for each in recordings]).astype(np.float64)
    summed = np.array(conventions.joins) == "sum"
    low = np.where(summed, actions.min(0), every.min(0))
    high = np.where(summed, actions.max(0), every.max(0))
    constant = np.array([is_constant(*span) for span in zip(low, high, strict=True)])
    roots = ", ".join(str(each.root) for each in recordings)
    if constant.all():
        raise DatasetError(f"{roots}: the actions never change; there is nothing to learn from them")
    names = [each.action for each in conventions.dimensions]
    sentences = [
        f"action {name} is always {value:g}: it is kept, within {_tiny(value):g} of that"
        for name, value, still in zip(names, low, constant, strict=True)
        if still
    ]
    usual_low, middle, usual_high = np.quantile(actions, [0.01, 0.5, 0.99], axis=0)
    for number in np.flatnonzero(~constant):
        usual = max(usual_high[number] - usual_low[number], TINY * (high[number] - low[number]))
        far = np.abs(actions[:, number] - middle[number])
        if 0 < (far > GLITCH * usual).sum() <= max(1, SELDOM * len(far)):
            episode, frame = _where(recordings, int(far.argmax()), stride)
            sentences.append(
                f"action {names[number]} is {actions[far.argmax(), number]:.4g} in frame {frame} of episode {episode}, "
                f"{far.max() / usual:.0f} times as far out as nearly all others: a glitch? The bounds hold it"
            )
    reach = np.where(constant, [_tiny(value) for value in low], MARGIN * (high - low))
    space = ActionSpace(
        low=tuple(float(f"{value:.7g}") for value in low - reach),
        high=tuple(float(f"{value:.7g}") for value in high + reach),
        names=tuple(names),
        rate_hz=recordings[0].fps / stride,
    )
    return space, sentences


def _tiny(value: float) -> float:
    return TINY * max(1.0, abs(value))


def _where(recordings: Sequence[Recording], row: int, stride: int) -> tuple[str, int]:
    """The episode (with its dataset, where there are several) and frame of a row of the joined actions."""
    for each in recordings:
        kept, lengths = strided(each.lengths, stride)
        if row < len(kept):
            episode = int(np.searchsorted(np.cumsum(lengths), row, side="right"))
            frame = int(kept[row] - (np.cumsum(each.lengths) - each.lengths)[episode])
            return (f"{episode} of {each.root}" if len(recordings) > 1 else str(episode)), frame
        row -= len(kept)
    raise IndexError(row)


def _is_tabletop(recordings: Sequence[Recording], stride: int) -> bool:
    first = recordings[0]
    said = _said(recordings, stride)
    if said is not None and not (np.allclose(said.low, TABLETOP.low) and np.allclose(said.high, TABLETOP.high)):
        return False
    return tuple(first.names(ACTION)) == TABLETOP.names and abs(first.fps / stride - TABLETOP.rate_hz) < 1e-6


def _said(recordings: Sequence[Recording], stride: int) -> ActionSpace | None:
    """The action space an arm recorded with, where all recordings say the same one and no frame is skipped."""
    bounds = [each.action_bounds() for each in recordings]
    if stride != 1 or any(each is None or not np.allclose(each, bounds[0]) for each in bounds):  # type: ignore[arg-type]
        return None
    assert bounds[0] is not None
    low, high = (tuple(map(float, end)) for end in bounds[0])
    return ActionSpace(low, high, tuple(recordings[0].names(ACTION)), recordings[0].fps)


def _cameras(said: Any, has: Sequence[tuple[str, tuple[str, ...]]]) -> list[str]:
    """The cameras of the config, else the one camera that all datasets have."""
    if said:
        return list(said)
    shared = [camera for camera in has[0][1] if all(camera in cameras for _, cameras in has)]
    if len(shared) == 1:
        return shared
    where = "; ".join(f"{root} has {', '.join(cameras) or 'no pictures'}" for root, cameras in has)
    if not shared:
        raise DatasetError(f"there is no camera to look through: {where}")
    raise DatasetError(f"{where}: say which to look through, architecture.cameras=[{shared[0]}] or several of them")
