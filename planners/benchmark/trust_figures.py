"""What a judgement of a model is made of: figures with intervals and verdicts, and one batched way to ask a brain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from planners.benchmark.stats import Estimate
from planners.benchmark.trust_episodes import Held
from planners.observation import IMAGES
from worldmodel.interface import WorldModel

# So many latents at once: a large brain's are large.
_CHUNK = 64
NOT_OFFERED = "not offered"


@dataclass(frozen=True)
class Figure:
    """One figure of the table.

    Attributes:
        question: the part of the judgement it belongs to.
        name: what it is, in words.
        value, low, high: with its 95 % interval over episodes; None where the brain offers nothing to measure.
        n: what it was measured on: rollouts, steps, moments or pairs.
        unit: behind the value.
        against: what it is held against: a bar that was asked for, or what knowing nothing would give.
        bar: whether `against` was asked for.
        better: `higher` or `lower`; empty where nothing is better.
        note: a word instead of a verdict.
    """

    question: str
    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    unit: str = ""
    against: float | None = None
    bar: bool = False
    better: str = "higher"
    note: str = ""

    @property
    def verdict(self) -> str:
        """In words: of a bar, by the value; of knowing nothing, by the whole interval."""
        if self.value is None or self.low is None or self.high is None or self.against is None:
            return self.note
        sign = 1 if self.better == "higher" else -1
        value, low, high = sorted_by(sign, self.value, self.low, self.high, self.against)
        if self.bar:
            open_ = ", within doubt" if low < 0 <= high else ""
            return ("met" if value >= 0 else "missed") + open_
        return "better" if low > 0 else "worse" if high < 0 else "no different"

    def to_dict(self) -> dict[str, Any]:
        """For `model.json`."""
        return {**asdict(self), "verdict": self.verdict}


def sorted_by(sign: int, value: float, low: float, high: float, against: float) -> tuple[float, float, float]:
    """How far a value and the ends of its interval lie on the better side of `against`: (value, worst, best)."""
    ends = sorted((sign * (low - against), sign * (high - against)))
    return sign * (value - against), ends[0], ends[1]


def figure(question: str, name: str, estimate: Estimate, n: int, **words: Any) -> Figure:
    """A figure of an estimate; one that cannot be had (NaN) says so."""
    if not np.isfinite([estimate.value, estimate.low, estimate.high]).all():
        return Figure(question, name, None, n=n, note="nothing to measure it on")
    return Figure(question, name, estimate.value, estimate.low, estimate.high, n, **words)


def not_offered(question: str, name: str, why: str) -> Figure:
    """A line that stays empty, and why."""
    return Figure(question, name, None, note=f"{NOT_OFFERED}: {why}")


@dataclass
class Answer:
    """What one question came to: figures for the table, curves (lists of numbers by name) for the plots."""

    figures: list[Figure] = field(default_factory=list)
    curves: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """Held-out episodes as one brain encodes them.

    Attributes:
        episodes: the E episodes, all of T steps.
        latents: (E, T + 1, *L).
        actions: (E, T, A) in [-1, 1].
    """

    episodes: Sequence[Held]
    latents: Tensor
    actions: Tensor

    @classmethod
    def by(cls, model: WorldModel, episodes: Sequence[Held]) -> Seen:
        """Encode every frame of every episode."""
        count, length = len(episodes), len(episodes[0].poses)
        frames = {
            key: np.concatenate([held.observations[key] for held in episodes]) for key in episodes[0].observations
        }
        latents = encode(model, frames)
        physical = torch.from_numpy(np.stack([held.actions for held in episodes]))
        actions = model.action_space.to_unit(physical).to(model.device)
        return cls(episodes, latents.reshape(count, length, *latents.shape[1:]), actions)

    @property
    def steps(self) -> int:
        """T."""
        return self.actions.shape[1]


def encode(model: WorldModel, frames: Mapping[str, np.ndarray], keys: Sequence[str] | None = None) -> Tensor:
    """Observations with leading axis N -> latents (N, *L); of what the brain requires, `keys` alone where given."""
    wanted = list(model.required_keys if keys is None else keys)
    missing = [key for key in wanted if key not in frames]
    if missing:
        shown = ", ".join(key for key in frames if key.startswith(IMAGES)) or "no picture"
        raise ValueError(f"the model {model.name} needs {missing[0]}, the world shows {shown}; set cameras=")
    with torch.inference_mode():
        parts = [
            model.encode({key: torch.from_numpy(frames[key][at : at + _CHUNK]) for key in wanted})
            for at in range(0, len(frames[wanted[0]]), _CHUNK)
        ]
        latents = torch.cat(parts)
    return _sound(model, latents, "makes NaN of what it sees")


def imagine(model: WorldModel, latents: Tensor, actions: Tensor) -> Tensor:
    """(N, *L), actions (N, S, H, A) in [-1, 1] -> futures (N, S, H, *L)."""
    with torch.inference_mode():
        parts = [
            model.predict(latents[at : at + _CHUNK], actions[at : at + _CHUNK].clamp(-1.0, 1.0))
            for at in range(0, len(latents), _CHUNK)
        ]
        return _sound(model, torch.cat(parts), "imagines NaN or infinity in futures of real episodes")


def apart(model: WorldModel, latents: Tensor, others: Tensor) -> np.ndarray:
    """Feature distance of (N, *X, *L) to (N, *L): (N, *X) float64."""
    with torch.inference_mode():
        return _sound(model, model.feature_distance(latents, others), "measures NaN").double().cpu().numpy()


def _sound(model: WorldModel, values: Tensor, what: str) -> Tensor:
    if not torch.isfinite(values).all():
        raise ValueError(f"the model {model.name} {what}; there is nothing to trust")
    return values
