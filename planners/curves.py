"""Fewer numbers to search: a plan of H steps from P points, each held for some steps or bent into a curve.

Both are linear: actions are a fixed matrix times the points. So the belief, its noise and its bounds live where the
points do, a slope comes back through the matrix, and only what imagines sees actions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

SPLINES = ("linear", "cubic")


@dataclass(frozen=True)
class Curve:
    """How P points become H actions and back. X any axes, A action.

    Attributes:
        bend: (H, P) the weight of each point in each action.
        unbend: (P, H) its least-squares inverse that keeps the first action.
        block: (H,) which point's turn a step is, for what is held and not bent.
        nearest: (P,) the step at which a point is felt most.
        held: every dimension is held from point to point.
        stepped: a dimension that is held though the others are bent: a gripper's schedule has no slopes. None for none.
        within: bounds of the actions, two (B, 1, H, A), where [-1, 1] is too wide.
    """

    bend: Tensor
    unbend: Tensor
    block: Tensor
    nearest: Tensor
    held: bool
    stepped: int | None = None
    within: tuple[Tensor, Tensor] | None = None

    @property
    def points(self) -> int:
        """P."""
        return self.bend.shape[1]

    @property
    def same(self) -> bool:
        """Whether every action is a point of its own."""
        return len(self.block) == self.points

    def on(self, device: torch.device) -> Curve:
        """The same on a device: nothing need be carried there while it is used."""
        if self.bend.device == device:
            return self
        with torch.inference_mode(False):
            bend, unbend, block, nearest = (
                part.to(device) for part in (self.bend, self.unbend, self.block, self.nearest)
            )
        return replace(self, bend=bend, unbend=unbend, block=block, nearest=nearest)

    def expand(self, points: Tensor) -> Tensor:
        """(*X, P, A) -> actions (*X, H, A) in [-1, 1]."""
        if self.same:
            return points
        block = self.block.to(points.device)
        if self.held:
            actions = points.index_select(-2, block)
        else:
            # A cubic swings beyond its points.
            actions = _mixed(self.bend, points).clamp(-1.0, 1.0)
            if self.stepped is not None:
                actions[..., self.stepped] = points[..., self.stepped].index_select(-1, block)
        if self.within is not None:
            low, high = (bound.clone() for bound in self.within)  # made where slopes may be taken, or they cannot be
            actions = actions.clamp(low, high)
        return actions

    @property
    def unbounded(self) -> Curve:
        """The same without bounds of the actions."""
        return replace(self, within=None)

    def kept_within(self, low: Tensor, high: Tensor) -> Curve:
        """The same with bounds of the actions, both (B, H, A); what is held apart from the others is not theirs."""
        low, high = low.clone(), high.clone()
        if self.stepped is not None:
            low[..., self.stepped], high[..., self.stepped] = -1.0, 1.0
        return replace(self, within=(low[:, None], high[:, None]))

    def fit(self, actions: Tensor) -> Tensor:
        """(*X, H, A) -> the points (*X, P, A) in [-1, 1] whose actions are nearest, the first action kept exactly.

        It is the first action that will be carried out: were it only near, every new plan would begin with a jump.
        """
        if self.same:
            return actions
        points = _mixed(self.unbend, actions).clamp(-1.0, 1.0)
        if self.stepped is not None:
            points[..., self.stepped] = self.at_points(actions)[..., self.stepped]
        return points

    def at_points(self, actions: Tensor) -> Tensor:
        """(*X, H, A) -> (*X, P, A): what is said of the steps at which the points are felt, unmixed."""
        if self.same:
            return actions
        nearest = self.nearest.to(actions.device)
        chosen = actions.index_select(-2, nearest)
        if self.stepped is not None and not self.held:
            count = torch.arange(self.points, device=self.block.device)
            first = torch.searchsorted(self.block, count).to(actions.device)
            chosen[..., self.stepped] = actions[..., self.stepped].index_select(-1, first)
        return chosen


@cache
def make_curve(horizon: int, repeat: int = 1, knots: int | None = None, spline: str = "linear") -> Curve:
    """The curve of a planner's settings.

    >>> make_curve(5, repeat=2).expand(torch.tensor([[1.0], [0.0], [-1.0]])).flatten().tolist()
    [1.0, 1.0, 0.0, 0.0, -1.0]
    >>> make_curve(5, knots=2).expand(torch.tensor([[0.0], [1.0]])).flatten().tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    check_curve(horizon, repeat, knots, spline)
    steps = np.arange(horizon)
    if knots is None:
        block = steps // repeat
        count = int(block[-1]) + 1
        bend = np.eye(count)[block]
        nearest = np.searchsorted(block, np.arange(count))
    else:
        count, block = knots, steps * knots // horizon
        where = np.linspace(0.0, horizon - 1, count)
        nearest = np.rint(where).astype(int)
        bend = _linear(steps, where) if spline == "linear" else _cubic(steps, where)
    unbend = np.zeros((count, horizon))
    unbend[0, 0] = 1.0  # the first point is the first action
    if count > 1:
        others = np.linalg.pinv(bend[:, 1:])
        unbend[1:] = others
        unbend[1:, 0] -= others @ bend[:, 0]
    with torch.inference_mode(False):  # whatever is made in it has no part in slopes
        return Curve(
            torch.tensor(bend, dtype=torch.float32), torch.tensor(unbend, dtype=torch.float32),
            torch.tensor(block), torch.tensor(nearest), held=knots is None,
        )  # fmt: skip


