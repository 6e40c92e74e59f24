"""The goal as a command's configuration says it: a scene's own, pictures from files, a region of the arm's state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from planners import Goal
from planners.region import region_of
from planners.registry import nearest
from robots.brain import picture_goal

Seen = dict[str, np.ndarray]
MODES: Mapping[str, Callable[[list[Goal]], Goal]] = {"any": Goal.any_of, "mean": Goal.mean_of}


def make_goal(
    words: Mapping[str, Any], like: Mapping[str, np.ndarray], scene: Callable[[], tuple[Goal, Seen, str]]
) -> tuple[Goal, Seen, str]:
    """The goal, what is kept of it for people, and what it is in words.

    Args:
        words: `goal` is `scene`, a picture's path, a list of them, or null for a region alone; `goal_mode` says whether of
            several pictures any or the mean counts; `region` has `low` and `high` of the arm's own state.
        like: an observation of the arm, for the size of pictures.
        scene: where the goal is the scene's own: it, what is kept of it, and what it is in words.
    """
    said, region = words["goal"], region_of(words["region"])
    mode = str(words["goal_mode"])
    if mode not in MODES:
        raise ValueError(f"goal_mode is {mode!r}{nearest(mode, MODES)}")
    if region is None and words["objective"].get("region") is not None:
        raise ValueError(
            "objective.region weighs a region, and there is none; say region.low=[...] and region.high=[...]"
        )
    if said is None:
        if region is None:
            raise ValueError("there is no goal; give goal=PATH of a picture, or region.low=[...] and region.high=[...]")
        goal = Goal.region(region.low, region.high)
        return goal, goal.record(), f"region {region.words}"
    if said == "scene":
        goal, seen, found = scene()
    elif isinstance(said, list | tuple):
        if not said:
            raise ValueError("goal lists no picture; give goal=[A,B,...], or goal=null for a region alone")
        goal = MODES[mode]([picture_goal(str(path), like) for path in said])
        how = "whichever is nearest" if mode == "any" else "their mean"
        seen, found = goal.record(), f"{len(said)} pictures, {how}: {', '.join(map(str, said))}"
    else:
        goal = picture_goal(str(said), like)
        seen, found = goal.record(), f"picture {said}"
    if region is None:
        return goal, seen, found
    goal = goal.within(region.low, region.high)
    kept = {**goal.record(), **seen}
    kept.pop("simulator.state", None)  # for the brain, not for people
    return goal, kept, f"{found}; within the region {region.words}"


def region_outcome(goal: Goal, state: np.ndarray | None) -> dict[str, Any]:
    """Whether a state lies in the goal's region, and how far each number lies outside, in its unit; empty without one."""
    region = goal.wishes[0].region
    if region is None or state is None:
        return {}
    # A state is measured in single precision: a thousandth of a millimetre is not outside.
    away = [beyond if beyond > 1e-6 else 0.0 for beyond in region.outside([float(value) for value in state])]
    return {"in_region": not any(away), "outside_region": list(away)}
