"""CEM with memory and slow noise: actions of nearby steps move together, and what was best stays in the running."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from planners.belief import Belief, Memory
from planners.cem import CEM
from planners.plan import Budget


@dataclass(frozen=True, kw_only=True)
class ICEM(CEM):
    """After Pinneri et al., "Sample-efficient cross-entropy method for real-time planning" (2020).

    Attributes:
        colour: exponent of the noise's spectrum over the horizon, 0 white, 1 pink, 2 brown.
        shrink: each population is this much smaller than the one before; the sum of all stays the budget's.
    """

    colour: float = 1.0
    shrink: float = 1.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shrink < 1.0:
            raise ValueError(f"shrink is {self.shrink}; populations cannot grow, so it is 1 or more")

    def noise(self, belief: Belief, n: int, generator: torch.Generator) -> Tensor:
        """Noise (1, n, H, A) of unit variance whose power falls with frequency."""
        white = super().noise(belief, n, generator)
        return torch.einsum("hk,snka->snha", slow_mixing(white.shape[2], self.colour, white.device), white)

    def refit(self, belief: Belief, actions: Tensor, costs: Tensor, search: Memory) -> Belief:
        """Fit to the best of all iterations so far."""
        return self.towards(belief, search.elites, torch.isfinite(search.elite_costs).to(actions.dtype))

    def populations(self, budget: Budget) -> list[int]:
        """Large at first, small at the end."""
        sizes = [self.shrink**-i for i in range(budget.iterations)]
        free = budget.futures - budget.iterations  # every iteration imagines at least one
        counts = [1 + int(free * size / sum(sizes)) for size in sizes]
        counts[0] += budget.futures - sum(counts)
        return counts


@cache
def slow_mixing(horizon: int, colour: float, device: torch.device) -> Tensor:
    """(H, H): how loudly each step hears the white noise of all others, round the horizon; rows of unit length."""
    with torch.inference_mode(False):  # it is used again, whoever asks first
        frequency = torch.fft.rfftfreq(horizon, device=device).clamp_min(1.0 / horizon)
        ripple = torch.fft.irfft(frequency.pow(-colour / 2).to(torch.complex64), n=horizon)
        steps = torch.arange(horizon, device=device)
        return (ripple / ripple.square().sum().sqrt())[(steps[:, None] - steps) % horizon]
