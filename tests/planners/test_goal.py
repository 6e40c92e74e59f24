"""Goals and observations at the door: what fits goes in, what does not gets a sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from planners import Goal, ObservationError
from planners.observation import NotFiniteError, to_batch

PICTURE = np.full((16, 16, 3), 255, np.uint8)


def test_a_goal_is_a_picture_or_an_observation(point: Any, observe: Callable[..., dict[str, np.ndarray]]) -> None:
    seen = Goal.from_observation(observe(0.5, 0.0, -0.5))
    torch.testing.assert_close(seen.encode(point()), torch.tensor([[0.5, 0.0, -0.5]]))
    # A picture alone has no state; the brain reads it off the picture.
    torch.testing.assert_close(Goal.image(PICTURE).encode(point()), torch.ones(1, 3))
    assert list(Goal.images({"front": PICTURE, "wrist": PICTURE}).pictures) == ["front", "wrist"]
    both = Goal.stack([Goal.image(PICTURE), Goal.image(0 * PICTURE)])
    torch.testing.assert_close(both.encode(point()), torch.tensor([[1.0] * 3, [-1.0] * 3]))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Goal.image(PICTURE.astype(np.float32)), "observation.images.front should be uint8 .* it is float32"),
        (
            lambda: Goal.image(PICTURE[None]),
            r"should be one picture \(height, width, 3\); its shape is \(1, 16, 16, 3\)",
        ),
        (lambda: Goal.image(PICTURE[..., :1]), "should be one picture"),
        (lambda: Goal.from_observation({}), "this one is empty"),
        (
            lambda: Goal.from_observation({"observation.state": np.array([0.0, np.nan])}),
            "observation.state has NaN or infinity in dimension 1",
        ),
        (lambda: Goal.from_observation({"observation.state": np.zeros((2, 3))}), "should be a vector"),
        (lambda: Goal.from_observation({"observation.state": np.array(["a"])}), "should be numbers"),
    ],
)
def test_what_is_no_goal_is_refused(make: Callable[[], Goal], sentence: str) -> None:
    with pytest.raises(ObservationError, match=sentence):
        make()


def test_a_goal_that_does_not_fit_the_brain_is_refused(point: Any) -> None:
    with pytest.raises(ObservationError, match=r"does not fit the model point: observation.images.front is missing"):
        Goal.images({"wrist": PICTURE}).encode(point())
    mixed = Goal.stack([Goal.image(PICTURE), Goal.image(PICTURE[:8])])
    with pytest.raises(ObservationError, match="differs in shape between environments"):
        mixed.encode(point())


def test_observations_become_a_batch(observe: Callable[..., dict[str, np.ndarray]]) -> None:
    keys = ("observation.images.front", "observation.state")
    assert to_batch(observe(), keys)["observation.state"].shape == (1, 3)
    assert to_batch([observe(), observe(1)], keys)["observation.images.front"].shape == (2, 16, 16, 3)
    with pytest.raises(ObservationError, match=r"observation.images.wrist is missing; the observation has .*front"):
        to_batch(observe(), ["observation.images.wrist"])
    with pytest.raises(NotFiniteError, match="dimension 0"):
        to_batch(observe(np.inf), ["observation.state"])
    with pytest.raises(ObservationError, match="the list is empty"):
        to_batch([], keys)
