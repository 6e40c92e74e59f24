"""From a command's configuration to what acts: the model, the planner, the budget, and where the results go."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from PIL import Image, UnidentifiedImageError

from planners import MPC, Budget, Goal, Planner
from planners.ahead import Ahead
from planners.background import Background
from planners.benchmark import make_model
from planners.benchmark.brains import weights_digest
from planners.benchmark.episode import visible_goal
from planners.progress import Rule
from planners.registry import make_planner
from planners.waypoints import Route
from robots.arm import IMAGES
from worldmodel import WorldModel
from worldmodel.interface import ActionSpace


@dataclass(frozen=True)
class Brain:
    """A model and how to search in it.

    Attributes:
        model_name, planner_name: the words of the configuration.
        weights: digest of the model's weights, for the record; empty where it has none.
    """

    model: WorldModel
    planner: Planner
    budget: Budget
    model_name: str
    planner_name: str
    weights: str

    @classmethod
    def of(cls, cfg: DictConfig, task: str, space: ActionSpace | None = None) -> Brain:
        """From `cfg.model`, `cfg.planner`, `cfg.objective`, `cfg.budget`; wrong words are refused before loading.

        Args:
            cfg: the configuration.
            task: of the simulated scene, for brains that simulate.
            space: what an action means to the arm; None for the tabletop's.
        """
        words = plain(cfg)
        budget = Budget(**words["budget"])
        planner = make_planner(words["planner"], words["objective"])
        model = make_model(words["model"], task, space=space)
        name = str(words["model"]["name"])
        return cls(model, planner, budget, name, str(words["planner"]["name"]), weights_digest(words["model"]))

    def agent(self, goal: Goal, seed: int, route: Route | None = None, rule: Rule | None = None) -> MPC:
        """The receding-horizon agent for a goal, straight or by a route of sub-goals."""
        return MPC(self.model, self.planner, goal, self.budget, seed, route=route, rule=rule)

    def agent_ahead(
        self,
        goal: Goal,
        seed: int,
        route: Route | None = None,
        rule: Rule | None = None,
        *,
        delay: int,
        foresee: bool = True,
        live: bool,
    ) -> Ahead:
        """The agent that plans while the arm moves, `delay` steps ahead.

        Args:
            goal, seed, route, rule: as for `agent`.
            delay, foresee: as for `planners.ahead.Ahead`.
            live: whether time passes while it searches: the search gets a thread of its own.
        """
        kind = Background if live else Ahead
        return kind(
            self.model, self.planner, goal, self.budget, seed, route=route, rule=rule, delay=delay, foresee=foresee
        )

    def about(self) -> dict[str, Any]:
        """Words for a rollout."""
        space = self.model.action_space
        return {
            "model": self.model_name, "planner": self.planner_name, "weights": self.weights,
            "action_names": list(space.names), "action_high": list(space.high), "rate_hz": space.rate_hz,
        }  # fmt: skip


def scene_goal(observation: Mapping[str, np.ndarray], model: WorldModel) -> Goal:
    """What a model may know of a simulated goal: the pictures it looks at, no more."""
    return visible_goal(observation, model.required_keys)


def picture_goal(
    path: str | Path,
    like: Mapping[str, np.ndarray],
    camera: str = "front",
    wanted_as: str = "no goal picture at {path}; give goal=PATH of a picture, or goal=scene in simulation",
) -> Goal:
    """A goal from a picture file, of the size the camera delivers.

    Args:
        path: PNG or JPEG.
        like: an observation of the arm, for the size.
        camera: which camera would see it.
        wanted_as: what to say where there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(wanted_as.format(path=path))
    try:
        with Image.open(path) as file:
            picture = np.asarray(file.convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path} is no picture that can be read ({error})") from None
    wanted = like.get(f"{IMAGES}{camera}")
    if wanted is not None and picture.shape != wanted.shape:
        raise ValueError(
            f"{path} is {picture.shape[1]}x{picture.shape[0]}; the {camera} camera gives "
            f"{wanted.shape[1]}x{wanted.shape[0]}: take the goal picture with that camera"
        )
    return Goal.image(picture, camera)


def goal_hash(goal: Goal) -> str:
    """A name for exactly this goal."""
    digest = hashlib.sha256()
    for wish in goal.wishes:
        for observation in wish.observations:
            for key in sorted(observation):
                digest.update(key.encode() + np.ascontiguousarray(observation[key]).tobytes())
        if len(wish.observations) != 1 or wish.region is not None:
            digest.update(repr((len(wish.observations), wish.weights, wish.region)).encode())
    return digest.hexdigest()[:16]


def output_folder(out: object, command: str) -> Path:
    """A folder for the results: `out`, or outputs/<command>/<time>; one that holds something already is refused."""
    folder = Path(str(out)) if out else Path("outputs") / command / time.strftime("%Y-%m-%d_%H-%M-%S")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} holds something already; choose another out, so that no record is overwritten")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def plain(cfg: DictConfig) -> dict[str, Any]:
    """A configuration as plain values."""
    words = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(words, dict)
    return {str(key): value for key, value in words.items()}
