"""`premotor run`, the other ways to use it: shadowed, dry in real time, planned ahead, kept as a dataset, read afterwards."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import premotor
from robots.exits import Exit
from tests.robots.conftest import Premotor
from tests.robots.terminal import lines

TRUSTING = "guard.uncertainty=1e9"
REAL = ("robot.pace=real", "env=tabletop/reach", "guard.heartbeat_s=5", "guard.planner_deadline_s=5", TRUSTING)
Captured = pytest.CaptureFixture[str]


def result(tmp_path: Path, folder: str = "r") -> dict[str, object]:
    return json.loads((tmp_path / folder / "results.json").read_text())


def test_a_script_drives_in_the_planners_place_and_the_run_is_kept(
    call: Premotor, tmp_path: Path, capsys: Captured
) -> None:
    """The dataset has what was driven; results.json how far the planner agreed with it; review tells both."""
    from worldmodel.dataset_files import open_recording

    words = ("run", TRUSTING, "env=tabletop/reach", "shadow=script", "record=kept", "steps=3")
    assert call(*words, "out=r", "preview=true") == Exit.DONE
    said = capsys.readouterr().out
    assert "ok  dataset        kept, 0 episodes so far" in said
    assert "proposed " in said
    assert "shadow: agreed in " in said
    assert "recorded: episode 0 of kept" in said
    assert (tmp_path / "r" / "preview.png").is_file()  # asked for, though nobody was asked
    found = result(tmp_path)
    assert found["agreement"]["steps"] == 3  # type: ignore[index]
    assert (found["dataset"], found["episode"]) == ("kept", 0)
    assert found["dropped"] == {"lines": 0, "frames": 0}
    kept = open_recording(tmp_path / "kept")
    assert kept.lengths.tolist() == [4]  # three steps and what was seen last
    steps = lines(tmp_path / "r", "step")
    assert kept.vector("action.requested")[:3] == pytest.approx(
        np.array([line["requested"] for line in steps]), abs=1e-6
    )
    assert {line["plan"] for line in steps} == {"shadow"}
    assert call("review", "run=r") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "3 requests: " in told
    assert "permit 1 for the task: the program: nobody was to be asked" in told
    assert "ticks of" in told
    assert "furthest from where it was sent: panda_joint" in told
    assert call("run", TRUSTING, "record=r", "steps=1", "out=s") == Exit.REFUSED
    assert "no  dataset        r holds something that no arm recorded" in capsys.readouterr().out


def test_a_person_moves_the_arm_and_the_planner_only_proposes(call: Premotor, tmp_path: Path, capsys: Captured) -> None:
    """A limp SO-101, LeRobot's own driver: it stays limp, what the hand does is measured and compared."""
    from envs import so101
    from robots.emulated.so101 import EmulatedSO101

    # On a machine that does much else at once everything may be old.
    patient = [f"guard.{key}=10" for key in ("observation_age_s", "camera_age_s", "state_age_s", "planner_deadline_s")]
    bounds = [
        *patient,
        "guard.heartbeat_s=5",
        f"guard.action_high={[0.05] * 3 + [0.25] * 3 + [0.5]}",
        f"guard.action_low={[-0.05] * 3 + [-0.25] * 3 + [-0.5]}",
    ]
    with EmulatedSO101(joints=so101.HOME_JOINTS.tolist()) as arm:
        camera = ", ".join(f"{key}: {value}" for key, value in (arm.camera or {}).items())
        device = ("robot=lerobot", "guard=so101", f"robot.port={arm.port}", f"robot.id={arm.id}")
        words = (*device, f"robot.calibration_dir={arm.calibration_dir}", f"robot.cameras={{front: {{{camera}}}}}")
        Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "goal.png")
        over = threading.Event()

        def push() -> None:
            joints, left = so101.HOME_JOINTS.copy(), 1
            while not over.wait(0.1):
                joints[0] += 0.03 * left
                left = -left if abs(joints[0]) > 0.6 else left
                arm.place(joints.tolist(), holding=False)

        hand = threading.Thread(target=push)
        hand.start()
        try:
            goal = ("goal=goal.png", "probe=false", "shadow=hand", "rated_stop_confirmed=true", "steps=8", "out=r")
            code = call("run", *words, *bounds, TRUSTING, *goal)
        finally:
            over.set()
            hand.join()
        said, wrong = capsys.readouterr()
        assert code == Exit.DONE, said + wrong
        assert not any(arm.truth()["torque"].values())
    assert "dry run: nothing will be sent" in said
    assert "shadow: " in said
    found = result(tmp_path)
    assert found["agreement"]["moving_steps"] >= 1  # type: ignore[index]
    assert found["vetoed"] == 0, [line["reasons"] for line in lines(tmp_path / "r", "step")]
    assert not any(line["target"] for line in lines(tmp_path / "r", "step"))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("shadow=skript",), "shadow=skript is nobody; did you mean script?"),
        (("shadow=hand",), "nobody can take a simulated arm by the hand"),
        (("shadow=hand", "robot=so101_emulated", "guard=so101"), "nobody can take a simulated arm by the hand"),
        (("shadow=hand", "record=kept"), "of a hand nobody asked anything"),
        (("shadow=script", "robot=so101_lockstep", "guard=so101"), "a script drives simulated arms only"),
    ],
)
def test_a_shadow_that_cannot_be_is_refused(
    call: Premotor, capsys: Captured, words: tuple[str, ...], sentence: str
) -> None:
    assert call("run", *words, "out=r") != Exit.DONE
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_the_shipped_brain_brings_an_so101_to_where_a_picture_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without LeRobot's driver and its clock; how often it arrives with them stands in the results."""
    monkeypatch.chdir(tmp_path)
    words = ("robot=so101_lockstep", "guard=so101", "model=so101", "objective=pose", "goal=scene", "seed=500")
    assert premotor.main(["run", *words, "out=r"]) == Exit.DONE
    found = result(tmp_path)
    assert found["success"] is True
    assert found["final_distance_cm"] < 2.0 < 8.0 < found["start_distance_cm"]  # type: ignore[operator]


