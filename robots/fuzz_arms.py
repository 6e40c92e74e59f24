"""Arms that nobody built: random chains of 3 to 8 joints with random limits, for trying the guard on.

An arm is plain numbers (`Chain`). The guard gets it as a MuJoCo model; the judge works with the numbers themselves.
"""

# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false
# (mujoco is a binary module whose functions and enums no stub describes)

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from robots.body import MujocoBody, Plane
from robots.guard import Guard
from robots.kinematics import rpy_of
from robots.limits import Limits

ITERATIONS, DAMPING = 5, 1e-6
CONVERGED_RAD = 1e-7


@dataclass(frozen=True)
class Chain:
    """A serial arm of J joints.

    Attributes:
        offsets: (J + 1, 3) m, from the base to the first joint, from each joint to the next, from the last to the tool.
        turns: (J, 4) quaternion wxyz of each link's frame in the one before.
        axes: (J, 3) unit vectors, joint axes in the link's frame.
        radius: (J,) m, of the capsule around each link.
        home: (J,) rad.
        rate_hz: of its ticks.
        plane_m: height of the table; None where there is none.
    """

    offsets: np.ndarray
    turns: np.ndarray
    axes: np.ndarray
    radius: np.ndarray
    home: np.ndarray
    rate_hz: float
    plane_m: float | None

    @property
    def names(self) -> tuple[str, ...]:
        """Of the joints."""
        return tuple(f"joint{index + 1}" for index in range(len(self.axes)))

    def model(self) -> mujoco.MjModel:
        """The chain as a compiled model."""
        spec = mujoco.MjSpec()
        spec.compiler.degree = False
        parent = spec.worldbody
        for index, name in enumerate(self.names):
            body = parent.add_body(name=f"link{index + 1}", pos=self.offsets[index], quat=self.turns[index])
            body.mass, body.inertia, body.explicitinertial = 1.0, [1.0] * 3, True
            body.add_joint(name=name, axis=self.axes[index], type=mujoco.mjtJoint.mjJNT_HINGE)
            body.add_geom(
                type=mujoco.mjtGeom.mjGEOM_CAPSULE, size=[self.radius[index], 0, 0],
                fromto=[0, 0, 0, *self.offsets[index + 1]],
            )  # fmt: skip
            parent = body
        parent.add_site(name="tool", pos=self.offsets[-1])
        return spec.compile()


