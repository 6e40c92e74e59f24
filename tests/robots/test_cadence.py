"""A cadence keeps its beat without drift, begins a new one after a gap, and counts what was late."""

from __future__ import annotations

import pytest

from robots.cadence import Cadence


class Clock:
    """Time that passes only where somebody sleeps or is busy."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_the_beat_does_not_drift_with_the_work_between_ticks() -> None:
    clock = Clock()
    cadence = Cadence(50.0, clock, clock.sleep)
    begun = []
    for work in (0.001, 0.019, 0.0, 0.012) * 10:
        cadence.wait()
        begun.append(clock.now)
        clock.sleep(work)
    assert begun == pytest.approx([100.0 + 0.02 * k for k in range(40)])
    assert cadence.report.within == cadence.report.ticks == 39
    assert cadence.report.gap_count == 0


def test_a_late_tick_is_caught_up_and_a_gap_begins_a_new_beat_and_is_told() -> None:
    clock = Clock()
    cadence = Cadence(50.0, clock, clock.sleep)
    begun = []
    for work in (0.0, 0.027, 0.0, 0.2, 0.0, 0.0):
        cadence.wait()
        begun.append(clock.now - 100.0)
        clock.sleep(work)
    cadence.wait()
    assert begun == pytest.approx([0.0, 0.02, 0.047, 0.06, 0.26, 0.28])
    report = cadence.report
    assert report.ticks == 6
    assert report.gap_count == 1
    assert report.gaps == [(pytest.approx(0.26), pytest.approx(0.2))]
    assert report.worst_s == pytest.approx(0.2)
    assert report.within == 3  # 20, 27, 13, 200, 20, 20 ms
    assert "1 longer than 70 ms" in report.sentence()
    assert cadence.take_lateness() == pytest.approx(0.18)  # a fifth of a second of work, where a fiftieth was wanted
    assert cadence.take_lateness() == 0.0
