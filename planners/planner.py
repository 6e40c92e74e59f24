"""The template of every planner that searches by sampling: an algorithm adds how to sample and how to refit.

One iteration draws S action sequences, imagines them, and fits the belief about good actions to the best of them. All
environments of a batch search with the same noise, so a problem's plan does not depend on who else is in the batch.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from planners.goal import Goal
from planners.objectives import Objective, default_objective
from planners.plan import Budget, Plan
from planners.search import Search
from worldmodel.interface import Latent, WorldModel

# Draws by which the prior's middle and spread are known.
PRIOR_DRAWS = 64
PRIOR_NEAREST = 16


class Planner(ABC):
    """Searches for actions; the same arguments and generator state give the same plan."""

    @abstractmethod
    def plan(
        self,
        model: WorldModel,
        latent: Latent,
        goal: Tensor | Goal,
        budget: Budget,
        *,
        warm_start: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Plan:
        """Find actions that lead from the latent to the goal.

        Args:
            model: the brain that imagines.
            latent: (B, *L) where the environments are.
            goal: (B, *L) or (1, *L), or a `Goal` the model can encode.
            budget: how much may be imagined.
            warm_start: (B, any, A) in [-1, 1], the rest of the last plan.
            generator: the source of randomness; none means one seeded with 0.
        """


class Belief(NamedTuple):
    """Where good actions are thought to be: a Gaussian per step and dimension, both (B, H, A)."""

    mean: Tensor
    std: Tensor


@dataclass(frozen=True, kw_only=True)
class SamplingPlanner(Planner):
    """Warm start, population, chunks, bounds, NaN, deadline: the same for every algorithm.

    Attributes:
        horizon: steps a plan looks ahead.
        objective: (model, latents, actions, goal) -> cost by term.
        initial_std: spread of the first population in [-1, 1], one number or one per action dimension: what is seldom
            useful (turning, say) is searched narrowly.
        min_std: the spread never falls below this.
        proposal_share: part of each population that the brain's learned prior proposes (if it has one).
        within_prior: search only so many spreads around what the prior proposes, where the brain has one; 0 anywhere.
            An imagined grasp is easily better than any real one: where a search may go anywhere, it finds what the brain
            is wrong about; near what was done on the way to such goals, it does not.
        elites: how many of the best futures an algorithm looks at, and a plan reports.
        trusted: a future that the brain doubts more than this somewhere (1 is its calibrated error on held-out data) is not
            chosen; where all are doubted more, the plan is to hold, and says so. None trusts all.
        memory_mb: futures are imagined in chunks that keep the latents below this.
        clock: seconds; only for the deadline and the report.
    """

    horizon: int = 8
    objective: Objective = field(default_factory=default_objective)
    initial_std: float | Sequence[float] = 0.6
    min_std: float | Sequence[float] = 0.05
    proposal_share: float = 0.3
    within_prior: float = 0.0
    elites: int = 16
    trusted: float | None = None
    memory_mb: float = 256.0
    clock: Callable[[], float] = field(default=time.perf_counter, repr=False)

    def __post_init__(self) -> None:
        if self.horizon < 1:
            raise ValueError(f"horizon is {self.horizon}; a plan needs at least 1 step")
        if self.elites < 1:
            raise ValueError(f"elites is {self.elites}; an algorithm needs at least 1 future to learn from")
        if not 0.0 <= self.proposal_share <= 1.0:
            raise ValueError(f"proposal_share is {self.proposal_share}; it is a share, 0 to 1")
        if self.trusted is not None and not self.trusted > 0:
            raise ValueError(f"trusted is {self.trusted}; it must be above 0, or null to trust all")
        if not (self.within_prior >= 0 and math.isfinite(self.within_prior)):
            raise ValueError(f"within_prior is {self.within_prior}; it is a number of spreads, 0 or more")

    # -- what an algorithm adds ------------------------------------------------------------------------------------

    def sample(self, belief: Belief, n: int, generator: torch.Generator) -> Tensor:
        """(B, n, H, A) drawn from the belief."""
        return belief.mean[:, None] + belief.std[:, None] * self.noise(belief, n, generator)

    @abstractmethod
    def refit(self, belief: Belief, actions: Tensor, costs: Tensor, search: Search) -> Belief:
        """A better belief from a population (B, S, H, A) and its costs (B, S), infinite where not to be trusted."""

    def populations(self, budget: Budget) -> list[int]:
        """How many futures each iteration imagines."""
        return [budget.samples] * budget.iterations

    def descend(self, search: Search, low: Tensor, high: Tensor, futures: int) -> None:
        """What an algorithm does with the futures its populations left, within bounds (B, H, A); most do nothing."""

    # -- the search ------------------------------------------------------------------------------------------------

    def plan(
        self,
        model: WorldModel,
        latent: Latent,
        goal: Tensor | Goal,
        budget: Budget,
        *,
        warm_start: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Plan:
        began = self.clock()
        goal = goal.encode(model) if isinstance(goal, Goal) else goal
        goal = matched(goal, latent)
        size = model.action_space.size
        if generator is None:
            generator = torch.Generator(device=latent.device).manual_seed(0)
        rest = resting_action(model, latent.device)
        with torch.inference_mode():
            deadline = math.inf if budget.deadline_ms is None else began + budget.deadline_ms / 1000
            search = Search(
                model, latent, goal, self.objective, rest.expand(len(latent), self.horizon, size),
                keep=self.elites, memory_mb=self.memory_mb, deadline=deadline, clock=self.clock,
                trusted=math.inf if self.trusted is None else self.trusted,
            )  # fmt: skip
            mean = self._warm_start(warm_start, rest, len(latent))
            spread = per_dimension(self.initial_std, size, "initial_std", mean)
            belief = Belief(mean, spread.expand_as(mean))
            anchors = [mean[:, None], search.rest[:, None]] if warm_start is not None else [mean[:, None]]
            low, high = -torch.ones_like(mean), torch.ones_like(mean)
            prior = self._prior(model, latent, goal, generator) if self.within_prior else None
            if prior is not None:
                belief, low, high = self._confined(belief, prior)
                anchors = [belief.mean[:, None]]
            populations = self.populations(budget)
            for index, n in enumerate(populations):
                if index and not search.pace.allows("population"):
                    search.out_of_time = True
                    break
                with search.pace.work("population"):
                    actions = self._population(model, latent, goal, belief, n, anchors, generator)
                    actions = actions.clamp(low[:, None], high[:, None])
                costs = search.evaluate(actions)
                if not search.out_of_time:
                    belief = self.refit(belief, actions, costs, search)
                    anchors = [belief.mean[:, None]]
                    # The belief's own middle is often better than any sample: in the end one more future tells.
                    if index == len(populations) - 1:
                        search.evaluate(anchors[0].clamp(low[:, None], high[:, None]))
                search.end_iteration()
                if search.out_of_time:
                    break
            left = budget.futures - sum(populations)
            if left and not search.out_of_time:
                self.descend(search, low, high, left)
        return search.to_plan(began, budget.futures + 1)

    def noise(self, belief: Belief, n: int, generator: torch.Generator) -> Tensor:
        """Standard normal (1, n, H, A), the same for every environment."""
        _, horizon, size = belief.mean.shape
        drawn = torch.randn(1, n, horizon, size, generator=generator, device=generator.device)
        return drawn.to(belief.mean.device)

    def _population(
        self,
        model: WorldModel,
        latent: Tensor,
        goal: Tensor,
        belief: Belief,
        n: int,
        anchors: list[Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        """(B, n, H, A) within bounds: the anchors, what the prior proposes, and the rest drawn from the belief."""
        parts = anchors[:n]
        drawn = self.sample(belief, n - len(parts), generator)
        wanted = min(round(self.proposal_share * n), drawn.shape[1])
        proposals = self._proposals(model, latent, goal, wanted, generator) if wanted else None
        if proposals is not None:
            # A shorter proposal is continued by the belief, so that the rest of the horizon is searched too.
            steps = min(proposals.shape[2], self.horizon)
            believed, proposed = drawn[:, :wanted, :steps], proposals[:, :, :steps].to(drawn.dtype)
            drawn[:, :wanted, :steps] = torch.where(torch.isfinite(proposed), proposed, believed)
        return torch.cat([*parts, drawn], 1)

    def _prior(self, model: WorldModel, latent: Tensor, goal: Tensor, generator: torch.Generator) -> Belief | None:
        """What the prior proposes first, as a belief over its own steps (B, K, A).

        A prior may weigh several things to do against each other. Their mean may be none of them, so the spread is that of
        the draws nearest to the first one.
        """
        proposals = self._proposals(model, latent, goal, PRIOR_DRAWS, generator)
        if proposals is None or not torch.isfinite(proposals).all():
            return None
        away = (proposals[:, 1:, : self.horizon] - proposals[:, :1, : self.horizon]).float()
        nearest = away.square().sum((-2, -1)).topk(PRIOR_NEAREST, largest=False).indices
        rows = torch.arange(len(away), device=away.device)[:, None]
        return Belief(proposals[:, 0, : self.horizon].float(), away[rows, nearest].square().mean(1).sqrt())

    def _confined(self, belief: Belief, prior: Belief) -> tuple[Belief, Tensor, Tensor]:
        """The belief begun at the prior, and bounds (B, H, A) around it; beyond the prior's steps all stays open."""
        steps = prior.mean.shape[1]
        mean, std = belief.mean.clone(), belief.std.clone()
        low, high = -torch.ones_like(mean), torch.ones_like(mean)
        reach = self.within_prior * prior.std
        mean[:, :steps], std[:, :steps] = prior.mean, torch.minimum(0.5 * reach, std[:, :steps])
        low[:, :steps] = (prior.mean - reach).clamp(-1.0, 1.0)
        high[:, :steps] = (prior.mean + reach).clamp(-1.0, 1.0)
        return Belief(mean, std), low, high

    def _proposals(
        self, model: WorldModel, latent: Tensor, goal: Tensor, n: int, generator: torch.Generator
    ) -> Tensor | None:
        """What the prior proposes, (B, n, K, A): each environment is asked alone and with the same noise."""
        seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
        rows = []
        for b in range(len(latent)):
            noise = torch.Generator(device=generator.device).manual_seed(seed)
            row = model.propose(latent[b : b + 1], goal[b : b + 1], n, noise)
            if row is None:
                return None
            rows.append(row)
        return torch.cat(rows)

    def _warm_start(self, warm_start: Tensor | None, rest: Tensor, batch: int) -> Tensor:
        """The first mean (B, H, A): the rest of the last plan, then rest."""
        mean = rest.repeat(batch, self.horizon, 1)
        if warm_start is None:
            return mean
        if warm_start.ndim != 3 or warm_start.shape[0] != batch or warm_start.shape[2] != rest.shape[-1]:
            raise ValueError(
                f"warm_start should be ({batch}, steps, {rest.shape[-1]}); its shape is {tuple(warm_start.shape)}"
            )
        if not torch.isfinite(warm_start).all():
            raise ValueError("warm_start has NaN or infinity; start without one")
        steps = min(warm_start.shape[1], self.horizon)
        mean[:, :steps] = warm_start[:, :steps].to(mean).clamp(-1.0, 1.0)
        return mean


