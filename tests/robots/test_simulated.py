"""A simulated arm moves as the environment moves, keeps its clock, and refuses what a real one would."""

from __future__ import annotations

import time
from collections.abc import Iterator

import gymnasium
import numpy as np
import pytest

import envs
from robots import Guard, JointTarget, Limits, connect
from robots.arm import ARMS, ArmError
from robots.cadence import Cadence
from robots.guard import State, request
from robots.simulated import SimulatedArm
from robots.stream import path

assert envs
SIMULATORS = sorted(name for name, place in ARMS.items() if place.startswith("robots.simulated:"))


@pytest.fixture(params=SIMULATORS)
def arm(request: pytest.FixtureRequest) -> Iterator[SimulatedArm]:
    with connect(request.param, task="push", seed=10_003) as connected:
        assert isinstance(connected, SimulatedArm)
        yield connected


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_guarded_steps_move_the_arm_to_where_the_environment_does(simulator: str) -> None:
    env = gymnasium.make("premotor/Tabletop-v0", task="push", simulator=simulator).unwrapped
    observation, _ = env.reset(seed=10_003)
    rng = np.random.default_rng(0)
    with connect(simulator, task="push", seed=10_003) as arm:
        guard = Guard(Limits.load(), arm.kinematics)
        held, aim = arm.hold(), None
        for _ in range(8):
            action = (rng.uniform(-0.35, 0.35, 7) * env.action_space.high).astype(np.float32)  # type: ignore[attr-defined]
            reading = arm.observe()
            seen = reading.observation
            state = State(seen["observation.state"], seen["observation.joints"], held, aim)
            verdict = guard.review(state, request(action, reading.monotonic_s, None, ""), arm.now())
            assert verdict.outcome == "passed", verdict.sentence
            assert verdict.target is not None
            for tick in path(held, verdict.target, verdict.duration_s, arm.rate_hz, guard.limits.bounds):
                arm.command(tick)
            held, aim = verdict.target, verdict.aim
            observation, *_ = env.step(action)
            now = arm.observe().observation
            # The same end, half a millimetre and a quarter of a degree, on another way: Ruckig's instead of minimum jerk.
            reached, wanted = now["observation.state"], observation["observation.state"]
            np.testing.assert_allclose(reached[[0, 1, 2, 6]], wanted[[0, 1, 2, 6]], atol=5e-4)
            np.testing.assert_allclose(reached[3:6], wanted[3:6], atol=5e-3)
    env.close()


def test_observations_carry_lerobot_names_and_two_clocks(arm: SimulatedArm) -> None:
    reading = arm.observe()
    assert reading.observation["observation.images.front"].shape == (64, 64, 3)
    assert reading.observation["observation.images.front"].dtype == np.uint8
    assert reading.observation["observation.state"].shape == (7,)
    assert reading.observation["observation.joints"].shape == (7,)
    assert abs(reading.wall_s - time.time()) < 5
    assert reading.monotonic_s == arm.now()


def test_lockstep_time_is_made_of_ticks(arm: SimulatedArm) -> None:
    before = arm.now()
    time.sleep(0.02)
    assert arm.now() == before
    held = arm.hold()
    for tick in path(held, held, 0.2, arm.rate_hz, Limits.load().bounds):
        arm.command(tick)
    assert arm.now() - before == pytest.approx(0.2 + 1 / arm.rate_hz)


def test_at_real_pace_ticks_take_their_time() -> None:
    with connect("mujoco", task="reach", seed=10_000, pace="real") as arm:
        held, cadence = arm.hold(), Cadence(arm.rate_hz)
        assert not arm.lockstep
        began = time.monotonic()
        for tick in path(held, held, 0.2, arm.rate_hz, Limits.load().bounds):
            cadence.wait()
            arm.command(tick)
        assert time.monotonic() - began >= 0.19
        assert arm.observe().monotonic_s == pytest.approx(time.monotonic(), abs=0.1)
    with pytest.raises(ValueError, match="pace is 'warp'"):
        connect("mujoco", pace="warp")


def test_a_released_arm_takes_no_target(arm: SimulatedArm) -> None:
    held = arm.hold()
    arm.release()
    with pytest.raises(ArmError, match="is released"):
        arm.command(held)
    arm.hold()  # holding is always allowed


def test_a_disconnected_arm_says_so(arm: SimulatedArm) -> None:
    arm.disconnect()
    arm.disconnect()
    with pytest.raises(ArmError, match="not connected"):
        arm.observe()


@pytest.mark.parametrize("bad", [np.full(7, np.nan), np.zeros(6), np.full(7, np.inf)])
def test_targets_that_are_none_are_refused(arm: SimulatedArm, bad: np.ndarray) -> None:
    before = arm.observe().observation["observation.joints"]
    with pytest.raises(ArmError):
        arm.command(JointTarget.still(bad, 0.0))
    with pytest.raises(ArmError):
        arm.command(JointTarget.still(arm.park_joints, float("nan")))
    np.testing.assert_array_equal(arm.observe().observation["observation.joints"], before)


def test_holding_keeps_the_arm_where_it_is(arm: SimulatedArm) -> None:
    before = arm.observe().observation["observation.joints"]
    for _ in range(100):
        arm.hold()
    np.testing.assert_allclose(arm.observe().observation["observation.joints"], before, atol=0.005)


def test_the_goal_and_the_judgement_belong_to_the_scene(arm: SimulatedArm) -> None:
    assert arm.goal["observation.images.front"].shape == (64, 64, 3)
    success, distance = arm.judge()
    assert not success
    assert distance > 0.03
