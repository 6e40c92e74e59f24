"""A slow movement: looked at before, never faster than said, braked by a person's hand, stopped by what goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robots import blackbox, slowly
from robots.arm import ArmError, JointTarget, Measured
from robots.blackbox import BlackBox
from robots.consent import Standing
from robots.exits import Exit
from robots.limits import Limits
from robots.simulated import MujocoArm

GO = Standing(True)


class Watched(MujocoArm):
    """Remembers what it was sent; lies about where it is, or fails, when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[JointTarget] = []
        self.off_rad = 0.0
        self.fails_at = -1

    def command(self, target: JointTarget) -> None:
        if len(self.sent) == self.fails_at:
            self.fails_at = -1
            raise ArmError("servo 3 did not answer")
        self.sent.append(target)
        super().command(target)

    def measure(self) -> Measured:
        seen = super().measure()
        return replace(seen, joints=seen.joints + self.off_rad)


@pytest.fixture(scope="module")
def limits() -> Limits:
    return Limits.load()


@pytest.fixture
def arm() -> Iterator[Watched]:
    arm = Watched()
    arm.connect()
    with arm:
        yield arm


def move(
    arm: Watched, limits: Limits, folder: Path, standing: Callable[[], Standing] = lambda: GO, speed: float = 0.4
) -> tuple[Exit, str, list[dict[str, object]]]:
    journey = slowly.look(arm, limits, arm.body, arm.park_joints, speed)
    arm.sent.clear()
    with BlackBox(folder / "box.jsonl", queued=True) as box:
        code, reason = slowly.go(arm, limits, journey, box, standing, lambda line: None)
    return code, reason, blackbox.read(folder / "box.jsonl")


def speeds(arm: Watched) -> np.ndarray:
    return np.abs(np.diff([target.joints for target in arm.sent], axis=0)).max(axis=1) * arm.rate_hz


def test_it_arrives_slowly_and_is_on_record(arm: Watched, limits: Limits, tmp_path: Path) -> None:
    code, reason, lines = move(arm, limits, tmp_path)
    assert (code, reason) == (Exit.DONE, "arrived")
    assert np.abs(arm.measure().joints - arm.park_joints).max() < 0.02
    assert 0.3 < speeds(arm).max() <= 0.4 + 1e-6
    moved = [line for line in lines if line["kind"] == "moved"]
    assert len(moved) >= len(arm.sent) / (arm.rate_hz / slowly.LOOKS_HZ) - 1
    assert moved[-1]["sent"] == pytest.approx(arm.park_joints.tolist(), abs=1e-6)


def test_the_limits_are_kept_where_they_are_slower(arm: Watched, limits: Limits, tmp_path: Path) -> None:
    slow = replace(limits, joint_velocity=(0.1,) * 7)
    code, _, _ = move(arm, slow, tmp_path)
    assert code is Exit.DONE
    assert speeds(arm).max() <= 0.1 + 1e-6


def test_a_hand_that_is_taken_away_brakes_and_gives_back(arm: Watched, limits: Limits, tmp_path: Path) -> None:
    def standing() -> Standing:
        ticks = len(arm.sent)
        return GO if ticks < 150 or ticks > 400 else Standing(False, False, "paused")

    code, _, lines = move(arm, limits, tmp_path, standing)
    assert code is Exit.DONE
    assert [line["kind"] for line in lines if line["kind"] in ("brake", "go on")] == ["brake", "go on"]
    assert speeds(arm)[200:390].max() < 1e-9  # at rest within 0.2 s, and meanwhile
    acceleration = np.abs(np.diff([t.joints for t in arm.sent], n=2, axis=0)) * arm.rate_hz**2
    assert (acceleration.max(axis=0) <= np.array(limits.joint_acceleration) * 1.01).all()


def test_a_stop_ends_it_at_rest(arm: Watched, limits: Limits, tmp_path: Path) -> None:
    def standing() -> Standing:
        return GO if len(arm.sent) < 150 else Standing(False, True, "stopped by the operator (key q)")

    code, reason, _ = move(arm, limits, tmp_path, standing)
    assert (code, reason) == (Exit.STOPPED, "stopped by the operator (key q)")
    assert speeds(arm)[-1] < 1e-9
    assert np.abs(arm.measure().joints - arm.park_joints).max() > 0.1


def test_a_stop_during_a_pause(arm: Watched, limits: Limits, tmp_path: Path) -> None:
    looks = iter([GO] * 100 + [Standing(False, False, "paused")] * 400)
    code, reason, _ = move(arm, limits, tmp_path, lambda: next(looks, Standing(False, True, "q")))
    assert (code, reason) == (Exit.STOPPED, "q")


def test_an_arm_that_does_not_follow_is_a_fault(arm: Watched, limits: Limits, tmp_path: Path) -> None:
    def standing() -> Standing:
        arm.off_rad = 0.3 if len(arm.sent) > 200 else 0.0
        return GO

    code, reason, _ = move(arm, limits, tmp_path, standing)
    assert code is Exit.FAULT
    assert "from where it was sent (limit 0.15)" in reason
    assert speeds(arm)[-1] < 1e-9


def test_a_driver_that_fails_is_a_fault_and_the_arm_is_held(arm: Watched, limits: Limits, tmp_path: Path) -> None:
    def standing() -> Standing:
        if len(arm.sent) == 200:
            arm.fails_at = 200
        return GO

    code, reason, _ = move(arm, limits, tmp_path, standing)
    assert code is Exit.FAULT
    assert "servo 3 did not answer" in reason
    assert speeds(arm)[-1] < 1e-9


def test_a_record_that_cannot_be_kept_is_a_fault(arm: Watched, limits: Limits, tmp_path: Path) -> None:
    class Full(BlackBox):
        def write(self, kind: str, **values: object) -> None:
            if kind == "moved":
                raise OSError(28, "No space left on device")
            super().write(kind, **values)

    journey = slowly.look(arm, limits, arm.body, arm.park_joints, 0.4)
    with Full(tmp_path / "box.jsonl") as box:
        code, reason = slowly.go(arm, limits, journey, box, lambda: GO, lambda line: None)
    assert code is Exit.FAULT
    assert "No space left" in reason
    assert speeds(arm)[-1] < 1e-9


def test_a_way_into_the_table_is_refused_before_it_begins(arm: Watched, limits: Limits) -> None:
    down = arm.measure().joints.copy()
    down[1] += 0.25
    with pytest.raises(ValueError, match="from table") as refused:
        slowly.look(arm, limits, arm.body, down, 0.4)
    assert "by hand" in str(refused.value)
    beyond = arm.measure().joints.copy()
    beyond[0] = 2.95
    with pytest.raises(ValueError, match="panda_joint1 would pass its limits"):
        slowly.look(arm, limits, None, beyond, 0.4)
    assert arm.sent == []


def test_an_arm_that_was_moved_since_it_was_looked_at(arm: Watched, limits: Limits, tmp_path: Path) -> None:
    journey = slowly.look(arm, limits, arm.body, arm.park_joints, 0.4)
    moved = replace(journey, way=replace(journey.way, joints=journey.way.joints + 0.3))
    with BlackBox(tmp_path / "box.jsonl") as box:
        code, reason = slowly.go(arm, limits, moved, box, lambda: GO, lambda line: None)
    assert code is Exit.REFUSED
    assert "since it was looked at" in reason


def test_a_speed_that_is_none(limits: Limits) -> None:
    for speed in (0.0, -1.0, 3.0, float("nan")):
        with pytest.raises(ValueError, match="is no slow movement"):
            slowly.slow_bounds(limits, speed)
