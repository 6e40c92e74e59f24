"""CMA-ES, separable: small populations, and spreads that grow while the way goes straight on and shrink where it turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from planners.belief import Belief, Memory
from planners.books import best_of
from planners.plan import Budget
from planners.planner import SamplingPlanner

# Divides what may be zero.
_TINY = 1e-12


class Rates(NamedTuple):
    """How fast each environment learns, all (B, 1, 1): from how many numbers are searched, and how many futures tell.

    Attributes:
        way: of the way gone by which all spreads grow or shrink, and `damping` of how far they do.
        slow_way: of the way gone by which each number's spread does.
        from_way: how much a number's spread is the slow way's, in one refit.
        from_each: how much it is the better half's.
        chance: how long a way is that leads nowhere.
    """

    way: Tensor
    damping: Tensor
    slow_way: Tensor
    from_way: Tensor
    from_each: Tensor
    chance: Tensor


@dataclass(frozen=True, kw_only=True)
class CMAES(SamplingPlanner):
    """After Ros and Hansen, "A simple modification in CMA-ES achieving linear time and space complexity" (2008).

    One spread a number and no correlations, which so few futures do not tell. A refit believes in the better half of a
    population, the best the most; `elites` is only how many futures a plan reports. What a prior proposes may lie farther
    off than any draw; it counts as the farthest draw there, as in Hansen, "Injecting external solutions into CMA-ES" (2011).

    Attributes:
        population: how many futures before every refit; None takes the budget's samples. So it is where a gripper's
            schedules are searched, among which a small population would have to be shared out.
    """

    min_std: float = 0.0
    proposal_share: float = 0.1
    population: int | None = 12

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.population is not None and self.population < 4:
            raise ValueError(
                f"population is {self.population}; a better half needs 4 or more, null is the budget's samples"
            )

    def populations(self, budget: Budget) -> list[int]:
        """As many as the futures make; the first has what is left over."""
        if self.population is None or self.schedules is not None:
            return super().populations(budget)
        size = min(self.population, budget.futures)
        return [size + budget.futures % size] + [size] * (budget.futures // size - 1)

    def refit(self, belief: Belief, actions: Tensor, costs: Tensor, search: Memory) -> Belief:
        """A step to the better half, and spreads from how far those lie and from the way so far.

        Remembered are that way, in spreads (B, H, A), the same for the spread of each number (B, H, A), and what is still
        missing of the first (B, 1, 1): it begins at 0, shorter than chance would have it.
        """
        mean, std = belief.mean, belief.std
        before = belief.memory or (torch.zeros_like(std), torch.zeros_like(std), torch.ones_like(std[:, :1, :1]))
        way, slow_way, missing = before
        searched = std > 0
        numbers = searched.sum((1, 2), keepdim=True).to(std.dtype).clamp_min(1.0)
        steps, weights = self._better_half(belief, actions, costs)
        steps = within_length(steps, numbers.sqrt() + 2 * numbers / (numbers + 2))
        # So many futures of equal weight would tell as much.
        telling = 1 / weights.square().sum(1).clamp_min(_TINY)
        rates = learning_rates(numbers, telling)
        step = (weights * steps).sum(1)

        way = (1 - rates.way) * way + (rates.way * (2 - rates.way) * telling).sqrt() * step
        missing = missing * (1 - rates.way).square()
        length = way.square().sum((1, 2), keepdim=True).sqrt()
        grown = (rates.way / rates.damping * (length / rates.chance - 1)).clamp_max(1.0).exp()
        # Where all spreads are about to grow, each need not follow as well.
        longest = (1.4 + 2 / (numbers + 1)) * rates.chance * (1 - missing).sqrt()
        calm = (length < longest).to(std.dtype)
        heard = rates.slow_way * (2 - rates.slow_way)
        slow_way = (1 - rates.slow_way) * slow_way + calm * (heard * telling).sqrt() * step
        kept = 1 - rates.from_way - rates.from_each + (1 - calm) * heard * rates.from_way
        each = (weights * steps.square()).sum(1)
        changed = (kept + rates.from_way * slow_way.square() + rates.from_each * each).sqrt()

        spread = torch.where(searched, std * grown * changed, std)
        after = mean + std * step, spread, way, slow_way / changed, missing
        told = weights.sum(1) > 0
        mean, std, *memory = (torch.where(told, new, old) for new, old in zip(after, (mean, std, *before), strict=True))
        return Belief(mean, std, tuple(memory))

    def _better_half(self, belief: Belief, actions: Tensor, costs: Tensor) -> tuple[Tensor, Tensor]:
        """How many spreads the better half lies from the mean, (B, K, H, A), and what each of them weighs, (B, K, 1, 1)."""
        std = belief.std[:, None]
        steps = torch.where(std > 0, (actions - belief.mean[:, None]) / std.clamp_min(_TINY), 0.0)
        half = max(1, actions.shape[1] // 2)
        steps, costs = best_of(steps, costs, half)
        rank = torch.arange(1, half + 1, device=costs.device, dtype=costs.dtype)
        weights = torch.where(torch.isfinite(costs), torch.log((half + 1) / rank), 0.0)
        return steps, (weights / weights.sum(1, keepdim=True).clamp_min(_TINY))[:, :, None, None]


def learning_rates(numbers: Tensor, telling: Tensor) -> Rates:
    """Hansen's, from how many numbers are searched and how many futures tell of them, both (B, 1, 1)."""
    way = (telling + 2) / (numbers + telling + 3)
    damping = 1 + way + 2 * (((telling - 1) / (numbers + 1)).clamp_min(0.0).sqrt() - 1).clamp_min(0.0)
    from_way = 2 / ((numbers + 1.3).square() + telling)
    from_each = ((2 * telling - 1) / ((numbers + 2).square() + telling)).clamp_max(1.0)
    from_each = 2 / telling / (numbers + 2**0.5).square() + (1 - 1 / telling) * from_each
    # A spread a number is less to learn than a matrix of them.
    from_each = torch.minimum((numbers + 2) / 3 * from_each, 1 - from_way)
    chance = numbers.sqrt() * (1 - 1 / (4 * numbers) + 1 / (21 * numbers.square()))
    return Rates(way, damping, 4 / (numbers + 4), from_way, from_each, chance)


def within_length(steps: Tensor, longest: Tensor) -> Tensor:
    """Steps (B, K, H, A), those longer than (B, 1, 1) shortened to it."""
    length = steps.square().sum((2, 3), keepdim=True).sqrt()
    return steps * (longest[:, None] / length.clamp_min(_TINY)).clamp_max(1.0)
