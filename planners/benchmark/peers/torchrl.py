"""torchrl: CEMPlanner, and MPPIPlanner, whose elites are weighed and whose spread is refitted.

Both draw from N(0, 1) within bounds and give back only the first action of the last mean. So a whole sequence is one action
of a world that lasts one step, in units of our spread per dimension: the same search, and all of its plan.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from planners.benchmark.peers.asked import Asked


def cem(asked: Asked, settings: Mapping[str, Any]) -> Tensor:
    """(H, A) the last mean; settings: spread, elites (share)."""
    from torchrl.modules.planners import CEMPlanner  # type: ignore[import-not-found]

    unit = _unit(asked, settings)
    planner = CEMPlanner(
        _world_kind()(asked, unit), planning_horizon=1, optim_steps=asked.iterations, num_candidates=asked.samples,
        top_k=asked.elites(settings["elites"]),
    )  # fmt: skip
    return _planned(planner, asked, unit)


def mppi(asked: Asked, settings: Mapping[str, Any]) -> Tensor:
    """(H, A) the last mean; settings: spread, elites (share), temperature, and of what: `rest` or `elites`.

    The advantage is ours to give: how much worse than the best of the population, in units of the cost of doing nothing, or
    of the spread of the elites' costs, which shrinks as the search converges.
    """
    from torchrl.modules.planners import MPPIPlanner  # type: ignore[import-not-found]

    unit, count = _unit(asked, settings), asked.elites(settings["elites"])

    def advantage(futures: Any) -> Any:
        reward = futures["next", "reward"]
        worse = reward - reward.amax()
        scale = (
            asked.rest_cost if settings["of"] == "rest" else worse.flatten().topk(count).values.std().clamp_min(1e-12)
        )
        return futures.set("advantage", worse / scale)

    planner = MPPIPlanner(
        _world_kind()(asked, unit), advantage, temperature=1.0 / settings["temperature"], planning_horizon=1,
        optim_steps=asked.iterations, num_candidates=asked.samples, top_k=count,
    )  # fmt: skip
    return _planned(planner, asked, unit)


def _unit(asked: Asked, settings: Mapping[str, Any]) -> Tensor:
    """(H * A,) what one standard deviation of theirs means."""
    return (settings["spread"] * asked.std).repeat(asked.horizon)


def _planned(planner: Any, asked: Asked, unit: Tensor) -> Tensor:
    with torch.no_grad():
        mean = planner.planning(planner.env.reset())
    return (mean * unit).view(asked.horizon, asked.size)


@functools.cache
def _world_kind() -> Any:
    """A world of one step: its action is a whole sequence, its reward what the sequence does not cost."""
    from tensordict import TensorDict  # type: ignore[import-not-found]
    from torchrl.data import Bounded, Composite, Unbounded  # type: ignore[import-not-found]
    from torchrl.envs import EnvBase  # type: ignore[import-not-found]

    class World(EnvBase):
        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            # Populations come in any number.
            return super().__new__(cls, *args, _batch_locked=False, **kwargs)

        def __init__(self, asked: Asked, unit: Tensor) -> None:
            super().__init__(device=asked.device, batch_size=torch.Size([]))
            self.asked, self.unit = asked, unit
            self.observation_spec = Composite(here=Unbounded((1,), device=asked.device))
            self.action_spec = Bounded(-1.0 / unit, 1.0 / unit, shape=unit.shape, device=asked.device)
            self.reward_spec = Unbounded((1,), device=asked.device)

        def _reset(self, tensordict: Any = None, **kwargs: Any) -> Any:
            return TensorDict({"here": torch.zeros(1, device=self.device)}, [], device=self.device)

        def _step(self, tensordict: Any) -> Any:
            actions = (tensordict["action"] * self.unit).view(-1, self.asked.horizon, self.asked.size)
            cost = self.asked.cost(actions).view(*tensordict.shape, 1)
            done = torch.zeros_like(cost, dtype=torch.bool)
            found = {"here": tensordict["here"], "reward": -cost, "done": done, "terminated": done.clone()}
            return TensorDict(found, tensordict.shape, device=self.device)

        def _set_seed(self, seed: int | None) -> None:
            """The world draws nothing."""

    return World
