"""Whatever is asked of the streamer, every tick keeps to speed, acceleration and jerk, and it ends at rest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from robots.arm import ArmError, JointTarget
from robots.stream import SETTLE_SHARE, MotionBounds, Streamer, motion_time, path, travel

BOUNDS = MotionBounds((1.0, 2.0, 0.5), (4.0, 8.0, 2.0), (40.0, 200.0, 20.0), 2.0, 20.0, 400.0)
angles = st.lists(st.floats(-3, 3), min_size=3, max_size=3).map(np.array)
rates = st.sampled_from([30.0, 100.0, 500.0])


def still(joints: np.ndarray, gripper: float = 0.0) -> JointTarget:
    return JointTarget.still(joints, gripper)


def stacked(ticks: list[JointTarget]) -> np.ndarray:
    return np.stack([np.append(tick.joints, tick.gripper) for tick in ticks])


def assert_kept(ticks: list[JointTarget], rate: float, bounds: MotionBounds = BOUNDS) -> None:
    """By differences of what is sent, not by what the streamer says of itself."""
    differences = stacked([ticks[0]] * 3 + ticks)
    for most in bounds.stacked():
        differences = np.diff(differences, axis=0) * rate
        # Differences of doubles: what rounding of a position (1e-16) grows to.
        assert (np.abs(differences) <= most * (1 + 1e-6) + 1e-15 * rate**3).all()


@settings(deadline=None)
@given(start=angles, end=angles, rate=rates, duration=st.floats(0.0, 1.0))
def test_a_step_ends_at_rest_at_its_target_in_its_time(
    start: np.ndarray, end: np.ndarray, rate: float, duration: float
) -> None:
    ticks = list(path(still(start), still(end, 1.0), duration, rate, BOUNDS))
    np.testing.assert_allclose(ticks[-1].joints, end, atol=1e-9)
    assert not ticks[-1].velocity.any()
    assert ticks[-1].gripper == pytest.approx(1.0)
    needed = motion_time(BOUNDS, still(start), still(end, 1.0), SETTLE_SHARE * duration)
    assert len(ticks) / rate == pytest.approx(max(duration, needed), abs=2 / rate)
    assert_kept([still(start), *ticks], rate)


@settings(deadline=None, max_examples=60)
@given(
    moves=st.lists(
        st.tuples(angles, st.floats(0, 1), st.floats(0, 0.5), st.integers(1, 40), st.booleans()), max_size=8
    ),
    rate=rates,
)
# At its fastest just now, and by the last digit not yet done with speeding up.
@example(
    moves=[(np.array([0.0, 0.0, 1.0]), 0.0, 0.0, 33, False), (np.array([0.0, 0.0, 0.0]), 0.0, 0.0, 1, False)],
    rate=100.0,
)
def test_targets_replaced_and_brakes_pulled_at_any_moment(
    moves: list[tuple[np.ndarray, float, float, int, bool]], rate: float
) -> None:
    streamer = Streamer(BOUNDS, rate, still(np.zeros(3)))
    ticks = [streamer.target]
    for joints, gripper, duration, count, brakes in moves:
        if brakes:
            streamer.brake()
        else:
            streamer.aim(still(joints, gripper), duration)
        ticks += [streamer.tick() for _ in range(count)]
    streamer.brake()
    while streamer.moving:
        ticks.append(streamer.tick())
    assert not ticks[-1].velocity.any()
    assert_kept(ticks, rate)


def test_a_brake_stops_sooner_than_the_way_would_have_ended() -> None:
    streamer = Streamer(BOUNDS, 500.0, still(np.zeros(3)))
    streamer.aim(still(np.array([2.0, 0.0, 0.0])))
    for _ in range(400):
        moving = streamer.tick()
    assert moving.velocity[0] == pytest.approx(1.0)
    streamer.brake()
    ticks = 0
    while streamer.moving:
        streamer.tick()
        ticks += 1
    # 1 rad/s at 4 rad/s^2 and 40 rad/s^3: 0.25 s and the 0.1 s it takes to build the deceleration up.
    assert ticks / 500.0 == pytest.approx(0.35, abs=0.01)
    assert streamer.target.joints[0] - moving.joints[0] == pytest.approx(0.175, abs=0.01)


@pytest.mark.parametrize("bad", [np.array([np.nan, 0, 0]), np.array([0.0, np.inf, 0]), np.zeros(2)])
def test_what_is_no_target_is_refused_and_the_movement_goes_on(bad: np.ndarray) -> None:
    streamer = Streamer(BOUNDS, 100.0, still(np.zeros(3)))
    streamer.aim(still(np.ones(3)))
    with pytest.raises(ArmError, match="goes on as it was"):
        streamer.aim(JointTarget(bad, 0.0, np.zeros(len(bad))))
    while streamer.moving:
        streamer.tick()
    np.testing.assert_allclose(streamer.target.joints, 1.0)


@settings(deadline=None)
@given(start=angles, end=angles, speed=st.floats(0.2, 2.0))
def test_travel_is_never_faster_than_asked(start: np.ndarray, end: np.ndarray, speed: float) -> None:
    ticks = list(travel(still(start, 0.3), end, speed, 50.0))
    joints = np.stack([start] + [t.joints for t in ticks])
    assert (np.abs(np.diff(joints, axis=0)) * 50.0).max() <= speed + 1e-9
    np.testing.assert_allclose(ticks[-1].joints, end, atol=1e-9)
    assert all(t.gripper == pytest.approx(0.3) for t in ticks)
