"""A gripper's schedules as branches: open or close from some step on, each searched beside the others, never averaged.

The mean of "close now" and "open now" is to do nothing, so no Gaussian can believe in both. Each branch therefore has a
belief and bounds of its own, and its bounds leave the gripper no room: what is sampled, proposed or followed down
within them keeps the schedule. The futures are shared out evenly at first; after each population the worse half of the
branches is dropped, for each environment its own. All branches hear the same noise, so they differ by the schedule alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from planners.belief import Belief, Memory
from planners.books import best_of
from planners.curves import Curve
from planners.plan import Plan
from planners.search import Search
from worldmodel.interface import WorldModel

# A branch believes in at least so many of its futures: a spread of fewer is no spread.
LEAST_ELITES = 4


@dataclass(frozen=True, kw_only=True)
class Schedules:
    """Which schedules are tried.

    Attributes:
        dimension: the number of the action that is scheduled, by its name in the action space or its place.
        starts: when to close or to open, as shares of the horizon: 0 now, 0.5 halfway. One that keeps the gripper as it
            is is always tried, and one that does as the last plan did (or, within the prior, as it proposes).
    """

    dimension: str | int = "dgripper"
    starts: tuple[float, ...] = (0.0, 0.5)

    def __post_init__(self) -> None:
        sound = isinstance(self.starts, tuple) and all(isinstance(start, int | float) for start in self.starts)
        if not sound or not self.starts or not all(0.0 <= start < 1.0 for start in self.starts):
            raise ValueError(
                f"schedules.starts is {self.starts}; each is a share of the horizon, 0 or more and below 1"
            )

    def column(self, model: WorldModel) -> int:
        """Where the scheduled number stands in an action of the model."""
        names = model.action_space.names
        if isinstance(self.dimension, str) and self.dimension in names:
            return names.index(self.dimension)
        if isinstance(self.dimension, int) and -len(names) <= self.dimension < len(names):
            return self.dimension % len(names)
        raise ValueError(
            f"schedules.dimension is {self.dimension!r}; the model {model.name} acts in ({', '.join(names)}), "
            "choose one of these, or schedules=null"
        )

    def begin(
        self, column: int, curve: Curve, rest: Tensor, known: tuple[tuple[str, ...], Tensor] | None, *, keep: int
    ) -> Forked:
        """All branches, for rest (B, H, A) and plans already known: what to call each of B, and their points (B, P, A)."""
        still = rest[:, : curve.points, column]
        words, schedules = ["keep"], [still]
        point, block = torch.arange(curve.points, device=rest.device), curve.block.tolist()
        for first in dict.fromkeys(int(start * curve.points) for start in self.starts):
            step = block.index(first)
            for word, value in (("close", 1.0), ("open", -1.0)):
                words.append(f"{word} now" if step == 0 else f"{word} from step {step}")
                schedules.append(still.where(point < first, value))
        each = [tuple(words)] * len(rest)
        if known is not None:
            each = [(*words, word) for word in known[0]]
            schedules.append(known[1][..., column])
        return Forked(tuple(each), torch.stack(schedules, 1), column, keep)


@dataclass
class _Memory:
    """The best of each branch."""

    elites: Tensor
    elite_costs: Tensor


class Branches:
    """How a search is divided; not at all, where nothing is scheduled. B environments of K branches are B * K rows."""

    count = 1

    def rows(self, belief: Belief, low: Tensor, high: Tensor, most: int) -> tuple[Belief, Tensor, Tensor]:
        """Belief and bounds (B, P, A), once for each branch: (B * K, P, A); at most so many branches, the first ones."""
        return belief, low, high

    def spread(self, values: Tensor) -> Tensor:
        """What is the same for all branches of an environment, (B, *X) -> (B * K, *X)."""
        return values

    def join(self, points: Tensor) -> Tensor:
        """(B * K, n, P, A) -> (B, n * K, P, A): of every branch its first, then its second: no deadline is unfair."""
        return points

    def part(self, costs: Tensor) -> Tensor:
        """The inverse, for costs (B, n * K) -> (B * K, n)."""
        return costs

    def learn(self, points: Tensor, costs: Tensor, elites: int, search: Search) -> tuple[Tensor, Memory]:
        """Remember a population (B * K, n, P, A); costs and memory of which only a branch's share of the elites counts."""
        return costs, search

    def narrow(self, most: int, belief: Belief, low: Tensor, high: Tensor) -> tuple[Belief, Tensor, Tensor]:
        """Keep the better half of the branches, at most so many, and their rows."""
        return belief, low, high

    def of_elites(self, bound: Tensor, search: Search) -> Tensor:
        """A bound (B, P, A) for each of the elites, (B, elites, P, A): each keeps the schedule of its own branch."""
        return bound[:, None].expand_as(search.elites)

    def named(self, plan: Plan, curve: Curve) -> Plan:
        """The plan with the word of the branch it comes from."""
        return plan


