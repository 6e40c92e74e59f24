"""The cross-entropy method: fit a Gaussian to the best futures, sample from it, repeat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from planners.belief import Belief, Memory
from planners.books import best_of
from planners.planner import SamplingPlanner


@dataclass(frozen=True, kw_only=True)
class CEM(SamplingPlanner):
    """All elites count alike.

    Attributes:
        momentum: part of the old mean and spread that survives a refit.
    """

    momentum: float = 0.1

    def refit(self, belief: Belief, actions: Tensor, costs: Tensor, search: Memory) -> Belief:
        """Mean and spread of the elites, moved towards with momentum."""
        elites, elite_costs = best_of(actions, costs, self.elites)
        weights = torch.isfinite(elite_costs).to(elites.dtype)
        return self.towards(belief, elites, weights)

    def towards(self, belief: Belief, elites: Tensor, weights: Tensor) -> Belief:
        """The belief moved towards the weighted elites (B, K, H, A), weights (B, K); where none weighs, it stays."""
        total = weights.sum(1)[:, None, None]
        share = (weights / weights.sum(1, keepdim=True).clamp_min(1e-12))[:, :, None, None]
        mean = (share * elites).sum(1)
        spread = (share * (elites - mean[:, None]).square()).sum(1).sqrt()
        mean = torch.lerp(mean, belief.mean, self.momentum)
        spread = torch.lerp(spread, belief.std, self.momentum)
        return Belief(torch.where(total > 0, mean, belief.mean), torch.where(total > 0, spread, belief.std))
