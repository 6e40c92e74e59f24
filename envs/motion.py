"""How one policy step becomes joint targets: a bounded tool pose, inverse kinematics, and a minimum-jerk path.

Each step starts and ends at rest, so what a camera and the joint angles show is the whole state: nothing moves
between two observations that an observer could not see. Both simulators and the batched rollout use these lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from envs.panda import FINGER_JOINTS, rotation_from_rpy, tool_rpy
from envs.tabletop import (
    FINGER_TRAVEL_M,
    SUBSTEPS,
    TILT_LIMIT_RAD,
    WORKSPACE_HIGH,
    WORKSPACE_LOW,
    YAW_LIMIT_RAD,
)

CONTROLS = 7 + len(FINGER_JOINTS)
# The commanded gripper may lead the measured one by this much: enough to squeeze, not enough to wind up.
GRIPPER_LEAD = 0.5
# Likewise the commanded tool may lead the measured one (a tool pressed against something does not run away).
POSITION_LEAD_M = 0.02


@dataclass(frozen=True)
class Command:
    """What the arm is told to hold: joint angles (..., 7) rad, tool pose, gripper closedness (...)."""

    joints: np.ndarray
    position: np.ndarray
    rpy: np.ndarray
    gripper: np.ndarray

    def to_vector(self) -> np.ndarray:
        """(..., 14): joints, position, rpy, gripper."""
        return np.concatenate([self.joints, self.position, self.rpy, self.gripper[..., None]], axis=-1)

    @classmethod
    def from_vector(cls, vector: np.ndarray) -> Command:
        """The inverse of `to_vector`."""
        return cls(vector[..., :7], vector[..., 7:10], vector[..., 10:13], vector[..., 13])


COMMAND_SIZE = 14
# A pose that inverse kinematics misses by more than this, or reaches only by a leap of a joint, is not gone to.
MISS_M = 0.005
LEAP_RAD = 0.8


class Solver(Protocol):
    """Kinematics of one arm (7,) or of many (N, 7)."""

    def forward(self, joints: np.ndarray) -> tuple[Any, ...]: ...
    def solve(self, joints: np.ndarray, position: np.ndarray, rotation: np.ndarray) -> np.ndarray: ...


def next_command(
    command: Command, measured_position: np.ndarray, measured_gripper: np.ndarray, action: np.ndarray, arm: Solver
) -> Command:
    """What to command next, inside the workspace; where the arm cannot take the pose it stays, and only grips.

    Shapes as in `next_pose`.
    """
    position, rpy, gripper = next_pose(command, measured_position, measured_gripper, action)
    joints = arm.solve(command.joints, position, rotation_from_rpy(rpy))
    missed = np.linalg.norm(arm.forward(joints)[0] - position, axis=-1) > MISS_M
    stays = (missed | (np.abs(joints - command.joints).max(-1) > LEAP_RAD))[..., None]
    return Command(
        np.where(stays, command.joints, joints),
        np.where(stays, command.position, position),
        np.where(stays, command.rpy, rpy),
        gripper,
    )


def next_pose(
    command: Command, measured_position: np.ndarray, measured_gripper: np.ndarray, action: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pose to command next: (..., 3) position, (..., 3) rpy, (...) closedness, inside the workspace.

    Args:
        command: what is commanded now.
        measured_position: where the tool is (..., 3), m.
        measured_gripper: how closed the gripper is (...).
        action: (..., 7) physical change.
    """
    # Rotations: R' = dR R, with the result kept near pointing down.
    turned = rotation_from_rpy(action[..., 3:6]) @ rotation_from_rpy(command.rpy)
    rpy = tool_rpy(turned)
    bound = np.array([TILT_LIMIT_RAD, TILT_LIMIT_RAD, YAW_LIMIT_RAD])
    down = np.array([np.pi, 0.0, 0.0])
    rpy = np.clip(rpy, down - bound, down + bound)
    start = measured_position + np.clip(command.position - measured_position, -POSITION_LEAD_M, POSITION_LEAD_M)
    position = np.clip(start + action[..., :3], WORKSPACE_LOW, WORKSPACE_HIGH)
    lead = np.clip(command.gripper + action[..., 6] - measured_gripper, -GRIPPER_LEAD, GRIPPER_LEAD)
    return position, rpy, np.clip(measured_gripper + lead, 0.0, 1.0)


def minimum_jerk(substeps: int = SUBSTEPS) -> tuple[np.ndarray, np.ndarray]:
    """Progress (substeps,) from 0 to 1 and its rate per step, at rest on both ends, done at nine tenths of the time."""
    t = np.minimum((np.arange(substeps) + 1) / (0.9 * substeps), 1.0)
    return 10 * t**3 - 15 * t**4 + 6 * t**5, (30 * t**2 - 60 * t**3 + 30 * t**4) / (0.9 * substeps)


def control_path(before: Command, after: Command, lag_substeps: np.ndarray) -> np.ndarray:
    """Servo targets (..., substeps, 9) from one command to the next.

    `lag_substeps` (9,) is each servo's damping over stiffness in substeps: a position servo trails its target by
    that many substeps of motion, so the target is sent ahead by as much.
    """
    progress, rate = minimum_jerk()
    lead = progress[:, None] + rate[:, None] * lag_substeps[None, :]
    begin, end = _controls(before), _controls(after)
    return begin[..., None, :] + (end - begin)[..., None, :] * lead


def _controls(command: Command) -> np.ndarray:
    finger = FINGER_TRAVEL_M * (1.0 - command.gripper)[..., None]
    return np.concatenate([command.joints, finger, finger], axis=-1)
