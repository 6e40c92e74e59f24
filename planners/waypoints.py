"""Where each environment of a batch is heading: sub-goals one after the other, then the goal.

Sub-goals are a list that somebody gave, or are found from the present by whoever knows a way (a graph of what was
recorded). Each environment is on its own way and knows nothing of the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from torch import Tensor

from planners.goal import Goal
from planners.observation import STATE, ObservationError
from planners.progress import Move, Progress, Rule, decide
from planners.targets import Aimed, Target, Targets, matched, steps_away, together
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
        latent: (B, *L), or (1, *L) for all environments; `Targets` for as many where the goal is not one picture.
    """

    def __init__(self, model: WorldModel, goal: Goal) -> None:
        self.latent = goal.encode(model)
        # A brain that had to read the goal's state off pictures may learn on the way how it misreads them.
        watches = STATE in model.required_keys and isinstance(model, Watchful)
        self._sights: list[GoalSight | None] = []
        if isinstance(self.latent, Tensor):
            reads = STATE not in goal.observations[0]
            self._read = [[reads] for _ in goal.wishes]
            pictures = [self.latent]
        else:
            self._read = [[STATE not in seen for seen in wish.observations] for wish in goal.wishes]
            shown = next((one.latents[:1] for one in self.latent.each if len(one.latents)), None)
            instead = None if shown is None else shown.repeat(len(self.latent), *[1] * (shown.ndim - 1))
            pictures = [] if instead is None else [self.latent.picture(k, instead) for k in range(self.latent.most)]
        for number, picture in enumerate(pictures):
            read = any(number < len(row) and row[number] for row in self._read)
            self._sights.append(model.watch(picture) if watches and read and isinstance(model, Watchful) else None)

    def forget(self) -> None:
        """A new beginning."""
        for sight in self._sights:
            if sight is not None:
                sight.forget()

    def see(self, observed: Observed, latent: Latent, rows: Sequence[int], batch: int) -> Aimed:
        """The present of N environments, observed and encoded -> their goals (N, *L), or (1, *L) where all share one;
        `Targets` for as many where the goal is not one picture."""
        if len(self.latent) not in (1, batch):
            raise ObservationError(
                f"a goal was given for {len(self.latent)} environments, and the agent acts for {batch}; give one for "
                "each, or one for all"
            )
        corrected = [None if sight is None else sight.see(observed, latent, rows, batch) for sight in self._sights]
        if all(goals is None for goals in corrected):
            return self.latent if len(self.latent) == 1 else self.latent[list(rows)]
        if isinstance(self.latent, Tensor):
            assert corrected[0] is not None
            return corrected[0]
        each = []
        for n, row in enumerate(rows if len(self.latent) > 1 else [0] * len(rows)):
            target, read = self.latent.each[row], self._read[row]
            now = target.latents.clone()
            for number, goals in enumerate(corrected[: len(read)]):
                if goals is not None and read[number]:
                    now[number] = goals[n]
            each.append(Target(now, target.weights, target.region))
        return Targets(tuple(each))


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
        self, observed: Observed, latent: Latent, final: Aimed, rows: Sequence[int], batch: int
    ) -> tuple[Aimed, list[int]]:
        """Decide for N environments of a batch where to head now.

        Args:
            observed: the present of these environments.
            latent: (N, *L) the same, encoded.
            final: (N, *L) or (1, *L) their goals, or `Targets` for as many.
            rows: which of the batch they are.
            batch: B.

        Returns:
            What to head for (N, *L), or `Targets`, and which of `rows` begin a new search: what is left of their last plan led
            elsewhere.
        """
        self.events = {}
        final = matched(final, latent)
        seen = self._seen(observed, latent, rows, batch)
        aims: list[Aimed] = []
        anew: list[int] = []
        for n, row in enumerate(rows):
            here, goal = latent[n : n + 1], final[n : n + 1]
            if row not in self._progress:
                self._set_out(row, here, goal)
            way: list[Aimed] = [*self._found[row]] if self._finder is not None else seen[n]
            if self._move(row, here, goal, [*way, goal][self._progress[row].at]):
                anew.append(row)
                way = [*self._found[row]] if self._finder is not None else seen[n]
            aims.append([*way, goal][self._progress[row].at])
        return together(aims), anew

    def note(self, rows: Sequence[int], costs: Sequence[float]) -> None:
        """What the plans towards the aims of the last look cost."""
        self._costs.update(zip(rows, costs, strict=True))

    def _seen(self, observed: Observed, latent: Latent, rows: Sequence[int], batch: int) -> list[list[Aimed]]:
        """Every environment's listed sub-goals, each for one; those that lie behind are not looked at any more."""
        goals: list[list[Aimed]] = [[] for _ in rows]
        for number, aim in enumerate(self._aims):
            ahead = [n for n, row in enumerate(rows) if row not in self._progress or self._progress[row].at <= number]
            now: list[Aimed] = [aim.latent[:1]] * len(rows)
            if ahead:
                part = {key: value[ahead] for key, value in observed.items()}
                shown = matched(aim.see(part, latent[ahead], [rows[n] for n in ahead], batch), latent[ahead])
                for at, n in enumerate(ahead):
                    now[n] = shown[at : at + 1]
            for n, one in enumerate(now):
                goals[n].append(one)
        return goals

    def _set_out(self, row: int, here: Latent, goal: Aimed) -> None:
        """The first look: find a way where none was given, unless straight ahead is tried first."""
        if self._finder is None:
            self._progress[row] = Progress(len(self._aims))
            return
        self._found[row] = []
        if self._rule.ask == "start":
            self._find(row, here, goal)
        self._progress[row] = Progress(len(self._found[row]))

    def _find(self, row: int, here: Latent, goal: Aimed) -> None:
        assert self._finder is not None
        heading = goal.heading(self._model, here) if isinstance(goal, Targets) else goal
        if heading is None:
            raise ValueError(
                "a way is looked for to a goal picture; a region alone shows none: give sub-goals, or none"
            )
        found = self._finder.find_way(here, heading)
        self._found[row] = [found.latents[k : k + 1] for k in range(len(found.latents))]
        self._tell(row, found.words)

    def _move(self, row: int, here: Latent, goal: Aimed, aim: Aimed) -> bool:
        """Decide for one environment; whether it begins anew."""
        distance = steps_away(self._model, here, aim)
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
