"""`premotor run` at a terminal: a person approves, pauses, goes on, presses and stops, and the record says what they did."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from robots import viewer
from robots.exits import Exit
from tests.robots.conftest import Premotor
from tests.robots.terminal import Person, lines, seated, terminal

TRUSTING = "guard.uncertainty=1e9"
# A busy machine may keep the planner's process waiting; that is judged elsewhere.
REAL = ("robot.pace=real", "env=tabletop/reach", "guard.heartbeat_s=5", "guard.planner_deadline_s=5", TRUSTING)
QUESTION = r"approve this .*\? y yes, n no, q quit"


def fastest(ticks: list[dict[str, Any]], begin_s: float, end_s: float) -> float:
    """How fast any joint was sent between two moments on the arm's clock, rad/s."""
    at = np.concatenate([line["arm_s"] for line in ticks])
    sent = np.concatenate([line["sent"] for line in ticks])[:, :-1]
    now = (at >= begin_s) & (at <= end_s)
    assert now.sum() > 2
    return float(np.abs(np.diff(sent[now], axis=0) / np.diff(at[now])[:, None]).max())


def test_a_task_is_approved_once_paused_and_stopped(untrained: Path, tmp_path: Path) -> None:
    """In a process of its own: what is asked first is shown first, keys act at once, Ctrl-C parks."""
    with terminal(untrained, tmp_path, *REAL, "approve=task", "steps=100000") as run:
        run.until(r"ok  plan check +3 steps, \d+ ms; tool in workspace: .* cm left")
        run.until(r"ok  preview +r/preview.png")
        run.until(QUESTION)
        assert not lines(run.folder, "permit", "step")
        run.press("y")
        run.until(r"step   1 ")
        run.press("p")
        run.until(r"paused: paused by the operator; r goes on")
        time.sleep(0.6)
        run.press("r")
        run.until(r"going on\n")
        run.until(r"step ")
        run.press(" ")
        run.until(r"paused: ")
        time.sleep(0.6)
        run.press(" ")
        run.until(r"going on\n")
        run.until(r"step ")
        run.press("\x03\x03")
        assert run.rest() == Exit.STOPPED, run.said
        assert run.restored
        assert "stopped by the operator" in run.said.split("ending: ")[1]
        assert run.said.count("approve this task") == 1
    permits = lines(run.folder, "permit")
    assert len(permits) == 1
    assert permits[0]["permit"]["kind"] == "task"
    assert permits[0]["permit"]["by"].startswith("the operator said yes after")
    paused = [line for line in lines(run.folder, "pause", "resume") if line.get("reason") != "asking the operator"][1:]
    assert [line["kind"] for line in paused] == ["pause", "resume"] * 2
    ticks = lines(run.folder, "ticks")
    for pause, resume in zip(paused[::2], paused[1::2], strict=True):
        # Braking takes a tenth of a second at most with these limits; then it rests until it goes on.
        assert fastest(ticks, pause["arm_s"] + 0.25, resume["arm_s"]) == pytest.approx(0.0, abs=1e-9)
    assert [line["stage"] for line in lines(run.folder, "stop")][-3:] == ["held", "parked", "released"]
    assert viewer.verify(run.folder / "preview.rrd")[0]
    with Image.open(run.folder / "preview.png") as picture:
        assert picture.size == (1500, 950)


@pytest.mark.slow
def test_every_plan_is_approved_or_planned_anew(
    call: Premotor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def person(it: Person) -> None:
        for key in "nyyq":
            it.until(QUESTION)
            it.press(key)

    words = ("run", TRUSTING, "approve=plan", "preview=false", "steps=9", "out=r")
    code, said = seated(monkeypatch, lambda: call(*words), person)
    assert code == Exit.STOPPED, said
    assert "approve this plan: step of dx" in said
    assert "the operator said no after" in said
    assert "ending: the operator said quit after" in said
    permits, steps = lines(tmp_path / "r", "permit"), lines(tmp_path / "r", "step")
    assert [line["permit"]["kind"] for line in permits] == ["plan", "plan"]
    assert len({line["permit"]["bond"]["plan"] for line in permits}) == 2  # each bound to its own plan
    assert len(steps) == 2
    assert [line["kind"] for line in lines(tmp_path / "r", "permit", "step")] == ["permit", "step"] * 2
    assert not (tmp_path / "r" / "preview.png").exists()


@pytest.mark.parametrize(
    ("how", "said"),
    [("timeout", "nobody answered within 0.5 s"), ("ctrl-c", "it was stopped meanwhile")],
)
def test_no_yes_is_a_no_to_everything(
    call: Premotor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, said: str
) -> None:
    if how == "timeout":
        monkeypatch.setattr("robots.readying.ANSWER_S", 0.5)

    def person(it: Person) -> None:
        it.until(QUESTION)
        if how == "ctrl-c":
            os.kill(os.getpid(), signal.SIGINT)

    words = ("run", TRUSTING, "approve=task", "preview=false", "steps=2", "out=r")
    code, heard = seated(monkeypatch, lambda: call(*words), person)
    assert code == Exit.STOPPED, heard
    assert said in heard.split("ending: ")[1]
    assert not lines(tmp_path / "r", "permit", "step")
    assert [line["stage"] for line in lines(tmp_path / "r", "stop")][-3:] == ["held", "parked", "released"]


@pytest.mark.slow
def test_a_plan_the_guard_refuses_is_put_before_nobody(
    call: Premotor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("run", "guard.uncertainty=1e-9", "approve=task", "steps=2", "out=r")
    code, said = seated(monkeypatch, lambda: call(*words), lambda it: None)
    assert code == Exit.REFUSED
    assert "no  plan check     the plan is not put before anybody: step 0 vetoed: " in said
    assert "does not trust this plan" in said
    assert "approve this" not in said
    assert not (tmp_path / "r" / "blackbox.jsonl").exists()


def test_on_a_terminal_a_press_lets_the_arm_move_for_a_while(
    call: Premotor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def person(it: Person) -> None:
        it.until(r"paused: press SPACE to let the arm move for 3 s")
        it.press(" ")
        it.until(r"step   0 ")
        it.until(r"paused: press SPACE")
        time.sleep(0.6)
        it.press(" ")
        it.until(r"going on\n")
        it.until(r"step ")
        it.press("q")

    words = ("run", *REAL, "hold=terminal", "steps=100000", "out=r")
    code, said = seated(monkeypatch, lambda: call(*words), person)
    assert code == Exit.STOPPED, said
    assert "ending: stopped by the operator (key q)" in said
    turns = lines(tmp_path / "r", "pause", "resume")
    assert [line["kind"] for line in turns][:4] == ["pause", "resume", "pause", "resume"]
    moved = turns[2]["arm_s"] - turns[1]["arm_s"]
    assert 2.9 < moved < 3.5
    ticks = lines(tmp_path / "r", "ticks")
    assert fastest(ticks, turns[1]["arm_s"], turns[2]["arm_s"]) > 0.05
    assert fastest(ticks, turns[2]["arm_s"] + 0.25, turns[3]["arm_s"]) == pytest.approx(0.0, abs=1e-9)
