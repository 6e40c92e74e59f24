"""The agent arrives, repeats itself, begins where it left off, and holds with a reason when it cannot know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from planners import CEM, MPC, Budget, FeatureDistance, Goal, Objective, ObservationError, Plan

PLANNER = CEM(horizon=6, objective=Objective(go=FeatureDistance(final=1.0, summed=0.1)))
BUDGET = Budget(64, 3)
Observe = Callable[..., dict[str, np.ndarray]]


def run(agent: MPC, observe: Observe, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the point ends, and its actions (steps, A)."""
    place, actions = np.zeros(3, np.float32), []
    for _ in range(steps):
        action = agent.act(observe(*place))
        actions.append(action)
        unit = agent.model.action_space.to_unit(torch.from_numpy(action)).numpy()
        place = place + 0.25 * unit
    return place, np.stack(actions)


def test_it_arrives(point: Any, observe: Observe) -> None:
    agent = MPC(point(), PLANNER, Goal.from_observation(observe(0.6, -0.5, 0.2)), BUDGET)
    place, actions = run(agent, observe, 8)
    np.testing.assert_allclose(place, [0.6, -0.5, 0.2], atol=0.06)
    assert actions.dtype == np.float32
    assert (np.abs(actions) <= np.array([0.1, 0.1, 0.2]) + 1e-6).all()
    assert agent.holds == {}
    assert agent.events() == ()
    assert agent.last_plan is not None


def test_the_same_seed_acts_the_same_and_reset_begins_again(point: Any, observe: Observe) -> None:
    goal = Goal.from_observation(observe(0.6, -0.5, 0.2))
    agent = MPC(point(), PLANNER, goal, BUDGET, seed=3)
    first = run(agent, observe, 4)[1]
    agent.reset()
    np.testing.assert_array_equal(first, run(agent, observe, 4)[1])
    np.testing.assert_array_equal(first, run(MPC(point(), PLANNER, goal, BUDGET, seed=3), observe, 4)[1])
    assert not np.array_equal(first, run(MPC(point(), PLANNER, goal, BUDGET, seed=4), observe, 4)[1])


def test_a_search_begins_with_what_was_left_of_the_last(point: Any, observe: Observe) -> None:
    class Spy(CEM):
        starts: list[torch.Tensor | None] = []  # noqa: RUF012

        def plan(self, *args: Any, warm_start: torch.Tensor | None = None, **words: Any) -> Plan:
            self.starts.append(warm_start)
            return super().plan(*args, warm_start=warm_start, **words)

    agent = MPC(point(), Spy(horizon=6), Goal.from_observation(observe(0.6)), BUDGET)
    agent.act(observe())
    assert agent.last_plan is not None
    left = agent.last_plan.actions[:, 1:]
    agent.act(observe(0.25))
    assert Spy.starts[0] is None
    second = Spy.starts[1]
    assert second is not None
    torch.testing.assert_close(second, left)
    agent.set_goal(Goal.from_observation(observe(-0.6)))
    agent.act(observe())
    assert Spy.starts[2] is None


def test_it_acts_for_many_as_for_each(point: Any, observe: Observe) -> None:
    places = [(0.0, 0.0, 0.0), (0.3, 0.3, 0.3), (-0.5, 0.1, 0.0)]
    goals = [Goal.from_observation(observe(*np.roll(place, 1) + 0.2)) for place in places]
    many = MPC(point(), PLANNER, Goal.stack(goals), BUDGET, seed=1)
    singles = [MPC(point(), PLANNER, goal, BUDGET, seed=1) for goal in goals]
    for _ in range(3):
        together = many.act_batch([observe(*place) for place in places])
        for index, single in enumerate(singles):
            np.testing.assert_array_equal(together[index], single.act(observe(*places[index])))


class Sight:
    """Eyes that take the goal for another place, and have told the agent so after the first look."""

    def __init__(self, goal: torch.Tensor) -> None:
        self.goal, self.looks, self.asked = goal, 0, []

    def forget(self) -> None:
        self.looks = 0

    def see(self, observation: Any, latent: torch.Tensor, rows: Any, batch: int) -> torch.Tensor:
        self.asked.append((list(rows), batch, len(latent)))
        self.looks += 1
        wrong = torch.tensor([0.4, 0.0, 0.0]) if self.looks == 1 else torch.zeros(3)
        return self.goal.expand(batch, -1)[list(rows)] + wrong


