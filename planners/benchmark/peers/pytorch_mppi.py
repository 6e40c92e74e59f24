"""pytorch-mppi: MPPI, and MPPI over kernel-interpolated knots (KMPPI).

It gets bounds and a covariance, so our spread per dimension. Its sampling is of a whole sequence, and so is the cost: the
state it steps through is a dummy, the sequence's cost comes as the terminal one. Spreads stay as they began: it has no refit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from planners.benchmark.peers.asked import Asked


def mppi(asked: Asked, settings: Mapping[str, Any]) -> Tensor:
    """(H, A) after so many commands on the same state, nothing shifted; settings: temperature (of rest), spread."""
    from pytorch_mppi import MPPI  # type: ignore[import-not-found]

    return _commanded(MPPI(**_common(asked, settings)), asked)


def kmppi(asked: Asked, settings: Mapping[str, Any]) -> Tensor:
    """The same over `knots` (a share of the horizon) with a Gaussian kernel `kernel` steps wide."""
    from pytorch_mppi.mppi import KMPPI, RBFKernel  # type: ignore[import-not-found]

    knots = min(asked.horizon, max(2, round(settings["knots"] * asked.horizon)))
    kernel = RBFKernel(sigma=settings["kernel"])
    return _commanded(KMPPI(**_common(asked, settings), num_support_pts=knots, kernel=kernel), asked)


def _common(asked: Asked, settings: Mapping[str, Any]) -> dict[str, Any]:
    one = torch.ones(asked.size, device=asked.device)
    return {
        "dynamics": lambda state, action: state,
        "running_cost": lambda state, action: torch.zeros(len(state), device=asked.device),
        "terminal_state_cost": lambda states, actions: asked.cost(actions[0]),
        "nx": 1,
        "noise_sigma": torch.diag((settings["spread"] * asked.std).square()),
        "num_samples": asked.samples,
        "horizon": asked.horizon,
        "device": asked.device,
        "lambda_": settings["temperature"] * asked.rest_cost,
        "u_min": -one,
        "u_max": one,
        # Left out, it begins at noise.
        "U_init": torch.zeros(asked.horizon, asked.size, device=asked.device),
    }


def _commanded(planner: Any, asked: Asked) -> Tensor:
    here = torch.zeros(1, device=asked.device)
    for _ in range(asked.iterations):
        planner.command(here, shift_nominal_trajectory=False)
    return planner.get_action_sequence()
