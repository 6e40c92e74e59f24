"""Other people's planners: counted, clipped, paired with ours and resumed; they themselves only where they are installed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from planners import Budget, FeatureDistance, Objective
from planners.benchmark import search_report
from planners.benchmark.latent_world import LatentWorld
from planners.benchmark.peers import Asked, Peer, find
from planners.benchmark.peers.table import PEERS
from planners.benchmark.peers.tune import tuned
from planners.benchmark.searching import SearchSpace, make_problems, search_all_by_peer
from premotor import main as front_door

LATENT = SearchSpace(8, 0.8)
SMALL = [
    "suite=planners",
    "planners=[cem]",
    "search.iterations=3",
    "threads=1",
    "search.problems=[latent]",
    "episodes=3",
]


def tiny(asked: Asked, settings: Mapping[str, Any]) -> Tensor:
    """Somebody's random shooting from the global generator, out of bounds."""
    drawn = settings["spread"] * torch.randn(asked.budget, asked.horizon, asked.size) * asked.std
    return drawn[asked.cost(drawn).argmin()]


# torch is always installed: its version stands for that of the peer's library.
TINY = Peer("tiny", "torch", tiny, grid={"spread": (2.0, 1.0, 0.5)})


def asked(samples: int = 20, iterations: int = 2, std: Tensor | None = None) -> Asked:
    """A question of the latent world."""
    world = LatentWorld()
    start, goal = world.problems(1, seed=7)
    std = torch.full((7,), 0.8) if std is None else std
    return Asked(world, start, goal, Objective(go=FeatureDistance()), 8, samples, iterations, 3, std)


def test_every_future_is_counted_and_a_gradient_as_two_more() -> None:
    question = asked()
    actions = torch.zeros(5, 8, 7)
    question.cost(actions)
    assert question.futures == 5
    varied = actions.clone().requires_grad_()
    question.cost(varied).sum().backward()
    assert question.futures == 5 + 3 * 5
    assert varied.grad is not None
    assert question.rest_cost == question.rest_cost > 0
    assert question.futures == 21  # asked for twice, imagined once


def test_the_brain_is_asked_for_what_the_arm_can_do_unless_told_otherwise() -> None:
    question = asked()
    far, bounds = torch.full((1, 8, 7), 3.0), torch.ones(1, 8, 7)
    assert torch.equal(question.cost(far), question.cost(bounds))
    assert not torch.equal(question.cost(far, clip=False), question.cost(bounds))


def test_costs_do_not_depend_on_the_chunks() -> None:
    actions = torch.rand(9, 8, 7, generator=torch.Generator().manual_seed(0)) - 0.5
    small = replace(asked(), memory_mb=0.02)
    assert torch.allclose(small.cost(actions), asked().cost(actions), rtol=1e-5)


def test_a_peers_global_randomness_is_seeded_and_ours_left_alone() -> None:
    torch.manual_seed(5)
    before, numpys = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    plan = TINY.plan(asked(), {"spread": 1.0})
    assert torch.equal(plan, TINY.plan(asked(), {"spread": 1.0}))
    assert torch.equal(before, torch.random.get_rng_state())
    assert (numpys == np.random.get_state()[1]).all()  # noqa: NPY002


def test_plans_are_clipped_before_they_are_judged_and_unsound_ones_do_nothing() -> None:
    problems = make_problems("latent", {}, 3, 300)
    found = search_all_by_peer(problems, TINY, {"spread": 3.0}, LATENT, Budget(20, 2))
    assert found["largest_action"] > 1.0
    assert (found["imagined"], found["unsound"]) == (40, 0)

    wild = replace(TINY, plans=lambda asked, settings: torch.full((8, 7), 9.0))
    edge = replace(TINY, plans=lambda asked, settings: torch.ones(8, 7))
    costs = [search_all_by_peer(problems, peer, {}, LATENT, Budget(20, 2))["costs"] for peer in (wild, edge)]
    assert costs[0] == costs[1]

    lost = replace(TINY, plans=lambda asked, settings: torch.full((8, 7), torch.nan))
    found = search_all_by_peer(problems, lost, {}, LATENT, Budget(20, 2))
    assert found["unsound"] == 3
    assert found["costs"] == found["rest"]

    broken = replace(TINY, plans=lambda asked, settings: 1 / 0)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match=r"tiny of torch .* could not plan"):
        search_all_by_peer(problems, broken, {}, LATENT, Budget(20, 2))


def test_ours_are_paired_with_the_best_peer_of_each_budget() -> None:
    def row(planner: str, futures: int, costs: list[float], **more: Any) -> dict[str, Any]:
        return {
            "problems": "latent", "planner": planner, "futures": futures, "imagined": futures, "costs": costs,
            "rest": [1.0, 1.0], "ms": [1.0, 1.0], "unsound": 0, "largest_action": 1.5, **more,
        }  # fmt: skip

    theirs = {"peer": {"library": "torch", "version": "2", "settings": {}}}
    found = search_report.figures(
        [
            row("cem", 30, [0.1, 0.3]), row("cem", 90, [0.1, 0.1]),
            row("a", 30, [0.2, 0.2], **theirs), row("a", 90, [0.4, 0.4], **theirs),
            row("b", 30, [0.5, 0.5], **theirs), row("b", 90, [0.3, 0.1], **theirs),
        ]
    )  # fmt: skip
    assert [one["best_peer"] for one in found] == ["a", "b"] * 3
    assert found[0]["minus_best_peer"] == pytest.approx({"value": 0.0, "low": -0.1, "high": 0.1})
    assert found[1]["minus_best_peer"]["value"] == pytest.approx(-0.1)
    assert all("minus_best_peer" not in one for one in found[2:])
    assert found[3]["minus_cem"]["value"] == pytest.approx(0.3)