@pytest.mark.slow
def test_a_recording_has_what_was_sent_and_measured(call: Premotor, tmp_path: Path) -> None:
    import rerun as rr

    assert call("run", TRUSTING, "steps=2", "out=r") == Exit.DONE
    rows: dict[str, int] = {}
    timelines: set[str] = set()
    for chunk in rr.experimental.RrdReader(tmp_path / "r" / "rollout.rrd").store().stream():
        batch = chunk.to_record_batch()
        if str(chunk.entity_path).startswith("/ticks/") and "Scalars:scalars" in batch.schema.names:
            rows[str(chunk.entity_path)] = rows.get(str(chunk.entity_path), 0) + batch.num_rows
            timelines |= {"arm", "step"} & set(batch.schema.names)
    assert timelines == {"arm", "step"}
    ticks = sum(len(line["arm_s"]) for line in lines(tmp_path / "r", "ticks"))
    for entity in ("joints/panda_joint1/sent", "joints/panda_joint1/measured", "error/panda_joint7"):
        assert rows[f"/ticks/{entity}"] == ticks


def test_what_is_captured_is_captured_before_anything_moves(
    call: Premotor, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The traced operations without the compiler, which takes minutes.
    monkeypatch.setattr("planners.capture._compiled", lambda traced, flat: traced)
    assert call("run", TRUSTING, "planner.capture=compile", "budget.iterations=1", "steps=1", "out=r") == Exit.DONE
    said = " ".join(capsys.readouterr().out.split())
    assert re.search(r"a plan takes \d+ ms.* nothing was sent; captured in \d+ s", said)
    assert result(tmp_path)["steps"] == 1


@pytest.mark.slow
def test_planned_ahead_and_dry_in_real_time(call: Premotor, tmp_path: Path, capsys: Captured) -> None:
    assert call("run", *REAL, "ahead=2", "steps=6", "out=r") == Exit.DONE
    said = capsys.readouterr().out
    assert "before it is needed; nothing was sent" in said
    assert "stream: " in said
    found = result(tmp_path)
    assert found["steps"] == 6
    stream, loop = found["stream"], found["loop"]
    assert stream["ticks"] > 200  # type: ignore[index]
    assert stream["wanted_ms"] == pytest.approx(4.0)  # type: ignore[index]
    # A plan is ready when it is asked for: nobody waits for a search.
    assert loop["phases_ms"]["propose"]["median"] < 50  # type: ignore[index]
    assert call("run", *REAL, "dry_run=true", "steps=3", "out=s") == Exit.DONE
    ending = capsys.readouterr().out.split("dry run, nothing sent: ending")[1].split("\n\n")[0].splitlines()[1:]
    assert ending
    assert all(line.startswith("dry run, nothing sent") for line in ending)
    assert not [line for line in lines(tmp_path / "s", "step") if line["target"]]
    assert result(tmp_path, "s")["final_distance_cm"] == result(tmp_path, "s")["start_distance_cm"]
