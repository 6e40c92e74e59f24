"""Where good actions are thought to be: a Gaussian, and how the brain's learned prior shapes it before anything is tried."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from planners.targets import Aimed, Targets
from worldmodel.interface import WorldModel

# Draws by which the prior's middle and spread are known.
PRIOR_DRAWS = 64
PRIOR_NEAREST = 16


class Belief(NamedTuple):
    """Where good actions are thought to be: a Gaussian per step and dimension, both (B, H, A).

    Where a search bends few points into many actions, the steps are those points. An algorithm may remember more of its
    own from one refit to the next, each of it (B, *X), a row an environment; at first there is nothing.
    """

    mean: Tensor
    std: Tensor
    memory: tuple[Tensor, ...] = ()


class Memory(Protocol):
    """The best an algorithm has tried so far."""

    @property
    def elites(self) -> Tensor:
        """(B, K, H, A), best first."""
        ...

    @property
    def elite_costs(self) -> Tensor:
        """(B, K)."""
        ...


def proposals(model: WorldModel, latent: Tensor, goal: Aimed, n: int, generator: torch.Generator) -> Tensor | None:
    """What the prior proposes, (B, n, K, A): each environment is asked alone and with the same noise.

    Of several pictures of a goal each is asked for its part; who has none, or does not know where it is, is proposed nothing:
    NaN.
    """
    seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
    rows: list[Tensor | None] = []
    for b in range(len(latent)):
        if not torch.isfinite(latent[b]).all():
            rows.append(None)  # where it is, is not known
            continue
        wanted = goal.each[b].pictures if isinstance(goal, Targets) else (goal[b : b + 1],)
        parts = []
        for number, one in enumerate(wanted):
            share = n // len(wanted) + (number < n % len(wanted))
            if not share:
                continue
            noise = torch.Generator(device=generator.device).manual_seed(seed)
            row = model.propose(latent[b : b + 1], one, share, noise)
            if row is None:
                return None
            parts.append(row)
        rows.append(torch.cat(parts, 1) if len(parts) > 1 else parts[0] if parts else None)
    known = next((row for row in rows if row is not None), None)
    if known is None:
        return None
    return torch.cat([torch.full_like(known, math.nan) if row is None else row for row in rows])


def prior_belief(
    model: WorldModel, latent: Tensor, goal: Aimed, horizon: int, generator: torch.Generator
) -> Belief | None:
    """What the prior proposes first, as a belief over its own steps (B, K, A), at most the horizon's.

    A prior may weigh several things to do against each other. Their mean may be none of them, so the spread is that of
    the draws nearest to the first one.

    Returns:
        NaN for whom nothing is proposed: whose goal is a region alone, who does not know where it is, whose prior went mad;
        None where that is everyone.
    """
    # Around one middle: of several pictures that of the nearest, of a mean that of the weightiest.
    aim = goal.headed(model, latent) if isinstance(goal, Targets) else goal
    drawn = proposals(model, latent, aim, PRIOR_DRAWS, generator)
    if drawn is None:
        return None
    away = (drawn[:, 1:, :horizon] - drawn[:, :1, :horizon]).float()
    nearest = away.square().sum((-2, -1)).topk(PRIOR_NEAREST, largest=False).indices
    rows = torch.arange(len(away), device=away.device)[:, None]
    sound = torch.isfinite(drawn).flatten(1).all(1)[:, None, None]
    mean, std = drawn[:, 0, :horizon].float(), away[rows, nearest].square().mean(1).sqrt()
    return Belief(mean.where(sound, math.nan), std.where(sound, math.nan))


def confined(belief: Belief, prior: Belief | None, spreads: float) -> tuple[Belief, Tensor, Tensor, Tensor]:
    """The belief begun at the prior, and bounds (B, H, A) so many spreads around it; beyond its steps all stays open.

    Returns:
        belief, low, high, and who is confined (B,); whom the prior proposes nothing keeps the belief, and all stays open.
    """
    mean, std = belief.mean.clone(), belief.std.clone()
    low, high = -torch.ones_like(mean), torch.ones_like(mean)
    if prior is None:
        return belief, low, high, torch.zeros(len(mean), dtype=torch.bool, device=mean.device)
    steps = slice(prior.mean.shape[1])
    told = torch.isfinite(prior.mean).flatten(1).all(1)
    reach = spreads * prior.std
    for values, near in (
        (mean, prior.mean),
        (std, torch.minimum(0.5 * reach, std[:, steps])),
        (low, (prior.mean - reach).clamp(-1.0, 1.0)),
        (high, (prior.mean + reach).clamp(-1.0, 1.0)),
    ):
        values[:, steps] = torch.where(told[:, None, None], near, values[:, steps])
    return Belief(mean, std), low, high, told


def warm_mean(warm_start: Tensor | None, rest: Tensor, batch: int, horizon: int) -> Tensor:
    """The first mean (B, H, A): the rest of the last plan, then rest (1, 1, A)."""
    mean = rest.repeat(batch, horizon, 1)
    if warm_start is None:
        return mean
    if warm_start.ndim != 3 or warm_start.shape[0] != batch or warm_start.shape[2] != rest.shape[-1]:
        raise ValueError(
            f"warm_start should be ({batch}, steps, {rest.shape[-1]}); its shape is {tuple(warm_start.shape)}"
        )
    if not torch.isfinite(warm_start).all():
        raise ValueError("warm_start has NaN or infinity; start without one")
    steps = min(warm_start.shape[1], horizon)
    mean[:, :steps] = warm_start[:, :steps].to(mean).clamp(-1.0, 1.0)
    return mean


def per_dimension(value: float | Sequence[float], size: int, name: str, like: Tensor) -> Tensor:
    """One number or one per action dimension -> (A,)."""
    numbers = [float(value)] * size if isinstance(value, (int, float)) else [float(v) for v in value]
    if len(numbers) != size:
        raise ValueError(f"{name} has {len(numbers)} numbers, the action {size}; give one number or one per dimension")
    if not all(math.isfinite(v) and v >= 0 for v in numbers):
        raise ValueError(f"{name} is {numbers}; a spread is finite and not negative")
    return like.new_tensor(numbers)
