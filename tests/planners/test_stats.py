"""Intervals and ranks against known values and their own laws; the log of episodes and what is made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planners.benchmark.cells import Cell, summary
from planners.benchmark.report import read_results, write_results
from planners.benchmark.stats import Resampling, auroc, median, percentile_99, spearman, wilson
from planners.benchmark.suite import EpisodeLog


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_knows_the_published_values(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson(successes, trials) == pytest.approx((low, high), abs=6e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_rate_mirrors_and_narrows(case: tuple[int, int]) -> None:
    successes, trials = case
    low, high = wilson(successes, trials)
    assert 0.0 <= low <= successes / trials <= high <= 1.0
    assert low < high
    mirrored = wilson(trials - successes, trials)
    assert mirrored == pytest.approx((1 - high, 1 - low))
    more = wilson(4 * successes, 4 * trials)
    assert more[1] - more[0] < high - low


def test_of_nothing_nothing_is_known() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert median([]) == percentile_99([]) == 0.0
    with pytest.raises(ValueError, match="3 successes of 2 trials"):
        wilson(3, 2)


# Few different values, so that there are ties; weights that stand for repetition.
_weighted = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 3)), min_size=3, max_size=30)


def test_ranks_know_the_published_values() -> None:
    # The examples of SciPy's spearmanr and scikit-learn's roc_auc_score.
    assert spearman(np.arange(1.0, 6), np.array([5.0, 6, 7, 8, 7]))(np.ones(5)) == pytest.approx(0.8207826816681233)
    assert auroc(np.array([0.35, 0.8]), np.array([0.1, 0.4]))(np.ones(2), np.ones(2)) == 0.75
    assert spearman(np.zeros(4), np.arange(4.0))(np.ones(4)) == 0.0
    assert auroc(np.zeros(3), np.zeros(2))(np.ones(3), np.ones(2)) == 0.5
    with pytest.raises(ValueError, match="no rank"):
        spearman(np.array([1.0, np.nan]), np.zeros(2))


@given(_weighted)
def test_a_weight_is_a_repetition_and_only_order_counts(rows: list[tuple[int, int, int]]) -> None:
    x, y, weights = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    times = weights.astype(int)
    a, b = np.repeat(x, times), np.repeat(y, times)
    once = np.ones(len(a))
    if len(a):
        correlation = spearman(x, y)(weights)
        assert correlation == pytest.approx(spearman(a, b)(once), abs=1e-9)
        assert correlation == pytest.approx(spearman(np.exp(x), y**3)(weights), abs=1e-9)
        assert correlation == pytest.approx(-spearman(-x, y)(weights), abs=1e-9)
        area = auroc(x, y)(weights, weights)
        assert area == pytest.approx(auroc(a, b)(once, once))
        assert area == pytest.approx(1 - auroc(y, x)(weights, weights))
        assert area == pytest.approx(np.mean((a[:, None] > b) + 0.5 * (a[:, None] == b)))


def test_the_bootstrap_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(3.0, 2.0, size=(200, 30))
    resampling = Resampling(30, resamples=300)
    estimates = [resampling.estimate(lambda w, x=x: float(w @ x / w.sum())) for x in samples]
    covered = np.mean([one.low <= 3.0 <= one.high for one in estimates])
    assert 0.88 <= covered <= 0.99
    widths = np.mean([one.high - one.low for one in estimates])
    assert widths == pytest.approx(2 * 1.96 * 2.0 / np.sqrt(30), rel=0.1)
    with pytest.raises(ValueError, match="at least 2"):
        Resampling(1)


def cell(**words: Any) -> Cell:
    settings: dict[str, Any] = {
        "suite": "tabletop", "task": "reach", "simulator": "mujoco", "world": {"cameras": ["front"]},
        "model": {"name": "simulator", "device": "cpu"}, "planner": {"name": "cem"}, "objective": {"learned": {}},
        "budget": {"samples": 8, "iterations": 2},
    }  # fmt: skip
    return Cell(**{**settings, **words})


def row(seed: int, success: bool = True, **words: Any) -> dict[str, Any]:
    return {
        "key": cell().key, "seed": seed, "solved_at_start": False, "success": success, "start_distance_cm": 10.0 + seed,
        "final_distance_cm": 1.0 + seed, "steps": 15, "act_ms": [10.0, 20.0 + seed], "futures_per_plan": 17.0,
        "discarded": 0, "holds": 0, "seconds": 1.0, **words,
    }  # fmt: skip


def test_a_cell_is_known_by_all_that_decides_an_episode() -> None:
    assert cell().key == cell(model={"name": "simulator", "device": "cuda"}).key
    others = [
        cell(budget={"samples": 9, "iterations": 2}),
        cell(planner={"name": "mppi"}),
        cell(weights="abc"),
        cell(task="push"),
        cell(world={"cameras": ["front", "wrist"]}),
        cell(model={"name": "tabletop", "device": "cpu"}),
    ]
    assert len({cell().key, *(other.key for other in others)}) == 7


def test_a_summary_counts_only_starts_that_needed_something() -> None:
    rows = [row(0), row(1, success=False), row(2, solved_at_start=True, success=False, act_ms=[])]
    result = summary(cell(), rows, 0, {"command": "premotor bench"})
    assert (result["episodes"], result["successes"], result["rate"], result["solved_at_start"]) == (2, 1, 0.5, 1)
    assert (result["low"], result["high"]) == wilson(1, 2)
    assert result["final_distance_cm_median"] == 1.5
    assert result["start_distance_cm_median"] == 10.5
    assert result["plan_ms_median"] == 15.0
    assert result["budget_steps"] == 15
    assert result["command"] == "premotor bench"


def test_the_log_keeps_what_it_was_given(tmp_path: Path) -> None:
    log = EpisodeLog(tmp_path / "new" / "episodes.jsonl")
    log.append(row(3))
    log.append(row(4))
    again = EpisodeLog(log.path)
    assert sorted(again.of(cell())) == [3, 4]
    assert again.of(cell(task="push")) == {}


@given(cut=st.integers(1, 60))
def test_a_torn_last_line_costs_one_episode(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    log = EpisodeLog(tmp_path_factory.mktemp("log") / "episodes.jsonl")
    for seed in range(3):
        log.append(row(seed))
    content = log.path.read_bytes()
    log.path.write_bytes(content[:-cut])
    resumed = EpisodeLog(log.path)
    assert sorted(resumed.of(cell())) == [0, 1]
    resumed.append(row(2))
    assert sorted(EpisodeLog(log.path).of(cell())) == [0, 1, 2]


def test_a_foreign_log_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "episodes.jsonl"
    path.write_text(json.dumps(row(0)) + "\nnot an episode\n")
    with pytest.raises(ValueError, match="line 2 is no episode"):
        EpisodeLog(path)
    assert "not an episode" in path.read_text()


def test_results_are_read_back_and_damaged_ones_refused(tmp_path: Path) -> None:
    assert read_results(tmp_path) == []
    result = summary(cell(), [row(0)], 0, {})
    write_results(tmp_path, [result])
    assert read_results(tmp_path) == [json.loads(json.dumps(result))]
    (tmp_path / "results.json").write_text('[{"key": "a"')
    with pytest.raises(ValueError, match=r"results.json cannot be read"):
        read_results(tmp_path)
