"""Sampling finds the valley, slopes go down it: the cross-entropy method, then steps down from its best futures."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from planners.belief import per_dimension
from planners.cem import CEM
from planners.descent import Adam, Newton, Way, within
from planners.plan import Budget
from planners.search import SLOPE_FUTURES, Search

# The ways down that slopes can be followed.
STEPS = ("adam", "newton")


@dataclass(frozen=True, kw_only=True)
class Hybrid(CEM):
    """Adam or projected L-BFGS from several starts, after a few populations of the cross-entropy method.

    A world model can say which way is down; a population has to find out: a few dozen slopes find cheaper plans than
    thousands of samples. What slopes do badly, choosing a valley, the populations do before them. They also lead out to
    where the brain has seen little and its imagination pleases: so they are followed only within `reach` of rest, about as
    far as samples go.

    Attributes:
        explore: part of the budget's futures that is sampled; the rest are slopes, three futures each.
        starts: how many of the best samples are followed down, side by side.
        reach: slopes are followed so many initial spreads to either side of rest; 0 as far as actions go.
        steps: `adam`, over the ripples that a learned cost has, or `newton` (L-BFGS), where it is smooth.
        rate: of adam: how far a step goes, in initial spreads.
        memory: of newton: how many steps back the curvature is learned from.
        longest: of newton: bound on a step, in the norm of all actions together.
        patience: of newton: so many steps in a row that lead nowhere, and a start leaps off; 0 never.
        leap: of newton: how far from the best that was found, in initial spreads.
    """

    explore: float = 0.15
    starts: int = 2
    reach: float = 2.0
    steps: str = "adam"
    rate: float = 0.3
    memory: int = 8
    longest: float = 1.5
    patience: int = 3
    leap: float = 0.6

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.explore <= 1.0:
            raise ValueError(f"explore is {self.explore}; it is a share, 0 to 1")
        for name in ("starts", "memory"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.starts > self.elites:
            raise ValueError(f"starts is {self.starts}, elites {self.elites}; only the elites can be followed down")
        if self.steps not in STEPS:
            raise ValueError(f"steps is {self.steps!r}; known are {', '.join(STEPS)}")
        for name in ("rate", "longest"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in ("reach", "leap", "patience"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more")

    def populations(self, budget: Budget) -> list[int]:
        """Of the sampled part at most as many as the budget says, large enough to choose from; the rest are slopes."""
        step = SLOPE_FUTURES * self.starts
        wished = max(self.starts, round(self.explore * budget.futures))
        sampled = budget.futures - step * (max(0, budget.futures - wished) // step)
        count = max(1, min(budget.iterations, sampled // (2 * self.elites)))
        return [sampled - (count - 1) * (sampled // count)] + [sampled // count] * (count - 1)

    def descend(self, search: Search, low: Tensor, high: Tensor, futures: int) -> None:
        """Follow the best samples down as far as the futures reach."""
        starts = self.starts
        batch, _, points, size = search.elites.shape
        shape = (batch, starts, points, size)
        spread = per_dimension(self.initial_std, size, "initial_std", low)
        low, high = self._reached(low[:, :starts], high[:, :starts], search.rest[:, None, :1], spread)
        floor, ceiling = (bound.reshape(batch * starts, -1) for bound in (low, high))
        x = within(search.elites[:, :starts].reshape(batch * starts, -1), floor, ceiling)
        way: Way = Adam(self.rate * spread.repeat(points), floor, ceiling)
        if self.steps == "newton":
            way = Newton(
                floor, ceiling, environments=batch, spread=self.leap * spread.repeat(points),
                memory=self.memory, longest=self.longest, patience=self.patience,
            )  # fmt: skip
        for _ in range(futures // (SLOPE_FUTURES * starts)):
            if search.out_of_time:
                break
            cost, slope = (found.reshape(batch * starts, -1) for found in search.slope(x.view(shape)))
            search.end_iteration()
            x = way.next(x, cost, slope)

    def _reached(self, low: Tensor, high: Tensor, rest: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds (B, N, P, A) drawn in to the reach around rest; where that leaves no room they stay."""
        if not self.reach:
            return low, high
        nearer_low = torch.maximum(low, rest - self.reach * spread)
        nearer_high = torch.minimum(high, rest + self.reach * spread)
        room = nearer_low <= nearer_high
        return torch.where(room, nearer_low, low), torch.where(room, nearer_high, high)
