"""Whether to stay with a sub-goal, go on to the next, or plan afresh: a pure function of what one environment has seen."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum


class Move(Enum):
    """What to do about the present aim."""

    STAY = "stay"
    ARRIVED = "arrived"  # it is reached: on to the next
    PASSED = "passed"  # it is not reached, nor will it be: on to the next
    REPLAN = "replan"  # no nearer for a while: the same aim, sought afresh


@dataclass(frozen=True)
class Rule:
    """When an aim counts as reached, and when as stuck at.

    Stuck means: neither the smallest distance of the last `patience` plans lies `nearer` steps below the smallest one
    before them, nor the smallest cost `cheaper` (a share) below the smallest one before. The cost is asked too because a
    learned distance may be flat far away, where the features still tell that it gets better.

    Attributes:
        arrived: an aim is reached at this distance or less, in the brain's steps (in the units of its `distance`, where
            that is not learned).
        patience: plans without progress until it is stuck.
        nearer: steps that are progress.
        cheaper: share of the cost that is progress.
        replans: so often a sub-goal is sought afresh before it is passed over. The goal itself is never passed over.
        ask: whoever finds ways is asked at the `start`, or only when one is `stuck` on the straight way.
    """

    arrived: float = 2.0
    patience: int = 4
    nearer: float = 0.5
    cheaper: float = 0.1
    replans: int = 1
    ask: str = "start"

    def __post_init__(self) -> None:
        if self.ask not in ("start", "stuck"):
            raise ValueError(f"ask is {self.ask!r}; a way is asked for at the start or when stuck")
        if not (self.arrived > 0 and math.isfinite(self.arrived)):
            raise ValueError(f"arrived is {self.arrived}; it is a number of steps above 0")
        if self.patience < 1:
            raise ValueError(f"patience is {self.patience}; it is a number of plans, 1 or more")
        if not (self.nearer >= 0 and math.isfinite(self.nearer)):
            raise ValueError(f"nearer is {self.nearer}; it is a number of steps, 0 or more")
        if not 0 <= self.cheaper < 1:
            raise ValueError(f"cheaper is {self.cheaper}; it is a share, from 0 to below 1")
        if self.replans < 0:
            raise ValueError(f"replans is {self.replans}; it is a number of times, 0 or more")


@dataclass(frozen=True)
class Progress:
    """How far one environment is on its way.

    Attributes:
        last: the index of the goal; the sub-goals are 0 to last - 1.
        at: the index of the present aim.
        replans: how often it was sought afresh.
        distances, costs: one of each plan towards it since then; a cost that is not known is NaN.
    """

    last: int
    at: int = 0
    replans: int = 0
    distances: tuple[float, ...] = ()
    costs: tuple[float, ...] = ()

    @property
    def at_goal(self) -> bool:
        """Whether the present aim is the goal itself."""
        return self.at >= self.last


def decide(progress: Progress, distance: float, cost: float, rule: Rule) -> tuple[Move, Progress]:
    """One environment's next move.

    Args:
        progress: until now.
        distance: from the present to the present aim, steps. What is not finite decides nothing and is forgotten.
        cost: of the last plan towards this aim; NaN or infinite where there was none.
        rule: when to do what.

    Returns:
        The move, and the progress after it: `at` is the same or one more, and never beyond `last`.
    """
    if not math.isfinite(distance):
        return Move.STAY, progress
    if distance <= rule.arrived:
        if progress.at_goal:
            return Move.STAY, Progress(progress.last, progress.at)  # there is nothing to be stuck at
        return Move.ARRIVED, Progress(progress.last, progress.at + 1)
    progress = replace(progress, distances=(*progress.distances, distance), costs=(*progress.costs, cost))
    if not is_stuck(progress, rule):
        return Move.STAY, progress
    if progress.at_goal or progress.replans < rule.replans:
        return Move.REPLAN, Progress(progress.last, progress.at, progress.replans + 1)
    return Move.PASSED, Progress(progress.last, progress.at + 1)


def is_stuck(progress: Progress, rule: Rule) -> bool:
    """Whether neither distance nor cost has fallen over the last `patience` plans."""
    if len(progress.distances) <= rule.patience:
        return False
    before, lately = _least(progress.distances, rule.patience)
    if lately < before and lately <= before - rule.nearer:
        return False
    before, lately = _least(progress.costs, rule.patience)
    return not (lately < before < math.inf and lately <= before - rule.cheaper * abs(before))


def _least(values: tuple[float, ...], lately: int) -> tuple[float, float]:
    """The smallest finite value before the last so many, and among them; infinite where there is none."""
    parts = (values[:-lately], values[-lately:])
    before, since = (min((value for value in part if math.isfinite(value)), default=math.inf) for part in parts)
    return before, since
