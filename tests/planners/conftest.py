"""An analytic brain whose best plan is known: a point that goes exactly where it is told."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from worldmodel.interface import ActionSpace, Observation

SPACE = ActionSpace((-0.1, -0.1, -0.2), (0.1, 0.1, 0.2), ("dx", "dy", "dgripper"), 5.0)


class PointMass:
    """Latent (x, y, g) moves by the action times `stride`; nothing is learned, nothing is rounded.

    Args:
        spoil: (actions (B, S, H, A)) -> mask (B, S) of futures to turn into NaN.
        proposal: (latent, goal) -> actions (B, K, A) the prior believes in.
        doubt: what `uncertainty` says of latents.
        on_predict: called with every number of futures asked for.
    """

    name = "point"
    action_space = SPACE
    device = torch.device("cpu")
    required_keys = ("observation.images.front", "observation.state")
    latent_ndim = 1
    stride = 0.25

    def __init__(
        self,
        spoil: Callable[[Tensor], Tensor] | None = None,
        proposal: Callable[[Tensor, Tensor], Tensor] | None = None,
        doubt: Callable[[Tensor], Tensor] | None = None,
        on_predict: Callable[[int], None] | None = None,
    ) -> None:
        self.spoil, self.proposal, self.doubt, self.on_predict = spoil, proposal, doubt, on_predict
        self.largest_chunk = 0

    def encode(self, observation: Observation) -> Tensor:
        if "observation.state" in observation:
            return torch.as_tensor(observation["observation.state"]).to(torch.float32)
        # The picture's mean colour is the state: a brain that reads the state off the picture.
        pictures = torch.as_tensor(observation["observation.images.front"]).to(torch.float32)
        return pictures.mean((1, 2)) / 127.5 - 1.0

    def predict(self, latent: Tensor, actions: Tensor) -> Tensor:
        self.largest_chunk = max(self.largest_chunk, actions.shape[1])
        if self.on_predict is not None:
            self.on_predict(actions.shape[1])
        futures = latent[:, None, None] + self.stride * actions.cumsum(2)
        if self.spoil is not None:
            futures = torch.where(self.spoil(actions)[:, :, None, None], torch.nan, futures)
        return futures

    def distance(self, latents: Tensor, goal: Tensor) -> Tensor:
        return self._apart(latents, goal).square().sum(-1).sqrt() / self.stride

    def feature_distance(self, latents: Tensor, goal: Tensor) -> Tensor:
        return self._apart(latents, goal).square().mean(-1)

    def state_distance(self, latents: Tensor, goal: Tensor) -> Tensor | None:
        return None

    def propose(self, latent: Tensor, goal: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor | None:
        if self.proposal is None:
            return None
        believed = self.proposal(latent, goal)[:, None]
        noise = torch.randn(len(latent), n, *believed.shape[2:], generator=generator)
        noise[:, 0] = 0.0
        return (believed + 0.1 * noise).clamp(-1.0, 1.0)

    def uncertainty(self, latents: Tensor) -> Tensor | None:
        return None if self.doubt is None else self.doubt(latents)

    def decode(self, latents: Tensor) -> Tensor | None:
        colours = ((latents + 1.0) * 127.5).clamp(0, 255).to(torch.uint8)
        return colours[..., None, None, :].expand(*latents.shape[:-1], 8, 8, 3)

    @staticmethod
    def _apart(latents: Tensor, goal: Tensor) -> Tensor:
        return latents - goal.reshape(len(goal), *[1] * (latents.ndim - 2), -1)


@pytest.fixture(scope="session")
def point() -> type[PointMass]:
    """The analytic brain, to be made with what a test needs."""
    return PointMass


@pytest.fixture
def observe() -> Callable[..., dict[str, np.ndarray]]:
    """A way to make an observation of the point at (x, y, g)."""

    def make(x: float = 0.0, y: float = 0.0, g: float = 0.0) -> dict[str, np.ndarray]:
        colour = np.clip((np.nan_to_num([x, y, g], posinf=1.0) + 1) * 127.5, 0, 255).astype(np.uint8)
        picture = np.broadcast_to(colour, (16, 16, 3)).copy()
        return {"observation.images.front": picture, "observation.state": np.array([x, y, g], np.float32)}

    return make
