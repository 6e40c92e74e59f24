"""The arm's pose in a goal picture, read the more exactly the more of its scene has been seen.

What misreads a goal (its light, its camera, a far corner) misreads the present too, and there the truth is known: the arm
tells its pose. What was misread near the goal is taken off the goal's reading, averaged over all that was seen, so that the
aim settles instead of jumping with every picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from worldmodel.interface import Observation
from worldmodel.networks import Networks

# What was seen counts half at this distance of readings, in spreads of the state (root mean square).
NEAR = 0.3
# As if so much had been seen that was read rightly: one picture alone is not believed.
CAUTION = 1.0
# A number of which pictures tell less than this (1 all, 0 nothing) is guessed rather than read: its error says nothing
# about another picture's.
TOLD = 0.9


class GoalReading:
    """One goal for each of B environments (or one for all), and how the same eyes misread what is seen on the way.

    Args:
        networks: whose readings they are.
        goal: (B, D + P + 1) or (1, D + P + 1), its proprioception read off pictures.
        pictures: observation -> (N, C, H, W, 3) uint8.
    """

    def __init__(self, networks: Networks, goal: Tensor, pictures: Callable[[Observation], Tensor]) -> None:
        self._networks, self._goal, self._pictures = networks, goal, pictures
        self._features = networks.architecture.features
        self._trust = networks.get_buffer("readout_trust")
        self._gain = ((self._trust - TOLD) / (1 - TOLD)).clamp(0.0, 1.0)
        self._misread: Tensor | None = None
        self._weight: Tensor | None = None

    def forget(self) -> None:
        """A new beginning: nothing has been seen."""
        self._misread = self._weight = None

    def see(self, observation: Observation, latent: Tensor, rows: Sequence[int], batch: int) -> Tensor:
        """Learn from the present and say where the goal is now thought to be.

        Args:
            observation: the present of N environments.
            latent: (N, D + P + 1), the same encoded; its proprioception was told, not read.
            rows: which environments of the batch these N are.
            batch: B.

        Returns:
            The goals (N, D + P + 1) of these environments.
        """
        goal = self._goal.expand(batch, -1)[list(rows)]
        wanted = goal[:, self._features : -1]
        if self._misread is None or self._weight is None:
            self._misread, self._weight = goal.new_zeros(batch, wanted.shape[1]), goal.new_zeros(batch, 1)
        z, told = latent[:, : self._features], latent[:, self._features : -1]
        with torch.no_grad():
            read = self._networks.read_state(self._pictures(observation), z)
        off = ((read - wanted).square() * self._trust).mean(-1, keepdim=True) / NEAR**2
        weight = (1.0 + off).reciprocal()
        at = torch.as_tensor(rows, device=goal.device)
        self._misread.index_add_(0, at, weight * (told - read))
        self._weight.index_add_(0, at, weight)
        correction = self._gain * self._misread[at] / (CAUTION + self._weight[at])
        return torch.cat([goal[:, : self._features], wanted + correction, goal[:, -1:]], -1)
