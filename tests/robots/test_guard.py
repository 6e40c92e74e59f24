"""Whatever goes into the guard, what comes out keeps every limit, and it never crashes."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robots import Guard, JointTarget, Limits
from robots.guard import LEAP_RAD, MISS_M, REACHED_M, REACHED_RAD, State, Verdict, request
from robots.kinematics import panda, rotation_of, rpy_of
from robots.stream import path
from robots.way import BULGE_M

LIMITS = Limits.load()
KINEMATICS = panda()
GUARD = Guard(LIMITS, KINEMATICS)
HOME = np.array([0.0, -0.15, 0.0, -2.30, 0.0, 2.15, 0.785398])


def state_at(joints: np.ndarray = HOME, closed: float = 0.0, measured: np.ndarray | None = None) -> State:
    """An arm at rest where it was sent, or measured elsewhere."""
    measured = joints if measured is None else measured
    position, rotation = KINEMATICS.forward(measured)
    pose = np.concatenate([position, rpy_of(rotation), [closed]])
    return State(pose, np.asarray(measured), JointTarget.still(joints, closed))


def in_workspace(seed: int) -> State:
    """An arm somewhere in its workspace, the tool turned at random."""
    rng = np.random.default_rng(seed)
    position = rng.uniform(LIMITS.workspace_low, LIMITS.workspace_high)
    rpy = rng.uniform(LIMITS.tool_rpy_low, LIMITS.tool_rpy_high) * 0.9 + np.array([0.1 * math.pi, 0, 0])
    joints = HOME
    for _ in range(5):
        joints = KINEMATICS.solve(joints, position, rotation_of(rpy))
    return state_at(joints, float(rng.random()))


def ask(**changes: Any) -> dict[str, Any]:
    """A good request, with changes."""
    return {**request(np.zeros(7), 10.0, 0.5, "plan"), **changes}


def assert_within_limits(verdict: Verdict, state: State) -> None:
    """Every limit, checked tick by tick on what would be streamed, not on what the guard says of it."""
    target = verdict.target
    assert target is not None
    assert LIMITS.period_s - 1e-9 <= verdict.duration_s <= LIMITS.longest_step_s
    margin = LIMITS.joint_margin_rad - 1e-6
    start, _ = KINEMATICS.forward(state.commanded.joints)
    low, high = np.minimum(LIMITS.workspace_low, start), np.maximum(LIMITS.workspace_high, start)
    for number, tick in enumerate(path(state.commanded, target, verdict.duration_s, 250.0, LIMITS.bounds)):
        assert (np.abs(tick.velocity) <= np.array(LIMITS.joint_velocity) * (1 + 1e-6)).all()
        if number % 5 == 0:
            on_the_way, _ = KINEMATICS.forward(tick.joints)
            assert (on_the_way >= low - BULGE_M - 1e-3).all()
            assert (on_the_way <= high + BULGE_M + 1e-3).all()
    assert verdict.aim is not None
    assert np.linalg.norm(KINEMATICS.forward(target.joints)[0] - verdict.aim[:3]) <= MISS_M
    assert np.abs(target.joints - state.commanded.joints).max() <= LEAP_RAD
    assert (target.joints >= np.array(LIMITS.joint_low) + margin).all()
    assert (target.joints <= np.array(LIMITS.joint_high) - margin).all()
    position, rotation = KINEMATICS.forward(target.joints)
    assert (position >= np.array(LIMITS.workspace_low) - REACHED_M).all()
    assert (position <= np.array(LIMITS.workspace_high) + REACHED_M).all()
    assert (rpy_of(rotation) >= np.array(LIMITS.tool_rpy_low) - REACHED_RAD).all()
    assert (rpy_of(rotation) <= np.array(LIMITS.tool_rpy_high) + REACHED_RAD).all()
    assert 0.0 <= target.gripper <= 1.0


def test_a_modest_request_passes_unchanged() -> None:
    action = np.array([0.02, -0.01, 0.01, 0.0, 0.0, 0.05, 0.1])
    verdict = GUARD.review(state_at(), ask(action=action), now=10.1)
    assert verdict.outcome == "passed"
    assert verdict.action is not None
    assert verdict.target is not None
    np.testing.assert_allclose(verdict.action, action)
    before, _ = KINEMATICS.forward(HOME)
    after, _ = KINEMATICS.forward(verdict.target.joints)
    np.testing.assert_allclose(after - before, action[:3], atol=0.001)
    assert verdict.target.gripper == pytest.approx(0.1)


def test_an_action_beyond_its_bounds_is_clamped_and_the_sentence_has_the_numbers() -> None:
    verdict = GUARD.review(state_at(), ask(action=[0.2, 0, 0, 0, 0, 0, 0]), now=10.0)
    assert verdict.outcome == "clamped"
    assert "dx +0.2 clamped to +0.05 m" in verdict.sentence


def test_the_tool_stays_in_the_workspace() -> None:
    state = state_at()
    verdict = GUARD.review(state, ask(), now=10.0)
    for _ in range(12):
        verdict = GUARD.review(state, ask(action=[0, 0, -0.05, 0, 0, 0, 0]), now=10.0)
        assert verdict.target is not None, verdict.sentence
        state = state_at(verdict.target.joints)
    position, _ = KINEMATICS.forward(state.joints)
    assert position[2] == pytest.approx(LIMITS.workspace_low[2], abs=REACHED_M)
    assert "outside the workspace [0.017, 0.32]" in verdict.sentence


def test_a_step_too_fast_for_a_joint_takes_longer_and_ends_where_it_was_rehearsed_to() -> None:
    slow = dataclasses.replace(LIMITS, joint_velocity=(0.6,) * 7)
    asked = ask(action=[0, 0.05, 0, 0, 0, 0, 0])
    verdict = Guard(slow, KINEMATICS).review(state_at(), asked, now=10.0)
    assert verdict.outcome == "passed"
    assert verdict.target is not None
    assert re.search(r"the step takes 0\.\d\d s instead of 0\.2", verdict.sentence)
    ticks = path(state_at().commanded, verdict.target, verdict.duration_s, 250.0, slow.bounds)
    speeds = [np.abs(tick.velocity).max() for tick in ticks]
    assert 0.5 < max(speeds) <= 0.6 + 1e-9
    free = GUARD.review(state_at(), asked, now=10.0)
    assert free.outcome == "passed"
    assert free.target is not None
    np.testing.assert_array_equal(free.target.joints, verdict.target.joints)


def test_a_step_that_would_take_too_long_is_vetoed() -> None:
    slow = dataclasses.replace(LIMITS, joint_velocity=(0.05,) * 7)
    verdict = Guard(slow, KINEMATICS).review(state_at(), ask(action=[0, 0.05, 0, 0, 0, 0, 0]), now=10.0)
    assert verdict.outcome == "vetoed"
    assert "(limit 1 s)" in verdict.sentence


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"action": [math.nan, 0, 0, 0, 0, 0, 0]}, "action[0] is nan"),
        ({"action": [0, 0, 0, 0, 0, 0, math.inf]}, "action[6] is inf"),
        ({"action": [0.0] * 6}, "shape (6,)"),
        ({"action": "up"}, "not a vector"),
        ({"action": None}, "not a vector of numbers"),
        ({"uncertainty": math.nan}, "uncertainty is nan"),
        ({"uncertainty": 7.5}, "does not trust this plan"),
        ({"observed_s": 9.0}, "1.000 s old (limit 0.5 s)"),
        ({"observed_s": 11.0}, "in the future"),
        ({"observed_s": "yesterday"}, "observed_s is not a number"),
        ({"speed": 3}, "unknown key speed"),
        ({"action": [20.0, 0, 0, 0, 0, 0, 0]}, "dx is +20 m, over 10 times its bound 0.05; is it in millimetres?"),
        ({"action": [0, 0, 0, 0, 0, -14.3, 0]}, "dyaw is -14.3 rad, over 10 times its bound 0.25; is it in degrees?"),
        ({"action": [0, 0, 0, 0, 0, 0, 50.0]}, "dgripper is +50, over 10 times its bound 0.5; is it in percent?"),
        ({"action": ["0.01"] * 7}, "not a vector of numbers"),
        ({"action": [True] * 7}, "not a vector of numbers"),
        ({"observed_s": True}, "observed_s is not a number"),
        ({"uncertainty": -0.5}, "never below 0"),
        ({"plan": 7}, "plan is int"),
    ],
)
def test_nonsense_is_vetoed_in_a_sentence(changes: dict[str, Any], words: str) -> None:
    verdict = GUARD.review(state_at(), ask(**changes), now=10.0)
    assert verdict.outcome == "vetoed"
    assert verdict.target is None
    assert verdict.action is None
    assert words in verdict.sentence


def test_a_missing_key_is_named() -> None:
    asked = ask()
    del asked["observed_s"]
    assert "lacks observed_s" in GUARD.review(state_at(), asked, now=10.0).sentence
    assert "a request is a mapping" in GUARD.review(state_at(), [1, 2], now=10.0).sentence  # type: ignore[arg-type]


def test_the_checks_come_in_order() -> None:
    stale_and_mad = ask(action=[math.nan] * 7, observed_s=0.0, uncertainty=99.0)
    assert "action[0]" in GUARD.review(state_at(), stale_and_mad, now=10.0).sentence
    stale_and_doubted = ask(observed_s=0.0, uncertainty=99.0)
    assert "s old" in GUARD.review(state_at(), stale_and_doubted, now=10.0).sentence


def at_pose(position: list[float], rpy: list[float]) -> State:
    """An arm at rest with its tool at a pose."""
    joints = HOME
    for _ in range(8):
        joints = KINEMATICS.solve(joints, np.array(position), rotation_of(np.array(rpy)))
    return state_at(joints)


def test_a_pose_that_the_joints_miss_is_not_gone_to() -> None:
    """Inverse kinematics gives the nearest it finds; a decimetre beside the aim is another movement."""
    state = at_pose([0.45, -0.097, 0.042], [3.42, 0.07, -1.01])
    verdict = GUARD.review(state, ask(action=[-0.05, 0.05, -0.05, -0.25, -0.25, -0.25, -0.5]), now=10.0)
    assert verdict.outcome == "vetoed"
    assert "no joint angles near these" in verdict.sentence


def test_a_tool_turned_far_past_its_limits_is_not_jerked_back() -> None:
    state = at_pose([0.45, 0.0, 0.15], [math.pi, 0.0, 1.9])
    verdict = GUARD.review(state, ask(action=np.zeros(7)), now=10.0)
    assert verdict.outcome == "vetoed"
    assert "turn it back by hand" in verdict.sentence


def test_an_arm_that_did_not_follow_is_not_driven_on() -> None:
    stuck = HOME.copy()
    stuck[6] += 0.2
    verdict = GUARD.review(state_at(measured=stuck), ask(), now=10.0)
    assert verdict.outcome == "vetoed"
    assert "panda_joint7 is 0.200 rad from where it was sent" in verdict.sentence


def test_an_arm_far_outside_the_workspace_is_not_dragged_back() -> None:
    folded = np.array([0.0, -1.2, 0.0, -2.9, 0.0, 1.7, 0.785])
    verdict = GUARD.review(state_at(folded), ask(), now=10.0)
    assert verdict.outcome == "vetoed"
    assert "outside the workspace" in verdict.sentence


def test_a_state_in_other_units_or_of_another_arm_is_refused() -> None:
    good = state_at()
    degrees = dataclasses.replace(good, joints=np.rad2deg(good.joints))
    assert "is it in degrees, or of another arm?" in GUARD.review(degrees, ask(), now=10.0).sentence
    far = dataclasses.replace(good, pose=good.pose * [1000, 1000, 1000, 1, 1, 1, 1])
    assert "is it in millimetres, or of another arm?" in GUARD.review(far, ask(), now=10.0).sentence


def test_a_new_target_in_the_middle_of_a_movement_keeps_the_limits_all_the_way() -> None:
    """Where the arm is fast near a limit, turning round in time is part of the way that is looked at."""
    near = HOME.copy()
    near[0] = 0.03
    narrow = dataclasses.replace(LIMITS, joint_high=(0.15, *LIMITS.joint_high[1:]))
    pose = state_at(near)
    speed = np.zeros(7)
    speed[0] = 1.0
    moving = dataclasses.replace(pose, commanded=JointTarget(near, 0.0, speed))
    still = Guard(narrow, KINEMATICS).review(pose, ask(), now=10.0)
    assert still.outcome == "passed", still.sentence
    found = Guard(narrow, KINEMATICS).review(moving, ask(), now=10.0)
    assert found.outcome == "vetoed"
    assert "on the way panda_joint1 would pass its limits by" in found.sentence


def test_a_model_without_an_opinion_on_itself_is_let_through() -> None:
    assert GUARD.review(state_at(), ask(uncertainty=None), now=10.0).outcome == "passed"


def test_the_same_question_has_the_same_answer() -> None:
    state, asked = in_workspace(3), ask(action=[0.05, 0.04, -0.05, 0.2, -0.2, 0.25, 0.5])
    first = GUARD.review(state, asked, now=10.0)
    GUARD.review(in_workspace(4), ask(action=[-0.05] * 7), now=10.0)
    again = GUARD.review(state, asked, now=10.0)
    assert first.sentence == again.sentence
    assert first.target is not None
    assert again.target is not None
    np.testing.assert_array_equal(first.target.joints, again.target.joints)


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    action=st.lists(st.floats(-0.6, 0.6), min_size=7, max_size=7),
    age=st.floats(0.0, 0.4),
)
def test_what_is_let_through_keeps_every_limit(seed: int, action: list[float], age: float) -> None:
    state = in_workspace(seed)
    verdict = GUARD.review(state, ask(action=action, observed_s=10.0 - age), now=10.0)
    assert "could not judge" not in verdict.sentence
    if verdict.target is not None:
        assert_within_limits(verdict, state)


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.floats(), max_size=9),
    st.lists(st.lists(st.floats(), max_size=3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.floats(), max_size=2),
)


@settings(max_examples=200, deadline=None)
@given(
    asked=st.one_of(
        anything,
        st.fixed_dictionaries(
            {
                "action": st.one_of(anything, st.lists(st.floats(), min_size=7, max_size=7)),
                "observed_s": st.one_of(anything, st.floats(9.5, 10.5)),
                "uncertainty": anything,
                "plan": anything,
            }
        ),
    ),
    now=st.one_of(st.just(10.0), st.floats()),
)
def test_nothing_crashes_the_guard(asked: Any, now: float) -> None:
    state = state_at()
    verdict = GUARD.review(state, asked, now)
    assert verdict.sentence
    assert "could not judge" not in verdict.sentence
    if verdict.target is None:
        assert verdict.outcome == "vetoed"
    else:
        assert_within_limits(verdict, state)


@settings(max_examples=200, deadline=None)
@given(
    joints=st.lists(st.floats(), min_size=7, max_size=7),
    measured=st.lists(st.floats(), min_size=7, max_size=7),
    pose=st.lists(st.floats(), min_size=7, max_size=7),
    gripper=st.floats(),
)
def test_no_measurement_crashes_the_guard(
    joints: list[float], measured: list[float], pose: list[float], gripper: float
) -> None:
    state = State(np.array(pose), np.array(measured), JointTarget.still(np.array(joints), gripper))
    verdict = GUARD.review(state, ask(action=[0.01] * 7), now=10.0)
    if verdict.target is not None:
        assert_within_limits(verdict, state)
