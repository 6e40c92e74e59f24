"""The true simulator as a brain imagines what the simulator then does, and the two kinematics agree."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch

import envs  # noqa: F401  registers the worlds
from envs.kinematics import ArmKinematics, BatchedKinematics
from envs.panda import rotation_from_rpy
from envs.simulator_model import SimulatorModel
from envs.tabletop import HOME_JOINTS, WORKSPACE_HIGH, WORKSPACE_LOW
from worldmodel.interface import TABLETOP

HORIZON = 4


@pytest.fixture(scope="module")
def env():
    world = gymnasium.make("premotor/Tabletop-v0", task="push", disable_env_checker=True).unwrapped
    yield world
    world.close()


@pytest.fixture(scope="module")
def brain() -> SimulatorModel:
    return SimulatorModel("push", TABLETOP, threads=2)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_imagined_futures_are_what_happens(env, brain: SimulatorModel, seed: int) -> None:
    env.reset(seed=seed)
    state = env.save_state()
    generator = torch.Generator().manual_seed(seed)
    actions = 2 * torch.rand(1, 3, HORIZON, 7, generator=generator) - 1
    futures = brain.predict(brain.encode({"simulator.state": state[None]}), actions)
    for sample in range(3):
        env.restore_state(state)
        for h in range(HORIZON):
            env.step(TABLETOP.to_physical(actions[0, sample, h]).numpy().astype(np.float64))
            tool, thing, _ = brain._read(futures[0, sample, h : h + 1].numpy())
            assert np.linalg.norm(tool[0] - env.world.tool_position()) < 1e-3
            assert np.linalg.norm(thing[0] - env.world.object_pose()[:3]) < 3e-3


def test_the_goal_is_at_distance_zero_and_everything_else_is_not(env, brain: SimulatorModel) -> None:
    _, info = env.reset(seed=4)
    goal = brain.encode({"simulator.state": info["goal"]["simulator.state"][None]})
    here = brain.encode({"simulator.state": env.save_state()[None]})
    assert float(brain.distance(goal, goal)) < 0.5
    assert float(brain.distance(here, goal)) > 2
    assert float(brain.feature_distance(goal, goal)) == 0.0


def test_a_scene_s_pictures_are_the_simulator_s(env, brain: SimulatorModel) -> None:
    observation, _ = env.reset(seed=6)
    latent = brain.encode({"simulator.state": env.save_state()[None]})
    drawn = brain.decode(latent)[0].numpy().astype(int)
    seen = observation["observation.images.front"].astype(int)
    assert np.abs(drawn - seen).mean() < 1.0


@pytest.mark.parametrize(
    ("observation", "said"),
    [
        ({}, "simulator.state"),
        ({"simulator.state": np.zeros((1, 3))}, "should be"),
        ({"simulator.state": np.full((1, 10_000), np.nan)}, "should be"),
    ],
)
def test_what_is_no_state_is_refused(brain: SimulatorModel, observation: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        brain.encode(observation)


def test_the_closed_form_takes_the_program_s_steps() -> None:
    one, many = ArmKinematics(), BatchedKinematics()
    rng = np.random.default_rng(0)
    inside = WORKSPACE_HIGH - WORKSPACE_LOW
    positions = WORKSPACE_LOW + inside * rng.uniform(0.2, 0.8, (40, 3))
    turns = rotation_from_rpy(np.array([np.pi, 0.0, 0.0]) + rng.uniform(-0.3, 0.3, (40, 3)))
    starts = many.solve(np.tile(HOME_JOINTS, (40, 1)), positions, turns, iterations=30)
    reached, _, _ = many.forward(starts)
    assert np.linalg.norm(reached - positions, axis=1).max() < 2e-3
    onward = positions + rng.uniform(-0.05, 0.05, (40, 3))  # one policy step away
    together = many.solve(starts, onward, turns)
    alone = np.stack([one.solve(*row) for row in zip(starts, onward, turns, strict=True)])
    apart = np.abs(together - alone).max(1)
    assert np.median(apart) < 1e-7
    assert apart.max() < 1e-3


def test_the_jacobian_is_the_derivative() -> None:
    kinematics = BatchedKinematics()
    rng = np.random.default_rng(1)
    joints = HOME_JOINTS + rng.uniform(-0.3, 0.3, (5, 7))
    position, _, jacobian = kinematics.forward(joints)
    step = 1e-6
    for joint in range(7):
        moved = joints.copy()
        moved[:, joint] += step
        slope = (kinematics.forward(moved)[0] - position) / step
        assert np.allclose(slope, jacobian[:, :3, joint], atol=1e-4)
