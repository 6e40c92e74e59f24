"""The scene probe at the command line: what it finds with the shipped brain, and what it does about it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from planners.probe import CALIBRATE, GO, NO_GO
from robots import probing
from robots.loop import Exit
from tests.robots.conftest import Premotor

MOVED = "env.variation.camera_azimuth_deg=[35,35]"
TRUSTING = "guard.uncertainty=1e9"
SHIPPED = ("model.name=tabletop", "env=tabletop/reach", TRUSTING)


def test_where_the_brain_is_at_home_it_may_go(
    call: Premotor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("plan", "--probe", *SHIPPED[:2], "out=p") == 0
    said = capsys.readouterr().out
    assert "scene probe" in said
    assert "verdict" in said
    found = json.loads((tmp_path / "p" / "probe.json").read_text())
    assert found["verdict"] == GO
    assert abs(found["angle_deg"]) < 12
    assert (tmp_path / "p" / "probe.png").stat().st_size > 0


def test_a_moved_camera_is_found_refused_and_corrected(
    call: Premotor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("plan", "probe=true", MOVED, *SHIPPED[:2], "out=p") == 0
    assert json.loads((tmp_path / "p" / "probe.json").read_text())["verdict"] == CALIBRATE
    assert "model.turn_deg=" in capsys.readouterr().out
    assert call("run", "probe=true", MOVED, *SHIPPED, "steps=2", "out=r") == Exit.REFUSED
    assert "say correct=true" in capsys.readouterr().out
    assert call("run", "probe=true", MOVED, *SHIPPED, "steps=2", "correct=true", "out=c") == Exit.DONE
    assert "corrected" in capsys.readouterr().out


def test_a_view_from_behind_is_no_go(call: Premotor, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dark = ("env.variation.light_strength=[0,0]", "env.variation.camera_elevation_deg=[40,40]")
    assert (
        call("plan", "probe=true", *SHIPPED[:2], *dark, "env.variation.camera_azimuth_deg=[110,110]", "out=p")
        == Exit.REFUSED
    )
    assert json.loads((tmp_path / "p" / "probe.json").read_text())["verdict"] == NO_GO
    assert not (tmp_path / "p" / "plan.json").exists()


def test_a_brain_that_knows_nothing_may_not_move_an_arm(
    call: Premotor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("run", "probe=true", TRUSTING, "out=r") == Exit.REFUSED
    assert "does not understand this view" in capsys.readouterr().out


def test_a_recorded_run_is_a_probe(call: Premotor, tmp_path: Path) -> None:
    assert call("run", TRUSTING, "env=tabletop/reach", "steps=12", "out=r") == Exit.DONE
    recorded = probing.recorded_transitions(tmp_path / "r", ("front",), _shipped())
    assert len(recorded) == 12
    np.testing.assert_allclose(recorded.before["observation.state"][1:], recorded.after["observation.state"][:-1])


def test_what_is_no_recording_is_refused(call: Premotor, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("plan", "probe=true", "probe_data=nowhere", "out=p") == 2
    assert "neither a rollout nor a LeRobotDataset" in capsys.readouterr().err


def _shipped():  # type: ignore[no-untyped-def]
    import worldmodel

    return worldmodel.load("tabletop", "cpu")


def test_a_dataset_is_a_probe(call: Premotor, tmp_path: Path) -> None:
    words = ("policy=reach", "episodes=4", "steps_per_episode=20", "episodes_per_scene=1", "workers=1", "out=d")
    assert call("collect", "env=tabletop/reach", *words) == 0
    assert call("plan", "--probe", *SHIPPED[:2], "probe_data=d", "out=p") == 0
    found = json.loads((tmp_path / "p" / "probe.json").read_text())
    assert found["verdict"] == GO
    assert found["transitions"] > 20
