"""The person at the keyboard: Ctrl-C asks for a stop, and nothing they press skips holding and parking."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

# Ctrl-C, a polite kill, a terminal that was closed.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def shout(line: str) -> None:
    """Say a line from inside a signal handler, where buffered printing may be in the middle of another line."""
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())


class Operator:
    """Turns signals into a request to stop; use it in a `with` block around everything an arm does.

    The first signal is noted, and the loop acts on it at the next safe moment. While `interruptible` (the planner is
    thinking and nothing moves) a second one breaks off the thought. Otherwise further signals are answered in words.
    """

    def __init__(self, say: Callable[[str], None] = shout) -> None:
        self.stop_requested = False
        self._say = say
        self._interruptible = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A stretch of work that a second Ctrl-C may break off."""
        try:
            self._interruptible = True
            yield
        finally:
            self._interruptible = False

    def request_stop(self) -> None:
        """What the first Ctrl-C does."""
        self.stop_requested = True

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        again = self.stop_requested
        self.stop_requested = True
        if again and self._interruptible:
            self._interruptible = False  # once: what follows the broken-off thought is winding down
            raise KeyboardInterrupt
        if again:
            self._say("stopping already: the arm holds, parks and lets go; please wait")
        else:
            self._say(f"{signal.Signals(number).name}: stopping; the arm holds, parks and lets go")
