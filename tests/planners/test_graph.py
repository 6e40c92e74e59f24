"""Ways through what was recorded: found where there are any, honest where there are none, cheap to ask for."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from planners import MPC, Goal, LatentGraph, Rule
from planners.graph import thinned
from tests.planners.walled import BUDGET, GOAL, HALF, PLANNER, START, Observe, Walled, blocked, walk


def recorded(count: int = 400, seed: int = 0) -> Tensor:
    """Places all over the table, as play leaves them."""
    places = 2 * torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) - 1
    places[:, 2] = 0.0
    return places


def at(*place: float) -> Tensor:
    return torch.tensor([place], dtype=torch.float32)


def test_the_way_round_the_wall_is_found_and_walked(observe: Observe) -> None:
    graph = LatentGraph(Walled(), recorded(), spacing=2.0, reach=2.0)
    found = graph.find_way(at(*START), at(*GOAL))
    assert found.words.startswith("found a way of ")
    assert "straight the goal is 40 steps away" in found.words
    way = torch.cat([at(*START), found.latents, at(*GOAL)])
    assert not blocked(way[:-1], way[1:]).any()  # thinned, it still goes round
    goal = Goal.from_observation(observe(*GOAL))
    place, events = walk(MPC(Walled(), PLANNER, goal, BUDGET, route=graph, rule=Rule(arrived=0.5)), observe, 30)
    np.testing.assert_allclose(place, GOAL, atol=0.08)
    assert events[0] == found.words


def test_of_the_brain_few_answers_are_asked() -> None:
    class Counting(Walled):
        answers = 0

        def distance(self, latents: Tensor, goal: Tensor) -> Tensor:
            steps = super().distance(latents, goal)
            self.answers += steps.numel()
            return steps

    model = Counting()
    graph = LatentGraph(model, recorded(300), neighbours=8, memory_mb=0.01)
    assert model.answers == 300 * 8
    model.answers = 0
    graph.find_way(at(*START), at(*GOAL))
    assert model.answers <= 1 + 2 * 4 * 8 + 20  # straight, from the present, to the goal, and once along the way
    # In how many parts it is asked changes nothing.
    whole = LatentGraph(Walled(), recorded(300), neighbours=8)
    torch.testing.assert_close(
        whole.find_way(at(*START), at(*GOAL)).latents, graph.find_way(at(*START), at(*GOAL)).latents
    )


def test_where_no_way_is_known_it_says_why(observe: Observe) -> None:
    left = recorded()[recorded()[:, 0] < -0.3]
    graph = LatentGraph(Walled(), left, spacing=1.0, reach=0.5)
    found = graph.find_way(at(*START), at(*GOAL))
    assert len(found.latents) == 0
    assert found.words.startswith(f"no way to the goal was found: from none of the {len(left)} recorded frames")
    assert found.words.endswith("heading straight for it")
    assert "frames is within 0.5 steps of the present" in graph.find_way(at(0.9, 0.9, 0.0), at(*START)).words
    split = LatentGraph(Walled(), recorded()[recorded()[:, 0].abs() > 0.3], spacing=1.0, reach=0.5)
    assert "hang together too loosely" in split.find_way(at(*START), at(*GOAL)).words
    _, events = walk(MPC(Walled(), PLANNER, Goal.from_observation(observe(*GOAL)), BUDGET, route=graph), observe, 1)
    assert events == [found.words]


def test_a_near_goal_needs_no_sub_goals() -> None:
    found = LatentGraph(Walled(), recorded(), spacing=5.0).find_way(at(*START), at(-0.4, 0.0, 0.0))
    assert len(found.latents) == 0
    assert found.words == "the goal is 0.4 steps away: no sub-goals are needed"


def test_where_the_recording_went_on_there_is_a_way_whatever_the_brain_thinks() -> None:
    class Doubtful(Walled):
        def distance(self, latents: Tensor, goal: Tensor) -> Tensor:
            steps = super().distance(latents, goal)
            return torch.where(steps < 0.3, steps, torch.full_like(steps, math.nan))

    line = torch.stack([torch.linspace(-0.5, 0.5, 11), torch.zeros(11), torch.zeros(11)], 1) + at(0.0, 0.9, 0.0)
    onward = torch.ones(11)
    graph = LatentGraph(Doubtful(), line, onward, spacing=3.0)
    found = graph.find_way(line[:1], line[-1:])
    torch.testing.assert_close(found.latents[:, 0], line[[3, 6, 9], 0])
    onward[5] = math.inf
    assert "too loosely" in LatentGraph(Doubtful(), line, onward, spacing=3.0).find_way(line[:1], line[-1:]).words


def test_what_was_walked_is_better_than_what_is_said_to_be_short() -> None:
    class Mistaken(Walled):
        """It takes what lies below the wall for near to what lies above it, eight steps from anywhere to anywhere."""

        def distance(self, latents: Tensor, goal: Tensor) -> Tensor:
            return super().distance(latents, goal).clamp(max=8.0)

    def row(*places: tuple[float, float]) -> Tensor:
        return torch.tensor([[x, y, 0.0] for x, y in places])

    round_it = row(*[(-0.5, 0.1 * k) for k in range(9)], *[(-0.4 + 0.1 * k, 0.8) for k in range(9)],
                   *[(0.5, 0.8 - 0.1 * k) for k in range(8)])  # fmt: skip
    words: dict[str, Any] = {"spacing": 3.0, "reach": 8.0, "neighbours": 25}
    graph = LatentGraph(Mistaken(), round_it, torch.ones(len(round_it)), **words, trusted=1.0)
    way = graph.find_way(at(*START), at(*GOAL)).latents
    assert way[:, 1].max() > HALF  # it goes round, as the recording did, and not through
    believing = LatentGraph(Mistaken(), round_it, torch.ones(len(round_it)), **words, trusted=100.0)
    assert not (believing.find_way(at(*START), at(*GOAL)).latents[:, 1] > HALF).any()


def test_the_last_leg_may_be_long_where_it_is_shorter_than_straight_ahead() -> None:
    # Nothing recorded is within reach of the goal; the end of the recording sees it, though, and the present does not.
    line = torch.stack([torch.full((9,), -0.5), torch.linspace(0.0, 0.8, 9), torch.zeros(9)], 1)
    graph = LatentGraph(Walled(), line, torch.ones(9), spacing=2.0, reach=2.0)
    found = graph.find_way(at(*START), at(0.5, 0.7, 0.0))
    assert found.words.startswith("found a way of ")
    assert found.latents[-1, 1] >= HALF - 1e-6  # the last of them sees the goal


def test_where_straight_ahead_is_as_good_that_is_what_it_says() -> None:
    line = torch.stack([torch.linspace(-0.5, 0.5, 11), torch.zeros(11), torch.zeros(11)], 1) + at(0.0, 0.9, 0.0)
    found = LatentGraph(Walled(), line, torch.ones(11), spacing=0.5, trusted=100.0).find_way(line[:1], line[-1:])
    assert len(found.latents) == 0
    assert found.words == "straight ahead, 4 steps, is as good as any recorded way"


def test_latents_of_any_shape_will_do() -> None:
    class Tokens(Walled):
        """The same, as a grid of tokens (3, 1)."""

        latent_ndim = 2

        def distance(self, latents: Tensor, goal: Tensor) -> Tensor:
            return super().distance(latents[..., 0], goal[..., 0])

        def feature_distance(self, latents: Tensor, goal: Tensor) -> Tensor:
            return super().feature_distance(latents[..., 0], goal[..., 0])

    words = {"spacing": 2.0, "reach": 2.0}
    flat = LatentGraph(Walled(), recorded(), **words).find_way(at(*START), at(*GOAL))
    grid = LatentGraph(Tokens(), recorded()[..., None], **words).find_way(at(*START)[..., None], at(*GOAL)[..., None])
    assert grid.latents.shape[1:] == (3, 1)
    torch.testing.assert_close(grid.latents[..., 0], flat.latents)


def test_a_graph_of_one_frame_is_a_graph() -> None:
    graph = LatentGraph(Walled(), at(-0.5, 0.7, 0.0), spacing=3.0, reach=4.0)
    assert (len(graph), graph.edges) == (1, 0)
    assert "1 sub-goal over 1 recorded frame," in graph.find_way(at(-0.6, -0.2, 0.0), at(0.3, 0.9, 0.0)).words


@settings(deadline=None)
@given(st.lists(st.floats(0, 5), min_size=1, max_size=20), st.floats(5, 20))
def test_what_is_kept_lies_within_what_a_plan_reaches(steps: list[float], spacing: float) -> None:
    kept = thinned(steps, spacing)
    ends = [-1, *kept, len(steps) - 1]
    assert kept == sorted(set(kept))
    assert all(0 <= node < len(steps) - 1 for node in kept)
    legs = [sum(steps[a + 1 : b + 1]) for a, b in itertools.pairwise(ends)]
    assert all(leg <= spacing + 1e-6 for leg in legs)
    # None could be left out.
    assert all(one + steps[b + 1] > spacing - 1e-6 for one, b in zip(legs[:-1], kept, strict=True))


@pytest.mark.parametrize(
    ("memory", "words", "said"),
    [
        (torch.zeros(0, 3), {}, "at least one"),
        (torch.zeros(4, 3, 1), {}, r"got \(4, 3, 1\)"),
        (torch.tensor([[0.0] * 3, [math.nan] * 3]), {}, "recorded latent 1 has NaN"),
        (torch.zeros(2, 3), {"spacing": 0.0}, "spacing is 0"),
        (torch.zeros(2, 3), {"reach": math.inf}, "reach is inf"),
        (torch.zeros(2, 3), {"neighbours": 0}, "neighbours is 0"),
        (torch.zeros(2, 3), {"onward": torch.zeros(3)}, r"onward should be \(2,\)"),
    ],
)
def test_what_makes_no_graph_is_refused(memory: Tensor, words: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LatentGraph(Walled(), memory, **words)
