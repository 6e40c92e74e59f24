"""Sub-goals from the command line: a list of pictures, ways through a recording, and sentences for what does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import premotor
from planners.benchmark import main as bench
from planners.subgoals import Subgoals, recorded
from robots import blackbox
from robots.loop import Exit
from tests.planners.test_benchmark import config
from tests.robots.conftest import Premotor
from tests.worldmodel.conftest import record
from worldmodel import load

TRUSTING = "guard.uncertainty=1e9"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("data") / "tiny", episodes=4, length=6)


def picture(path: Path, side: int = 64) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)).save(path)


def test_a_run_over_pictures_of_ones_own(call: Premotor, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    # Everything is near enough: every plan goes on to the next one.
    words = ("subgoals.pictures=[a.png,b.png]", "subgoals.arrived=1e9")
    assert call("run", TRUSTING, *words, "steps=3", "out=r") == Exit.DONE
    said = capsys.readouterr().out
    assert "ok  sub-goals      2 of your own: a.png, b.png" in said
    assert "sub-goal 1 of 2 is reached" in said
    assert "on to the goal" in said
    assert len(blackbox.read(tmp_path / "r" / "blackbox.jsonl")[0]["subgoal_hashes"]) == 2


def test_a_run_over_ways_through_a_recording(
    call: Premotor, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("run", TRUSTING, f"subgoals.data={data}", "subgoals.frames=12", "steps=2", "out=r") == Exit.DONE
    said = capsys.readouterr().out
    assert f"ok  sub-goals      12 frames of {data}" in said
    assert "heading straight for it" in said or "found a way" in said or "no sub-goals are needed" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["subgoals.pictures=[small.png]"], "32x32; the front camera gives 64x64"),
        (["subgoals.pictures=[nowhere.png]"], "no sub-goal picture at nowhere.png; subgoals.pictures=[A,B,...]"),
        (["subgoals.data=nowhere"], "nowhere is no finished LeRobotDataset"),
        (["subgoals.data=nowhere", "subgoals.pictures=[small.png]"], "give one"),
        (["subgoals.data=nowhere", "subgoals.frames=0"], "subgoals.frames is 0"),
        (["subgoals.data=nowhere", "subgoals.spacing=far"], "subgoals.spacing is far"),
        (["subgoals.data=[a,b]"], "give one folder"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_moves(
    call: Premotor, words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "small.png", 32)
    assert call("run", "steps=1", "out=r", *words) == Exit.REFUSED
    out = capsys.readouterr().out
    assert said in out
    assert "nothing moved" in out


def test_a_benchmark_over_ways_through_a_recording(
    untrained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = {"name": str(untrained), "device": "cpu"}
    planner = {"name": "cem", "horizon": 2, "elites": 2}
    words = {"model": model, "planner": planner, "episodes": 1}
    plain, subgoals = {"data": None, "frames": 2000}, {"data": str(data), "frames": 12}
    assert bench(config(tmp_path / "out", **words, subgoals=plain)) == 0
    assert bench(config(tmp_path / "out", **words, subgoals=subgoals)) == 0
    assert "sub-goals" in capsys.readouterr().out
    without, within = json.loads((tmp_path / "out/results.json").read_text())
    assert "subgoals" not in without
    assert within["subgoals"]["fingerprint"]
    assert without["key"] != within["key"]
    with pytest.raises(ValueError, match="suite=model has no way with sub-goals"):
        bench(config(tmp_path / "out", **words, subgoals=subgoals, suite="model"))
    assert premotor.main(["bench", "subgoals.pictures=[a.png]"]) == 2


def test_whole_episodes_are_taken_evenly(untrained: Path, data: Path) -> None:
    model = load(str(untrained), "cpu")
    latents, onward = recorded(model, data, 12, 64)
    assert latents.shape == (12, 32 + 7 + 1)
    assert onward.tolist() == [*[1.0] * 5, torch.inf] * 2
    everything, _ = recorded(model, data, 10_000, 64)
    assert len(everything) == 4 * 6
    torch.testing.assert_close(latents[:6], everything[:6])
    torch.testing.assert_close(latents[6:], everything[-6:])


def test_nothing_said_is_nothing() -> None:
    assert Subgoals.of(None) is None
    assert Subgoals.of({"data": None, "pictures": None, "frames": 3}) is None
    with pytest.raises(ValueError, match="no key 'frame'; did you mean frames"):
        Subgoals.of({"frame": 3})
