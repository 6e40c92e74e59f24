"""How far planner and driver agree: counted right, said plainly, on real, recorded and scripted movement."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from robots.arm import JointTarget, Reading
from robots.episodes import EpisodeRecorder
from robots.limits import Limits
from robots.loop import Proposal
from robots.recorder import executed
from robots.shadow import Agreement, ByHand, Scripted, recorded, replay
from robots.simulated import MujocoArm
from robots.stream import path
from worldmodel.interface import TABLETOP

ACTIONS = arrays(np.float64, 7, elements=st.floats(-0.5, 0.5))


def move(x: float = 0.0, y: float = 0.0, gripper: float = 0.0) -> np.ndarray:
    return np.array([x, y, 0, 0, 0, 0, gripper])


def test_the_same_movement_agrees_and_the_opposite_does_not() -> None:
    agreement = Agreement()
    same, other = agreement.add(move(0.04), move(0.04)), agreement.add(move(0.04), move(-0.04))
    assert same is not None
    assert other is not None
    assert (same.agree, same.cosine) == (True, pytest.approx(1.0))
    assert (other.agree, other.cosine, other.distance_m) == (False, pytest.approx(-1.0), pytest.approx(0.08))
    numbers = agreement.to_dict()
    assert (numbers["share"], numbers["steps"]) == (0.5, 2)
    assert numbers["share_low"] == pytest.approx(0.0945, abs=1e-4)  # Wilson's, 1 of 2
    assert numbers["share_high"] == pytest.approx(0.9055, abs=1e-4)


def test_each_part_must_agree() -> None:
    agreement = Agreement()
    assert not agreement.add(move(gripper=0.5), move(gripper=-0.5)).agree  # type: ignore[union-attr]
    turned = move()
    turned[5] = 0.25
    assert not agreement.add(turned, move()).agree  # type: ignore[union-attr]


def test_turns_are_compared_around_the_circle() -> None:
    one, other = move(), move()
    one[3], other[3] = math.pi - 0.01, -math.pi + 0.01
    assert Agreement().add(one, other).turn_rad == pytest.approx(0.02)  # type: ignore[union-attr]


def test_standing_still_has_no_direction() -> None:
    agreement = Agreement()
    assert agreement.add(move(0.0001), move(0.0)).cosine is None  # type: ignore[union-attr]
    assert "in no step did both move" in agreement.sentence()


def test_what_is_not_finite_is_counted_apart() -> None:
    agreement = Agreement()
    assert agreement.add(move(math.nan), move()) is None
    assert agreement.sentence() == "no step to compare; 1 steps had no finite numbers"
    with pytest.raises(ValueError, match="7 numbers"):
        agreement.add(np.zeros(6), np.zeros(6))
    with pytest.raises(ValueError, match="above 0"):
        Agreement(position_m=0.0)


@given(st.lists(st.tuples(ACTIONS, ACTIONS), min_size=1, max_size=20))
def test_agreement_is_symmetric_and_bounded(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    there, back = Agreement(), Agreement()
    for one, other in pairs:
        there.add(one, other)
        back.add(other, one)
    numbers = there.to_dict()
    assert numbers == back.to_dict() or all(
        numbers[key] == pytest.approx(back.to_dict()[key], nan_ok=True) for key in numbers if numbers[key] is not None
    )
    assert 0 <= numbers["share_low"] <= numbers["share"] <= numbers["share_high"] <= 1
    assert all(pair.cosine is None or -1.0001 <= pair.cosine <= 1.0001 for pair in there.pairs)
    assert there.sentence()


def test_a_script_drives_from_a_copy_of_the_world() -> None:
    """It goes where the arm's world is, not where its own copy would have gone, and gets the block moved."""
    limits = Limits.load()
    arm = MujocoArm(seed=3)
    arm.connect()
    driver = Scripted("mujoco", {"task": "push"}, seed=3)
    again = Scripted("mujoco", {"task": "push"}, seed=3)
    with arm:
        held, before = arm.hold(), arm.truth()
        first = driver.act(arm.observe())
        assert first is not None
        assert again.act(arm.observe()) == pytest.approx(first)
        for _ in range(25):
            action = driver.act(arm.observe())
            assert action is not None
            assert (TABLETOP.low[0] <= action[:3]).all()
            assert (action[:3] <= TABLETOP.high[0]).all()
            position, rotation = arm.kinematics.forward(held.joints)
            goal = np.clip(position + action[:3], limits.workspace_low, limits.workspace_high)
            target = JointTarget.still(arm.kinematics.solve(held.joints, goal, rotation), 1.0)
            for tick in path(held, target, limits.period_s, arm.rate_hz, limits.bounds):
                arm.command(tick)
            held = target
        moved = float(np.linalg.norm(arm.truth()[:2] - before[:2]))
    assert moved > 0.02
    with pytest.raises(ValueError, match="needs a simulated arm"):
        driver.act(Reading({"observation.state": np.zeros(7)}, 0.0, 0.0))
    driver.close()
    again.close()


class Hand:
    """A person who pushes the tool by 5 cm a second along x, and the clock that tells."""

    def __init__(self) -> None:
        self.now = 100.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def look(self) -> Reading:
        state = np.array([0.05 * self.now, 0, 0.2, math.pi, 0, 0, 0])
        return Reading({"observation.state": state}, self.now, 0.0)


@pytest.mark.parametrize("thinks_s", [0.0, 0.15, 0.4])
def test_by_hand_what_was_done_is_compared_by_the_step_however_long_the_planner_takes(thinks_s: float) -> None:
    hand = Hand()
    shadow = ByHand(0.2, clock=hand.clock, sleep=hand.sleep)
    for _ in range(4):
        before = hand.look()
        hand.sleep(thinks_s)  # meanwhile the hand moves on
        instead = shadow.instead(before, Proposal(move(0.01), 7.0, "a plan"))
        assert not instead.action.any()  # nothing is driven
        assert instead.note == "proposed +1.0 +0.0 +0.0 cm"
        shadow.let_pass()
        assert hand.now - before.monotonic_s == pytest.approx(max(0.2, thinks_s))
        shadow.compare(executed(before.observation["observation.state"], hand.look().observation["observation.state"]))
    assert shadow.agreement.to_dict()["agreed"] == 4
    assert shadow.agreement.to_dict()["distance_m_median"] == pytest.approx(0.0, abs=1e-6)
    shadow.close()


def test_a_recorded_episode_is_replayed(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    with EpisodeRecorder(root, TABLETOP, "panda") as recorder:
        for dx in (0.01, 0.03):
            recorder.begin("push")
            for step in range(4):
                recorder.add(_seen(0.3 + dx * step, 40 * step), np.zeros(7))
            recorder.end(_seen(0.3 + dx * 4, 160))
    looked: list[int] = []

    def propose(reading: Reading) -> np.ndarray:
        looked.append(int(reading.observation["observation.images.front"].mean()))
        return move(0.03)

    agreement = replay(root, 1, propose, Agreement(position_m=0.005))
    assert agreement.to_dict()["agreed"] == 4
    assert looked == pytest.approx([0, 40, 80, 120], abs=3)
    assert replay(root, 0, propose, Agreement(position_m=0.005)).to_dict()["agreed"] == 0
    with pytest.raises(ValueError, match="episodes 0 to 1; there is no episode 2"):
        next(recorded(root, 2, ("front",)))


def _seen(x: float, grey: int) -> dict[str, np.ndarray]:
    return {
        "observation.images.front": np.full((32, 32, 3), grey, np.uint8),
        "observation.state": np.array([x, 0, 0.2, math.pi, 0, 0, 0.5], np.float32),
    }
