"""What makes one imagined future better than another: a sum of named terms, each reported by itself.

A term is a callable (model, latents (B, S, H, *L), actions (B, S, H, A), goal (B, *L)) -> cost (B, S). Along the
horizon a distance counts `final` times at the last step and `summed` times at every step: the end says where to go,
the sum says to hurry.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from planners.region import outside
from worldmodel.interface import Featured, WorldModel

# Below this a root is flat: its slope at 0 would be infinite.
_TINY = 1e-12


class Term(Protocol):
    """One reason to prefer a future. A term that does not look at the goal may say so, `looks_at_goal = False`: it counts
    where there is no goal picture, too."""

    def __call__(self, model: WorldModel, latents: Tensor, actions: Tensor, goal: Tensor) -> Tensor:
        """(B, S, H, *L), (B, S, H, A), (B, *L) -> (B, S)."""
        ...


MEASURES = ("squared", "l2", "l1", "cosine")


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
    """Distance of features: blind to detours, exact at the end.

    Attributes:
        final, summed: how much it counts at the last step, and at every step.
        measure: `squared` is the mean square of the differences, `l2` its root, `l1` their mean absolute value (what
            V-JEPA 2-AC is published with), `cosine` 1 less the cosine: 0 to 2, blind to length.
    """

    final: float = 1.0
    summed: float = 0.0
    measure: str = "squared"

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise ValueError(f"the measure is {self.measure!r}; known are {', '.join(MEASURES)}")

    def __call__(self, model: WorldModel, latents: Tensor, actions: Tensor, goal: Tensor) -> Tensor:
        if self.summed == 0.0:
            return self.final * self._apart(model, latents[:, :, -1], goal)
        return _along(self._apart(model, latents, goal), self.final, self.summed)

    def _apart(self, model: WorldModel, latents: Tensor, goal: Tensor) -> Tensor:
        """(B, *X, *L), (B, *L) -> (B, *X)."""
        if self.measure == "squared":
            return model.feature_distance(latents, goal)
        if self.measure == "l2":
            return model.feature_distance(latents, goal).clamp_min(_TINY).sqrt()
        shown = model.features(latents) if isinstance(model, Featured) else None
        wanted = model.features(goal) if isinstance(model, Featured) else None
        if shown is None or wanted is None:
            raise ValueError(
                f"{model.name} does not show its features, which the measure {self.measure} compares; take squared or l2, "
                "or a model that has `features`"
            )
        wanted = wanted.reshape(len(wanted), *[1] * (shown.ndim - 2), -1)
        if self.measure == "l1":
            return (shown - wanted).abs().mean(-1)
        return 1.0 - F.cosine_similarity(shown, wanted, dim=-1)


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
class RegionDistance:
    """How far the arm's own state lies outside the region that the goal asks for: 0 within, and where it asks for none.

    The mean over the state's numbers, each in the brain's scale of it. Not squared: the last millimetres must still weigh
    something.

    Attributes:
        final, summed: how much it counts at the last step, and at every step.
        low, high: (B, K) the region's bounds; a search puts in those of its goal.
    """

    final: float = 60.0
    summed: float = 6.0
    low: Tensor | None = field(default=None, compare=False, repr=False)
    high: Tensor | None = field(default=None, compare=False, repr=False)
    looks_at_goal: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not all(bound is None or isinstance(bound, Tensor) for bound in (self.low, self.high)):
            raise ValueError("the bounds of a region come with the goal: region={low: [...], high: [...]}")

    def __call__(self, model: WorldModel, latents: Tensor, actions: Tensor, goal: Tensor) -> Tensor:
        if self.low is None or self.high is None:
            return actions.new_zeros(actions.shape[:2])
        measured = latents[:, :, -1] if self.summed == 0.0 else latents
        away = outside(model, measured, self.low, self.high).mean(-1)
        return self.final * away if self.summed == 0.0 else _along(away, self.final, self.summed)


@dataclass(frozen=True)
class ActionPenalty:
    """Effort: the mean square of the actions."""

    weight: float = 0.01
    looks_at_goal: ClassVar[bool] = False

    def __call__(self, model: WorldModel, latents: Tensor, actions: Tensor, goal: Tensor) -> Tensor:
        return self.weight * actions.square().mean((2, 3))


@dataclass(frozen=True)
class SmoothnessPenalty:
    """Jerk: the mean square of the change from one action to the next."""

    weight: float = 0.01
    looks_at_goal: ClassVar[bool] = False

    def __call__(self, model: WorldModel, latents: Tensor, actions: Tensor, goal: Tensor) -> Tensor:
        if actions.shape[2] < 2:
            return actions.new_zeros(actions.shape[:2])
        return self.weight * actions.diff(dim=2).square().mean((2, 3))


@dataclass(frozen=True)
class UncertaintyPenalty:
    """Doubt beyond what the brain is trusted with, at the worst step of a future; 1 is the calibrated quantile."""

    weight: float = 1.0
    trusted: float = 1.0
    looks_at_goal: ClassVar[bool] = False

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
