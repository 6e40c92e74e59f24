"""A plan is looked at whole: what the guard would veto, what the ticks would do, where it begins, how long it takes."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robots.arm import JointTarget
from robots.body import Plane, panda_body
from robots.guard import Guard, State
from robots.kinematics import panda, rpy_of
from robots.limits import Limits
from robots.plancheck import PlanCheck, check_plan

LIMITS, KINEMATICS, BODY = Limits.load(), panda(), panda_body()
GUARD = Guard(LIMITS, KINEMATICS, BODY)
HOME = np.array([0.0, -0.15, 0.0, -2.30, 0.0, 2.15, 0.785398])
PLAN = np.array([[0.02, 0.01, -0.01, 0.0, 0.0, 0.05, 0.1]] * 4 + [[-0.02, 0.0, 0.01, 0.0, 0.0, 0.0, 0.0]] * 4)


def state_at(joints: np.ndarray = HOME, sent: np.ndarray | None = None) -> State:
    position, rotation = KINEMATICS.forward(joints)
    commanded = JointTarget.still(joints if sent is None else sent, 0.0)
    return State(np.concatenate([position, rpy_of(rotation), [0.0]]), joints, commanded)


def check(actions: Any = PLAN, state: State | None = None, guard: Guard = GUARD, **changes: Any) -> PlanCheck:
    settings_ = {"rate_hz": 250.0, "observed_s": 9.9, **changes}
    return check_plan(guard, state or state_at(), actions, 10.0, **settings_)


def test_a_good_plan_is_shown_with_its_margins() -> None:
    found = check(planned_from=HOME)
    assert found.ok
    assert found.sentences == ()
    assert found.duration_s == pytest.approx(8 * LIMITS.period_s, abs=0.2)
    assert found.joints.shape == (len(found.gripper), 7)
    assert len(found.joints) / 250.0 == pytest.approx(found.duration_s, abs=0.05)
    assert found.targets.shape == (8, 7)
    np.testing.assert_array_equal(found.joints[0], HOME)
    np.testing.assert_allclose(found.joints[-1], found.targets[-1], atol=1e-9)
    assert set(found.margins) == {
        "start_rad", "joint_position_rad", "tool_in_workspace_m", "links_in_box_m", "self_m", "obstacle_m", "condition",
        "duration_s", "velocity_share", "acceleration_share", "jerk_share",
    }  # fmt: skip
    assert min(found.margins.values()) > -1e-3
    # The margins are what they say: where the tool was nearest its box.
    tools = np.array([KINEMATICS.forward(joints)[0] for joints in found.joints[::5]])
    room = np.minimum(tools - LIMITS.workspace_low, np.asarray(LIMITS.workspace_high) - tools).min()
    assert found.margins["tool_in_workspace_m"] == pytest.approx(room + 0.005, abs=0.004)


def test_every_step_begins_where_the_one_before_comes_to_rest() -> None:
    found = check()
    position, _ = KINEMATICS.forward(found.targets[-1])
    start, _ = KINEMATICS.forward(HOME)
    np.testing.assert_allclose(position - start, PLAN[:, :3].sum(axis=0), atol=0.004)


def test_the_step_that_is_vetoed_is_named() -> None:
    over = np.zeros((6, 7))
    over[:, 0] = 0.05
    over[4] = [math.nan] * 7
    found = check(over)
    assert not found.ok
    assert found.sentences[-1].startswith("step 4 of the plan[0] is nan")
    stale = check(observed_s=1.0)
    assert not stale.ok
    assert stale.sentences[0].startswith("step 0 vetoed: the observation is 9.000 s old")


def test_a_clamped_plan_is_told_to_be_another() -> None:
    down = np.zeros((8, 7))
    down[:, 2] = -0.05
    found = check(down)
    assert found.ok
    assert any("clamped" in sentence and "outside the workspace" in sentence for sentence in found.sentences)


def test_a_plan_begins_where_the_arm_is() -> None:
    moved = check(planned_from=HOME + [0, 0, 0.1, 0, 0, 0, 0])
    assert not moved.ok
    assert "panda_joint3 is 0.100 rad from where the plan begins (limit 0.05); plan again" in moved.sentences[0]
    stuck = check(state=state_at(HOME, HOME + 0.2))
    assert not stuck.ok
    assert "from where it was sent" in stuck.sentences[0]


def test_a_table_that_is_too_high_is_not_run_into() -> None:
    high = Guard(LIMITS, KINEMATICS, panda_body((Plane("bench", 0.12),)))
    down = np.zeros((8, 7))
    down[:, 2] = -0.04
    found = check(down, guard=high)
    assert not found.ok
    assert "mm from bench (limit -13 mm)" in found.sentences[-1]
    assert check(down).ok


def test_a_link_that_would_leave_its_box_is_vetoed() -> None:
    """The hand and its fingers reach further to the side than the tool, which stays in its own box."""
    aside = np.zeros((3, 7))
    aside[:, 1] = 0.04
    free = check(aside)
    assert free.ok
    joints = np.concatenate([HOME[None], free.targets])
    furthest = (BODY.ends(joints, np.zeros(4))[..., 1].max(axis=2) + BODY.radii).max(axis=1)
    assert furthest[-1] > furthest[0] + 0.01
    narrow = dataclasses.replace(LIMITS, link_high=(0.95, float(furthest[0] + furthest[-1]) / 2, 1.0))
    found = check(aside, guard=Guard(narrow, KINEMATICS, BODY))
    assert not found.ok
    assert "m out of the box" in found.sentences[-1]


def test_links_that_come_nearer_to_each_other_than_they_may_are_vetoed() -> None:
    tested = 0
    for sign in (-1.0, 1.0):
        turn = np.zeros((4, 7))
        turn[:, 5] = 0.2 * sign
        free = check(turn)
        assert free.ok
        gaps = [BODY.near(joints, 0.0)[0].distance_m for joints in [HOME, *free.targets]]
        if gaps[-1] > gaps[0] - 0.002:
            continue
        tested += 1
        strict = dataclasses.replace(LIMITS, self_clearance_m=(gaps[0] + gaps[-1]) / 2)
        found = check(turn, guard=Guard(strict, KINEMATICS, BODY))
        assert not found.ok
        assert "mm from panda_" in found.sentences[-1]
        assert found.margins["self_m"] < 0
    assert tested


def test_near_a_singularity_it_goes_slower_and_into_it_not_at_all() -> None:
    mild = dataclasses.replace(LIMITS, condition_slow=5.0, condition_stop=30.0)
    found = check(PLAN[:2], guard=Guard(mild, KINEMATICS, BODY))
    assert found.ok
    assert found.duration_s > 2.2 * LIMITS.period_s
    strict = dataclasses.replace(LIMITS, condition_slow=2.0, condition_stop=5.0)
    away = np.zeros((1, 7))
    away[0, 0] = 0.05
    refused = check(away, guard=Guard(strict, KINEMATICS, BODY))
    assert not refused.ok
    assert "leads to a singularity" in refused.sentences[0]


def test_without_a_body_the_joints_are_watched_all_the_same() -> None:
    bare = Guard(LIMITS, KINEMATICS)
    assert "NOT watched" in bare.watches()
    assert "11 capsules against each other and table" in GUARD.watches()
    found = check(guard=bare)
    assert found.ok
    assert "self_m" not in found.margins
    assert "joint_position_rad" in found.margins
    with pytest.raises(ValueError, match="give the limits file of this arm"):
        Guard(dataclasses.replace(LIMITS, joint_names=tuple("abcdefg")), KINEMATICS, BODY)


@pytest.mark.parametrize(
    "plan", [[], None, 3, "plan", np.zeros((65, 7)), np.zeros(7), np.zeros((3, 6)), [["a"] * 7], {}]
)
def test_what_is_no_plan_is_refused_in_a_sentence(plan: Any) -> None:
    found = check(plan)
    assert not found.ok
    assert "could not be judged" not in found.sentences[0]
    assert found.joints.shape == (0, 7)


@settings(deadline=None, max_examples=25)
@given(
    plan=st.lists(st.lists(st.floats(-0.08, 0.08), min_size=7, max_size=7), min_size=1, max_size=8),
    rate=st.sampled_from([30.0, 100.0, 250.0]),
)
def test_the_ticks_of_a_plan_that_is_ok_keep_every_limit(plan: list[list[float]], rate: float) -> None:
    found = check(plan, rate_hz=rate)
    assert not any("could not be judged" in sentence for sentence in found.sentences)
    if not found.ok:
        return
    rates = np.concatenate([found.joints[:1]] * 3 + [found.joints])
    for most in (LIMITS.joint_velocity, LIMITS.joint_acceleration, LIMITS.joint_jerk):
        rates = np.diff(rates, axis=0) * rate
        assert (np.abs(rates) <= np.asarray(most) * (1 + 1e-5) + 2e-15 * (2 * rate) ** 3).all()
    low, high = np.asarray(LIMITS.joint_low), np.asarray(LIMITS.joint_high)
    assert (found.joints >= low + LIMITS.joint_margin_rad - 1e-6).all()
    assert (found.joints <= high - LIMITS.joint_margin_rad + 1e-6).all()
    for joints, closed in zip(found.joints[::7], found.gripper[::7], strict=True):
        tool, _ = KINEMATICS.forward(joints)
        assert (tool > np.asarray(LIMITS.workspace_low) - 0.007).all()
        assert (tool < np.asarray(LIMITS.workspace_high) + 0.007).all()
        assert BODY.near(joints, float(closed))[0].distance_m > LIMITS.self_clearance_m - 1e-3


def test_a_plan_check_takes_less_than_fifty_milliseconds() -> None:
    took = []
    for _ in range(9):
        began = time.process_time()  # what it costs, not what else the machine does meanwhile
        assert check().ok
        took.append(time.process_time() - began)
    assert np.median(took) < 0.05
