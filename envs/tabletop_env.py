"""The tabletop as a Gymnasium environment: goal images, LeRobot names, truth kept apart in `info`.

Actions are physical (metres, radians, closedness); an episode is always `budget_steps` long and is judged at its end,
so `terminated` stays False. Everything an episode contains follows from its seed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import gymnasium
import numpy as np

from envs import tasks
from envs.panda import tool_rpy
from envs.tabletop import (
    ACTION_HIGH,
    ACTION_LOW,
    CAMERAS,
    IMAGE_SIZES,
    POLICY_HZ,
    STATE_NAMES,
    Scene,
    Variation,
)

Observation = dict[str, np.ndarray]
SIMULATORS = ("mujoco", "pybullet")
_GOAL_TRIES = 60
# A goal picture must show what it asks for: of the front camera's picture at this size, so many pixels must change by
# so much when the object is taken away. Whatever is observed, and however large, the same goals come of a seed.
_LOOK_SIZE = 64
_LEAST_SEEN_PX = 15
_LEAST_CHANGE = 12


class World(Protocol):
    """What a simulator offers the environment; `MujocoWorld` and `PybulletWorld` are two."""

    scene: Scene
    state_size: int

    def apply_scene(self, scene: Scene) -> None: ...
    def place_object(self, position: np.ndarray, yaw: float) -> None: ...
    def place_arm(self, position: np.ndarray, rpy: np.ndarray, gripper: float) -> None: ...
    def step(self, action: np.ndarray) -> None: ...
    def tool_position(self) -> np.ndarray: ...
    def tool_rotation(self) -> np.ndarray: ...
    def gripper(self) -> np.ndarray: ...
    def joints(self) -> np.ndarray: ...
    def object_pose(self) -> np.ndarray: ...
    def render(self, camera: str, size: int) -> np.ndarray: ...
    def save(self) -> np.ndarray: ...
    def restore(self, state: np.ndarray) -> None: ...
    def close(self) -> None: ...


def make_world(simulator: str) -> World:
    """A tabletop in the simulator of that name."""
    if simulator == "mujoco":
        from envs.mujoco_world import MujocoWorld

        return MujocoWorld()
    if simulator == "pybullet":
        from envs.pybullet_world import PybulletWorld

        return PybulletWorld()
    raise ValueError(f"no simulator is called {simulator!r}; known are {', '.join(SIMULATORS)}")


class TabletopEnv(gymnasium.Env[Observation, np.ndarray]):
    """A Panda over a table with one object, and a goal image to bring about.

    Args:
        task: `reach`, `push`, `lift` or `pick_place`.
        simulator: `mujoco` or `pybullet`.
        cameras: which of `front` and `wrist` are observed.
        image_size: side of the square images, 64 to 256 px.
        variation: what varies between episodes: a `Variation`, a name, or {base: name, factor: value}.
        with_goal: whether `reset` makes a goal (`info["goal"]`); play needs none and resets faster.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": int(POLICY_HZ)}  # noqa: RUF012

    def __init__(
        self,
        task: str = "push",
        simulator: str = "mujoco",
        cameras: Sequence[str] = ("front",),
        image_size: int = 64,
        variation: Variation | str | Mapping[str, Any] | None = None,
        with_goal: bool = True,
        render_mode: str | None = None,
    ) -> None:
        for camera in cameras:
            if camera not in CAMERAS:
                raise ValueError(f"no camera is called {camera!r}; known are {', '.join(CAMERAS)}")
        if not IMAGE_SIZES[0] <= image_size <= IMAGE_SIZES[1] or image_size % 2:
            raise ValueError(
                f"image_size is {image_size}; it may be {IMAGE_SIZES[0]} to {IMAGE_SIZES[1]} px, an even number (films)"
            )
        self.task = tasks.get_task(task)
        self.simulator = simulator
        self.cameras = tuple(cameras)
        self.image_size = image_size
        self.variation = Variation.of(variation)
        self.with_goal = with_goal
        self.render_mode = render_mode
        self.world = make_world(simulator)
        self.goal: Observation | None = None
        self._steps = 0
        image = gymnasium.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        spaces: dict[str, gymnasium.Space[Any]] = {f"observation.images.{camera}": image for camera in cameras}
        spaces["observation.state"] = gymnasium.spaces.Box(-10.0, 10.0, (len(STATE_NAMES),), np.float32)
        spaces["observation.joints"] = gymnasium.spaces.Box(-4.0, 4.0, (7,), np.float32)
        self.observation_space = gymnasium.spaces.Dict(spaces)  # type: ignore[assignment]
        self.action_space = gymnasium.spaces.Box(ACTION_LOW, ACTION_HIGH, dtype=np.float32)

    # -- the Gymnasium face ----------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """A new scene, start and goal from the seed.

        `options={"looks": N}` takes everything but the object's place and yaw from seed N instead, or from a `Scene`, so
        that episodes can share one scene's looks.
        """
        super().reset(seed=seed)
        looks = _looks(options)
        self._steps = 0
        for _ in range(_GOAL_TRIES):
            scene = Scene.draw(self.variation, self.np_random)
            if looks is not None:
                alike = looks if isinstance(looks, Scene) else Scene.draw(self.variation, np.random.default_rng(looks))
                scene = dataclasses.replace(alike, object_position=scene.object_position, object_yaw=scene.object_yaw)
            self.world.apply_scene(scene)
            self.world.place_arm(*tasks.start_pose(self.task, np.asarray(scene.object_position), self.np_random))
            self.world.step(np.zeros(7))  # let the object come to rest
            self._resting_height = float(self.world.object_pose()[2])
            if not self.with_goal or self._make_goal():
                break
        else:
            raise RuntimeError(
                f"no goal for task {self.task.name} in {_GOAL_TRIES} scenes: is the variation too narrow?"
            )
        return self.observe(), self._info(np.zeros(7, np.float32))

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One policy step; the reward is minus the distance to the goal in metres."""
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (7,):
            raise ValueError(f"an action has 7 numbers (dx dy dz droll dpitch dyaw dgripper); got shape {action.shape}")
        if not np.isfinite(action).all():
            raise ValueError(f"action has NaN or infinity in dimension {int(np.argmin(np.isfinite(action)))}")
        beyond = np.maximum(action - ACTION_HIGH, ACTION_LOW - action)
        if beyond.max() > 1e-5:
            worst = int(beyond.argmax())
            raise ValueError(
                f"action dimension {worst} is {action[worst]:.4g}, outside [{ACTION_LOW[worst]:g}, {ACTION_HIGH[worst]:g}]"
            )
        before = self._pose()
        self.world.step(action)
        self._steps += 1
        info = self._info(self._executed(before))
        return self.observe(), -info["goal_distance_m"], False, self._steps >= self.task.budget_steps, info

    def render(self, camera: str = "front", size: int = 256) -> np.ndarray:  # type: ignore[override]
        """A picture (size, size, 3) uint8 for people."""
        return self.world.render(camera, size)

    def close(self) -> None:
        """Free the simulator's resources."""
        self.world.close()

    # -- what else one may ask -------------------------------------------------------------------------------------

    def observe(self) -> Observation:
        """The observation now."""
        observation = {f"observation.images.{c}": self.world.render(c, self.image_size) for c in self.cameras}
        observation["observation.state"], observation["observation.joints"] = self.proprioception()
        return observation

    def proprioception(self) -> tuple[np.ndarray, np.ndarray]:
        """What the arm feels, without a picture: `observation.state` (7,) and `observation.joints` (7,) float32."""
        return self._state(), self.world.joints().astype(np.float32)

    def joint_positions(self) -> np.ndarray:
        """Joint angles (7,), rad."""
        return self.world.joints()

    def save_state(self) -> np.ndarray:
        """Everything, as one float64 vector; restores into any tabletop of the same simulator."""
        return self.world.save()

    def restore_state(self, state: np.ndarray) -> None:
        """Back to a saved state."""
        self.world.restore(state)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _pose(self) -> tuple[np.ndarray, np.ndarray, float]:
        return self.world.tool_position(), self.world.tool_rotation(), float(self.world.gripper())

    def _state(self) -> np.ndarray:
        position, rotation, gripper = self._pose()
        return np.concatenate([position, tool_rpy(rotation), [gripper]]).astype(np.float32)

    def _executed(self, before: tuple[np.ndarray, np.ndarray, float]) -> np.ndarray:
        """The action (7,) that was carried out, by measurement."""
        position, rotation, gripper = self._pose()
        turned = tool_rpy(rotation @ before[1].T)
        turned = (turned + np.pi) % (2 * np.pi) - np.pi
        return np.concatenate([position - before[0], turned, [gripper - before[2]]]).astype(np.float32)

    def _make_goal(self) -> bool:
        """Step to a goal, photograph it, come back; False when what came out is no fair goal."""
        start = self.world.save()
        state, thing = self._state(), self.world.object_pose()
        for count, action in enumerate(tasks.goal_script(self.task, self.world, self.np_random)):
            self.world.step(action)
            if count >= 2 * self.task.budget_steps:
                break
        self.world.step(np.zeros(7))
        goal = self.observe()
        goal["observation.environment_state"] = self.world.object_pose().astype(np.float32)
        goal["simulator.state"] = self.world.save()
        reached = self.task.success(goal["observation.state"], self.world.object_pose(), goal, self._resting_height)
        moved = float(np.linalg.norm(self.world.object_pose()[:3] - thing[:3]))
        shown = self.task.subject == "tool" or self._object_pixels() >= _LEAST_SEEN_PX
        self.world.restore(start)
        low, high = self.task.apart_m
        apart = self.task.distance(state, thing, goal)
        disturbed = self.task.subject == "tool" and moved > 0.005
        upright = abs(float(goal["observation.environment_state"][2]) - self._resting_height) < 0.006
        fair = reached and shown and not disturbed and low <= apart <= high
        if not fair or (self.task.name == "push" and not upright):
            return False
        self.goal = goal
        return True

    def _object_pixels(self) -> int:
        """How many pixels the front camera sees of the object; the object is gone afterwards: restore the world."""
        seen = self.world.render("front", _LOOK_SIZE).astype(np.int16)
        self.world.place_object(np.array([0.5, 0.0, -3.0]), 0.0)
        change = np.abs(seen - self.world.render("front", _LOOK_SIZE)).max(-1)
        return int((change > _LEAST_CHANGE).sum())

    def _info(self, executed: np.ndarray) -> dict[str, Any]:
        thing = self.world.object_pose()
        info: dict[str, Any] = {
            "action.executed": executed,
            "observation.environment_state": thing.astype(np.float32),
            "task": self.task.name,
        }
        if self.goal is None:
            return info | {"goal": None, "goal_distance_m": 0.0, "success": False}
        state = self._state()
        return info | {
            "goal": {key: value.copy() for key, value in self.goal.items()},
            "goal_distance_m": self.task.distance(state, thing, self.goal),
            "success": self.task.success(state, thing, self.goal, self._resting_height),
        }


def _looks(options: Mapping[str, Any] | None) -> int | Scene | None:
    """What `reset` was asked to take the looks from; an unknown option is refused."""
    foreign = [name for name in options or {} if name != "looks"]
    if foreign:
        raise ValueError(f"reset knows no option {foreign[0]!r}; known is looks")
    looks = (options or {}).get("looks")
    if not (looks is None or isinstance(looks, Scene) or (isinstance(looks, int) and looks >= 0)):
        raise ValueError(f"the option looks is {looks!r}; it is a seed, a whole number from 0 up, or a Scene")
    return looks
