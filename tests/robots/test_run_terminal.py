"""`premotor run` at a terminal: a person approves, pauses, goes on, holds and stops, and the record says what they did."""

from __future__ import annotations

from pathlib import Path

from robots.exits import Exit
from tests.robots.terminal import terminal

REAL = ("robot.pace=real", "env=tabletop/reach", "guard.uncertainty=1e9")


def test_a_task_is_shown_then_approved_then_done(untrained: Path, tmp_path: Path) -> None:
    with terminal(untrained, tmp_path, *REAL, "approve=task", "steps=3") as run:
        run.until(r"ok  plan check")
        run.until(r"approve this task\? y yes, n no, q quit \(120 s\)")
        run.press("y")
        code = run.rest()
    print(run.said)
    for line in run.record:
        if line["kind"] not in ("ticks", "header"):
            print({k: v for k, v in line.items() if k not in ("measured",)})
    assert code == Exit.DONE
