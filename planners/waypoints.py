"""Where each environment of a batch is heading: sub-goals one after the other, then the goal.

Sub-goals are a list that somebody gave, or are found from the present by whoever knows a way (a graph of what was
recorded). Each environment is on its own way and knows nothing of the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from planners.goal import Goal
from planners.observation import STATE, ObservationError
from planners.progress import Move, Progress, Rule, decide
from worldmodel.interface import GoalSight, Latent, Watchful, WorldModel

Observed = Mapping[str, Tensor]


@dataclass(frozen=True)
class Found:
    """A way to a goal.

    Attributes:
        latents: (K, *L) the sub-goals; none where the goal is near, or no way is known.
        words: what was found, for people.
    """

    latents: Tensor
    words: str


@runtime_checkable
class Finder(Protocol):
    """Whoever knows ways between latents."""

    def find_way(self, latent: Latent, goal: Latent) -> Found:
        """From a present (1, *L) to a goal (1, *L)."""
        ...


Route = Sequence[Goal] | Finder


class Aim:
    """What a brain makes of a goal: fixed, or seen the better the more was seen on the way.

    Attributes:
        latent: (B, *L), or (1, *L) for all environments.
    """

    def __init__(self, model: WorldModel, goal: Goal) -> None:
        self.latent = goal.encode(model)
        # A brain that had to read the goal's state off pictures may learn on the way how it misreads them.
        reads = STATE in model.required_keys and STATE not in goal.observations[0]
        self._sight: GoalSight | None = None
        if reads and isinstance(model, Watchful):
            self._sight = model.watch(self.latent)

    def forget(self) -> None:
        """A new beginning."""
        if self._sight is not None:
            self._sight.forget()

    def see(self, observed: Observed, latent: Latent, rows: Sequence[int], batch: int) -> Latent:
        """The present of N environments, observed and encoded -> their goals (N, *L), or (1, *L) where all share one."""
        if len(self.latent) not in (1, batch):
            raise ObservationError(
                f"a goal was given for {len(self.latent)} environments, and the agent acts for {batch}; give one for "
                "each, or one for all"
            )
        if self._sight is not None:
            return self._sight.see(observed, latent, rows, batch)
        return self.latent if len(self.latent) == 1 else self.latent[list(rows)]


class Waypoints:
    """The ways of a batch of environments, and what happened on them.

    Args:
        model: the brain.
        route: goals on the way, in order, each for all environments or one for each; or who finds them.
        rule: when to go on.

    Attributes:
        events: what happened at the last look, in words, by environment.
    """

    def __init__(self, model: WorldModel, route: Route, rule: Rule) -> None:
        self._model, self._rule = model, rule
        self._finder = route if isinstance(route, Finder) else None
        self._aims = [] if isinstance(route, Finder) else [Aim(model, goal) for goal in route]
        self.begin()

    @property
    def sizes(self) -> set[int]:
        """For how many environments the listed sub-goals were given."""
        return {len(aim.latent) for aim in self._aims}

    def begin(self) -> None:
        """A new beginning: every environment heads for its first sub-goal again."""
        self.events: dict[int, list[str]] = {}
        self._progress: dict[int, Progress] = {}
        self._found: dict[int, list[Tensor]] = {}
        self._costs: dict[int, float] = {}
        for aim in self._aims:
            aim.forget()

    def look(
        self, observed: Observed, latent: Latent, final: Latent, rows: Sequence[int], batch: int
    ) -> tuple[Latent, list[int]]:
        """Decide for N environments of a batch where to head now.

        Args:
            observed: the present of these environments.
            latent: (N, *L) the same, encoded.
            final: (N, *L) or (1, *L) their goals.
            rows: which of the batch they are.
            batch: B.

        Returns:
            What to head for (N, *L), and which of `rows` begin a new search: what is left of their last plan led
            elsewhere.
        """
        self.events = {}
        final = final.expand_as(latent)
        seen = self._seen(observed, latent, rows, batch)
        aims, anew = [], []
        for n, row in enumerate(rows):
            here, goal = latent[n : n + 1], final[n : n + 1]
            if row not in self._progress:
                self._set_out(row, here, goal)
            way = self._found[row] if self._finder is not None else seen[n]
            if self._move(row, here, goal, [*way, goal][self._progress[row].at]):
                anew.append(row)
                way = self._found[row] if self._finder is not None else seen[n]
            aims.append([*way, goal][self._progress[row].at])
        return torch.cat(aims), anew

    def note(self, rows: Sequence[int], costs: Sequence[float]) -> None:
        """What the plans towards the aims of the last look cost."""
        self._costs.update(zip(rows, costs, strict=True))

    def _seen(self, observed: Observed, latent: Latent, rows: Sequence[int], batch: int) -> list[list[Tensor]]:
        """Every environment's listed sub-goals, each (1, *L); those that lie behind are not looked at any more."""
        goals: list[list[Tensor]] = [[] for _ in rows]
        for number, aim in enumerate(self._aims):
            ahead = [n for n, row in enumerate(rows) if row not in self._progress or self._progress[row].at <= number]
            now = aim.latent[:1].expand_as(latent).clone()
            if ahead:
                part = {key: value[ahead] for key, value in observed.items()}
                now[ahead] = aim.see(part, latent[ahead], [rows[n] for n in ahead], batch).to(now)
            for n, one in enumerate(now.split(1)):
                goals[n].append(one)
        return goals

    def _set_out(self, row: int, here: Latent, goal: Latent) -> None:
        """The first look: find a way where none was given."""
        if self._finder is None:
            self._progress[row] = Progress(len(self._aims))
            return
        self._find(row, here, goal)
        self._progress[row] = Progress(len(self._found[row]))

    def _find(self, row: int, here: Latent, goal: Latent) -> None:
        assert self._finder is not None
        found = self._finder.find_way(here, goal)
        self._found[row] = [found.latents[k : k + 1] for k in range(len(found.latents))]
        self._tell(row, found.words)

    def _move(self, row: int, here: Latent, goal: Latent, aim: Latent) -> bool:
        """Decide for one environment; whether it begins anew."""
        # One by one: an environment is asked about as if it were alone.
        distance = float(self._model.distance(here[:, None], aim)[0, 0])
        was = self._progress[row]
        move, now = decide(was, distance, self._costs.pop(row, math.nan), self._rule)
        self._progress[row] = now
        if move is Move.STAY:
            return False
        steps, name = f"{distance:.1f} steps away", _name(was)
        still = f"{steps} and no nearer for {self._rule.patience} plans"
        if move is Move.ARRIVED:
            self._tell(row, f"{name} is reached, {steps}: on to {_name(now)}")
        elif move is Move.PASSED:
            self._tell(row, f"{name} is passed over, {still}: on to {_name(now)}")
        else:
            self._tell(row, f"stuck at {name}, {still}: planning afresh")
            if self._finder is not None:
                self._find(row, here, goal)
                # The new way is begun at its beginning; that it is a second try is remembered.
                self._progress[row] = replace(now, last=len(self._found[row]), at=0)
        return True

    def _tell(self, row: int, words: str) -> None:
        self.events.setdefault(row, []).append(words)


def _name(progress: Progress) -> str:
    return "the goal" if progress.at_goal else f"sub-goal {progress.at + 1} of {progress.last}"
