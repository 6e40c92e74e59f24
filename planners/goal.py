"""What should become true, given the way a person can give it: pictures, what was observed where it was true, or numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from planners.observation import IMAGES, STATE, ObservationError, check, to_batch
from planners.region import Region
from planners.targets import Target, Targets
from worldmodel.interface import WorldModel

Observed = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Wish:
    """One environment's goal.

    Attributes:
        observations: of the goal reached; of several the nearest counts, or the weighted mean. None for a region alone.
        weights: of the observations, their sum 1, where the mean counts.
        region: of the arm's own state.
    """

    observations: tuple[Observed, ...] = ()
    weights: tuple[float, ...] | None = None
    region: Region | None = None


@dataclass(frozen=True)
class Goal:
    """A goal for each of B environments (or one for all of them), as observations or a region of the arm's state.

    >>> goal = Goal.image(np.zeros((64, 64, 3), np.uint8))
    >>> goal.observations[0]["observation.images.front"].shape
    (64, 64, 3)
    >>> Goal.region([0.4, -0.1, 0.1], [0.5, 0.1, 0.1]).wishes[0].region.words
    '0.4 to 0.5, -0.1 to 0.1, 0.1'
    """

    wishes: tuple[Wish, ...]

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
        return cls((Wish((known,)),))

    @classmethod
    def region(cls, low: Iterable[float | None] | None = None, high: Iterable[float | None] | None = None) -> Goal:
        """Bounds of the arm's own state, number by number as in `observation.state`; None or NaN where it is free.

        On the tabletop: tool x, y, z (m), roll, pitch, yaw (rad; pointing down, the roll is pi), gripper (0 open, 1 closed).
        Fewer numbers leave the last ones free; a point has low and high equal.
        """
        return cls((Wish(region=Region.of(low, high)),))

    @classmethod
    def any_of(cls, goals: Sequence[Goal]) -> Goal:
        """Whichever of several pictures is nearest: each future costs what it costs towards the cheapest."""
        return cls._several(goals, None)

    @classmethod
    def mean_of(cls, goals: Sequence[Goal], weights: Sequence[float] | None = None) -> Goal:
        """Several pictures of the same goal: each future costs the mean over them, weighted where weights are given."""
        given = [1.0] * len(goals) if weights is None else [float(weight) for weight in weights]
        if len(given) != len(goals) or not all(w > 0 and math.isfinite(w) for w in given):
            raise ObservationError(f"the weights of {len(goals)} goals are {given}; give one above 0 for each")
        return cls._several(goals, tuple(weight / sum(given) for weight in given))

    @classmethod
    def stack(cls, goals: Sequence[Goal]) -> Goal:
        """One goal for each environment of a batch."""
        return cls(tuple(wish for goal in goals for wish in goal.wishes))

    def within(self, low: Iterable[float | None] | None = None, high: Iterable[float | None] | None = None) -> Goal:
        """The same goal, the arm's own state kept in a region besides."""
        if any(wish.region for wish in self.wishes):
            raise ObservationError("the goal has a region already; give all its bounds at once")
        region = Region.of(low, high)
        return Goal(tuple(replace(wish, region=region) for wish in self.wishes))

    @property
    def observations(self) -> tuple[Observed, ...]:
        """Every environment's first observation; an empty one where there is a region alone."""
        return tuple(wish.observations[0] if wish.observations else {} for wish in self.wishes)

    @property
    def pictures(self) -> dict[str, np.ndarray]:
        """The first environment's goal pictures by camera, for people; of several the first."""
        first = self.observations[0]
        return {key.removeprefix(IMAGES): value for key, value in first.items() if key.startswith(IMAGES)}

    def record(self, environment: int = 0) -> dict[str, np.ndarray]:
        """All that one environment's goal holds, for a rollout: the first observation under its own names, others under
        `2/...` and so on, the bounds of a region as `region.low` and `region.high`."""
        wish = self.wishes[environment]
        kept = dict(wish.observations[0]) if wish.observations else {}
        for number, observation in enumerate(wish.observations[1:], 2):
            kept |= {f"{number}/{key}": value for key, value in observation.items()}
        if wish.region is not None:
            kept |= {"region.low": np.array(wish.region.low), "region.high": np.array(wish.region.high)}
        return kept

    def encode(self, model: WorldModel) -> Tensor | Targets:
        """The goal as the brain sees it: (B, *L), or `Targets` where it is not one picture for each environment.

        Of what the brain requires only the state may be missing.
        """
        if all(len(wish.observations) == 1 and wish.region is None for wish in self.wishes):
            return _encoded(model, self.observations)
        each = []
        for wish in self.wishes:
            # One by one: what else there is must not change what a picture looks like.
            seen = [_encoded(model, [observation]) for observation in wish.observations]
            latents = torch.cat(seen) if seen else torch.empty(0, device=model.device)
            each.append(Target(latents, wish.weights, wish.region))
        return Targets(tuple(each))

    @classmethod
    def _several(cls, goals: Sequence[Goal], weights: tuple[float, ...] | None) -> Goal:
        """Alternatives of one goal for each environment."""
        if not goals:
            raise ObservationError("there is no goal to choose from: the list is empty")
        sizes = sorted({len(goal.wishes) for goal in goals} - {1})
        if len(sizes) > 1:
            raise ObservationError(f"the goals are for {' and '.join(map(str, sizes))} environments; give as many each")
        wishes = []
        for row in range(sizes[0] if sizes else 1):
            parts = [goal.wishes[row if len(goal.wishes) > 1 else 0] for goal in goals]
            if any(len(part.observations) != 1 or part.region is not None for part in parts):
                raise ObservationError(
                    "any_of and mean_of take goals of one picture or observation each; give a region to the whole with "
                    "within(low, high)"
                )
            wishes.append(Wish(tuple(part.observations[0] for part in parts), weights))
        return cls(tuple(wishes))


def _encoded(model: WorldModel, observations: Sequence[Observed]) -> Tensor:
    """(B, *L)."""
    wanted = [key for key in model.required_keys if key != STATE or STATE in observations[0]]
    try:
        batch = to_batch(observations, wanted)
    except ObservationError as error:
        raise type(error)(f"the goal does not fit the model {model.name}: {error}") from None
    latent = model.encode({key: torch.from_numpy(value) for key, value in batch.items()})
    if not torch.isfinite(latent).all():
        raise ObservationError(f"the model {model.name} makes NaN of this goal")
    return latent
