"""Kinematics of any arm that MuJoCo can load: a model file, the names of its joints, and the site or body that is its tool.

mink solves a quadratic program with joint limits. An arm with six joints or more reaches position and orientation. One
with fewer cannot have both: it reaches the position, and of the orientation as much as is left to it.
"""

# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false
# (mujoco is a binary module whose functions and enums no stub describes)

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mink
import mujoco
import numpy as np

ITERATIONS = 30
CONVERGED_RAD = 1e-6
POSITION_COST, DAMPING = 1.0, 1e-6
# Orientation weighs little where it cannot be had in full: at 0.02 the tool point is pulled off by under a millimetre.
FULL_COST, SPARE_COST = 0.5, 0.02
# What is left free leans towards the home pose, so that it does not wander over many small steps.
FULL_POSTURE, SPARE_POSTURE = 1e-2, 1e-3
# mink asks that the start lies inside the limits; a measured pose may lie a hair outside.
INSIDE = 1e-4
# By how much `solve` may miss an orientation and still have done its work. Steps of 3 cm about the SO-101's table turn its
# tool by up to 0.26 rad more or less than was asked.
FULL_SLACK_RAD, SPARE_SLACK_RAD = 0.1, 0.4


class MujocoKinematics:
    """Forward and inverse kinematics between some joints of a MuJoCo model and its tool.

    Args:
        model: a compiled model, or the path of an MJCF or URDF file.
        joints: the names of J hinge joints, in the order of every joint vector.
        site: the name of the tool site, or of a body (a URDF has no sites); its z axis points out of the gripper.
        home: (J,) rad, what a redundant posture leans to; default: the middle of the ranges.
        lower, upper: (J,) rad, limits narrower than the model's, as a calibration may demand.

    Attributes:
        lower, upper: (J,) rad.
        orientation_slack_rad: how far the tool's orientation may end up from what `solve` was asked for.
    """

    def __init__(
        self,
        model: mujoco.MjModel | str | Path,
        joints: Sequence[str],
        site: str,
        home: Sequence[float] | np.ndarray | None = None,
        lower: np.ndarray | None = None,
        upper: np.ndarray | None = None,
    ) -> None:
        self.model = model if isinstance(model, mujoco.MjModel) else _load(Path(model))
        self.joints, self.site = tuple(joints), site
        ids = [_named(self.model, mujoco.mjtObj.mjOBJ_JOINT, "joint", name) for name in self.joints]
        kind = "site" if mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_SITE, site) >= 0 else "body"
        self._tool = _named(
            self.model, mujoco.mjtObj.mjOBJ_SITE if kind == "site" else mujoco.mjtObj.mjOBJ_BODY, kind, site
        )
        self._kind = kind
        if any(self.model.jnt_type[i] != mujoco.mjtJoint.mjJNT_HINGE for i in ids):
            raise ValueError(f"kinematics: {', '.join(self.joints)} must all be hinges; another kind is among them")
        self._qpos = self.model.jnt_qposadr[ids]
        dofs = self.model.jnt_dofadr[ids]
        low, high = self.model.jnt_range[ids].T
        unlimited = ~self.model.jnt_limited[ids].astype(bool)
        low, high = np.where(unlimited, -2 * math.pi, low), np.where(unlimited, 2 * math.pi, high)
        self.lower = low.copy() if lower is None else np.maximum(low, lower)
        self.upper = high.copy() if upper is None else np.minimum(high, upper)
        if (self.lower >= self.upper).any():
            worst = self.joints[int((self.upper - self.lower).argmin())]
            raise ValueError(f"kinematics: nothing is left of {worst}'s range; do the limits belong to this arm?")
        # mink reads limits off the model; this one is ours.
        self.model.jnt_range[ids] = np.stack([self.lower, self.upper], axis=1)
        self.model.jnt_limited[ids] = 1
        spare = len(ids) < 6
        self.orientation_slack_rad = SPARE_SLACK_RAD if spare else FULL_SLACK_RAD
        self._rest = self.model.qpos0.copy()
        self._rest[self._qpos] = (self.lower + self.upper) / 2 if home is None else np.asarray(home, dtype=np.float64)
        self._configuration = mink.Configuration(self.model)
        self._frame = mink.FrameTask(site, kind, POSITION_COST, SPARE_COST if spare else FULL_COST, lm_damping=0.0)
        posture = np.zeros(self.model.nv)
        posture[dofs] = SPARE_POSTURE if spare else FULL_POSTURE
        self._posture = mink.PostureTask(self.model, cost=posture)
        self._posture.set_target(self._rest)
        self._limits = [mink.ConfigurationLimit(self.model)]
        others = [dof for dof in range(self.model.nv) if dof not in set(dofs.tolist())]
        self._frozen = [mink.DofFreezingTask(self.model, others)] if others else None

    def forward(self, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tool position (3,) m and rotation (3, 3) at joint angles (J,)."""
        self._configuration.update(self._full(joints))
        data = self._configuration.data
        places, turns = (data.site_xpos, data.site_xmat) if self._kind == "site" else (data.xpos, data.xmat)
        return places[self._tool].copy(), turns[self._tool].reshape(3, 3).copy()

    def solve(self, joints: np.ndarray, position: np.ndarray, rotation: np.ndarray) -> np.ndarray:
        """Joint angles (J,) inside the limits that bring the tool to a pose, searched from `joints` (J,)."""
        start = np.clip(joints, self.lower + INSIDE, self.upper - INSIDE)
        self._configuration.update(self._full(start))
        turn = mink.SO3.from_matrix(np.asarray(rotation, dtype=np.float64))
        self._frame.set_target(mink.SE3.from_rotation_and_translation(turn, np.asarray(position, dtype=np.float64)))
        tasks = [self._frame, self._posture]
        for _ in range(ITERATIONS):
            velocity = mink.solve_ik(
                self._configuration, tasks, 1.0, "daqp", damping=DAMPING, limits=self._limits, constraints=self._frozen
            )
            self._configuration.integrate_inplace(velocity, 1.0)
            if np.abs(velocity).max() < CONVERGED_RAD:
                break
        return np.clip(self._configuration.q[self._qpos], self.lower, self.upper)

    def narrowed(self, lower: np.ndarray, upper: np.ndarray) -> MujocoKinematics:
        """The same arm inside narrower limits (J,), rad: what its calibration leaves of the model's ranges."""
        home = self._rest[self._qpos]
        return MujocoKinematics(_copied(self.model), self.joints, self.site, home, lower, upper)

    def _full(self, joints: np.ndarray) -> np.ndarray:
        q = self._rest.copy()
        q[self._qpos] = joints
        return q


def _copied(model: mujoco.MjModel) -> mujoco.MjModel:
    import copy

    return copy.copy(model)


def _load(path: Path) -> mujoco.MjModel:
    if not path.is_file():
        raise ValueError(f"kinematics: there is no model at {path}; give the path of an MJCF or URDF file")
    try:
        return mujoco.MjModel.from_xml_path(str(path))
    except ValueError as error:
        raise ValueError(f"kinematics: {path} is no model that MuJoCo loads: {str(error).splitlines()[0]}") from error


def _named(model: mujoco.MjModel, kind: Any, word: str, name: str) -> int:
    found = mujoco.mj_name2id(model, kind, name)
    if found >= 0:
        return found
    count = {"joint": model.njnt, "site": model.nsite, "body": model.nbody}[word]
    known = [mujoco.mj_id2name(model, kind, i) or "" for i in range(count)]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(filter(None, known)) or 'none'}"
    what = "site or body" if word == "body" else word
    raise ValueError(f"kinematics: the model has no {what} {name!r}; {hint}")
