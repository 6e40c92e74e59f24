"""What should become true, given the way a person can give it: a picture, or what was observed where it was true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from planners.observation import IMAGES, STATE, ObservationError, check, to_batch
from worldmodel.interface import WorldModel


@dataclass(frozen=True)
class Goal:
    """A goal for each of B environments (or one for all of them), as observations.

    >>> goal = Goal.image(np.zeros((64, 64, 3), np.uint8))
    >>> goal.observations[0]["observation.images.front"].shape
    (64, 64, 3)
    """

    observations: tuple[Mapping[str, np.ndarray], ...]

    @classmethod
    def image(cls, image: np.ndarray, camera: str = "front") -> Goal:
        """One picture (H, W, 3) uint8 of how it should look."""
        return cls.images({camera: image})

    @classmethod
    def images(cls, images: Mapping[str, np.ndarray]) -> Goal:
        """Pictures of the same moment from several cameras, by the camera's name."""
        return cls.from_observation({IMAGES + camera: image for camera, image in images.items()})

    @classmethod
    def from_observation(cls, observation: Mapping[str, object]) -> Goal:
        """An observation of the goal reached; the more it holds, the less a brain has to guess."""
        known = {key: check(key, observation) for key in observation if key not in ("task", "timestamp")}
        if not known:
            raise ObservationError("a goal needs a picture or an observation; this one is empty")
        return cls((known,))

    @classmethod
    def stack(cls, goals: Sequence[Goal]) -> Goal:
        """One goal for each environment of a batch."""
        return cls(tuple(one for goal in goals for one in goal.observations))

    @property
    def pictures(self) -> dict[str, np.ndarray]:
        """The first environment's goal pictures by camera, for people."""
        first = self.observations[0]
        return {key.removeprefix(IMAGES): value for key, value in first.items() if key.startswith(IMAGES)}

    def encode(self, model: WorldModel) -> Tensor:
        """The goal as the brain sees it, (B, *L); of what it requires only the state may be missing."""
        wanted = [key for key in model.required_keys if key != STATE or STATE in self.observations[0]]
        try:
            batch = to_batch(self.observations, wanted)
        except ObservationError as error:
            raise type(error)(f"the goal does not fit the model {model.name}: {error}") from None
        latent = model.encode({key: torch.from_numpy(value) for key, value in batch.items()})
        if not torch.isfinite(latent).all():
            raise ObservationError(f"the model {model.name} makes NaN of this goal")
        return latent
