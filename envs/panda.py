"""The Franka Panda of pybullet_data (Apache-2.0) as a MuJoCo body tree: one robot file for both simulators.

The light collision meshes (about 3000 faces in all) are what one sees; boxes and capsules are what one touches,
because primitive contacts make the simulator several times faster and grasps steadier than mesh contacts.
"""

# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false
# (mujoco is a binary module whose functions and enums no stub describes)

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import mujoco
import numpy as np
import pybullet_data

HAND = "panda_hand"
GRASP_SITE = "grasp"
BASE = "panda_link0"
FINGER_JOINTS = ("panda_finger_joint1", "panda_finger_joint2")
# Contact bits: what belongs to the robot touches the world, not itself (the guard checks self-collision on its own).
ROBOT_BIT, WORLD_BIT = 2, 1

# Position servos: stiffness (N m/rad), damping (N m s/rad), torque limit (N m) per joint.
SERVO_STIFFNESS = (4500.0, 4500.0, 3500.0, 3500.0, 2000.0, 2000.0, 2000.0)
SERVO_DAMPING = (300.0, 300.0, 240.0, 240.0, 130.0, 130.0, 130.0)
FINGER_STIFFNESS, FINGER_DAMPING, FINGER_FORCE = 1200.0, 40.0, 25.0

# Shapes for contact: link -> (primitive, half sizes or (radius, half length), centre, euler xyz) in the link's frame.
CONTACT_SHAPES: dict[str, list[tuple[str, tuple[float, ...], tuple[float, ...], tuple[float, ...]]]] = {
    "panda_link5": [("capsule", (0.05, 0.10), (0.0, 0.05, -0.12), (0.4, 0.0, 0.0))],
    "panda_link6": [("capsule", (0.05, 0.05), (0.05, 0.0, 0.0), (0.0, 0.0, 0.0))],
    "panda_link7": [("capsule", (0.045, 0.03), (0.0, 0.0, 0.07), (0.0, 0.0, 0.0))],
    HAND: [("box", (0.03, 0.10, 0.033), (0.0, 0.0, 0.033), (0.0, 0.0, 0.0))],
    "panda_leftfinger": [
        ("box", (0.009, 0.006, 0.009), (0.0, 0.0065, 0.0445), (0.0, 0.0, 0.0)),
        ("box", (0.009, 0.010, 0.018), (0.0, 0.014, 0.018), (0.0, 0.0, 0.0)),
    ],
    "panda_rightfinger": [
        ("box", (0.009, 0.006, 0.009), (0.0, -0.0065, 0.0445), (0.0, 0.0, 0.0)),
        ("box", (0.009, 0.010, 0.018), (0.0, -0.014, 0.018), (0.0, 0.0, 0.0)),
    ],
}


def urdf_path() -> Path:
    """Where the robot's file lies."""
    return Path(pybullet_data.getDataPath()) / "franka_panda" / "panda.urdf"


def mesh_path(filename: str) -> Path:
    """The light mesh that stands for a mesh the robot's file names."""
    return urdf_path().parent / filename.replace("package://", "").replace("/visual/", "/collision/")


def link_color(name: str) -> list[float]:
    """A white arm with a dark hand: RGBA of a link."""
    return (
        [0.22, 0.23, 0.25, 1.0] if name in (HAND, "panda_leftfinger", "panda_rightfinger") else [0.92, 0.93, 0.95, 1.0]
    )


def link_inertia(mass: float) -> float:
    """kg m^2. The file's inertias are 0.1 for every link, fingers too: a sphere of 6 cm is nearer the truth."""
    return 0.4 * mass * 0.06**2


def _numbers(text: str | None, default: str) -> list[float]:
    return [float(part) for part in (text or default).split()]


def _quaternion(rpy: list[float]) -> np.ndarray:
    """URDF roll, pitch, yaw (extrinsic xyz) as a quaternion wxyz."""
    quaternion = np.zeros(4)
    mujoco.mju_euler2Quat(quaternion, np.asarray(rpy), "XYZ")
    return quaternion


