"""The turns of one search: draw a population, imagine it, learn from it; operation by operation, or captured as one thing.

What a turn does beside drawing is a pure function of tensors, so the two ways differ only in how it is run.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from planners.belief import Belief, Memory
from planners.books import Books, Judge
from planners.branches import Branches
from planners.curves import Curve
from planners.search import Search


class Ground(NamedTuple):
    """Where is searched: bounds of the points, both (B, P, A), and the spread (A,) below which no belief falls."""

    low: Tensor
    high: Tensor
    least: Tensor


class Drawn(NamedTuple):
    """What a population is drawn from.

    Attributes:
        noise: (1, n, P, A), the same for every environment.
        proposed: (B, m, K, A) what the prior proposes, in place of the first m draws; NaN for whom it does not.
        instead: (B, 1, P, A) what some look at in place of their first draw; NaN for the others.
    """

    noise: Tensor
    proposed: Tensor | None
    instead: Tensor | None


class Algorithm(Protocol):
    """What a planner adds to its turns."""

    @property
    def proposal_share(self) -> float:
        """Part of each population that the prior proposes."""
        ...

    @property
    def elites(self) -> int:
        """How many of the best futures it looks at."""
        ...

    def noise(self, belief: Belief, n: int, generator: torch.Generator) -> Tensor:
        """(1, n, P, A)."""
        ...

    def sample(self, belief: Belief, noise: Tensor) -> Tensor:
        """(B, n, P, A)."""
        ...

    def refit(self, belief: Belief, actions: Tensor, costs: Tensor, search: Memory) -> Belief:
        """From (B, n, P, A) that cost (B, n)."""
        ...


class Turns:
    """One turn after the other, operation by operation: between any two of them time can be looked at.

    Args:
        algorithm: how to draw and how to learn.
        search: what has been found so far, and the time that is left.
        branches: how the search is divided.
        belief, ground: where it begins, rows of branches.
        anchors: points (B, 1, P, A) that the first population is to hold.
        instead: points (B, 1, P, A) that those of some are to hold, NaN for the others; None for nobody.
        propose: so many proposals of the prior (B, n, K, A), or None.
        generator: of all noise.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        search: Search,
        branches: Branches,
        belief: Belief,
        ground: Ground,
        anchors: list[Tensor],
        instead: Tensor | None,
        propose: Callable[[int], Tensor | None],
        generator: torch.Generator,
    ) -> None:
        self.search, self.branches, self.ground = search, branches, ground
        self._algorithm, self._belief, self._anchors = algorithm, belief, anchors
        self._instead, self._propose, self._generator = instead, propose, generator
        self._spare = 0

    def take(self, n: int, following: int) -> None:
        """A population of n, with what the one before left over; `following` is the next one's size, 0 after the last."""
        search, branches = self.search, self.branches
        each, self._spare = divmod(n + self._spare, branches.count)
        with search.pace.work("population"):
            drawn = self._draw(each)
            points = points_of(self._algorithm, search.judge.curve, self._belief, drawn, self._anchors, self.ground)
        costs = branches.part(search.evaluate(branches.join(points)))
        if search.out_of_time:
            return
        costs, memory = branches.learn(points, costs, self._algorithm.elites, search)
        belief = learned(self._algorithm, self._belief, points, costs, memory, self.ground)
        most = following + self._spare if following else 1
        belief, low, high = branches.narrow(most, belief, self.ground.low, self.ground.high)
        self._belief, self.ground = belief, self.ground._replace(low=low, high=high)
        self._anchors = [belief.mean[:, None]]
        if not following:
            last = list(self._anchors)
            if self._spare:
                last.append(self._algorithm.sample(belief, self._algorithm.noise(belief, self._spare, self._generator)))
            search.evaluate(torch.cat(last, 1).clamp(low[:, None], high[:, None]))

    def _draw(self, n: int) -> Drawn:
        """All that is random of a population of n, of which the anchors are the first."""
        self._anchors = self._anchors[:n]
        free = n - len(self._anchors)
        noise = self._algorithm.noise(self._belief, free, self._generator)
        wanted = min(round(self._algorithm.proposal_share * n), free)
        proposed = self._propose(wanted) if wanted else None
        instead, self._instead = self._instead if free else None, None  # the first population alone
        return Drawn(noise, proposed, instead)


