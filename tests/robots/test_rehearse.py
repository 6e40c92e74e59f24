"""`premotor plan` shows a plan and moves nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rerun as rr
from PIL import Image
from safetensors.numpy import load_file

from robots import viewer
from tests.robots.conftest import Premotor


def test_a_plan_is_printed_and_written(call: Premotor, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("plan", "env=tabletop/reach", "landscape.grid=3", "out=p") == 0
    said = capsys.readouterr().out
    plan = json.loads((tmp_path / "p" / "plan.json").read_text())
    assert plan["digest"] in said
    assert "The tool is to go" in said
    arrays = load_file(tmp_path / "p" / "plan.safetensors")
    np.testing.assert_allclose(arrays["actions"], plan["actions"])
    assert arrays["frames"].shape == (3, 64, 64, 3)
    assert viewer.verify(tmp_path / "p" / "rollout.rrd")[0]
    with Image.open(tmp_path / "p" / "plan.png") as picture:
        assert picture.width > 800
    # The energy landscape: told, drawn, kept, and on a tab of its own.
    assert "The landscape around the first action (204 futures" in said
    assert "The plan hangs most on" in said
    assert arrays["landscape.values"].shape == (21, 3, 3)
    assert arrays["landscape.axes"].shape == (7, 3)
    assert plan["landscape"]["lowest_cost"] <= plan["cost"] + 1e-4
    assert set(plan["landscape"]["rise_by_a_tenth"]) == set(plan["action_names"])
    with Image.open(tmp_path / "p" / "landscape.png") as picture:
        assert picture.width > 800
    chunks = rr.experimental.RrdReader(str(tmp_path / "p" / "rollout.rrd")).store().stream()
    assert "/search/landscape" in {str(chunk.entity_path) for chunk in chunks}


def test_the_gripper_s_schedule_is_said(call: Premotor, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["planner.schedules={dimension:dgripper,starts:[0.0]}", "budget.samples=24", "landscape=null", "out=p"]
    assert call("plan", "env=tabletop/lift", *words) == 0
    plan = json.loads((tmp_path / "p" / "plan.json").read_text())
    assert plan["branch"] in ("keep", "close now", "open now")
    assert f"Of the gripper's schedules the best: {plan['branch']}." in " ".join(capsys.readouterr().out.split())
    gripper = np.array(plan["actions"])[:, 6]
    assert np.allclose(gripper, {"keep": 0.0, "close now": 0.5, "open now": -0.5}[plan["branch"]])


def test_the_same_seed_gives_the_same_plan(call: Premotor, tmp_path: Path) -> None:
    digests = []
    for out, seed in (("a", 10_000), ("b", 10_000), ("c", 10_001)):
        assert call("plan", f"seed={seed}", "landscape=null", f"out={out}") == 0
        assert not (tmp_path / out / "landscape.png").exists()
        digests.append(json.loads((tmp_path / out / "plan.json").read_text())["digest"])
    assert digests[0] == digests[1] != digests[2]


def test_the_landscape_around_the_true_dynamics(call: Premotor, tmp_path: Path) -> None:
    """A brain without gradients, a prior or pictures; its present is a simulator's state, which nobody but it reads."""
    assert (
        call("plan", "model=simulator", "model.name=simulator", "landscape.grid=2", "planner.horizon=1", "out=s") == 0
    )
    arrays = load_file(tmp_path / "s" / "plan.safetensors")
    assert np.isfinite(arrays["landscape.values"]).all()
    plan = json.loads((tmp_path / "s" / "plan.json").read_text())
    # The landscape asks the same brain the same question as the search did.
    assert plan["landscape"]["cost"] == pytest.approx(plan["cost"], rel=1e-5)


def test_a_view_that_shows_nothing_is_refused_before_anything_is_written(
    call: Premotor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("plan", "landscape.grid=1", "out=p") == 2
    assert "grid is 1" in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


def test_where_the_plan_is_to_hold_there_is_no_landscape(call: Premotor, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("plan", "planner.trusted=1e-9", "out=p") == 1
    said = capsys.readouterr().err
    assert "there is no plan, and so no energy landscape" in said
