"""The agent on its way over sub-goals: it gets where it could not go straight, and nobody in the batch minds the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from planners import MPC, Budget, Found, Goal, ObservationError, Rule
from tests.planners.test_mpc import Sight
from tests.planners.walled import BUDGET, GOAL, PLANNER, START, Observe, Walled, walk

ROUND = [(-0.2, 0.8, 0.0), (0.2, 0.8, 0.0)]
RULE = Rule(arrived=0.5)


def goals(observe: Observe, places: list[tuple[float, ...]]) -> list[Goal]:
    return [Goal.from_observation(observe(*place)) for place in places]


def test_a_list_of_sub_goals_leads_round_the_wall(observe: Observe) -> None:
    goal = Goal.from_observation(observe(*GOAL))
    straight, _ = walk(MPC(Walled(), PLANNER, goal, BUDGET), observe, 20)
    assert straight[0] < 0  # the wall is between
    place, events = walk(MPC(Walled(), PLANNER, goal, BUDGET, route=goals(observe, ROUND), rule=RULE), observe, 20)
    np.testing.assert_allclose(place, GOAL, atol=0.08)
    assert len(events) == 2
    assert events[0].startswith("sub-goal 1 of 2 is reached, 0.")
    assert events[0].endswith("steps away: on to sub-goal 2 of 2")
    assert events[1].endswith("on to the goal")


def test_a_way_may_be_asked_for_only_when_stuck(observe: Observe) -> None:
    class Round:
        """It knows the way round the wall, and counts who asks."""

        asked = 0

        def find_way(self, latent: torch.Tensor, goal: torch.Tensor) -> Found:
            self.asked += 1
            return Found(torch.tensor(ROUND), "found the way round")

    def agent(finder: Round, to: tuple[float, ...]) -> MPC:
        rule = Rule(arrived=0.5, patience=3, ask="stuck")
        return MPC(Walled(), PLANNER, Goal.from_observation(observe(*to)), BUDGET, route=finder, rule=rule)

    free, walled = Round(), Round()
    walk(agent(free, (-0.5, 0.7, 0.0)), observe, 12)
    assert free.asked == 0  # straight ahead it arrived
    place, events = walk(agent(walled, GOAL), observe, 30)
    np.testing.assert_allclose(place, GOAL, atol=0.08)
    assert walled.asked == 1
    assert events[0].startswith("stuck at the goal, 40.0 steps away")
    assert events[1] == "found the way round"
    with pytest.raises(ValueError, match="ask is 'never'; a way is asked for at the start or when stuck"):
        Rule(ask="never")


def test_without_a_route_nothing_is_asked_and_nothing_changes(point: Any, observe: Observe) -> None:
    class Silent(point):  # type: ignore[misc, valid-type]
        def distance(self, latents: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
            raise AssertionError("nobody wanted to know")

    goal = Goal.from_observation(observe(0.6, -0.5, 0.2))
    plain = MPC(point(), PLANNER, goal, BUDGET, seed=2)
    for route in (None, [], ()):
        agent = MPC(Silent(), PLANNER, goal, BUDGET, seed=2, route=route)
        plain.reset()
        for place in ((0.0, 0.0, 0.0), (0.1, 0.0, 0.0), (0.2, -0.1, 0.0)):
            np.testing.assert_array_equal(agent.act(observe(*place)), plain.act(observe(*place)))
        assert agent.events() == ()


def test_reset_and_a_new_goal_begin_anew(observe: Observe) -> None:
    goal, route = Goal.from_observation(observe(*GOAL)), goals(observe, ROUND)
    agent = MPC(Walled(), PLANNER, goal, BUDGET, route=route, rule=RULE)
    first = walk(agent, observe, 12)
    agent.reset()
    again = walk(agent, observe, 12)
    np.testing.assert_array_equal(first[0], again[0])
    assert first[1] == again[1] != []
    agent.set_goal(goal, route)
    np.testing.assert_array_equal(first[0], walk(agent, observe, 12)[0])
    agent.set_goal(goal)
    assert agent.route is None
    assert walk(agent, observe, 12)[1] == []


def test_an_environment_s_way_does_not_depend_on_the_others(observe: Observe) -> None:
    """Each switches on its own, gets stuck on its own, and acts as if it were alone."""
    starts = [START, (-0.2, 0.7, 0.0), (0.4, -0.4, 0.0)]
    routes = [ROUND, [(-0.2, 0.8, 0.0), (0.3, 0.9, 0.0)], [(-0.4, -0.4, 0.0), (0.5, -0.5, 0.0)]]  # the last: behind it
    finals = goals(observe, [GOAL, (0.6, 0.4, 0.0), (0.5, 0.5, 0.0)])
    rule = Rule(arrived=0.5, patience=2)
    listed = [Goal.stack(goals(observe, [route[k] for route in routes])) for k in range(2)]
    many = MPC(Walled(), PLANNER, Goal.stack(finals), BUDGET, seed=5, route=listed, rule=rule)
    singles = [
        MPC(Walled(), PLANNER, goal, BUDGET, seed=5, route=goals(observe, route), rule=rule)
        for goal, route in zip(finals, routes, strict=True)
    ]
    places, world, told = torch.tensor(starts), Walled(), [0, 0, 0]
    for _ in range(12):
        seen = [observe(*place) for place in places.tolist()]
        actions = many.act_batch(seen)
        for index, single in enumerate(singles):
            np.testing.assert_array_equal(actions[index], single.act(seen[index]))
            assert many.events(index) == single.events()
            told[index] += len(single.events())
        unit = world.action_space.to_unit(torch.from_numpy(actions))
        places = world.predict(places, unit[:, None, None])[:, 0, 0]
    assert all(told)


def test_stuck_it_plans_afresh_and_then_passes_over(observe: Observe) -> None:
    unreachable = goals(observe, [(0.3, 0.0, 0.0)])  # right behind the wall
    goal = Goal.from_observation(observe(-0.6, 0.3, 0.0))
    agent = MPC(Walled(), PLANNER, goal, BUDGET, route=unreachable, rule=Rule(arrived=0.5, patience=3))
    place, events = walk(agent, observe, 20)
    assert events[0].startswith("stuck at sub-goal 1 of 1, 40.0 steps away and no nearer for 3 plans: planning afresh")
    assert events[1].startswith("sub-goal 1 of 1 is passed over, 40.0 steps away")
    assert len(events) == 2
    np.testing.assert_allclose(place, [-0.6, 0.3, 0.0], atol=0.08)


class Known:
    """Whoever knows a way, and better ways later."""

    def __init__(self, *ways: list[tuple[float, ...]]) -> None:
        self.ways, self.asked = list(ways), []

    def find_way(self, latent: torch.Tensor, goal: torch.Tensor) -> Found:
        self.asked.append((latent.tolist(), goal.tolist()))
        way = self.ways[min(len(self.asked), len(self.ways)) - 1]
        return Found(torch.tensor(way).reshape(-1, 3), f"way {len(self.asked)}")


def test_a_found_way_is_found_again_where_it_leads_nowhere(observe: Observe) -> None:
    finder = Known([(0.3, 0.0, 0.0)], ROUND)
    agent = MPC(
        Walled(), PLANNER, Goal.from_observation(observe(*GOAL)), BUDGET, route=finder, rule=Rule(arrived=0.5, patience=3)
    )  # fmt: skip
    place, events = walk(agent, observe, 26)
    assert events[0] == "way 1"
    assert events[1].startswith("stuck at sub-goal 1 of 1")
    assert events[2] == "way 2"
    assert "sub-goal 1 of 2 is reached" in events[3]
    np.testing.assert_allclose(place, GOAL, atol=0.08)
    present, goal = finder.asked[1]
    assert present[0][0] < 0
    assert goal[0] == pytest.approx(GOAL)


def test_a_blind_environment_stays_where_it_is_on_its_way(observe: Observe) -> None:
    agent = MPC(
        Walled(), PLANNER, Goal.from_observation(observe(*GOAL)), BUDGET, route=goals(observe, ROUND), rule=RULE
    )
    there = observe(*ROUND[0])
    agent.act_batch([there, observe(np.nan)])
    assert "sub-goal 1 of 2 is reached" in agent.events(0)[0]
    assert agent.events(1) == ("holding: observation.state has NaN or infinity in dimension 0",)
    agent.act_batch([observe(np.nan), there])
    assert "sub-goal 1 of 2 is reached" in agent.events(1)[0]
    assert len(agent.events(0)) == 1


def test_every_goal_read_off_pictures_has_eyes_of_its_own(point: Any, observe: Observe) -> None:
    class Watching(point):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.sights: list[Sight] = []

        def watch(self, goal: torch.Tensor) -> Sight:
            self.sights.append(Sight(goal))
            return self.sights[-1]

    shown = [{"observation.images.front": observe(x)["observation.images.front"]} for x in (0.2, 0.6)]
    model = Watching()
    first, last = (Goal.from_observation(one) for one in shown)
    agent = MPC(model, PLANNER, last, BUDGET, route=[first, Goal.from_observation(observe(0.4))], rule=RULE)
    final, sub = model.sights  # the sub-goal that came with its state has nothing to read
    agent.act_batch([observe(), observe(0.2)])
    agent.act_batch([observe(0.2), observe(0.2)])
    # The first look is wrong about where it is; the second arrives, and then only who is not yet past it looks.
    assert sub.asked[0] == ([0, 1], 2, 2)
    agent.act_batch([observe(0.4), observe(0.5)])
    assert len(sub.asked) == 2
    assert len(final.asked) == 3
    agent.reset()
    assert (sub.looks, final.looks) == (0, 0)


def test_goals_that_do_not_fit_the_batch_are_refused(observe: Observe) -> None:
    one, two, three = (Goal.stack(goals(observe, [GOAL] * n)) for n in (1, 2, 3))
    with pytest.raises(ObservationError, match="were given for 2 and 3 environments"):
        MPC(Walled(), PLANNER, three, BUDGET, route=[one, two])
    for goal, route in ((two, None), (one, [two])):
        agent = MPC(Walled(), PLANNER, goal, Budget(4, 1), route=route)
        with pytest.raises(ObservationError, match="given for 2 environments, and the agent acts for 3"):
            agent.act_batch([observe()] * 3)
