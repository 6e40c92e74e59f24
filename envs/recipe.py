"""What a collection contains: a recipe, and how an episode of the tabletop is played from it.

Episode i is a function of (recipe, i) alone. `any_recipe.WorldRecipe` says the same of any other Gymnasium world.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from envs.episode_store import Episode, Layout
from envs.play import POLICIES, make_policy
from envs.tabletop import ACTION_NAMES, JOINT_NAMES, OBJECT_HIGH, OBJECT_LOW, POLICY_HZ, STATE_NAMES
from envs.tasks import clear

# What the tabletop takes where nothing is said, so that saying it makes no other recipe.
_ENV_DEFAULTS: dict[str, Any] = {
    "task": "push",
    "simulator": "mujoco",
    "cameras": ["front"],
    "image_size": 64,
    "variation": "standard",
}
# How far from one of its places in the leader's episode an echo has the object.
_ELSEWHERE_M = (0.03, 0.14)
_PLACE_TRIES = 100
VECTORS = {
    "observation.state": STATE_NAMES,
    "observation.joints": JOINT_NAMES,
    "observation.environment_state": ("object_x", "object_y", "object_z", "qw", "qx", "qy", "qz"),
    "action": ACTION_NAMES,
    "action.executed": ACTION_NAMES,
}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a dataset contains.

    Attributes:
        env_id: the Gymnasium world, with the arguments `env` it is made with.
        policy: a play policy of `envs.play`.
        episodes: how many; episode i is the same however many there are.
        steps_per_episode: actions in each; an episode has one frame more.
        seed: of everything random.
        episodes_per_scene: how many episodes in a row share one scene's looks. Where nothing but places differs, a
            learner cannot tell moments apart by colours.
        episodes_per_motion: how many episodes in a row share one motion of the arm. The first is played, the others
            are its echoes: the same actions with the object elsewhere. What differs then is the object alone, so a
            learner cannot take an arm in the right place for a solved task.
    """

    env_id: str
    env: Mapping[str, Any]
    policy: str
    episodes: int
    steps_per_episode: int
    seed: int
    episodes_per_scene: int = 1
    episodes_per_motion: int = 1

    # What `env` is taken to say where it says nothing.
    defaults: ClassVar[Mapping[str, Any]] = _ENV_DEFAULTS
    robot_type: ClassVar[str] = "panda"

    def __post_init__(self) -> None:
        self._check_policy()
        for name in ("episodes", "steps_per_episode", "episodes_per_scene", "episodes_per_motion"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.episodes_per_scene % self.episodes_per_motion:
            raise ValueError(
                f"episodes_per_scene={self.episodes_per_scene} is no multiple of episodes_per_motion="
                f"{self.episodes_per_motion}; the episodes of a motion share their scene"
            )
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must not be negative")

    def _check_policy(self) -> None:
        if self.policy not in POLICIES:
            raise ValueError(f"no play policy is called {self.policy!r}; known are {', '.join(POLICIES)}")

    def leader(self, index: int) -> int:
        """The episode whose motion episode `index` has; most often itself."""
        return index - index % self.episodes_per_motion

    def layout(self) -> Layout:
        """What its episodes hold."""
        return Layout(
            cameras=tuple(self.env.get("cameras", _ENV_DEFAULTS["cameras"])),
            image_size=int(self.env.get("image_size", _ENV_DEFAULTS["image_size"])),
            fps=round(POLICY_HZ),
            vectors=VECTORS,
        )

    def open(self) -> Any:
        """The world its episodes are played in."""
        import gymnasium

        import envs as _worlds  # noqa: F401  registers them

        return gymnasium.make(self.env_id, disable_env_checker=True, **self.env, with_goal=False).unwrapped

    def play(self, world: Any, index: int, led: Episode | None = None) -> Episode:
        """Episode `index`, played in a world that `open` gave; `led` is its leader, if that was played already."""
        return play_episode(world, self, index, led)


def play_episode(env: Any, recipe: Recipe, index: int, led: Episode | None = None) -> Episode:
    """Episode `index` of a recipe, played in an environment made from it.

    Args:
        env: the environment, unwrapped.
        recipe: what to play.
        index: which episode.
        led: its leader (`Recipe.leader`), if it was played already.
    """
    leader = recipe.leader(index)
    if index != leader and led is None:
        led = play_episode(env, recipe, leader)
    rng = np.random.default_rng([recipe.seed, leader])
    seed = int(rng.integers(2**31))
    observation, info = env.reset(seed=seed, options=_looks(recipe, index))
    if index == leader or led is None:
        policy = make_policy(recipe.policy, env, rng)
    else:
        policy = iter(led.vectors["action"]).__next__
        observation, info = _object_elsewhere(env, led, np.random.default_rng([recipe.seed, index, 2]))
    layout = recipe.layout()
    frames: dict[str, list[np.ndarray]] = {camera: [] for camera in layout.cameras}
    vectors: dict[str, list[np.ndarray]] = {name: [] for name in VECTORS}
    for step in range(recipe.steps_per_episode + 1):
        for camera, feature in zip(layout.cameras, layout.pictures, strict=True):
            frames[camera].append(observation[feature])
        for name in ("observation.state", "observation.joints"):
            vectors[name].append(observation[name])
        vectors["observation.environment_state"].append(info["observation.environment_state"])
        action = executed = np.zeros(len(ACTION_NAMES), np.float32)
        if step < recipe.steps_per_episode:
            action = policy()
            observation, _, _, _, info = env.step(action)
            executed = info["action.executed"]
        vectors["action"].append(action)
        vectors["action.executed"].append(executed)
    return Episode(
        index=index,
        task=f"play: {recipe.policy}",
        frames={camera: np.stack(pictures) for camera, pictures in frames.items()},
        vectors={name: np.stack(values).astype(np.float32) for name, values in vectors.items()},
        about={
            "seed": seed,
            "policy": recipe.policy,
            "simulator": str(recipe.env.get("simulator", _ENV_DEFAULTS["simulator"])),
        },
    )


def _object_elsewhere(env: Any, led: Episode, rng: np.random.Generator) -> tuple[Any, dict[str, Any]]:
    """Put the object some way from a place it had in the leader's episode, clear of the arm; the observation then."""
    tool, half = env.world.tool_position(), env.world.scene.object_half[2]
    place = led.vectors["observation.environment_state"][0, :2]
    for _ in range(_PLACE_TRIES):
        anchor = led.vectors["observation.environment_state"][rng.integers(len(led.vectors["action"])), :2]
        angle, length = rng.uniform(-np.pi, np.pi), rng.uniform(*_ELSEWHERE_M)
        place = anchor + length * np.array([np.cos(angle), np.sin(angle)])
        inside = np.all(place > OBJECT_LOW) and np.all(place < OBJECT_HIGH)
        if inside and clear(tool, place):
            break
    place = np.clip(place, OBJECT_LOW, OBJECT_HIGH)
    env.world.place_object(np.array([*place, half + 1e-4]), float(rng.uniform(-np.pi, np.pi)))
    observation, _, _, _, info = env.step(np.zeros(len(ACTION_NAMES), np.float32))
    return observation, info


def _looks(recipe: Recipe, index: int) -> dict[str, int] | None:
    """What makes episode `index` look like its scene's others."""
    if recipe.episodes_per_scene == 1:
        return None
    scene = index // recipe.episodes_per_scene
    return {"looks": int(np.random.default_rng([recipe.seed, scene, 1]).integers(2**31))}
