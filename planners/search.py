"""One search as it goes on: futures imagined and judged in chunks while there is time, and what comes of it as a plan."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

from planners.books import Books, Judge
from planners.capture import Captures
from planners.curves import Curve, make_curve
from planners.objectives import Objective
from planners.pace import Pace
from planners.plan import Plan
from planners.targets import Aimed, aimed
from worldmodel.interface import WorldModel

# With a deadline, time is looked at after every so many futures; after fewer at first and when little is left.
_FUTURES_BETWEEN_LOOKS = 64
_FEWER_FUTURES = 16
_MEBIBYTE = 2**20
# A future with its gradient: a backward pass costs about as much as two forward passes.
SLOPE_FUTURES = 3


class Search:
    """What has been imagined so far for B environments, and the best of it.

    Args:
        model: the brain.
        latent: (B, *L) where the environments are.
        goal: (B, *L), or `Targets` of several pictures or a region.
        objective: cost by term.
        rest: (B, H, A) the actions that hold; what a plan falls back on.
        keep: how many of the best futures to remember.
        memory_mb: bound on the latents of one chunk.
        deadline: when to stop, in the clock's seconds; infinite for never.
        clock: seconds.
        trusted: a future that the brain doubts more than this somewhere (1 is the calibrated quantile) is not chosen.
        curve: what makes actions (.., H, A) of the points (.., P, A) that are searched; None where they are the same.
        captures: what was captured for this planner before; None where nothing is to be captured.
        capture: how, one of `capture.CAPTURES`.

    Attributes:
        books: what was found so far.
        judge: how futures are judged, a pure function.
        chunk: how many futures are imagined at once, `most_at_once` where no clock is looked at between them.
        out_of_time: whether the deadline has ended the search.
        pace: how long what takes.
    """

    def __init__(
        self,
        model: WorldModel,
        latent: Tensor,
        goal: Aimed,
        objective: Objective,
        rest: Tensor,
        *,
        keep: int,
        memory_mb: float,
        deadline: float,
        clock: Callable[[], float],
        trusted: float = math.inf,
        curve: Curve | None = None,
        captures: Captures | None = None,
        capture: str = "none",
    ) -> None:
        self.rest = rest
        self.out_of_time = False
        self.latent, self.goal = latent, goal
        self.judge = Judge(model, aimed(objective, goal), curve or make_curve(rest.shape[1]), trusted)
        self.pace = Pace(deadline, clock, self._wait)
        self.most_at_once = futures_at_once(latent, rest.shape[1], memory_mb)
        self.chunk = min(self.most_at_once, _FUTURES_BETWEEN_LOOKS) if self.pace.limited else self.most_at_once
        points = self.judge.curve.at_points(rest)
        self.books = Books.empty(latent, rest, points, keep, self.judge.objective.names)
        self._clock, self._captures, self._capture = clock, captures, capture
        self._best_costs: list[Tensor] = []
        self._futures, self._future_s, self._warm_up_s = 0, 0.0, 0.0

    @property
    def elites(self) -> Tensor:
        """(B, keep, P, A) the best points seen, best first."""
        return self.books.elites

    @property
    def elite_costs(self) -> Tensor:
        """(B, keep) of the elites."""
        return self.books.elite_costs

    def evaluate(self, actions: Tensor) -> Tensor:
        """Costs (B, S) of the futures of points (B, S, P, A); infinite where unsound or where time ran out."""
        costs = actions.new_full(actions.shape[:2], math.inf)
        start = 0
        while start < actions.shape[1]:
            size, kind = self._next_chunk(actions.shape[1] - start)
            if not size:
                self.out_of_time = True
                break
            with self.pace.work(kind):
                part = actions[:, start : start + size]
                self.books, costs[:, start : start + size] = self.judge.look(self.books, self.latent, self.goal, part)
            start += size
            if not self._futures:
                self._rehearse_the_end(actions, costs)
            self._futures += size
        self.books = self.books.with_elites(actions, costs)
        return costs

    def adopt(self, books: Books, futures: int) -> None:
        """Go on from books in which so many more futures were entered elsewhere."""
        self.books = books
        self._future_s = (self.pace.took("population") or 0.0) / futures
        if not self._futures:
            self._rehearse_the_end(books.elites, books.elite_costs)
        self._futures += futures

    def slope(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Costs (B, S) of points (B, S, P, A) and their gradients, of the same shape; a gradient counts as two more futures.

        Where a future is unsound its gradient is zero.
        """
        costs = actions.new_full(actions.shape[:2], math.inf)
        gradients = torch.zeros_like(actions)
        for start in range(0, actions.shape[1], self.chunk):
            chosen = slice(start, start + self.chunk)
            forward_s = max(self.pace.took("few") or 0.0, self._future_s * actions[:, chosen].shape[1])
            if self._futures and not self.pace.allows("slope", SLOPE_FUTURES * forward_s):
                self.out_of_time = True
                break
            with self.pace.work("slope"):
                part = actions[:, chosen]
                inputs = (self.books, self.latent, self.goal, part)
                found = self.run("slope", self.judge.look_with_slope, inputs)
                self.books, costs[:, chosen], gradients[:, chosen] = found
            self._futures += SLOPE_FUTURES * actions[:, chosen].shape[1]
        self.books = self.books.with_elites(actions, costs)
        return costs, gradients

    @property
    def captured(self) -> bool:
        """Whether what is run is captured first."""
        return self._captures is not None and self._capture != "none"

    def run(self, what: Hashable, function: Callable[..., Any], inputs: tuple[Any, ...]) -> Any:
        """A pure function of trees of tensors, captured where that is wished; `what` names it and all that it uses.

        Capturing is done once: neither the deadline nor the report counts the time it takes.
        """
        if self._captures is None or self._capture == "none":
            return function(*inputs)
        answer, took = self._captures.call(self._capture, (what, id(self.judge.model)), function, inputs, self._clock)
        self._warm_up_s += took
        self.pace.excuse(took)
        return answer

    def end_iteration(self) -> None:
        """Note the best cost so far as a point of the curve."""
        self._best_costs.append(self.books.cost)

    def to_plan(self, began: float, planned: int) -> Plan:
        """The best of what was seen, as ordinary tensors; `planned` is how many futures there should have been."""
        books = self.books
        with torch.inference_mode():
            uncertainty = self.judge.model.uncertainty(books.imagined)
            held = torch.isinf(books.cost)
        self._wait()
        reason = f"all {self._futures} futures imagined"
        if self.out_of_time:
            reason = f"deadline reached after {self._futures} of {planned} futures"
        if held.any():
            lost = ", ".join(str(index) for index in held.nonzero().flatten().tolist())
            where = f" for environment {lost}" if len(held) > 1 else ""
            least = float(books.least_doubt[held].min())
            if least < math.inf:
                reason += f"; every future{where} leaves what the brain trusts: "
                reason += f"doubt {least:.2f} and more, {self.judge.trusted:g} is trusted"
            else:
                known = "" if self.judge.trusted == math.inf else " and its doubt known"
                reason += f"; no future{where} was finite{known}"
        keep = min(books.elites.shape[1], self._futures)
        return Plan(
            actions=books.actions.clone(),
            cost=books.cost.clone(),
            terms={name: value.clone() for name, value in books.terms.items()},
            elites=self.judge.curve.expand(books.elites[:, :keep]).clone(),
            elite_costs=books.elite_costs[:, :keep].clone(),
            cost_per_iteration=torch.stack(self._best_costs, 1),
            imagined=books.imagined.clone(),
            uncertainty=None if uncertainty is None else uncertainty.clone(),
            held=held.clone(),
            futures=self._futures,
            plan_ms=(self._clock() - began - self._warm_up_s) * 1000,
            stopped=reason,
            out_of_time=self.out_of_time,
            discarded=int(books.discarded),
            warm_up_ms=self._warm_up_s * 1000,
        )

    # -- inside ----------------------------------------------------------------------------------------------------

    def _next_chunk(self, left: int) -> tuple[int, str]:
        """How many of the futures that are left to imagine at once, 0 where time is up, and what such work is called."""
        many = min(self.chunk, left)
        if not self.pace.limited:
            return many, "many"
        few_are = min(_FEWER_FUTURES, self.chunk)
        few = min(few_are, left)
        few_s = self.pace.took("few")
        if few_s is None:
            return few, "few"  # something must be imagined, whatever the time
        if many > few and self.pace.allows("many", few_s * self.chunk / few_are):
            return many, "many" if many == self.chunk else "rest"  # what is smaller tells nothing of the others
        if self.pace.allows("few"):
            return few, "few" if few == few_are else "rest"
        return 0, ""

    def _rehearse_the_end(self, actions: Tensor, costs: Tensor) -> None:
        """With a deadline: learn what is left to do when it comes, so that it is done by then."""
        if self.pace.limited:
            with self.pace.work("end"):
                self.books.with_elites(actions, costs)
                self.judge.model.uncertainty(self.books.imagined)
            self.pace.reserve("end")

    def _wait(self) -> None:
        """An accelerator answers before it is done; the clock should not be fooled by it."""
        if self.latent.device.type == "cuda":
            torch.cuda.synchronize(self.latent.device)


def futures_at_once(latent: Tensor, horizon: int, memory_mb: float) -> int:
    """How many futures of each of the latents (B, *L) keep theirs below so many MiB; at least 1."""
    return max(1, int(memory_mb * _MEBIBYTE) // (horizon * latent.numel() * latent.element_size()))
