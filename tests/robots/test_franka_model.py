"""The Franka's geometry agrees with the tabletop's Panda, and the controller's envelope with its own formula."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.kinematics import ArmKinematics
from envs.panda import tool_rpy
from envs.tabletop import HOME_JOINTS
from robots.arm import JointTarget
from robots.body import clearance, links_outside
from robots.franka import FrankaArm
from robots.franka_model import FR3, HOME, KINDS, PANDA, TIP_M, Franka, flange, kinematics, model
from robots.guard import Guard, State, request
from robots.limits import DEFAULT_FILE, Limits
from robots.pose import rpy_of, tool_state
from robots.trossen import TrossenArm


def postures(franka: Franka, count: int) -> np.ndarray:
    """(N, 7) rad inside the limits."""
    low, high = np.array(franka.lower), np.array(franka.upper)
    return np.random.default_rng(0).uniform(low, high, (count, 7))


def test_the_panda_is_the_tabletop_s_panda() -> None:
    ours, tabletop = kinematics(PANDA), ArmKinematics()
    for joints in postures(PANDA, 50):
        position, rotation = ours.forward(joints)
        expected, facing = tabletop.forward(joints)
        # The tabletop's robot file puts the tool point 1.6 mm further out than Franka does.
        np.testing.assert_allclose(position, expected, atol=0.0025)
        np.testing.assert_allclose(rotation, facing, atol=1e-3)


def test_angles_are_what_the_tabletop_means_by_them() -> None:
    ours = kinematics(FR3)
    for joints in postures(FR3, 50):
        rotation = ours.forward(joints)[1]
        np.testing.assert_allclose(rpy_of(rotation), tool_rpy(rotation), atol=1e-12)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_model_and_the_formula_agree(kind: str) -> None:
    franka = KINDS[kind]
    ours = kinematics(franka)
    for joints in postures(franka, 20):
        pose = flange(joints)
        position, rotation = ours.forward(joints)
        np.testing.assert_allclose(position, pose[:3, 3] + TIP_M * pose[:3, 2], atol=1e-9)
        np.testing.assert_allclose(rotation[:, 2], pose[:3, 2], atol=1e-9)
    np.testing.assert_allclose((ours.lower, ours.upper), (franka.lower, franka.upper))


def test_home_is_the_tabletop_s_and_points_down() -> None:
    position, rotation = kinematics(FR3).forward(HOME)
    assert 0.3 < position[0] < 0.6
    assert 0.1 < position[2] < 0.5
    np.testing.assert_allclose(rotation, np.diag([1, -1, -1]), atol=0.01)
    np.testing.assert_allclose(HOME, HOME_JOINTS, atol=1e-6)


def test_inverse_kinematics_comes_back() -> None:
    ours, rng = kinematics(FR3), np.random.default_rng(1)
    for _ in range(20):
        joints = HOME + rng.uniform(-0.3, 0.3, 7)
        position, rotation = ours.forward(joints)
        reached, facing = ours.forward(ours.solve(HOME, position, rotation))
        np.testing.assert_allclose(reached, position, atol=1e-3)
        np.testing.assert_allclose(facing, rotation, atol=1e-2)


def test_every_link_has_a_shape() -> None:
    built = model(FR3)
    clothed = {built.body(int(b)).name for b in built.geom_bodyid}
    assert clothed == {built.body(b).name for b in range(1, built.nbody)}


@given(st.integers(0, 6), st.floats(0.0, 1.0))
def test_near_its_end_an_fr3_joint_may_only_be_as_fast_as_it_can_brake(joint: int, share: float) -> None:
    joints = (np.array(FR3.lower) + np.array(FR3.upper)) / 2
    joints[joint] = FR3.lower[joint] + share * (FR3.upper[joint] - FR3.lower[joint])
    slowest, fastest = FR3.velocity_range(joints)
    left = FR3.upper[joint] - joints[joint]
    assert fastest[joint] <= FR3.velocity[joint]
    # What is allowed can be stopped before the end with the deceleration the controller counts on.
    assert fastest[joint] ** 2 / (2 * FR3.braking[joint]) <= left + 1e-9
    assert slowest[joint] <= 0.0 <= fastest[joint]


def test_what_the_controller_would_answer_with_a_reflex_is_refused_with_numbers() -> None:
    still = JointTarget.still(HOME, 0.0)
    assert FR3.refusal(still) == ""
    beyond = HOME.copy()
    beyond[3] = -0.1
    assert (
        FR3.refusal(JointTarget.still(beyond, 0.0)) == "fr3_joint4 would be at -0.100 rad, outside [-3.0421, -0.1518]"
    )
    velocity = np.zeros(7)
    velocity[1] = 1.0
    near_the_end = HOME.copy()
    near_the_end[1] = 1.75
    fast = dataclasses.replace(JointTarget.still(near_the_end, 0.0), velocity=velocity)
    assert "fr3_joint2 would move at 1.00 rad/s; at 1.750 rad it may" in FR3.refusal(fast)
    assert FR3.refusal(dataclasses.replace(still, velocity=velocity)) == ""
    assert PANDA.refusal(dataclasses.replace(fast, joints=np.clip(near_the_end, PANDA.lower, PANDA.upper))) == ""


def test_the_limits_file_of_the_fr3_stays_inside_what_its_controller_allows_everywhere() -> None:
    limits = Limits.load(DEFAULT_FILE.parent / "fr3.yaml")
    assert limits.joint_names == FR3.joint_names
    speed = np.array(limits.joint_velocity)
    for end in (limits.joint_low, limits.joint_high):
        slowest, fastest = FR3.velocity_range(np.array(end))
        assert (slowest <= -speed).all()
        assert (fastest >= speed).all()
    assert (np.array(limits.joint_acceleration) <= FR3.acceleration).all()
    assert (np.array(limits.joint_jerk) <= FR3.jerk).all()
    low, high = np.array(limits.joint_low), np.array(limits.joint_high)
    assert (low + limits.joint_margin_rad < HOME).all()
    assert (high - limits.joint_margin_rad > HOME).all()


@pytest.mark.parametrize("name", ["fr3", "wxai"])
def test_limits_and_body_of_an_arm_fit_and_home_is_free(name: str) -> None:
    limits = Limits.load(DEFAULT_FILE.parent / f"{name}.yaml")
    arm = FrankaArm("10.0.0.1") if name == "fr3" else TrossenArm("10.0.0.1")
    guard = Guard(limits, arm.kinematics, arm.body)
    assert "capsules" in guard.watches()
    assert clearance(arm.body, arm.home_joints, 0.0).distance_m > max(limits.self_clearance_m, 0.005)
    assert arm.body.condition(arm.home_joints) < limits.condition_slow
    position, rotation = arm.kinematics.forward(arm.home_joints)
    assert (np.array(limits.workspace_low) <= position).all()
    assert (position <= np.array(limits.workspace_high)).all()
    out, link = links_outside(arm.body, arm.home_joints, 0.0, limits.link_low, limits.link_high)
    assert out < 0, link
    np.testing.assert_allclose(rotation[:, 2], [0, 0, -1], atol=0.02)
    request_ = request(np.array([0.01, 0.0, -0.01, 0.0, 0.0, 0.0, 0.1]), 0.0, None, "plan")
    pose = tool_state(arm.kinematics, arm.home_joints, 0.0).astype(float)
    state = State(pose, arm.home_joints, JointTarget.still(arm.home_joints, 0.0))
    verdict = guard.review(state, request_, 0.1)
    assert verdict.outcome == "passed", verdict.sentence
