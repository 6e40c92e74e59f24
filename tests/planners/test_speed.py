"""`premotor bench suite=speed`: times taken turn about, and plans that are the same at once and in turn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from planners.benchmark.speed import paired
from premotor import main as front_door

SMALL = [
    "bench", "suite=speed", "planners=[cem,hybrid,hold]", "speed.rounds=2", "speed.environments=2", "speed.samples=8",
    "speed.iterations=2", "speed.budgets=[[6,2]]", "speed.whole={samples:6,iterations:2,horizon:2}", "speed.batches=[1,3]",
    "task=reach", "seed=300", "threads=1",
]  # fmt: skip


def test_plans_are_timed_beside_what_they_imagine_and_in_batches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert front_door([*SMALL, f"out={tmp_path}"]) == 0
    said = json.loads((tmp_path / "speed.json").read_text())
    # What follows slopes, or does not search, has no bare predictions to be held against.
    assert [one["planner"] for one in said["overhead"]] == ["cem"]
    assert [one["planner"] for one in said["together"]] == ["cem", "hybrid", "hold"]
    assert all(one["apart"] == 0.0 for one in said["together"])
    assert all(one["judged_ratio"]["value"] > 0 for one in said["overhead"])
    assert all(one["first_ms"] > 0 and one["second_ms"] > 0 for one in said["overhead"] + said["together"])
    # Whole plans: for one environment and for three, and never faster than their arithmetic.
    wholes = [one for one in said["whole"] if one["planner"] == "cem"]
    assert [one["environments"] for one in wholes] == [1, 3]
    assert {one["planner"] for one in said["whole"]} == {"cem", "hybrid"}
    assert wholes[1]["floor_ms"] == pytest.approx(3 * wholes[0]["floor_ms"])
    assert all(0 < one["share"] < 1 for one in said["whole"])
    assert all(one["median_ms"] <= one["p99_ms"] for one in said["whole"])
    assert "2 environments at once" in capsys.readouterr().out
    assert "premotor" in (tmp_path / "speed.md").read_text()


def test_two_things_are_timed_turn_about() -> None:
    order: list[str] = []
    pair = paired(lambda: order.append("a"), lambda: order.append("b"), 3, lambda: None)
    assert order == ["b", "a"] * 2 + ["b", "a", "b"] * 3
    assert pair.ratio.low <= pair.ratio.value <= pair.ratio.high


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("speed.rounds=1", "speed.rounds is 1; it must be 2 or more"),
        ("speed.environments=1", "speed.environments is 1; it must be 2 or more"),
        ("speed.budgets=[96,3]", "give [samples,iterations] pairs"),
        ("speed.batches=[0]", "speed.batches is [0]; give numbers of environments"),
        ("speed.whole.horizon=0", "speed.whole.horizon is 0; it must be 1 or more"),
        ("speed.captures=[grahp]", "give some of [none,compile,graph,both]"),
        ("speed.captures=[none,graph]", "a CUDA graph, and the brain is on cpu; leave it out"),
        ("task=[reach,push]", "suite=speed asks for one task"),
        ("planners=[cem,hybird]", "did you mean hybrid?"),
    ],
)
def test_what_cannot_be_timed_is_refused(
    word: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert front_door([*SMALL, word, f"out={tmp_path / 'out'}"]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
