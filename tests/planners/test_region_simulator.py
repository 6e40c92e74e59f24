"""A region of the arm's state is reached in the true simulator, by its own futures."""

from __future__ import annotations

import gymnasium
import numpy as np

import envs  # noqa: F401  registers the worlds
from envs.simulator_model import SimulatorModel
from planners import CEM, MPC, Budget, Goal
from worldmodel.interface import TABLETOP

SPREAD = (0.7, 0.7, 0.6, 0.15, 0.15, 0.25, 0.3)


def test_the_arm_goes_where_the_numbers_say() -> None:
    world = gymnasium.make("premotor/Tabletop-v0", task="reach", with_goal=False, disable_env_checker=True).unwrapped
    try:
        observation, _ = world.reset(seed=3)
        model = SimulatorModel("reach", TABLETOP, threads=1)
        state = model.state(model.encode({"simulator.state": world.save_state()[None]}))
        np.testing.assert_allclose(state[0], observation["observation.state"], atol=1e-5)
        here = observation["observation.state"][:3]
        middle = np.where(here > [0.5, 0.0, 0.15], here - 0.09, here + 0.09)
        goal = Goal.region(middle - 0.015, middle + 0.015)
        planner = CEM(horizon=2, initial_std=SPREAD, elites=5)
        agent = MPC(model, planner, goal, Budget(16, 2))
        for _ in range(6):
            action = agent.act({**observation, "simulator.state": world.save_state()})
            observation, *_ = world.step(action)
        region = goal.wishes[0].region
        assert region is not None
        assert max(region.outside(observation["observation.state"])) < 0.002
        assert agent.last_plan is not None
        assert list(agent.last_plan.terms) == ["region", "rest"]
    finally:
        world.close()
