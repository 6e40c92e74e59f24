"""`premotor run`, end to end: what it does, how it ends, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from planners import Rollout
from robots import blackbox
from robots.loop import Exit
from robots.recorder import executed
from tests.robots.conftest import Premotor, start

TRUSTING = "guard.uncertainty=1e9"


@pytest.mark.parametrize("robot", ["mujoco", "pybullet"])
def test_a_run_from_goal_picture_to_parked_arm(
    call: Premotor, robot: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("run", f"robot={robot}", TRUSTING, "steps=3", "out=r") == Exit.DONE
    said = capsys.readouterr().out
    for words in (
        "ok  limits",
        "ok  start pose",
        "ok  rehearsal",
        "step   2",
        "release: done",
        "Hz on the arm's clock",
    ):
        assert words in said
    result = json.loads((tmp_path / "r" / "results.json").read_text())
    assert result["steps"] == 3
    assert result["exit_code"] == 0
    assert result["final_distance_cm"] > 0
    record = blackbox.read(tmp_path / "r" / "blackbox.jsonl")
    assert record[0]["limits_hash"]
    assert record[0]["weights"]
    assert record[0]["goal_hash"]
    assert record[0]["config"]["robot"]["name"] == robot
    assert blackbox.verify(tmp_path / "r" / "blackbox.jsonl").complete
    rollout = Rollout.load(tmp_path / "r" / "rollout")
    assert len(rollout.steps) == 3
    step = rollout.steps[0]
    assert step.plan is not None
    assert [line["kind"] for line in record[:3]] == ["header", "permit", "step"]
    assert record[2]["requested"] == pytest.approx(step.action.tolist())
    np.testing.assert_allclose(
        step.executed,
        executed(step.observation["observation.state"], rollout.steps[1].observation["observation.state"]),
    )
    assert (tmp_path / "r" / "rollout.rrd").stat().st_size > 0


def test_a_dry_run_moves_nothing_and_says_so_on_every_line(
    call: Premotor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("run", TRUSTING, "steps=3", "dry_run=true", "out=r") == Exit.DONE
    said = capsys.readouterr().out
    live = said.split("ok  plan check")[1].splitlines()[2:]
    during = live[: live.index("")]
    assert during
    assert all(line.startswith("dry run, nothing sent") for line in during)
    rollout = Rollout.load(tmp_path / "r" / "rollout")
    states = [step.observation["observation.state"] for step in rollout.steps]
    np.testing.assert_array_equal(states[0], states[-1])


def test_a_model_that_does_not_trust_itself_holds_the_arm(call: Premotor, tmp_path: Path) -> None:
    assert call("run", "guard.uncertainty=1e-9", "out=r") == Exit.VETOED
    result = json.loads((tmp_path / "r" / "results.json").read_text())
    assert result["vetoed"] == 5
    assert "does not trust this plan" in result["reason"]
    record = blackbox.read(tmp_path / "r" / "blackbox.jsonl")
    assert not any(line["target"] for line in record if line["kind"] == "step")
    ended = [line["kind"] for line in record].index("ending")  # then it parks
    sent = np.concatenate([line["sent"] for line in record[:ended] if line["kind"] == "ticks"])
    assert len(sent) > 100  # the arm was kept where it was
    np.testing.assert_array_equal(sent, np.broadcast_to(sent[0], sent.shape))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["guard.workspace_low=[0.5,-0.26,0.3]"], "no  start pose"),
        (["guard.workspace_low=[0.7,-0.26,0.017]"], "are the two swapped"),
        (["guard.joint_names=[a,b,c,d,e,f,g]"], "the limits are for a, b"),
        (["guard.action_high=[0.01,0.05,0.05,0.25,0.25,0.25,0.5]"], "use a model trained for this action space"),
        (["model.name=nowhere"], "no model is called 'nowhere'"),
        (["goal=none.png"], "no goal picture at none.png"),
        (["env.cameras=[wrist]"], "the model needs observation.images.front"),
        (["env.image_size=96"], "96"),
        (["robot.pace=warp"], "known are lockstep, real"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_moves(
    call: Premotor, words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("run", "steps=1", "out=r", *words) == Exit.REFUSED
    out = capsys.readouterr().out
    assert said in out
    assert "nothing moved" in out
    assert not (tmp_path / "r" / "blackbox.jsonl").exists()


@pytest.mark.parametrize("steps", ["0", "-3", "2.5", "abc"])
def test_steps_is_a_number_of_steps(call: Premotor, steps: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", TRUSTING, f"steps={steps}", "out=r") == 2
    assert "whole number" in capsys.readouterr().err


def test_what_the_world_says_and_the_robot_says_agree(call: Premotor, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", TRUSTING, "env.simulator=pybullet", "out=r") == Exit.REFUSED
    assert "say robot=pybullet" in capsys.readouterr().out


def test_a_full_disk_afterwards_does_not_hide_how_the_run_ended(
    call: Premotor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("robots.report.write_rrd", full)
    assert call("run", TRUSTING, "steps=1", "out=r") == Exit.FAULT
    assert json.loads((tmp_path / "r/results.json").read_text())["ended"] == "done"
    assert "No space left" in capsys.readouterr().out


def test_a_goal_picture_from_a_file(call: Premotor, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "goal.png")
    assert call("run", TRUSTING, "steps=1", "goal=goal.png", "out=r") == Exit.DONE
    Image.fromarray(picture[:32]).save(tmp_path / "small.png")
    assert call("run", TRUSTING, "steps=1", "goal=small.png", "out=s") == Exit.REFUSED
    assert "64x32; the front camera gives 64x64" in capsys.readouterr().out
    (tmp_path / "torn.png").write_bytes((tmp_path / "goal.png").read_bytes()[:200])
    assert call("run", TRUSTING, "steps=1", "goal=torn.png", "out=t") == Exit.REFUSED
    assert "no picture that can be read" in capsys.readouterr().out


def test_a_record_is_never_written_over(call: Premotor, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", TRUSTING, "steps=1", "out=r") == Exit.DONE
    assert call("run", TRUSTING, "steps=1", "out=r") == 2
    assert "holds something already" in capsys.readouterr().err


def test_ctrl_c_stops_parks_and_releases(untrained: Path, tmp_path: Path) -> None:
    child = start("run", untrained, tmp_path, TRUSTING, "steps=100000", "out=r")
    assert child.stdout is not None
    said = []
    for line in child.stdout:
        said.append(line)
        if line.startswith("step   5"):
            os.kill(child.pid, signal.SIGINT)
            os.kill(child.pid, signal.SIGINT)
            break
    said += child.stdout.readlines()
    assert child.wait() == Exit.STOPPED, "".join(said)
    record = blackbox.read(tmp_path / "r" / "blackbox.jsonl")
    assert [line["stage"] for line in record if line["kind"] == "stop"] == ["held", "parked", "released"]
    assert json.loads((tmp_path / "r" / "results.json").read_text())["ended"] == "stopped"
