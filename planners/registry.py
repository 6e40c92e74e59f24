"""Planners and objectives by the words a config uses; a wrong word gets a sentence with the nearest right one."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from planners.branches import Schedules
from planners.cem import CEM
from planners.cmaes import CMAES
from planners.floors import Floor, Hold, Prior, RandomActions
from planners.gradient import Gradient
from planners.hybrid import Hybrid
from planners.icem import ICEM
from planners.mppi import MPPI
from planners.objectives import (
    ActionPenalty,
    FeatureDistance,
    LearnedDistance,
    Objective,
    RegionDistance,
    SmoothnessPenalty,
    StateDistance,
    UncertaintyPenalty,
)
from planners.planner import Planner
from planners.shooting import RandomShooting

PLANNERS: dict[str, type[Planner]] = {
    "cem": CEM,
    "mppi": MPPI,
    "icem": ICEM,
    "cmaes": CMAES,
    "gradient": Gradient,
    "hybrid": Hybrid,
    "shooting": RandomShooting,
    "hold": Hold,
    "random": RandomActions,
    "prior": Prior,
}
TERMS: dict[str, Callable[..., Any]] = {
    "learned": LearnedDistance,
    "feature": FeatureDistance,
    "state": StateDistance,
    "region": RegionDistance,
    "action": ActionPenalty,
    "smoothness": SmoothnessPenalty,
    "uncertainty": UncertaintyPenalty,
}


def make_planner(config: Mapping[str, Any], objective: Mapping[str, Any] | None = None) -> Planner:
    """A planner from {name: word, setting: value, ...}; the word may be `package.module:Class` of one's own.

    >>> make_planner({"name": "cem", "horizon": 5}).horizon
    5
    """
    settings = {str(key): _plain(value) for key, value in config.items()}
    word = str(settings.pop("name", ""))
    kind = _own(word) if ":" in word else PLANNERS.get(word)
    if kind is None:
        raise ValueError(f"no planner is called {word!r}{nearest(word, PLANNERS)}")
    if objective is not None and not issubclass(kind, Floor):
        settings["objective"] = make_objective(objective)
    if isinstance(settings.get("schedules"), Mapping):
        schedules = {str(key): _plain(value) for key, value in settings["schedules"].items()}
        settings["schedules"] = _build(Schedules, schedules, f"schedules of planner {word}")
    return _build(kind, settings, f"planner {word}")


def make_objective(config: Mapping[str, Any]) -> Objective:
    """An objective from {term: {setting: value, ...}, ...}; a term that is null is left out.

    >>> make_objective({"learned": {"final": 2.0}, "action": None}).names
    ('learned',)
    """
    terms = {}
    for name, settings in config.items():
        if settings is None:
            continue
        if name not in TERMS:
            raise ValueError(f"an objective has no term {str(name)!r}{nearest(str(name), TERMS)}")
        terms[str(name)] = _build(TERMS[name], dict(settings), f"objective term {name}")
    return Objective(**terms)


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?`, or what there is."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"


def _build(kind: Any, settings: dict[str, Any], what: str) -> Any:
    """Call with settings that are fields of the dataclass; name the one that is not."""
    parts = getattr(kind, "__dataclass_fields__", {})
    known = [name for name, part in parts.items() if part.init] or list(settings)
    for key in settings:
        if key not in known:
            raise ValueError(f"{what} has no setting {key!r}{nearest(key, known)}")
    return kind(**settings)


def _own(word: str) -> type[Planner]:
    """A class of somebody else's, as `package.module:Class`."""
    module, _, name = word.partition(":")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"planner {word!r} cannot be imported: {error}") from None
    if not (isinstance(kind, type) and issubclass(kind, Planner)):
        raise ValueError(f"planner {word!r} is no subclass of planners.Planner")
    return kind


def _plain(value: Any) -> Any:
    """Lists of a config as tuples, so that a planner is what its fields say."""
    return value if isinstance(value, str | Mapping) or not hasattr(value, "__iter__") else tuple(value)
