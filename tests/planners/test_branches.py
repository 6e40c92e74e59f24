"""A gripper's schedules: each a branch of its own, never averaged, within the budget, the same alone and in a batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
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
    PlanRecord,
    RandomShooting,
    Rollout,
    Schedules,
    StepRecord,
    make_planner,
)
from planners.belief import Belief
from planners.curves import make_curve
from tests.planners.conftest import PointMass

OBJECTIVE = Objective(go=FeatureDistance(final=1.0, summed=0.1))
KINDS = {
    kind.__name__: kind(horizon=5, objective=OBJECTIVE, schedules=Schedules())
    for kind in (CEM, ICEM, MPPI, CMAES, RandomShooting, Gradient, Hybrid)
}
every_planner = pytest.mark.parametrize("planner", KINDS.values(), ids=KINDS)
HERE = torch.zeros(1, 3)
# The gripper's number is the third: it must go up, down, nowhere, up for three steps of five.
GOALS = torch.tensor([[0.5, -0.4, 1.25], [0.5, -0.4, -1.25], [0.5, -0.4, 0.0], [0.2, 0.1, 0.75]])
NOTHING: Any = None
WORDS = ("close now", "open now", "keep", "close from step 2")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def aim(latent: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    return ((goal - latent) / 0.75).clamp(-1, 1)[:, None].repeat(1, 3, 1)


@every_planner
def test_the_right_branch_wins_for_each_environment(planner: Any, point: Any) -> None:
    ends = replace(planner, objective=Objective(go=FeatureDistance()))
    plan = ends.plan(point(proposal=aim), torch.zeros(4, 3), GOALS, Budget(96, 4), generator=generator())
    assert plan.branch == WORDS
    assert plan.actions[..., 2].tolist() == [[1.0] * 5, [-1.0] * 5, [0.0] * 5, [0, 0, 1, 1, 1]]
    # Every elite keeps a schedule: the mean of two is none.
    assert set(plan.elites[torch.isfinite(plan.elite_costs)][..., 2].flatten().tolist()) <= {-1.0, 0.0, 1.0}
    assert plan.futures == 96 * 4 + 1
    torch.testing.assert_close(plan.cost, plan.elite_costs[:, 0])


@every_planner
@settings(max_examples=5, deadline=None)
@given(order=st.permutations(range(4)), seed=st.integers(0, 1000), warm=st.booleans())
def test_a_plan_does_not_depend_on_the_batch(planner: Any, order: list[int], seed: int, warm: bool) -> None:
    model, budget = PointMass(proposal=aim), Budget(40, 3)
    goals, here = torch.randn(2, 4, 3, generator=generator(seed))
    before = torch.rand(4, 4, 3, generator=generator(seed)) if warm else None

    def plan(rows: list[int]) -> Any:
        start = None if before is None else before[rows]
        return planner.plan(model, here[rows], goals[rows], budget, warm_start=start, generator=generator(3))

    batch, mixed = plan([0, 1, 2, 3]), plan(order)
    for index in range(4):
        alone = plan([index])
        torch.testing.assert_close(alone.elites[0], batch.elites[index], rtol=0, atol=0)
        torch.testing.assert_close(mixed.actions[order.index(index)], batch.actions[index], rtol=0, atol=0)
        assert alone.branch[0] == batch.branch[index] == mixed.branch[order.index(index)]


@given(
    name=st.sampled_from(sorted(KINDS)), samples=st.integers(1, 40), iterations=st.integers(1, 6), warm=st.booleans(),
    starts=st.lists(st.floats(0, 0.99), min_size=1, max_size=4), knots=st.sampled_from([None, 2, 3]),
)  # fmt: skip
@settings(deadline=None, max_examples=50)
def test_the_futures_are_exactly_the_budgets(
    name: str, samples: int, iterations: int, warm: bool, starts: list[float], knots: int | None
) -> None:
    planner = replace(KINDS[name], schedules=Schedules(starts=tuple(starts)), knots=knots)
    asked: list[int] = []
    model, budget = PointMass(on_predict=asked.append), Budget(samples, iterations)
    start = torch.full((1, 4, 3), 0.5) if warm else None
    plan = planner.plan(model, HERE, GOALS[:1], budget, warm_start=start, generator=generator())
    assert plan.futures == budget.futures + 1
    if not isinstance(planner, Hybrid):
        assert sum(asked) == budget.futures + 1
    assert torch.isfinite(plan.cost).all()
    assert plan.actions.abs().max() <= 1.0


@pytest.mark.parametrize("shape", [{"knots": 3}, {"repeat": 2}])
def test_near_the_prior_with_few_points_in_a_batch(shape: dict[str, int]) -> None:
    brain = PointMass(proposal=lambda latent, goal: torch.zeros(len(latent), 4, 3))
    planner = CEM(
        horizon=4, objective=Objective(go=FeatureDistance()), within_prior=1.0, proposal_share=0.5,
        schedules=Schedules(dimension=2), **shape,
    )  # fmt: skip
    wanted = torch.tensor([[0.3, -0.2, 0.1]])
    here = torch.tensor([[0.0, 0.0, 0.0], [0.2, 0.1, 0.0]])
    both = planner.plan(brain, here, wanted.expand(2, -1), Budget(48, 2), generator=generator())
    for row in range(2):
        alone = planner.plan(brain, here[row : row + 1], wanted, Budget(48, 2), generator=generator())
        assert torch.equal(both.actions[row], alone.actions[0])


@every_planner
def test_no_plan_is_worse_than_its_warm_start(planner: Any, point: Any) -> None:
    model, start = point(), torch.tensor([[0.3, -0.2, 0.37]]).repeat(4, 1)[None]
    goal = model.predict(HERE, torch.cat([start, torch.zeros(1, 1, 3)], 1)[:, None])[:, 0, -1]
    plan = replace(planner, objective=Objective(go=FeatureDistance())).plan(
        model, HERE, goal, Budget(60, 1), warm_start=start, generator=generator()
    )
    assert plan.branch == ("as before",)
    assert float(plan.cost) < 1e-9


@every_planner
def test_trouble_is_survived(planner: Any, point: Any) -> None:
    def closing(actions: torch.Tensor) -> torch.Tensor:
        return actions[..., 2].amax(-1) > 0.5

    plan = planner.plan(point(spoil=closing), HERE, GOALS[:1], Budget(60, 3), generator=generator())
    assert plan.branch == ("keep",)
    assert plan.discarded > 0
    nothing = point(spoil=lambda actions: torch.ones(actions.shape[:2], dtype=torch.bool))
    held = planner.plan(nothing, HERE, GOALS[:1], Budget(30, 3), generator=generator())
    assert held.held.all()
    assert held.branch == ("keep",)
    wary = replace(planner, trusted=1.0)
    doubted = wary.plan(point(doubt=lambda z: 4 * z[..., 2].abs()), HERE, GOALS[:1], Budget(60, 3))
    assert doubted.branch == ("keep",)
    mad = point(proposal=lambda latent, goal: torch.full((1, 3, 3), torch.nan))
    assert planner.plan(mad, HERE, GOALS[:1], Budget(60, 3)).branch == ("close now",)


@every_planner
def test_a_deadline_tries_every_branch(planner: Any, point: Any) -> None:
    now = [0.0]
    timed = replace(planner, clock=lambda: now[0])

    def spend(futures: int) -> None:
        now[0] += 0.0001 * futures

    model = point(on_predict=spend)
    plan = timed.plan(model, HERE, GOALS[:1], Budget(1000, 5, 10.0), generator=generator())
    assert plan.out_of_time
    assert plan.plan_ms <= 10.0
    assert plan.branch == ("close now",)


@every_planner
def test_with_a_curve_the_gripper_still_switches_at_once(planner: Any, point: Any) -> None:
    ends = replace(planner, objective=Objective(go=FeatureDistance()), horizon=8)
    for asked in ({"repeat": 2}, {"knots": 4}, {"knots": 4, "spline": "cubic"}):
        plan = replace(ends, **asked).plan(point(), HERE, GOALS[:1] * 0.8, Budget(96, 4), generator=generator())
        assert plan.branch == ("close from step 4",)
        assert plan.actions[0, :, 2].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_near_the_prior_the_gripper_is_free(point: Any) -> None:
    guided = CEM(horizon=5, objective=OBJECTIVE, within_prior=1.0, proposal_share=0.0, schedules=Schedules())
    believed = torch.tensor([0.5, -0.4, -1.0]).repeat(1, 3, 1)
    model = point(proposal=lambda latent, goal: believed.expand(len(latent), -1, -1))
    plan = guided.plan(model, HERE, GOALS[:1], Budget(16, 1), generator=generator())
    assert plan.branch == ("close now",)
    assert (plan.actions[:, :3, :2] - believed[..., :2]).abs().max() < 0.25


def test_the_record_knows_the_branch(point: Any, tmp_path: Path) -> None:
    plan = KINDS["CEM"].plan(point(), HERE, GOALS[:1], Budget(60, 3), generator=generator())
    action = np.zeros(3, np.float32)
    bare = StepRecord(0.0, {}, action, action, 1.0)
    steps = [bare, replace(bare, plan=PlanRecord.of(plan, point()))]
    read = Rollout({}, {"observation.state": action}, steps).save(tmp_path / "episode")
    without, with_plan = Rollout.load(read).steps
    assert without.plan is None
    assert with_plan.plan is not None
    assert with_plan.plan.branch == "close now"


def test_what_cannot_be_scheduled_is_refused(point: Any) -> None:
    plain = make_planner({"name": "cem", "horizon": 5, "schedules": {"dimension": -1, "starts": [0.0, 0.4]}})
    assert plain == replace(plain, schedules=Schedules(dimension=-1, starts=(0.0, 0.4)))  # type: ignore[type-var]
    assert plain.plan(point(), HERE, GOALS[:1], Budget(30, 2)).branch == ("close now",)
    for wrong in ("dgrip", 3):
        with pytest.raises(ValueError, match=r"point acts in \(dx, dy, dgripper\), choose one of these"):
            CEM(schedules=Schedules(dimension=wrong)).plan(point(), HERE, GOALS[:1], Budget(30, 2))
    with pytest.raises(ValueError, match="no setting 'start'; did you mean starts"):
        make_planner({"name": "cem", "schedules": {"start": [0.0]}})
    for starts in ((), (1.0,), (-0.1,)):
        with pytest.raises(ValueError, match="each is a share of the horizon"):
            Schedules(starts=starts)


def test_what_a_belief_remembers_goes_with_its_branch() -> None:
    still = torch.zeros(2, 5, 3)
    branches = Schedules().begin(2, make_curve(5), still, None, keep=4)
    belief = Belief(still, torch.ones_like(still), (torch.arange(2.0),))
    belief, low, high = branches.rows(belief, still - 1, still + 1, 100)
    assert belief.memory[0].tolist() == [0.0] * 5 + [1.0] * 5
    # What is scheduled is not searched.
    assert (belief.mean[..., 2] == low[..., 2]).all()
    assert belief.std[..., 2].abs().max() == 0.0
    row = torch.arange(10.0)
    belief = belief._replace(memory=(row,))
    costs = torch.tensor([[3.0, 1.0, 9.0, 2.0, 9.0], [9.0, 9.0, 1.0, 2.0, 3.0]])
    points = belief.mean[:, None].expand(-1, 4, -1, -1)
    branches.learn(points, costs.flatten()[:, None].expand(-1, 4), 4, NOTHING)
    belief, *_ = branches.narrow(100, belief, low, high)
    assert belief.memory[0].tolist() == [1.0, 3.0, 0.0, 7.0, 8.0, 9.0]
    assert branches.count == 3
