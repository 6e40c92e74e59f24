"""The books of a search, and how futures are entered in them: a pure function of tensors.

Nothing here looks at what a tensor holds, only at its shape: so an accelerator is never waited for, and a whole iteration
can be traced, compiled or recorded as it stands (`planners.capture`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from planners.curves import Curve
from planners.objectives import Objective
from planners.targets import Aimed, judge
from worldmodel.interface import WorldModel


class Books(NamedTuple):
    """What was found so far. B environments, K elites, P points, H steps, A action.

    Attributes:
        elites: (B, K, P, A) the best points seen, best first.
        elite_costs: (B, K) of them; infinite where there were fewer.
        actions: (B, H, A) the best of all, `cost` (B,) what it costs, `terms` of what, each (B,).
        imagined: (B, H, *L) where it leads.
        discarded: () how many futures were not finite.
        least_doubt: (B,) the smallest doubt of all sound futures; infinite where nobody asked.
    """

    elites: Tensor
    elite_costs: Tensor
    actions: Tensor
    cost: Tensor
    terms: dict[str, Tensor]
    imagined: Tensor
    discarded: Tensor
    least_doubt: Tensor

    @classmethod
    def empty(cls, latent: Tensor, rest: Tensor, points: Tensor, keep: int, names: Sequence[str] = ()) -> Books:
        """Before anything is imagined: at rest, which costs infinitely much.

        Args:
            latent: (B, *L) where the environments are.
            rest: (B, H, A) the actions that hold.
            points: (B, P, A) theirs.
            keep: how many elites are remembered.
            names: of the terms that a cost has.
        """
        batch, horizon, _ = rest.shape
        return cls(
            elites=points[:, None].repeat(1, keep, 1, 1),
            elite_costs=rest.new_full((batch, keep), math.inf),
            actions=rest.clone(),
            cost=rest.new_full((batch,), math.inf),
            terms={name: rest.new_full((batch,), math.inf) for name in names},
            imagined=latent[:, None].repeat(1, horizon, *[1] * (latent.ndim - 1)),
            discarded=torch.zeros((), dtype=torch.long, device=latent.device),
            least_doubt=rest.new_full((batch,), math.inf),
        )

    def with_elites(self, points: Tensor, costs: Tensor) -> Books:
        """The elites from old ones and a population (B, S, P, A) that costs (B, S)."""
        elites, elite_costs = best_of(
            torch.cat([self.elites, points], 1), torch.cat([self.elite_costs, costs], 1), self.elites.shape[1]
        )
        return self._replace(elites=elites, elite_costs=elite_costs)


@dataclass(frozen=True)
class Judge:
    """How points become futures, futures costs, and costs entries.

    Attributes:
        model: the brain.
        objective: cost by term, as `targets.aimed` made it.
        curve: what makes actions (.., H, A) of points (.., P, A).
        trusted: futures that the brain doubts more than this somewhere are not chosen; infinite trusts all.
    """

    model: WorldModel
    objective: Objective
    curve: Curve
    trusted: float = math.inf

    def look(self, books: Books, latent: Tensor, goal: Aimed, points: Tensor) -> tuple[Books, Tensor]:
        """Imagine a chunk (B, C, P, A) and enter its best; costs (B, C), infinite where unsound."""
        actions = self.curve.expand(points)
        latents = self.model.predict(latent, actions)
        return self._enter(books, actions, latents, self._terms(latents, actions, goal, latent))

    def look_at_all(
        self, books: Books, latent: Tensor, goal: Aimed, points: Tensor, chunk: int
    ) -> tuple[Books, Tensor]:
        """The same for a population (B, S, P, A), a chunk at a time, and its elites; costs (B, S)."""
        costs = []
        for part in points.split(chunk, 1):
            books, cost = self.look(books, latent, goal, part)
            costs.append(cost)
        together = costs[0] if len(costs) == 1 else torch.cat(costs, 1)
        return books.with_elites(points, together), together

    def look_with_slope(
        self, books: Books, latent: Tensor, goal: Aimed, points: Tensor
    ) -> tuple[Books, Tensor, Tensor]:
        """As `look`, with the gradients (B, C, P, A); zero where a future is unsound."""
        # What is made in inference mode cannot be differentiated; copies made outside can.
        with torch.inference_mode(False), torch.enable_grad():
            varied = points.clone().requires_grad_()
            actions = self.curve.expand(varied)
            latents = self.model.predict(latent.clone(), actions)
            goal = goal.clone() if isinstance(goal, Tensor) else goal
            terms = self._terms(latents, actions, goal, latent.clone())
            total = reduce(torch.add, terms.values())
            if not total.requires_grad:
                raise ValueError(f"{self.model.name} cannot be differentiated; choose a planner that only samples: cem")
            # Rows do not touch each other, so the sum's gradient holds every row's own.
            (gradient,) = torch.autograd.grad(total.sum(), varied)
        detached = {name: value.detach() for name, value in terms.items()}
        books, cost = self._enter(books, actions.detach(), latents.detach(), detached)
        sound = torch.isfinite(cost) & torch.isfinite(gradient).all(-1).all(-1)
        return books, cost, torch.where(sound[..., None, None], gradient.to(points.dtype), 0.0)

    def _terms(self, latents: Tensor, actions: Tensor, goal: Aimed, present: Tensor) -> dict[str, Tensor]:
        return judge(self.objective, self.model, latents, actions, goal, present)

    def _enter(self, books: Books, actions: Tensor, latents: Tensor, terms: dict[str, Tensor]) -> tuple[Books, Tensor]:
        """Keep the best of a chunk where it beats the best so far."""
        # One after the other: terms that are zero for whom others brought along change no digit.
        cost = reduce(torch.add, terms.values())
        # A sum is finite only if all that is summed is: one pass over the latents, no mask of their size.
        sound = torch.isfinite(cost) & torch.isfinite(latents.flatten(2).sum(-1, dtype=torch.float32))
        discarded, least_doubt = books.discarded + (~sound).sum(), books.least_doubt
        if self.trusted < math.inf and (doubt := self.model.uncertainty(latents)) is not None:
            worst = doubt.amax(-1).to(least_doubt.dtype).nan_to_num(nan=math.inf, posinf=math.inf)
            least_doubt = torch.minimum(least_doubt, worst.masked_fill(~sound, math.inf).amin(1))
            sound = sound & (worst <= self.trusted)
        cost = torch.where(sound, cost.to(actions.dtype), math.inf)
        best, index = cost.min(1)
        better = best < books.cost
        rows = torch.arange(len(index), device=index.device)
        kept = {}
        for name, value in terms.items():
            before = books.terms.get(name)
            new = value[rows, index].to(best.dtype)
            kept[name] = torch.where(better, new, math.inf if before is None else before)
        return books._replace(
            actions=_choose(better, actions[rows, index], books.actions),
            cost=torch.where(better, best, books.cost),
            terms=kept,
            imagined=_choose(better, latents[rows, index], books.imagined),
            discarded=discarded,
            least_doubt=least_doubt,
        ), cost


def best_of(actions: Tensor, costs: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The n cheapest of (B, S, H, A) with costs (B, S), cheapest first: (B, n, H, A), (B, n)."""
    cheapest, index = costs.topk(min(n, costs.shape[1]), dim=1, largest=False)
    rows = torch.arange(len(index), device=index.device)[:, None]
    return actions[rows, index], cheapest


def _choose(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Rows of `yes` where the mask (B,) says so, else of `no`."""
    return torch.where(mask.view(-1, *[1] * (yes.ndim - 1)), yes, no)
