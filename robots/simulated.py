"""Simulated arms: the tabletop's own Panda, driven tick by tick through the interface a real arm has.

In `lockstep` the simulated clock moves only while targets are streamed, so a run is the same on a slow machine as on
a fast one. In `real` the arm keeps wall time: while the planner thinks, time passes, as it does on hardware.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

import gymnasium
import numpy as np

import envs
from envs.motion import Command
from envs.panda import tool_rpy
from envs.tabletop import FINGER_TRAVEL_M, HOME_JOINTS, JOINT_NAMES, PHYSICS_STEP_S
from envs.tabletop_env import TabletopEnv
from robots.arm import Arm, ArmError, JointTarget, Measured, Reading, check_target
from robots.body import Body, panda_body
from robots.kinematics import Kinematics, panda

PACES = ("lockstep", "real")
assert envs  # importing it registers the tabletop with Gymnasium


class Streamed(Protocol):
    """The part of a simulated world an arm needs beyond what the environment uses."""

    command: Command

    def stream(self, controls: np.ndarray) -> None: ...


class SimulatedArm(Arm):
    """The Panda of one seeded tabletop.

    The scene's goal (`goal`) and the simulator's own judgement (`judge`) are for choosing a goal and for reports;
    a planner never sees the judgement.

    Args:
        task: the tabletop task that makes scene and goal.
        seed: the episode.
        cameras: which of `front` and `wrist` are observed.
        image_size: side of the observed images, px.
        variation: what varies between episodes, as `envs.tabletop.Variation.of` reads it.
        pace: `lockstep` or `real`.
    """

    simulator: str
    simulated = True
    joint_names = JOINT_NAMES
    rate_hz = 1.0 / PHYSICS_STEP_S
    park_joints = HOME_JOINTS
    when_killed = "the simulation ends with its process"

    def __init__(
        self,
        task: str = "push",
        seed: int = 10_000,
        cameras: Sequence[str] = ("front",),
        image_size: int = 64,
        variation: str | Mapping[str, Any] | None = None,
        pace: str = "lockstep",
    ) -> None:
        if pace not in PACES:
            raise ValueError(f"pace is {pace!r}; known are {', '.join(PACES)}")
        self.name = f"{self.simulator} panda"
        self.identity = f"{self.simulator}:{task}:{seed}"
        self.lockstep = pace == "lockstep"
        self.seed = seed
        self._settings: dict[str, Any] = {
            "task": task, "cameras": tuple(cameras), "image_size": image_size, "variation": variation,
        }  # fmt: skip
        self.kinematics: Kinematics = panda()
        self._env: TabletopEnv | None = None
        self._released = False
        self._elapsed_s = 0.0

    # -- the arm -----------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Build the world and put the arm at its start."""
        env = gymnasium.make(
            "premotor/Tabletop-v0", disable_env_checker=True, simulator=self.simulator, **self._settings
        )
        self._env = cast(TabletopEnv, env.unwrapped)
        self._env.reset(seed=self.seed)
        self._resting_height = float(self._env.world.object_pose()[2])
        self._released = False
        self._elapsed_s = 0.0
        self._held = JointTarget.still(self._world.command.joints, float(self._world.command.gripper))

    def observe(self) -> Reading:
        """Images, tool pose and joints, and the simulator's state for the simulator-as-a-brain."""
        env = self._connected()
        self._remember_command()
        observation = {k: np.asarray(v) for k, v in env.observe().items()}
        observation["simulator.state"] = env.save_state()
        now = self.now()
        return Reading(observation, now, time.time(), dict.fromkeys(self._settings["cameras"], now))

    def measure(self) -> Measured:
        """Joints and closedness, without rendering."""
        state, joints = self._connected().proprioception()
        return Measured(joints, float(state[6]), self.now())

    def command(self, target: JointTarget) -> None:
        """One physics step towards the target."""
        if self._released:
            raise ArmError(f"{self.name} is released and takes no target; connect it again")
        self._connected()
        check_target(self, target)
        # A position servo trails a moving target by its damping over its stiffness: aim ahead by as much.
        finger = FINGER_TRAVEL_M * (1.0 - target.gripper)
        finger_speed = -FINGER_TRAVEL_M * target.gripper_velocity
        control = np.concatenate([target.joints, [finger, finger]])
        control += np.concatenate([target.velocity, [finger_speed, finger_speed]]) * self._servo_lag_s()
        self._world.stream(control[None])
        self._held = target
        self._elapsed_s += 1.0 / self.rate_hz

    def hold(self) -> JointTarget:
        """Rest at the last target (the servos stay on it); one tick passes unless the arm is released."""
        self._connected()
        self._held = JointTarget.still(self._held.joints, self._held.gripper)
        if not self._released:
            self.command(self._held)
        return self._held

    def release(self) -> None:
        """The simulated brakes close: the arm keeps its pose and takes no more targets."""
        self._connected()
        self._released = True

    def disconnect(self) -> None:
        """Free the simulator."""
        if self._env is not None:
            self._env.close()
            self._env = None

    def now(self) -> float:
        """Simulated seconds since connect in lockstep, the machine's monotonic clock otherwise."""
        return self._elapsed_s if self.lockstep else time.monotonic()

    # -- what only a simulation can say ------------------------------------------------------------------------------

    @property
    def body(self) -> Body:
        """The Panda's capsules over the table."""
        return panda_body()

    @property
    def scene(self) -> SimulatedArm:
        """This arm itself."""
        return self

    @property
    def task(self) -> str:
        """What is to be done, in a word."""
        return str(self._settings["task"])

    @property
    def goal(self) -> dict[str, np.ndarray]:
        """The scene's goal: an observation of a state the simulator was really in."""
        goal = self._connected().goal
        assert goal is not None
        return goal

    @property
    def budget_steps(self) -> int:
        """Policy steps the task gives."""
        return self._connected().task.budget_steps

    def judge(self) -> tuple[bool, float]:
        """The simulator's own word: whether the task is done, and the distance to the goal in metres."""
        env = self._connected()
        state, thing = env.observe()["observation.state"], env.world.object_pose()
        return (
            env.task.success(state, thing, self.goal, self._resting_height),
            env.task.distance(state, thing, self.goal),
        )

    def truth(self) -> np.ndarray:
        """The object's position and quaternion wxyz (7,); for judges and viewers."""
        return self._connected().world.object_pose().astype(np.float32)

    def goal_picture(self, size: int = 256) -> np.ndarray:
        """The goal as the front camera would see it, (size, size, 3) uint8; the world is put back."""
        env = self._connected()
        self._remember_command()
        here = env.save_state()
        env.restore_state(self.goal["simulator.state"])
        picture = env.render("front", size)
        env.restore_state(here)
        return picture

    def picture(self, size: int = 256) -> np.ndarray:
        """The front camera for people, (size, size, 3) uint8."""
        return self._connected().render("front", size)

    # -- inside ------------------------------------------------------------------------------------------------------

    @property
    def _world(self) -> Streamed:
        return cast(Streamed, self._connected().world)

    def _connected(self) -> TabletopEnv:
        if self._env is None:
            raise ArmError(f"{self.name} is not connected; call connect() first")
        return self._env

    @abstractmethod
    def _servo_lag_s(self) -> np.ndarray:
        """Damping over stiffness of the nine servos (9,), s."""

    def _remember_command(self) -> None:
        """Tell the world what is commanded, so that a saved state is complete in itself."""
        position, rotation = self.kinematics.forward(self._held.joints)
        self._world.command = Command(
            self._held.joints.copy(), position, tool_rpy(rotation), np.asarray(self._held.gripper)
        )


class MujocoArm(SimulatedArm):
    """The Panda in MuJoCo."""

    simulator = "mujoco"

    def _servo_lag_s(self) -> np.ndarray:
        from envs.mujoco_world import LAG_SUBSTEPS

        return LAG_SUBSTEPS * PHYSICS_STEP_S


class PybulletArm(SimulatedArm):
    """The Panda in PyBullet."""

    simulator = "pybullet"

    def _servo_lag_s(self) -> np.ndarray:
        from envs.pybullet_world import LAG_SUBSTEPS

        return LAG_SUBSTEPS * PHYSICS_STEP_S
