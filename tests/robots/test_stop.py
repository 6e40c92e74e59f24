"""The ladder leads down only; a pause alone has a way back, and only for who has the key."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from robots.arm import Arm, ArmError
from robots.stop import Key, SoftwareStop, Stage, wind_down


@given(asked=st.lists(st.sampled_from(list(Stage)), max_size=20))
def test_it_never_arms_itself_again(asked: list[Stage]) -> None:
    stop = SoftwareStop()
    reached = Stage.RUNNING
    for number, stage in enumerate(asked):
        assert stop.advance(stage, f"reason {number}") == (stage > reached)
        reached = max(reached, stage)
        assert stop.stage == reached
        assert stop.running == (reached is Stage.RUNNING)
    assert [stage for stage, _ in stop.history] == sorted({stage for stage, _ in stop.history})


class Ladder(RuleBasedStateMachine):
    """Everything that can be asked of a latch, in any order, beside what it ought to be."""

    def __init__(self) -> None:
        super().__init__()
        self.stop = SoftwareStop()
        self.stage, self.key = Stage.RUNNING, None
        self.worst = Stage.RUNNING

    @rule(stage=st.sampled_from(list(Stage)), reason=st.text(max_size=3))
    def advance(self, stage: Stage, reason: str) -> None:
        assert self.stop.advance(stage, reason) == (stage > self.stage)
        self.stage = max(self.stage, stage)
        if stage > Stage.PAUSED:
            self.worst = max(self.worst, stage)

    @precondition(lambda self: self.key is None)
    @rule()
    def take_the_key(self) -> None:
        self.key = self.stop.key()

    @precondition(lambda self: self.key is not None)
    @rule()
    def the_key_is_given_once(self) -> None:
        with pytest.raises(PermissionError):
            self.stop.key()

    @rule(key=st.sampled_from([None, "key", True, Key()]))
    def resume_without_the_key(self, key: Any) -> None:
        assert not self.stop.resume(key, "let me")

    @precondition(lambda self: self.key is not None)
    @rule()
    def resume(self) -> None:
        assert self.stop.resume(self.key, "go on") == (self.stage is Stage.PAUSED)
        if self.stage is Stage.PAUSED:
            self.stage = Stage.RUNNING

    @invariant()
    def what_is_latched_stays(self) -> None:
        assert self.stop.stage == self.stage
        assert self.stop.running == (self.stage is Stage.RUNNING)
        assert self.stop.stage >= self.worst  # from held on there is no way back
        assert bool(self.stop.running) == (self.stop.reason == "") or self.stop.reason == ""


TestLadder = Ladder.TestCase
TestLadder.settings = settings(max_examples=100, stateful_step_count=20, deadline=None)


class Recorder:
    """An arm of which only the last steps matter; named rungs fail."""

    name = "recorder"

    def __init__(self, *failing: str) -> None:
        self.failing, self.done = failing, []

    def _act(self, what: str) -> None:
        self.done.append(what)
        if what in self.failing:
            raise ArmError(f"{what} failed")

    def hold(self) -> None:
        self._act("hold")

    def park(self) -> None:
        self._act("park")

    def release(self) -> None:
        self._act("release")


@pytest.mark.parametrize(
    ("failing", "done", "stage"),
    [
        (("hold",), ["hold", "park", "release"], Stage.RELEASED),
        (("park",), ["hold", "park", "hold"], Stage.HELD),
        (("release",), ["hold", "park", "release"], Stage.PARKED),
    ],
)
def test_a_rung_that_fails_does_not_keep_the_arm_from_the_next(failing: Any, done: list[str], stage: Stage) -> None:
    arm, stop = Recorder(*failing), SoftwareStop()
    faults = wind_down(cast(Arm, arm), stop, "fault", moves=True, say=lambda _: None)
    assert arm.done == done
    assert stop.stage is stage
    assert len(faults) == 1


def test_a_dry_run_touches_nothing() -> None:
    arm, stop, said = Recorder(), SoftwareStop(), []
    wind_down(cast(Arm, arm), stop, "done", moves=False, say=said.append)
    assert not arm.done
    assert all(line.startswith("dry run, nothing sent") for line in said)
