"""What every brain answers, and the space of actions it speaks.

A latent is one opaque tensor (B, *L): whoever did not make it may index, gather or repeat its leading axes and nothing
else. So a planner works with vectors, token grids or a simulator's state without knowing which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

Latent = Tensor
Observation = Mapping[str, "Tensor | np.ndarray"]


@dataclass(frozen=True)
class ActionSpace:
    """Physical bounds of an action; brains work in [-1, 1], arms in these units.

    >>> ActionSpace.tabletop().to_physical(torch.tensor([1.0, 0, 0, 0, 0, 0, -1]))[[0, 6]]
    tensor([ 0.0500, -0.5000])
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    names: tuple[str, ...]
    rate_hz: float

    def __post_init__(self) -> None:
        if not len(self.low) == len(self.high) == len(self.names):
            raise ValueError(
                f"an action space needs as many lows ({len(self.low)}) as highs ({len(self.high)}) and "
                f"names ({len(self.names)})"
            )
        for name, low, high in zip(self.names, self.low, self.high, strict=True):
            if not low < high:
                raise ValueError(f"action {name} has low {low} and high {high}; low must be below high")

    @classmethod
    def tabletop(cls) -> ActionSpace:
        """Change of tool position (m), of orientation (rad, extrinsic xyz) and of closedness, at 5 Hz."""
        high = (0.05, 0.05, 0.05, 0.25, 0.25, 0.25, 0.5)
        names = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "dgripper")
        return cls(low=tuple(-h for h in high), high=high, names=names, rate_hz=5.0)

    @property
    def size(self) -> int:
        """Numbers in an action (A)."""
        return len(self.names)

    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Low and high, both (A,), of the type of a tensor and where it lies."""
        return like.new_tensor(self.low), like.new_tensor(self.high)

    def to_physical(self, unit: Tensor, bounds: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """(..., A) in [-1, 1] -> (..., A) in physical units, clamped to the bounds; who does it again and again on an
        accelerator gives those, so that they need not be carried there."""
        low, high = bounds or self.bounds(unit)
        return low + (unit.clamp(-1.0, 1.0) + 1.0) * 0.5 * (high - low)

    def to_unit(self, physical: Tensor) -> Tensor:
        """(..., A) in physical units -> (..., A) in [-1, 1] (beyond it where the action is out of bounds)."""
        low, high = self.bounds(physical)
        return (physical - low) / (high - low) * 2.0 - 1.0

    def check_compatible(self, other: ActionSpace) -> None:
        """Raise with the difference unless the two mean the same actions."""
        if self.names != other.names:
            raise ValueError(
                f"the model acts in ({', '.join(self.names)}), here an action is ({', '.join(other.names)}); "
                "use a model trained for this action space"
            )
        same = np.allclose(self.low, other.low) and np.allclose(self.high, other.high)
        if not same or abs(self.rate_hz - other.rate_hz) > 1e-6:
            raise ValueError(
                f"the model was trained with bounds {self.high} at {self.rate_hz:g} Hz, here they are {other.high} at "
                f"{other.rate_hz:g} Hz; use a model trained for this action space"
            )

    def to_dict(self) -> dict[str, Any]:
        """For a checkpoint's card."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ActionSpace:
        """The inverse of `to_dict`."""
        try:
            return cls(tuple(values["low"]), tuple(values["high"]), tuple(values["names"]), float(values["rate_hz"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is no action space: {dict(values)} ({error})") from None


TABLETOP = ActionSpace.tabletop()


@runtime_checkable
class WorldModel(Protocol):
    """A brain. Shapes: B environments, S samples, H horizon, A action, *L latent, *X any axes."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    @property
    def action_space(self) -> ActionSpace:
        """What its actions mean."""
        ...

    @property
    def device(self) -> torch.device:
        """Where its latents live."""
        ...

    @property
    def required_keys(self) -> tuple[str, ...]:
        """The observation keys `encode` needs to see the present."""
        ...

    @property
    def latent_ndim(self) -> int:
        """How many axes *L has."""
        ...

    def encode(self, observation: Observation) -> Latent:
        """Observation with leading axis B -> (B, *L). A goal may lack `observation.state`."""
        ...

    def predict(self, latent: Latent, actions: Tensor) -> Tensor:
        """(B, *L), actions (B, S, H, A) in [-1, 1] -> S futures for each of B: (B, S, H, *L)."""
        ...

    def distance(self, latents: Tensor, goal: Latent) -> Tensor:
        """(B, *X, *L), (B, *L) -> (B, *X): learned steps to the goal where there is one, else feature distance."""
        ...

    def feature_distance(self, latents: Tensor, goal: Latent) -> Tensor:
        """(B, *X, *L), (B, *L) -> (B, *X): mean squared distance of features."""
        ...

    def state_distance(self, latents: Tensor, goal: Latent) -> Tensor | None:
        """(B, *X, *L), (B, *L) -> (B, *X): mean absolute distance of the arm's own state, or None where none is known."""
        ...

    def propose(self, latent: Latent, goal: Latent, n: int, generator: torch.Generator | None = None) -> Tensor | None:
        """(B, n, K, A) in [-1, 1] drawn from the learned prior, or None; the first is the middle of its kind."""
        ...

    def uncertainty(self, latents: Tensor) -> Tensor | None:
        """(B, *X), at least 0; 1 is the error at the calibrated quantile of held-out data."""
        ...

    def decode(self, latents: Tensor) -> Tensor | None:
        """(B, *X, *L) -> uint8 (B, *X, H, W, 3), for people, or None."""
        ...


@runtime_checkable
class Featured(Protocol):
    """A brain that shows its features, so that they can be compared otherwise than by `feature_distance`."""

    def features(self, latents: Tensor) -> Tensor | None:
        """(B, *X, *L) -> (B, *X, D): what `feature_distance` compares, or None where nothing can be shown."""
        ...


@runtime_checkable
class Proprioceptive(Protocol):
    """A brain that imagines the arm's own state, so that a goal can be given in numbers; not every brain does."""

    def state(self, latents: Tensor) -> Tensor | None:
        """(B, *X, *L) -> (B, *X, P): the numbers of `observation.state` in their units, or None where none are known."""
        ...

    def state_scale(self) -> Tensor:
        """(P,): how far apart two states are that differ by 1 in each number, in its unit; above 0."""
        ...


class GoalSight(Protocol):
    """How a brain sees a goal while it acts: what it sees on the way may tell it how it misread the goal's pictures."""

    def forget(self) -> None:
        """A new beginning."""
        ...

    def see(self, observation: Observation, latent: Latent, rows: Sequence[int], batch: int) -> Latent:
        """The present of the environments `rows` of a batch, observed and encoded (N, *L) -> their goals (N, *L)."""
        ...


@runtime_checkable
class Watchful(Protocol):
    """A brain that sees a goal better the more it sees of its scene; not every brain does."""

    def watch(self, goal: Latent) -> GoalSight | None:
        """A goal (B, *L), or one for all, that was encoded from pictures alone."""
        ...
