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
from planners.capture import Captures, check_capture
from planners.curves import check_curve, make_curve
from planners.goal import Goal
from planners.objectives import Objective, default_objective
from planners.plan import Budget, Plan
from planners.search import Search
from planners.targets import Aimed, matched
from planners.turns import Ground, Turns, WholeTurns
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
        capture: how an iteration is run: `none`, operation by operation; `compile`, fused by a compiler; `graph`, recorded as
            a CUDA graph and replayed; `both`. The first plan of a shape pays for it, and says how much. With a deadline,
            time is then looked at between populations and not within them. Goals of several pictures, regions, and curves
            near the prior are searched operation by operation whatever is said here; a plan says which it was.
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
    capture: str = "none"
    clock: Callable[[], float] = field(default=time.perf_counter, repr=False)
    _captures: Captures = field(default_factory=Captures, init=False, repr=False, compare=False)

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
        check_capture(self.capture)
        if self.capture != "none" and self.schedules is not None:
            raise ValueError(
                f"capture is {self.capture}, and schedules are searched as branches, which change from one population to the "
                "next: say schedules=null, or capture=none"
            )

    # -- what an algorithm adds ------------------------------------------------------------------------------------

    def noise(self, belief: Belief, n: int, generator: torch.Generator) -> Tensor:
        """All that is random of a population, (1, n, H, A): the same for every environment. Standard normal."""
        _, horizon, size = belief.mean.shape
        drawn = torch.randn(1, n, horizon, size, generator=generator, device=generator.device)
        return drawn.to(belief.mean.device)

    def sample(self, belief: Belief, noise: Tensor) -> Tensor:
        """(B, n, H, A) drawn from the belief with noise (1, n, H, A)."""
        return belief.mean[:, None] + belief.std[:, None] * noise

    @abstractmethod
    def refit(self, belief: Belief, actions: Tensor, costs: Tensor, search: Memory) -> Belief:
        """A better belief from a population (B, S, H, A) and its costs (B, S), infinite where not to be trusted.

        A spread that falls below `min_std` is raised to it afterwards. Nothing here may look at what a tensor holds: an
        accelerator would be waited for, and could not be captured.
        """

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
        goal = matched(goal.encode(model) if isinstance(goal, Goal) else goal, latent)
        if generator is None:
            generator = torch.Generator(device=latent.device).manual_seed(0)
        deadline = math.inf if budget.deadline_ms is None else began + budget.deadline_ms / 1000
        populations = self.populations(budget)
        self._captures.make_room(2 * len(populations) + 4)  # with a warm start, without one, and slopes
        with torch.inference_mode():
            turns = self._begin(model, latent, goal, warm_start, generator, deadline, populations[0])
            search = turns.search
            for index, (n, following) in enumerate(zip(populations, [*populations[1:], 0], strict=True)):
                if index and not search.pace.allows("population"):
                    search.out_of_time = True
                    break
                turns.take(n, following)
                search.end_iteration()
                if search.out_of_time:
                    break
            left = budget.futures - sum(populations)
            if left and not search.out_of_time:
                low, high = (turns.branches.of_elites(bound, search) for bound in (turns.ground.low, turns.ground.high))
                self.descend(search, low, high, left)
        plan = turns.branches.named(search.to_plan(began, budget.futures + 1), search.judge.curve)
        return replace(plan, captured=search.captured)

    def _begin(
        self,
        model: WorldModel,
        latent: Tensor,
        goal: Aimed,
        warm_start: Tensor | None,
        generator: torch.Generator,
        deadline: float,
        first: int,
    ) -> Turns:
        """Everything before the first population, which is to have so many futures."""
        rest = resting_action(model, latent.device)
        still = rest.expand(len(latent), self.horizon, rest.shape[-1])
        column = None if self.schedules is None else self.schedules.column(model)
        curve = make_curve(self.horizon, self.repeat, self.knots, self.spline).on(latent.device)
        curve = replace(curve, stepped=column)
        belief, low, high, known = self._first_belief(model, latent, goal, warm_start, rest, generator)
        if self.within_prior and not curve.same:
            curve = curve.kept_within(low, high)
        belief = Belief(curve.fit(belief.mean), curve.at_points(belief.std))
        anchors = [belief.mean[:, None]]
        instead = None
        if warm_start is not None:
            resting = curve.at_points(still)[:, None]
            if self.within_prior:
                unconfined = torch.tensor([[[word == BEFORE]] for word in known], device=still.device)[:, None]
                instead = resting.where(unconfined, math.nan)
            else:
                anchors.append(resting)
        # What belongs to one plan alone, bounds of a curve or the region of a goal, cannot be captured for others.
        capturable = isinstance(goal, Tensor) and curve.within is None
        search = Search(
            model, latent, goal, self.objective, still,
            keep=self.elites, memory_mb=self.memory_mb, deadline=deadline, clock=self.clock,
            trusted=math.inf if self.trusted is None else self.trusted, curve=curve,
            captures=self._captures if capturable else None, capture=self.capture,
        )  # fmt: skip
        branches = Branches()
        if self.schedules is not None and column is not None:
            plans = (known, belief.mean) if known else None
            branches = self.schedules.begin(column, curve, still, plans, keep=self.elites)
        belief, low, high = branches.rows(belief, curve.at_points(low), curve.at_points(high), first)
        ground = Ground(low, high, per_dimension(self.min_std, low.shape[-1], "min_std", low))
        anchors = [branches.spread(anchor) for anchor in anchors]
        instead = None if instead is None else branches.spread(instead)

        def propose(n: int) -> Tensor | None:
            found = proposals(model, latent, goal, n, generator)
            return None if found is None else branches.spread(found)

        kind = WholeTurns if search.captured else Turns
        return kind(self, search, branches, belief, ground, anchors, instead, propose, generator)

    def _first_belief(
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


def resting_action(model: WorldModel, device: torch.device) -> Tensor:
    """The action (1, 1, A) in [-1, 1] that moves nothing: zero in physical units."""
    zero = torch.zeros(1, 1, model.action_space.size, device=device)
    return model.action_space.to_unit(zero).clamp(-1.0, 1.0)
