"""Fewer numbers to search: held and bent plans, what they may be made of, and that every planner has them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from planners import (
    CEM,
    CMAES,
    ICEM,
    MPPI,
    Budget,
    FeatureDistance,
    Gradient,
    Hybrid,
    Objective,
    RandomShooting,
    make_planner,
)
from planners.curves import make_curve
from tests.planners.conftest import PointMass

OBJECTIVE = Objective(go=FeatureDistance(final=1.0, summed=0.1))
KINDS = {
    kind.__name__: kind(objective=OBJECTIVE) for kind in (CEM, ICEM, MPPI, CMAES, RandomShooting, Gradient, Hybrid)
}
every_planner = pytest.mark.parametrize("planner", KINDS.values(), ids=KINDS)
HERE, GOAL = torch.zeros(1, 3), torch.tensor([[0.5, -0.4, 0.3]])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@st.composite
def curves(draw: Any) -> dict[str, Any]:
    horizon = draw(st.integers(2, 12))
    if draw(st.booleans()):
        return {"horizon": horizon, "repeat": draw(st.integers(1, horizon))}
    knots = draw(st.integers(2, horizon))
    return {"horizon": horizon, "knots": knots, "spline": draw(st.sampled_from(["linear", "cubic"]))}


@given(asked=curves(), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=60)
def test_points_survive_the_way_there_and_back(asked: dict[str, Any], seed: int) -> None:
    curve = make_curve(**asked)
    points = 0.6 * (2 * torch.rand(2, 3, curve.points, 4, generator=generator(seed)) - 1)
    actions = curve.expand(points)
    assert actions.shape == (2, 3, asked["horizon"], 4)
    if curve.points == asked["horizon"] or actions.abs().max() < 1.0:
        torch.testing.assert_close(curve.fit(actions), points, atol=2e-5, rtol=0)
    torch.testing.assert_close(curve.expand(torch.full_like(points, 0.5)), torch.full_like(actions, 0.5))
    torch.testing.assert_close(curve.expand(points[:1, :1]), actions[:1, :1], rtol=0, atol=0)


@given(asked=curves(), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=60)
def test_what_was_planned_first_is_still_first(asked: dict[str, Any], seed: int) -> None:
    curve = make_curve(**asked)
    before = 2 * torch.rand(1, asked["horizon"], 3, generator=generator(seed)) - 1
    torch.testing.assert_close(curve.expand(curve.fit(before))[:, 0], before[:, 0])


def test_a_held_action_is_held_and_the_last_one_shorter() -> None:
    held = make_curve(5, repeat=2).expand(torch.tensor([[1.0], [2.0], [3.0]]))
    assert held.flatten().tolist() == [1, 1, 2, 2, 3]


def test_a_cubic_is_smoother_than_a_line_and_passes_its_points() -> None:
    points = torch.tensor([[0.0], [0.8], [0.0]])
    line, cubic = (make_curve(9, knots=3, spline=kind).expand(points).flatten() for kind in ("linear", "cubic"))
    torch.testing.assert_close(line[[0, 4, 8]], cubic[[0, 4, 8]])
    assert cubic.diff(n=2).abs().max() < 0.5 * line.diff(n=2).abs().max()


@every_planner
@pytest.mark.parametrize("asked", [{"repeat": 3}, {"knots": 3}, {"knots": 4, "spline": "cubic"}])
def test_every_planner_searches_points(planner: Any, asked: dict[str, Any], point: Any) -> None:
    planner = replace(planner, horizon=8, **asked)
    curve = make_curve(8, **asked)
    warm = 0.3 * torch.ones(2, 4, 3)
    goals = torch.cat([GOAL, -GOAL])
    model = point(proposal=lambda latent, goal: ((goal - latent) / 0.75).clamp(-1, 1)[:, None].repeat(1, 3, 1))
    both = planner.plan(model, HERE, goals[:1], Budget(80, 4), generator=generator())
    assert both.actions.shape == (1, 8, 3)
    assert both.elites.shape[2:] == (8, 3)
    torch.testing.assert_close(curve.expand(curve.fit(both.elites)), both.elites, atol=0.05, rtol=0)
    torch.testing.assert_close(both.imagined, model.predict(HERE, both.actions[:, None])[:, 0])
    torch.testing.assert_close(both.actions, both.elites[:, 0])
    assert float(both.cost) < 0.35 * float(GOAL.square().mean() * 1.8)
    here = torch.zeros(2, 3)
    batch = planner.plan(model, here, goals, Budget(40, 2), warm_start=warm, generator=generator())
    for b in (0, 1):
        alone = planner.plan(model, here[[b]], goals[[b]], Budget(40, 2), warm_start=warm[[b]], generator=generator())
        torch.testing.assert_close(alone.elites[0], batch.elites[b], rtol=0, atol=0)
    assert batch.futures <= 81


@given(
    asked=curves(), name=st.sampled_from(sorted(KINDS)), std=st.floats(0, 5), within=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 99),
)  # fmt: skip
@settings(deadline=None, max_examples=25)
def test_bounds_hold_for_the_actions(asked: dict[str, Any], name: str, std: float, within: float, seed: int) -> None:
    middle = torch.linspace(-0.9, 0.9, 4)[None, :, None].repeat(1, 1, 3)
    brain = PointMass(proposal=lambda latent, goal: middle.expand(len(latent), -1, -1))
    planner = replace(KINDS[name], initial_std=std, within_prior=within, proposal_share=0.0, **asked)
    plan = planner.plan(brain, HERE, 9 * GOAL, Budget(12, 2), generator=generator(seed))
    for actions in (plan.actions[:, None], plan.elites[torch.isfinite(plan.elite_costs)][None]):
        assert actions.abs().max() <= 1.0
        if within:
            steps = min(4, asked["horizon"])
            assert (actions[:, :, :steps] - middle[:, None, :steps]).abs().max() <= 0.1 * (1.6 + 0.5)


def test_a_slope_in_points_is_the_slope_of_the_cost(point: Any) -> None:
    planner = Gradient(horizon=8, knots=3, steps="newton", objective=Objective(go=FeatureDistance()))
    plan = planner.plan(point(), HERE, GOAL, Budget(60, 3), generator=generator())
    assert float(plan.cost) < 1e-6


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"repeat": 0}, "repeat is 0; an action is held for 1 to 5 steps"),
        ({"repeat": 6}, "repeat is 6"),
        ({"knots": 1}, "knots is 1; a curve has 2 to 5 of them"),
        ({"knots": 6}, "knots is 6"),
        ({"knots": 3, "repeat": 2}, "one of the two"),
        ({"knots": 3, "spline": "bezier"}, "spline is 'bezier'; it is linear or cubic"),
    ],
)
def test_curves_that_cannot_be_are_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make_planner({"name": "cem", "horizon": 5, **wrong})
