"""The planners with the native brain (untrained: shapes, seeds and batches do not depend on what it learned)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from planners import CEM, MPC, Budget, Goal, PlanRecord, UncertaintyPenalty, make_objective
from worldmodel.interface import TABLETOP
from worldmodel.native import NativeModel
from worldmodel.networks import Architecture, Networks

OBJECTIVE = make_objective({"learned": {}, "feature": {}, "uncertainty": {}})
PLANNER = CEM(horizon=6, objective=OBJECTIVE, initial_std=(0.6, 0.6, 0.6, 0.2, 0.2, 0.2, 0.4), proposal_share=0.5)


@pytest.fixture(scope="module")
def model() -> NativeModel:
    torch.manual_seed(0)
    small = Architecture(features=32, keypoints=8, predictor_width=64, predictor_depth=2, head_width=32)
    return NativeModel(Networks(small), TABLETOP, name="untrained")


def seen(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    return {"observation.images.front": picture, "observation.state": rng.normal(size=7).astype(np.float32)}


def test_the_agent_acts_from_one_picture_of_the_goal(model: NativeModel) -> None:
    agent = MPC(model, PLANNER, Goal.image(seen(9)["observation.images.front"]), Budget(32, 2))
    action = agent.act(seen(1))
    assert action.shape == (7,)
    assert (np.abs(action) <= np.array(TABLETOP.high) + 1e-6).all()
    plan = agent.last_plan
    assert plan is not None
    assert list(plan.terms) == ["learned", "feature", "uncertainty"]
    assert plan.uncertainty is not None
    assert plan.uncertainty.shape == (1, 6)
    record = PlanRecord.of(plan, model)
    assert record.frames is not None
    assert record.frames.shape == (6, 64, 64, 3)
    assert record.actions.shape == (6, 7)


def test_many_environments_plan_as_each_would(model: NativeModel) -> None:
    """Proposals included: their noise is not the neighbour's. (Sums differ in the last bits with the batch's size.)"""
    goals = [Goal.image(seen(10 + index)["observation.images.front"]) for index in range(3)]
    many = MPC(model, PLANNER, Goal.stack(goals), Budget(32, 2), seed=5)
    together = many.act_batch([seen(index) for index in range(3)])
    for index, goal in enumerate(goals):
        alone = MPC(model, PLANNER, goal, Budget(32, 2), seed=5).act(seen(index))
        np.testing.assert_allclose(together[index], alone, atol=1e-4)


def test_the_search_leaves_ordinary_tensors_behind(model: NativeModel) -> None:
    """A gradient may follow a plan: what comes out of the search is not bound to inference."""
    latent = model.encode({key: torch.from_numpy(value[None]) for key, value in seen(0).items()})
    plan = PLANNER.plan(model, latent, latent, Budget(8, 1))
    actions = plan.actions.requires_grad_()
    OBJECTIVE(model, model.predict(latent, actions[:, None]), actions[:, None], latent)["learned"].sum().backward()
    assert actions.grad is not None
    assert torch.isfinite(actions.grad).all()


def test_doubt_is_charged(model: NativeModel) -> None:
    latents = torch.zeros(1, 2, 3, 40)
    latents[0, 1, :, -1] = 100.0
    cost = UncertaintyPenalty(weight=1.0)(model, latents, torch.zeros(1, 2, 3, 7), torch.zeros(1, 40))
    assert cost[0, 0] == 0.0
    assert cost[0, 1] > 1.0
