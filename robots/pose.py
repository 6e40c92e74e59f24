"""The tool's pose as every model of the house reads it: three metres, three angles, one closedness."""

from __future__ import annotations

import math

import numpy as np

from robots.kinematics import Kinematics


def rpy_of(rotation: np.ndarray) -> np.ndarray:
    """Extrinsic-xyz roll, pitch, yaw (3,) of a rotation matrix (3, 3), roll in (0, 2 pi): a tool that points down has pi.

    What `envs.panda.tool_rpy` computes, for environments in which a driver lives and no simulator does.
    """
    roll = math.atan2(rotation[2, 1], rotation[2, 2]) % (2 * math.pi)
    pitch = -math.asin(min(max(float(rotation[2, 0]), -1.0), 1.0))
    return np.array([roll, pitch, math.atan2(rotation[1, 0], rotation[0, 0])])


def tool_state(kinematics: Kinematics, joints: np.ndarray, gripper: float) -> np.ndarray:
    """`observation.state`, float32 (7,), at joint angles (J,) and a closedness."""
    position, rotation = kinematics.forward(joints)
    return np.array([*position, *rpy_of(rotation), gripper], dtype=np.float32)
