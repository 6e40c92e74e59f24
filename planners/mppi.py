"""Model-predictive path integral control on the elites, with the spread refitted: better futures weigh more."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from planners.belief import Belief, Memory
from planners.books import best_of
from planners.cem import CEM


@dataclass(frozen=True, kw_only=True)
class MPPI(CEM):
    """Elites weigh by the softmax of minus their cost.

    Attributes:
        temperature: in units of the spread of the elites' costs, so that it means the same for every objective; small
            follows the best future, large is the cross-entropy method.
    """

    temperature: float = 0.5
    momentum: float = 0.0

    def refit(self, belief: Belief, actions: Tensor, costs: Tensor, search: Memory) -> Belief:
        """Weighted mean and spread of the elites."""
        elites, elite_costs = best_of(actions, costs, self.elites)
        best, sound = elite_costs[:, :1], torch.isfinite(elite_costs)
        worst = torch.where(sound, elite_costs, best).amax(1, keepdim=True)
        scale = (self.temperature * (worst - best)).clamp_min(1e-12)
        weights = torch.where(sound, torch.exp((best - elite_costs) / scale), 0.0)
        return self.towards(belief, elites, weights)
