"""pytorch-icem: CEM with coloured noise and kept elites.

It has no bounds and, with coloured noise, no seed: that noise comes from a generator nobody can reach, so the same question
may be answered otherwise the next time. Its spread is per dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from planners.benchmark.peers.asked import Asked


def icem(asked: Asked, settings: Mapping[str, Any]) -> Tensor:
    """(H, A) the best of the last population; settings: spread, elites, keep (shares), colour, momentum, clip."""
    from pytorch_icem import iCEM  # type: ignore[import-not-found]

    spread = settings["spread"] * asked.std
    planner = iCEM(
        dynamics=lambda state, action: state,
        trajectory_cost=lambda states, actions: asked.cost(actions, settings["clip"]),
        nx=1,
        nu=asked.size,
        # Its check asks for as many axes as there are actions, where it means numbers; the real spread follows below.
        sigma=torch.ones([1] * asked.size, device=asked.device),
        num_samples=asked.samples,
        num_elites=asked.elites(settings["elites"]),
        horizon=asked.horizon,
        elites_keep_fraction=settings["keep"],
        alpha=settings["momentum"],
        noise_beta=settings["colour"],
        warmup_iters=asked.iterations,
        device=asked.device,  # type: ignore[arg-type]
    )
    planner.sigma, planner.std = spread, spread.clone()
    here = torch.zeros(1, device=asked.device)
    best, _ = planner.command(here, shift_nominal_trajectory=False, return_full_trajectories=True)
    return best[:, 1:]
