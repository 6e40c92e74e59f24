"""The books of one search: futures imagined and judged in chunks, the best kept, the unsound discarded."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor

from planners.curves import Curve, make_curve
from planners.objectives import Objective
from planners.pace import Pace
from planners.plan import Plan
from planners.targets import Aimed, aimed, judge
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

    Attributes:
        elites: (B, keep, P, A) the best points seen, best first; `elite_costs` (B, keep) belongs to them.
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
    ) -> None:
        self.rest = rest
        self.out_of_time = False
        self._model, self._latent, self._goal, self._objective = model, latent, goal, aimed(objective, goal)
        self._clock = clock
        self.pace = Pace(deadline, clock, self._wait)
        self._trusted = trusted
        self._curved = curve or make_curve(rest.shape[1])
        batch, horizon, _ = rest.shape
        self._chunk = futures_at_once(latent, horizon, memory_mb)
        if self.pace.limited:
            self._chunk = min(self._chunk, _FUTURES_BETWEEN_LOOKS)
        self.elites = self._curved.at_points(rest)[:, None].repeat(1, keep, 1, 1)
        self.elite_costs = rest.new_full((batch, keep), math.inf)
        self._actions = rest.clone()
        self._cost = rest.new_full((batch,), math.inf)
        self._terms: dict[str, Tensor] = {}
        self._imagined = latent[:, None].repeat(1, horizon, *[1] * (latent.ndim - 1))
        self._curve: list[Tensor] = []
        self._discarded = torch.zeros((), dtype=torch.long, device=latent.device)
        self._least_doubt = rest.new_full((batch,), math.inf)
        self._futures = 0

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
                costs[:, start : start + size] = self._judge(part)
            start += size
            if not self._futures:
                self._rehearse_the_end(actions, costs)
            self._futures += size
        self._merge_elites(actions, costs)
        return costs

    def slope(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Costs (B, S) of points (B, S, P, A) and their gradients, of the same shape; a gradient counts as two more futures.

        Where a future is unsound its gradient is zero.
        """
        costs = actions.new_full(actions.shape[:2], math.inf)
        gradients = torch.zeros_like(actions)
        for start in range(0, actions.shape[1], self._chunk):
            if self._futures and not self.pace.allows("slope", SLOPE_FUTURES * (self.pace.took("few") or 0.0)):
                self.out_of_time = True
                break
            chosen = slice(start, start + self._chunk)
            with self.pace.work("slope"):
                costs[:, chosen], gradients[:, chosen] = self._judge_with_slope(actions[:, chosen])
            self._futures += SLOPE_FUTURES * actions[:, chosen].shape[1]
        self._merge_elites(actions, costs)
        return costs, gradients

    def end_iteration(self) -> None:
        """Note the best cost so far as a point of the curve."""
        self._curve.append(self._cost)

    def to_plan(self, began: float, planned: int) -> Plan:
        """The best of what was seen, as ordinary tensors; `planned` is how many futures there should have been."""
        with torch.inference_mode():
            uncertainty = self._model.uncertainty(self._imagined)
            held = torch.isinf(self._cost)
        self._wait()
        reason = f"all {self._futures} futures imagined"
        if self.out_of_time:
            reason = f"deadline reached after {self._futures} of {planned} futures"
        if held.any():
            lost = ", ".join(str(index) for index in held.nonzero().flatten().tolist())
            where = f" for environment {lost}" if len(held) > 1 else ""
            least = float(self._least_doubt[held].min())
            if least < math.inf:
                reason += f"; every future{where} leaves what the brain trusts: "
                reason += f"doubt {least:.2f} and more, {self._trusted:g} is trusted"
            else:
                reason += f"; no future{where} was finite"
        keep = min(self.elites.shape[1], self._futures)
        return Plan(
            actions=self._actions.clone(),
            cost=self._cost.clone(),
            terms={name: value.clone() for name, value in self._terms.items()},
            elites=self._curved.expand(self.elites[:, :keep]).clone(),
            elite_costs=self.elite_costs[:, :keep].clone(),
            cost_per_iteration=torch.stack(self._curve, 1),
            imagined=self._imagined.clone(),
            uncertainty=None if uncertainty is None else uncertainty.clone(),
            held=held.clone(),
            futures=self._futures,
            plan_ms=(self._clock() - began) * 1000,
            stopped=reason,
            out_of_time=self.out_of_time,
            discarded=int(self._discarded),
        )

    # -- inside ----------------------------------------------------------------------------------------------------

    def _next_chunk(self, left: int) -> tuple[int, str]:
        """How many of the futures that are left to imagine at once, 0 where time is up, and what such work is called."""
        many = min(self._chunk, left)
        if not self.pace.limited:
            return many, "many"
        few_are = min(_FEWER_FUTURES, self._chunk)
        few = min(few_are, left)
        few_s = self.pace.took("few")
        if few_s is None:
            return few, "few"  # something must be imagined, whatever the time
        if many > few and self.pace.allows("many", few_s * self._chunk / few_are):
            return many, "many" if many == self._chunk else "rest"  # what is smaller tells nothing of the others
        if self.pace.allows("few"):
            return few, "few" if few == few_are else "rest"
        return 0, ""

    def _rehearse_the_end(self, actions: Tensor, costs: Tensor) -> None:
        """With a deadline: learn what is left to do when it comes, so that it is done by then."""
        if self.pace.limited:
            with self.pace.work("end"):
                self._merged_elites(actions, costs)
                self._model.uncertainty(self._imagined)
            self.pace.reserve("end")

    def _judge(self, actions: Tensor) -> Tensor:
        """Imagine a chunk (B, C, P, A), keep its best where it beats the best so far; costs (B, C)."""
        actions = self._curved.expand(actions)
        latents = self._model.predict(self._latent, actions)
        terms = judge(self._objective, self._model, latents, actions, self._goal, self._latent)
        return self._keep(actions, latents, terms)

    def _judge_with_slope(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """The same, with the gradients (B, C, P, A)."""
        # What is made in inference mode cannot be differentiated; copies made outside can.
        with torch.inference_mode(False), torch.enable_grad():
            varied = actions.clone().requires_grad_()
            actions = self._curved.expand(varied)
            latents = self._model.predict(self._latent.clone(), actions)
            goal = self._goal.clone() if isinstance(self._goal, Tensor) else self._goal
            terms = judge(self._objective, self._model, latents, actions, goal, self._latent.clone())
            total = reduce(torch.add, terms.values())
            if not total.requires_grad:
                raise ValueError(
                    f"{self._model.name} cannot be differentiated; choose a planner that only samples: cem"
                )
            # Rows do not touch each other, so the sum's gradient holds every row's own.
            (gradient,) = torch.autograd.grad(total.sum(), varied)
        cost = self._keep(actions.detach(), latents.detach(), {name: value.detach() for name, value in terms.items()})
        sound = torch.isfinite(cost) & torch.isfinite(gradient).all(-1).all(-1)
        return cost, torch.where(sound[..., None, None], gradient.to(actions.dtype), 0.0)

    def _keep(self, actions: Tensor, latents: Tensor, terms: dict[str, Tensor]) -> Tensor:
        """Keep the best of a chunk where it beats the best so far; costs (B, C), infinite where unsound."""
        # One after the other: terms that are zero for whom others brought along change no digit.
        cost = reduce(torch.add, terms.values())
        # A sum is finite only if all that is summed is: one pass over the latents, no mask of their size.
        sound = torch.isfinite(cost) & torch.isfinite(latents.flatten(2).sum(-1, dtype=torch.float32))
        self._discarded += (~sound).sum()
        if self._trusted < math.inf and (doubt := self._model.uncertainty(latents)) is not None:
            worst = doubt.amax(-1).to(self._least_doubt.dtype)
            self._least_doubt = torch.minimum(self._least_doubt, worst.masked_fill(~sound, math.inf).amin(1))
            sound = sound & (worst <= self._trusted)
        cost = torch.where(sound, cost.to(actions.dtype), math.inf)
        best, index = cost.min(1)
        better = best < self._cost
        rows = torch.arange(len(index), device=index.device)
        self._cost = torch.where(better, best, self._cost)
        self._actions = _choose(better, actions[rows, index], self._actions)
        self._imagined = _choose(better, latents[rows, index], self._imagined)
        for name, value in terms.items():
            before = self._terms.get(name, torch.full_like(best, math.inf))
            self._terms[name] = torch.where(better, value[rows, index].to(best.dtype), before)
        return cost

    def _merge_elites(self, actions: Tensor, costs: Tensor) -> None:
        """The best of old elites and this population."""
        self.elites, self.elite_costs = self._merged_elites(actions, costs)

    def _merged_elites(self, actions: Tensor, costs: Tensor) -> tuple[Tensor, Tensor]:
        keep = self.elites.shape[1]
        return best_of(torch.cat([self.elites, actions], 1), torch.cat([self.elite_costs, costs], 1), keep)

    def _wait(self) -> None:
        """An accelerator answers before it is done; the clock should not be fooled by it."""
        if self._latent.device.type == "cuda":
            torch.cuda.synchronize(self._latent.device)


def futures_at_once(latent: Tensor, horizon: int, memory_mb: float) -> int:
    """How many futures of each of the latents (B, *L) keep theirs below so many MiB; at least 1."""
    return max(1, int(memory_mb * _MEBIBYTE) // (horizon * latent.numel() * latent.element_size()))


def best_of(actions: Tensor, costs: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The n cheapest of (B, S, H, A) with costs (B, S), cheapest first: (B, n, H, A), (B, n)."""
    cheapest, index = costs.topk(min(n, costs.shape[1]), dim=1, largest=False)
    rows = torch.arange(len(index), device=index.device)[:, None]
    return actions[rows, index], cheapest


def _choose(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Rows of `yes` where the mask (B,) says so, else of `no`."""
    return torch.where(mask.view(-1, *[1] * (yes.ndim - 1)), yes, no)
