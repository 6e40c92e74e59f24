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
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from robots import blackbox
from tests.robots.conftest import ROOT, planning

PATIENCE_S = 60.0


class Terminal:
    """A command on a terminal.

    Args:
        untrained: the model's folder.
        folder: where the command runs.
        words: of `premotor run`; the run's folder is `r`.
    """

    def __init__(self, untrained: Path, folder: Path, *words: str) -> None:
        self.folder = folder / "r"
        call = [sys.executable, str(ROOT / "premotor.py"), "run", *planning("run", untrained), "out=r", *words]
        self.said = ""
        self._seen = 0
        self.code: int | None = None
        self.process, self._end = pty.fork()
        if self.process == 0:
            os.chdir(folder)
            os.environ["COLUMNS"] = "400"
            os.execv(call[0], call)
        self.before = termios.tcgetattr(self._end)

    def until(self, pattern: str) -> re.Match[str]:
        """Wait until this is said, after whatever was waited for last."""
        due = time.monotonic() + PATIENCE_S
        while (found := re.compile(pattern).search(self.said, self._seen)) is None:
            if not self._read(0.2) and self.ended:
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

    def rest(self) -> int:
        """Wait for the end; the exit code."""
        due = time.monotonic() + PATIENCE_S
        while self.code is None:
            self._read(0.2)
            self._collect()
            assert time.monotonic() < due, self.said
        while self._read(0.0):
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

    @property
    def record(self) -> list[dict[str, Any]]:
        return blackbox.read(self.folder / "blackbox.jsonl")

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in self.record if line["kind"] == kind]

    def close(self) -> None:
        if self.code is None:
            os.kill(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)
        os.close(self._end)

    def _read(self, patience_s: float) -> bool:
        ready, _, _ = select.select([self._end], [], [], patience_s)
        data = b""
        if ready:
            with contextlib.suppress(OSError):  # the last one at the other end is gone
                data = os.read(self._end, 65536)
        self.said += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)

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