class Forked(Branches):
    """The branches still tried: K of them for each of B environments, as B * K rows, an environment's side by side.

    Args:
        words: of each of B environments, what its K schedules are called.
        schedules: (B, K, P) the values that the scheduled number takes.
        column: which number of an action that is.
        keep: how many of its best futures a branch remembers.
    """

    def __init__(self, words: tuple[tuple[str, ...], ...], schedules: Tensor, column: int, keep: int) -> None:
        self.words, self.count = words, schedules.shape[1]
        self._schedules, self._column, self._keep = schedules, column, keep
        # Where the last plan's schedule is one of the others, it need not be tried twice.
        same = (schedules[:, :, None] == schedules[:, None]).all(-1)
        self._twin = same.tril(-1).any(-1)
        self._memory: _Memory | None = None

    def rows(self, belief: Belief, low: Tensor, high: Tensor, most: int) -> tuple[Belief, Tensor, Tensor]:
        self.count = min(self.count, most)
        schedule = self._schedules[:, : self.count].flatten(0, 1)
        self._twin = self._twin[:, : self.count]
        low, high = self.spread(low).clone(), self.spread(high).clone()
        mean, std = self.spread(belief.mean).clone(), self.spread(belief.std).clone()
        low[..., self._column] = high[..., self._column] = mean[..., self._column] = schedule
        std[..., self._column] = 0.0  # a schedule is kept, not searched
        return Belief(mean, std, tuple(self.spread(remembered) for remembered in belief.memory)), low, high

    def spread(self, values: Tensor) -> Tensor:
        return values.repeat_interleave(self.count, 0)

    def join(self, points: Tensor) -> Tensor:
        return points.unflatten(0, (-1, self.count)).transpose(1, 2).flatten(1, 2)

    def part(self, costs: Tensor) -> Tensor:
        return costs.unflatten(1, (-1, self.count)).transpose(1, 2).flatten(0, 1)

    def learn(self, points: Tensor, costs: Tensor, elites: int, search: Search) -> tuple[Tensor, Memory]:
        before = self._memory or _Memory(points[:, :0], costs[:, :0])
        memory = best_of(torch.cat([before.elites, points], 1), torch.cat([before.elite_costs, costs], 1), self._keep)
        self._memory = _Memory(*memory)
        if self.count == 1:
            return costs, self._memory
        share = max(LEAST_ELITES, math.ceil(elites / self.count))
        return _cheapest(costs, share), _Memory(self._memory.elites, _cheapest(self._memory.elite_costs, share))

    def narrow(self, most: int, belief: Belief, low: Tensor, high: Tensor) -> tuple[Belief, Tensor, Tensor]:
        wanted = min((self.count + 1) // 2, most)
        if wanted == self.count or self._memory is None:
            return belief, low, high
        best = self._memory.elite_costs[:, 0].unflatten(0, (-1, self.count))
        chosen = best.masked_fill(self._twin, math.inf).argsort(dim=1, stable=True)[:, :wanted]
        row = torch.arange(len(chosen), device=chosen.device)[:, None]
        self._twin = self._twin[row, chosen]
        index = (row * self.count + chosen).flatten()
        self._memory = _Memory(self._memory.elites[index], self._memory.elite_costs[index])
        self.count = wanted
        memory = tuple(remembered[index] for remembered in belief.memory)
        return Belief(belief.mean[index], belief.std[index], memory), low[index], high[index]

    def of_elites(self, bound: Tensor, search: Search) -> Tensor:
        bounds = bound[:, None].repeat(1, search.elites.shape[1], 1, 1)
        bounds[..., self._column] = search.elites[..., self._column]
        return bounds

    def named(self, plan: Plan, curve: Curve) -> Plan:
        block = curve.block.to(plan.actions.device)
        schedules = self._schedules.index_select(-1, block)
        chosen = (plan.actions[:, None, :, self._column] == schedules).all(-1).int().argmax(1)
        return replace(
            plan, branch=tuple(words[index] for words, index in zip(self.words, chosen.tolist(), strict=True))
        )


def _cheapest(costs: Tensor, n: int) -> Tensor:
    """Costs (B, S) with all but the n cheapest infinite: not to be believed in."""
    if costs.shape[1] <= n:
        return costs
    believed, index = costs.topk(n, dim=1, largest=False)
    return torch.full_like(costs, math.inf).scatter(1, index, believed)
