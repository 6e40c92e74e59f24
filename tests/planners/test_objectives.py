"""Terms: what each charges, and that a sum is a sum."""

from __future__ import annotations

from typing import Any

import torch

from planners import (
    ActionPenalty,
    FeatureDistance,
    LearnedDistance,
    Objective,
    SmoothnessPenalty,
    UncertaintyPenalty,
    default_objective,
)

GOAL = torch.tensor([[1.0, 0.0, 0.0]])


def futures(point: Any, actions: torch.Tensor) -> torch.Tensor:
    return point().predict(torch.zeros(1, 3), actions)


def test_distances_count_the_end_and_the_way(point: Any) -> None:
    actions = torch.tensor([[[[1.0, 0, 0], [1.0, 0, 0]]]])  # 0.25, then 0.5: distances 3 and 2 steps of 0.25
    latents = futures(point, actions)
    cost = LearnedDistance(final=1.0, summed=0.5)(point(), latents, actions, GOAL)
    torch.testing.assert_close(cost, torch.tensor([[2.0 + 0.5 * (3.0 + 2.0)]]))
    at_the_end = LearnedDistance(final=3.0, summed=0.0)(point(), latents, actions, GOAL)
    torch.testing.assert_close(at_the_end, torch.tensor([[6.0]]))
    squared = FeatureDistance(final=1.0, summed=1.0)(point(), latents, actions, GOAL)
    torch.testing.assert_close(squared, torch.tensor([[(2 * 0.25 + 0.75**2) / 3]]))


def test_penalties_charge_effort_jerk_and_doubt(point: Any) -> None:
    actions = torch.tensor([[[[1.0, 0, 0], [-1.0, 0, 0]], [[1.0, 0, 0], [1.0, 0, 0]]]])
    latents = futures(point, actions)
    effort = ActionPenalty(3.0)(point(), latents, actions, GOAL)
    torch.testing.assert_close(effort, torch.tensor([[1.0, 1.0]]))
    jerk = SmoothnessPenalty(3.0)(point(), latents, actions, GOAL)
    torch.testing.assert_close(jerk, torch.tensor([[4.0, 0.0]]))
    assert SmoothnessPenalty()(point(), latents[:, :, :1], actions[:, :, :1], GOAL).abs().max() == 0
    doubtful = point(doubt=lambda futures: 4.0 * futures[..., 0])
    doubt = UncertaintyPenalty(weight=2.0, trusted=1.0)(doubtful, latents, actions, GOAL)
    torch.testing.assert_close(doubt, torch.tensor([[0.0, 2.0]]))
    assert UncertaintyPenalty()(point(), latents, actions, GOAL).abs().max() == 0


def test_an_objective_reports_every_term_and_leaves_out_none(point: Any) -> None:
    actions = torch.rand(1, 4, 3, 3)
    terms = Objective(go=FeatureDistance(), still=ActionPenalty(), nothing=None)(
        point(), futures(point, actions), actions, GOAL
    )
    assert list(terms) == ["go", "still"]
    assert all(value.shape == (1, 4) for value in terms.values())
    assert default_objective().names == ("learned", "feature", "state")
