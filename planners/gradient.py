"""Slopes alone: steps down through the brain from several beginnings, within bounds."""

from __future__ import annotations

from dataclasses import dataclass

from planners.hybrid import Hybrid
from planners.plan import Budget


@dataclass(frozen=True, kw_only=True)
class Gradient(Hybrid):
    """Adam or projected L-BFGS from the warm start, from rest, from what the prior proposes and from random beginnings.

    Nothing is sampled but the beginnings (a few more than are followed, where the budget does not come out even): where the
    brain is smooth and its valleys few, that is all it takes. Where they are many, `Hybrid` looks for the best of them first.
    """

    explore: float = 0.0
    starts: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.explore:
            raise ValueError(f"explore is {self.explore}; a planner that samples before it follows slopes is hybrid")

    def populations(self, budget: Budget) -> list[int]:
        """The beginnings, and what is too little for another step of all."""
        return [sum(super().populations(budget))]
