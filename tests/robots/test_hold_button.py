"""A held button is watched where the arm is: let go, it brakes at the next tick, whatever the planner's process does."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from robots.exits import Exit
from tests.robots.conftest import Premotor
from tests.robots.test_evdev import key
from tests.robots.test_processes import Run

TRUSTING = "guard.uncertainty=1e9"


class Pedal:
    """A FIFO in the place of a device, and the bytes the kernel would send."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "event0"
        os.mkfifo(self.path)
        self._wire = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)

    def press(self) -> None:
        os.write(self._wire, key("KEY_B", 1))

    def let_go(self) -> float:
        """When, in seconds since the epoch."""
        at = time.time()
        os.write(self._wire, key("KEY_B", 0))
        return at

    def pull_out(self) -> float:
        at = time.time()
        os.close(self._wire)
        return at


@pytest.fixture
def pedal(tmp_path: Path) -> Pedal:
    return Pedal(tmp_path)


@pytest.fixture
def run(untrained: Path, tmp_path: Path, pedal: Pedal) -> Iterator[Run]:
    """In real time; signs of life are not asked for, so that nothing but the button can stop the arm here."""
    made = Run(untrained, tmp_path, f"hold={pedal.path}", "button=KEY_B", "guard.heartbeat_s=60")
    yield made
    for process in (made.child.pid, made.arm):
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue
    made.child.wait()


def sent(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Moments (N - 1,) on the arm's clock, and how fast the fastest joint was sent there, rad/s."""
    ticks = run.of("ticks")
    at = np.concatenate([line["arm_s"] for line in ticks])
    joints = np.concatenate([line["sent"] for line in ticks])[:, :-1]
    return at[1:], np.abs(np.diff(joints, axis=0) / np.diff(at)[:, None]).max(axis=1)


def wait_for(run: Run, kind: str, count: int) -> None:
    due = time.monotonic() + 20.0
    while len(run.of(kind)) < count:
        time.sleep(0.02)
        assert time.monotonic() < due


@pytest.mark.slow
def test_letting_go_brakes_at_the_next_tick_even_while_the_planner_hangs(run: Run, pedal: Pedal) -> None:
    run.until("paused: hold KEY_B of")
    assert not run.of("step")
    pedal.press()
    run.until("going on")
    let_go, moving = [], 0
    for turn in range(3):
        wait_for(run, "step", len(run.of("step")) + 1)  # written as it begins
        if turn == 1:
            os.kill(run.child.pid, signal.SIGSTOP)
        let_go.append(pedal.let_go())
        wait_for(run, "pause", turn + 2)
        time.sleep(0.4)
        pedal.press()
        wait_for(run, "resume", turn + 2)
        if turn == 1:
            os.kill(run.child.pid, signal.SIGCONT)
    run.until("step ")
    lost = pedal.pull_out()
    code, said = run.rest()
    assert code == Exit.FAULT
    assert "nobody can hold the button any more" in said
    assert "is gone" in said
    assert said.count("paused: hold KEY_B") >= 3
    pauses, resumes = run.of("pause"), run.of("resume")
    at, speed = sent(run)
    took = []
    for let, pause, resume in zip(let_go, pauses[1:], resumes[1:], strict=True):
        assert pause["wall_s"] - let < 0.05  # a tick is 4 ms; the rest is a busy machine's
        before = speed[(at > pause["arm_s"] - 0.03) & (at < pause["arm_s"])]
        if before.size and before.max() > 0.05:
            moving += 1
            rest = at[(at > pause["arm_s"]) & (at < resume["arm_s"]) & (speed > 1e-4)]
            took.append(float(rest.max() - pause["arm_s"]) if rest.size else 0.0)
        still = (at > pause["arm_s"] + 0.25) & (at < resume["arm_s"])
        assert still.sum() > 10
        assert speed[still].max() < 1e-4
    assert moving  # else nothing was braked
    assert max(took) < 0.2
    print(
        f"noticed after {[round(1000 * (p['wall_s'] - g)) for g, p in zip(let_go, pauses[1:], strict=True)]} ms, "
        f"at rest after {[round(1000 * t) for t in took]} ms"
    )
    trip = run.of("trip")[0]
    assert trip["stage"] == "held"
    assert trip["wall_s"] - lost < 0.1
    assert [line["stage"] for line in run.of("stop")][-3:] == ["held", "parked", "released"]


def test_a_button_that_cannot_be_read_is_refused(call: Premotor, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", TRUSTING, "hold=/dev/input/event4711", "out=r") == Exit.REFUSED
    assert "no  arm            /dev/input/event4711 cannot be read" in capsys.readouterr().out
    assert call("run", TRUSTING, "hold=/dev/input/event4711", "button=FIRE", "out=s") == Exit.REFUSED
    assert "no button is called 'FIRE'" in capsys.readouterr().out
