"""Keeping time: wait for the next tick of a fixed rate, and remember how well it was met."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

# A period may be off by this much and still count as in time; one that is off by `GAP_S` is listed one by one.
TOLERANCE_S, GAP_S = 0.005, 0.050
GAPS_KEPT = 1000


@dataclass
class CadenceReport:
    """How well a rate was met.

    Attributes:
        period_s: what was wanted.
        ticks: periods measured.
        within: of them those off by at most `TOLERANCE_S`.
        worst_s: the longest period.
        total_s: their sum.
        gaps: every period off by more than `GAP_S`, as (seconds since the first tick, its length); the first thousand.
        gap_count: how many of those there were.
    """

    period_s: float
    ticks: int = 0
    within: int = 0
    worst_s: float = 0.0
    total_s: float = 0.0
    gaps: list[tuple[float, float]] = field(default_factory=list)
    gap_count: int = 0

    def add(self, period_s: float) -> bool:
        """Note a period; whether it was a gap."""
        self.ticks += 1
        self.total_s += period_s
        self.worst_s = max(self.worst_s, period_s)
        off = abs(period_s - self.period_s)
        self.within += off <= TOLERANCE_S
        if off <= GAP_S:
            return False
        self.gap_count += 1
        if len(self.gaps) < GAPS_KEPT:
            self.gaps.append((self.total_s, period_s))
        return True

    def to_dict(self) -> dict[str, Any]:
        """Numbers for the record, milliseconds."""
        return {
            "wanted_ms": 1000 * self.period_s, "ticks": self.ticks, "within_5_ms": self.within,
            "mean_ms": 1000 * self.total_s / self.ticks if self.ticks else None, "worst_ms": 1000 * self.worst_s,
            "gaps": self.gap_count, "gaps_at_s_ms": [[round(at, 3), round(1000 * long, 1)] for at, long in self.gaps],
        }  # fmt: skip

    def sentence(self) -> str:
        """The report in one line."""
        if not self.ticks:
            return "no tick was sent"
        share = 100 * self.within / self.ticks
        gaps = f"{self.gap_count} longer than {1000 * (self.period_s + GAP_S):.0f} ms" if self.gap_count else "no gap"
        return (
            f"{self.ticks / self.total_s:.2f} Hz, {1 / self.period_s:g} wanted; {share:.2f} % of {self.ticks} periods "
            f"within {1000 * TOLERANCE_S:g} ms, the longest {1000 * self.worst_s:.1f} ms, {gaps}"
        )


class Cadence:
    """Ticks at a fixed rate. One that comes in time keeps the beat; one a whole period late begins a new one.

    Args:
        rate_hz: ticks a second.
        clock, sleep: seconds; what tests replace.

    Attributes:
        report: of the periods so far.
    """

    def __init__(
        self,
        rate_hz: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.period_s = 1.0 / rate_hz
        self._clock, self._sleep = clock, sleep
        self.report = CadenceReport(self.period_s)
        self._due: float | None = None
        self._last: float | None = None
        self._latest_s = 0.0

    @property
    def left_s(self) -> float:
        """Seconds until the next tick is due; not above 0 when it is."""
        return 0.0 if self._due is None else self._due - self._clock()

    def begin(self) -> None:
        """A tick begins now; to be called when it is due."""
        now = self._clock()
        if self._last is not None:
            self.report.add(now - self._last)
        if self._due is not None:
            self._latest_s = max(self._latest_s, now - self._due)
        self._last = now
        keeps = self._due is not None and now - self._due < self.period_s
        self._due = (self._due if keeps and self._due is not None else now) + self.period_s

    def take_lateness(self) -> float:
        """How late the latest tick since the last such question began, seconds; not negative."""
        latest, self._latest_s = self._latest_s, 0.0
        return latest

    def rest(self) -> None:
        """Nothing is due until the next tick; the time since the last one is no period."""
        self._due = self._last = None
        self._latest_s = 0.0

    def wait(self) -> None:
        """Sleep until the next tick is due, and begin it."""
        while (left := self.left_s) > 0:
            self._sleep(left)
        self.begin()
