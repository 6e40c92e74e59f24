"""The latch goes one way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from robots.stop import SoftwareStop, Stage


@given(asked=st.lists(st.sampled_from(list(Stage)), max_size=20))
def test_it_never_arms_itself_again(asked: list[Stage]) -> None:
    stop = SoftwareStop()
    reached = Stage.RUNNING
    for number, stage in enumerate(asked):
        moved = stop.advance(stage, f"reason {number}")
        assert moved == (stage > reached)
        reached = max(reached, stage)
        assert stop.stage is reached
        assert stop.running == (reached is Stage.RUNNING)
    assert [stage for stage, _ in stop.history] == sorted({stage for stage, _ in stop.history})
    if stop.history:
        assert stop.reason == stop.history[0][1]
