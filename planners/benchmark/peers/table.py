"""The peers by name, and what of each may be tuned; what tuning found is in `configs/peers.yaml`.

Spreads are in units of the `initial_std` that our planners begin with, temperatures in units of the cost of doing nothing (or
of the spread of the elites' costs); elites and knots are shares.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from planners.benchmark.peers import Peer

TUNED = Path(__file__).resolve().parents[3] / "configs" / "peers.yaml"
_OURS = "planners.benchmark.peers"
_SPREADS = (1.0, 0.3, 0.5, 0.75, 1.5)
_ELITES = (0.1, 0.05, 0.2)
_TEMPERATURES = (0.03, 0.003, 0.01, 0.1)
_CLIP = (True, False)


def tuned() -> dict[str, dict[str, Any]]:
    """By peer and kind of problems, the settings that tuning found."""
    from omegaconf import OmegaConf

    found: Any = OmegaConf.to_container(OmegaConf.load(TUNED)) if TUNED.is_file() else {}
    return found or {}


_FOUND = tuned()
PEERS: dict[str, Peer] = {
    peer.name: replace(peer, tuned=_FOUND.get(peer.name, {}))
    for peer in (
        Peer(
            "pytorch_mppi",
            "pytorch-mppi",
            f"{_OURS}.pytorch_mppi:mppi",
            grid={"temperature": _TEMPERATURES, "spread": _SPREADS},
        ),
        Peer(
            "pytorch_kmppi",
            "pytorch-mppi",
            f"{_OURS}.pytorch_mppi:kmppi",
            grid={"temperature": _TEMPERATURES, "spread": _SPREADS, "knots": (0.5, 1.0), "kernel": (1.0, 0.5, 2.0)},
        ),
        Peer(
            "pytorch_icem",
            "pytorch-icem",
            f"{_OURS}.pytorch_icem:icem",
            grid={
                "spread": _SPREADS,
                "elites": _ELITES,
                "colour": (0.0, 1.0, 2.0),
                "keep": (0.5, 0.2),
                "momentum": (0.05, 0.2),
                "clip": _CLIP,
            },
            note="draws coloured noise from a generator that cannot be seeded",
        ),
        Peer(
            "torchrl_cem",
            "torchrl",
            f"{_OURS}.torchrl:cem",
            grid={"spread": _SPREADS, "elites": _ELITES},
        ),
        Peer(
            "torchrl_mppi",
            "torchrl",
            f"{_OURS}.torchrl:mppi",
            grid={
                "temperature": (1.0, 0.01, 0.03, 0.1, 0.3, 3.0),
                "of": ("elites", "rest"),
                "spread": _SPREADS,
                "elites": _ELITES,
            },
        ),
        Peer(
            "swm_cem",
            "stable-worldmodel",
            f"{_OURS}.stable_worldmodel:cem",
            grid={"spread": _SPREADS, "elites": _ELITES, "clip": _CLIP},
        ),
        Peer(
            "swm_icem",
            "stable-worldmodel",
            f"{_OURS}.stable_worldmodel:icem",
            grid={
                "spread": _SPREADS,
                "elites": _ELITES,
                "colour": (0.0, 1.0, 2.0),
                "momentum": (0.1, 0.0),
                "mean": (True, False),
            },
        ),
        Peer(
            "swm_mppi",
            "stable-worldmodel",
            f"{_OURS}.stable_worldmodel:mppi",
            grid={"temperature": _TEMPERATURES, "spread": _SPREADS, "elites": _ELITES, "clip": _CLIP},
        ),
        Peer(
            "swm_adam",
            "stable-worldmodel",
            f"{_OURS}.stable_worldmodel:adam",
            grid={"rate": (0.1, 0.03, 0.3), "starts": (10, 1, 3, 30), "spread": _SPREADS, "clip": _CLIP},
            slopes=True,
        ),
        Peer(
            "cmaes_full",  # `cmaes` is ours
            "cmaes",
            f"{_OURS}.cmaes:full",
            grid={"population": (20, 10, 40, 100), "spread": (0.5, 0.15, 0.3, 1.0)},
        ),
        Peer(
            "cmaes_sep",
            "cmaes",
            f"{_OURS}.cmaes:separable",
            grid={"population": (20, 10, 40, 100), "spread": (0.5, 0.15, 0.3, 1.0)},
        ),
    )
}
