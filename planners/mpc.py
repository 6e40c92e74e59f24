"""The receding-horizon agent: see, plan, do the first step, and begin the next search where this one left off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Sight:
    """What can be seen of B environments.

    Attributes:
        observed: of those N that can be planned for, each (N, ...).
        rows: which they are.
        batch: B.
        blind: why the others cannot be planned for.
    """

    observed: Mapping[str, Tensor]
    rows: tuple[int, ...]
    batch: int
    blind: Mapping[int, str]


@dataclass(frozen=True)
class Thought:
    """What one search came to.

    Attributes:
        plan: for N environments.
        rows: which they are.
        asked: the latents it began at and the goals, both (N, *L).
        words: what happened on their ways, by environment.
    """

    plan: Plan
    rows: tuple[int, ...]
    asked: tuple[Tensor, Aimed]
    words: Mapping[int, Sequence[str]]


class MPC:
    """Acts towards a goal; holds still, and says why, when it cannot know what to do.

    The same seed and observations give the same actions. An environment's actions do not depend on the others in its
    batch (but for the last digits of what a brain encodes of several pictures at once).

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
        self._before: Tensor | None = None
        self._aim.forget()
        if self._way is not None:
            self._way.begin()
        self.last_plan: Plan | None = None
        self.asked: tuple[Tensor, Aimed] | None = None
        self.planned: tuple[int, ...] = ()
        self.holds: dict[int, str] = {}
        self._words: Mapping[int, Sequence[str]] = {}

    def act(self, observation: Mapping[str, object]) -> np.ndarray:
        """One observation -> the action (A,) float32 in physical units."""
        return self.act_batch([observation])[0]

    def act_batch(self, observations: Sequence[Mapping[str, object]]) -> np.ndarray:
        """One observation for each of B environments -> actions (B, A) float32 in physical units.

        Raises:
            ObservationError: an observation lacks a key or has the wrong form. (NaN in it makes its environment hold.)
        """
        seen = self._look(observations)
        self.holds = dict(seen.blind)
        self.planned, self.last_plan, self.asked, self._words = seen.rows, None, None, {}
        actions = np.zeros((seen.batch, self.model.action_space.size), np.float32)
        if not seen.rows:
            return actions
        thought = self._think(seen)
        plan = thought.plan
        self.last_plan, self.asked, self._words = plan, thought.asked, thought.words
        first = self.model.action_space.to_physical(plan.actions[:, 0]).cpu().numpy()
        for row, index in enumerate(seen.rows):
            if plan.held[row]:
                self.holds[index] = plan.stopped
            else:
                actions[index] = first[row]
        return actions

    def events(self, environment: int = 0) -> tuple[str, ...]:
        """What was remarkable about the last decision, in words; usually nothing."""
        way = self._words.get(environment, ())
        if environment in self.holds:
            return (f"holding: {self.holds[environment]}", *way)
        plan, words = self.last_plan, [*way]
        if plan is not None and plan.discarded:
            words.append(f"{plan.discarded} futures were not finite and were discarded")
        if plan is not None and plan.out_of_time:
            words.append(plan.stopped)
        return tuple(words)

    def _look(self, observations: Sequence[Mapping[str, object]]) -> Sight:
        """The door: what can be seen, copied, and which environments cannot be planned for."""
        sound, blind = [], {}
        for index, observation in enumerate(observations):
            try:
                to_batch(observation, self.model.required_keys)
                sound.append(index)
            except NotFiniteError as error:
                blind[index] = str(error)
        seen = to_batch([observations[index] for index in sound], self.model.required_keys) if sound else {}
        observed = {key: torch.from_numpy(value) for key, value in seen.items()}
        return Sight(observed, tuple(sound), len(observations), blind)

    def _think(self, seen: Sight, *, executed: int = 1, promised: Tensor | None = None) -> Thought:
        """Plan for the environments that can be seen, and keep the plans to begin the next search with.

        Args:
            seen: what they show now.
            executed: so many steps of the last plan will have been carried out when this one begins.
            promised: (N, P, A) in [-1, 1] what they will do before this plan begins; none begins at once.
        """
        latent = self.model.encode(seen.observed)
        rows, batch = list(seen.rows), seen.batch
        before = None if self._before is None else self._before[:, executed:]
        if before is not None and len(before) != batch:
            raise ValueError(
                f"the agent acted for {len(before)} environments and now for {batch}; call reset() between"
            )
        goal = self._aim.see(seen.observed, latent, rows, batch)
        if self._way is not None:
            goal, anew = self._way.look(seen.observed, latent, goal, rows, batch)
            if before is not None and anew:
                # Rest, and not nothing at all: who else is in the batch keeps a warm start, and the noise must be the same.
                before = before.clone()
                before[anew] = resting_action(self.model, before.device).to(before)
        start = latent if promised is None else self._foreseen(latent, promised)
        plan = self.planner.plan(
            self.model, start, goal, self.budget,
            warm_start=None if before is None else before[rows], generator=self._generator,
        )  # fmt: skip
        kept = plan.actions.new_zeros(batch, *plan.actions.shape[1:])
        kept[rows] = plan.actions
        self._before = kept
        if self._way is not None:
            self._way.note(rows, plan.cost.tolist())
        words = {} if self._way is None else {row: tuple(said) for row, said in self._way.events.items()}
        return Thought(plan, seen.rows, (start, matched(goal, start)), words)

    def _foreseen(self, latent: Tensor, promised: Tensor) -> Tensor:
        """Where the environments (N, *L) will be after promised actions (N, P, A)."""
        with torch.no_grad():
            # One by one: an environment is imagined as if it were alone.
            return torch.cat(
                [self.model.predict(latent[n : n + 1], promised[n : n + 1, None])[:, 0, -1] for n in range(len(latent))]
            )
