"""Planning ahead: while the arm carries out one plan, the next is made for the place where that one will have led.

A search takes time, and an arm does not stand still for it. What is chosen from an observation begins `delay` steps
later; what happens until then is decided already, so the brain imagines it, and the search begins where it leads. Plans
begin every `delay` steps and each is carried out for `delay` steps, without a look in between.

Nothing here waits or measures time: the same observations give the same actions. `Background` does the same with a
search that really runs meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol

import numpy as np
from torch import Tensor

from planners.goal import Goal
from planners.mpc import MPC, Sight, Thought
from planners.plan import Budget
from planners.planner import Planner, resting_action
from planners.progress import Rule
from planners.waypoints import Route
from worldmodel.interface import WorldModel

NOT_YET = "no plan is ready yet"


class Result(Protocol):
    """A search that was begun: a `concurrent.futures.Future`, or what offers as much."""

    def done(self) -> bool:
        """Whether it has ended."""
        ...

    def result(self) -> Thought:
        """What it came to; raises what it raised."""
        ...


class Ahead(MPC):
    """The receding-horizon agent whose plans begin `delay` steps after the observation they are made from.

    Until the first plan is ready it holds still. An environment that held when it had promised to act holds until there
    is a plan that was begun after that.

    Args:
        model, planner, goal, budget, seed, route, rule: as for `MPC`.
        delay: policy steps a search may take.
        foresee: begin the search where the brain expects to be when the plan begins; False begins it at what was seen,
            as if no time passed.

    Attributes:
        last_plan: the plan that is being carried out, from now on; None when all hold.
        asked: the latents where that plan is now by its own imagination, and its goals, both (N, *L).
        planned: the environments it was made for.
        holds: why an environment holds, by its index.
        late: steps so far at which a plan should have been ready and was not; always 0 here.
    """

    # How many more steps of the last plan are carried out when the next one is late, before it holds.
    _patience = 0

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
        delay: int = 1,
        foresee: bool = True,
    ) -> None:
        horizon = getattr(planner, "horizon", None)
        if isinstance(delay, bool) or not isinstance(delay, int) or delay < 1:
            raise ValueError(f"delay is {delay!r}; planning ahead takes 1 step or more, without it the agent is MPC")
        if isinstance(horizon, int) and delay > horizon:
            raise ValueError(
                f"delay is {delay}, the planner's horizon {horizon}; a plan must last until the next: delay at most {horizon}"
            )
        self.delay, self.foresee = delay, foresee
        super().__init__(model, planner, goal, budget, seed, route=route, rule=rule)

    def reset(self) -> None:
        """Forget every plan, also one that is being made, and start the noise again from the seed."""
        super().reset()
        self.late = 0
        self._batch: int | None = None
        self._search: Result | None = None  # the plan that is being made
        self._age = 0  # steps since it was begun
        self._void: dict[int, str] = {}  # environments that did not do what it counts on, and why
        self._current: Thought | None = None  # what is carried out
        self._at = 0  # its next step
        self._still: dict[int, str] = {}  # environments that hold meanwhile, and why
        self._overtime = 0  # steps carried out beyond what was promised

    def act_batch(self, observations: Sequence[Mapping[str, object]]) -> np.ndarray:
        """One observation for each of B environments -> actions (B, A) float32 in physical units, decided before.

        Raises:
            ObservationError: an observation lacks a key or has the wrong form. (NaN in it makes its environment hold.)
        """
        seen = self._look(observations)
        if self._batch not in (None, seen.batch):
            raise ValueError(
                f"the agent acted for {self._batch} environments and now for {seen.batch}; call reset() between"
            )
        self._batch, self._words = seen.batch, {}
        due = self._search is None or self._age >= self.delay
        fresh = due and (self._search is None or self._search.done())
        waits = None
        if fresh:
            self._take()
        elif due:
            waits = self._wait()
        for index, reason in seen.blind.items():
            self._still[index] = self._void[index] = f"waiting for a plan that knows it held: {reason}"
        if fresh:
            self._begin(seen)
        held = self._still if waits is None else dict.fromkeys(range(seen.batch), waits)
        self.holds = held | dict(seen.blind)
        self._show()
        actions = np.zeros((seen.batch, self.model.action_space.size), np.float32)
        if self.last_plan is not None:
            first = self.model.action_space.to_physical(self.last_plan.actions[:, 0]).cpu().numpy()
            for row, index in enumerate(self.planned):
                if index not in self.holds:
                    actions[index] = first[row]
        self._at += waits is None
        self._age += 1
        return actions

    # -- one plan after the other ----------------------------------------------------------------------------------

    def _take(self) -> None:
        """The plan that was made is the one to carry out."""
        overtime, self._overtime = self._overtime, 0
        # In the steps beyond what was promised it went on, where it held it stayed: so much of the new plan is past.
        self._at = overtime
        if self._search is None:
            self._current = None
            self._still = dict.fromkeys(range(self._batch or 0), NOT_YET) | self._still
            return
        search, self._search = self._search, None
        try:
            self._current = search.result()
        except Exception as error:
            # What cannot be planned for is no reason to fall: it holds, says why, and the next search tries again.
            self._current, self._before = None, None
            reason = f"the search failed: {type(error).__name__}: {error}"
            self._still = dict.fromkeys(range(self._batch or 0), reason)
            return
        plan = self._current.plan
        self._words = self._current.words
        self._still = {index: plan.stopped for row, index in enumerate(self._current.rows) if plan.held[row]}
        self._still |= self._void

    def _begin(self, seen: Sight) -> None:
        """Begin the search for what comes after the next `delay` steps."""
        if not seen.rows:
            return  # as soon as somebody sees again
        executed = self._at + self.delay
        promised = self._promised(seen.rows) if self.foresee else None
        self._search = self._submit(lambda: self._think(seen, executed=executed, promised=promised))
        self._age, self._void = 0, {index: self._still[index] for index in seen.blind}

    def _promised(self, rows: Sequence[int]) -> Tensor:
        """What the environments `rows` will do in the next `delay` steps, (N, delay, A) in [-1, 1]."""
        rest = resting_action(self.model, self.model.device)
        promised = rest.repeat(len(rows), self.delay, 1)
        if self._current is None:
            return promised
        ahead = self._current.plan.actions[:, self._at : self._at + self.delay]
        of = {index: row for row, index in enumerate(self._current.rows)}
        for n, index in enumerate(rows):
            if index in of and index not in self._still:
                promised[n, : ahead.shape[1]] = ahead[of[index]].to(promised)
        return promised

    def _submit(self, think: Callable[[], Thought]) -> Result:
        """Begin a search; here it ends before anything else happens, and raises what it raises."""
        done: Future[Thought] = Future()
        done.set_result(think())
        return done

    def _wait(self) -> str | None:
        """The next plan is not ready: go on with the last one for a while, then hold; the reason to hold."""
        self.late += 1
        said = self._lateness()
        left = 0 if self._current is None else self._current.plan.actions.shape[1] - self._at
        moves = self._current is not None and any(index not in self._still for index in self._current.rows)
        if self._overtime >= self._patience or not left or not moves:
            return said
        self._overtime += 1
        # Who holds meanwhile does not go on: a plan whose first steps count as done is not for it.
        self._void |= dict.fromkeys(self._still, "waiting for a plan that knows how long it held")
        words = f"{said}: going on with the last one, step {self._overtime} of {self._patience}"
        self._words = dict.fromkeys(range(self._batch or 0), (words,))
        return None

    def _lateness(self) -> str:
        late = self._age - self.delay + 1
        return f"the plan is {late} {'step' if late == 1 else 'steps'} late"

    def _show(self) -> None:
        """The plan that is behind this step's actions."""
        current = self._current
        if current is None or all(index in self.holds for index in current.rows):
            self.last_plan, self.asked, self.planned = None, None, ()
            return
        self.last_plan, self.planned = current.plan.later(self._at), current.rows
        now, goals = current.asked
        self.asked = (now if self._at == 0 else current.plan.imagined[:, self._at - 1], goals)