def add_panda(spec: mujoco.MjSpec, *, visuals: bool) -> None:
    """Add the arm, its servos and the site between the finger tips to a spec's world body.

    Without visuals the tree has no shapes at all: the smallest model that kinematics needs.
    """
    spec.compiler.degree = False
    root = ElementTree.parse(urdf_path()).getroot()
    links = {link.attrib["name"]: link for link in root.findall("link")}
    bodies = {BASE: spec.worldbody.add_body(name=BASE)}
    _fill_link(spec, bodies[BASE], links[BASE], visuals)
    waiting = list(root.findall("joint"))
    while waiting:
        joint = next(j for j in waiting if _attribute(j, "parent", "link") in bodies)
        waiting.remove(joint)
        child = _attribute(joint, "child", "link")
        origin = joint.find("origin")
        position = _numbers(origin.get("xyz") if origin is not None else None, "0 0 0")
        rpy = _numbers(origin.get("rpy") if origin is not None else None, "0 0 0")
        parent = bodies[_attribute(joint, "parent", "link")]
        if child == "panda_grasptarget":
            parent.add_site(name=GRASP_SITE, pos=position, size=[0.004, 0.004, 0.004], group=4)
            continue
        body = parent.add_body(name=child, pos=position, quat=_quaternion(rpy), gravcomp=1.0)
        bodies[child] = body
        kind = joint.attrib["type"]
        if kind in ("revolute", "prismatic"):
            _add_joint(body, joint)
        _fill_link(spec, body, links[child], visuals)
    _add_servos(spec)
    couple_fingers(spec)


def _attribute(element: ElementTree.Element, child: str, name: str) -> str:
    found = element.find(child)
    assert found is not None, f"{urdf_path()}: <{element.tag}> has no <{child}>"
    return found.attrib[name]


def _add_joint(body: mujoco.MjsBody, joint: ElementTree.Element) -> None:
    prismatic = joint.attrib["type"] == "prismatic"
    safety = joint.find("safety_controller")
    limits = joint.find("limit")
    assert limits is not None
    low, high = float(limits.attrib["lower"]), float(limits.attrib["upper"])
    if safety is not None:  # the soft limits are Franka's own; the hard ones in this file are looser
        low, high = float(safety.attrib["soft_lower_limit"]), float(safety.attrib["soft_upper_limit"])
    axis = joint.find("axis")
    body.add_joint(
        name=joint.attrib["name"],
        type=mujoco.mjtJoint.mjJNT_SLIDE if prismatic else mujoco.mjtJoint.mjJNT_HINGE,
        axis=_numbers(axis.get("xyz") if axis is not None else None, "0 0 1"),
        range=[low, high],
        limited=True,
        armature=0.0 if prismatic else 0.1,
        damping=1.0 if not prismatic else 5.0,
    )


def _fill_link(spec: mujoco.MjSpec, body: mujoco.MjsBody, link: ElementTree.Element, visuals: bool) -> None:
    """Inertia, the mesh one sees and the primitives one touches."""
    inertial = link.find("inertial")
    if inertial is not None:
        mass = float(_attribute(inertial, "mass", "value"))
        origin = inertial.find("origin")
        if mass > 0:
            body.mass = mass
            body.ipos = _numbers(origin.get("xyz") if origin is not None else None, "0 0 0")
            body.inertia = [link_inertia(mass)] * 3
            body.explicitinertial = True
    if not visuals:
        return
    name = link.attrib["name"]
    visual = link.find("visual")
    if visual is not None:
        origin = visual.find("origin")
        mesh_element = visual.find("geometry/mesh")
        assert mesh_element is not None
        file = mesh_path(mesh_element.attrib["filename"])
        if spec.mesh(file.stem) is None:
            spec.add_mesh(name=file.stem, file=str(file))
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_MESH,
            meshname=file.stem,
            pos=_numbers(origin.get("xyz") if origin is not None else None, "0 0 0"),
            quat=_quaternion(_numbers(origin.get("rpy") if origin is not None else None, "0 0 0")),
            rgba=link_color(name),
            contype=0,
            conaffinity=0,
            group=0,
            mass=0,
        )
    for index, (shape, size, position, euler) in enumerate(CONTACT_SHAPES.get(name, [])):
        finger = "finger" in name
        body.add_geom(
            name=f"{name}_contact{index}",
            type=mujoco.mjtGeom.mjGEOM_BOX if shape == "box" else mujoco.mjtGeom.mjGEOM_CAPSULE,
            size=[*size, 0.0][:3],
            pos=position,
            quat=_quaternion(list(euler)),
            contype=ROBOT_BIT,
            conaffinity=WORLD_BIT,
            friction=[1.2, 0.02, 0.0005] if finger else [0.4, 0.005, 0.0001],
            condim=4 if finger else 3,
            group=3,
            mass=0,
        )


