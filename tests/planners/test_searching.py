"""`premotor bench suite=planners`: searches compared on the same problems, resumed where they stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from planners import CEM, Budget, FeatureDistance, Hybrid, Objective
from planners.benchmark.latent_world import LatentWorld
from premotor import main as front_door

SMALL = [
    "suite=planners",
    "planners=[cem,hybrid]",
    "search.futures=[60]",
    "search.iterations=3",
    "seed=300",
    "threads=1",
]


def test_searches_are_compared_problem_by_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["bench", *SMALL, "search.problems=[latent,model]", "task=push", "episodes=3", f"out={out}"]
    assert front_door(command) == 0
    said = capsys.readouterr().out
    assert "3 problems of kind latent" in said
    assert "3 problems of kind model" in said
    figures = json.loads((out / "planners.json").read_text())["figures"]
    assert [(one["problems"], one["planner"]) for one in figures] == [
        ("latent", "cem"), ("latent", "hybrid"), ("model", "cem"), ("model", "hybrid"),
    ]  # fmt: skip
    assert all(one["imagined"] <= 61 for one in figures)
    assert figures[1]["minus_cem"]["value"] == pytest.approx(
        figures[1]["cost_over_rest"]["value"] - figures[0]["cost_over_rest"]["value"]
    )
    assert "minus_cem" not in figures[0]
    assert {"planners-latent.png", "planners-model.png", "planners.md"} <= {path.name for path in out.iterdir()}

    # Again, with one planner more: what was searched is not searched again.
    kept = {path: json.loads(path.read_text()) for path in out.glob("searches/*.json")}
    assert front_door([word.replace("[cem,hybrid]", "[cem,hybrid,mppi]") for word in command]) == 0
    for path, before in kept.items():
        after = json.loads(path.read_text())
        assert before.items() <= after.items()
        assert len(after) == len(before) + 1

    # Another task's problems are others, in the same folder too.
    of_push = figures[2]["cost"]
    assert front_door([word.replace("task=push", "task=reach") for word in command]) == 0
    assert json.loads((out / "planners.json").read_text())["figures"][2]["cost"] != of_push


def test_the_true_simulator_is_searched_by_those_who_only_sample(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["search.problems=[simulator]", "search.futures=[24]", "task=reach", "episodes=2", f"out={tmp_path}"]
    assert front_door(["bench", *SMALL, *words]) == 0
    assert "simulator: without hybrid, who follow slopes; it has none." in capsys.readouterr().out
    (figures,) = json.loads((tmp_path / "planners.json").read_text())["figures"]
    assert figures["planner"] == "cem"
    assert figures["cost_over_rest"]["high"] < 0.9  # nearer by the ruler than doing nothing


def test_where_nobody_can_search_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["planners=[hybrid]", "search.problems=[simulator]", "task=reach", "episodes=2", f"out={tmp_path / 'out'}"]
    assert front_door(["bench", *SMALL, *words]) == 2
    assert "simulator problems have no slopes to follow; add one that samples" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_latent_world_has_goals_that_can_be_reached() -> None:
    world = LatentWorld()
    starts, goals = world.problems(6, seed=11_000)
    again, _ = world.problems(6, seed=11_000)
    assert torch.equal(starts, again)
    settings = {"horizon": 8, "objective": Objective(go=FeatureDistance()), "initial_std": 0.8, "min_std": 0.02}
    rest = world.feature_distance(world.predict(starts, torch.zeros(6, 1, 8, 7))[:, 0, -1], goals)
    shares = {}
    for planner in (CEM(**settings), Hybrid(**settings, elites=6)):
        cost = planner.plan(world, starts, goals, Budget(60, 10), generator=torch.Generator().manual_seed(0)).cost
        shares[type(planner)] = float((cost / rest).mean())
    assert shares[Hybrid] < 0.02
    assert shares[Hybrid] < 0.1 * shares[CEM]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["search.problems=[latnt]"], "search.problems has 'latnt'; did you mean latent?"),
        (["search.futures=[2]"], "every iteration imagines at least one future"),
        (["search.futures=[]"], "must each name at least one"),
        (["episodes=1"], "episodes is 1; intervals over problems need at least 2"),
        (["task=[push,reach]"], "suite=planners asks for one task"),
        (["planners=[cemm]"], "planner has no choice 'cemm'; did you mean cem?"),
    ],
)
def test_searches_that_cannot_be_compared_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    assert front_door(["bench", *SMALL, *words, f"out={tmp_path / 'out'}"]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
