"""The energy landscape around a plan: its cost while the first action is varied, a slice per pair of action dimensions.

A search reports one plan; how wide its valley is, which direction is steep, and whether a better floor lies beside it,
only the surroundings tell. Everything but the two numbers of a slice stays as planned: the other numbers of the first
action, and all later actions. So a slice shows what the first action alone decides, not how well later ones could mend.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from planners.objectives import Objective
from planners.search import Search
from planners.targets import Aimed, matched
from worldmodel.interface import Latent, WorldModel

# A number of the first action is also changed alone by this much of [-1, 1], a tenth of its bound: how steep it is there.
NUDGE = 0.1


@dataclass(frozen=True)
class Landscape:
    """One environment's landscape, as numpy, actions in physical units. A action, P pairs of dimensions, G grid.

    Attributes:
        names: of the A dimensions.
        pairs: P times (i, j), i < j: which dimensions a slice varies.
        axes: (A, G) what a dimension is varied over.
        values: (P, G, G) costs, the first axis along i, the second along j; NaN where a future was unsound.
        chosen: (A,) the plan's first action, and `cost`, the plan's.
        nudged: (A, 2) cost with one dimension a tenth of its bound (`nudges` (A,)) lower and higher; NaN where that is out
            of bounds or was unsound.
        futures: how many were imagined for it.
        ms: wall time it took.
    """

    names: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    axes: np.ndarray
    values: np.ndarray
    chosen: np.ndarray
    cost: float
    nudged: np.ndarray
    nudges: np.ndarray
    futures: int
    ms: float

    @property
    def rises(self) -> np.ndarray:
        """(A,) what a tenth of the bound costs, to the worse side; NaN where neither side is known."""
        known = np.isfinite(self.nudged)
        worse = np.where(known, self.nudged, -np.inf).max(1)
        return np.where(known.any(1), worse - self.cost, np.nan)

    @property
    def lowest(self) -> tuple[float, np.ndarray]:
        """The cheapest cost of all slices and its first action (A,); the plan's own where no cell is cheaper."""
        costs = np.where(np.isfinite(self.values), self.values, np.inf)
        slice_, row, column = np.unravel_index(int(costs.argmin()), costs.shape)
        cheapest = float(costs[slice_, row, column])
        if not cheapest < self.cost:
            return self.cost, self.chosen
        i, j = self.pairs[slice_]
        action = self.chosen.copy()
        action[i], action[j] = self.axes[i, row], self.axes[j, column]
        return cheapest, action


def futures_of(size: int, grid: int) -> int:
    """How many futures a landscape of `size` action dimensions imagines."""
    return size * (size - 1) // 2 * grid**2 + 2 * size + 1


def check_view(grid: int, span: float) -> None:
    """Refuse what no landscape can be made of, before anything is imagined."""
    if grid < 2:
        raise ValueError(f"grid is {grid}; a landscape needs at least 2 points along each dimension")
    if not (span > 0 and math.isfinite(span)):
        raise ValueError(f"span is {span}; it is how far to go to either side in [-1, 1], above 0")


def survey(
    model: WorldModel,
    latent: Latent,
    goal: Aimed,
    objective: Objective,
    actions: Tensor,
    *,
    grid: int = 15,
    span: float = 1.0,
    trusted: float = math.inf,
    memory_mb: float = 256.0,
    clock: Callable[[], float] = time.perf_counter,
) -> Landscape:
    """Imagine the plan with every first action on the slices.

    Nothing is drawn and no gradient is taken: any brain will do, and the same arguments give the same landscape.

    Args:
        model: the brain that imagined the plan.
        latent: (1, *L) where the plan begins.
        goal: (1, *L) where it should lead, or `Targets` for one environment.
        objective: what the search went by.
        actions: (H, A) in [-1, 1], the plan.
        grid: points along each dimension.
        span: how far to go to either side of the plan's first action, in [-1, 1]; the bounds are never left, and 2 reaches
            all of them.
        trusted: what the brain doubts more than this somewhere counts as unsound, as it does in a search that is told so.
        memory_mb: futures are imagined in chunks that keep the latents below this.
        clock: seconds; only for the report.
    """
    check_view(grid, span)
    size = model.action_space.size
    if size < 2:
        raise ValueError(f"{model.name} acts in {size} dimension; a landscape's slices need two")
    if actions.ndim != 2 or actions.shape[1] != size or not torch.isfinite(actions).all():
        raise ValueError(f"the plan should be finite, (steps, {size}); its shape is {tuple(actions.shape)}")
    if len(latent) != 1:
        raise ValueError(f"a landscape is one environment's; the latent is of {len(latent)}")
    began = clock()
    pairs = tuple(itertools.combinations(range(size), 2))
    with torch.inference_mode():
        actions = actions.to(latent.device).clamp(-1.0, 1.0)
        axes = _axes(actions[0], grid, span)
        nudges = _nudged(actions[0])
        first = torch.cat([actions[:1], nudges.flatten(0, 1), _slices(actions[0], axes, pairs).flatten(0, 2)])
        plans = actions.repeat(len(first), 1, 1)
        plans[:, 0] = first.clamp(-1.0, 1.0)
        search = Search(
            model, latent, matched(goal, latent), objective, actions[None],
            keep=1, memory_mb=memory_mb, deadline=math.inf, clock=clock, trusted=trusted,
        )  # fmt: skip
        costs = search.evaluate(plans[None])[0].cpu()
    costs = torch.where(torch.isfinite(costs), costs, torch.nan).numpy()
    around = costs[1 : 1 + 2 * size].reshape(size, 2)
    inside = (nudges.abs() <= 1.0 + 1e-6).all(-1).cpu().numpy()
    space = model.action_space
    return Landscape(
        names=tuple(space.names),
        pairs=pairs,
        axes=space.to_physical(axes.T).T.cpu().numpy(),
        values=costs[1 + 2 * size :].reshape(len(pairs), grid, grid),
        chosen=space.to_physical(actions[0]).cpu().numpy(),
        cost=float(costs[0]),
        nudged=np.where(inside, around, np.nan),
        nudges=NUDGE * 0.5 * (np.array(space.high) - np.array(space.low)),
        futures=len(plans),
        ms=1000 * (clock() - began),
    )


def _axes(first: Tensor, grid: int, span: float) -> Tensor:
    """(A,) -> (A, G): evenly around each number, as far as the bounds allow."""
    low, high = (first - span).clamp(min=-1.0), (first + span).clamp(max=1.0)
    share = torch.linspace(0.0, 1.0, grid, device=first.device)
    return low[:, None] + (high - low)[:, None] * share


def _nudged(first: Tensor) -> Tensor:
    """(A,) -> (A, 2, A): one number a little lower, a little higher; perhaps out of bounds."""
    step = NUDGE * torch.eye(len(first), device=first.device, dtype=first.dtype)
    return first + torch.stack([-step, step], 1)


def _slices(first: Tensor, axes: Tensor, pairs: tuple[tuple[int, int], ...]) -> Tensor:
    """(A,), (A, G) -> (P, G, G, A): first actions of every slice."""
    grid = axes.shape[1]
    varied = first.repeat(len(pairs), grid, grid, 1)
    for slice_, (i, j) in zip(varied, pairs, strict=True):
        slice_[..., i] = axes[i][:, None]
        slice_[..., j] = axes[j]
    return varied
