"""Goals that are not one picture: several pictures, regions of the arm's state, and features measured otherwise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from planners import (
    CEM,
    ICEM,
    MPC,
    ActionPenalty,
    Budget,
    FeatureDistance,
    Goal,
    Hold,
    Hybrid,
    LearnedDistance,
    Objective,
    ObservationError,
    Plan,
    Prior,
    Region,
    RegionDistance,
    Rule,
    Targets,
    make_objective,
)
from planners.branches import Schedules
from planners.landscape import survey
from planners.targets import Target
from tests.planners.conftest import PointMass
from tests.planners.test_mpc import Sight
from tests.planners.walled import Observe

BUDGET = Budget(48, 3)
PLANNER = CEM(horizon=4, objective=Objective(learned=LearnedDistance(), action=ActionPenalty()))
NEAR, FAR = (0.3, 0.1, 0.0), (-0.8, 0.5, 0.2)
NUMBERS = st.floats(-1.0, 1.0, width=32)
KINDS_OF_GOAL = ("picture", "any", "mean", "both", "region", "blind", "mad")
MAD = 0.123  # where a point stands whose prior proposes no numbers


class Sensing(PointMass):
    """A point that shows its features and imagines its own state, in units of its own."""

    name = "sensing"

    def features(self, latents: torch.Tensor) -> torch.Tensor:
        return latents

    def state(self, latents: torch.Tensor) -> torch.Tensor:
        return latents

    def state_scale(self) -> torch.Tensor:
        return torch.tensor([0.5, 0.5, 0.5])


class Blind(Sensing):
    """It has the methods, and nothing to say."""

    def features(self, latents: torch.Tensor) -> None:
        return None

    def state(self, latents: torch.Tensor) -> None:
        return None


def at(observe: Observe, *places: tuple[float, ...]) -> list[Goal]:
    return [Goal.from_observation(observe(*place)) for place in places]


def run(agent: MPC, observe: Observe, steps: int, start: tuple[float, ...] = (0.0, 0.0, 0.0)) -> np.ndarray:
    place, world = torch.tensor([start]), PointMass()
    for _ in range(steps):
        unit = world.action_space.to_unit(torch.from_numpy(agent.act(observe(*place[0].tolist()))))
        place = world.predict(place, unit[None, None, None])[:, 0, 0]
    return place[0].numpy()


# -- measures ----------------------------------------------------------------------------------------------------------


def test_features_are_measured_as_one_likes() -> None:
    latents, goal = torch.tensor([[[[3.0, 4.0, 0.0], [0.0, 2.0, 0.0]]]]), torch.tensor([[0.0, 1.0, 0.0]])
    actions = torch.zeros(1, 1, 2, 3)
    wanted = {
        "squared": (6.0, 1 / 3),
        "l2": (math.sqrt(6.0), math.sqrt(1 / 3)),
        "l1": (2.0, 1 / 3),
        "cosine": (1 - 0.8, 0.0),
    }
    for measure, (first, last) in wanted.items():
        end = FeatureDistance(final=2.0, measure=measure)(Sensing(), latents, actions, goal)
        torch.testing.assert_close(end, torch.tensor([[2.0 * last]]))
        both = FeatureDistance(final=1.0, summed=0.5, measure=measure)(Sensing(), latents, actions, goal)
        torch.testing.assert_close(both, torch.tensor([[1.5 * last + 0.5 * first]]))


def test_a_brain_that_shows_no_features_says_so() -> None:
    latents, actions, goal = torch.rand(1, 2, 3, 3), torch.zeros(1, 2, 3, 3), torch.rand(1, 3)
    assert FeatureDistance(measure="l2")(PointMass(), latents, actions, goal).shape == (1, 2)
    for model in (PointMass(), Blind()):
        with pytest.raises(ValueError, match=rf"{model.name} does not show its features, which the measure cosine"):
            FeatureDistance(measure="cosine")(model, latents, actions, goal)
    with pytest.raises(ValueError, match="the measure is 'l3'; known are squared, l2, l1, cosine"):
        make_objective({"feature": {"measure": "l3"}})


@pytest.mark.parametrize("measure", ["l2", "l1", "cosine"])
def test_every_measure_leads_to_the_goal(measure: str, observe: Observe) -> None:
    planner = Hybrid(horizon=3, objective=Objective(go=FeatureDistance(summed=0.2, measure=measure)))
    place = run(MPC(Sensing(), planner, *at(observe, (0.4, 0.3, 0.2)), Budget(96, 2)), observe, 5, (0.1, 0.0, 0.0))
    if measure == "cosine":  # the direction is right, the length is free
        place = place / np.linalg.norm(place) * np.linalg.norm([0.4, 0.3, 0.2])
    np.testing.assert_allclose(place, [0.4, 0.3, 0.2], atol=0.05)


# -- several pictures --------------------------------------------------------------------------------------------------


def test_any_of_several_goals_is_the_nearest(observe: Observe) -> None:
    goal = Goal.any_of(at(observe, FAR, NEAR))
    np.testing.assert_allclose(run(MPC(PointMass(), PLANNER, goal, BUDGET), observe, 5), NEAR, atol=0.06)
    start = (-0.6, 0.4, 0.0)
    np.testing.assert_allclose(run(MPC(PointMass(), PLANNER, goal, BUDGET), observe, 5, start), FAR, atol=0.06)


def test_the_mean_of_several_goals_lies_between_them(observe: Observe) -> None:
    goals = at(observe, (0.4, 0.0, 0.0), (0.0, 0.4, 0.0))
    planner = Hybrid(horizon=2, objective=Objective(go=FeatureDistance(summed=0.2)))
    place = run(MPC(PointMass(), planner, Goal.mean_of(goals), BUDGET), observe, 4)
    np.testing.assert_allclose(place, [0.2, 0.2, 0.0], atol=0.05)
    place = run(MPC(PointMass(), planner, Goal.mean_of(goals, [3.0, 1.0]), BUDGET), observe, 4)
    np.testing.assert_allclose(place, [0.3, 0.1, 0.0], atol=0.05)


@given(places=st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=4), mean=st.booleans())
@settings(max_examples=20, deadline=None)
def test_the_terms_of_a_plan_are_those_of_what_was_chosen(places: list[tuple[float, ...]], mean: bool) -> None:
    model, latent, pictures = PointMass(), torch.zeros(1, 3), torch.tensor(places)
    goals = [Goal.from_observation(_seen(place)) for place in places]
    goal = Goal.mean_of(goals) if mean else Goal.any_of(goals)
    plan = PLANNER.plan(model, latent, goal, Budget(8, 1))
    assert list(plan.terms) == ["learned", "action"]
    torch.testing.assert_close(torch.stack(list(plan.terms.values())).sum(0), plan.cost)
    each = torch.stack([
        PLANNER.objective(model, plan.imagined[:, None], plan.actions[:, None], one[None])["learned"][0, 0]
        for one in pictures
    ])  # fmt: skip
    torch.testing.assert_close(plan.terms["learned"][0], each.mean() if mean else each.min())


def _seen(place: tuple[float, ...]) -> dict[str, np.ndarray]:
    return {"observation.images.front": np.zeros((16, 16, 3), np.uint8), "observation.state": np.float32(place)}


def test_one_of_one_is_itself(observe: Observe) -> None:
    (goal,) = at(observe, NEAR)
    plan = PLANNER.plan(PointMass(), torch.zeros(1, 3), goal, BUDGET)
    for same in (Goal.any_of([goal]), Goal.mean_of([goal]), Goal.any_of([goal, goal])):
        again = PLANNER.plan(PointMass(), torch.zeros(1, 3), same, BUDGET)
        torch.testing.assert_close(again.actions, plan.actions, rtol=0, atol=0)


@pytest.mark.parametrize(
    "planner",
    [
        PLANNER, Hybrid(horizon=3, objective=PLANNER.objective),
        Hybrid(horizon=3, objective=PLANNER.objective, steps="newton"),
        CEM(horizon=4, objective=PLANNER.objective, knots=3, proposal_share=0.5),
        CEM(horizon=4, objective=PLANNER.objective, within_prior=1.0),
    ],
)  # fmt: skip
def test_who_else_is_in_the_batch_changes_nothing(planner: CEM, observe: Observe) -> None:
    """Each with a goal of another kind: one picture, any of three, a mean, a region, a picture and a region."""
    one, two, three = at(observe, NEAR, FAR, (0.2, 0.6, -0.3))
    goals = [
        one, Goal.any_of([one, two, three]), Goal.mean_of([two, three], [1.0, 2.0]),
        Goal.region([0.2, None, 0.1], [0.3, -0.2, 0.1]), two.within([-0.5], [0.5]),
    ]  # fmt: skip

    def guess(latent: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        return (4 * (goal - latent))[:, None].clamp(-1, 1)

    model, places = Sensing(proposal=guess), [(0.1 * k, -0.1 * k, 0.0) for k in range(5)]
    many = MPC(model, planner, Goal.stack(goals), BUDGET, seed=3)
    singles = [MPC(model, planner, goal, BUDGET, seed=3) for goal in goals]
    for _ in range(2):
        together = many.act_batch([observe(*place) for place in places])
        for index, single in enumerate(singles):
            np.testing.assert_array_equal(together[index], single.act(observe(*places[index])))


def guided_by(kind: type[CEM], **asked: Any) -> CEM:
    return kind(horizon=4, objective=PLANNER.objective, within_prior=1.0, **asked)


@pytest.mark.parametrize(
    "planner",
    [
        guided_by(CEM), guided_by(CEM, proposal_share=0.5, knots=3), guided_by(CEM, repeat=2, schedules=Schedules()),
        guided_by(ICEM, knots=3, spline="cubic", schedules=Schedules(), proposal_share=0.5), guided_by(Hybrid, knots=3),
        guided_by(Hybrid, steps="newton", schedules=Schedules()),
    ],
)  # fmt: skip
@pytest.mark.parametrize("warm", [False, True])
@given(kinds=st.lists(st.sampled_from(KINDS_OF_GOAL), min_size=2, max_size=4), seed=st.integers(0, 99))
@settings(max_examples=5, deadline=None)
def test_a_prior_confines_whom_it_speaks_to_and_nobody_feels_the_others(
    planner: CEM, warm: bool, kinds: list[str], seed: int
) -> None:
    """Alone or beside goals with and without a picture, and beside one that is blind or has a prior gone mad."""
    noise = torch.Generator().manual_seed(seed)
    places, pictures = (0.4 * torch.randn(2, len(kinds), 3, generator=noise)).unbind()
    start = 0.3 * torch.randn(len(kinds), 3, 3, generator=noise).clamp(-1, 1) if warm else None
    for row, kind in enumerate(kinds):
        places[row, 0] = {"blind": math.nan, "mad": MAD}.get(kind, places[row, 0])
    targets = Targets(tuple(_target(kind, *row) for kind, *row in zip(kinds, pictures, pictures.flip(0), strict=True)))
    model = Sensing(proposal=_rough)

    def planned(rows: list[int]) -> tuple[Plan, torch.Tensor]:
        searching = torch.Generator().manual_seed(seed)
        warm_start = None if start is None else start[rows]
        plan = planner.plan(
            model, places[rows], targets[rows], Budget(30, 2), warm_start=warm_start, generator=searching
        )
        return plan, searching.get_state()

    together, noise_left = planned(list(range(len(kinds))))
    for row in range(len(kinds)):
        alone, left = planned([row])
        for name in ("actions", "cost", "elites", "elite_costs", "cost_per_iteration", "held"):
            ours, whole = getattr(alone, name)[0], getattr(together, name)[row]
            torch.testing.assert_close(ours, whole, rtol=0, atol=0, msg=f"{kinds} {row} {name}")
        assert alone.branch is None or alone.branch[0] == (together.branch or ())[row]
        assert left.equal(noise_left)  # the next plan hears the same noise


def _rough(latent: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    """A prior straight at the goal, no numbers where a place is mad."""
    return (4 * (goal - latent)).masked_fill(latent[:, :1] == MAD, math.nan)[:, None].repeat(1, 2, 1).clamp(-1, 1)


def _target(kind: str, picture: torch.Tensor, other: torch.Tensor) -> Target:
    region = Region.of([0.2, None, 0.1], [0.3, -0.2, 0.1]) if kind in ("region", "both") else None
    if kind == "region":
        return Target(torch.zeros(0), region=region)
    latents = torch.stack([picture, other]) if kind in ("any", "mean") else picture[None]
    return Target(latents, (0.3, 0.7) if kind == "mean" else None, region)


def test_beside_a_picture_a_region_is_searched_everywhere() -> None:
    """The prior is sure of what is wrong: who hears it does that, who does not finds its region."""
    model = Sensing(proposal=lambda latent, goal: torch.full((1, 4, 3), -0.8))
    aims = Targets((Target(torch.tensor([NEAR])), Target(torch.zeros(0), region=Region.of([0.4], [0.5]))))
    plan = guided_by(CEM, proposal_share=0.5).plan(model, torch.zeros(2, 3), aims, BUDGET)
    assert float((plan.elites[0] + 0.8).abs().max()) <= 0.1 * (1.6 + 0.5)
    assert 0.35 < float(plan.imagined[1, -1, 0]) < 0.55


@pytest.mark.parametrize("planner", [CEM(horizon=3), Hybrid(horizon=3)])
def test_inside_a_region_the_arm_comes_to_rest(planner: CEM, observe: Observe) -> None:
    agent = MPC(Sensing(), planner, Goal.region([-0.9] * 3, [0.9] * 3), BUDGET)
    agent._before = torch.full((1, 3, 3), 0.5)  # as if it were on its way
    agent.act(observe(0.0, 0.0, 0.0))
    assert agent.last_plan is not None
    assert float(agent.last_plan.terms["region"]) == 0.0
    assert float(agent.last_plan.actions.abs().max()) < 0.05


def test_every_picture_proposes_its_part(observe: Observe) -> None:
    asked: list[tuple[list[float], int]] = []

    class Asking(PointMass):
        def propose(self, latent: Any, goal: torch.Tensor, n: int, generator: Any = None) -> torch.Tensor:
            asked.append((goal[0].tolist(), n))
            return torch.rand(1, n, 2, 3, generator=generator)

    goals = at(observe, NEAR, FAR, (0.0, 0.5, 0.0))
    CEM(horizon=3, proposal_share=0.5).plan(Asking(), torch.zeros(1, 3), Goal.any_of(goals), Budget(20, 1))
    assert [n for _, n in asked] == [4, 3, 3]
    np.testing.assert_allclose([goal for goal, _ in asked], [NEAR, FAR, (0.0, 0.5, 0.0)], atol=1e-6)
    asked.clear()
    CEM(horizon=3, within_prior=1.0).plan(Asking(), torch.zeros(1, 3), Goal.any_of(goals), Budget(20, 1))
    np.testing.assert_allclose(asked[0][0], NEAR, atol=1e-6)  # what it is confined to is one middle, the nearest's
    Prior(horizon=2).plan(Asking(), torch.zeros(1, 3), Goal.any_of(goals[::-1]), Budget(1, 1))
    np.testing.assert_allclose(asked[-1][0], NEAR, atol=1e-6)
    with pytest.raises(ValueError, match="planner prior goes by a goal picture; a region alone shows none"):
        Prior().plan(Asking(), torch.zeros(1, 3), Goal.region([0.1]), Budget(1, 1))


def test_a_brain_that_watches_corrects_every_picture(observe: Observe) -> None:
    class Watching(PointMass):
        def watch(self, goal: torch.Tensor) -> Sight:
            return Sight(goal)

    shown = [{"observation.images.front": observe(*place)["observation.images.front"]} for place in (NEAR, FAR)]
    told = Goal.from_observation(observe(0.9, 0.9, 0.9))
    agent = MPC(Watching(), PLANNER, Goal.any_of([*map(Goal.from_observation, shown), told]), BUDGET)
    agent.act(observe())  # the first look takes each for another place: 0.4 too far in x
    assert agent.asked is not None
    assert isinstance(agent.asked[1], Targets)
    seen = agent.asked[1].each[0].latents
    np.testing.assert_allclose(seen[:, 0], [NEAR[0] + 0.4, FAR[0] + 0.4, 0.9], atol=0.01)
    np.testing.assert_allclose(run(agent, observe, 5), NEAR, atol=0.06)


def test_several_goals_and_regions_on_the_way(observe: Observe) -> None:
    route = [Goal.any_of(at(observe, (0.0, 0.9, 0.0), (0.0, -0.4, 0.0))), Goal.region([0.3, -0.5], [0.4, -0.3])]
    agent = MPC(Sensing(), PLANNER, *at(observe, (0.6, 0.3, 0.0)), BUDGET, route=route, rule=Rule(arrived=0.3))
    place, passed, world = torch.zeros(1, 3), [], Sensing()
    for _ in range(14):
        unit = world.action_space.to_unit(torch.from_numpy(agent.act(observe(*place[0].tolist()))))
        passed += agent.events()
        place = world.predict(place, unit[None, None, None])[:, 0, 0]
    assert [words.partition(",")[0] for words in passed] == ["sub-goal 1 of 2 is reached", "sub-goal 2 of 2 is reached"]
    np.testing.assert_allclose(place[0], [0.6, 0.3, 0.0], atol=0.06)


def test_the_landscape_asks_what_the_search_asked(observe: Observe) -> None:
    goal = Goal.any_of(at(observe, NEAR, FAR)).within([None, None, 0.2], [None, None, 0.4])
    agent = MPC(Sensing(), PLANNER, goal, BUDGET)
    agent.act(observe())
    assert agent.last_plan is not None
    assert agent.asked is not None
    seen = survey(Sensing(), *agent.asked, PLANNER.objective, agent.last_plan.actions[0], grid=2)
    assert seen.cost == pytest.approx(float(agent.last_plan.cost[0]), rel=1e-5)


# -- regions -----------------------------------------------------------------------------------------------------------


def test_a_region_alone_is_reached(observe: Observe) -> None:
    goal = Goal.region([0.4, None, 0.2], [0.6, -0.3, 0.2])
    for planner in (PLANNER, Hybrid(horizon=3), CEM(horizon=3, within_prior=1.0)):
        agent = MPC(Sensing(), planner, goal, BUDGET)
        x, y, g = run(agent, observe, 8)
        assert 0.4 - 0.02 <= x <= 0.6 + 0.02
        assert y <= -0.3 + 0.02
        assert abs(g - 0.2) < 0.03
        assert agent.last_plan is not None
        assert "region" in agent.last_plan.terms
        assert not {"learned", "feature", "state"} & set(agent.last_plan.terms)  # there is no picture to go by
    assert "region" in Hold(horizon=2).plan(Sensing(), torch.zeros(1, 3), goal, Budget(1, 1)).terms


def test_a_region_besides_keeps_the_arm_within(observe: Observe) -> None:
    goal = at(observe, (0.8, 0.0, 0.0))[0].within(high=[0.5])
    x, y, g = run(MPC(Sensing(), PLANNER, goal, BUDGET), observe, 6)
    assert 0.4 < x < 0.52
    assert max(abs(y), abs(g)) < 0.15  # as near to the goal as the region lets it


def test_what_a_region_costs() -> None:
    latents = torch.tensor([[[[0.0, 0.0, 0.0], [0.2, 0.0, 9.0]]]])
    low, high = torch.tensor([[0.5, -1.0]]), torch.tensor([[0.6, -0.1]])  # the third number is free
    cost = RegionDistance(final=3.0, summed=1.0, low=low, high=high)(Sensing(), latents, torch.zeros(1, 1, 2, 3), low)
    first, last = (0.5 + 0.1) / 0.5 / 3, (0.3 + 0.1) / 0.5 / 3
    torch.testing.assert_close(cost, torch.tensor([[first + 4 * last]]))
    nowhere = RegionDistance()(PointMass(), latents, torch.zeros(1, 1, 2, 3), low)
    assert float(nowhere) == 0.0


def test_the_weight_of_a_region_is_the_objective_s(observe: Observe) -> None:
    (goal,) = at(observe, NEAR)
    heavy = Objective(learned=LearnedDistance(), region=RegionDistance(final=1e3, summed=0.0))
    plan = CEM(horizon=3, objective=heavy).plan(Sensing(), torch.zeros(1, 3), goal.within([0.9], [0.9]), Budget(64, 4))
    assert list(plan.terms) == ["learned", "region"]
    away = 0.9 - float(plan.imagined[0, -1, 0])
    assert float(plan.terms["region"]) == pytest.approx(1e3 * away / 0.5 / 3, rel=1e-4)


def test_a_brain_without_a_state_of_its_own_refuses_a_region() -> None:
    for model in (PointMass(), Blind()):
        with pytest.raises(ValueError, match=f"{model.name} does not imagine the arm's state"):
            PLANNER.plan(model, torch.zeros(1, 3), Goal.region([0.1]), BUDGET)
    with pytest.raises(ValueError, match="the region has 4 numbers, the state of sensing 3"):
        PLANNER.plan(Sensing(), torch.zeros(1, 3), Goal.region([None, None, None, 0.1]), BUDGET)


@pytest.mark.parametrize(
    ("low", "high", "sentence"),
    [
        ([0.2], [0.1], "number 0 of the region has low 0.2 and high 0.1"),
        ([0.2], [0.3, 0.4], "1 lows and 2 highs"),
        ([None], [math.nan], "bounds nothing"),
        (None, None, "bounds nothing"),
        (["a"], None, "list of numbers, null where free"),
        (0.1, None, "list of numbers"),
    ],
)
def test_what_is_no_region_is_refused(low: Any, high: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Goal.region(low, high)


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=5))
def test_outside_is_how_far_one_has_to_go(numbers: list[tuple[float, float, float]]) -> None:
    low, high = [min(n[:2]) for n in numbers], [max(n[:2]) for n in numbers]
    state = [n[2] for n in numbers]
    away = Region.of(low, high).outside(state)
    assert all(a >= 0 for a in away)
    nearest = [min(max(s, lo), hi) for s, lo, hi in zip(state, low, high, strict=True)]
    np.testing.assert_allclose(away, np.abs(np.subtract(state, nearest)), atol=1e-6)


def test_what_cannot_be_combined_is_refused(observe: Observe) -> None:
    one, two = at(observe, NEAR, FAR)
    for make, sentence in (
        (lambda: Goal.any_of([]), "the list is empty"),
        (lambda: Goal.any_of([one, Goal.region([0.1])]), "one picture or observation each"),
        (lambda: Goal.mean_of([one, two], [1.0]), "give one above 0 for each"),
        (lambda: Goal.mean_of([one, two], [1.0, 0.0]), "give one above 0 for each"),
        (lambda: Goal.any_of([Goal.stack([one, two]), Goal.stack([one] * 3)]), "for 2 and 3 environments"),
        (lambda: one.within([0.1]).within([0.2]), "has a region already"),
    ):
        with pytest.raises(ObservationError, match=sentence):
            make()
    each = Goal.any_of([Goal.stack([one, two]), two])
    assert [len(wish.observations) for wish in each.wishes] == [2, 2]


def test_a_record_keeps_all_of_a_goal(observe: Observe) -> None:
    one, two = at(observe, NEAR, FAR)
    kept = Goal.any_of([one, two]).within([0.1], [0.2]).record()
    assert sorted(kept) == [
        "2/observation.images.front", "2/observation.state", "observation.images.front", "observation.state",
        "region.high", "region.low",
    ]  # fmt: skip
    assert one.record().keys() == one.observations[0].keys()
    assert list(Goal.region([0.1]).record()) == ["region.low", "region.high"]
