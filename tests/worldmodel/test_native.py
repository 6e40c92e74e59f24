"""The native model behind the interface: shapes, independence, and what it refuses."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worldmodel.interface import TABLETOP, ActionSpace, Featured, Proprioceptive, WorldModel
from worldmodel.networks import Architecture


def test_it_is_a_world_model(model) -> None:
    assert isinstance(model, WorldModel)


def test_shapes_through_the_whole_interface(model, observation) -> None:
    latent = model.encode(observation)
    goal = model.encode({"observation.images.front": observation["observation.images.front"]})
    futures = model.predict(latent, torch.zeros(2, 5, 4, 7))
    assert latent.shape == goal.shape == (2, 24 + 7 + 1)
    assert futures.shape == (2, 5, 4, 32)
    assert model.distance(futures, goal).shape == (2, 5, 4)
    assert model.distance(latent, goal).shape == (2,)
    assert model.feature_distance(futures, goal).shape == (2, 5, 4)
    assert model.uncertainty(futures).shape == (2, 5, 4)
    assert model.decode(futures).shape == (2, 5, 4, 32, 32, 3)
    assert model.decode(futures).dtype == torch.uint8
    proposals = model.propose(latent, goal, 6, torch.Generator().manual_seed(0))
    assert proposals.shape == (2, 6, 3, 7)
    assert proposals.abs().max() <= 1


def test_it_shows_its_features_and_the_arm_s_state(model, observation) -> None:
    assert isinstance(model, Featured)
    assert isinstance(model, Proprioceptive)
    latent = model.encode(observation)
    futures = model.predict(latent, torch.zeros(2, 5, 4, 7))
    assert model.features(futures).shape == (2, 5, 4, 24)
    squared = (model.features(futures) - model.features(latent)[:, None, None]).square().mean(-1)
    torch.testing.assert_close(squared, model.feature_distance(futures, latent))
    assert model.state(futures).shape == (2, 5, 4, 7)
    told = torch.as_tensor(observation["observation.state"], dtype=torch.float32)
    torch.testing.assert_close(model.state(latent), told, atol=1e-5, rtol=1e-5)
    assert (model.state_scale() > 0).all()


def test_an_environments_future_does_not_depend_on_its_neighbours(model, observation) -> None:
    actions = torch.rand(2, 3, 4, 7, generator=torch.Generator().manual_seed(1)) * 2 - 1
    both = model.predict(model.encode(observation), actions)
    alone = model.predict(model.encode({k: v[1:] for k, v in observation.items()}), actions[1:])
    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=1e-4)


def test_doubt_grows_along_a_future_and_starts_at_nothing(model, observation) -> None:
    latent = model.encode(observation)
    doubt = model.uncertainty(model.predict(latent, torch.zeros(2, 1, 5, 7)))
    assert model.uncertainty(latent).abs().max() == 0
    assert (doubt.diff(dim=-1) > 0).all()


def test_predictions_can_be_differentiated_in_the_actions(model, observation) -> None:
    actions = torch.zeros(2, 1, 3, 7, requires_grad=True)
    latent = model.encode(observation)
    model.feature_distance(model.predict(latent, actions), latent).sum().backward()
    assert actions.grad is not None
    assert actions.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"observation.images.front": np.zeros((2, 48, 48, 3), np.uint8)}, "should be (B, 32, 32, 3)"),
        ({"observation.images.front": np.zeros((2, 32, 32, 3), np.float32)}, "should be uint8"),
        ({"observation.state": np.full((2, 7), np.nan, np.float32)}, "NaN or infinity in dimension 0"),
        ({"observation.state": np.zeros((2, 6), np.float32)}, "should be (2, 7)"),
    ],
)
def test_bad_observations_get_a_sentence(model, observation, change, words) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        model.encode(observation | change)


def test_a_missing_camera_is_named_with_what_there_is(model, observation) -> None:
    observation["observation.images.wrist"] = observation.pop("observation.images.front")
    with pytest.raises(
        ValueError, match=r"needs observation\.images\.front; the observation has observation\.images\.wrist"
    ):
        model.encode(observation)


def test_latents_of_another_model_are_refused(model) -> None:
    with pytest.raises(ValueError, match="made by another model"):
        model.distance(torch.zeros(1, 5), torch.zeros(1, 5))


def test_an_impossible_picture_size_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 16"):
        Architecture(image_size=50)


@given(st.lists(st.floats(-1, 1), min_size=7, max_size=7))
@settings(max_examples=50, deadline=None)
def test_units_there_and_back(values: list[float]) -> None:
    unit = torch.tensor(values, dtype=torch.float64)
    torch.testing.assert_close(TABLETOP.to_unit(TABLETOP.to_physical(unit)), unit, atol=1e-9, rtol=0)


def test_other_action_spaces_are_told_apart() -> None:
    other = ActionSpace(TABLETOP.low, TABLETOP.high, TABLETOP.names, 10.0)
    with pytest.raises(ValueError, match="10 Hz"):
        TABLETOP.check_compatible(other)
    with pytest.raises(ValueError, match="here an action is"):
        TABLETOP.check_compatible(ActionSpace((-1.0,), (1.0,), ("push",), 5.0))
