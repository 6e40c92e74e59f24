"""A point that a wall keeps from going straight, and a brain that knows the wall."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from planners import CEM, MPC, Budget, FeatureDistance, Objective
from tests.planners.conftest import PointMass

Observe = Callable[..., dict[str, np.ndarray]]
# The wall is x = 0 from y = -HALF to y = HALF.
HALF, FAR = 0.6, 40.0
START, GOAL = (-0.5, 0.0, 0.0), (0.5, 0.0, 0.0)
# A horizon that does not see round the wall, and a cost that only knows how far it is as the crow flies.
PLANNER = CEM(horizon=3, objective=Objective(go=FeatureDistance(final=1.0, summed=0.1)))
BUDGET = Budget(48, 2)


def blocked(start: Tensor, end: Tensor) -> Tensor:
    """(..., 3), (..., 3) -> (...): whether the straight way crosses the wall."""
    x0, x1 = start[..., 0], end[..., 0]
    share = x0 / torch.where(x0 == x1, torch.ones_like(x0), x0 - x1)
    y = start[..., 1] + share * (end[..., 1] - start[..., 1])
    return (x0 * x1 <= 0) & (x0 != x1) & (y.abs() <= HALF)


class Walled(PointMass):
    """It knows the wall: what leads through it stays where it is, and what is seen through it is far."""

    name = "walled"

    def predict(self, latent: Tensor, actions: Tensor) -> Tensor:
        place, futures = latent[:, None].expand(-1, actions.shape[1], -1), []
        for step in actions.unbind(2):
            moved = place + self.stride * step
            place = torch.where(blocked(place, moved)[..., None], place, moved)
            futures.append(place)
        return torch.stack(futures, 2)

    def distance(self, latents: Tensor, goal: Tensor) -> Tensor:
        there = goal.reshape(len(goal), *[1] * (latents.ndim - 2), -1).expand_as(latents)
        return torch.where(blocked(latents, there), FAR, super().distance(latents, goal))


def walk(agent: MPC, observe: Observe, steps: int, start: tuple[float, ...] = START) -> tuple[np.ndarray, list[str]]:
    """Where the point ends (3,), and the events on the way."""
    place, events, world = torch.tensor([start], dtype=torch.float32), [], Walled()
    for _ in range(steps):
        action = torch.from_numpy(agent.act(observe(*place[0].tolist())))
        events += agent.events()
        place = world.predict(place, world.action_space.to_unit(action)[None, None, None])[:, 0, 0]
    return place[0].numpy(), events
