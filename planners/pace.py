"""How long each kind of work takes, so that none is begun that would end too late."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# What is done at the very end besides what was rehearsed: copies, words.
_LAST_WORDS_S = 0.001


class Pace:
    """A clock, a deadline and what was learned on the way; without a deadline it does nothing.

    Args:
        deadline: in the clock's seconds; infinite for none.
        clock: seconds.
        wait: returns when an accelerator has done what it was told.
    """

    def __init__(self, deadline: float, clock: Callable[[], float], wait: Callable[[], None]) -> None:
        self.limited = deadline < math.inf
        self._deadline, self._clock, self._wait = deadline, clock, wait
        self._took: dict[str, float] = {}
        self._reserved = _LAST_WORDS_S
        self._excused = 0.0

    def allows(self, kind: str, guess: float = 0.0) -> bool:
        """Whether work of a kind, which takes `guess` seconds if there was none yet, would end in time."""
        if not self.limited:
            return True
        return self._clock() + self._took.get(kind, guess) + self._reserved <= self._deadline

    def took(self, kind: str) -> float | None:
        """Seconds that the next work of a kind is expected to take; None where there was none."""
        return self._took.get(kind)

    @contextmanager
    def work(self, kind: str) -> Iterator[None]:
        """Do work of a kind, and remember how long it took."""
        if not self.limited:
            yield
            return
        began, excused = self._clock(), self._excused
        yield
        self._wait()
        now = self._clock() - began - (self._excused - excused)
        # The slowest counts, but one that was held up by something else is slowly forgotten.
        self._took[kind] = max(now, 0.5 * (now + self._took.get(kind, now)))

    def excuse(self, seconds: float) -> None:
        """Seconds that do not count: the deadline is so much later, and the work under way so much shorter."""
        self._deadline += seconds
        self._excused += seconds

    def reserve(self, *kinds: str) -> None:
        """Keep the time for such work free at the end."""
        self._reserved = _LAST_WORDS_S + sum(self._took.get(kind, 0.0) for kind in kinds)
