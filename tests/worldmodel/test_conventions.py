"""Whether an action is a target, a change or a velocity is found from what the state does, and said."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worldmodel.conventions import Conventions, examine

SEEDS = st.integers(0, 2**32 - 1)
JOINTS = ("shoulder", "elbow", "wrist")
UNSAID = ("a", "b", "c")


def wander(rng: np.random.Generator, episodes: int, length: int, size: float) -> np.ndarray:
    """Smooth places (episodes, length, 3) of about this size, each episode its own."""
    steps = rng.normal(size=(episodes, length + 20, 3))
    kernel = np.hanning(9) / np.hanning(9).sum()
    smooth = np.apply_along_axis(lambda line: np.convolve(line, kernel, "valid"), 1, steps.cumsum(1))
    place = smooth[:, :length] - smooth[:, :length].mean((0, 1))
    return size * place / np.abs(place).max()


def recorded(
    relation: str, seed: int, *, gain: float, rate: float, size: float, noise: float
) -> tuple[np.ndarray, ...]:
    """States and actions (frames, 3) of an arm that is told targets, changes or velocities, and the lengths."""
    rng = np.random.default_rng(seed)
    path = wander(rng, 8, 40, size)
    states, actions = np.zeros_like(path), np.zeros_like(path)
    states[:, 0] = path[:, 0]
    pace = np.diff(path, axis=1).std()
    for t in range(path.shape[1]):
        told = path[:, t] + rng.normal(size=(8, 3)) * pace  # where somebody wants it
        if relation == "absolute":
            actions[:, t], change = told, gain * (told - states[:, t])
        else:
            change = 0.5 * (told - states[:, t])
            actions[:, t] = change * (rate if relation == "velocity" else 1.0)
            change = gain * change
        if t + 1 < path.shape[1]:
            states[:, t + 1] = states[:, t] + change + noise * pace * rng.normal(size=(8, 3))
    return states.reshape(-1, 3), actions.reshape(-1, 3), np.full(8, 40)


def examined(states: np.ndarray, actions: np.ndarray, lengths: np.ndarray, rate: float, names=UNSAID) -> Conventions:
    return examine(states, actions, lengths, action_names=names, state_names=JOINTS, rate_hz=rate)


@settings(max_examples=25, deadline=None)
@given(
    relation=st.sampled_from(["absolute", "change", "velocity"]), seed=SEEDS, gain=st.floats(0.75, 1.0),
    rate=st.sampled_from([10.0, 15.0, 30.0, 50.0]), size=st.sampled_from([0.3, 1.5, 90.0]), noise=st.floats(0.0, 0.15),
)  # fmt: skip
def test_each_convention_is_recognised(relation, seed, gain, rate, size, noise) -> None:
    found = examined(*recorded(relation, seed, gain=gain, rate=rate, size=size, noise=noise), rate)
    for number, each in enumerate(found.dimensions):
        assert (each.relation, each.state, each.shift) == (relation, JOINTS[number], 0), each
        assert 0.8 < each.scale < 1.5
        assert each.fit > 0.5
    assert found.explained is not None
    assert found.explained > 0.5
    assert found.warnings() == []


@settings(max_examples=15, deadline=None)
@given(relation=st.sampled_from(["absolute", "change"]), seed=SEEDS, shift=st.sampled_from([-1, 1]))
def test_a_recording_that_is_a_step_off_is_seen(relation, seed, shift) -> None:
    states, actions, lengths = recorded(relation, seed, gain=1.0, rate=30.0, size=1.0, noise=0.05)
    moved = np.roll(actions.reshape(8, 40, 3), -shift, axis=1).reshape(-1, 3)
    found = examined(states, moved, lengths, 30.0)
    assert {each.shift for each in found.dimensions} == {shift}
    assert any("misaligned" in sentence for sentence in found.warnings())


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_actions_of_nothing_are_said_to_explain_nothing(seed) -> None:
    states, _, lengths = recorded("change", seed, gain=1.0, rate=30.0, size=1.0, noise=0.3)
    found = examined(states, np.random.default_rng(seed + 1).normal(size=states.shape), lengths, 30.0)
    assert {each.relation for each in found.dimensions} == {"unknown"}
    assert any("the actions explain" in sentence for sentence in found.warnings())


@pytest.mark.parametrize(
    ("names", "relation", "words"),
    [
        (("dx", "dy", "dz"), "absolute", "the names say that dx, dy, dz are changes; the data say absolute targets of"),
        (("a.pos", "b.pos", "c.pos"), "change", "are absolute targets; the data say changes of"),
        (("a.vel", "b.vel", "c.vel"), "change", "are velocities; the data say changes of"),
    ],
)
def test_names_that_say_otherwise_are_contradicted(names, relation, words) -> None:
    found = examined(*recorded(relation, 1, gain=1.0, rate=30.0, size=1.0, noise=0.02), 30.0, names)
    assert any(words in sentence for sentence in found.warnings())
    assert {each.join for each in found.dimensions} == {"last" if relation == "absolute" else "sum"}


def test_names_that_agree_are_not() -> None:
    names = tuple(f"{joint}.pos" for joint in JOINTS)
    assert examined(*recorded("absolute", 2, gain=0.8, rate=30.0, size=1.0, noise=0.02), 30.0, names).warnings() == []


def test_units_are_guessed_by_range_and_their_mixture_is_said() -> None:
    degrees, told, lengths = recorded("absolute", 3, gain=0.9, rate=30.0, size=90.0, noise=0.02)
    assert {each.unit for each in examined(degrees, told, lengths, 30.0).dimensions} == {"degrees (or percent)"}
    radians = examined(np.radians(degrees), np.radians(told), lengths, 30.0)
    assert {each.unit for each in radians.dimensions} == {"radians"}
    mixed = examined(np.radians(degrees), told, lengths, 30.0)
    assert all(abs(each.scale / 57.3 - 1) < 0.1 for each in mixed.dimensions)
    assert any("degrees for radians" in sentence for sentence in mixed.warnings())
    tool = examine(degrees, told, lengths, action_names=["x", "y", "z"], state_names=["x", "y", "z"], rate_hz=30.0)
    assert {each.unit for each in tool.dimensions} == {"mm"}


def test_what_never_changes_and_what_is_too_short_is_not_guessed() -> None:
    states, actions, lengths = recorded("change", 4, gain=1.0, rate=30.0, size=1.0, noise=0.02)
    actions[:, 1] = 0.25
    found = examined(states, actions, lengths, 30.0)
    assert [each.relation for each in found.dimensions] == ["change", "constant", "change"]
    few = examined(states[:12], actions[:12], np.array([12]), 30.0)
    assert [each.relation for each in few.dimensions] == ["unknown", "constant", "unknown"]
    assert few.explained is None
    assert "constant" in {row["relation"] for row in few.to_dict()["actions"]}
