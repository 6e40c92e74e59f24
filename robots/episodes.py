"""What an arm did, as episodes of a LeRobotDataset v3 that `premotor adapt` learns from; one dataset over many runs.

A world model learns what follows from what was *done*, so `action` is the executed action, by measurement; what was
asked for is kept beside it as `action.requested`. An episode is in memory until it ends, then on disk whole: killed at
any moment, a recording loses the episode that was under way and no other.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from envs.episode_store import Episode, Layout, keep_whole, own_folder, stage, write_atomically
from envs.lerobot_files import check_files, finish, finished_episodes
from envs.recipe import VECTORS
from envs.tabletop import ACTION_NAMES, STATE_NAMES
from planners.rollout import Rollout
from robots.arm import IMAGES
from robots.recorder import executed as change
from worldmodel.decoding import fit
from worldmodel.interface import ActionSpace

NOTE = "meta/recording.json"
FORMAT = "premotor recording 1"
STATE, JOINTS, TRUTH = "observation.state", "observation.joints", "observation.environment_state"
LARGEST_PX = 256
# An arm overshoots its action by a little; by so much of a bound, the step was something else than an action.
OVERSHOOT = 0.5
# A number bounded more narrowly than this (m, rad, closedness) is not a planner's to choose: an SO-101's orientation follows
# from its position. What is measured of it would drown in its bounds, so `action` has what was asked for.
FOLLOWS = 0.005


class EpisodeRecorder:
    """Adds episodes to a dataset; `with EpisodeRecorder(root, space, robot="so101") as recorder: ...`.

    The dataset's shape is decided by its first episode. Step by step: `begin`, `add` at every step, `end`; or whole
    rollouts with `add_rollout`.

    Args:
        root: the dataset's folder, new or recorded into before.
        space: the actions' bounds and rate. An executed action that overshoots them is cut to them in `action`, as a
            model knows nothing beyond; it stands whole in `action.executed`.
        robot: which arm, in a word; a dataset is of one.
        image_size: side of the pictures, px; None takes the camera's shorter side, at most 256.

    Raises:
        ValueError: the folder holds something else, or somebody else writes into it.
    """

    def __init__(self, root: str | Path, space: ActionSpace, robot: str, image_size: int | None = None) -> None:
        if tuple(space.names) != ACTION_NAMES:
            raise ValueError(f"a recording has the actions {', '.join(ACTION_NAMES)}; the model's are other ones")
        if abs(space.rate_hz - round(space.rate_hz)) > 1e-6:
            raise ValueError(f"a dataset has whole frames a second; the model acts at {space.rate_hz:g} Hz")
        if image_size is not None and (image_size < 16 or image_size % 2):
            raise ValueError(f"pictures of {image_size} px cannot be filmed; give an even number from 16")
        self.root, self._space, self._robot = Path(root), space, robot
        self._image_size = image_size
        self._folder = own_folder(self.root, "record")
        try:
            self._layout = self._resume()
        except BaseException:
            os.close(self._folder)
            raise
        self._task: str | None = None
        self._observations: list[Mapping[str, np.ndarray]] = []
        self._requested: list[np.ndarray] = []
        self._about: dict[str, str | int | float] = {}

    @property
    def episodes(self) -> int:
        """How many the dataset has."""
        return finished_episodes(self.root)

    # -- step by step ------------------------------------------------------------------------------------------------

    def begin(self, task: str, **about: str | int | float) -> None:
        """A new episode; one that was under way is forgotten.

        Args:
            task: what it is about, in words.
            about: further facts for the table of episodes; the same keys in every episode.
        """
        if not task:
            raise ValueError("an episode needs a task, in words")
        self._task, self._about = task, dict(about)
        self._observations.clear()
        self._requested.clear()

    def add(self, observation: Mapping[str, np.ndarray], requested: np.ndarray) -> None:
        """What was seen, and the action (7,) asked for from there; NaN where nobody asked (a person moved the arm)."""
        if self._task is None:
            raise ValueError("begin an episode before adding to it")
        action = np.asarray(requested, dtype=np.float32)
        if action.shape != (7,):
            raise ValueError(f"an action has 7 numbers; got shape {action.shape}")
        self._observations.append({key: np.array(value) for key, value in observation.items()})
        self._requested.append(action)

    def end(self, final: Mapping[str, np.ndarray], success: bool | None = None) -> int | None:
        """The episode is over: put it into the dataset.

        Args:
            final: what was seen last.
            success: whether the task was done; None where nobody knows.

        Returns:
            The episode's number, or None when it had no step and was forgotten.
        """
        task, self._task = self._task, None
        if task is None or not self._requested:
            return None
        observations = [*self._observations, final]
        facts: dict[str, str | int | float] = {"success": -1 if success is None else int(success)}
        facts |= {"recorded_s": time.time(), **self._about}
        executed = np.stack([change(a[STATE], b[STATE]) for a, b in pairwise(observations)])
        return self._keep(task, observations, np.stack(self._requested), executed, facts)

    def add_rollout(self, rollout: Rollout, task: str = "", **about: str | int | float) -> int | None:
        """A whole run at once; see `end` for what is returned."""
        words = task or str(rollout.about.get("task", "run"))
        self.begin(words, **about)
        for step in rollout.steps:
            self.add(step.observation, step.action)
        success = rollout.outcome.get("success")
        return self.end(rollout.final, None if success is None else bool(success))

    def close(self) -> None:
        """Let go of the folder; an episode under way is forgotten. Safe to call twice."""
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _resume(self) -> Layout | None:
        """The shape of what is there, checked and with what a killed run left behind put in place; None of nothing."""
        note = self.root / NOTE
        if not note.exists():
            if any(path.is_file() for path in self.root.rglob("*") if path.suffix != ".part"):
                raise ValueError(f"{self.root} holds something that no arm recorded; choose another record=")
            return None
        try:
            said = json.loads(note.read_text())
            if said["format"] != FORMAT:
                raise ValueError
            layout = Layout(
                tuple(said["cameras"]), int(said["image_size"]), int(said["fps"]),
                {name: tuple(names) for name, names in said["vectors"].items()},
            )  # fmt: skip
            robot, low, high = str(said["robot"]), said["action_low"], said["action_high"]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(f"{note} is damaged; choose another record=") from None
        had, staged = finished_episodes(self.root), keep_whole(self.root, layout)
        if not had and not staged:
            return None  # where nothing was recorded yet, a mistaken setting may still be corrected
        for what, before, now in (
            ("of", robot, self._robot),
            ("at", f"{layout.fps} Hz", f"{round(self._space.rate_hz)} Hz"),
            ("with actions from", [*low], [*map(float, self._space.low)]),
            ("with actions up to", [*high], [*map(float, self._space.high)]),
            ("with pictures of", layout.image_size, self._image_size or layout.image_size),
        ):
            if before != now:
                raise ValueError(f"{self.root} is a recording {what} {before}, not {now}; choose another record=")
        if had:
            check_files(self.root, layout)
        whole = had
        while whole in staged:
            whole += 1
        if whole > had:
            finish(self.root, layout, whole, robot)
        return layout

    def _keep(
        self,
        task: str,
        observations: list[Mapping[str, np.ndarray]],
        requested: np.ndarray,
        executed: np.ndarray,
        about: dict[str, str | int | float],
    ) -> int:
        layout = self._layout or self._shape(observations[0])
        low, high = (np.array(bound, dtype=np.float32) for bound in (self._space.low, self._space.high))
        follows = high - low < 2 * FOLLOWS
        done = np.where(follows, np.nan_to_num(requested), executed)
        bounded = np.clip(done, low, high)
        beyond = np.abs(done - bounded) / np.where(done > 0, high, -low)
        about |= {"overshot": int((beyond > 1e-6).any(1).sum()), "overshot_most": float(beyond.max(initial=0.0))}
        last = np.zeros((1, 7), np.float32)
        vectors: dict[str, np.ndarray] = {
            "action": np.concatenate([bounded, last]),
            "action.executed": np.concatenate([executed, last]),
            # Where nobody asked, what was done stands in: a dataset has no room for "nothing".
            "action.requested": np.concatenate([np.where(np.isfinite(requested), requested, executed), last]),
        }
        for name in layout.vectors:
            if name not in vectors:
                vectors[name] = np.stack([_part(seen, name) for seen in observations]).astype(np.float32)
        frames = {
            camera: np.stack([fit(_part(seen, f"{IMAGES}{camera}"), layout.image_size) for seen in observations])
            for camera in layout.cameras
        }
        for name, values in vectors.items():
            if values.shape != (len(observations), len(layout.vectors[name])):
                raise ValueError(
                    f"{name} has {values.shape[1]} numbers, in {self.root} {len(layout.vectors[name])}; choose another "
                    "record="
                )
        index = self.episodes
        if self._layout is None:
            self._note(layout)
            self._layout = layout
        stage(self.root, layout, Episode(index, task, frames, vectors, about))
        finish(self.root, layout, index + 1, self._robot)
        return index

    def _shape(self, seen: Mapping[str, np.ndarray]) -> Layout:
        """What the first episode has, every later one has."""
        cameras = tuple(sorted(key.removeprefix(IMAGES) for key in seen if key.startswith(IMAGES)))
        if not cameras or STATE not in seen:
            raise ValueError(f"an episode to learn from needs a camera and {STATE}; there is {', '.join(sorted(seen))}")
        side = min(min(np.shape(seen[f"{IMAGES}{camera}"])[:2]) for camera in cameras)
        size = self._image_size or min(side - side % 2, LARGEST_PX)
        vectors: dict[str, tuple[str, ...]] = {STATE: STATE_NAMES}
        if JOINTS in seen:
            vectors[JOINTS] = tuple(f"joint{number}" for number in range(1, len(seen[JOINTS]) + 1))
        if TRUTH in seen:
            vectors[TRUTH] = VECTORS[TRUTH]
        vectors |= dict.fromkeys(("action", "action.executed", "action.requested"), ACTION_NAMES)
        return Layout(cameras, size, round(self._space.rate_hz), vectors)

    def _note(self, layout: Layout) -> None:
        said: dict[str, Any] = {
            "format": FORMAT, "robot": self._robot, "cameras": list(layout.cameras), "image_size": layout.image_size,
            "fps": layout.fps, "vectors": {name: list(names) for name, names in layout.vectors.items()},
            "action_low": [*map(float, self._space.low)], "action_high": [*map(float, self._space.high)],
            "frame": "base",
        }  # fmt: skip
        write_atomically(self.root / NOTE, json.dumps(said, indent=2).encode())


def overshooting(about: Mapping[str, Any]) -> str:
    """A sentence where an episode's steps went far beyond the actions a model knows; empty where they did not."""
    if float(about.get("overshot_most", 0.0)) <= OVERSHOOT:
        return ""
    return (
        f"{about['overshot']} steps went beyond the model's actions, one by {100 * about['overshot_most']:.0f} % of "
        "their bound; they are cut in `action` and whole in `action.executed`"
    )


def _part(seen: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in seen:
        raise ValueError(f"an observation lacks {name}, which this recording has in every frame")
    return np.asarray(seen[name])
