"""The true simulator judged by a learned brain: the brain's own eyes and distances, on what really would happen."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import envs  # noqa: F401  registers the worlds
import worldmodel
from envs.judged_simulator import JudgedSimulator
from planners import CEM, MPC, Budget
from planners.benchmark import make_model
from planners.benchmark.episode import visible_goal
from worldmodel.interface import TABLETOP


@pytest.fixture(scope="module")
def judge() -> Any:
    return worldmodel.load("tabletop", "cpu", TABLETOP, precision="float32")


@pytest.fixture(scope="module")
def brain(judge: Any) -> JudgedSimulator:
    return JudgedSimulator("reach", TABLETOP, judge, threads=1)


@pytest.fixture(scope="module")
def world() -> Any:
    env = gymnasium.make("premotor/Tabletop-v0", task="reach", disable_env_checker=True).unwrapped
    yield env
    env.close()


def test_it_sees_what_the_judge_would_see_there(world: Any, judge: Any, brain: JudgedSimulator) -> None:
    observation, info = world.reset(seed=5)
    here = brain.encode({"simulator.state": world.save_state()[None]})
    own = judge.encode({key: torch.from_numpy(np.asarray(observation[key]))[None] for key in judge.required_keys})
    # A picture drawn again differs in a grey value here and there; the pose is the arm's.
    spread = float(own[0, : judge.architecture.features].std())
    assert float((brain.judged(here) - own).abs().mean()) < 0.1 * spread

    wanted = brain.encode({"simulator.state": info["goal"]["simulator.state"][None]})
    goal = judge.encode({"observation.images.front": torch.from_numpy(info["goal"]["observation.images.front"])[None]})
    assert float((brain.judged_goal(wanted) - goal).abs().mean()) < 0.1 * spread
    for name in ("distance", "feature_distance", "state_distance"):
        assert torch.equal(
            getattr(brain, name)(here, wanted), getattr(judge, name)(brain.judged(here), brain.judged_goal(wanted))
        )


def test_a_moment_looks_the_same_alone_and_among_others(world: Any, brain: JudgedSimulator) -> None:
    world.reset(seed=6)
    here = brain.encode({"simulator.state": world.save_state()[None]})
    futures = brain.predict(here, torch.zeros(1, 3, 2, 7) + torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1))
    among = brain.judged(futures)
    assert among.shape[:3] == (1, 3, 2)
    for sample in range(3):
        assert torch.equal(brain.judged(futures[:, sample, 1]), among[:, sample, 1])


def test_it_reaches_with_a_learned_cost(world: Any, brain: JudgedSimulator) -> None:
    _, info = world.reset(seed=7)
    goal = visible_goal(info["goal"], brain.required_keys)
    agent = MPC(brain, CEM(horizon=3, elites=4), goal, Budget(16, 2), seed=7)
    before = info["goal_distance_m"]
    for _ in range(6):
        _, _, _, _, info = world.step(agent.act({"simulator.state": world.save_state()}))
    assert info["goal_distance_m"] < 0.5 * before


def test_a_judge_with_other_cameras_is_refused(judge: Any) -> None:
    class TwoCameras:
        required_keys = (*judge.required_keys, "observation.images.wrist")

        def __getattr__(self, name: str) -> Any:
            return getattr(judge, name)

    with pytest.raises(ValueError, match=r"observation\.images\.wrist; futures are photographed by the front camera"):
        JudgedSimulator("reach", TABLETOP, TwoCameras())


def test_it_goes_by_its_name_in_a_config() -> None:
    model = make_model({"name": "simulator_latent", "judge": "tabletop", "device": "cpu"}, "push")
    assert isinstance(model, JudgedSimulator)
    assert model.name == "simulator_latent"
