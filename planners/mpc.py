"""The receding-horizon agent: see, plan, do the first step, and begin the next search where this one left off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from planners.goal import Goal
from planners.observation import NotFiniteError, ObservationError, to_batch
from planners.plan import Budget, Plan
from planners.planner import Planner, resting_action
from planners.progress import Rule
from planners.targets import Aimed, matched
from planners.waypoints import Aim, Route, Waypoints
from worldmodel.interface import WorldModel


class MPC:
    """Acts towards a goal; holds still, and says why, when it cannot know what to do.

    The same seed and observations give the same actions. An environment's actions do not depend on the others in its
    batch.

    Args:
        model: the brain.
        planner: how to search.
        goal: what should become true; one for all environments or one for each.
        budget: what each plan may cost.
        seed: of the search's noise.
        route: sub-goals on the way, in order, each one for all environments or one for each; or who finds them from the
            present (a `LatentGraph`). None heads straight for the goal.
        rule: when a sub-goal counts as reached, and when as stuck at.

    Attributes:
        last_plan: the latest plan, of the environments in `planned`; None when all held before any search.
        asked: the latents that plan began at and the goals it was for, both (N, *L), as the search was told them; a goal
            may have been corrected, or be a sub-goal. Several pictures of a goal, or a region, are `Targets`.
        planned: the environments that could be planned for.
        holds: why an environment holds, by its index; empty when all act.
    """

    def __init__(
        self,
        model: WorldModel,
        planner: Planner,
        goal: Goal,
        budget: Budget | None = None,
        seed: int = 0,
        *,
        route: Route | None = None,
        rule: Rule | None = None,
    ):
        self.model = model
        self.planner = planner
        self.budget = budget or Budget()
        self.seed = seed
        self.rule = rule or Rule()
        self._generator = torch.Generator(device=model.device)
        self.set_goal(goal, route)

    def set_goal(self, goal: Goal, route: Route | None = None) -> None:
        """A new goal with a way of its own (none: straight to it), and a new beginning."""
        aim = Aim(self.model, goal)
        if isinstance(route, Sequence) and not route:
            route = None  # a list without sub-goals leads straight to the goal
        way = None if route is None else Waypoints(self.model, route, self.rule)
        sizes = sorted({len(aim.latent), *(way.sizes if way is not None else ())} - {1})
        if len(sizes) > 1:
            raise ObservationError(
                f"the goal and its sub-goals were given for {' and '.join(map(str, sizes))} environments; give each one "
                "for all, or one for each of the same number"
            )
        self.goal, self.route, self.goal_latent = goal, route, aim.latent
        self._aim, self._way = aim, way
        self.reset()

    def reset(self) -> None:
        """Forget the last plan and start the noise again from the seed."""
        self._generator.manual_seed(self.seed)
        self._warm_start: Tensor | None = None
        self._aim.forget()
        if self._way is not None:
            self._way.begin()
        self.last_plan: Plan | None = None
        self.asked: tuple[Tensor, Aimed] | None = None
        self.planned: tuple[int, ...] = ()
        self.holds: dict[int, str] = {}

    def act(self, observation: Mapping[str, object]) -> np.ndarray:
        """One observation -> the action (A,) float32 in physical units."""
        return self.act_batch([observation])[0]

    def act_batch(self, observations: Sequence[Mapping[str, object]]) -> np.ndarray:
        """One observation for each of B environments -> actions (B, A) float32 in physical units.

        Raises:
            ObservationError: an observation lacks a key or has the wrong form. (NaN in it makes its environment hold.)
        """
        self.holds = {}
        sound = []
        for index, observation in enumerate(observations):
            try:
                to_batch(observation, self.model.required_keys)
                sound.append(index)
            except NotFiniteError as error:
                self.holds[index] = str(error)
        self.planned, self.last_plan, self.asked = tuple(sound), None, None
        if self._way is not None:
            self._way.events = {}
        actions = np.zeros((len(observations), self.model.action_space.size), np.float32)
        if not sound:
            return actions
        plan = self._plan([observations[index] for index in sound], len(observations))
        first = self.model.action_space.to_physical(plan.actions[:, 0]).cpu().numpy()
        for row, index in enumerate(sound):
            if plan.held[row]:
                self.holds[index] = plan.stopped
            else:
                actions[index] = first[row]
        return actions

    def events(self, environment: int = 0) -> tuple[str, ...]:
        """What was remarkable about the last decision, in words; usually nothing."""
        way = self._way.events.get(environment, []) if self._way is not None else []
        if environment in self.holds:
            return (f"holding: {self.holds[environment]}", *way)
        plan, words = self.last_plan, [*way]
        if plan is not None and plan.discarded:
            words.append(f"{plan.discarded} futures were not finite and were discarded")
        if plan is not None and plan.out_of_time:
            words.append(plan.stopped)
        return tuple(words)

    def _plan(self, observations: Sequence[Mapping[str, object]], batch: int) -> Plan:
        """Plan for the sound environments and keep what remains of the plans for the next time."""
        seen = to_batch(observations, self.model.required_keys)
        observed = {key: torch.from_numpy(value) for key, value in seen.items()}
        latent = self.model.encode(observed)
        rows = list(self.planned)
        before = self._warm_start
        if before is not None and len(before) != batch:
            raise ValueError(
                f"the agent acted for {len(before)} environments and now for {batch}; call reset() between"
            )
        goal = self._aim.see(observed, latent, rows, batch)
        if self._way is not None:
            goal, anew = self._way.look(observed, latent, goal, rows, batch)
            if before is not None and anew:
                # Rest, and not nothing at all: who else is in the batch keeps a warm start, and the noise must be the same.
                before = before.clone()
                before[anew] = resting_action(self.model, before.device).to(before)
        plan = self.planner.plan(
            self.model, latent, goal, self.budget,
            warm_start=None if before is None else before[rows], generator=self._generator,
        )  # fmt: skip
        remaining = plan.remaining()
        kept = remaining.new_zeros(batch, *remaining.shape[1:])
        kept[rows] = remaining
        self._warm_start, self.last_plan = kept, plan
        self.asked = latent, matched(goal, latent)
        if self._way is not None:
            self._way.note(rows, plan.cost.tolist())
        return plan
