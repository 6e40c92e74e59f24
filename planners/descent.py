"""Two ways down: what was found at some points tells where to look next. Rows are points of their own, (N, D)."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

# A step that did not lead down is tried again so much shorter.
SHORTER = 0.35
# The first step has no curvature to go by: so far, in the norm of all numbers together.
FIRST_STEP = 0.3
# How much of the slopes' mean and of their size outlives a step.
MEAN_KEPT, SIZE_KEPT = 0.9, 0.999
TINY = 1e-10


class Way(Protocol):
    """A way down from N points at once."""

    def next(self, tried: Tensor, cost: Tensor, slope: Tensor) -> Tensor:
        """Where to look next (N, D), after costs (N, 1) and slopes (N, D) were found where it was `tried` (N, D)."""
        ...


class Adam:
    """Steps of about one length, whatever the slope's: over ripples, and past points where the brain knows no slope.

    Args:
        rate: (D,) how far a step goes in each number.
        floor, ceiling: (N, D) bounds.
    """

    def __init__(self, rate: Tensor, floor: Tensor, ceiling: Tensor) -> None:
        self._rate, self._floor, self._ceiling = rate, floor, ceiling
        self._mean, self._size = torch.zeros_like(floor), torch.zeros_like(floor)
        self._steps = 0

    def next(self, tried: Tensor, cost: Tensor, slope: Tensor) -> Tensor:
        """One step on, and back within the bounds."""
        self._steps += 1
        self._mean = torch.lerp(slope, self._mean, MEAN_KEPT)
        self._size = torch.lerp(slope.square(), self._size, SIZE_KEPT)
        mean, size = self._mean / (1 - MEAN_KEPT**self._steps), self._size / (1 - SIZE_KEPT**self._steps)
        return within(tried - self._rate * mean / (size.sqrt() + TINY), self._floor, self._ceiling)


class Newton:
    """Projected L-BFGS: what bends smoothly is followed to its bottom in a few steps; who has arrived there leaps off.

    Args:
        floor, ceiling: (N, D) bounds.
        environments: whose points these are, as many for each: a leap starts from the best of one's own.
        spread: (D,) how far a leap goes in each number.
        memory: how many steps back the curvature is learned from.
        longest: bound on a step, in the norm of all numbers together.
        patience: so many steps in a row that lead nowhere, and a point leaps; 0 never.
    """

    def __init__(
        self,
        floor: Tensor,
        ceiling: Tensor,
        *,
        environments: int,
        spread: Tensor,
        memory: int,
        longest: float,
        patience: int,
    ) -> None:
        self._floor, self._ceiling = floor, ceiling
        self._environments, self._spread = environments, spread
        self._longest, self._patience = longest, patience
        self._curvature = _Curvature(memory)
        one = torch.ones_like(floor[:, :1])
        self._x, self._slope = floor, torch.zeros_like(floor)
        self._cost, self._length, self._failed = one * math.inf, one, torch.zeros_like(one)
        self._best, self._best_cost = floor, self._cost
        # As if everybody had just leapt to where it begins: taken whatever it costs, and nothing learned from the way.
        self._leapt = one > 0
        # Leaps of their own: all environments take the same, and whoever samples before hears nothing of them.
        self._noise = torch.Generator(device=floor.device).manual_seed(0)

    def next(self, tried: Tensor, cost: Tensor, slope: Tensor) -> Tensor:
        """A quasi-Newton step from where it was best, shorter where the last was none, or a leap."""
        learnt = torch.isfinite(cost) & ~self._leapt
        self._curvature.forget(self._leapt)
        self._curvature.learn(torch.where(learnt, tried - self._x, 0.0), torch.where(learnt, slope - self._slope, 0.0))
        taken = (cost < self._cost) | self._leapt
        self._x, self._slope = torch.where(taken, tried, self._x), torch.where(taken, slope, self._slope)
        self._cost = torch.where(taken, cost, self._cost)
        self._length = torch.where(taken, 1.0, SHORTER * self._length)
        self._failed = torch.where(taken, 0.0, self._failed + 1.0)
        self._best = torch.where(self._cost < self._best_cost, self._x, self._best)
        self._best_cost = torch.minimum(self._cost, self._best_cost)
        there = self._step()
        self._leapt = self._failed >= (self._patience or math.inf)
        return torch.where(self._leapt, self._leap(), there) if self._patience else there

    def _step(self) -> Tensor:
        x, slope = self._x, self._slope
        # At a bound, and wanting beyond it: that number stays.
        stuck = ((x >= self._ceiling) & (slope < 0)) | ((x <= self._floor) & (slope > 0))
        way = self._curvature.newton(slope.masked_fill(stuck, 0.0)).masked_fill(stuck, 0.0)
        down = (way * slope).sum(1, keepdim=True) > 0
        way = torch.where(down, way, slope.masked_fill(stuck, 0.0))
        way = way * (self._longest / way.norm(dim=1, keepdim=True).clamp_min(TINY)).clamp(max=1.0)
        return within(x - self._length * way, self._floor, self._ceiling)

    def _leap(self) -> Tensor:
        shape = (self._environments, -1, self._best.shape[1])
        index = self._best_cost.view(self._environments, -1).argmin(1)
        rows = torch.arange(self._environments, device=index.device)
        best = self._best.view(shape)[rows, index][:, None]
        count = len(self._best) // self._environments
        apart = torch.randn(1, count, shape[2], generator=self._noise, device=best.device)
        return within((best + self._spread * apart).reshape(self._best.shape), self._floor, self._ceiling)


def within(x: Tensor, floor: Tensor, ceiling: Tensor) -> Tensor:
    """The nearest that lies between both."""
    return torch.minimum(torch.maximum(x, floor), ceiling)


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
