"""A brain turned about the vertical is the same brain in another frame."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import worldmodel
from worldmodel import ActionSpace, WorldModel
from worldmodel.turned import Turned

ANGLES = st.floats(-math.pi, math.pi, allow_nan=False)


@pytest.fixture(scope="module")
def brain() -> WorldModel:
    return worldmodel.load("tabletop", "cpu", precision="float32")


def observation(rng: np.random.Generator, count: int = 2) -> dict[str, np.ndarray]:
    state = np.tile(np.array([0.5, 0.05, 0.15, 3.1, 0.0, 0.2, 1.0], np.float32), (count, 1))
    return {
        "observation.images.front": rng.integers(0, 255, (count, 64, 64, 3), dtype=np.uint8),
        "observation.state": state,
    }


def test_no_turn_is_the_brain_itself(brain: WorldModel) -> None:
    seen = observation(np.random.default_rng(0))
    turned = Turned(brain, 0.0)
    assert isinstance(turned, WorldModel)
    torch.testing.assert_close(turned.encode(seen), brain.encode(seen))
    latent, actions = brain.encode(seen), torch.rand(2, 3, 4, 7) * 2 - 1
    torch.testing.assert_close(turned.predict(latent, actions), brain.predict(latent, actions))


@given(angle=ANGLES)
@settings(deadline=None, max_examples=20)
def test_turning_there_and_back_changes_nothing(brain: WorldModel, angle: float) -> None:
    seen = observation(np.random.default_rng(1))
    latent, actions = brain.encode(seen), 0.7 * (torch.rand(2, 3, 2, 7) * 2 - 1)
    both = Turned(Turned(brain, angle), -angle)
    torch.testing.assert_close(both.predict(latent, actions), brain.predict(latent, actions), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(both.encode(seen), brain.encode(seen), atol=1e-4, rtol=1e-4)


@given(angle=ANGLES)
@settings(deadline=None, max_examples=20)
def test_what_is_proposed_stays_in_bounds_and_keeps_its_direction(brain: WorldModel, angle: float) -> None:
    latent = brain.encode(observation(np.random.default_rng(2), 1))
    own = brain.propose(latent, latent, 8, torch.Generator().manual_seed(0))
    theirs = Turned(brain, angle).propose(latent, latent, 8, torch.Generator().manual_seed(0))
    assert own is not None
    assert theirs is not None
    assert theirs.abs().max() <= 1.0 + 1e-6
    heading = torch.atan2(own[..., 1], own[..., 0]) + angle - torch.atan2(theirs[..., 1], theirs[..., 0])
    sure = own[..., :2].norm(dim=-1) > 1e-3
    assert torch.cos(heading[sure]).min() > 1 - 1e-4
    torch.testing.assert_close(theirs[..., 2], own[..., 2])


def test_a_pose_is_turned_about_the_pivot(brain: WorldModel) -> None:
    heard = {}

    class Listening:
        def __getattr__(self, name: str) -> object:
            return getattr(brain, name)

        def encode(self, seen: dict[str, torch.Tensor]) -> torch.Tensor:
            heard.update(seen)
            return brain.encode(seen)

    seen = observation(np.random.default_rng(3), 1)
    seen["observation.state"][0, :2] = (0.58, 0.0)
    seen["observation.state"][0, 5] = -3.0
    Turned(Listening(), math.pi / 2).encode(seen)  # type: ignore[arg-type]
    state = torch.as_tensor(heard["observation.state"])[0]
    torch.testing.assert_close(state[:2], torch.tensor([0.48, -0.10]), atol=1e-5, rtol=0)
    assert float(state[5]) == pytest.approx(2 * math.pi - 3.0 - math.pi / 2, abs=1e-5)
    assert seen["observation.state"][0, 0] == pytest.approx(0.58)  # the caller's own is left alone


def test_a_goal_picture_needs_no_pose(brain: WorldModel) -> None:
    goal = {"observation.images.front": observation(np.random.default_rng(4))["observation.images.front"]}
    torch.testing.assert_close(Turned(brain, 1.0).encode(goal), brain.encode(goal))


@given(angle=ANGLES)
@settings(deadline=None, max_examples=20)
def test_the_state_it_imagines_is_the_arm_s(brain: WorldModel, angle: float) -> None:
    seen, turned = observation(np.random.default_rng(5)), Turned(brain, angle)
    state = turned.state(turned.encode(seen))
    torch.testing.assert_close(state, torch.as_tensor(seen["observation.state"]), atol=1e-4, rtol=1e-4)
    scale = turned.state_scale()
    assert scale[0] == scale[1] > 0


def test_what_the_brain_does_not_show_neither_does_the_turned_one(brain: WorldModel) -> None:
    class Opaque:
        name, action_space = "opaque", brain.action_space

    turned = Turned(Opaque(), 1.0)  # type: ignore[arg-type]
    assert turned.features(torch.zeros(1, 3)) is None
    assert turned.state(torch.zeros(1, 3)) is None
    with pytest.raises(ValueError, match="opaque does not imagine the arm's state"):
        turned.state_scale()


def test_other_actions_cannot_be_turned(brain: WorldModel) -> None:
    class Joints:
        name = "joints"
        action_space = ActionSpace((-1.0,) * 6, (1.0,) * 6, tuple("abcdef"), 5.0)

    with pytest.raises(ValueError, match="only actions dx, dy"):
        Turned(Joints(), 0.1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="number of radians"):
        Turned(brain, math.nan)