class ChainKinematics:
    """Forward kinematics by MuJoCo, inverse by damped least squares inside the joint limits."""

    def __init__(self, model: mujoco.MjModel, lower: np.ndarray, upper: np.ndarray) -> None:
        self.lower, self.upper = lower, upper
        self._model, self._data = model, mujoco.MjData(model)
        self._site = model.site("tool").id
        self._jacobian = np.zeros((6, model.nv))
        self._regular = np.eye(model.nv) * DAMPING

    def forward(self, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tool position (3,) and rotation (3, 3) at joint angles (J,)."""
        self._data.qpos[:] = joints
        mujoco.mj_kinematics(self._model, self._data)
        return self._data.site_xpos[self._site].copy(), self._data.site_xmat[self._site].reshape(3, 3).copy()

    def solve(self, joints: np.ndarray, position: np.ndarray, rotation: np.ndarray) -> np.ndarray:
        """Joint angles (J,) near a pose, searched from `joints`."""
        joints = np.clip(joints, self.lower, self.upper)
        error = np.empty(6)
        for _ in range(ITERATIONS):
            at, facing = self.forward(joints)
            mujoco.mj_comPos(self._model, self._data)
            mujoco.mj_jacSite(self._model, self._data, self._jacobian[:3], self._jacobian[3:], self._site)
            turn = rotation @ facing.T
            error[:3] = position - at
            error[3:] = 0.5 * np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]])
            jacobian = self._jacobian
            step = np.linalg.solve(jacobian.T @ jacobian + self._regular, jacobian.T @ error)
            moved = np.clip(joints + step, self.lower, self.upper)
            if np.abs(moved - joints).max() < CONVERGED_RAD:
                return moved
            joints = moved
        return joints


@dataclass(frozen=True)
class RandomArm:
    """A chain, its limits, and a guard over both."""

    chain: Chain
    limits: Limits
    guard: Guard


def random_arm(rng: np.random.Generator) -> RandomArm:
    """An arm that can take a step from its home."""
    while True:
        chain = _chain(rng)
        model = chain.model()
        lower, upper = (
            chain.home - rng.uniform(0.4, 2.5, len(chain.home)),
            chain.home + rng.uniform(0.4, 2.5, len(chain.home)),
        )
        kinematics = ChainKinematics(model, lower, upper)
        position, rotation = kinematics.forward(chain.home)
        rpy = rpy_of(rotation)
        if abs(rpy[1]) > 1.0:  # roll and yaw are not told apart near a pitch of a quarter turn
            continue
        limits = _limits(rng, chain, lower, upper, position, rpy)
        if rng.random() < 0.3:
            return RandomArm(chain, limits, Guard(limits, kinematics))
        planes = [] if chain.plane_m is None else [Plane("table", chain.plane_m)]
        body = MujocoBody(model, chain.names, tool="tool", rest=chain.home, obstacles=planes, shapes="all")
        return RandomArm(chain, limits, Guard(limits, kinematics, body))


def _chain(rng: np.random.Generator) -> Chain:
    count = int(rng.integers(3, 9))
    offsets = rng.normal(size=(count + 1, 3))
    offsets *= (rng.uniform(0.05, 0.35, count + 1) / np.linalg.norm(offsets, axis=1))[:, None]
    turns = rng.normal(size=(count, 4))
    axes = rng.normal(size=(count, 3))
    if rng.random() < 0.5:  # as arms are built: axes along a frame's own
        axes = np.eye(3)[rng.integers(0, 3, count)]
    return Chain(
        offsets=offsets,
        turns=turns / np.linalg.norm(turns, axis=1, keepdims=True),
        axes=axes / np.linalg.norm(axes, axis=1, keepdims=True),
        radius=rng.uniform(0.01, 0.04, count),
        home=rng.uniform(-1.5, 1.5, count),
        rate_hz=float(rng.choice([20.0, 30.0, 50.0, 100.0, 125.0])),
        plane_m=float(rng.uniform(-1.5, 0.0)) if rng.random() < 0.7 else None,
    )


def _limits(
    rng: np.random.Generator, chain: Chain, lower: np.ndarray, upper: np.ndarray, position: np.ndarray, rpy: np.ndarray
) -> Limits:
    count = len(chain.home)
    period = float(rng.uniform(0.05, 0.25))
    move, turn = rng.uniform(0.003, 0.05), rng.uniform(0.02, 0.25)
    high = np.array([move] * 3 + [turn] * 3 + [rng.uniform(0.1, 1.0)])
    room = rng.uniform(0.02, 0.3, (2, 3))
    tilt = rng.uniform(0.1, 0.5, (2, 3))
    velocity = rng.uniform(0.2, 3.0, count)
    acceleration = velocity * rng.uniform(2.0, 40.0, count)
    gripper = float(rng.uniform(1.0, 8.0))
    slow = float(rng.uniform(20, 500))

    def numbers(values: np.ndarray) -> tuple[float, ...]:
        return tuple(float(value) for value in values)

    return Limits(
        period_s=period, action_low=numbers(-high), action_high=numbers(high),
        workspace_low=numbers(position - room[0]), workspace_high=numbers(position + room[1]),
        tool_rpy_low=numbers(rpy - tilt[0]), tool_rpy_high=numbers(rpy + tilt[1]),
        link_low=numbers(np.full(3, -rng.uniform(1.0, 3.0))), link_high=numbers(np.full(3, rng.uniform(1.0, 3.0))),
        self_clearance_m=float(rng.uniform(-0.01, 0.02)), obstacle_clearance_m=float(rng.uniform(-0.01, 0.02)),
        condition_slow=slow, condition_stop=slow * float(rng.uniform(1.5, 4.0)),
        position_lead_m=float(rng.uniform(0.0, 0.03)), gripper_lead=float(rng.uniform(0.1, 1.0)),
        joint_names=chain.names, joint_low=numbers(lower), joint_high=numbers(upper),
        joint_margin_rad=float(rng.uniform(0.0, 0.1)), joint_velocity=numbers(velocity),
        joint_acceleration=numbers(acceleration), joint_jerk=numbers(acceleration * rng.uniform(5.0, 500.0, count)),
        gripper_velocity=gripper, gripper_acceleration=gripper * float(rng.uniform(5, 40)),
        gripper_jerk=gripper * float(rng.uniform(100, 2000)), longest_step_s=period * float(rng.uniform(1.5, 8.0)),
        tracking_error_rad=float(rng.uniform(0.05, 0.3)), observation_age_s=float(rng.uniform(0.1, 1.0)),
        state_age_s=0.1, camera_age_s=0.5, frozen_looks=10, heartbeat_s=0.1, planner_deadline_s=1.0,
        late_tick_s=0.05, temperature_c=65.0, load_share=0.9, uncertainty=float(rng.uniform(1.0, 5.0)),
        vetoes_in_a_row=5,
    )  # fmt: skip
