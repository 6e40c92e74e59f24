"""Single keys from a terminal while something else runs: read without waiting, and the terminal is put back as it was."""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import sys
import termios
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self


class Keys:
    """Keys as they are pressed, without Enter; use it in a `with` block.

    Ctrl-C still is a signal. Ctrl-Z does nothing: a suspended program could not stop an arm.

    Args:
        fd: the terminal; standard input where nothing is said.
    """

    def __init__(self, fd: int | None = None) -> None:
        self._fd = _standard_input() if fd is None else fd
        self._before: list[Any] | None = None

    @property
    def usable(self) -> bool:
        """Whether a person can answer here: a terminal, and one we are in the foreground of."""
        try:
            if not os.isatty(self._fd):
                return False
            return os.tcgetpgrp(self._fd) == os.getpgrp()
        except OSError:  # a terminal that is not our controlling one cannot stop us for reading it
            return self._fd >= 0 and os.isatty(self._fd)

    def __enter__(self) -> Self:
        if self.usable:
            self._before = termios.tcgetattr(self._fd)
            mode = termios.tcgetattr(self._fd)
            mode[3] &= ~(termios.ICANON | termios.ECHO)
            mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
            mode[6][termios.VSUSP] = b"\0"
            termios.tcsetattr(self._fd, termios.TCSANOW, mode)  # never wait for a terminal held by Ctrl-S
            atexit.register(self._restore)  # whatever way this process ends, short of being killed
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    @property
    def reading(self) -> bool:
        """Whether keys come in at all: inside the `with` block, on a terminal."""
        return self._before is not None

    def pressed(self) -> list[str]:
        """What was pressed since the last call, oldest first. Never waits."""
        return self._read(0.0)

    def wait(
        self,
        wanted: str,
        timeout_s: float,
        until: Callable[[], bool] = lambda: False,
        ask: Callable[[], object] | None = None,
    ) -> str | None:
        """The next of the `wanted` keys; None when none came in time. What was typed ahead does not count.

        Args:
            wanted: lower-case letters.
            timeout_s: how long.
            until: asked several times a second; when it says so, nobody is waited for any longer.
            ask: shows the question; what was typed before it does not count.

        Raises:
            EOFError: the terminal is gone.
        """
        if not self.reading:
            return None
        self.forget()  # before it is asked: an answer that comes at once is one
        if ask is not None:
            ask()
        due = time.monotonic() + timeout_s
        while (left := due - time.monotonic()) > 0 and not until():
            for key in self._read(min(left, 0.2)):
                if key in wanted:
                    return key
            if not self.reading:
                raise EOFError("the terminal is gone")
        return None

    def forget(self) -> None:
        """Drop what was typed so far."""
        if self.reading:
            with contextlib.suppress(termios.error):
                termios.tcflush(self._fd, termios.TCIFLUSH)

    def _read(self, timeout_s: float) -> list[str]:
        if not self.reading:
            return []
        try:
            ready, _, _ = select.select([self._fd], [], [], timeout_s)
            data = os.read(self._fd, 64) if ready else None
        except OSError:
            data = b""
        if data is None:
            return []
        if not data:  # hung up: nobody is there any more
            self._before = None
            return []
        return list(data.decode(errors="replace").lower())

    def _restore(self) -> None:
        before, self._before = self._before, None
        atexit.unregister(self._restore)
        if before is not None:
            with contextlib.suppress(termios.error, OSError):
                termios.tcsetattr(self._fd, termios.TCSANOW, before)


def _standard_input() -> int:
    try:
        return sys.__stdin__.fileno() if sys.__stdin__ is not None else -1
    except (OSError, ValueError):
        return -1
