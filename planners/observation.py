"""The door for what cameras and sensors deliver: checked, given a batch axis, and stripped to what a brain may see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

IMAGES = "observation.images."
STATE = "observation.state"

Batch = dict[str, np.ndarray]


class ObservationError(ValueError):
    """An observation that cannot be what the planner needs, whatever the next one brings."""


class NotFiniteError(ObservationError):
    """An observation with NaN or infinity in it: the next one may be sound again."""


def to_batch(observations: Mapping[str, object] | Sequence[Mapping[str, object]], keys: Sequence[str]) -> Batch:
    """One observation, or one for each of B environments -> the arrays under `keys`, (B, ...).

    Raises:
        ObservationError: a key is missing, or an array has the wrong shape or type.
        NotFiniteError: a number is NaN or infinite.
    """
    many = [observations] if isinstance(observations, Mapping) else list(observations)
    if not many:
        raise ObservationError("there is no observation: the list is empty")
    batch = {}
    for key in keys:
        rows = [check(key, one) for one in many]
        shapes = {row.shape for row in rows}
        if len(shapes) > 1:
            raise ObservationError(f"{key} differs in shape between environments: {sorted(shapes)}")
        batch[key] = np.stack(rows)
    return batch


def check(key: str, observation: Mapping[str, object]) -> np.ndarray:
    """The array under one key of an unbatched observation, or a sentence about what is wrong with it."""
    if key not in observation:
        present = [name for name in observation if name.startswith(IMAGES)] if key.startswith(IMAGES) else observation
        raise ObservationError(f"{key} is missing; the observation has {', '.join(present) or 'nothing'}")
    value = observation[key]
    array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    if key.startswith(IMAGES):
        if array.dtype != np.uint8:
            raise ObservationError(f"{key} should be uint8 (0 to 255); it is {array.dtype}")
        if array.ndim != 3 or array.shape[-1] != 3:
            raise ObservationError(f"{key} should be one picture (height, width, 3); its shape is {array.shape}")
        return array
    if array.dtype.kind not in "fiu":
        raise ObservationError(f"{key} should be numbers; it is {array.dtype}")
    if array.ndim != 1:
        raise ObservationError(f"{key} should be a vector; its shape is {array.shape}")
    if not np.isfinite(array).all():
        raise NotFiniteError(f"{key} has NaN or infinity in dimension {int(np.argmin(np.isfinite(array)))}")
    return array
