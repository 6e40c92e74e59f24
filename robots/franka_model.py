"""What a Franka arm is: its geometry, its shape in capsules, and what its controller allows at which position."""

# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false
# (mujoco is a binary module whose functions and enums no stub describes)

from __future__ import annotations

import math
from dataclasses import dataclass

import mujoco
import numpy as np

from robots.arm import JointTarget
from robots.kinematics import Kinematics

JOINTS = 7
TOOL = "tool"
# The tabletop's home, where its tasks begin: the hand points down.
HOME = np.array([0.0, -0.15, 0.0, -2.3, 0.0, 2.15, math.pi / 4])

# Franka's Denavit-Hartenberg parameters (Craig), the same for Panda and FR3: a (m), alpha (rad), d (m) of joints 1 to 7.
DENAVIT_HARTENBERG = (
    (0.0, 0.0, 0.333),
    (0.0, -math.pi / 2, 0.0),
    (0.0, math.pi / 2, 0.316),
    (0.0825, math.pi / 2, 0.0),
    (-0.0825, -math.pi / 2, 0.384),
    (0.0, math.pi / 2, 0.0),
    (0.088, math.pi / 2, 0.0),
)
# From joint 7 to the flange, and from there to the point between the finger tips of the Franka Hand, which sits on the
# flange turned by -45 degrees.
FLANGE_M, HAND_TURN, TIP_M = 0.107, -math.pi / 4, 0.1034

# The arm's own self-collision volumes as franka_description states them, without a safety distance. Link -> (centre m,
# axis, radius m, length m between the centres of the end balls). Two are ours: the last capsule of the hand ends where the
# finger tips end, 9 mm beyond the tool point, and not 17; and that of link 1, which only turns, ends above the table.
CAPSULES: dict[str, tuple[tuple[tuple[float, float, float], str, float, float], ...]] = {
    "link0": (((-0.075, 0.0, 0.06), "x", 0.06, 0.03),),
    "link1": (((0.0, 0.0, -0.155), "z", 0.06, 0.21),),
    "link2": (((0.0, 0.0, 0.0), "z", 0.06, 0.12),),
    "link3": (((0.0, 0.0, -0.145), "z", 0.06, 0.15),),
    "link4": (((0.0, 0.0, 0.0), "z", 0.06, 0.12),),
    "link5": (((0.0, 0.0, -0.26), "z", 0.06, 0.10), ((0.0, 0.08, -0.13), "z", 0.025, 0.14)),
    "link6": (((0.0, 0.0, -0.03), "z", 0.05, 0.08),),
    "link7": (((0.0, 0.0, 0.01), "z", 0.04, 0.14), ((0.06, 0.0, 0.082), "x", 0.03, 0.01)),
    "hand": (((0.0, 0.0, 0.04), "y", 0.04, 0.10), ((0.0, 0.0, 0.093), "y", 0.02, 0.10)),
}


@dataclass(frozen=True)
class Franka:
    """One kind of Franka arm: radians, seconds.

    Attributes:
        kind: `fr3` or `panda`; the first part of every joint's name.
        lower, upper: (7,) rad.
        velocity: (7,) rad/s, anywhere.
        acceleration, jerk: (7,) rad/s^2 and rad/s^3.
        torque: (7,) Nm the joints bear.
        braking: (7,) rad/s^2, what the controller counts on near a joint's end; 0 where it does not look.
        offset: (7,) rad/s, its reserve there.
    """

    kind: str
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    velocity: tuple[float, ...]
    acceleration: tuple[float, ...]
    jerk: tuple[float, ...]
    torque: tuple[float, ...] = (87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0)
    braking: tuple[float, ...] = (0.0,) * JOINTS
    offset: tuple[float, ...] = (0.0,) * JOINTS

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Seven names."""
        return tuple(f"{self.kind}_joint{index}" for index in range(1, JOINTS + 1))

    def velocity_range(self, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The slowest and fastest (7,) rad/s the controller allows at joint angles (7,): near an end it wants less."""
        most = np.array(self.velocity)
        if not any(self.braking):
            return -most, most
        braking, offset = np.array(self.braking), np.array(self.offset)

        def towards(left: np.ndarray) -> np.ndarray:
            return np.clip(np.sqrt(np.maximum(2.0 * braking * left, 0.0)) - offset, 0.0, most)

        return -towards(joints - np.array(self.lower)), towards(np.array(self.upper) - joints)

    def refusal(self, target: JointTarget) -> str:
        """Why the controller would answer a target with a reflex; empty when it would not."""
        for name, value, low, high in zip(self.joint_names, target.joints, self.lower, self.upper, strict=True):
            if not low <= value <= high:
                return f"{name} would be at {value:.3f} rad, outside [{low:g}, {high:g}]"
        slowest, fastest = self.velocity_range(target.joints)
        for name, value, low, high, place in zip(
            self.joint_names, target.velocity, slowest, fastest, target.joints, strict=True
        ):
            if not low <= value <= high:
                return f"{name} would move at {value:.2f} rad/s; at {place:.3f} rad it may [{low:.2f}, {high:.2f}]"
        return ""


