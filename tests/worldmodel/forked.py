"""Python processes that begin where the imports end: what several tests start need not load torch every time.

They are forks of one clean process (not of the test's, which has threads), and as apart from it as any other: killed,
asked to stop and waited for by their own number.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

# What training loads before its first step; the optimiser brings torch._dynamo.
LOADED = ["premotor", "torch._dynamo", "torch.distributed", "torch.nn.parallel", "worldmodel.adapt"]

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(LOADED)


class Forked:
    """`python SCRIPT WORDS`, begun.

    Args:
        script: a file.
        words: what is said to it.
        said: a folder of its own for what it prints.
        environment: variables besides those of the tests.
    """

    def __init__(self, script: Path, words: Sequence[str], said: Path, **environment: str) -> None:
        said.mkdir(parents=True)
        self._files = [said / "stdout", said / "stderr"]
        self._process = _CONTEXT.Process(target=_run, args=(script, list(words), self._files, environment))
        self._process.start()

    @property
    def code(self) -> int | None:
        """How it ended: as a shell has it, below 0 by a signal; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """As from a shell."""
        os.kill(self._process.pid or 0, number)

    def wait(self, timeout_s: float = 250.0) -> tuple[int, str, str]:
        """Its end: (code, stdout, stderr)."""
        self._process.join(timeout_s)
        if self.code is None:
            raise TimeoutError(f"it still runs after {timeout_s:g} s; it said: {self._files[1].read_text()[-2000:]}")
        out, errors = (path.read_text() for path in self._files)
        return self.code, out, errors

    def end(self) -> None:
        """Killed where it still runs."""
        with contextlib.suppress(ValueError):
            self._process.kill()
            self._process.join()


def _run(script: Path, words: list[str], files: list[Path], environment: dict[str, str]) -> None:
    for path, number in zip(files, (1, 2), strict=True):
        with path.open("wb") as file:
            os.dup2(file.fileno(), number)
    os.environ.update(environment)
    sys.argv = [str(script), *words]
    runpy.run_path(str(script), run_name="__main__")
