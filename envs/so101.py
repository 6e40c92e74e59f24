"""The SO-101 on a table with one block: the arm's own model, a scene around it, and a camera in front."""

# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false
# (mujoco is a binary module whose functions and enums no stub describes)

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np

from envs.tabletop import Camera

ARM_FILE = Path(__file__).with_name("so101.xml")
JOINT_NAMES = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll")
GRIPPER = "gripper"
MOTORS = (*JOINT_NAMES, GRIPPER)
TOOL_SITE = "tool"
# Folded over its own base: with torque off the simulated arm settles from here by a few degrees.
PARK_JOINTS = np.array([0.0, -1.64, 1.55, 0.7, 0.0])
# Over the table, the gripper pointing down and a little forward; the search for other poses starts here.
HOME_JOINTS = np.array([0.0, -0.45, 0.45, 1.35, 0.0])
# The gripper joint, rad: closed, open.
GRIPPER_CLOSED, GRIPPER_OPEN = -0.174533, 1.74533
PHYSICS_STEP_S = 0.002
BLOCK_HALF_M = 0.0125
# Where the block may lie: (x, y) in metres.
BLOCK_LOW, BLOCK_HIGH = np.array([0.16, -0.09]), np.array([0.26, 0.09])
FRONT = Camera(position=(0.60, 0.34, 0.40), target=(0.14, 0.0, 0.09), fov_deg=42.0)
# Contact bits as in so101.xml: the arm touches the world, not itself.
WORLD_BITS = {"contype": 1, "conaffinity": 3}


def closedness(joint: np.ndarray | float) -> np.ndarray | float:
    """0 open to 1 closed, of the gripper joint's angle (rad)."""
    return (GRIPPER_OPEN - joint) / (GRIPPER_OPEN - GRIPPER_CLOSED)


def gripper_angle(closed: np.ndarray | float) -> np.ndarray | float:
    """The inverse of `closedness`."""
    return GRIPPER_OPEN - closed * (GRIPPER_OPEN - GRIPPER_CLOSED)


def arm_model() -> mujoco.MjModel:
    """The arm alone: what kinematics and collision checks need."""
    return mujoco.MjModel.from_xml_path(str(ARM_FILE))


def scene_model() -> mujoco.MjModel:
    """The arm on a table, a block with a free joint, light, and the camera `front`."""
    spec = mujoco.MjSpec.from_file(str(ARM_FILE))
    spec.option.timestep = PHYSICS_STEP_S
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.visual.quality.shadowsize, spec.visual.quality.offsamples = 0, 0
    spec.visual.global_.offwidth = spec.visual.global_.offheight = 512
    spec.visual.map.znear = 0.02
    spec.visual.headlight.ambient = [0.35, 0.35, 0.35]
    spec.visual.headlight.diffuse = [0.15, 0.15, 0.15]
    spec.visual.headlight.specular = [0.0, 0.0, 0.0]
    world = spec.worldbody
    world.add_light(pos=[0.3, -0.5, 1.2], dir=[-0.1, 0.4, -1.0], diffuse=[0.6, 0.6, 0.6], castshadow=False)
    world.add_geom(
        name="table", type=mujoco.mjtGeom.mjGEOM_BOX, pos=[0.2, 0.0, -0.02], size=[0.45, 0.5, 0.02],
        rgba=[0.55, 0.57, 0.60, 1.0], **WORLD_BITS,
    )  # fmt: skip
    block = world.add_body(name="block", pos=[0.2, 0.0, BLOCK_HALF_M])
    block.add_freejoint(name="block")
    block.add_geom(
        name="block", type=mujoco.mjtGeom.mjGEOM_BOX, size=[BLOCK_HALF_M] * 3, mass=0.02, rgba=[0.85, 0.12, 0.10, 1.0],
        friction=[1.0, 0.02, 0.001], condim=4, **WORLD_BITS,
    )  # fmt: skip
    world.add_camera(name="front", pos=list(FRONT.position), quat=_quaternion(FRONT.axes()), fovy=FRONT.fov_deg)
    return spec.compile()


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    """wxyz of a rotation matrix (3, 3)."""
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, rotation.ravel())
    return quaternion
