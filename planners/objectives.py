"""What makes one imagined future better than another: a sum of named terms, each reported by itself.

A term is a callable (model, latents (B, S, H, *L), actions (B, S, H, A), goal (B, *L)) -> cost (B, S). Along the
horizon a distance counts `final` times at the last step and `summed` times at every step: the end says where to go,
the sum says to hurry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from worldmodel.interface import WorldModel


class Term(Protocol):
    """One reason to prefer a future."""

    def __call__(self, model: WorldModel, latents: Tensor, actions: Tensor, goal: Tensor) -> Tensor:
        """(B, S, H, *L), (B, S, H, A), (B, *L) -> (B, S)."""
        ...


class Objective:
    """A sum of terms, each by its name.

    >>> Objective(go=FeatureDistance(), smooth=SmoothnessPenalty(0.1)).names
    ('go', 'smooth')
    """

    def __init__(self, **terms: Term | None) -> None:
        self.terms: dict[str, Term] = {name: term for name, term in terms.items() if term is not None}
        if not self.terms:
            raise ValueError("an objective needs at least one term, for example learned=LearnedDistance()")

    @property
    def names(self) -> tuple[str, ...]:
        """What the terms are called."""
        return tuple(self.terms)

    def __call__(self, model: WorldModel, latents: Tensor, actions: Tensor, goal: Tensor) -> dict[str, Tensor]:
        """Cost of every future by term, each (B, S); the cost is their sum."""
        return {name: term(model, latents, actions, goal) for name, term in self.terms.items()}

    def __repr__(self) -> str:
        return f"Objective({', '.join(f'{name}={term}' for name, term in self.terms.items())})"


@dataclass(frozen=True)
class LearnedDistance:
    """Steps still to go, by the brain's own estimate: it knows detours that no picture shows."""

    final: float = 1.0
    summed: float = 0.2

    def __call__(self, model: WorldModel, latents: Tensor, actions: Tensor, goal: Tensor) -> Tensor:
        if self.summed == 0.0:
            return self.final * model.distance(latents[:, :, -1], goal)
        return _along(model.distance(latents, goal), self.final, self.summed)


@dataclass(frozen=True)
class FeatureDistance:
    """Mean squared distance of features: blind to detours, exact at the end."""

    final: float = 1.0
    summed: float = 0.0

    def __call__(self, model: WorldModel, latents: Tensor, actions: Tensor, goal: Tensor) -> Tensor:
        if self.summed == 0.0:
            return self.final * model.feature_distance(latents[:, :, -1], goal)
        return _along(model.feature_distance(latents, goal), self.final, self.summed)


@dataclass(frozen=True)
class StateDistance:
    """The arm's own pose against the one the goal picture shows: exact where a picture is coarse."""

    final: float = 1.0
    summed: float = 0.0

    def __call__(self, model: WorldModel, latents: Tensor, actions: Tensor, goal: Tensor) -> Tensor:
        measured = latents[:, :, -1] if self.summed == 0.0 else latents
        distance = model.state_distance(measured, goal)
        if distance is None:  # a brain without a sense of its own pose
            return actions.new_zeros(actions.shape[:2])
        return self.final * distance if self.summed == 0.0 else _along(distance, self.final, self.summed)


@dataclass(frozen=True)
class ActionPenalty:
    """Effort: the mean square of the actions."""

    weight: float = 0.01

    def __call__(self, model: WorldModel, latents: Tensor, actions: Tensor, goal: Tensor) -> Tensor:
        return self.weight * actions.square().mean((2, 3))


@dataclass(frozen=True)
class SmoothnessPenalty:
    """Jerk: the mean square of the change from one action to the next."""

    weight: float = 0.01

    def __call__(self, model: WorldModel, latents: Tensor, actions: Tensor, goal: Tensor) -> Tensor:
        if actions.shape[2] < 2:
            return actions.new_zeros(actions.shape[:2])
        return self.weight * actions.diff(dim=2).square().mean((2, 3))


@dataclass(frozen=True)
class UncertaintyPenalty:
    """Doubt beyond what the brain is trusted with, at the worst step of a future; 1 is the calibrated quantile."""

    weight: float = 1.0
    trusted: float = 1.0

    def __call__(self, model: WorldModel, latents: Tensor, actions: Tensor, goal: Tensor) -> Tensor:
        doubt = model.uncertainty(latents)
        if doubt is None:
            return actions.new_zeros(actions.shape[:2])
        return self.weight * torch.relu(doubt - self.trusted).amax(-1)


def default_objective() -> Objective:
    """The learned distance to find the way, features and the arm's own pose to arrive: together they do best."""
    return Objective(learned=LearnedDistance(), feature=FeatureDistance(final=10.0), state=StateDistance(final=60.0))


def _along(distance: Tensor, final: float, summed: float) -> Tensor:
    """(B, S, H) -> (B, S)."""
    return final * distance[..., -1] + summed * distance.sum(-1)
