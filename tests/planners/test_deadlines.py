"""Deadlines: work that would end too late is not begun, and `premotor bench suite=deadlines` says how late plans come."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from planners import CEM, CMAES, ICEM, MPPI, Budget, FeatureDistance, Gradient, Hybrid, Objective, RandomShooting
from planners.benchmark.deadlines import against_the_clock, figures
from planners.benchmark.searching import Problems
from planners.pace import Pace
from planners.planner import SamplingPlanner
from premotor import main as front_door

OBJECTIVE = Objective(go=FeatureDistance())
HERE, GOAL = torch.zeros(1, 3), torch.tensor([[0.6, -0.4, 0.2]])
KINDS: tuple[Callable[..., SamplingPlanner], ...] = (CEM, ICEM, MPPI, CMAES, RandomShooting, Gradient, Hybrid)


class Clock:
    """A clock that only work moves on: so much for every call of the brain, and for every future in it."""

    def __init__(self, a_call: float, a_future: float) -> None:
        self.now, self.a_call, self.a_future = 0.0, a_call, a_future

    def __call__(self) -> float:
        return self.now

    def spend(self, futures: int) -> None:
        self.now += self.a_call + futures * self.a_future


def timed(point: Any, clock: Clock, end_s: float, prior_s: float) -> Any:
    """A brain whose doubts and proposals take their time too."""

    def doubt(latents: torch.Tensor) -> torch.Tensor:
        clock.now += end_s
        return torch.zeros(latents.shape[:-1])

    def propose(latent: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        clock.now += prior_s
        return torch.zeros(len(latent), 3, 3)

    return point(on_predict=clock.spend, doubt=doubt, proposal=propose)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None)
@given(
    deadline_ms=st.sampled_from([50.0, 200.0]),
    samples=st.integers(20, 400),
    end_s=st.floats(0.0, 0.003),
    prior_s=st.floats(0.0, 0.003),
    a_call=st.floats(0.0, 0.001),
)
def test_whatever_takes_its_time_the_plan_comes_in_time(
    point: Any, kind: Any, deadline_ms: float, samples: int, end_s: float, prior_s: float, a_call: float
) -> None:
    clock = Clock(a_call, 5e-4)
    planner = kind(horizon=5, elites=6, objective=OBJECTIVE, clock=clock)
    plan = planner.plan(timed(point, clock, end_s, prior_s), HERE, GOAL, Budget(samples, 1000, deadline_ms))
    assert plan.out_of_time
    assert plan.plan_ms <= deadline_ms
    assert not plan.held.any()
    assert plan.futures >= 16


def test_the_time_is_used(point: Any) -> None:
    clock = Clock(0.0, 1e-4)
    plan = CEM(horizon=5, objective=OBJECTIVE, clock=clock).plan(
        point(on_predict=clock.spend), HERE, GOAL, Budget(1000, 100, 100.0)
    )
    # All but what is kept for the end, and less than a small chunk.
    assert 98.0 - 1.6 <= plan.plan_ms <= 100.0


def test_a_brain_that_was_held_up_once_is_trusted_again() -> None:
    now = 0.0
    pace = Pace(100.0, lambda: now, lambda: None)
    for seconds in (1.0, 60.0, *([1.0] * 8)):
        with pace.work("look"):
            now += seconds
    assert pace.took("look") == pytest.approx(1.0, abs=0.25)
    assert pace.allows("look")
    assert not pace.allows("look at more", guess=40.0)
    forever = Pace(float("inf"), lambda: now, lambda: None)
    with forever.work("look"):
        now += 60.0
    assert forever.took("look") is None
    assert forever.allows("look", guess=1e9)


def test_how_late_is_measured_from_outside_and_warming_up_does_not_count(point: Any) -> None:
    clock = Clock(0.0, 1e-4)
    planner = CEM(horizon=5, objective=OBJECTIVE)  # has no clock of its own to be fooled by: it imagines all
    model = point(on_predict=clock.spend)
    problems = Problems("point", model, model, HERE.repeat(3, 1), GOAL.repeat(3, 1), OBJECTIVE, {}, "")
    told: list[int] = []
    plans = against_the_clock(
        problems, planner, Budget(99, 1), warm_up=2, on_plan=lambda: told.append(1), wall=clock, processor=lambda: 0.0
    )
    assert len(plans) == len(told) == 3
    assert [plan["futures"] for plan in plans] == [100] * 3
    found = figures({"planner": "cem", "deadline_ms": 4.0, "plans": plans})
    assert found["late_ms_median"] == pytest.approx(6.0)
    assert found["late_ms_worst"] == pytest.approx(6.0)
    assert found["late_processor_ms_p99"] == pytest.approx(-4.0)
    assert (found["with_a_plan"], found["ended_by_deadline"]) == (1.0, 0.0)


SMALL = ["bench", "suite=deadlines", "task=reach", "seed=300", "threads=1", "episodes=2"]


def test_the_command_writes_what_it_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["planners=[cem,hybrid]", "deadlines.ms=[30]", "deadlines.warm_up=1", f"out={out}"]
    assert front_door([*SMALL, *words]) == 0
    assert "2 plans each; the bar is 5 ms" in capsys.readouterr().out
    kept = json.loads((out / "deadlines.json").read_text())
    assert [(one["planner"], one["deadline_ms"]) for one in kept["figures"]] == [("cem", 30.0), ("hybrid", 30.0)]
    assert all(one["with_a_plan"] == 1.0 and one["ended_by_deadline"] == 1.0 for one in kept["figures"])
    assert "after 1 that do not count" in (out / "deadlines.md").read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["deadlines.ms=[]"], "deadlines.ms is []; list at least one"),
        (["deadlines.ms=[0]"], "each above 0"),
        (["deadlines.warm_up=-1"], "deadlines.warm_up is -1"),
        (["episodes=0"], "episodes is 0; a figure needs at least 1 plan"),
        (["task=[push,reach]"], "suite=deadlines asks for one task"),
        (["planner=hold"], "planner hold does not search"),
        (["ahead=1"], "suite=deadlines has no arm that moves on meanwhile"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    assert front_door([*SMALL, *words, f"out={tmp_path / 'out'}"]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
