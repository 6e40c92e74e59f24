"""From a wanted end-effector pose to joint angles: differential inverse kinematics, one arm or thousands at once.

`ArmKinematics.solve` is mink's quadratic program with joint limits, used wherever one arm moves. `BatchedKinematics`
takes the same steps for many arms in closed form (the program's solution while no limit binds), because the true
simulator as a brain needs joint targets for every imagined future. A test holds the two together.
"""

# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false
# (mujoco is a binary module whose functions and enums no stub describes)

from __future__ import annotations

import mink
import mujoco
import numpy as np

from envs import panda
from envs.tabletop import HOME_JOINTS

ITERATIONS = 6
# Steps shrink quadratically: after one this small, the next would be below what a double can tell.
CONVERGED_RAD = 1e-6
POSITION_COST, ORIENTATION_COST, POSTURE_COST = 1.0, 0.5, 1e-2
DAMPING = 1e-6
ARM = 7


class ArmKinematics:
    """Forward and inverse kinematics of the Panda's tool point."""

    def __init__(self) -> None:
        self.model = panda.kinematic_model()
        self._configuration = mink.Configuration(self.model)
        self._frame = mink.FrameTask(panda.GRASP_SITE, "site", POSITION_COST, ORIENTATION_COST, lm_damping=0.0)
        self._posture = mink.PostureTask(self.model, cost=[POSTURE_COST] * ARM + [0.0, 0.0])
        home = np.zeros(self.model.nq)
        home[:ARM] = HOME_JOINTS
        self._posture.set_target(home)
        self._limits = [mink.ConfigurationLimit(self.model)]
        self._site = self.model.site(panda.GRASP_SITE).id
        self.lower = self.model.jnt_range[:ARM, 0].copy()
        self.upper = self.model.jnt_range[:ARM, 1].copy()

    def forward(self, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tool position (3,) and rotation (3, 3) at joint angles (7,)."""
        self._configuration.update(self._full(joints))
        data = self._configuration.data
        return data.site_xpos[self._site].copy(), data.site_xmat[self._site].reshape(3, 3).copy()

    def solve(
        self, joints: np.ndarray, position: np.ndarray, rotation: np.ndarray, iterations: int = ITERATIONS
    ) -> np.ndarray:
        """Joint angles (7,) that bring the tool to a pose, searched from `joints` (7,); inside the joint limits."""
        # mink asks that the start lies inside the limits; a measured pose may lie a hair outside.
        self._configuration.update(self._full(np.clip(joints, self.lower + 1e-4, self.upper - 1e-4)))
        transform = mink.SE3.from_rotation_and_translation(mink.SO3.from_matrix(rotation), position)
        self._frame.set_target(transform)
        for _ in range(iterations):
            velocity = mink.solve_ik(
                self._configuration, [self._frame, self._posture], 1.0, "daqp", damping=DAMPING, limits=self._limits
            )
            self._configuration.integrate_inplace(velocity, 1.0)
            if np.abs(velocity).max() < CONVERGED_RAD:
                break
        return self._configuration.q[:ARM].copy()

    def _full(self, joints: np.ndarray) -> np.ndarray:
        q = np.zeros(self.model.nq)
        q[:ARM] = joints
        return q


class BatchedKinematics:
    """The same kinematics for N arms at once, in numpy."""

    def __init__(self) -> None:
        model = panda.kinematic_model()
        chain = []
        body = int(model.site_bodyid[model.site(panda.GRASP_SITE).id])
        while body != 0:
            chain.append(body)
            body = int(model.body_parentid[body])
        self._links: list[tuple[np.ndarray, np.ndarray, bool]] = []
        for body in reversed(chain):
            rotation = np.zeros(9)
            mujoco.mju_quat2Mat(rotation, model.body_quat[body])
            joint = int(model.body_jntadr[body]) if model.body_jntnum[body] else -1
            self._links.append((model.body_pos[body].copy(), rotation.reshape(3, 3), joint >= 0))
        self._tool = model.site_pos[model.site(panda.GRASP_SITE).id].copy()
        self.lower = model.jnt_range[:ARM, 0].copy()
        self.upper = model.jnt_range[:ARM, 1].copy()

    def forward(self, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Joint angles (N, 7) -> tool position (N, 3), rotation (N, 3, 3), Jacobian (N, 6, 7) in the base frame."""
        count = joints.shape[0]
        position = np.zeros((count, 3))
        rotation = np.broadcast_to(np.eye(3), (count, 3, 3))
        origins, axes = [], []
        index = 0
        for offset, turn, hinged in self._links:
            position = position + rotation @ offset
            rotation = rotation @ turn
            if hinged:
                origins.append(position)
                axes.append(rotation[..., 2])  # every Panda joint turns about its own z
                c, s = np.cos(joints[:, index]), np.sin(joints[:, index])
                spin = np.zeros((count, 3, 3))
                spin[:, 0, 0], spin[:, 0, 1], spin[:, 1, 0], spin[:, 1, 1], spin[:, 2, 2] = c, -s, s, c, 1.0
                rotation = rotation @ spin
                index += 1
        position = position + rotation @ self._tool
        axis = np.stack(axes, axis=-1)
        lever = position[..., None] - np.stack(origins, axis=-1)
        return position, rotation, np.concatenate([np.cross(axis, lever, axis=1), axis], axis=1)

    def solve(
        self, joints: np.ndarray, position: np.ndarray, rotation: np.ndarray, iterations: int = ITERATIONS
    ) -> np.ndarray:
        """Joint angles (N, 7) for poses (N, 3), (N, 3, 3), searched from `joints` (N, 7)."""
        q = np.clip(joints, self.lower, self.upper)
        weight = np.array([POSITION_COST] * 3 + [ORIENTATION_COST] * 3) ** 2
        regular = np.eye(ARM) * (POSTURE_COST**2 + DAMPING)
        for _ in range(iterations):
            at, facing, jacobian = self.forward(q)
            error = np.concatenate([position - at, rotation_log(rotation @ facing.transpose(0, 2, 1))], axis=1)
            weighted = jacobian.transpose(0, 2, 1) * weight
            hessian = weighted @ jacobian + regular
            gradient = (weighted @ error[..., None])[..., 0] + POSTURE_COST**2 * (HOME_JOINTS - q)
            q = np.clip(q + np.linalg.solve(hessian, gradient[..., None])[..., 0], self.lower, self.upper)
        return q


def rotation_log(rotation: np.ndarray) -> np.ndarray:
    """The rotation vectors (N, 3) of rotation matrices (N, 3, 3), for angles below pi."""
    skew = np.stack(
        [
            rotation[:, 2, 1] - rotation[:, 1, 2],
            rotation[:, 0, 2] - rotation[:, 2, 0],
            rotation[:, 1, 0] - rotation[:, 0, 1],
        ],
        axis=1,
    )
    sine = np.linalg.norm(skew, axis=1) / 2
    cosine = (np.trace(rotation, axis1=1, axis2=2) - 1) / 2
    angle = np.arctan2(sine, cosine)
    factor = np.where(sine > 1e-9, angle / np.maximum(2 * sine, 1e-12), 0.5)
    return skew * factor[:, None]
