"""Recipes and episodes of any Gymnasium world: smooth random play from a seed, for as long as the world goes on.

An episode that the world ends early is kept as it is, its last frame included, unless it is too short to learn from:
then another seed is played. Gymnasium's own time limits are lifted, so that `steps_per_episode` decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from envs.any_world import AnyWorld, Seen
from envs.episode_store import Episode, Layout
from envs.exploring import explore
from envs.making import versions
from envs.recipe import Recipe

STATE, TRUTH, ACTION = "observation.state", "observation.environment_state", "action"
# What a world is made with; the rest of a recipe's `env` was found out from it.
_SETTINGS = ("kwargs", "camera", "image_size", "rate_hz", "repeat", "crop", "fine_pictures")
# Shorter episodes than this (or than was asked for) are played again from another seed, so often.
LEAST_ACTIONS = 6
TRIES = 20


@dataclass(frozen=True)
class WorldRecipe(Recipe):
    """Everything that decides what a dataset of any Gymnasium world contains.

    `env` holds what the world is made with (`kwargs`, `camera`, `image_size`, `rate_hz`, `repeat`, `crop`, ...),
    what it was found to be (`fps`, `cameras`, `state`, `truth`, `actions`, `low`, `high`) and the `versions` of its
    packages: with any other, the same seed would play another episode.
    """

    defaults: ClassVar[Mapping[str, Any]] = {}
    robot_type: ClassVar[str] = "gymnasium"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("episodes_per_scene", "episodes_per_motion"):
            if getattr(self, name) != 1:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it is the tabletop's: what two episodes of {self.env_id} share, "
                    "nobody here knows, so it stays 1"
                )

    def _check_policy(self) -> None:
        if self.policy != "random":
            raise ValueError(
                f"policy={self.policy} is no policy for {self.env_id}: scripts are the tabletop's; say policy=random"
            )

    def layout(self) -> Layout:
        """What its episodes hold."""
        vectors = {STATE: tuple(self.env["state"]), ACTION: tuple(self.env["actions"])}
        if self.env["truth"]:
            vectors[TRUTH] = tuple(self.env["truth"])
        return Layout(tuple(self.env["cameras"]), int(self.env["image_size"]), int(self.env["fps"]), vectors)

    def open(self) -> AnyWorld:
        """The world its episodes are played in."""
        return AnyWorld(self.env_id, **{name: self.env[name] for name in _SETTINGS})

    def play(self, world: AnyWorld, index: int, led: Episode | None = None) -> Episode:
        """Episode `index`; none is led by another."""
        least = min(LEAST_ACTIONS, self.steps_per_episode)
        longest = 0
        for attempt in range(TRIES):
            rng = np.random.default_rng([self.seed, index, attempt])
            seed = int(rng.integers(2**31))
            seen, actions = self._moments(world, seed, rng)
            if len(actions) >= least:
                return self._episode(world, index, seed, seen, actions)
            longest = max(longest, len(actions))
        raise ValueError(
            f"{self.env_id} ends its episodes after {longest} actions or fewer ({TRIES} seeds); at least {least} make an "
            "episode: make env.repeat smaller, or tell the world to go on (some take "
            "env.kwargs={terminate_when_unhealthy: false})"
        )

    def _moments(self, world: AnyWorld, seed: int, rng: np.random.Generator) -> tuple[list[Seen], list[np.ndarray]]:
        """What is seen and done until the world ends it or there are enough steps: one moment more than actions."""
        policy = explore(world.low, world.high, world.fps, rng)
        seen, actions, ended = [world.reset(seed)], [], False
        while len(actions) < self.steps_per_episode and not ended:
            actions.append(next(policy))
            moment, ended = world.step(actions[-1])
            seen.append(moment)
        return seen, actions

    def _episode(self, world: AnyWorld, index: int, seed: int, seen: list[Seen], actions: list[np.ndarray]) -> Episode:
        vectors = {
            STATE: np.stack([moment.state for moment in seen]),
            ACTION: np.stack([*actions, world.resting]),
        }
        if self.env["truth"]:
            vectors[TRUTH] = np.stack([moment.truth for moment in seen])
        return Episode(
            index=index,
            task=f"play: {self.policy}",
            frames={camera: np.stack([moment.pictures[camera] for moment in seen]) for camera in world.cameras},
            vectors=vectors,
            about={"seed": seed, "policy": self.policy, "simulator": self.env_id},
        )


def world_recipe(env: Mapping[str, Any], **about: Any) -> tuple[WorldRecipe, list[str]]:
    """A recipe for the world that a config describes, opened once to see what it is; and what is to be said of it.

    Args:
        env: `id` and what the world is made with; None is as good as unsaid.
        about: policy, episodes, steps_per_episode, seed, ...
    """
    settings = {name: value for name, value in env.items() if value is not None}
    env_id = settings.pop("id", None)
    if not env_id:
        raise ValueError("say which world with env.id=, as Gymnasium names it: env.id=Pusher-v5")
    if foreign := [name for name in settings if name not in _SETTINGS]:
        raise ValueError(f"env.{foreign[0]} is no setting of a Gymnasium world; its own are said in env.kwargs={{...}}")
    kwargs = settings.get("kwargs", {})
    if not isinstance(kwargs, dict):
        raise ValueError(f"env.kwargs is {kwargs!r}; it is a mapping, env.kwargs={{camera_name: top}}")
    world = AnyWorld(str(env_id), **settings)
    try:
        remarks = [*world.remarks, *_repeats(world)]
        found = {
            "kwargs": kwargs,
            "camera": settings.get("camera", "front"),
            "image_size": world.image_size,
            "rate_hz": settings.get("rate_hz"),
            "repeat": world.repeat,
            "crop": None if world.crop is None else list(world.crop),
            "fine_pictures": bool(settings.get("fine_pictures", False)),
            "fps": world.fps,
            "cameras": list(world.cameras),
            "state": list(world.state_names),
            "truth": list(world.truth_names),
            "actions": list(world.action_names),
            "low": world.low.tolist(),
            "high": world.high.tolist(),
            "versions": versions(world.env.unwrapped, with_mujoco=world.mujoco_model is not None),
        }
        sentences = [_summary(world), *(f"{world.spec_id}: {remark}." for remark in remarks)]
        return WorldRecipe(env_id=world.spec_id, env=found, **about), sentences
    finally:
        world.close()


def _repeats(world: AnyWorld) -> list[str]:
    """A sentence if one seed does not give one episode, tried over a few steps."""
    played = []
    for _ in range(2):
        policy = explore(world.low, world.high, world.fps, np.random.default_rng(0))
        played.append([world.reset(0)])
        for _ in range(3):
            moment, ended = world.step(next(policy))
            played[-1].append(moment)
            if ended:
                break
    same = len(played[0]) == len(played[1]) and all(
        np.array_equal(one.state, other.state) for one, other in zip(*played, strict=True)
    )
    return (
        []
        if same
        else ["one seed does not give one episode here: a collection that is resumed differs from one that is not"]
    )


def _summary(world: AnyWorld) -> str:
    truth = f", {len(world.truth_names)} of truth to measure by" if world.truth_names else ""
    held = "" if world.repeat == 1 else f", each action held for {world.repeat} steps"
    return (
        f"{world.spec_id}: {len(world.action_names)} numbers to an action, {len(world.state_names)} to the state{truth}; "
        f"pictures {', '.join(world.cameras)} at {world.image_size} px; {world.fps} a second{held}."
    )
