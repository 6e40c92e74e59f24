"""Every sampling planner: finds the optimum, keeps bounds, survives NaN, repeats itself, alone or in a batch."""

from __future__ import annotations

import math
from collections.abc import Callable
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
    Hold,
    Hybrid,
    LearnedDistance,
    Objective,
    Plan,
    Prior,
    RandomActions,
    RandomShooting,
    SamplingPlanner,
    Schedules,
)
from planners.planner import Belief
from tests.planners.conftest import PointMass

OBJECTIVE = Objective(go=FeatureDistance(final=1.0, summed=0.1))
PLANNERS: dict[str, SamplingPlanner] = {
    "cem": CEM(horizon=5, objective=OBJECTIVE),
    "icem": ICEM(horizon=5, objective=OBJECTIVE),
    "mppi": MPPI(horizon=5, objective=OBJECTIVE),
    "cmaes": CMAES(horizon=5, objective=OBJECTIVE),
    "shooting": RandomShooting(horizon=5, objective=OBJECTIVE),
    "gradient": Gradient(horizon=5, objective=OBJECTIVE),
    "hybrid": Hybrid(horizon=5, objective=OBJECTIVE),
}
every_planner = pytest.mark.parametrize("planner", PLANNERS.values(), ids=PLANNERS)
GOAL = torch.tensor([[0.5, -0.4, 0.3]])
HERE = torch.zeros(1, 3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cost_of_rest() -> float:
    return float(GOAL.square().mean() * 1.5)


def steps_down(planner: SamplingPlanner, budget: Budget) -> int:
    """How often a planner asks for slopes."""
    left = budget.futures - sum(planner.populations(budget))
    return left // (3 * planner.starts) if isinstance(planner, Hybrid) else left


def assert_same(a: Plan, b: Plan) -> None:
    for name in ("actions", "cost", "elites", "elite_costs", "cost_per_iteration", "imagined"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=0, atol=0)


@every_planner
def test_finds_the_known_optimum(planner: SamplingPlanner, point: Any) -> None:
    planner = replace(planner, objective=Objective(go=FeatureDistance()))
    plan = planner.plan(point(), HERE, GOAL, Budget(256, 8), generator=generator())
    end = plan.imagined[0, -1]
    tolerance = 0.35 if isinstance(planner, RandomShooting) else 0.02
    assert float((end - GOAL[0]).abs().max()) < tolerance
    assert plan.stopped == "all 2049 futures imagined"
    assert plan.futures == 2049
    assert not plan.held.any()


@every_planner
def test_what_is_reported_belongs_together(planner: SamplingPlanner, point: Any) -> None:
    model = point()
    plan = planner.plan(model, HERE, GOAL, Budget(64, 4), generator=generator())
    torch.testing.assert_close(plan.imagined, model.predict(HERE, plan.actions[:, None])[:, 0])
    torch.testing.assert_close(plan.cost, torch.stack(list(plan.terms.values())).sum(0))
    torch.testing.assert_close(plan.cost, plan.elite_costs[:, 0])
    torch.testing.assert_close(plan.actions, plan.elites[:, 0])
    assert plan.cost_per_iteration.shape == (
        1,
        len(planner.populations(Budget(64, 4))) + steps_down(planner, Budget(64, 4)),
    )
    assert (plan.cost_per_iteration.diff() <= 0).all()
    assert (plan.elite_costs.diff() >= 0).all()
    assert plan.actions.shape == (1, 5, 3)


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(sorted(PLANNERS)),
    goal=st.lists(st.floats(-50, 50), min_size=3, max_size=3),
    samples=st.integers(1, 20),
    iterations=st.integers(1, 3),
    std=st.floats(0.0, 5.0),
    warm=st.floats(-4, 4),
    seed=st.integers(0, 2**31),
)
def test_bounds_are_always_honoured(
    point: Any, name: str, goal: list[float], samples: int, iterations: int, std: float, warm: float, seed: int
) -> None:
    planner = replace(PLANNERS[name], initial_std=std)
    start = torch.full((1, 3, 3), warm)
    plan = planner.plan(
        point(), HERE, torch.tensor([goal]), Budget(samples, iterations), warm_start=start, generator=generator(seed)
    )
    for actions in (plan.actions, plan.elites):
        assert torch.isfinite(actions).all()
        assert actions.abs().max() <= 1.0


