"""The scene probe finds out what a brain does not understand, and by how much its camera was moved."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from planners.probe import CALIBRATE, GO, NO_GO, Transitions, probe, turn_between
from tests.planners.conftest import PointMass
from worldmodel.interface import TABLETOP, ActionSpace, Observation


class Watching(PointMass):
    """Its latent is where a tool is in the picture; it knows exactly what an action does to it, unless it is deaf."""

    name = "watching"
    action_space = TABLETOP
    required_keys = ("observation.images.front", "observation.state")

    def __init__(self, deaf: bool = False, stretch: float = 1.0) -> None:
        super().__init__()
        self.deaf, self.stretch_by = deaf, stretch

    def encode(self, observation: Observation) -> Tensor:
        return torch.as_tensor(observation["observation.images.front"]).float()

    def predict(self, latent: Tensor, actions: Tensor) -> Tensor:
        moved = self.stretch_by * self.action_space.to_physical(actions)[..., :3].cumsum(2)
        return latent[:, None, None] + (0.0 if self.deaf else 1.0) * moved


def recording(angle: float, count: int = 30, noise: float = 0.002, seed: int = 0) -> Transitions:
    """An arm's random motions, as a camera shows them that was moved by an angle about the vertical."""
    rng = np.random.default_rng(seed)
    actions = np.zeros((count, 7), np.float32)
    actions[:, :3] = rng.uniform(-0.045, 0.045, (count, 3))
    place = rng.uniform(-0.1, 0.1, (count, 3))
    cos, sin = math.cos(-angle), math.sin(-angle)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])

    def shown(at: np.ndarray) -> Observation:
        seen = at @ turn.T + rng.normal(0, noise, at.shape)
        return {"observation.images.front": seen, "observation.state": np.zeros((count, 7), np.float32)}

    return Transitions(shown(place), shown(place + actions[:, :3]), actions)


def test_a_brain_that_understands_may_go() -> None:
    found = probe(Watching(), recording(0.0))
    assert found.verdict == GO
    assert found.rank < 0.05
    assert found.margin > 0.9
    assert found.cosine > 0.95
    assert abs(found.angle_deg) < 5
    assert found.error_m < 0.01


@given(st.floats(-170, 170))
@settings(deadline=None, max_examples=25)
def test_the_turn_of_the_camera_is_found(degrees: float) -> None:
    found = probe(Watching(), recording(math.radians(degrees)))
    off = (found.angle_deg - degrees + 180) % 360 - 180
    assert abs(off) < 6
    assert found.cosine_turned > 0.95
    if abs(degrees) > 18:
        assert found.verdict == CALIBRATE
        assert f"{found.angle_deg:.0f} degrees" in found.reason


def test_a_deaf_brain_may_not_go() -> None:
    found = probe(Watching(deaf=True), recording(0.0))
    assert found.verdict == NO_GO
    assert "does not understand this view" in found.reason
    assert found.rank > 0.1 or found.margin < 0.2


def test_pictures_of_nothing_are_no_go() -> None:
    clear = recording(0.0)
    rng = np.random.default_rng(1)
    noise = {**clear.after, "observation.images.front": rng.normal(0, 0.05, (30, 3))}
    assert probe(Watching(), Transitions(clear.before, noise, clear.actions)).verdict == NO_GO


def test_right_directions_and_wrong_lengths_are_no_go() -> None:
    found = probe(Watching(stretch=4.0), recording(0.0))
    assert found.verdict == NO_GO
    assert "distances are not" in found.reason


def test_the_same_seed_finds_the_same() -> None:
    one, other = (probe(Watching(), recording(0.5), seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.inferred, other.inferred)
    assert one.angle_deg == other.angle_deg


def test_little_motion_is_refused() -> None:
    still = recording(0.0)
    still.actions[:25, :2] = 0.0
    with pytest.raises(ValueError, match="4 of 30 transitions move the arm by 1 cm"):
        probe(Watching(), still)


def test_other_action_spaces_are_refused() -> None:
    class Joints(Watching):
        action_space = ActionSpace((-1.0,) * 7, (1.0,) * 7, tuple("abcdefg"), 5.0)

    with pytest.raises(ValueError, match="begin with dx, dy, dz"):
        probe(Joints(), recording(0.0))
    short = recording(0.0)
    with pytest.raises(ValueError, match=r"they should be \(N, 7\)"):
        probe(Watching(), Transitions(short.before, short.after, short.actions[:, :3]))


def test_turn_between_knows_a_quarter() -> None:
    motion = np.random.default_rng(0).normal(size=(20, 2))
    turned = np.stack([-motion[:, 1], motion[:, 0]], 1)
    assert turn_between(motion, turned) == pytest.approx(math.pi / 2)
