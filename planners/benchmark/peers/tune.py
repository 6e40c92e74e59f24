"""Every peer's best setting, sought on development problems: one axis of its grid after the other, twice around."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import OmegaConf

from planners.benchmark.peers import Peer, table
from planners.benchmark.report import write_whole
from planners.benchmark.searching import (
    Kept,
    Problems,
    SearchSpace,
    make_problems,
    peer_key,
    search_all_by_peer,
)
from planners.plan import Budget

if TYPE_CHECKING:
    from rich.console import Console

ROUNDS = 2
# Reported figures are of problems from here on.
REPORTED_FROM = 10_000


# Above what was found.
HEAD = """# What other people's planners are compared at, by the kind of problems: their tuned settings.
# Found on development problems, by: {command}
"""


def tuned(
    peer: Peer,
    kind: str,
    score: Callable[[Mapping[str, Any]], float],
    on_point: Callable[[str], None] = lambda said: None,
) -> tuple[dict[str, Any], float]:
    """The best settings found and their score.

    Args:
        peer: whose grid is searched; the beginning is what was tuned before, or the first of each axis.
        kind: of problems.
        score: of settings, less is better.
        on_point: told what is being tried.
    """
    known: dict[str, float] = {}

    def scored(settings: Mapping[str, Any]) -> float:
        key = json.dumps(settings, sort_keys=True)
        if key not in known:
            on_point(f"{kind}: {peer.name} {said(settings)}")
            known[key] = score(settings)
        return known[key]

    best = peer.settings(kind)
    lowest = scored(best)
    for _ in range(ROUNDS):
        before = best
        for axis, values in peer.grid.items():
            for value in values:
                tried = {**best, axis: value}
                if (cost := scored(tried)) < lowest:
                    best, lowest = tried, cost
        if best == before:
            break
    return best, lowest


def said(settings: Mapping[str, Any]) -> str:
    """`elites 0.1, spread 1.0`."""
    return ", ".join(f"{axis} {value}" for axis, value in settings.items())


def run(
    words: Mapping[str, Any],
    peers: Sequence[Peer],
    spaces: Mapping[str, SearchSpace],
    kinds: Sequence[str],
    budgets: Sequence[Budget],
    folder: Path,
    command: str,
    console: Console,
) -> int:
    """`search.tune=true`: find the settings, print them and write `peers.yaml`, to be copied to `configs/`.

    What `configs/peers.yaml` says of other peers and kinds stays in it. A killed run goes on where it was stopped.
    """
    count, seed = int(words["episodes"]), int(words["seed"])
    if not peers:
        raise ValueError("search.tune=true tunes peers, and search.peers names none; say search.peers=[all]")
    if seed + count > REPORTED_FROM:
        raise ValueError(
            f"seed is {seed} and episodes {count}; peers are tuned on development problems, all below {REPORTED_FROM}"
        )
    if len(budgets) != 1:
        raise ValueError("search.tune=true tunes at one number of futures; say search.futures=[1000]")
    found = table.tuned()
    # Before any peer is imported: some bring a simulator along that would choose how to draw.
    for problems in [make_problems(kind, words, count, seed) for kind in kinds]:
        kind = problems.name
        kept = Kept.of(problems, folder, seed)
        for peer in peers:
            with console.status("") as status:
                score = partial(_share, problems, peer, spaces[kind], words["objective"], budgets[0], kept)
                settings, cost = tuned(peer, kind, score, status.update)
            found.setdefault(peer.name, {})[kind] = settings
            console.print(
                f"{kind} {peer.name}: {cost:.3f} of the cost of doing nothing, {said(settings)}", soft_wrap=True
            )
            write_whole(folder / "peers.yaml", (HEAD.format(command=command) + OmegaConf.to_yaml(found)).encode())
    console.print(f"{folder / 'peers.yaml'}")
    return 0


def _share(
    problems: Problems,
    peer: Peer,
    space: SearchSpace,
    objective: Mapping[str, Any],
    budget: Budget,
    kept: Kept,
    settings: Mapping[str, Any],
) -> float:
    """Mean cost over that of doing nothing, searched once."""
    key = peer_key(peer, settings, space, objective, budget)
    row = kept.get(key)
    if row is None:
        row = search_all_by_peer(problems, peer, settings, space, budget)
        kept.put(key, row)
    return float((np.array(row["costs"]) / np.array(row["rest"])).mean())
