"""Goals as planners hold them where one latent is not enough: several pictures of a goal, a region, or both.

A goal that is one picture stays one tensor (B, *L) from end to end. Everything else is `Targets`; a search asks its
objective about one picture after the other and keeps the nearest, or the mean, of the costs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import ClassVar

import torch
from torch import Tensor

from planners.objectives import ActionPenalty, Objective, RegionDistance, Term
from planners.region import FREE, Region, bounds, outside
from worldmodel.interface import Latent, WorldModel


@dataclass(frozen=True)
class Target:
    """One environment's goal as a brain sees it.

    Attributes:
        latents: (K, *L) of its pictures; (0,) where a region alone is wanted.
        weights: of the pictures, their sum 1, where the mean of the costs counts; None where the nearest picture does.
        region: of the arm's state; None where it is free.
    """

    latents: Tensor
    weights: tuple[float, ...] | None = None
    region: Region | None = None

    @property
    def pictures(self) -> tuple[Latent, ...]:
        """Each (1, *L)."""
        return self.latents.split(1) if len(self.latents) else ()


@dataclass(frozen=True)
class Targets:
    """The goals of B environments, or one for all of them; each as if it were alone."""

    each: tuple[Target, ...]

    def __len__(self) -> int:
        return len(self.each)

    def __getitem__(self, rows: slice | Sequence[int]) -> Targets:
        if isinstance(rows, slice):
            return Targets(self.each[rows])
        return Targets(tuple(self.each[row] for row in rows))

    def expand_as(self, latent: Tensor) -> Targets:
        """One for each environment of a latent (B, *L)."""
        return Targets(self.each * len(latent)) if len(self) == 1 else self

    @property
    def most(self) -> int:
        """The most pictures that a goal has."""
        return max(len(target.latents) for target in self.each)

    @property
    def pictured(self) -> bool:
        """Whether every goal has a picture."""
        return all(len(target.latents) for target in self.each)

    def picture(self, number: int, instead: Latent) -> Latent:
        """Everyone's picture of this number, (B, *L): who has fewer shows the first again, who has none the latent
        (B, *L) that is given instead."""
        rows = []
        for row, target in enumerate(self.each):
            at = number if number < len(target.latents) else 0
            rows.append(target.latents[at : at + 1] if len(target.latents) else instead[row : row + 1])
        return torch.cat(rows)

    def heading(self, model: WorldModel, latent: Latent) -> Latent | None:
        """Of every goal one picture (B, *L), the one `headed` keeps; None where one has no picture."""
        if not self.pictured:
            return None
        return torch.cat([target.latents for target in self.headed(model, latent).each])

    def headed(self, model: WorldModel, latent: Latent) -> Targets:
        """Every goal with one picture, or none where it has none: that which the brain thinks nearest to a latent (B, *L),
        or where their mean counts the weightiest."""
        found = []
        for row, target in enumerate(self.each):
            here = latent[row : row + 1]
            steps = [_steps(model, here, one) for one in target.pictures]
            worth = [-away for away in steps] if target.weights is None else target.weights
            chosen = max(range(len(steps)), key=worth.__getitem__, default=0)
            found.append(replace(target, latents=target.latents[chosen : chosen + 1], weights=None))
        return Targets(tuple(found))


Aimed = Tensor | Targets


def together(goals: Sequence[Aimed]) -> Aimed:
    """Goals of one environment each -> of all of them."""
    if all(isinstance(goal, Tensor) for goal in goals):
        return torch.cat([goal for goal in goals if isinstance(goal, Tensor)])
    return Targets(
        tuple(one for goal in goals for one in (goal.each if isinstance(goal, Targets) else (Target(goal),)))
    )


def matched(goal: Aimed, latent: Tensor) -> Aimed:
    """The goals of the environments of latents (B, *L); one goal may serve them all."""
    latents = [goal] if isinstance(goal, Tensor) else [target.latents for target in goal.each if len(target.latents)]
    wrong = [one.shape[1:] for one in latents if one.shape[1:] != latent.shape[1:]]
    if wrong or len(goal) not in (1, len(latent)):
        shape = wrong[0] if wrong else latent.shape[1:]
        raise ValueError(
            f"the goal has shape {(len(goal), *shape)}, the present {tuple(latent.shape)}; encode both with the same "
            "model, one goal for each environment or one for all"
        )
    if isinstance(goal, Tensor):
        return goal.to(latent.device).expand_as(latent)
    return Targets(tuple(replace(one, latents=one.latents.to(latent.device)) for one in goal.each)).expand_as(latent)


def steps_away(model: WorldModel, here: Latent, goal: Aimed) -> float:
    """How far a present (1, *L) is from a goal for one environment: steps by the brain's word, and where there is a region
    at least as many as its worst number lies outside of it, in the brain's scale of it."""
    if isinstance(goal, Tensor):
        return _steps(model, here, goal)
    (target,) = goal.each
    steps = [_steps(model, here, one) for one in target.pictures] or [0.0]
    if target.weights is None:
        away = min(steps)
    else:
        away = sum(weight * one for weight, one in zip(target.weights, steps, strict=True))
    if target.region is not None:
        away = max(away, float(outside(model, here, *bounds([target.region], here.device)).max()))
    return away


