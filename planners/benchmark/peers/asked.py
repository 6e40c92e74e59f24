"""What a peer is asked, once: a start, a goal, and what futures cost; every future it imagines is counted here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from planners.objectives import Objective
from planners.planner import resting_action
from planners.search import SLOPE_FUTURES, futures_at_once
from worldmodel.interface import WorldModel


@dataclass
class Asked:
    """One search. H horizon, A action, S samples, *L latent.

    Attributes:
        model: the brain that imagines.
        latent: (1, *L) the start.
        goal: (1, *L).
        objective: cost by term; a peer gets the sum.
        horizon: steps of the plan.
        samples: futures an iteration.
        iterations: how many of those; a peer may divide their product otherwise, and not exceed it.
        seed: for its randomness.
        std: (A,) where our planners begin to search; a peer's `spread` is in these units.
        memory_mb: futures are imagined in chunks that keep the latents below this, as ours are.
        futures: imagined until now; a gradient counts as two more.
    """

    model: WorldModel
    latent: Tensor
    goal: Tensor
    objective: Objective
    horizon: int
    samples: int
    iterations: int
    seed: int
    std: Tensor
    memory_mb: float = 256.0
    futures: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        # What was encoded in inference mode cannot be differentiated; a copy can.
        self.latent, self.goal = self.latent.clone(), self.goal.clone()

    @property
    def size(self) -> int:
        """Numbers in an action (A)."""
        return self.model.action_space.size

    @property
    def budget(self) -> int:
        """Futures in all."""
        return self.samples * self.iterations

    @property
    def device(self) -> torch.device:
        """Where actions and latents live."""
        return self.latent.device

    @cached_property
    def rest_cost(self) -> float:
        """Of doing nothing, a future like any other: the unit of temperatures, since every problem has its own scale."""
        rest = resting_action(self.model, self.device).expand(1, self.horizon, self.size)
        return max(float(self.cost(rest)), 1e-12)

    def elites(self, share: float) -> int:
        """So much of a population, at least two: a spread needs them."""
        return min(self.samples, max(2, round(share * self.samples)))

    def cost(self, actions: Tensor, clip: bool = True) -> Tensor:
        """(S, H, A) -> (S,); with a gradient where the actions ask for one.

        Args:
            actions: what to imagine.
            clip: to [-1, 1] first, which is what the arm would do; otherwise a brain is asked what no arm can do.
        """
        slope = torch.is_grad_enabled() and actions.requires_grad
        if clip:
            actions = actions.clamp(-1.0, 1.0)
        with torch.inference_mode(not slope):
            chunk = futures_at_once(self.latent, self.horizon, self.memory_mb)
            costs = torch.cat([self._judge(part[None]) for part in actions.split(chunk)])
        self.futures += len(actions) * (SLOPE_FUTURES if slope else 1)
        return costs if slope else costs.clone()

    def _judge(self, actions: Tensor) -> Tensor:
        """(1, C, H, A) -> (C,)."""
        latents = self.model.predict(self.latent, actions)
        terms = self.objective(self.model, latents, actions, self.goal)
        return torch.stack([value.float() for value in terms.values()]).sum(0)[0]

    @contextmanager
    def seeded(self) -> Iterator[None]:
        """Peers without a seed of their own draw from the global generators: seeded in here, as they were outside."""
        devices = [self.device] if self.device.type == "cuda" else []
        numpy_state = np.random.get_state()  # noqa: NPY002 - theirs, not ours
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.seed)
            np.random.seed(self.seed)  # noqa: NPY002
            try:
                yield
            finally:
                np.random.set_state(numpy_state)  # noqa: NPY002
