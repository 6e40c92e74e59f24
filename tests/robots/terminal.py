"""A person at a terminal: `premotor run` on a pseudo-terminal of its own, as a controlling one, and keys are pressed."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from robots import blackbox
from tests.robots.conftest import ROOT, planning

# Generous: a machine that does much else at once starts a process slowly.
PATIENCE_S = 240.0


class Person:
    """Who sits at the other end of a terminal: reads what is said, presses keys."""

    def __init__(self, end: int) -> None:
        self.said, self._seen, self._end = "", 0, end

    def until(self, pattern: str) -> re.Match[str]:
        """Wait until this is said, after whatever was waited for last."""
        due = time.monotonic() + PATIENCE_S
        while (found := re.compile(pattern).search(self.said, self._seen)) is None:
            if not self.read(0.2) and self.ended:
                raise AssertionError(f"it ended without {pattern!r}:\n{self.said}")
            if time.monotonic() > due:
                raise AssertionError(f"{pattern!r} was not said in {PATIENCE_S:g} s:\n{self.said}")
        self._seen = found.end()
        return found

    def press(self, keys: str) -> float:
        """Press keys; when, in seconds since the epoch."""
        at = time.time()
        os.write(self._end, keys.encode())
        return at

    @property
    def ended(self) -> bool:
        """Whether nothing more will be said."""
        return False

    def read(self, patience_s: float) -> bool:
        """Whether anything was said."""
        ready, _, _ = select.select([self._end], [], [], patience_s)
        data = b""
        if ready:
            with contextlib.suppress(OSError):  # the last one at the other end is gone
                data = os.read(self._end, 65536)
        self.said += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)


class Terminal(Person):
    """A command in a process of its own on a terminal of its own, its controlling one.

    Args:
        untrained: the model's folder.
        folder: where the command runs.
        words: of `premotor run`; the run's folder is `r`.
    """

    def __init__(self, untrained: Path, folder: Path, *words: str) -> None:
        self.folder = folder / "r"
        call = [sys.executable, str(ROOT / "premotor.py"), "run", *planning("run", untrained), "out=r", *words]
        self.code: int | None = None
        self.process, end = pty.fork()
        if self.process == 0:
            os.chdir(folder)
            os.execv(call[0], call)
        super().__init__(end)
        self.before = termios.tcgetattr(end)

    def rest(self) -> int:
        """Wait for the end; the exit code."""
        due = time.monotonic() + PATIENCE_S
        while self.code is None:
            self.read(0.2)
            self._collect()
            assert time.monotonic() < due, self.said
        while self.read(0.0):
            pass
        return self.code

    @property
    def ended(self) -> bool:
        self._collect()
        return self.code is not None

    @property
    def restored(self) -> bool:
        """Whether the terminal is as it was."""
        return termios.tcgetattr(self._end) == self.before

    def close(self) -> None:
        if self.code is None:
            os.kill(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)
        os.close(self._end)

    def _collect(self) -> None:
        if self.code is None:
            ended, status = os.waitpid(self.process, os.WNOHANG)
            if ended:
                self.code = os.waitstatus_to_exitcode(status)


@contextlib.contextmanager
def terminal(untrained: Path, folder: Path, *words: str) -> Iterator[Terminal]:
    """`with terminal(...) as run:`; nothing of it outlives the block but the arm's own winding down."""
    run = Terminal(untrained, folder, *words)
    try:
        yield run
    finally:
        run.close()


def seated(monkeypatch: pytest.MonkeyPatch, run: Callable[[], int], act: Callable[[Person], None]) -> tuple[int, str]:
    """A command in this process with a terminal for its keys and words, and a person who acts at the other end.

    Returns the exit code and what was said; the terminal is as it was before.
    """
    ours, theirs = pty.openpty()
    monkeypatch.setattr("robots.keys._standard_input", lambda: theirs)
    before = termios.tcgetattr(theirs)
    person, over, wrong = Person(ours), threading.Event(), []

    def live() -> None:
        try:
            act(person)
        except BaseException as error:
            wrong.append(error)
            os.kill(os.getpid(), signal.SIGINT)
        while person.read(0.1) or not over.is_set():
            pass

    thread = threading.Thread(target=live)
    thread.start()
    try:
        with os.fdopen(os.dup(theirs), "w", buffering=1) as screen, contextlib.redirect_stdout(screen):
            code = run()
        assert termios.tcgetattr(theirs) == before
    finally:
        over.set()
        thread.join()
        os.close(ours)
        os.close(theirs)
    if wrong:
        raise wrong[0]
    return code, person.said


def lines(folder: Path, *kinds: str) -> list[dict[str, Any]]:
    """The lines of a run's black box, of these kinds."""
    return [line for line in blackbox.read(folder / "blackbox.jsonl") if not kinds or line["kind"] in kinds]
