"""Whichever of the two processes is killed, stopped or told to end: the arm comes to rest, and the record says why."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from robots import blackbox
from robots.exits import Exit
from tests.robots.conftest import Premotor, start

TRUSTING = "guard.uncertainty=1e9"
# A machine that does other tests beside may keep a process that is well from its turn for the 0.1 s of the limits.
HEARTBEAT_S = 0.25


class Run:
    """`premotor run` in real time, in a process of its own, with the arm's in another."""

    def __init__(self, untrained: Path, folder: Path, *words: str) -> None:
        self.path = folder / "r" / "blackbox.jsonl"
        self.said: list[str] = []
        words = ("robot.pace=real", "env=tabletop/reach", TRUSTING, "steps=100000", "out=r", *words)
        words += (f"guard.heartbeat_s={HEARTBEAT_S}",)
        self.child: subprocess.Popen[str] = start("run", untrained, folder, *words)
        self.arm = 0

    def until(self, beginning: str) -> None:
        """Wait for a line."""
        assert self.child.stdout is not None
        for line in self.child.stdout:
            self.said.append(line)
            if found := re.search(r"in process (\d+)", line):
                self.arm = int(found[1])
            if line.startswith(beginning):
                return
        raise AssertionError("".join(self.said))

    def rest(self) -> tuple[int, str]:
        """Wait for the end: exit code, everything that was said. The arm's process holds the same pipe until it ends."""
        assert self.child.stdout is not None
        self.said += self.child.stdout.readlines()
        return self.child.wait(), "".join(self.said)

    @property
    def record(self) -> list[dict[str, Any]]:
        return blackbox.read(self.path)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in self.record if line["kind"] == kind]


def alive(process: int) -> bool:
    """Whether a process runs; one that ended and was not collected by its parent does not."""
    try:
        return "zombie" not in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def run(untrained: Path, tmp_path: Path) -> Iterator[Run]:
    made = Run(untrained, tmp_path)
    yield made
    for process in (made.child.pid, made.arm):
        if process:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
    made.child.wait()


def test_kill_minus_nine_of_the_planner_ends_in_a_hold_and_a_park(
    run: Run, call: Premotor, capsys: pytest.CaptureFixture[str]
) -> None:
    run.until("step   3")
    killed = time.time()
    os.kill(run.child.pid, signal.SIGKILL)
    _, said = run.rest()
    trip = run.of("trip")[0]
    # A killed process closes its end only after its memory is given back; its silence may be noticed before that.
    assert re.match("the planner's process is gone|no sign of life from the planner's process", trip["reason"])
    assert -0.01 < trip["wall_s"] - killed < HEARTBEAT_S + 0.05
    assert [line["stage"] for line in run.of("stop")] == ["held", "parked", "released"]
    assert blackbox.verify(run.path).complete
    assert f"arm: {trip['reason']}; braking, then hold, park, release" in said
    assert call("review", "run=r") == 0
    assert f"ended fault: {trip['reason']}" in capsys.readouterr().out


@pytest.mark.slow
def test_a_planner_that_gives_no_sign_of_life_ends_in_a_hold_and_a_park(run: Run) -> None:
    run.until("step   2")
    stopped = time.time()
    os.kill(run.child.pid, signal.SIGSTOP)
    while not run.of("end"):
        time.sleep(0.05)
        assert time.time() - stopped < 60
    trip = run.of("trip")[0]
    assert re.fullmatch(r"no sign of life from the planner's process for 0\.2\d\d s \(limit 0\.25 s\)", trip["reason"])
    assert trip["wall_s"] - stopped < HEARTBEAT_S + 0.05
    os.kill(run.child.pid, signal.SIGCONT)
    code, said = run.rest()
    assert code == Exit.FAULT
    assert "the arm's side ended the run: no sign of life" in said
    assert [line["stage"] for line in run.of("stop")] == ["held", "parked", "released"]


def test_kill_minus_nine_of_the_arms_side_is_said_with_what_the_hardware_does(run: Run) -> None:
    run.until("step   3")
    killed = time.time()
    os.kill(run.arm, signal.SIGKILL)
    code, said = run.rest()
    assert code == Exit.FAULT
    assert "the arm's process was ended by SIGKILL; of its hardware: the simulation ends with its process" in said
    found = blackbox.verify(run.path)
    assert not found.complete
    # Nothing is lost but the last tenth of a second (and the tick that was due).
    assert killed - run.record[-1]["wall_s"] < 0.15


@pytest.mark.slow
def test_the_arms_side_told_to_end_winds_down(run: Run) -> None:
    run.until("step   3")
    os.kill(run.arm, signal.SIGTERM)
    code, said = run.rest()
    assert code == Exit.FAULT
    assert "the arm's side ended the run: the arm's process was told to end (SIGTERM)" in said
    assert [line["stage"] for line in run.of("stop")] == ["held", "parked", "released"]
    assert run.of("end")[0]["outcome"] == "stopped"


@pytest.mark.slow
def test_a_planner_killed_before_anything_began_leaves_no_process_behind(run: Run) -> None:
    run.until("ok  arm")
    os.kill(run.child.pid, signal.SIGKILL)
    run.rest()
    due = time.monotonic() + 10.0
    while alive(run.arm):
        time.sleep(0.05)
        assert time.monotonic() < due
    assert not run.path.exists()
