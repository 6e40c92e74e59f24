"""Planning ahead in earnest: the search runs in a thread of its own while the caller drives the arm.

A thin shell around `Ahead`: what is done at which step is decided there. Here a search may not be ready in time. Then the
last plan is carried on for a few steps, and after that the arm holds; every late step is counted and said.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Self

import numpy as np
import torch

from planners.ahead import Ahead, Result
from planners.goal import Goal
from planners.mpc import Thought
from planners.plan import Budget
from planners.planner import Planner
from planners.progress import Rule
from planners.waypoints import Route
from worldmodel.interface import WorldModel


class Background(Ahead):
    """`Ahead` with a worker thread; to be closed, best as a context manager.

    `act` never waits for a search. `reset` and `set_goal` wait for one that is under way and drop what it found. The
    brain and the planner belong to the thread while a search runs: nobody else should use them then.

    Args:
        model, planner, goal, budget, seed, route, rule, delay, foresee: as for `Ahead`.
        patience: steps for which the last plan is carried on when the next one is late; then it holds.
        clock: seconds, for what is said of late plans.
        worker: who runs the searches, one after the other; None makes a thread.
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
        delay: int = 1,
        foresee: bool = True,
        patience: int = 1,
        clock: Callable[[], float] = time.perf_counter,
        worker: Executor | None = None,
    ) -> None:
        if patience < 0:
            raise ValueError(f"patience is {patience}; it is a number of steps, 0 holds at once")
        self._patience, self._clock, self._begun = patience, clock, 0.0
        self._running: Future[Thought] | None = None
        self._closed = False
        super().__init__(model, planner, goal, budget, seed, route=route, rule=rule, delay=delay, foresee=foresee)
        # A pool's threads are joined when the interpreter ends, whoever forgot to close.
        self._own = worker is None
        self._worker = worker or ThreadPoolExecutor(1, thread_name_prefix="premotor-search")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the search under way, and the thread where it is one's own; the agent can act no more."""
        self._closed = True
        if self._own:
            self._worker.shutdown(wait=True, cancel_futures=True)
        else:
            self._settle()

    def act_batch(self, observations: Sequence[Mapping[str, object]]) -> np.ndarray:
        """One observation for each of B environments -> actions (B, A) float32 in physical units, at once."""
        if self._closed:
            raise RuntimeError("the agent was closed; make a new one to act again")
        return super().act_batch(observations)

    def set_goal(self, goal: Goal, route: Route | None = None) -> None:
        """A new goal with a way of its own (none: straight to it), and a new beginning."""
        self._settle()
        super().set_goal(goal, route)

    def reset(self) -> None:
        """Forget every plan, also one that is being made, and start the noise again from the seed."""
        self._settle()
        super().reset()

    def _settle(self) -> None:
        """Wait until no search uses the brain."""
        if self._running is not None:
            if not self._running.cancel():
                wait([self._running])
            self._running = None

    def _submit(self, think: Callable[[], Thought]) -> Result:
        threads = torch.get_num_threads()

        def search() -> Thought:
            # As many threads as the caller has: a new thread would not know.
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
            return think()

        self._begun = self._clock()
        self._running = self._worker.submit(search)
        return self._running

    def _lateness(self) -> str:
        return f"{super()._lateness()}, {1000 * (self._clock() - self._begun):.0f} ms after it was begun"
