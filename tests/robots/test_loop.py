"""The loop sends only what the guard lets through, and winds the arm down whatever ends it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robots import Guard, JointTarget, Limits, Reading, blackbox
from robots.arm import ArmError
from robots.blackbox import BlackBox
from robots.loop import Ending, Exit, Proposal, Step, drive
from robots.operator import Operator
from robots.simulated import MujocoArm
from robots.station import Station

LIMITS = Limits.load()
GENTLE = np.array([0.01, 0.01, 0.0, 0.0, 0.0, 0.0, 0.0])


class Bench:
    """An arm, a record and what was said."""

    def __init__(self, arm: MujocoArm, folder: Path) -> None:
        self.arm = arm
        self.path = folder / "blackbox.jsonl"
        self.said: list[str] = []
        self.steps: list[Step] = []

    def drive(self, propose: Any, **options: Any) -> Ending:
        with Operator(self.said.append) as operator:
            settings = {"steps": 4, "say": self.said.append, "on_step": self.steps.append, "limits": LIMITS, **options}
            return drive(self.station(bool(options.get("dry_run"))), propose, operator, **settings)

    def station(self, dry_run: bool = False) -> Station:
        guard = Guard(LIMITS, self.arm.kinematics)
        return Station(self.arm, guard, lambda **header: BlackBox(self.path, **header), dry_run=dry_run)

    @property
    def record(self) -> list[dict[str, Any]]:
        return blackbox.read(self.path)

    def assert_parked_and_released(self) -> None:
        joints = self.arm.observe().observation["observation.joints"]
        np.testing.assert_allclose(joints, self.arm.park_joints, atol=0.01)
        with pytest.raises(ArmError, match="is released"):
            self.arm.command(JointTarget.still(self.arm.park_joints, 0.0))
        assert [line["stage"] for line in self.record if line["kind"] == "stop"] == ["held", "parked", "released"]
        assert blackbox.verify(self.path).complete


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    arm = MujocoArm(task="push", seed=10_002)
    arm.connect()
    yield Bench(arm, tmp_path)
    arm.disconnect()


def gentle(reading: Reading) -> Proposal:
    return Proposal(GENTLE, 0.5, "plan")


def test_a_run_that_ends_well(bench: Bench) -> None:
    ending = bench.drive(gentle)
    assert ending.code is Exit.DONE
    assert ending.steps == 4
    assert ending.passed == 4
    assert not ending.faults
    moved = (
        bench.steps[-1].reading.observation["observation.state"]
        - bench.steps[0].reading.observation["observation.state"]
    )
    np.testing.assert_allclose(moved[:2], 0.03, atol=0.004)
    kinds = [line["kind"] for line in bench.record]
    assert [kind for kind in kinds if kind != "ticks"] == [
        "header", "permit", *["step"] * 4, "ending", *["stop"] * 3, "end",
    ]  # fmt: skip
    assert bench.record[2]["requested"] == GENTLE.tolist()
    ticks = [line for line in bench.record if line["kind"] == "ticks"]
    assert all(len(line["arm_s"]) == len(line["sent"]) == len(line["measured"]) for line in ticks)
    # Every second of the 200 ticks of 4 steps, and the way to the park pose.
    at = np.concatenate([line["arm_s"] for line in ticks])
    assert (at <= 0.81).sum() == 100
    assert at.max() > 1.5
    bench.assert_parked_and_released()


def test_the_loop_reports_its_rate(bench: Bench) -> None:
    report = bench.drive(gentle).report
    assert report.to_dict()["period_ms_median"] == pytest.approx(200)
    assert report.to_dict()["late"] == 0
    assert "5.00 Hz on the arm's clock" in report.sentence()


def test_a_dry_run_sends_nothing_and_says_so_on_every_line(bench: Bench) -> None:
    before = bench.arm.observe().observation["simulator.state"]
    ending = bench.drive(gentle, dry_run=True)
    assert ending.code is Exit.DONE
    assert ending.steps == 4
    np.testing.assert_array_equal(bench.arm.observe().observation["simulator.state"], before)
    assert bench.arm.now() == 0.0
    assert bench.said
    assert all(line.startswith("dry run, nothing sent") for line in bench.said)
    assert not [line for line in bench.record if line["kind"] == "ticks" or line.get("target")]


def test_a_veto_holds_the_arm_for_the_step(bench: Bench) -> None:
    doubts = iter([0.5, 99.0, 0.5])
    ending = bench.drive(lambda reading: Proposal(GENTLE, next(doubts), "plan"), steps=3)
    assert ending.code is Exit.DONE
    assert ending.vetoed == 1
    assert ending.passed == 2
    first, second, third = (s.reading.observation["observation.state"][:3] for s in bench.steps)
    assert np.linalg.norm(second - first) > 0.01
    assert np.linalg.norm(third - second) < 0.003
    assert any("does not trust this plan" in line and "the arm holds" in line for line in bench.said)


def test_many_vetoes_in_a_row_stop_the_run(bench: Bench) -> None:
    ending = bench.drive(lambda reading: Proposal(np.full(7, np.nan), None, "plan"), steps=50)
    assert ending.code is Exit.VETOED
    assert ending.vetoed == LIMITS.vetoes_in_a_row == ending.steps
    assert "action[0] is nan" in ending.reason
    bench.assert_parked_and_released()


def test_a_planner_that_fails_is_a_fault(bench: Bench) -> None:
    def broken(reading: Reading) -> Proposal:
        raise RuntimeError("the model file is gone")

    ending = bench.drive(broken)
    assert ending.code is Exit.FAULT
    assert "the model file is gone" in ending.reason
    bench.assert_parked_and_released()


def test_an_arm_in_motion_that_is_not_sent_to_in_time_pauses(tmp_path: Path) -> None:
    class Stalls(MujocoArm):
        """Its driver takes too long for one target, in the middle of a step."""

        sent = 0

        def command(self, target: JointTarget) -> None:
            Stalls.sent += 1
            if Stalls.sent == 10:
                time.sleep(LIMITS.late_tick_s + 0.1)
            super().command(target)

    arm = Stalls(task="push", seed=10_002, pace="real")
    arm.connect()
    ending = Bench(arm, tmp_path).drive(gentle)
    arm.disconnect()
    assert ending.code is Exit.FAULT  # nobody is there to go on from a pause
    assert "a tick was sent 3" in ending.reason
    assert f"ms late (limit {1000 * LIMITS.late_tick_s:g} ms)" in ending.reason


def test_ctrl_c_stops_before_the_next_step(bench: Bench) -> None:
    def interrupted(reading: Reading) -> Proposal:
        if len(bench.steps) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return gentle(reading)

    ending = bench.drive(interrupted)
    assert ending.code is Exit.STOPPED
    assert ending.steps == 1
    assert len([line for line in bench.record if line["kind"] == "step"]) == 1
    bench.assert_parked_and_released()


def test_a_stop_before_the_first_step_sends_no_step(bench: Bench) -> None:
    operator = Operator(bench.said.append)
    operator.request_stop()
    ending = drive(bench.station(), gentle, operator, steps=4, limits=LIMITS, say=bench.said.append)
    assert ending.code is Exit.STOPPED
    assert ending.steps == 0


def test_a_stop_in_the_middle_of_a_step_brakes_within_the_limits(bench: Bench) -> None:
    send, sent = bench.arm.command, []

    def watched(target: JointTarget) -> None:
        sent.append(target)
        if len(sent) == 22:  # of the fifty ticks of a step: about the fastest
            os.kill(os.getpid(), signal.SIGINT)
        send(target)

    bench.arm.command = watched  # type: ignore[method-assign]
    fast = np.array([0.05, 0.05, 0.0, 0.0, 0.0, 0.0, 0.0])
    ending = bench.drive(lambda reading: Proposal(fast, 0.5, "plan"))
    assert ending.code is Exit.STOPPED
    at_rest = next(n for n in range(23, len(sent)) if not sent[n].velocity.any())
    assert at_rest < 45
    moved = np.linalg.norm(
        bench.arm.kinematics.forward(sent[at_rest].joints)[0] - bench.arm.kinematics.forward(sent[0].joints)[0]
    )
    assert 0.01 < moved < 0.06
    joints = np.stack([target.joints for target in sent])
    strongest = np.abs(np.diff(joints, n=2, axis=0)).max(axis=0) * bench.arm.rate_hz**2
    assert (strongest <= np.array(LIMITS.joint_acceleration) * (1 + 1e-6)).all()


def test_a_second_ctrl_c_does_not_skip_the_park(bench: Bench) -> None:
    send, count = bench.arm.command, 0

    def impatient(target: JointTarget) -> None:
        nonlocal count
        count += 1
        if count in (30, 80, 120, 160):  # in the first step, then while parking
            os.kill(os.getpid(), signal.SIGINT)
        send(target)

    bench.arm.command = impatient  # type: ignore[method-assign]
    ending = bench.drive(gentle)
    assert count > 160
    assert ending.code is Exit.STOPPED
    bench.arm.command = send  # type: ignore[method-assign]
    bench.assert_parked_and_released()
    assert sum("please wait" in line for line in bench.said) == 3


def test_a_second_ctrl_c_breaks_off_a_planner_that_hangs(bench: Bench) -> None:
    def hanging(reading: Reading) -> Proposal:
        while True:
            os.kill(os.getpid(), signal.SIGINT)

    ending = bench.drive(hanging)
    assert ending.code is Exit.STOPPED
    bench.assert_parked_and_released()


def test_an_audience_that_left_does_not_keep_the_arm_from_being_parked(bench: Bench) -> None:
    def deaf(line: str) -> None:
        raise BrokenPipeError

    ending = bench.drive(gentle, say=deaf)
    assert ending.code is Exit.FAULT
    bench.assert_parked_and_released()


class FailingArm(MujocoArm):
    """The arm loses its bus after some ticks."""

    ticks_left = 60

    def command(self, target: JointTarget) -> None:
        self.ticks_left -= 1
        if self.ticks_left < 0:
            raise ArmError("servo 3 does not answer")
        super().command(target)


def test_an_arm_that_fails_is_left_held_not_released(tmp_path: Path) -> None:
    arm = FailingArm(task="push", seed=10_002)
    arm.connect()
    bench = Bench(arm, tmp_path)
    ending = bench.drive(gentle)
    assert ending.code is Exit.FAULT
    assert "servo 3 does not answer" in ending.reason
    assert any("could not park" in fault for fault in ending.faults)
    assert any("not released" in line for line in bench.said)
    assert [line["stage"] for line in bench.record if line["kind"] == "trip"] == ["held"]
    assert [line["stage"] for line in bench.record if line["kind"] == "stop"] == ["held"]
    arm.disconnect()


def test_a_full_disk_is_a_fault_and_the_arm_is_wound_down(bench: Bench) -> None:
    class FullDisk(BlackBox):
        def write(self, kind: str, **values: Any) -> None:
            if kind != "header":
                raise OSError(28, "No space left on device")
            super().write(kind, **values)

    guard = Guard(LIMITS, bench.arm.kinematics)
    station = Station(bench.arm, guard, lambda **header: FullDisk(bench.path, **header))
    ending = drive(station, gentle, Operator(bench.said.append), steps=4, limits=LIMITS, say=bench.said.append)
    assert ending.code is Exit.FAULT
    assert "No space left" in ending.reason
    assert "could not be recorded" in ending.faults[-1]
    assert [line["kind"] for line in bench.record] == ["header", "permit"]
    np.testing.assert_allclose(bench.arm.observe().observation["observation.joints"], bench.arm.park_joints, atol=0.01)
