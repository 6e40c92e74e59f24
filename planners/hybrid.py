"""Sampling finds the valley, slopes go down it: the cross-entropy method, then quasi-Newton steps from its best futures."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from planners.cem import CEM
from planners.plan import Budget
from planners.planner import per_dimension
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

    Two things slopes do badly by themselves. They lead out to where the brain has seen little and its imagination pleases:
    so they are followed only within `reach` of rest, as far as samples go. And they end in the first valley: so who has
    arrived leaps off from the best that was found.

    Attributes:
        explore: part of the budget's futures that is sampled; the rest are slopes, three futures each.
        starts: how many of the best samples are followed down, side by side.
        memory: how many steps back the curvature is learned from.
        longest: bound on a step, in the norm of all actions together.
        reach: slopes are followed so many initial spreads to either side of rest; 0 as far as actions go.
        patience: so many steps in a row that lead nowhere, and a start leaps; 0 never.
        leap: how far, in initial spreads.
    """

    explore: float = 0.15
    starts: int = 3
    memory: int = 8
    longest: float = 1.5
    reach: float = 2.0
    patience: int = 3
    leap: float = 0.6

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
        for name in ("reach", "leap", "patience"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more")

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
        spread = per_dimension(self.initial_std, size, "initial_std", low)
        low, high = self._reached(low[:, :starts], high[:, :starts], search.rest[:, None, :1], spread)
        floor, ceiling = (bound.reshape(batch * starts, -1) for bound in (low, high))
        x = within(search.elites[:, :starts].reshape(batch * starts, -1), floor, ceiling)
        cost, slope = (found.reshape(batch * starts, -1) for found in search.slope(x.view(shape)))
        search.end_iteration()
        curvature = _Curvature(self.memory)
        length, failed = torch.ones_like(cost), torch.zeros_like(cost)
        best, best_cost = x, cost
        # Leaps of their own: all environments take the same, and whoever samples before hears nothing of them.
        noise = torch.Generator(device=x.device).manual_seed(0)
        for _ in range(futures // (STEP_FUTURES * starts) - 1):
            if search.out_of_time:
                break
            # At a bound, and wanting beyond it: that number stays.
            stuck = ((x >= ceiling) & (slope < 0)) | ((x <= floor) & (slope > 0))
            way = curvature.newton(slope.masked_fill(stuck, 0.0)).masked_fill(stuck, 0.0)
            down = (way * slope).sum(1, keepdim=True) > 0
            way = torch.where(down, way, slope.masked_fill(stuck, 0.0))
            way = way * (self.longest / way.norm(dim=1, keepdim=True).clamp_min(TINY)).clamp(max=1.0)
            there = within(x - length * way, floor, ceiling)
            leaps = failed >= (self.patience or math.inf)
            if self.patience:
                apart = torch.randn(1, *shape[1:], generator=noise, device=x.device)
                off = (_best_of_each(best, best_cost, shape) + self.leap * spread * apart).reshape(batch * starts, -1)
                there = torch.where(leaps, within(off, floor, ceiling), there)
            new_cost, new_slope = (found.reshape(batch * starts, -1) for found in search.slope(there.view(shape)))
            search.end_iteration()
            learnt = torch.isfinite(new_cost) & ~leaps
            curvature.forget(leaps)
            curvature.learn(torch.where(learnt, there - x, 0.0), torch.where(learnt, new_slope - slope, 0.0))
            taken = (new_cost < cost) | leaps
            x, slope = torch.where(taken, there, x), torch.where(taken, new_slope, slope)
            cost = torch.where(taken, new_cost, cost)
            length = torch.where(taken, 1.0, SHORTER * length)
            failed = torch.where(taken, 0.0, failed + 1.0)
            best, best_cost = torch.where(cost < best_cost, x, best), torch.minimum(cost, best_cost)

    def _reached(self, low: Tensor, high: Tensor, rest: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds (B, N, P, A) drawn in to the reach around rest; where that leaves no room they stay."""
        if not self.reach:
            return low, high
        nearer_low = torch.maximum(low, rest - self.reach * spread)
        nearer_high = torch.minimum(high, rest + self.reach * spread)
        room = nearer_low <= nearer_high
        return torch.where(room, nearer_low, low), torch.where(room, nearer_high, high)


def within(x: Tensor, floor: Tensor, ceiling: Tensor) -> Tensor:
    """The nearest that lies between both."""
    return torch.minimum(torch.maximum(x, floor), ceiling)


def _best_of_each(x: Tensor, cost: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    """Of points (B * N, H * A) with costs (B * N, 1) each environment's cheapest: (B, 1, H, A), shape (B, N, H, A)."""
    index = cost.view(shape[:2]).argmin(1)
    return x.view(shape)[torch.arange(shape[0], device=x.device), index][:, None]


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

    def forget(self, rows: Tensor) -> None:
        """Where rows (N, 1) are true, what was learned belongs to another place."""
        self.pairs = [(step, change, torch.where(rows, 0.0, inverse)) for step, change, inverse in self.pairs]

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