def test_a_brain_that_watches_says_where_the_goal_is(point: Any, observe: Observe) -> None:
    class Watching(point):  # type: ignore[misc, valid-type]
        def watch(self, goal: torch.Tensor) -> Sight:
            self.sight = Sight(goal)
            return self.sight

    goal = {"observation.images.front": observe(0.4)["observation.images.front"]}
    model = Watching()
    agent = MPC(model, PLANNER, Goal.from_observation(goal), BUDGET)
    place, _ = run(agent, observe, 8)
    np.testing.assert_allclose(place, [0.4, 0.0, 0.0], atol=0.06)
    assert model.sight.looks == 8
    assert agent.asked is not None
    torch.testing.assert_close(agent.asked[1], model.sight.goal)
    agent.reset()
    assert model.sight.looks == 0
    agent.act_batch([observe(np.nan), observe(0.1)])
    assert model.sight.asked[-1] == ([1], 2, 1)
    told = Watching()
    MPC(told, PLANNER, Goal.from_observation(observe(0.4)), BUDGET).act(observe())
    assert not hasattr(told, "sight")  # where the goal came with its state there is nothing to read


def test_nan_in_what_it_sees_makes_it_hold_and_say_so(point: Any, observe: Observe) -> None:
    agent = MPC(point(), PLANNER, Goal.from_observation(observe(0.5)), BUDGET)
    agent.act(observe())
    action = agent.act(observe(np.nan))
    np.testing.assert_array_equal(action, np.zeros(3))
    assert agent.holds == {0: "observation.state has NaN or infinity in dimension 0"}
    assert agent.events() == ("holding: observation.state has NaN or infinity in dimension 0",)
    assert agent.last_plan is None
    assert agent.asked is None
    assert np.abs(agent.act(observe())).max() > 0
    assert agent.holds == {}


def test_one_blind_environment_does_not_stop_the_others(point: Any, observe: Observe) -> None:
    goal = Goal.from_observation(observe(0.5, 0.5))
    agent = MPC(point(), PLANNER, goal, BUDGET)
    actions = agent.act_batch([observe(np.nan), observe(0.1)])
    np.testing.assert_array_equal(actions[0], np.zeros(3))
    np.testing.assert_array_equal(actions[1], MPC(point(), PLANNER, goal, BUDGET).act(observe(0.1)))
    assert agent.planned == (1,)
    assert list(agent.holds) == [0]
    with pytest.raises(ValueError, match="acted for 2 environments and now for 1; call reset"):
        agent.act(observe())


def test_a_brain_that_imagines_only_nan_makes_it_hold(point: Any, observe: Observe) -> None:
    model = point(spoil=lambda actions: torch.ones(actions.shape[:2], dtype=torch.bool))
    agent = MPC(model, PLANNER, Goal.from_observation(observe(0.5)), BUDGET)
    np.testing.assert_array_equal(agent.act(observe()), np.zeros(3))
    assert "no future was finite" in agent.holds[0]
    assert agent.events()[0].startswith("holding: ")


def test_what_will_never_fit_is_refused(point: Any, observe: Observe) -> None:
    agent = MPC(point(), PLANNER, Goal.from_observation(observe(0.5)), BUDGET)
    blind = {"observation.state": np.zeros(3, np.float32)}
    with pytest.raises(ObservationError, match=r"observation.images.front is missing; the observation has nothing"):
        agent.act(blind)
    with pytest.raises(ObservationError, match="should be uint8"):
        agent.act({**observe(), "observation.images.front": np.zeros((16, 16, 3))})


def test_discarded_futures_are_an_event(point: Any, observe: Observe) -> None:
    model = point(spoil=lambda actions: actions[:, :, 0, 0] > 0.8)
    agent = MPC(model, PLANNER, Goal.from_observation(observe(0.5)), BUDGET)
    agent.act(observe())
    assert agent.events()[0].endswith("futures were not finite and were discarded")
