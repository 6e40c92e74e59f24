"""The template of every planner that searches by sampling: an algorithm adds how to sample and how to refit.

One iteration draws S action sequences, imagines them, and fits the belief about good actions to the best of them. All
environments of a batch search with the same noise, so a problem's plan does not depend on who else is in the batch.

What is drawn are P points, which a curve makes H actions of; unless a setting says otherwise every action is its own
point. Where a gripper's schedules are searched, an environment is searched once for each, side by side as rows.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from planners.belief import Belief, Memory, confined, per_dimension, prior_belief, proposals, warm_mean
from planners.branches import Branches, Schedules
from planners.curves import Curve, check_curve, make_curve
from planners.goal import Goal
from planners.objectives import Objective, default_objective
from planners.plan import Budget, Plan
from planners.search import Search
from planners.targets import Aimed, matched
from worldmodel.interface import Latent, WorldModel

# Whose plan a search begins with.
BEFORE, PROPOSED = "as before", "as proposed"


class Planner(ABC):
    """Searches for actions; the same arguments and generator state give the same plan."""

    @abstractmethod
    def plan(
        self,
        model: WorldModel,
        latent: Latent,
        goal: Aimed | Goal,
        budget: Budget,
        *,
        warm_start: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Plan:
        """Find actions that lead from the latent to the goal.

        Args:
            model: the brain that imagines.
            latent: (B, *L) where the environments are.
            goal: (B, *L) or (1, *L), or `Targets` for as many where it is several pictures or a region, or a `Goal` the
                model can encode.
            budget: how much may be imagined.
            warm_start: (B, any, A) in [-1, 1], the rest of the last plan.
            generator: the source of randomness; none means one seeded with 0.
        """


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
        within_prior: search only so many spreads around what the prior proposes, where the brain has one and the goal has
            a picture; 0 anywhere. An imagined grasp is easily better than any real one: where a search may go anywhere, it
            finds what the brain is wrong about; near what was done on the way to such goals, it does not.
        elites: how many of the best futures an algorithm looks at, and a plan reports.
        trusted: a future that the brain doubts more than this somewhere (1 is its calibrated error on held-out data) is not
            chosen; where all are doubted more, the plan is to hold, and says so. None trusts all.
        repeat: each action that is searched is held for so many steps; the last for what is left of the horizon.
        knots: search only so many points, and the plan is the curve through them; null searches every action.
        spline: what kind of curve, linear or cubic.
        schedules: a gripper's schedules, each searched as a branch beside the others; null searches it like all else.
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
    repeat: int = 1
    knots: int | None = None
    spline: str = "linear"
    schedules: Schedules | None = None
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
        if not isinstance(self.schedules, Schedules | None):
            raise ValueError(
                f"schedules is {self.schedules!r}; say {{dimension: dgripper, starts: [0.0, 0.5]}}, or null"
            )
        check_curve(self.horizon, self.repeat, self.knots, self.spline)

    # -- what an algorithm adds ------------------------------------------------------------------------------------

    def sample(self, belief: Belief, n: int, generator: torch.Generator) -> Tensor:
        """(B, n, H, A) drawn from the belief."""
        return belief.mean[:, None] + belief.std[:, None] * self.noise(belief, n, generator)

    @abstractmethod
    def refit(self, belief: Belief, actions: Tensor, costs: Tensor, search: Memory) -> Belief:
        """A better belief from a population (B, S, H, A) and its costs (B, S), infinite where not to be trusted."""

    def populations(self, budget: Budget) -> list[int]:
        """How many futures each iteration imagines."""
        return [budget.samples] * budget.iterations

    def descend(self, search: Search, low: Tensor, high: Tensor, futures: int) -> None:
        """What an algorithm does with the futures its populations left, within bounds (B, elites, H, A); most do nothing."""

    # -- the search ------------------------------------------------------------------------------------------------

    def plan(
        self,
        model: WorldModel,
        latent: Latent,
        goal: Aimed | Goal,
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
        column = None if self.schedules is None else self.schedules.column(model)
        curve = replace(make_curve(self.horizon, self.repeat, self.knots, self.spline), stepped=column)
        with torch.inference_mode():
            deadline = math.inf if budget.deadline_ms is None else began + budget.deadline_ms / 1000
            still = rest.expand(len(latent), self.horizon, size)
            belief, low, high, known = self._begin(model, latent, goal, warm_start, rest, generator)
            if self.within_prior and not curve.same:
                curve = curve.kept_within(low, high)
            belief = Belief(curve.fit(belief.mean), curve.at_points(belief.std))
            anchors = [belief.mean[:, None]]
            if warm_start is not None:
                unconfined = torch.tensor([[[word == BEFORE]] for word in known], device=still.device)
                anchors.append(curve.at_points(still).where(unconfined, math.nan)[:, None])
            search = Search(
                model, latent, goal, self.objective, still,
                keep=self.elites, memory_mb=self.memory_mb, deadline=deadline, clock=self.clock,
                trusted=math.inf if self.trusted is None else self.trusted, curve=curve,
            )  # fmt: skip
            branches = Branches()
            if self.schedules is not None and column is not None:
                plans = (known, belief.mean) if known else None
                branches = self.schedules.begin(column, curve, still, plans, keep=self.elites)
            populations = self.populations(budget)
            belief, low, high = branches.rows(belief, curve.at_points(low), curve.at_points(high), populations[0])
            anchors = [branches.spread(anchor) for anchor in anchors]

            def propose(n: int) -> Tensor | None:
                found = proposals(model, latent, goal, n, generator)
                return None if found is None else branches.spread(found)

            spare = 0
            for index, (n, following) in enumerate(zip(populations, [*populations[1:], 0], strict=True)):
                if index and not search.pace.allows("population"):
                    search.out_of_time = True
                    break
                each, spare = divmod(n + spare, branches.count)
                with search.pace.work("population"):
                    points = self._population(belief, each, anchors, propose, curve, generator)
                    points = points.clamp(low[:, None], high[:, None])
                costs = branches.part(search.evaluate(branches.join(points)))
                if not search.out_of_time:
                    belief = self.refit(belief, points, *branches.learn(points, costs, self.elites, search))
                    belief, low, high = branches.narrow(following + spare if following else 1, belief, low, high)
                    anchors = [belief.mean[:, None]]
                    # The belief's own middle is often better than any sample: in the end one more future tells.
                    if not following:
                        last = [*anchors, self.sample(belief, spare, generator)] if spare else anchors
                        search.evaluate(torch.cat(last, 1).clamp(low[:, None], high[:, None]))
                search.end_iteration()
                if search.out_of_time:
                    break
            left = budget.futures - sum(populations)
            if left and not search.out_of_time:
                self.descend(search, branches.of_elites(low, search), branches.of_elites(high, search), left)
        return branches.named(search.to_plan(began, budget.futures + 1), curve)

    def noise(self, belief: Belief, n: int, generator: torch.Generator) -> Tensor:
        """Standard normal (1, n, H, A), the same for every environment."""
        _, horizon, size = belief.mean.shape
        drawn = torch.randn(1, n, horizon, size, generator=generator, device=generator.device)
        return drawn.to(belief.mean.device)

    def _begin(
        self,
        model: WorldModel,
        latent: Tensor,
        goal: Aimed,
        warm_start: Tensor | None,
        rest: Tensor,
        generator: torch.Generator,
    ) -> tuple[Belief, Tensor, Tensor, tuple[str, ...]]:
        """The first belief, its bounds (B, H, A), and of each environment whose plan its middle is, the last one's or the
        prior's; of none where it is nobody's.

        Within the prior a search is laid out alike for all, or who is proposed nothing would feel that others are; it counts
        as begun with the last plan, and where there is none with rest.
        """
        mean = warm_mean(warm_start, rest, len(latent), self.horizon)
        spread = per_dimension(self.initial_std, mean.shape[-1], "initial_std", mean)
        belief = Belief(mean, spread.expand_as(mean))
        if self.within_prior:
            prior = prior_belief(model, latent, goal, self.horizon, generator)
            belief, low, high, near = confined(belief, prior, self.within_prior)
            return belief, low, high, tuple(PROPOSED if one else BEFORE for one in near.tolist())
        known = () if warm_start is None else (BEFORE,) * len(mean)
        return belief, -torch.ones_like(mean), torch.ones_like(mean), known

    def _population(
        self,
        belief: Belief,
        n: int,
        anchors: list[Tensor],
        propose: Callable[[int], Tensor | None],
        curve: Curve,
        generator: torch.Generator,
    ) -> Tensor:
        """(B, n, P, A): the anchors, what the prior proposes, and the rest drawn from the belief.

        Within the prior the second anchor is not everyone's: it takes the place of a draw, which who has none (NaN) keeps.
        """
        parts = anchors[:n]
        of_some = parts.pop() if self.within_prior and len(parts) > 1 else None
        drawn = self.sample(belief, n - len(parts), generator)
        wanted = min(round(self.proposal_share * n), drawn.shape[1])
        proposed = propose(wanted) if wanted else None
        if proposed is not None:
            # A shorter proposal is continued by the belief, so that the rest of the horizon is searched too.
            steps = min(proposed.shape[2], self.horizon)
            # The bounds of a curve are of whole environments, these are rows of branches; they are clamped later.
            actions = replace(curve, within=None).expand(drawn[:, :wanted]).clone()
            proposed = proposed[:, :, :steps].to(drawn.dtype)
            known = torch.isfinite(proposed)
            actions[:, :, :steps] = torch.where(known, proposed, actions[:, :, :steps])
            told = known.flatten(2).any(-1)[..., None, None]
            drawn[:, :wanted] = torch.where(told, curve.fit(actions), drawn[:, :wanted])
        if of_some is not None:
            drawn[:, :1] = torch.where(torch.isfinite(of_some), of_some, drawn[:, :1])
        return torch.cat([*parts, drawn], 1)


def resting_action(model: WorldModel, device: torch.device) -> Tensor:
    """The action (1, 1, A) in [-1, 1] that moves nothing: zero in physical units."""
    zero = torch.zeros(1, 1, model.action_space.size, device=device)
    return model.action_space.to_unit(zero).clamp(-1.0, 1.0)
