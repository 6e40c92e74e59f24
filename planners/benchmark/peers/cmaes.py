"""cmaes: CMA-ES, and its separable kind, which learns one variance a number: ask and tell, with bounds and a seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from planners.benchmark.peers.asked import Asked


def full(asked: Asked, settings: Mapping[str, Any]) -> Tensor:
    """(H, A) the best that was seen; settings: spread, population."""
    from cmaes import CMA  # type: ignore[import-not-found]

    return _asked_and_told(CMA, asked, settings)


def separable(asked: Asked, settings: Mapping[str, Any]) -> Tensor:
    """The same without correlations."""
    from cmaes import SepCMA  # type: ignore[import-not-found]

    return _asked_and_told(SepCMA, asked, settings)


def _asked_and_told(kind: Any, asked: Asked, settings: Mapping[str, Any]) -> Tensor:
    """In units of our spread per dimension; the futures are divided into populations of its own size."""
    unit = np.tile(asked.std.double().cpu().numpy(), asked.horizon)
    population = max(2, min(settings["population"], asked.budget))
    optimizer = kind(
        mean=np.zeros(len(unit)), sigma=settings["spread"], bounds=np.stack([-1.0 / unit, 1.0 / unit], 1), seed=asked.seed,
        population_size=population,
        # So many numbers are never all within bounds: drawn once, then clipped.
        n_max_resampling=1,
    )  # fmt: skip
    best, best_cost = np.zeros(len(unit)), np.inf
    for _ in range(asked.budget // population):
        drawn = np.stack([optimizer.ask() for _ in range(population)])
        actions = torch.as_tensor(drawn * unit, dtype=torch.float32, device=asked.device)
        costs = asked.cost(actions.view(population, asked.horizon, asked.size)).cpu().numpy().astype(float)
        optimizer.tell([(x, cost) for x, cost in zip(drawn, costs, strict=True)])
        if costs.min() < best_cost:
            best, best_cost = drawn[costs.argmin()] * unit, float(costs.min())
    return torch.as_tensor(best, dtype=torch.float32, device=asked.device).view(asked.horizon, asked.size)
