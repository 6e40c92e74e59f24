"""`premotor bench suite=speed`: times taken turn about, and plans that are the same at once and in turn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from planners.benchmark.speed import paired
from premotor import main as front_door

SMALL = [
    "bench", "suite=speed", "planners=[cem,hybrid,hold]", "speed.rounds=2", "speed.environments=2", "speed.samples=8",
    "speed.iterations=2", "speed.budgets=[[6,2]]", "task=reach", "seed=300", "threads=1",
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
