"""Sub-goals as a configuration says them: the pictures of a list, or a recording or play in which a way is looked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from planners.graph import LatentGraph
from planners.observation import IMAGES, STATE
from planners.planner import Planner
from planners.progress import Rule
from planners.registry import nearest
from worldmodel.data import DatasetError, Episodes
from worldmodel.dataset_files import open_recording
from worldmodel.interface import WorldModel

# Frames encoded at a time.
_CHUNK = 64
# Where an episode of play may begin.
_BEGINNINGS = ("start", "anywhere")
# What a planner without a horizon is taken to reach, in steps.
_HORIZON = 5


@dataclass(frozen=True, kw_only=True)
class Subgoals:
    """What `subgoals:` of a configuration says.

    Attributes:
        pictures: files, in the order in which they are to be reached.
        data: a LeRobotDataset in which a way is looked for.
        play: so many episodes of play in the scene itself, in which a way is looked for. Who has a world to play in plays
            them (the benchmark); an arm's play is recorded and given as data.
        policy: how it is played; None takes the task's own way.
        play_steps: actions in each episode of play.
        play_from: `start`, where the arm will begin and the object will lie; or `anywhere`.
        frames: at most so many of the data's frames, of whole episodes evenly spread over it.
        spacing: sub-goals found lie about so many steps apart; None takes the planner's horizon.
        reach: the farthest the brain's distance is trusted for, steps; None takes twice the spacing.
        arrived: steps at which a sub-goal is reached.
        patience: plans without progress until it is stuck.
        ask: a way is looked for at the `start`, or only when `stuck` on the straight one.
        fingerprint: of the data, so that the results of one recording are not taken for another's.
    """

    pictures: tuple[str, ...] = ()
    data: str | None = None
    play: int | None = None
    policy: str | None = None
    play_steps: int = 32
    play_from: str = "start"
    frames: int = 2000
    spacing: float | None = None
    reach: float | None = None
    arrived: float = Rule.arrived
    patience: int = Rule.patience
    ask: str = Rule.ask
    fingerprint: str = ""

    def __post_init__(self) -> None:
        if bool(self.pictures) + bool(self.data) + (self.play is not None) != 1:
            raise ValueError(
                "subgoals takes pictures (your own list), data (a recording in which a way is looked for) or play (so many "
                "episodes of the scene itself); give one"
            )
        if not (self.data is None or isinstance(self.data, str)):
            raise ValueError(f"subgoals.data is {self.data}; give one folder")
        for name in ("play", "play_steps"):
            value = getattr(self, name)
            if not (value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0)):
                raise ValueError(f"subgoals.{name} is {value!r}; it is a whole number above 0")
        if self.play_from not in _BEGINNINGS:
            raise ValueError(f"subgoals.play_from is {self.play_from!r}; play begins at the start or anywhere")
        for name in ("spacing", "reach", "arrived"):
            value = getattr(self, name)
            if not (value is None or (isinstance(value, int | float) and not isinstance(value, bool) and value > 0)):
                raise ValueError(f"subgoals.{name} is {value}; it is a number of steps above 0, or null")
        if self.frames < 1:
            raise ValueError(f"subgoals.frames is {self.frames}; a way is looked for in at least 1 frame")
        if self.ask != Rule.ask and self.pictures:
            raise ValueError(
                f"subgoals.ask={self.ask} is for ways that are found; your own pictures lead from the start"
            )
        _ = self.rule

    @classmethod
    def of(cls, words: Mapping[str, Any] | None) -> Subgoals | None:
        """From {pictures: [...]} or {data: DIR, frames: N, ...}; None where neither is said."""
        if words is None:
            return None
        known = [field.name for field in fields(cls)]
        for key in words:
            if key not in known:
                raise ValueError(f"subgoals has no key {str(key)!r}{nearest(str(key), known)}")
        said = {str(key): value for key, value in words.items() if value is not None}
        usual = {field.name: field.default for field in fields(cls)}
        for key in ("policy", "play_steps", "play_from"):
            if "play" not in said and said.get(key, usual[key]) != usual[key]:
                raise ValueError(f"subgoals.{key}={said[key]} says how to play; say subgoals.play=N as well")
        if not said.get("pictures") and not said.get("data") and "play" not in said:
            return None
        pictures = said.pop("pictures", ())
        return cls(pictures=(pictures,) if isinstance(pictures, str) else tuple(map(str, pictures)), **said)

    @property
    def rule(self) -> Rule:
        """When a sub-goal counts as reached, and when as stuck at."""
        return Rule(arrived=self.arrived, patience=self.patience, ask=self.ask)

    def graph(self, model: WorldModel, planner: Planner, image_size: int | None) -> LatentGraph:
        """The ways through the data, for pictures of the size that the cameras give (px; None: as recorded)."""
        if self.data is None:
            raise ValueError(
                "a way is looked for in a recording: give subgoals.data=DIR (only premotor bench can play)"
            )
        return self.graph_of(model, planner, *recorded(model, self.data, self.frames, image_size))

    def graph_of(self, model: WorldModel, planner: Planner, latents: Tensor, onward: Tensor) -> LatentGraph:
        """The ways through latents (N, *L), recorded steps from each to the next (N,), infinite where it ended."""
        spacing = float(getattr(planner, "horizon", _HORIZON) if self.spacing is None else self.spacing)
        return LatentGraph(model, latents, onward, spacing=spacing, reach=self.reach)


def fingerprint(data: str | Path) -> str:
    """A name for exactly this recording; one that is damaged or not there is refused."""
    return open_recording(Path(data)).fingerprint


def recorded(model: WorldModel, data: str | Path, frames: int, image_size: int | None) -> tuple[Tensor, Tensor]:
    """What a brain makes of a dataset's frames.

    Args:
        model: the brain.
        data: a LeRobotDataset with its cameras and actions.
        frames: at most so many, of whole episodes evenly spread.
        image_size: side of the pictures, px; None keeps the dataset's own.

    Returns:
        Latents (N, *L) on the model's device, and the recorded steps from each to the next (N,): 1, or infinite at an
        episode's end.
    """
    foreign = [key for key in model.required_keys if not key.startswith(IMAGES) and key != STATE]
    if foreign:
        raise ValueError(
            f"{model.name} needs {foreign[0]}, which no recording holds; give subgoals.data= to another brain"
        )
    cameras = tuple(key.removeprefix(IMAGES) for key in model.required_keys if key.startswith(IMAGES))
    if not cameras:
        raise ValueError(f"{model.name} looks at no picture; it finds no way in recorded frames")
    episodes = Episodes([data], cameras, model.action_space, image_size=image_size)
    wanted = max(1, round(frames / float(episodes.lengths.float().mean())))
    chosen = np.unique(np.linspace(0, len(episodes) - 1, min(wanted, len(episodes))).round().astype(int))
    at = episodes.frames_of(torch.from_numpy(chosen))[:frames]
    last = episodes.starts + episodes.lengths - 1
    onward = torch.where(torch.isin(at, last), torch.inf, 1.0)
    onward[-1] = torch.inf
    latents = []
    with torch.no_grad():
        for part in at.split(_CHUNK):
            views = episodes.frames(part)
            seen: dict[str, Tensor] = {IMAGES + camera: views[:, c] for c, camera in enumerate(cameras)}
            if STATE in model.required_keys:
                seen[STATE] = episodes.states[part]
            latents.append(model.encode(seen))
    encoded = torch.cat(latents)
    if not torch.isfinite(encoded).all():
        raise DatasetError(f"{model.name} makes NaN of frames in {data}; it was not made for such pictures")
    return encoded, onward
