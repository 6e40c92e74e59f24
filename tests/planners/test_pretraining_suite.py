"""`premotor bench suite=pretraining`: trains with and without an encoder from video, lets both act, goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from planners.benchmark.pretraining import verdict
from premotor import main as front_door

SIZES = [
    "architecture.features=24",
    "architecture.keypoints=8",
    "architecture.predictor_width=32",
    "architecture.head_width=32",
]
WORLD = ["task=push", "episodes=1", "seed=300", "workers=1", "threads=1", "budget.samples=8", "budget.iterations=1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A little play, and an encoder that watched it."""
    here = tmp_path_factory.mktemp("pretraining")
    played = ["collect", "episodes=12", "steps_per_episode=10", "episodes_per_scene=4", "seed=5", "workers=1"]
    assert front_door([*played, f"out={here / 'play'}"]) == 0
    watched = ["pretrain", f"data={here / 'play'}", "steps=3", "batch=8", "window_steps=3", "device=cpu", *SIZES]
    assert front_door([*watched, f"out={here / 'video'}"]) == 0
    return here


def words(folder: Path, **more: str) -> list[str]:
    of_suite = {
        "encoder": str(folder / "video"), "data": str(folder / "play"), "sizes": "[8,12]", "arms": "[frozen,scratch]",
        "minutes": "0.01", "refine_minutes": "0.01", "batch": "8", **more,
    }  # fmt: skip
    return ["suite=pretraining", *WORLD, *(f"pretraining.{name}={value}" for name, value in of_suite.items())]


def test_every_arm_learns_from_the_same_episodes_and_acts(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Thousands of pairs, drawn from a hundred steps of play, would each be looked at dozens of times.
    monkeypatch.setattr("worldmodel.beginnings.TRANSLATED", 128)
    out = folder / "out"
    assert front_door(["bench", *words(folder), f"out={out}"]) == 0
    points = json.loads((out / "pretraining.json").read_text())["points"]
    assert [(point["adapted_on"], point["arm"]) for point in points] == [
        (size, arm) for size in (8, 12) for arm in ("frozen", "scratch")
    ]
    assert all(point["episodes"] == 1 for point in points)
    assert len({point["weights"] for point in points}) == 4
    cards = {path.name: json.loads((path / "card.json").read_text()) for path in out.glob("*-*") if path.is_dir()}
    assert cards["frozen-8"]["training"]["settings"]["encoder"] == str(folder / "video")
    assert cards["scratch-8"]["training"]["settings"]["encoder"] is None
    assert cards["scratch-8"]["data"][0]["fingerprint"].endswith("-first8")
    assert cards["frozen-8"]["measured"]["step"] == 0
    page = (out / "pretraining.md").read_text()
    assert "| 12 |" in page
    assert "as good as from scratch with 12" in page
    assert (out / "pretraining.png").stat().st_size > 5000

    # In the same folder what was learned stays, and another arm is added.
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/model.safetensors")}
    assert len(before) == 4
    assert front_door(["bench", *words(folder, sizes="[8]", arms="[frozen,tuned]"), f"out={out}"]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}
    frozen, tuned = json.loads((out / "pretraining.json").read_text())["points"]
    assert frozen == points[0]
    assert tuned["arm"] == "tuned"
    assert tuned["weights"] not in {point["weights"] for point in points}
    capsys.readouterr()


def test_the_verdict_names_the_first_number_that_is_enough() -> None:
    def point(arm: str, size: int, successes: int) -> dict[str, object]:
        rate = successes / 10
        return {
            "arm": arm, "adapted_on": size, "successes": successes, "episodes": 10, "rate": rate, "low": rate, "high": rate,
        }  # fmt: skip

    scratch = [point("scratch", 50, 0), point("scratch", 1000, 6)]
    said = verdict([*scratch, point("frozen", 50, 2), point("frozen", 300, 7), point("frozen", 1000, 8)])
    assert "with 300 episodes (7 of 10, 70 % [70, 70]) as good as from scratch with 1000 (6 of 10" in said
    assert "never as good as from scratch with 1000" in verdict([*scratch, point("frozen", 1000, 5)])
    assert verdict(scratch) == "There is nothing to compare with."


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"encoder": "null"}, "suite=pretraining wants pretraining.encoder=DIR"),
        ({"arms": "[freezing]"}, "pretraining.arms has 'freezing'; known are frozen, tuned, scratch"),
        ({"sizes": "[1,2]"}, "give different numbers of episodes, each at least 2"),
        ({"sizes": "[400,401]"}, "episodes is 400; "),
    ],
)
def test_what_cannot_be_compared_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: dict[str, str], sentence: str
) -> None:
    assert front_door(["bench", *words(folder, **more), f"out={tmp_path / 'out'}"]) == 2
    assert sentence in capsys.readouterr().err
