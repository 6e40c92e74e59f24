"""Random shooting: try many, keep the best. The simplest planner, and the example of how to write one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from planners.belief import Belief, Memory
from planners.planner import SamplingPlanner


@dataclass(frozen=True, kw_only=True)
class RandomShooting(SamplingPlanner):
    """Uniform over the whole space of actions; nothing is learned from one iteration to the next."""

    def noise(self, belief: Belief, n: int, generator: torch.Generator) -> Tensor:
        """Uniform in [-1, 1], (1, n, H, A)."""
        _, horizon, size = belief.mean.shape
        drawn = torch.rand(1, n, horizon, size, generator=generator, device=generator.device)
        return (2.0 * drawn - 1.0).to(belief.mean.device)

    def sample(self, belief: Belief, noise: Tensor) -> Tensor:
        """The noise itself, (B, n, H, A): whatever is believed."""
        return noise.repeat(len(belief.mean), 1, 1, 1)

    def refit(self, belief: Belief, actions: Tensor, costs: Tensor, search: Memory) -> Belief:
        """The best so far becomes the one to beat."""
        return Belief(search.elites[:, 0], belief.std)
