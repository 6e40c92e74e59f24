"""stable-worldmodel's solvers: CEM, iCEM, MPPI and Adam through the brain; they have seeds of their own.

Their spread is a number that they multiply ones with, so a spread per dimension can be given. Only iCEM knows bounds; to the
others `clip` says whether the brain is asked for the actions they drew or for what an arm would make of them.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from planners.benchmark.peers.asked import Asked
from planners.search import SLOPE_FUTURES


def cem(asked: Asked, settings: Mapping[str, Any]) -> Tensor:
    """(H, A) the last mean; settings: spread, elites (share), clip."""
    from stable_worldmodel.solver import CEMSolver  # type: ignore[import-not-found]

    return _solved(CEMSolver(**_sampled(asked, settings)), asked)


def icem(asked: Asked, settings: Mapping[str, Any]) -> Tensor:
    """(H, A) the last mean or the best of the last population; settings: spread, elites (share), colour, momentum, mean."""
    from stable_worldmodel.solver import ICEMSolver  # type: ignore[import-not-found]

    own = {"noise_beta": settings["colour"], "alpha": settings["momentum"], "return_mean": settings["mean"]}
    return _solved(ICEMSolver(**_sampled(asked, {**settings, "clip": True}), **own), asked)


def mppi(asked: Asked, settings: Mapping[str, Any]) -> Tensor:
    """(H, A) the last mean; settings: spread, elites (share), temperature (of rest), clip. It never refits the spread."""
    from stable_worldmodel.solver import MPPISolver  # type: ignore[import-not-found]

    temperature = settings["temperature"] * asked.rest_cost
    return _solved(MPPISolver(**_sampled(asked, settings), temperature=temperature), asked)


def adam(asked: Asked, settings: Mapping[str, Any]) -> Tensor:
    """(H, A) where the best of `starts` arrives; settings: starts, rate, spread, clip. As many steps as the futures allow."""
    from stable_worldmodel.solver import GradientSolver  # type: ignore[import-not-found]

    starts = max(1, min(settings["starts"], asked.budget // SLOPE_FUTURES))
    solver = GradientSolver(
        _Costs(asked, settings["clip"]), n_steps=asked.budget // (SLOPE_FUTURES * starts), num_samples=starts,
        var_scale=settings["spread"] * asked.std, device=asked.device, seed=asked.seed,
        optimizer_cls=torch.optim.Adam, optimizer_kwargs={"lr": settings["rate"]},
    )  # fmt: skip
    return _solved(solver, asked)


class _Costs:
    """What their solvers call a model."""

    def __init__(self, asked: Asked, clip: bool) -> None:
        self.asked, self.clip = asked, clip

    def get_cost(self, info: Mapping[str, Any], candidates: Tensor) -> Tensor:
        """(1, S, H, A) -> (1, S)."""
        return self.asked.cost(candidates[0], self.clip)[None]


def _sampled(asked: Asked, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": _Costs(asked, settings["clip"]),
        "num_samples": asked.samples,
        "n_steps": asked.iterations,
        "topk": asked.elites(settings["elites"]),
        "var_scale": settings["spread"] * asked.std,
        "device": asked.device,
        "seed": asked.seed,
    }


def _solved(solver: Any, asked: Asked) -> Tensor:
    from gymnasium.spaces import Box
    from stable_worldmodel.policy import PlanConfig  # type: ignore[import-not-found]

    box = Box(-1.0, 1.0, (1, asked.size), np.float32)
    solver.configure(action_space=box, n_envs=1, config=PlanConfig(asked.horizon, asked.horizon))
    # They print how long they took.
    with contextlib.redirect_stdout(io.StringIO()):
        found = solver.solve({"here": torch.zeros(1, 1, device=asked.device)})
    return found["actions"][0].to(asked.device)
