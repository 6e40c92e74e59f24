"""A goal that was misread is read rightly once its scene is known, and what cannot be read is left as it was."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from worldmodel.goal_reading import NEAR, GoalReading
from worldmodel.interface import Watchful
from worldmodel.networks import Networks
from worldmodel.turned import Turned

FEATURES, STATE = 4, 3
GOAL = torch.tensor([[9.0, 9.0, 9.0, 9.0, 1.0, -1.0, 0.5, 0.0]])


class Misreader:
    """Networks whose pictures are the truth and whose eyes are wrong by what `wrong` says of it."""

    def __init__(self, wrong: Tensor, trust: tuple[float, ...] = (1.0, 1.0, 1.0)) -> None:
        self.architecture = type("Sizes", (), {"features": FEATURES})
        self.wrong, self.trust = wrong, torch.tensor(trust)

    def get_buffer(self, name: str) -> Tensor:
        assert name == "readout_trust"
        return self.trust

    def read_state(self, pictures: Tensor, z: Tensor) -> Tensor:
        return pictures + self.wrong


def sight(wrong: Tensor, trust: tuple[float, ...] = (1.0, 1.0, 1.0), goal: Tensor = GOAL) -> GoalReading:
    misread = goal.clone()
    misread[:, FEATURES:-1] += wrong
    return GoalReading(cast(Networks, Misreader(wrong, trust)), misread, lambda seen: torch.as_tensor(seen["place"]))


def look(sight: GoalReading, places: Tensor, rows: list[int], batch: int) -> Tensor:
    """See the arm at these places (N, P); what the goals' poses (N, P) are thought to be then."""
    latent = torch.cat([torch.zeros(len(places), FEATURES), places, torch.zeros(len(places), 1)], 1)
    seen = sight.see({"place": places}, latent, rows, batch)
    assert torch.equal(seen[:, :FEATURES], GOAL[:, :FEATURES].expand(len(rows), -1))
    assert torch.equal(seen[:, -1], torch.zeros(len(rows)))
    return seen[:, FEATURES:-1]


def test_what_is_always_misread_alike_comes_right() -> None:
    wrong = torch.tensor([0.3, -0.2, 0.1])
    eyes = sight(wrong)
    true = GOAL[:, FEATURES:-1]
    far = [(look(eyes, true + 0.1 * away, [0], 1) - true).abs().max().item() for away in range(12, -1, -1)]
    assert far[0] < wrong.abs().max()  # a far look tells something
    assert far[-1] < 0.2 * wrong.abs().max()  # near ones most
    assert far == sorted(far, reverse=True)
    eyes.forget()
    again = (look(eyes, true + 1.2, [0], 1) - true).abs().max().item()
    assert again == far[0]


def test_one_picture_is_not_believed_at_once() -> None:
    wrong = torch.full((STATE,), 0.4)
    eyes, true = sight(wrong), GOAL[:, FEATURES:-1]
    torch.testing.assert_close(look(eyes, true, [0], 1), true + 0.5 * wrong)


def test_near_looks_outweigh_far_ones() -> None:
    eyes, true = sight(torch.zeros(STATE)), GOAL[:, FEATURES:-1]
    networks = cast(Misreader, eyes._networks)
    networks.wrong = torch.full((STATE,), 0.5)  # far away everything is misread
    look(eyes, true + 20 * NEAR, [0], 1)
    networks.wrong = torch.zeros(STATE)
    look(eyes, true, [0], 1)
    assert (look(eyes, true, [0], 1) - true).abs().max() < 0.01


def test_what_pictures_do_not_tell_is_left_alone() -> None:
    wrong = torch.full((STATE,), 0.3)
    eyes, true = sight(wrong, trust=(1.0, 0.9, 0.4)), GOAL[:, FEATURES:-1]
    for _ in range(20):
        thought = look(eyes, true, [0], 1)
    assert (thought - true)[0, 0] < 0.02
    torch.testing.assert_close((thought - true)[0, 1:], wrong[1:])


@given(seed=st.integers(0, 1000), steps=st.integers(1, 6))
@settings(deadline=None, max_examples=25)
def test_environments_learn_for_themselves_alone(seed: int, steps: int) -> None:
    chance = torch.Generator().manual_seed(seed)
    wrong = torch.rand(STATE, generator=chance) - 0.5
    together, alone = sight(wrong), [sight(wrong) for _ in range(3)]
    for _ in range(steps):
        rows = [row for row in range(3) if torch.rand((), generator=chance) < 0.7]
        if not rows:
            continue
        places = torch.randn(len(rows), STATE, generator=chance)
        thought = look(together, places, rows, 3)
        for n, row in enumerate(rows):
            torch.testing.assert_close(thought[n : n + 1], look(alone[row], places[n : n + 1], [0], 1))


@given(seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=25)
def test_a_correction_is_never_larger_than_what_was_misread(seed: int) -> None:
    chance = torch.Generator().manual_seed(seed)
    eyes = sight(torch.zeros(STATE))
    networks = cast(Misreader, eyes._networks)
    worst = torch.zeros(STATE)
    for _ in range(8):
        networks.wrong = torch.randn(STATE, generator=chance)
        worst = torch.maximum(worst, networks.wrong.abs())
        off = look(eyes, torch.randn(1, STATE, generator=chance), [0], 1) - GOAL[:, FEATURES:-1]
        assert (off[0].abs() <= worst + 1e-5).all()


def test_the_native_brain_watches_and_so_does_one_turned(model, observation) -> None:
    goal = model.encode({"observation.images.front": observation["observation.images.front"]})
    latent = model.encode(observation)
    assert isinstance(model, Watchful)
    seen = model.watch(goal[:1]).see(observation, latent, [0, 1], 2)
    assert seen.shape == (2, goal.shape[1])
    assert torch.isfinite(seen).all()
    turned = Turned(model, 0.3)
    sight = turned.watch(goal)
    assert sight is not None
    twisted = {**observation, "observation.state": np.asarray(observation["observation.state"])}
    assert sight.see(twisted, turned.encode(twisted), [0, 1], 2).shape == goal.shape


def test_a_brain_that_does_not_watch_is_not_watchful() -> None:
    assert not isinstance(object(), Watchful)
