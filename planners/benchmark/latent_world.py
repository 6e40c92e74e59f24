"""Search problems with a known answer: a small random world whose goals can be reached exactly, so the best cost is 0."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from worldmodel.interface import ActionSpace, Observation

FEATURES, HIDDEN, ACTIONS, HORIZON = 256, 512, 7, 8
# How strongly actions enter beside the latent: with 1 every future looks alike.
ACTION_GAIN = 8.0


class LatentWorld:
    """A random residual network (0.53 million weights) as a brain; nothing is learned, nothing is seen.

    Args:
        seed: of the weights.
        device: where it lives.
    """

    name = "latent"
    latent_ndim = 1
    required_keys = ()

    def __init__(self, seed: int = 0, device: torch.device | None = None) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.device = device or torch.device("cpu")
        self.action_space = ActionSpace(
            (-1.0,) * ACTIONS, (1.0,) * ACTIONS, tuple(f"a{i}" for i in range(ACTIONS)), 5.0
        )
        sizes = [FEATURES + ACTIONS, HIDDEN, HIDDEN, FEATURES]
        self.layers = [
            (torch.randn(i, o, generator=generator) / math.sqrt(i)).to(self.device)
            for i, o in itertools.pairwise(sizes)
        ]

    def problems(self, count: int, seed: int, horizon: int = HORIZON) -> tuple[Tensor, Tensor]:
        """Starts and goals (count, D): every goal is where some actions within bounds lead."""
        generator = torch.Generator().manual_seed(seed)
        start = torch.randn(count, FEATURES, generator=generator).to(self.device)
        actions = (2 * torch.rand(count, 1, horizon, ACTIONS, generator=generator) - 1).to(self.device)
        return start, self.predict(start, actions)[:, 0, -1]

    def predict(self, latent: Tensor, actions: Tensor) -> Tensor:
        """(B, D), actions (B, S, H, A) -> (B, S, H, D)."""
        z = latent[:, None].expand(-1, actions.shape[1], -1)
        future = []
        for h in range(actions.shape[2]):
            x = torch.cat([z, ACTION_GAIN * actions[:, :, h].to(z.dtype)], -1)
            for layer in self.layers[:-1]:
                x = F.silu(x @ layer)
            z = z + x @ self.layers[-1]
            future.append(z)
        return torch.stack(future, 2)

    def feature_distance(self, latents: Tensor, goal: Tensor) -> Tensor:
        """Mean squared difference: (B, *X, D), (B, D) -> (B, *X)."""
        wanted = goal.reshape(len(goal), *[1] * (latents.ndim - 2), -1).expand_as(latents)
        # In one pass: a difference that is kept to be squared costs as much again.
        return F.mse_loss(latents, wanted, reduction="none").mean(-1)

    def features(self, latents: Tensor) -> Tensor:
        """The latent is nothing else."""
        return latents

    def distance(self, latents: Tensor, goal: Tensor) -> Tensor:
        """It knows no other."""
        return self.feature_distance(latents, goal)

    def encode(self, observation: Observation) -> Tensor:
        raise ValueError("this world sees nothing; its problems are latents")

    def state_distance(self, latents: Tensor, goal: Tensor) -> Tensor | None:
        return None

    def propose(self, latent: Tensor, goal: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor | None:
        return None

    def uncertainty(self, latents: Tensor) -> Tensor | None:
        return None

    def decode(self, latents: Tensor) -> Tensor | None:
        return None
