"""Sampling finds the valley, slopes go down it: the cross-entropy method, then quasi-Newton steps from its best futures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from planners.cem import CEM
from planners.plan import Budget
from planners.search import Search

# Futures that one step of one start costs: a future and its gradient.
STEP_FUTURES = 3
# A step that did not lead down is tried again so much shorter.
SHORTER = 0.35
# The first step has no curvature to go by: so far, in the norm of all actions together.
FIRST_STEP = 0.3
TINY = 1e-10


@dataclass(frozen=True, kw_only=True)
class Hybrid(CEM):
    """Projected L-BFGS from several starts, after a few populations of the cross-entropy method.

    A world model can say which way is down; a population has to find out. In a smooth latent space a few dozen slopes
    find better plans than thousands of samples. What slopes cannot do, leave a valley, the populations do before them.

    Attributes:
        explore: part of the budget's futures that is sampled; the rest are slopes, three futures each.
        starts: how many of the best samples are followed down, side by side.
        memory: how many steps back the curvature is learned from.
        longest: bound on a step, in the norm of all actions together.
    """

    explore: float = 0.3
    starts: int = 3
    memory: int = 8
    longest: float = 1.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.explore <= 1.0:
            raise ValueError(f"explore is {self.explore}; it is a share, 0 to 1")
        for name in ("starts", "memory"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.starts > self.elites:
            raise ValueError(f"starts is {self.starts}, elites {self.elites}; only the elites can be followed down")
        if not self.longest > 0:
            raise ValueError(f"longest is {self.longest}; it must be above 0")

    def populations(self, budget: Budget) -> list[int]:
        """Of the sampled part at most as many as the budget says, large enough to choose from; the rest are slopes."""
        step = STEP_FUTURES * self.starts
        wished = max(self.starts, round(self.explore * budget.futures))
        sampled = budget.futures - step * (max(0, budget.futures - wished) // step)
        count = max(1, min(budget.iterations, sampled // (2 * self.elites)))
        return [sampled - (count - 1) * (sampled // count)] + [sampled // count] * (count - 1)

    def descend(self, search: Search, low: Tensor, high: Tensor, futures: int) -> None:
        """Follow the best samples down as far as the futures reach."""
        starts = self.starts
        batch, _, horizon, size = search.elites.shape
        shape = (batch, starts, horizon, size)
        floor, ceiling = (bound[:, :starts].reshape(batch * starts, -1) for bound in (low, high))
        x = search.elites[:, :starts].reshape(batch * starts, -1)
        cost, slope = (found.reshape(batch * starts, -1) for found in search.slope(x.view(shape)))
        search.end_iteration()
        curvature = _Curvature(self.memory)
        length = torch.ones_like(cost)
        for _ in range(futures // (STEP_FUTURES * starts) - 1):
            if search.out_of_time:
                break
            # At a bound, and wanting beyond it: that number stays.
            stuck = ((x >= ceiling) & (slope < 0)) | ((x <= floor) & (slope > 0))
            way = curvature.newton(slope.masked_fill(stuck, 0.0)).masked_fill(stuck, 0.0)
            down = (way * slope).sum(1, keepdim=True) > 0
            way = torch.where(down, way, slope.masked_fill(stuck, 0.0))
            way = way * (self.longest / way.norm(dim=1, keepdim=True).clamp_min(TINY)).clamp(max=1.0)
            there = torch.minimum(torch.maximum(x - length * way, floor), ceiling)
            new_cost, new_slope = (found.reshape(batch * starts, -1) for found in search.slope(there.view(shape)))
            search.end_iteration()
            sound = torch.isfinite(new_cost)
            curvature.learn(torch.where(sound, there - x, 0.0), torch.where(sound, new_slope - slope, 0.0))
            better = new_cost < cost
            x, slope = torch.where(better, there, x), torch.where(better, new_slope, slope)
            cost = torch.where(better, new_cost, cost)
            length = torch.where(better, 1.0, SHORTER * length)


class _Curvature:
    """What the last steps tell of the second derivative, for rows of their own: the two loops of L-BFGS."""

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []

    def learn(self, step: Tensor, change: Tensor) -> None:
        """A step (N, D) and how the slope changed along it; where it bends the wrong way nothing is learned."""
        bend = (step * change).sum(1, keepdim=True)
        good = bend > TINY
        inverse = torch.where(good, 1.0 / bend.clamp_min(TINY), 0.0)
        self.pairs = [*self.pairs, (step, change, inverse)][-self.memory :]

    def newton(self, slope: Tensor) -> Tensor:
        """(N, D) the slope over the curvature."""
        way = slope
        shares = []
        for step, change, inverse in reversed(self.pairs):
            share = inverse * (step * way).sum(1, keepdim=True)
            shares.append(share)
            way = way - share * change
        way = way * self._scale(slope)
        for (step, change, inverse), share in zip(self.pairs, reversed(shares), strict=True):
            way = way + step * (share - inverse * (change * way).sum(1, keepdim=True))
        return way

    def _scale(self, slope: Tensor) -> Tensor:
        """(N, 1) how far a unit of slope leads, by the last good step; at first a short step is tried."""
        scale = FIRST_STEP / slope.norm(dim=1, keepdim=True).clamp_min(TINY)
        for step, change, inverse in self.pairs:
            good = inverse > 0
            newer = (step * change).sum(1, keepdim=True) / change.square().sum(1, keepdim=True).clamp_min(TINY)
            scale = torch.where(good, newer, scale)
        return scale