# Franka Robotics, "Robot specifications" (FCI documentation) and the limits in libfranka's rate_limiting.h: positions,
# velocities with their dependence on the position, accelerations and jerks of the FR3.
FR3 = Franka(
    kind="fr3",
    lower=(-2.7437, -1.7837, -2.9007, -3.0421, -2.8065, 0.5445, -3.0159),
    upper=(2.7437, 1.7837, 2.9007, -0.1518, 2.8065, 4.5169, 3.0159),
    velocity=(2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26),
    acceleration=(10.0,) * JOINTS,
    jerk=(5000.0,) * JOINTS,
    braking=(6.0, 2.585, 3.5, 4.0, 17.0, 5.5, 17.0),
    offset=(0.30, 0.20, 0.20, 0.30, 0.35, 0.35, 0.35),
)
# The same page of the older robot.
PANDA = Franka(
    kind="panda",
    lower=(-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973),
    upper=(2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973),
    velocity=(2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61),
    acceleration=(15.0, 7.5, 10.0, 12.5, 15.0, 20.0, 20.0),
    jerk=(7500.0, 3750.0, 5000.0, 6250.0, 7500.0, 10000.0, 10000.0),
)
KINDS = {"fr3": FR3, "panda": PANDA}


def model(franka: Franka) -> mujoco.MjModel:
    """The arm with a Franka Hand as a MuJoCo model: joints, the tool site, and its capsules for who asks how near."""
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    body = spec.worldbody.add_body(name=f"{franka.kind}_link0")
    _shape(body, "link0")
    for index, (a, alpha, d) in enumerate(DENAVIT_HARTENBERG):
        turn = np.array([math.cos(alpha / 2), math.sin(alpha / 2), 0.0, 0.0])
        # Craig's convention: along and about the old x by a and alpha, then along and about the new z by d and the joint.
        place = np.array([a, -d * math.sin(alpha), d * math.cos(alpha)])
        body = body.add_body(name=f"{franka.kind}_link{index + 1}", pos=place, quat=turn)
        body.add_joint(
            name=franka.joint_names[index], type=mujoco.mjtJoint.mjJNT_HINGE, axis=[0, 0, 1], limited=True,
            range=[franka.lower[index], franka.upper[index]],
        )  # fmt: skip
        _shape(body, f"link{index + 1}")
    half = HAND_TURN / 2
    hand = body.add_body(
        name=f"{franka.kind}_hand", pos=[0, 0, FLANGE_M], quat=[math.cos(half), 0.0, 0.0, math.sin(half)]
    )
    _shape(hand, "hand")
    hand.add_site(name=TOOL, pos=[0, 0, TIP_M])
    return spec.compile()


def kinematics(franka: Franka) -> Kinematics:
    """Between the seven joints and the point between the finger tips."""
    from robots.mujoco_kinematics import MujocoKinematics

    return MujocoKinematics(model(franka), franka.joint_names, TOOL, home=HOME)


def flange(joints: np.ndarray) -> np.ndarray:
    """The flange's pose in the base frame, (4, 4): what the controller's own O_T_EE is checked against."""
    pose = np.eye(4)
    for (a, alpha, d), angle in zip(DENAVIT_HARTENBERG, joints, strict=True):
        ca, sa, cq, sq = math.cos(alpha), math.sin(alpha), math.cos(angle), math.sin(angle)
        pose = pose @ np.array(
            [[cq, -sq, 0, a], [sq * ca, cq * ca, -sa, -d * sa], [sq * sa, cq * sa, ca, d * ca], [0, 0, 0, 1]]
        )
    pose[:3, 3] += pose[:3, 2] * FLANGE_M
    return pose


def _shape(body: mujoco.MjsBody, link: str) -> None:
    for index, (centre, axis, radius, length) in enumerate(CAPSULES[link]):
        along = np.eye(3)["xyz".index(axis)] * length / 2
        body.add_geom(
            name=f"{link} {index}", type=mujoco.mjtGeom.mjGEOM_CAPSULE, size=[radius, 0.0, 0.0],
            fromto=[*(np.array(centre) - along), *(np.array(centre) + along)],
        )  # fmt: skip