def matched(goal: Tensor, latent: Tensor) -> Tensor:
    """The goal latent (B, *L) for latents (B, *L); one goal may serve all environments."""
    if goal.shape[1:] != latent.shape[1:] or goal.shape[0] not in (1, latent.shape[0]):
        raise ValueError(
            f"the goal has shape {tuple(goal.shape)}, the present {tuple(latent.shape)}; encode both with the same "
            "model, one goal for each environment or one for all"
        )
    return goal.to(latent.device).expand_as(latent)


def resting_action(model: WorldModel, device: torch.device) -> Tensor:
    """The action (1, 1, A) in [-1, 1] that moves nothing: zero in physical units."""
    zero = torch.zeros(1, 1, model.action_space.size, device=device)
    return model.action_space.to_unit(zero).clamp(-1.0, 1.0)


def per_dimension(value: float | Sequence[float], size: int, name: str, like: Tensor) -> Tensor:
    """One number or one per action dimension -> (A,)."""
    numbers = [float(value)] * size if isinstance(value, (int, float)) else [float(v) for v in value]
    if len(numbers) != size:
        raise ValueError(f"{name} has {len(numbers)} numbers, the action {size}; give one number or one per dimension")
    if not all(math.isfinite(v) and v >= 0 for v in numbers):
        raise ValueError(f"{name} is {numbers}; a spread is finite and not negative")
    return like.new_tensor(numbers)