class WholeTurns(Turns):
    """The same, each run as one thing, for a search that captures: all of it beside what is random. Without branches."""

    def take(self, n: int, following: int) -> None:
        search = self.search
        with search.pace.work("population"):
            drawn = self._draw(n)
            last, chunk = not following, search.most_at_once
            inputs = (self._belief, search.books, drawn, self._anchors, self.ground, search.latent, search.goal)
            whole = partial(turn, self._algorithm, search.judge, chunk, last)
            self._belief, books = search.run(("turn", chunk, last), whole, inputs)
        search.adopt(books, n + last)
        self._anchors = [self._belief.mean[:, None]]


def turn(
    algorithm: Algorithm,
    judge: Judge,
    chunk: int,
    last: bool,
    belief: Belief,
    books: Books,
    drawn: Drawn,
    anchors: list[Tensor],
    ground: Ground,
    latent: Tensor,
    goal: Tensor,
) -> tuple[Belief, Books]:
    """A turn as a pure function of tensors: what is believed and known after a population.

    Args:
        algorithm, judge: how to learn, and how futures are judged.
        chunk: how many futures are imagined at once.
        last: the belief's own middle is often better than any sample: after the last turn it is imagined too.
        belief, books: what was believed and known before.
        drawn, anchors: what the population is made of.
        ground: where is searched.
        latent, goal: (B, *L) both.
    """
    points = points_of(algorithm, judge.curve, belief, drawn, anchors, ground)
    books, costs = judge.look_at_all(books, latent, goal, points, chunk)
    belief = learned(algorithm, belief, points, costs, books, ground)
    if last:
        middle = belief.mean[:, None].clamp(ground.low[:, None], ground.high[:, None])
        books, _ = judge.look_at_all(books, latent, goal, middle, chunk)
    return belief, books


def points_of(
    algorithm: Algorithm, curve: Curve, belief: Belief, drawn: Drawn, anchors: list[Tensor], ground: Ground
) -> Tensor:
    """(B, n, P, A) within bounds: the anchors, what the prior proposes, and the rest drawn from the belief."""
    points, proposed = algorithm.sample(belief, drawn.noise), drawn.proposed
    if proposed is not None:
        # A shorter proposal is continued by the belief, so that the rest of the horizon is searched too.
        wanted = proposed.shape[1]
        # The bounds of a curve are of whole environments, these are rows of branches; they are clamped later.
        actions = curve.unbounded.expand(points[:, :wanted]).clone()
        steps = min(proposed.shape[2], actions.shape[2])
        proposed = proposed[:, :, :steps].to(points.dtype)
        known = torch.isfinite(proposed)
        actions[:, :, :steps] = torch.where(known, proposed, actions[:, :, :steps])
        told = known.flatten(2).any(-1)[..., None, None]
        points[:, :wanted] = torch.where(told, curve.fit(actions), points[:, :wanted])
    if drawn.instead is not None:
        points[:, :1] = torch.where(torch.isfinite(drawn.instead), drawn.instead, points[:, :1])
    return torch.cat([*anchors, points], 1).clamp(ground.low[:, None], ground.high[:, None])


def learned(
    algorithm: Algorithm, belief: Belief, points: Tensor, costs: Tensor, memory: Memory, ground: Ground
) -> Belief:
    """The belief refitted to a population, its spread no smaller than is allowed."""
    belief = algorithm.refit(belief, points, costs, memory)
    return belief._replace(std=belief.std.maximum(ground.least))
