"""The tabletop as Gymnasium sees it, in both simulators: seeded, restorable, honest goals, plain refusals."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import envs  # noqa: F401  registers the worlds
from envs.motion import MISS_M
from envs.tabletop import ACTION_HIGH, ACTION_LOW, WORKSPACE_HIGH, WORKSPACE_LOW, Variation
from envs.tasks import TASKS

SIMULATORS = ("mujoco", "pybullet")


def make(**arguments: Any) -> Any:
    return gymnasium.make("premotor/Tabletop-v0", disable_env_checker=True, **arguments).unwrapped


@pytest.fixture(scope="module", params=SIMULATORS)
def world(request: pytest.FixtureRequest) -> Iterator[Any]:
    env = make(simulator=request.param, task="push")
    yield env
    env.close()


@pytest.fixture(scope="module")
def bare() -> Iterator[Any]:
    env = make(with_goal=False)
    yield env
    env.close()


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_gymnasium_finds_nothing_to_complain_about(simulator: str) -> None:
    env = gymnasium.make("premotor/Tabletop-v0", task="push", simulator=simulator)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # The rendering check makes the world anew in every mode, by a spec that only a wrapped world has.
        check_env(env.unwrapped, skip_render_check=True)
    env.close()


def test_it_is_made_as_the_documents_say() -> None:
    env = gymnasium.make("premotor/Tabletop-v0", task="push", simulator="mujoco")
    observation, info = env.reset(seed=3)
    assert set(observation) == {"observation.images.front", "observation.state", "observation.joints"}
    assert env.observation_space.contains(observation)
    assert info["goal_distance_m"] > 0.03
    env.close()


def play(env: Any, seed: int, steps: int = 4) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    seen = []
    for _ in range(steps):
        observation, _, _, _, info = env.step(rng.uniform(ACTION_LOW, ACTION_HIGH))
        seen += [observation["observation.images.front"], observation["observation.state"]]
        seen += [observation["observation.joints"], info["observation.environment_state"]]
    return seen


def test_a_seed_decides_everything(world: Any) -> None:
    runs = []
    for _ in range(2):
        observation, info = world.reset(seed=17)
        runs.append([*observation.values(), *(info["goal"][key] for key in sorted(info["goal"])), *play(world, 1)])
    assert all(np.array_equal(a, b) for a, b in zip(*runs, strict=True))
    other, _ = world.reset(seed=18)
    assert not np.array_equal(other["observation.images.front"], runs[0][0])


def test_a_saved_state_goes_on_as_the_first_did(world: Any) -> None:
    world.reset(seed=5)
    play(world, 2)
    saved = world.save_state()
    first = play(world, 3)
    world.reset(seed=6)  # other looks, other goal
    world.restore_state(saved)
    again = play(world, 3)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_state_of_another_length_is_refused(world: Any) -> None:
    world.reset(seed=5)
    with pytest.raises(ValueError, match="numbers; got shape"):
        world.restore_state(world.save_state()[:-1])


@pytest.mark.parametrize("simulator", SIMULATORS)
@pytest.mark.parametrize("task", sorted(TASKS))
def test_goals_are_real_states_apart_from_the_start(task: str, simulator: str) -> None:
    env = make(task=task, simulator=simulator)
    for seed in range(3):
        _, info = env.reset(seed=seed)
        assert not info["success"]
        low, high = env.task.apart_m
        assert low <= info["goal_distance_m"] <= high
        env.restore_state(info["goal"]["simulator.state"])
        there = env.observe()
        picture = "observation.images.front"
        assert np.array_equal(there[picture], info["goal"][picture])
        assert np.allclose(there["observation.state"], info["goal"]["observation.state"], atol=1e-6)
        _, _, terminated, _, after = env.step(np.zeros(7))
        assert after["success"]
        assert not terminated
    env.close()


@pytest.mark.parametrize("simulator", SIMULATORS)
@pytest.mark.parametrize("task", ["push", "lift", "pick_place"])
def test_a_goal_picture_shows_the_object(task: str, simulator: str) -> None:
    env = make(task=task, simulator=simulator)
    for seed in range(20, 25):
        _, info = env.reset(seed=seed)
        seen = info["goal"]["observation.images.front"].astype(int)
        env.restore_state(info["goal"]["simulator.state"])
        env.world.place_object(np.array([0.5, 0.0, -2.0]), 0.0)
        without = env.world.render("front", 64).astype(int)
        assert (np.abs(seen - without).max(-1) > 12).sum() >= 15
    env.close()


def test_what_is_observed_does_not_change_what_is_asked() -> None:
    plain, rich = make(task="push"), make(task="push", cameras=("wrist", "front"), image_size=128)
    for seed in range(20, 24):
        goals = [env.reset(seed=seed)[1]["goal"]["observation.environment_state"] for env in (plain, rich)]
        assert np.array_equal(*goals)
    plain.close()
    rich.close()


def test_looks_can_be_shared_while_places_differ(bare: Any) -> None:
    scenes = []
    for seed in (1, 2):
        bare.reset(seed=seed, options={"looks": 9})
        scenes.append(bare.world.scene)
    assert scenes[0].object_color == scenes[1].object_color
    assert scenes[0].object_half == scenes[1].object_half
    assert scenes[0].object_position != scenes[1].object_position
    # Of a scene that is at hand, too.
    bare.reset(seed=1, options={"looks": scenes[1]})
    assert bare.world.scene == scenes[0]
    bare.reset(seed=1)
    assert bare.world.scene.object_position == scenes[0].object_position


@pytest.mark.parametrize(
    ("options", "said"),
    [({"look": 3}, "no option 'look'"), ({"looks": -1}, "whole number"), ({"looks": "red"}, "whole number")],
)
def test_unknown_reset_options_are_refused(bare: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        bare.reset(seed=0, options=options)


@pytest.mark.parametrize(
    ("factor", "values", "field"),
    [
        ("object_kind", ("cylinder",), "object_kind"),
        ("object_color", ((0.1, 0.2, 0.3),), "object_color"),
        ("object_yaw", (0.25, 0.25), "object_yaw"),
        ("table_texture", ("checker",), "table_texture"),
        ("light_strength", (0.5, 0.5), "light_strength"),
        ("camera_azimuth_deg", (12.0, 12.0), "camera_azimuth_deg"),
    ],
)
def test_each_factor_can_be_fixed(factor: str, values: tuple[Any, ...], field: str) -> None:
    env = make(with_goal=False, variation={"base": "wide", factor: values})
    drawn = set()
    for seed in range(4):
        env.reset(seed=seed)
        drawn.add(getattr(env.world.scene, field))
    assert drawn == {values[0]}
    env.close()


def test_a_moved_camera_and_another_table_are_seen() -> None:
    pictures = []
    for factors in ({}, {"camera_azimuth_deg": (15.0, 15.0)}, {"table_texture": ("checker",)}):
        env = make(with_goal=False, variation={"base": "fixed", **factors})
        pictures.append(env.reset(seed=0)[0]["observation.images.front"].astype(float))
        env.close()
    assert np.abs(pictures[0] - pictures[1]).mean() > 3
    assert np.abs(pictures[0] - pictures[2]).mean() > 1


def test_a_mistyped_factor_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean object_color"):
        Variation.of({"object_colour": ((1, 0, 0),)})


@pytest.mark.parametrize(
    ("factors", "said"),
    [
        ({"object_half_size": (0.09, 0.09)}, "0.01 to 0.045"),
        ({"object_mass": (0.0, 0.0)}, "0.01 to 1"),
        ({"light_strength": 0.5}, "give a list"),
        ({"object_kind": "box"}, "give a list"),
        ({"object_x": (0.6, 0.4)}, "low <= high"),
    ],
)
def test_factors_beyond_what_can_be_simulated_are_refused(factors: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Variation.of(factors)


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (np.zeros(6), "7 numbers"),
        (np.array([0, 0, np.nan, 0, 0, 0, 0]), "NaN or infinity in dimension 2"),
        (np.array([0.2, 0, 0, 0, 0, 0, 0]), "outside"),
    ],
)
def test_bad_actions_are_refused_and_nothing_moves(world: Any, action: np.ndarray, said: str) -> None:
    world.reset(seed=0)
    before = world.save_state()
    with pytest.raises(ValueError, match=said):
        world.step(action)
    assert np.array_equal(world.save_state(), before)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"image_size": 32}, "64 to 256"),
        ({"cameras": ("side",)}, "front, wrist"),
        ({"task": "juggle"}, "known are"),
        ({"simulator": "drake"}, "known are"),
        ({"variation": "wild"}, "known are standard"),
    ],
)
def test_worlds_that_cannot_be_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make(**arguments)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 9999),
    direction=st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=7, max_size=7),
)
def test_no_action_sends_the_tool_out_of_the_workspace(bare: Any, seed: int, direction: list[float]) -> None:
    """What is commanded stays inside and is reached by the joints; pressed onto the table, a tilted hand may slip."""
    bare.reset(seed=seed)
    joints = bare.world.kinematics
    for _ in range(10):
        observation, *_ = bare.step(np.array(direction) * ACTION_HIGH)
        tool = observation["observation.state"][:3]
        command = bare.world.command
        assert (command.position >= WORKSPACE_LOW).all()
        assert (command.position <= WORKSPACE_HIGH).all()
        assert np.linalg.norm(joints.forward(command.joints)[0] - command.position) <= MISS_M
        assert (tool > WORKSPACE_LOW - 0.05).all()
        assert (tool < WORKSPACE_HIGH + 0.05).all()
        angles = observation["observation.joints"]
        assert (angles >= joints.lower - 0.02).all()
        assert (angles <= joints.upper + 0.02).all()


def test_what_was_asked_is_what_is_done_in_free_space(bare: Any) -> None:
    bare.reset(seed=3, options=None)
    wrong = []
    for action in np.array([[0.03, 0, 0.03, 0, 0, 0, 0], [0, 0.04, 0, 0, 0, 0.1, 0], [-0.03, 0, -0.01, 0, 0, 0, 0.3]]):
        *_, info = bare.step(action)
        wrong.append(np.abs(info["action.executed"] - action))
    assert np.max(np.array(wrong)[:, :3]) < 0.008
    assert np.max(np.array(wrong)[:, 3:6]) < 0.05


def test_every_step_ends_at_rest(bare: Any) -> None:
    bare.reset(seed=4)
    for _ in range(3):
        bare.step(ACTION_HIGH * np.array([1, 1, 0, 0, 0, 1, 0]))
        assert np.abs(bare.world.data.qvel[:7]).max() < 0.12


def test_two_cameras_of_any_size(bare: Any) -> None:
    env = make(cameras=("front", "wrist"), image_size=96, with_goal=False)
    observation, _ = env.reset(seed=0)
    assert observation["observation.images.wrist"].shape == (96, 96, 3)
    assert observation["observation.images.front"].std() > 10
    assert observation["observation.images.wrist"].std() > 10
    env.close()