def aimed(objective: Objective, goal: Aimed) -> Objective:
    """The objective for these goals: its region term is told the region, and added where it has none."""
    if isinstance(goal, Tensor) or not any(target.region for target in goal.each):
        return objective
    device = goal.each[0].latents.device
    low, high = bounds([target.region or FREE for target in goal.each], device)
    terms = dict(objective.terms)
    if not any(isinstance(term, RegionDistance) for term in terms.values()):
        terms["region"] = RegionDistance()
    if not all(len(target.latents) for target in goal.each):
        with torch.inference_mode(False):  # slopes go through it
            alone = torch.tensor([[not len(target.latents)] for target in goal.each], device=device)
        terms["rest"] = _Rest(alone)
    told = copy.copy(objective)
    told.terms = {
        name: replace(term, low=low, high=high) if isinstance(term, RegionDistance) else term
        for name, term in terms.items()
    }
    return told


def judge(
    objective: Objective, model: WorldModel, latents: Tensor, actions: Tensor, goal: Aimed, present: Latent
) -> dict[str, Tensor]:
    """Cost by term, each (B, S), of futures (B, S, H, *L) of actions (B, S, H, A).

    Where the nearest of several pictures counts, the terms are those of the picture that is cheapest for the future, and so
    sum to its cost. Without a picture the terms that look at one say nothing: they are left out, or zero where others of
    the batch have one.

    Args:
        objective: as `aimed` made it.
        model: the brain.
        latents, actions: the futures.
        goal: (B, *L), or targets of B environments.
        present: (B, *L) where the futures begin.
    """
    if isinstance(goal, Tensor):
        return objective(model, latents, actions, goal)
    looking = [name for name, term in objective.terms.items() if getattr(term, "looks_at_goal", True)]
    others = {name: term for name, term in objective.terms.items() if name not in looking}
    found = _only(objective, others)(model, latents, actions, present) if others else {}
    if not looking or not goal.most:
        return found
    if not goal.pictured:
        # Who has no picture looks at where it is; a distance of nothing has no slope, and must not spoil the others'.
        pictured = torch.tensor([bool(len(target.latents)) for target in goal.each], device=latents.device)
        latents = torch.where(pictured.view(-1, *[1] * (latents.ndim - 1)), latents, latents.detach())
    seen = _only(objective, {name: objective.terms[name] for name in looking})
    asked = [seen(model, latents, actions, goal.picture(k, present)) for k in range(goal.most)]
    if goal.most == 1 and goal.pictured:
        found |= asked[0]
        return {name: found[name] for name in objective.terms}
    totals = torch.stack([reduce(torch.add, terms.values()) for terms in asked])
    chosen = torch.where(torch.isfinite(totals), totals, math.inf).argmin(0, keepdim=True)
    nearest = torch.tensor([[bool(len(t.latents)) and t.weights is None] for t in goal.each], device=latents.device)
    weights = [[_weight(target, k)] for k in range(goal.most) for target in goal.each]
    shares = torch.tensor(weights, device=latents.device).view(goal.most, len(goal), 1)
    for name in looking:
        costs = torch.stack([terms[name] for terms in asked])
        mean = costs[0] * shares[0]
        # In order, so that who else is there changes nothing.
        for cost, share in zip(costs[1:], shares[1:], strict=True):
            mean = mean + cost * share
        found[name] = torch.where(nearest, costs.gather(0, chosen)[0], mean)
    return {name: found[name] for name in objective.terms}


def _only(objective: Objective, terms: dict[str, Term]) -> Objective:
    """The objective with these terms alone."""
    part = copy.copy(objective)
    part.terms = terms
    return part


@dataclass(frozen=True)
class _Rest:
    """Inside a region every way to stay there costs the same, and to rest is the best of them: who has a region alone,
    rows (B, 1), pays a little for effort."""

    rows: Tensor
    looks_at_goal: ClassVar[bool] = False

    def __call__(self, model: WorldModel, latents: Tensor, actions: Tensor, goal: Tensor) -> Tensor:
        return torch.where(self.rows, ActionPenalty()(model, latents, actions, goal), 0.0)


def _weight(target: Target, number: int) -> float:
    """What a picture counts in the mean."""
    if target.weights is None or number >= len(target.latents):
        return 0.0
    return target.weights[number]


def _steps(model: WorldModel, here: Latent, goal: Latent) -> float:
    """One by one: an environment is asked about as if it were alone."""
    return float(model.distance(here[:, None], goal)[0, 0])
