"""A goal in numbers: bounds that the arm's own state should lie within."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from worldmodel.interface import Proprioceptive, WorldModel


@dataclass(frozen=True)
class Region:
    """Bounds of `observation.state`, number by number and in its units; infinite where a number is free.

    Angles are numbers like the others: a tool that points down has a roll of pi, not of -pi.

    Attributes:
        low, high: (at most P,); numbers of the state beyond them are free. A point has them equal.

    >>> Region.of([0.4, None, 0.1], [0.5, None, 0.1]).words
    '0.4 to 0.5, free, 0.1'
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of(cls, low: Iterable[float | None] | None, high: Iterable[float | None] | None) -> Region:
        """From bounds as people write them: None or NaN is free, and so is a side that is None as a whole."""
        lows, highs = _numbers(low, "low", -math.inf), _numbers(high, "high", math.inf)
        if lows and highs and len(lows) != len(highs):
            raise ValueError(f"the region has {len(lows)} lows and {len(highs)} highs; give as many, null where free")
        lows = lows or (-math.inf,) * len(highs)
        highs = highs or (math.inf,) * len(lows)
        for index, (least, most) in enumerate(zip(lows, highs, strict=True)):
            if least > most or least == math.inf or most == -math.inf:
                raise ValueError(f"number {index} of the region has low {least:g} and high {most:g}; low comes first")
        if not any(math.isfinite(bound) for bound in (*lows, *highs)):
            raise ValueError("the region bounds nothing; give a low or a high of some number of observation.state")
        return cls(lows, highs)

    @property
    def words(self) -> str:
        """For people."""
        return ", ".join(_said(low, high) for low, high in zip(self.low, self.high, strict=True))

    def outside(self, state: Iterable[float]) -> tuple[float, ...]:
        """How far each bounded-or-free number of a state lies outside, in its unit; 0 within."""
        return tuple(
            max(low - value, value - high, 0.0) for low, high, value in zip(self.low, self.high, state, strict=False)
        )


FREE = Region((), ())


def bounds(regions: Iterable[Region], device: torch.device) -> tuple[Tensor, Tensor]:
    """Lows and highs (B, P) of B regions, P the most numbers that one of them has."""
    many = list(regions)
    size = max(len(region.low) for region in many)

    def padded(values: tuple[float, ...], free: float) -> list[float]:
        return [*values, *[free] * (size - len(values))]

    low = torch.tensor([padded(region.low, -math.inf) for region in many], device=device)
    high = torch.tensor([padded(region.high, math.inf) for region in many], device=device)
    return low, high


def outside(model: WorldModel, latents: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """How far imagined states lie outside bounds, in units of the brain's scale.

    Args:
        model: the brain; one that does not imagine the arm's state is refused.
        latents: (B, *X, *L).
        low, high: (B, K), K at most P.

    Returns:
        (B, *X, P), 0 within.
    """
    state = model.state(latents) if isinstance(model, Proprioceptive) else None
    if state is None:
        raise ValueError(
            f"{model.name} does not imagine the arm's state, so it cannot head for a region of it; give a goal picture, or "
            "take a model that has `state`"
        )
    assert isinstance(model, Proprioceptive)
    size = state.shape[-1]
    if low.shape[1] > size:
        raise ValueError(
            f"the region has {low.shape[1]} numbers, the state of {model.name} {size}; give at most {size}"
        )
    low = torch.nn.functional.pad(low, (0, size - low.shape[1]), value=-math.inf).to(state)
    high = torch.nn.functional.pad(high, (0, size - high.shape[1]), value=math.inf).to(state)
    low, high = (side.reshape(len(side), *[1] * (state.ndim - 2), size) for side in (low, high))
    return (torch.relu(low - state) + torch.relu(state - high)) / model.state_scale().to(state)


def region_of(words: Mapping[str, Any] | None) -> Region | None:
    """From {low: [...], high: [...]} of a configuration; None where neither is said."""
    if words is None or all(words.get(side) is None for side in ("low", "high")):
        return None
    for key in words:
        if key not in ("low", "high"):
            raise ValueError(f"region has no key {str(key)!r}; known are low, high")
    return Region.of(words.get("low"), words.get("high"))


def _numbers(values: Iterable[float | None] | None, name: str, free: float) -> tuple[float, ...]:
    if values is None:
        return ()
    found = []
    if not isinstance(values, Iterable) or isinstance(values, str):
        raise ValueError(f"region.{name} is {values!r}; it is a list of numbers, null where free")
    for value in values:
        if value is not None and (isinstance(value, bool | str) or not hasattr(value, "__float__")):
            raise ValueError(f"region.{name} has {value!r}; it is a list of numbers, null where free")
        found.append(free if value is None or math.isnan(float(value)) else float(value))
    return tuple(found)


def _said(low: float, high: float) -> str:
    if math.isinf(low) and math.isinf(high):
        return "free"
    if low == high:
        return f"{low:g}"
    return (
        f"at most {high:g}" if math.isinf(low) else f"at least {low:g}" if math.isinf(high) else f"{low:g} to {high:g}"
    )
