"""`premotor plan` shows a plan and moves nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from robots import viewer
from tests.robots.conftest import Premotor


def test_a_plan_is_printed_and_written(call: Premotor, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("plan", "env=tabletop/reach", "out=p") == 0
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


def test_the_same_seed_gives_the_same_plan(call: Premotor, tmp_path: Path) -> None:
    digests = []
    for out, seed in (("a", 10_000), ("b", 10_000), ("c", 10_001)):
        assert call("plan", f"seed={seed}", f"out={out}") == 0
        digests.append(json.loads((tmp_path / out / "plan.json").read_text())["digest"])
    assert digests[0] == digests[1] != digests[2]
