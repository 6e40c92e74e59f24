"""Between joint angles and the tool's pose: what the guard needs to know of an arm, and which arms it knows."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Kinematics(Protocol):
    """Forward and inverse kinematics of one arm, in its base frame.

    Attributes:
        lower, upper: (J,) rad, the arm's own joint limits.
    """

    lower: np.ndarray
    upper: np.ndarray

    def forward(self, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tool position (3,) m and rotation matrix (3, 3) at joint angles (J,)."""
        ...

    def solve(self, joints: np.ndarray, position: np.ndarray, rotation: np.ndarray) -> np.ndarray:
        """Joint angles (J,) that bring the tool to a pose, searched from `joints`; as near as it gets if none do."""
        ...


def panda() -> Kinematics:
    """The Franka Panda with its gripper; mink does the work."""
    from envs.kinematics import ArmKinematics

    return ArmKinematics()


def rotation_of(rpy: np.ndarray) -> np.ndarray:
    """Rotation matrix (3, 3) of extrinsic-xyz roll, pitch, yaw (3,)."""
    from envs.panda import rotation_from_rpy

    return rotation_from_rpy(np.asarray(rpy, dtype=np.float64))


def rpy_of(rotation: np.ndarray) -> np.ndarray:
    """Roll, pitch, yaw (3,) of a rotation matrix (3, 3), roll in (0, 2 pi)."""
    from envs.panda import tool_rpy

    return tool_rpy(rotation)


# What the SO-101's solutions keep off the ends of its joints, rad. The guard cuts what is within its margin (0.05 rad in
# configs/guard/so101.yaml), and a solution that is cut misses its aim by a centimetre.
SO101_KEEPS_OFF_RAD = 0.06


def so101() -> Kinematics:
    """The SO-101: five joints, so the tool's position and as much of its orientation as they leave."""
    from envs import so101 as arm
    from robots.mujoco_kinematics import MujocoKinematics

    whole = MujocoKinematics(arm.arm_model(), arm.JOINT_NAMES, arm.TOOL_SITE, arm.HOME_JOINTS)
    return whole.narrowed(whole.lower + SO101_KEEPS_OFF_RAD, whole.upper - SO101_KEEPS_OFF_RAD)