@every_planner
def test_same_seed_same_plan_bit_for_bit(planner: SamplingPlanner, point: Any) -> None:
    plans = [planner.plan(point(), HERE, GOAL, Budget(50, 3), generator=generator(7)) for _ in range(2)]
    assert_same(*plans)
    assert plans[0].digest() == plans[1].digest()
    other = planner.plan(point(), HERE, GOAL, Budget(50, 3), generator=generator(8))
    # From wherever slopes begin in this one valley, they end at its bottom.
    assert (other.digest() != plans[0].digest()) or type(planner) is Gradient


def aim(latent: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    """A rough prior: straight at the goal for three steps."""
    return ((goal - latent) / 0.75).clamp(-1, 1)[:, None].repeat(1, 3, 1)


@every_planner
@settings(max_examples=8, deadline=None)
@given(order=st.permutations(range(4)), seed=st.integers(0, 1000))
def test_a_problem_has_the_same_plan_alone_in_a_batch_and_in_any_order(
    planner: SamplingPlanner, point: Any, order: list[int], seed: int
) -> None:
    model, budget = point(proposal=aim), Budget(40, 3)
    goals = torch.randn(4, 3, generator=generator(seed))
    here = torch.randn(4, 3, generator=generator(seed + 1))
    batch = planner.plan(model, here, goals, budget, generator=generator(3))
    mixed = planner.plan(model, here[order], goals[order], budget, generator=generator(3))
    for index in range(4):
        alone = planner.plan(model, here[[index]], goals[[index]], budget, generator=generator(3))
        torch.testing.assert_close(alone.actions[0], batch.actions[index], rtol=0, atol=0)
        torch.testing.assert_close(alone.elites[0], batch.elites[index], rtol=0, atol=0)
        torch.testing.assert_close(mixed.actions[order.index(index)], batch.actions[index], rtol=0, atol=0)


@every_planner
def test_chunks_do_not_change_the_plan(planner: SamplingPlanner, point: Any) -> None:
    whole, cut = point(), point()
    bytes_a_future = 5 * 3 * 4
    small = replace(planner, memory_mb=7 * bytes_a_future / 2**20)
    assert_same(
        planner.plan(whole, HERE, GOAL, Budget(40, 2), generator=generator()),
        small.plan(cut, HERE, GOAL, Budget(40, 2), generator=generator()),
    )
    assert cut.largest_chunk == 7
    assert whole.largest_chunk >= max(planner.populations(Budget(40, 2)))


class OneIn:
    """Spoils one future of every chunk."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __call__(self, actions: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(actions.shape[:2], dtype=torch.bool)
        if actions.shape[1] > self.index:
            mask[:, self.index] = True
        return mask


@every_planner
def test_one_nan_future_an_iteration_changes_little(planner: SamplingPlanner, point: Any) -> None:
    clean = planner.plan(point(), HERE, GOAL, Budget(200, 5), generator=generator())
    spoilt = planner.plan(point(spoil=OneIn(5)), HERE, GOAL, Budget(200, 5), generator=generator())
    # (Who follows few slopes at a time has no sixth future there.)
    assert len(planner.populations(Budget(200, 5))) <= spoilt.discarded <= spoilt.cost_per_iteration.shape[1]
    assert float(spoilt.cost) <= float(clean.cost) + 0.05 * cost_of_rest()
    assert torch.isfinite(spoilt.actions).all()


@every_planner
def test_a_nan_region_is_gone_round(planner: SamplingPlanner, point: Any) -> None:
    """Half of all first actions lead nowhere: the plan is the best of the other half."""

    def forward(actions: torch.Tensor) -> torch.Tensor:
        return actions[:, :, 0, 0] > 0.0

    plan = planner.plan(point(spoil=forward), HERE, GOAL, Budget(200, 5), generator=generator())
    assert plan.discarded > 0
    assert plan.actions[0, 0, 0] <= 0.0
    assert torch.isfinite(plan.imagined).all()
    assert torch.isfinite(plan.elites).all()
    assert float(plan.cost) < 0.6 * cost_of_rest()


@every_planner
def test_when_all_is_nan_it_holds_and_says_so(planner: SamplingPlanner, point: Any) -> None:
    asked: list[int] = []
    model = point(spoil=lambda actions: torch.ones(actions.shape[:2], dtype=torch.bool), on_predict=asked.append)
    plan = planner.plan(model, HERE, GOAL, Budget(20, 3), generator=generator())
    assert plan.held.all()
    assert "no future was finite" in plan.stopped
    assert plan.discarded == sum(asked)
    torch.testing.assert_close(plan.actions, torch.zeros(1, 5, 3))
    assert torch.isfinite(plan.imagined).all()
    assert not torch.isnan(plan.cost).any()


@every_planner
def test_one_environment_in_trouble_leaves_the_others_alone(planner: SamplingPlanner, point: Any) -> None:
    here = torch.stack([HERE[0], torch.full((3,), torch.nan)])
    both = planner.plan(point(), here, GOAL, Budget(30, 3), generator=generator())
    alone = planner.plan(point(), HERE, GOAL, Budget(30, 3), generator=generator())
    assert both.held.tolist() == [False, True]
    assert "for environment 1" in both.stopped
    torch.testing.assert_close(both.actions[0], alone.actions[0], rtol=0, atol=0)


def test_infinity_is_not_cheap(point: Any) -> None:
    class Generous(Objective):
        def __call__(self, model: Any, latents: Any, actions: Any, goal: Any) -> dict[str, torch.Tensor]:
            return {"cost": torch.where(actions[:, :, 0, 0] > 0, -torch.inf, actions[:, :, 0, 0])}

    planner = CEM(horizon=2, objective=Generous(go=FeatureDistance()))
    plan = planner.plan(point(), HERE, GOAL, Budget(30, 2), generator=generator())
    assert torch.isfinite(plan.cost).all()
    assert plan.actions[0, 0, 0] <= 0


# -- time --------------------------------------------------------------------------------------------------------------


class Clock:
    """A clock that only imagining moves on."""

    def __init__(self, seconds_a_future: float) -> None:
        self.now, self.seconds_a_future = 0.0, seconds_a_future

    def __call__(self) -> float:
        return self.now

    def spend(self, futures: int) -> None:
        self.now += futures * self.seconds_a_future


@every_planner
@pytest.mark.parametrize("deadline_ms", [10.0, 50.0, 150.0])
def test_a_deadline_is_kept_and_the_best_so_far_returned(
    planner: SamplingPlanner, point: Any, deadline_ms: float
) -> None:
    clock = Clock(seconds_a_future=0.0001)
    timed = replace(planner, clock=clock)
    plan = timed.plan(point(on_predict=clock.spend), HERE, GOAL, Budget(1000, 5, deadline_ms), generator=generator())
    assert plan.out_of_time
    assert plan.stopped == f"deadline reached after {plan.futures} of 5001 futures"
    assert plan.plan_ms <= deadline_ms
    assert plan.futures >= 0.3 * deadline_ms * 10
    assert float(plan.cost) < cost_of_rest()
    assert not plan.held.any()


def test_with_hardly_any_time_there_is_still_a_plan(point: Any) -> None:
    clock = Clock(seconds_a_future=1.0)
    planner = CEM(horizon=5, objective=OBJECTIVE, clock=clock)
    plan = planner.plan(point(on_predict=clock.spend), HERE, GOAL, Budget(500, 5, 0.001), generator=generator())
    assert plan.futures == 16
    assert float(plan.cost) < cost_of_rest()


# -- what the brain trusts ---------------------------------------------------------------------------------------------


@every_planner
def test_what_the_brain_does_not_trust_is_not_chosen(planner: SamplingPlanner, point: Any) -> None:
    model = point(doubt=lambda latents: 4.0 * latents[..., 0].abs())
    free = planner.plan(model, HERE, GOAL, Budget(200, 5), generator=generator())
    assert free.imagined[0, :, 0].max() > 0.4
    careful = replace(planner, trusted=1.0).plan(model, HERE, GOAL, Budget(200, 5), generator=generator())
    assert careful.uncertainty is not None
    assert careful.uncertainty.max() <= 1.0
    assert float(careful.cost) < cost_of_rest()
    assert not careful.held.any()
    assert careful.discarded == 0


@every_planner
def test_where_it_trusts_nothing_the_plan_is_to_hold_and_says_so(planner: SamplingPlanner, point: Any) -> None:
    model = point(doubt=lambda latents: 2.5 + latents[..., 0].abs())
    plan = replace(planner, trusted=1.0).plan(model, HERE, GOAL, Budget(40, 2), generator=generator())
    assert plan.held.all()
    assert "; every future leaves what the brain trusts: doubt 2.5" in plan.stopped
    assert plan.stopped.endswith("and more, 1 is trusted")
    both = torch.cat([HERE, HERE])
    one_of_two = point(doubt=lambda latents: torch.stack([0 * latents[0, ..., 0], 2.5 + 0 * latents[1, ..., 0]]))
    half = replace(planner, trusted=1.0).plan(one_of_two, both, GOAL, Budget(40, 2), generator=generator())
    assert half.held.tolist() == [False, True]
    assert "every future for environment 1 leaves" in half.stopped


def test_a_doubt_that_is_not_known_is_no_trust(point: Any) -> None:
    model = point(doubt=lambda latents: torch.full_like(latents[..., 0], math.nan))
    plan = CEM(horizon=5, objective=OBJECTIVE, trusted=1.0).plan(model, HERE, GOAL, Budget(40, 2))
    assert plan.held.all()
    assert plan.discarded == 0
    assert plan.stopped.endswith("no future was finite and its doubt known")


def test_who_trusts_everything_asks_no_doubt_of_every_future(point: Any) -> None:
    asked: list[int] = []
    model = point(doubt=lambda latents: (asked.append(latents.ndim), latents[..., 0].abs())[1])
    CEM(horizon=5, objective=OBJECTIVE).plan(model, HERE, GOAL, Budget(40, 2), generator=generator())
    assert asked == [3]  # of the plan alone, in the end
    with pytest.raises(ValueError, match="trusted is 0; it must be above 0"):
        CEM(trusted=0)


# -- where a search begins ---------------------------------------------------------------------------------------------


@every_planner
def test_no_plan_is_worse_than_its_warm_start_or_than_rest(planner: SamplingPlanner, point: Any) -> None:
    model = point()
    known = aim(HERE, GOAL)
    plan = planner.plan(model, HERE, GOAL, Budget(2, 1), warm_start=known, generator=generator())
    padded = torch.cat([known, torch.zeros(1, 2, 3)], 1)
    reference = OBJECTIVE(model, model.predict(HERE, padded[:, None]), padded[:, None], GOAL)["go"][0, 0]
    assert float(plan.cost) <= float(reference) + 1e-6
    away = planner.plan(model, HERE, GOAL, Budget(2, 1), warm_start=-known, generator=generator())
    assert float(away.cost) <= cost_of_rest() + 1e-6


@every_planner
def test_a_good_prior_saves_futures(planner: SamplingPlanner, point: Any) -> None:
    with_prior = planner.plan(point(proposal=aim), HERE, GOAL, Budget(16, 1), generator=generator())
    without = planner.plan(point(), HERE, GOAL, Budget(16, 1), generator=generator())
    assert float(with_prior.cost) < float(without.cost)
    ignored = replace(planner, proposal_share=0.0).plan(
        point(proposal=aim), HERE, GOAL, Budget(16, 1), generator=generator()
    )
    torch.testing.assert_close(ignored.actions, without.actions)


def test_a_prior_gone_mad_is_not_believed(point: Any) -> None:
    mad = point(proposal=lambda latent, goal: torch.full((1, 3, 3), torch.nan))
    plan = PLANNERS["cem"].plan(mad, HERE, GOAL, Budget(16, 3), generator=generator())
    assert torch.isfinite(plan.elites).all()
    assert float(plan.cost) < cost_of_rest()
    assert plan.discarded == 0


@given(st.floats(0.1, 2.0), st.floats(-0.9, 0.9))
@settings(deadline=None, max_examples=15)
def test_near_the_prior_means_near_the_prior(width: float, middle: float) -> None:
    believed = torch.full((1, 3, 3), middle)
    brain = PointMass(proposal=lambda latent, goal: believed.expand(len(latent), -1, -1))
    planner = CEM(horizon=5, objective=OBJECTIVE, within_prior=width, proposal_share=0.0)
    plan = planner.plan(brain, HERE, GOAL, Budget(32, 3), generator=generator())
    # The prior draws with a spread of 0.1 and is known by 64 draws: half a spread of slack.
    assert (plan.actions[:, :3] - believed).abs().max() <= 0.1 * (1.6 * width + 0.5)
    assert (plan.elites[:, :, :3] - believed).abs().max() <= 0.1 * (1.6 * width + 0.5)
    assert_same(plan, planner.plan(brain, HERE, GOAL, Budget(32, 3), generator=generator()))


def test_between_two_ways_the_prior_takes_one() -> None:
    class Fork(PointMass):
        """Left or right with the same likelihood; the first proposal is left."""

        def propose(self, latent: Any, goal: Any, n: int, generator: Any = None) -> Any:
            side = torch.randint(2, (len(latent), n, 1, 1), generator=generator) * 2.0 - 1.0
            side[:, 0] = -1.0
            noise = 0.05 * torch.randn(len(latent), n, 3, 3, generator=generator)
            noise[:, 0] = 0.0
            return (0.7 * side + noise).clamp(-1.0, 1.0)

    planner = CEM(horizon=5, objective=OBJECTIVE, within_prior=1.0, proposal_share=0.0)
    plan = planner.plan(Fork(), HERE, GOAL, Budget(32, 3), generator=generator())
    assert (plan.actions[:, :3] + 0.7).abs().max() < 0.15


def test_near_the_prior_a_brain_without_one_searches_everywhere(point: Any) -> None:
    anywhere = CEM(horizon=5, objective=OBJECTIVE)
    near = replace(anywhere, within_prior=1.0)
    plans = [planner.plan(point(), HERE, GOAL, Budget(64, 4), generator=generator()) for planner in (anywhere, near)]
    assert float(plans[1].cost) < 0.5 * cost_of_rest()
    assert float(plans[1].cost) == pytest.approx(float(plans[0].cost), abs=0.05)


def test_a_narrow_dimension_is_searched_narrowly(point: Any) -> None:
    planner = CEM(horizon=5, objective=OBJECTIVE, initial_std=[0.6, 0.0, 0.6], min_std=[0.05, 0.0, 0.05], elites=30)
    plan = planner.plan(point(), HERE, GOAL, Budget(30, 3), generator=generator())
    assert plan.elites[:, :, :, 1].abs().max() == 0.0
    assert plan.elites[:, :, :, 0].abs().max() > 0.3


def test_icem_noise_is_slow_and_of_unit_variance(point: Any) -> None:
    planner = ICEM(horizon=16, colour=2.0)
    belief = Belief(torch.zeros(1, 16, 3), torch.ones(1, 16, 3))
    noise = planner.noise(belief, 4000, generator())
    assert abs(float(noise.std()) - 1.0) < 0.05
    neighbours = (noise[:, :, 1:] * noise[:, :, :-1]).mean()
    assert float(neighbours) > 0.7


@given(samples=st.integers(1, 300), iterations=st.integers(1, 12))
def test_icem_spends_exactly_the_budget(samples: int, iterations: int) -> None:
    budget = Budget(samples, iterations)
    populations = ICEM().populations(budget)
    assert len(populations) == iterations
    assert min(populations) >= 1
    assert sum(populations) == budget.futures


@given(samples=st.integers(1, 300), iterations=st.integers(1, 12), population=st.none() | st.integers(4, 60))
def test_cmaes_spends_exactly_the_budget(samples: int, iterations: int, population: int | None) -> None:
    budget = Budget(samples, iterations)
    populations = CMAES(population=population).populations(budget)
    assert sum(populations) == budget.futures
    assert min(populations) >= min(budget.futures, population or samples)
    assert CMAES(population=population, schedules=Schedules()).populations(budget) == [samples] * iterations


def refitted(belief: Belief, actions: torch.Tensor, costs: torch.Tensor) -> Belief:
    """One refit of CMA-ES, which looks at nothing but this population."""
    nothing: Any = None
    return CMAES().refit(belief, actions, costs, nothing)


def drawn(planner: SamplingPlanner, belief: Belief, noise: torch.Generator) -> torch.Tensor:
    """A population of twelve, (B, 12, H, A)."""
    return planner.sample(belief, planner.noise(belief, 12, noise))


def test_cmaes_steps_grow_on_a_slope_and_shrink_in_a_valley() -> None:
    planner = CMAES()
    noise = generator(2)
    spreads = []
    for cost in (lambda x: x[..., 0], lambda x: x.square().sum(-1)):
        belief = Belief(torch.zeros(1, 2, 4), torch.full((1, 2, 4), 0.1))
        for _ in range(20):
            actions = drawn(planner, belief, noise)
            belief = refitted(belief, actions, cost(actions.flatten(2)))
        spreads.append(float(belief.std.log().mean().exp()))
    assert spreads[0] > 0.2
    assert spreads[1] < 0.05


def test_cmaes_learns_which_number_matters_less() -> None:
    belief = Belief(torch.zeros(1, 1, 4), torch.full((1, 1, 4), 0.5))
    slopes = torch.tensor([10.0, 10.0, 10.0, 1.0])
    noise = generator(1)
    for _ in range(60):
        actions = drawn(CMAES(), belief, noise)
        belief = refitted(belief, actions, ((actions - 0.3) * slopes).square().sum((2, 3)))
    assert float(belief.std[0, 0, 3]) > 3 * float(belief.std[0, 0, :3].max())


def test_cmaes_follows_nobody_farther_than_a_draw_may_lie() -> None:
    """A proposal a thousand spreads away, the cheapest by far: the mean goes its way, the spreads stay spreads."""
    belief = Belief(torch.zeros(1, 5, 3), torch.full((1, 5, 3), 0.001))
    actions = drawn(CMAES(), belief, generator())
    actions[:, 0] = 1.0
    costs = torch.arange(12.0)[None]
    after = refitted(belief, actions, costs)
    assert 0 < float(after.mean.mean()) < 0.01
    assert float(after.std.max()) < 0.004


def test_cmaes_believes_in_none_that_was_discarded_and_stays_where_all_were() -> None:
    belief = refitted(
        Belief(torch.zeros(2, 5, 3), torch.full((2, 5, 3), 0.3)),
        drawn(CMAES(), Belief(torch.zeros(2, 5, 3), torch.full((2, 5, 3), 0.3)), generator()),
        torch.arange(12.0).expand(2, 12),
    )
    actions = drawn(CMAES(), belief, generator(1))
    costs = torch.full((2, 12), math.inf)
    costs[0, 7] = 1.0
    after = refitted(belief, actions, costs)
    torch.testing.assert_close(after.mean[0], actions[0, 7])
    for new, old in zip((after.mean, after.std, *after.memory), (belief.mean, belief.std, *belief.memory), strict=True):
        torch.testing.assert_close(new[1], old[1], rtol=0, atol=0)


def test_cmaes_needs_few_futures_where_it_is_smooth_and_has_no_slopes() -> None:
    """Bent: cheaper than cem with the same futures, in every one of 20 problems."""
    goals = 0.9 * torch.rand(20, 3, generator=generator(1)) - 0.45
    search = {"horizon": 8, "objective": Objective(go=FeatureDistance()), "min_std": 0.0}
    costs = [
        kind(**search).plan(Bent(), torch.zeros(20, 3), goals, Budget(100, 10), generator=generator()).cost
        for kind in (CMAES, CEM)
    ]
    assert (costs[0] < costs[1]).all()
    assert costs[0].mean() < 0.1 * costs[1].mean()


# -- floors ------------------------------------------------------------------------------------------------------------


def test_floors_do_what_they_say(point: Any) -> None:
    model = point(proposal=aim)
    budget = Budget(100, 5)
    held = Hold(horizon=4).plan(model, HERE, GOAL, budget)
    torch.testing.assert_close(held.actions, torch.zeros(1, 4, 3))
    believed = Prior(horizon=4).plan(model, HERE, GOAL, budget)
    torch.testing.assert_close(believed.actions[:, :3], aim(HERE, GOAL))
    first = RandomActions(horizon=4).plan(model, HERE, GOAL, budget, generator=generator(1))
    again = RandomActions(horizon=4).plan(model, HERE, GOAL, budget, generator=generator(1))
    assert_same(first, again)
    assert first.futures == held.futures == 1
    assert believed.cost < held.cost


def test_the_prior_floor_needs_a_prior(point: Any) -> None:
    with pytest.raises(ValueError, match="point proposes no actions"):
        Prior().plan(point(), HERE, GOAL, Budget())


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda: Budget(samples=0), "a budget of 0 samples x 3 iterations imagines nothing"),
        (lambda: Budget(iterations=-1), "imagines nothing"),
        (lambda: Budget(deadline_ms=-5.0), "deadline_ms is -5"),
        (lambda: Budget(deadline_ms=math.nan), "deadline_ms is nan"),
        (lambda: CEM(horizon=0), "horizon is 0"),
        (lambda: Gradient(starts=0), "starts is 0"),
        (lambda: Gradient(starts=20, elites=6), "starts is 20, elites 6"),
        (lambda: Hybrid(explore=1.5), "explore is 1.5"),
        (lambda: CEM(knots=3.5), "knots is 3.5; it is a whole number"),
        (lambda: CEM(schedules=True), "schedules is True; say"),
        (lambda: Hybrid(starts=2.5), "starts is 2.5"),
        (lambda: Hybrid(steps="sgd"), "steps is 'sgd'; known are adam, newton"),
        (lambda: Hybrid(rate=0.0), "rate is 0.0; it must be above 0"),
        (lambda: Hybrid(leap=-1.0), "leap is -1"),
        (lambda: Gradient(explore=0.3), "before it follows slopes is hybrid"),
        (lambda: CEM(elites=0), "elites is 0"),
        (lambda: CEM(proposal_share=1.5), "proposal_share is 1.5"),
        (lambda: CMAES(population=3), "population is 3; a better half needs 4 or more"),
        (lambda: ICEM(shrink=0.5), "shrink is 0.5"),
        (lambda: Objective(), "at least one term"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        wrong()


@pytest.mark.parametrize(
    ("goal", "warm_start", "std", "sentence"),
    [
        (torch.zeros(1, 4), None, 0.5, r"the goal has shape \(1, 4\), the present \(1, 3\)"),
        (torch.zeros(3, 3), None, 0.5, "one goal for each environment or one for all"),
        (GOAL, torch.zeros(1, 5, 2), 0.5, r"warm_start should be \(1, steps, 3\)"),
        (GOAL, torch.full((1, 5, 3), torch.nan), 0.5, "warm_start has NaN"),
        (GOAL, None, [0.5, 0.5], "initial_std has 2 numbers, the action 3"),
        (GOAL, None, -1.0, "a spread is finite and not negative"),
    ],
)
def test_problems_that_do_not_fit_are_refused(
    point: Any, goal: torch.Tensor, warm_start: torch.Tensor | None, std: Any, sentence: str
) -> None:
    planner = CEM(objective=Objective(go=LearnedDistance()), initial_std=std)
    with pytest.raises(ValueError, match=sentence):
        planner.plan(point(), HERE, goal, Budget(4, 1), warm_start=warm_start)


@given(samples=st.integers(1, 400), iterations=st.integers(1, 12), explore=st.floats(0, 1), starts=st.integers(1, 6))
def test_a_hybrid_spends_exactly_the_budget(samples: int, iterations: int, explore: float, starts: int) -> None:
    planner, budget = Hybrid(horizon=5, explore=explore, starts=starts), Budget(samples, iterations)
    populations = planner.populations(budget)
    assert 1 <= len(populations) <= iterations
    assert all(n >= 1 for n in populations)
    assert (budget.futures - sum(populations)) % (3 * starts) == 0
    assert sum(populations) >= min(budget.futures, round(explore * budget.futures))


@given(samples=st.integers(1, 400), iterations=st.integers(1, 12), starts=st.integers(1, 6))
def test_a_gradient_samples_nothing_but_its_beginnings(samples: int, iterations: int, starts: int) -> None:
    planner, budget = Gradient(horizon=5, starts=starts), Budget(samples, iterations)
    (beginnings,) = planner.populations(budget)
    assert (budget.futures - beginnings) % (3 * starts) == 0
    assert min(starts, budget.futures) <= beginnings < starts + 3 * starts


class Bent(PointMass):
    """Every action turns the way of those after it: smooth, and no straight line leads to the goal."""

    def predict(self, latent: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        angle = 3.0 * actions[..., 2].cumsum(2)
        x, y = actions[..., 0], actions[..., 1]
        turned = torch.stack(
            [angle.cos() * x - angle.sin() * y, angle.sin() * x + angle.cos() * y, actions[..., 2]], -1
        )
        return latent[:, None, None] + self.stride * turned.cumsum(2)


@pytest.mark.parametrize("futures", [300, 1000])
@pytest.mark.parametrize("kind", [Hybrid, Gradient])
def test_where_it_is_smooth_slopes_find_more_with_the_same_futures(futures: int, kind: type[Hybrid]) -> None:
    model, objective = Bent(), Objective(go=FeatureDistance())
    goals = 0.9 * torch.rand(20, 3, generator=generator(1)) - 0.45
    here = torch.zeros(20, 3)
    budget = Budget(futures // 10, 10)
    search = {"horizon": 8, "objective": objective, "elites": 6, "min_std": 0.02}
    sampled = CEM(**search).plan(model, here, goals, budget, generator=generator()).cost
    followed = kind(**search, steps="newton").plan(model, here, goals, budget, generator=generator())
    assert followed.futures <= budget.futures + 1
    assert (followed.cost < sampled + 1e-7).all()
    assert followed.cost.mean() < 0.1 * sampled.mean()


class Ripples(PointMass):
    """A feature distance with many valleys, the deepest of them at the goal."""

    def feature_distance(self, latents: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        apart = latents - goal.reshape(len(goal), *[1] * (latents.ndim - 2), -1)
        return (apart.square() + 0.1 * (1.0 - torch.cos(12.0 * apart))).mean(-1)


@pytest.mark.parametrize("kind", [Hybrid, Gradient])
def test_who_arrived_in_a_valley_leaps_out_of_it(kind: type[Hybrid]) -> None:
    goals = 0.9 * torch.rand(20, 3, generator=generator(1)) - 0.45
    search = {"horizon": 4, "objective": Objective(go=FeatureDistance()), "elites": 6}
    costs = [
        kind(**search, steps="newton", patience=patience)
        .plan(Ripples(), torch.zeros(20, 3), goals, Budget(60, 10))
        .cost.mean()
        for patience in (0, 3)
    ]
    assert costs[1] < 0.5 * costs[0]


def test_over_ripples_adam_goes_on_where_newton_stays() -> None:
    goals = 0.9 * torch.rand(20, 3, generator=generator(1)) - 0.45
    search = {"horizon": 4, "objective": Objective(go=FeatureDistance()), "elites": 6, "patience": 0}
    costs = [
        Hybrid(**search, steps=steps).plan(Ripples(), torch.zeros(20, 3), goals, Budget(60, 10)).cost.mean()
        for steps in ("newton", "adam")
    ]
    assert costs[1] < 0.7 * costs[0]


@pytest.mark.parametrize("kind", [Hybrid, Gradient])
@pytest.mark.parametrize(("reach", "farthest"), [(2.0, 0.4), (0.0, 1.0)])
def test_slopes_are_followed_only_so_far(kind: type[Hybrid], reach: float, farthest: float, point: Any) -> None:
    search = {"horizon": 4, "objective": Objective(go=FeatureDistance()), "elites": 6, "min_std": 0.01, "momentum": 0.0}
    planner = kind(**search, initial_std=[0.6, 0.6, 0.2], reach=reach)
    plan = planner.plan(point(), HERE, HERE + 50.0, Budget(30, 10), generator=generator())
    assert float(plan.actions[..., 2].max()) == pytest.approx(farthest, abs=0.25 * farthest)
    assert float(plan.actions[..., 0].max()) > 0.95


def test_a_brain_that_cannot_be_differentiated_says_so(point: Any) -> None:
    class Stiff(PointMass):
        def predict(self, latent: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
            return super().predict(latent, actions.detach())

    with pytest.raises(ValueError, match="point cannot be differentiated; choose a planner that only samples: cem"):
        PLANNERS["gradient"].plan(Stiff(), HERE, GOAL, Budget(60, 2))


def test_slopes_that_are_not_numbers_are_not_followed(point: Any) -> None:
    class Cliff(PointMass):
        def feature_distance(self, latents: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
            # A root has an infinite slope at 0, and 0 * infinity is no number.
            return super().feature_distance(latents, goal) + 0 * latents[..., 0].sub(latents[..., 0].detach()).sqrt()

    plan = PLANNERS["gradient"].plan(Cliff(), HERE, GOAL, Budget(60, 2))
    assert torch.isfinite(plan.actions).all()
    assert not plan.held.any()
