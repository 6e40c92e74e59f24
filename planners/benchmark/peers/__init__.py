"""Other people's planners, asked the same questions as ours: one file a library, imported only when one is asked for."""

from __future__ import annotations

import importlib
import importlib.metadata
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from planners.benchmark.peers.asked import Asked
from planners.registry import nearest

__all__ = ["ALL", "Asked", "Peer", "find"]

# The word for every peer that is installed.
ALL = "all"


@dataclass(frozen=True)
class Peer:
    """Somebody else's planner.

    Attributes:
        name: what a config calls it.
        library: the distribution that holds it.
        plans: (question, settings) -> plan (H, A), or `module:function` of one, imported when it is called.
        grid: what may be tuned, and between what; tuning begins at the first of each.
        tuned: by the kind of problems, what tuning found.
        note: what a reader of its figures should know.
        slopes: whether it asks for gradients.
    """

    name: str
    library: str
    plans: str | Callable[[Asked, Mapping[str, Any]], Tensor]
    grid: Mapping[str, Sequence[Any]]
    tuned: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    note: str = ""
    slopes: bool = False

    @property
    def version(self) -> str | None:
        """Of the library; None where it is not installed."""
        try:
            return importlib.metadata.version(self.library)
        except importlib.metadata.PackageNotFoundError:
            return None

    def settings(self, kind: str) -> dict[str, Any]:
        """The tuned settings for problems of this kind; what was never tuned is as tuning would begin."""
        return {axis: values[0] for axis, values in self.grid.items()} | dict(self.tuned.get(kind, {}))

    @property
    def about(self) -> dict[str, str]:
        """What a record of its figures says of it."""
        about = {"library": self.library, "version": str(self.version)}
        return about | {"note": self.note} if self.note else about

    def plan(self, asked: Asked, settings: Mapping[str, Any]) -> Tensor:
        """(H, A), as the peer gives it back: not clipped, perhaps not even finite."""
        plans = self.plans
        if isinstance(plans, str):
            module, _, name = plans.partition(":")
            plans = getattr(importlib.import_module(module), name)
        with asked.seeded(), warnings.catch_warnings():
            # Of packages it could have, of how it copies a tensor: nothing that concerns the question.
            warnings.simplefilter("ignore")
            try:
                return plans(asked, settings)
            except Exception as error:
                raise RuntimeError(f"{self.name} of {self.library} {self.version} could not plan: {error}") from error


def find(names: str | Sequence[str]) -> list[Peer]:
    """Peers by name, or a sentence: one that nobody knows, one that is not installed. `[all]` is all that are installed."""
    from planners.benchmark.peers.table import PEERS

    names = [names] if isinstance(names, str) else [str(name) for name in names]
    if names == [ALL]:
        found = [peer for peer in PEERS.values() if peer.version is not None]
        if not found:
            raise ValueError("search.peers is [all], and none is installed; `make bench-peers` installs them apart")
        return found
    if ALL in names:
        raise ValueError(f"search.peers is [{', '.join(names)}]; all stands alone")
    for name in names:
        if name not in PEERS:
            raise ValueError(f"search.peers has {name!r}{nearest(name, [*PEERS, ALL])}")
        if PEERS[name].version is None:
            raise ValueError(
                f"search.peers has {name}, and {PEERS[name].library} is not installed here; "
                "`make bench-peers` installs it apart"
            )
    return [PEERS[name] for name in dict.fromkeys(names)]