def check_curve(horizon: int, repeat: int, knots: int | None, spline: str) -> None:
    """Refuse what no plan can be made of."""
    for name, value in (("repeat", repeat), ("knots", knots)):
        if not isinstance(value, int | None) or isinstance(value, bool):
            raise ValueError(f"{name} is {value!r}; it is a whole number")
    if not 1 <= repeat <= horizon:
        raise ValueError(f"repeat is {repeat}; an action is held for 1 to {horizon} steps, the horizon")
    if knots is not None and repeat != 1:
        raise ValueError(f"repeat is {repeat} and knots {knots}; hold actions or bend them, one of the two")
    if knots is not None and not 2 <= knots <= horizon:
        raise ValueError(f"knots is {knots}; a curve has 2 to {horizon} of them, the horizon, or null for none")
    if spline not in SPLINES:
        raise ValueError(f"spline is {spline!r}; it is {' or '.join(SPLINES)}")


def _mixed(weights: Tensor, values: Tensor) -> Tensor:
    """(M, N) times (*X, N, A), added up in the same order whatever X is: a product of matrices would not promise that."""
    weights = weights.to(values)
    total = weights[:, 0, None] * values[..., :1, :]
    for n in range(1, weights.shape[1]):
        total = total + weights[:, n, None] * values[..., n : n + 1, :]
    return total


def _linear(steps: np.ndarray, where: np.ndarray) -> np.ndarray:
    """(H,), (P,) -> (H, P): straight from point to point."""
    return np.stack([np.interp(steps, where, one) for one in np.eye(len(where))], 1)


def _cubic(steps: np.ndarray, where: np.ndarray) -> np.ndarray:
    """(H,), (P,) -> (H, P): the natural cubic spline through evenly spaced points."""
    count, gap = len(where), where[1] - where[0]
    # How it bends at the points: not at the ends, and smoothly in between.
    smooth, change = np.eye(count), np.zeros((count, count))
    for p in range(1, count - 1):
        smooth[p, p - 1 : p + 2] = (1.0, 4.0, 1.0)
        change[p, p - 1 : p + 2] = (6.0, -12.0, 6.0)
    bends = np.linalg.solve(smooth, change)
    left = np.minimum(steps // gap, count - 2).astype(int)
    u = (steps / gap - left)[:, None]
    v = 1.0 - u
    points = np.eye(count)
    return (
        v * points[left] + u * points[left + 1]
        + ((v**3 - v) * bends[left] + (u**3 - u) * bends[left + 1]) / 6.0
    )  # fmt: skip