def test_a_peer_is_searched_once_for_every_version_and_setting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_times = []

    def noted(asked: Asked, settings: Mapping[str, Any]) -> Tensor:
        asked_times.append(asked.budget)
        return tiny(asked, settings)

    noted_peer = replace(TINY, plans=noted)
    monkeypatch.setitem(PEERS, "tiny", noted_peer)
    out = tmp_path / "out"
    command = ["bench", *SMALL, "search.futures=[60,90]", "search.peers=[tiny]", "seed=300", f"out={out}"]
    assert front_door(command) == 0
    assert "best peer" in capsys.readouterr().out
    assert sorted(asked_times) == [20, 20, 60, 60, 60, 90, 90, 90]  # a small one first, to import what it needs
    figures = json.loads((out / "planners.json").read_text())["figures"]
    assert [one["planner"] for one in figures] == ["cem", "cem", "tiny", "tiny"]
    assert figures[0]["best_peer"] == "tiny"
    assert figures[2]["peer"]["settings"] == {"spread": 2.0}
    page = (out / "planners.md").read_text()
    assert "minus best peer's" in page
    assert "At 90 futures, the lowest first:" in page

    assert front_door(command) == 0
    assert len(asked_times) == 8
    monkeypatch.setitem(PEERS, "tiny", replace(noted_peer, tuned={"latent": {"spread": 0.5}}))
    assert front_door(command) == 0
    assert len(asked_times) == 16


def test_tuning_finds_the_best_of_a_grid_and_is_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = Peer("p", "torch", tiny, grid={"x": (0, 1, 2, 3), "y": (0, 1, 2, 3)})
    tries: list[Mapping[str, Any]] = []

    def score(settings: Mapping[str, Any]) -> float:
        tries.append(settings)
        return (settings["x"] - 2) ** 2 + (settings["y"] - 3) ** 2 + 0.1 * settings["x"] * (3 - settings["y"])

    assert tuned(peer, "latent", score) == ({"x": 2, "y": 3}, 0)
    assert len({json.dumps(one) for one in tries}) == len(tries)
    assert peer.settings("latent") == {"x": 0, "y": 0}

    monkeypatch.setitem(PEERS, "tiny", TINY)
    out = tmp_path / "out"
    command = ["bench", *SMALL, "search.futures=[60]", "search.peers=[tiny]", "search.tune=true", f"out={out}"]
    assert front_door([*command, "seed=500"]) == 0
    said = capsys.readouterr().out
    assert "latent tiny:" in said
    page = (out / "peers.yaml").read_text()
    assert "Found on development problems" in page
    assert OmegaConf.create(page)["tiny"]["latent"]["spread"] in (2.0, 1.0, 0.5)
    kept = {path: path.read_bytes() for path in out.glob("searches/*.json")}
    assert kept
    assert front_door([*command, "seed=500"]) == 0
    assert kept == {path: path.read_bytes() for path in out.glob("searches/*.json")}
    assert front_door([*command, "seed=9999"]) == 2
    assert "peers are tuned on development problems" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["search.peers=[tinny]"], "search.peers has 'tinny'; did you mean tiny?"),
        (["search.peers=[absent]"], "no-such-library is not installed here; `make bench-peers`"),
        (
            ["search.peers=[tiny]", "planners=[hold]", "search.problems=[model]"],
            "add one to planners= that has both: cem",
        ),
        (["search.tune=true", "search.futures=[60]"], "say search.peers=[all]"),
        (["search.peers=[tiny]", "search.tune=true", "search.futures=[60,90]", "seed=500"], "one number of futures"),
    ],
)
def test_peers_that_cannot_be_asked_are_refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    sentence: str,
) -> None:
    monkeypatch.setitem(PEERS, "tiny", TINY)
    monkeypatch.setitem(PEERS, "absent", replace(TINY, name="absent", library="no-such-library"))
    assert front_door(["bench", *SMALL, *words, f"out={tmp_path / 'out'}"]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_all_are_those_that_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PEERS, "tiny", TINY)
    monkeypatch.setitem(PEERS, "absent", replace(TINY, name="absent", library="no-such-library"))
    names = [peer.name for peer in find("all")]
    assert "tiny" in names
    assert "absent" not in names


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_answers_within_its_budget(name: str) -> None:
    peer = PEERS[name]
    pytest.importorskip(peer.library.replace("-", "_"))
    std = torch.tensor([0.7, 0.7, 0.6, 0.15, 0.15, 0.25, 0.3])
    question = asked(samples=30, iterations=4, std=std)
    plan = peer.plan(question, peer.settings("model"))
    assert plan.shape == (8, 7)
    assert torch.isfinite(plan).all()
    assert 0.6 * 120 <= question.futures <= 120 + 1  # doing nothing is one more
    if "cannot be seeded" not in peer.note:
        assert torch.equal(plan, peer.plan(asked(samples=30, iterations=4, std=std), peer.settings("model")))
    # What it found is better than nothing.
    assert float(question.cost(plan[None])) < question.rest_cost
