"""The SO-101's body: its ordinary ways are free, and one into the table or into itself is not."""

# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest

from envs import so101
from robots import Guard, JointTarget, Limits
from robots.body import MujocoBody, so101_body
from robots.capsules import Capsule
from robots.guard import State, request
from robots.kinematics import rpy_of
from robots.kinematics import so101 as kinematics_of_so101
from robots.lerobot_arm import LeRobotArm
from robots.schema import Veto
from robots.slowly import slow_bounds
from robots.way import Margins, Way, check_body, check_condition, check_joints

LIMITS = Limits.load(Path(__file__).parents[2] / "configs" / "guard" / "so101.yaml")
KINEMATICS = kinematics_of_so101()
PARK, HOME = so101.PARK_JOINTS, so101.HOME_JOINTS
# Folded, and then the wrist bent inwards until the gripper is where the base is.
INTO_ITS_BASE = np.array([0.0, -1.5, 1.6, 1.6, 0.0])
INTO_THE_TABLE = np.array([0.0, 0.2, 0.3, 1.35, 0.0])


@pytest.fixture(scope="module")
def body() -> MujocoBody:
    return so101_body()


def journey(body: MujocoBody, start: np.ndarray, end: np.ndarray, closed: float = 0.5) -> None:
    """Every check of a slow way; raises its veto."""
    bounds, margins = slow_bounds(LIMITS, 0.4), Margins()
    way = Way.to(bounds, JointTarget.still(start, closed), JointTarget.still(end, closed), 0.0, body.reach_m)
    check_joints(way, LIMITS, margins)
    check_body(way, LIMITS, body, margins)
    assert check_condition(way, LIMITS, body, margins) == 1.0


def test_every_corner_of_every_box_lies_in_a_capsule_of_its_link(body: MujocoBody) -> None:
    model = so101.arm_model()
    data = mujoco.MjData(model)
    rng = np.random.default_rng(0)
    for _ in range(3):
        joints, closed = rng.uniform(model.jnt_range[:5, 0], model.jnt_range[:5, 1]), float(rng.random())
        data.qpos[:5], data.qpos[5] = joints, so101.gripper_angle(closed)
        mujoco.mj_kinematics(model, data)
        ends = body.ends(joints[None], np.array([closed]))[0]
        for geom in np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_BOX):
            link = model.body(model.geom_bodyid[geom]).name
            inside = np.array(list(itertools.product(np.linspace(-1, 1, 7), repeat=3))) * model.geom_size[geom]
            points = inside @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom]
            mine = [k for k, name in enumerate(body.names) if name == link]
            outside = np.min([Capsule(*ends[k], float(body.radii[k])).outside(points) for k in mine], axis=0)
            assert outside.max() < 1e-6, link


@pytest.mark.parametrize("closed", [0.0, 0.5, 1.0])
def test_park_and_home_and_the_ways_between_them_are_free(body: MujocoBody, closed: float) -> None:
    assert not body.not_compared  # every pair of links that can meet is watched
    journey(body, PARK, HOME, closed)
    journey(body, HOME, PARK, closed)
    rng = np.random.default_rng(1)
    _, down = KINEMATICS.forward(HOME)
    free = 0
    while free < 12:  # from wherever a run may end
        joints = KINEMATICS.solve(HOME, rng.uniform(LIMITS.workspace_low, LIMITS.workspace_high), down)
        try:
            journey(body, joints, joints + 1e-3, closed)
        except Veto:
            continue  # nobody could have come there
        journey(body, joints, PARK, closed)
        free += 1


def test_random_moves_are_not_vetoed_for_the_bodys_sake(body: MujocoBody) -> None:
    """Walks of ten random steps: of 300 moves that pass without a body, 9 at most do not with it (7: at the near edge of
    the workspace, where the gripper comes close to the shoulder; of 1493 in another walk it was 7)."""
    watching, blind = Guard(LIMITS, KINEMATICS, body), Guard(LIMITS, KINEMATICS)
    rng, seen = np.random.default_rng(0), Counter[str]()
    _, down = KINEMATICS.forward(HOME)
    here: JointTarget | None = None
    while seen["moves"] < 300:
        if here is None or seen["moves"] % 10 == 0:
            where = rng.uniform(LIMITS.workspace_low, LIMITS.workspace_high)
            joints = KINEMATICS.solve(HOME, where, down)
            if np.linalg.norm(KINEMATICS.forward(joints)[0] - where) > 0.003:
                continue
            here = JointTarget.still(joints, rng.random())
        position, rotation = KINEMATICS.forward(here.joints)
        pose = np.concatenate([position, rpy_of(rotation), [here.gripper]])
        asked = request(rng.uniform(LIMITS.action_low, LIMITS.action_high), 0.0, None, "")
        state = State(pose, here.joints, here)
        here = None
        if blind.review(state, asked, 0.0).target is None:
            continue
        seen["moves"] += 1
        verdict = watching.review(state, asked, 0.0)
        here = verdict.target
        seen["vetoed"] += here is None
    assert seen["vetoed"] <= 9


def test_a_way_into_the_table_or_into_its_own_base_is_vetoed(body: MujocoBody) -> None:
    with pytest.raises(Veto, match="from table"):
        journey(body, HOME, INTO_THE_TABLE)
    with pytest.raises(Veto):
        journey(body, PARK, INTO_ITS_BASE)
    with pytest.raises(Veto, match=r"(shoulder|base) would be|from (shoulder|base)"):  # without a table, too
        journey(so101_body(()), PARK, INTO_ITS_BASE)


def test_a_step_into_the_table_is_vetoed_by_its_body_where_the_workspace_would_allow_it(body: MujocoBody) -> None:
    limits = dataclasses.replace(LIMITS, workspace_low=(*LIMITS.workspace_low[:2], -0.1))
    _, down = KINEMATICS.forward(HOME)
    held = JointTarget.still(KINEMATICS.solve(HOME, np.array([0.2, 0.0, 0.02]), down), 0.5)
    position, rotation = KINEMATICS.forward(held.joints)
    state = State(np.concatenate([position, rpy_of(rotation), [0.5]]), held.joints, held)
    asked = request(np.array([0.0, 0.0, -0.03, 0.0, 0.0, 0.0, 0.0]), 0.0, None, "")
    assert Guard(limits, KINEMATICS).review(state, asked, 0.0).outcome == "passed"
    verdict = Guard(limits, KINEMATICS, body).review(state, asked, 0.0)
    assert verdict.outcome == "vetoed"
    assert "from table" in verdict.sentence


def test_only_a_robot_whose_model_is_known_has_a_body(tmp_path: Path) -> None:
    def arm(kind: str, **settings: Any) -> LeRobotArm:
        return LeRobotArm(kind, port="/dev/nobody", id="x", calibration_dir=str(tmp_path), **settings)

    known = arm("so101_follower").body
    assert known is not None
    assert known.joint_names == so101.JOINT_NAMES
    assert Guard(LIMITS, KINEMATICS, known).watches().startswith("joints, tool and links")
    assert arm("so100_follower").body is None
    assert arm("so101_follower", kinematics="robots.kinematics:so101").body is None