def _add_servos(spec: mujoco.MjSpec) -> None:
    """Position servos on the seven joints and the two fingers; control is a joint target (rad or m)."""
    names = [f"panda_joint{i}" for i in range(1, 8)] + list(FINGER_JOINTS)
    stiffness = [*SERVO_STIFFNESS, FINGER_STIFFNESS, FINGER_STIFFNESS]
    damping = [*SERVO_DAMPING, FINGER_DAMPING, FINGER_DAMPING]
    torque = [87.0] * 4 + [12.0] * 3 + [FINGER_FORCE] * 2
    for name, kp, kv, limit in zip(names, stiffness, damping, torque, strict=True):
        actuator = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        actuator.gaintype = mujoco.mjtGain.mjGAIN_FIXED
        actuator.biastype = mujoco.mjtBias.mjBIAS_AFFINE
        actuator.gainprm[0] = kp
        actuator.biasprm[1] = -kp
        actuator.biasprm[2] = -kv
        actuator.forcerange = [-limit, limit]
        actuator.forcelimited = True


def couple_fingers(spec: mujoco.MjSpec) -> None:
    """One motor drives both fingers of the real hand: they open and close together."""
    coupling = spec.add_equality(
        type=mujoco.mjtEq.mjEQ_JOINT, objtype=mujoco.mjtObj.mjOBJ_JOINT, name1=FINGER_JOINTS[0], name2=FINGER_JOINTS[1]
    )
    coupling.data[:5] = [0.0, 1.0, 0.0, 0.0, 0.0]


def kinematic_model() -> mujoco.MjModel:
    """The arm alone, without shapes: for kinematics only."""
    spec = mujoco.MjSpec()
    add_panda(spec, visuals=False)
    return spec.compile()


def tool_rpy(rotation: np.ndarray) -> np.ndarray:
    """Extrinsic-xyz roll, pitch, yaw of rotation matrices (..., 3, 3) -> (..., 3), roll in (0, 2 pi).

    A tool that points down has roll pi; the usual branch (-pi, pi] would flip its sign at every breath.
    """
    roll = np.arctan2(rotation[..., 2, 1], rotation[..., 2, 2]) % (2 * math.pi)
    pitch = -np.arcsin(np.clip(rotation[..., 2, 0], -1.0, 1.0))
    yaw = np.arctan2(rotation[..., 1, 0], rotation[..., 0, 0])
    return np.stack([roll, pitch, yaw], axis=-1)


def rotation_from_rpy(rpy: np.ndarray) -> np.ndarray:
    """Rotation matrices (..., 3, 3) of extrinsic-xyz roll, pitch, yaw (..., 3)."""
    cr, cp, cy = np.cos(rpy[..., 0]), np.cos(rpy[..., 1]), np.cos(rpy[..., 2])
    sr, sp, sy = np.sin(rpy[..., 0]), np.sin(rpy[..., 1]), np.sin(rpy[..., 2])
    rows = [
        np.stack([cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr], axis=-1),
        np.stack([sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr], axis=-1),
        np.stack([-sp, cp * sr, cp * cr], axis=-1),
    ]
    return np.stack(rows, axis=-2)
