"""The landscape around a plan is what the brain and the objective say, cell by cell; its picture is a whole file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from planners import FeatureDistance, Objective
from planners.landscape import NUDGE, Landscape, futures_of, survey
from planners.landscape_plot import draw, unit_of
from tests.planners.conftest import PointMass

OBJECTIVE = Objective(feature=FeatureDistance(final=30.0, summed=1.0))
HERE = torch.zeros(1, 3)
# One step, so that the best first action is known: a quarter of it is where the point goes.
GOAL = torch.tensor([[0.1, -0.05, 0.0]])
BEST = (0.4, -0.2, 0.0)


def around(model: PointMass, first: tuple[float, float, float], horizon: int = 1, **view: float) -> Landscape:
    later = torch.zeros(horizon - 1, 3)
    return survey(model, HERE, GOAL, OBJECTIVE, torch.cat([torch.tensor([first]), later]), **view)  # type: ignore[arg-type]


def unit(physical: np.ndarray, point: type[PointMass]) -> np.ndarray:
    return point.action_space.to_unit(torch.from_numpy(physical)).numpy()


def test_every_cell_is_the_cost_of_its_plan(point: type[PointMass]) -> None:
    model = point()
    plan = torch.tensor([[0.3, -0.5, 0.1], [0.2, 0.0, -0.4]])
    found = survey(model, HERE, GOAL, OBJECTIVE, plan, grid=4, span=0.5)
    assert found.pairs == ((0, 1), (0, 2), (1, 2))
    assert found.values.shape == (3, 4, 4)

    def cost(actions: Tensor) -> float:
        futures = model.predict(HERE, actions[None, None])
        return float(OBJECTIVE(model, futures, actions[None, None], GOAL)["feature"])

    assert found.cost == pytest.approx(cost(plan))
    axes = unit(found.axes.T, point).T
    for p, (i, j) in enumerate(found.pairs):
        for a in range(4):
            for b in range(4):
                varied = plan.clone()
                varied[0, i], varied[0, j] = float(axes[i, a]), float(axes[j, b])
                assert found.values[p, a, b] == pytest.approx(cost(varied), rel=1e-4)
    for k in range(3):
        for side, sign in enumerate((-1, 1)):
            varied = plan.clone()
            varied[0, k] += sign * NUDGE
            assert found.nudged[k, side] == pytest.approx(cost(varied), rel=1e-4)
    assert found.nudges == pytest.approx([0.01, 0.01, 0.02])
    assert found.futures == futures_of(3, 4) == 3 * 16 + 2 * 3 + 1


def test_the_floor_lies_where_it_should(point: type[PointMass]) -> None:
    at_best = around(point(), BEST, grid=11, span=0.5)
    assert at_best.cost == pytest.approx(0.0, abs=1e-9)
    assert (at_best.rises > 0).all()
    cost, action = at_best.lowest
    assert cost == at_best.cost
    np.testing.assert_array_equal(action, at_best.chosen)
    # Beside it: one slice holds the floor, and says by which two numbers it is reached.
    beside = around(point(), (0.0, 0.0, 0.0), grid=11, span=1.0)
    cost, action = beside.lowest
    assert cost == pytest.approx(0.0, abs=1e-9)
    assert unit(action, point) == pytest.approx(BEST, abs=1e-6)
    assert beside.cost > 0
    # To the goal's side the cost falls, away from it rises: a tenth is told to the worse side.
    assert beside.nudged[0, 1] < beside.cost < beside.nudged[0, 0] == pytest.approx(beside.cost + beside.rises[0])


def test_the_bounds_are_never_left(point: type[PointMass]) -> None:
    found = around(point(), (0.9, -1.0, 0.0), grid=5, span=0.6)
    axes = unit(found.axes.T, point).T
    assert axes[0, [0, -1]] == pytest.approx([0.3, 1.0], abs=1e-6)
    assert axes[1, [0, -1]] == pytest.approx([-1.0, -0.4], abs=1e-6)
    assert axes[2, [0, -1]] == pytest.approx([-0.6, 0.6], abs=1e-6)
    # At a bound only one side is possible; the other is not taken for flat.
    assert np.isnan(found.nudged[1]).tolist() == [True, False]
    assert np.isfinite(found.nudged[0]).all()
    assert np.isfinite(found.rises).all()
    whole = around(point(), (0.9, -1.0, 0.0), grid=5, span=2.0)
    np.testing.assert_allclose(unit(whole.axes.T, point).T, np.tile(np.linspace(-1, 1, 5), (3, 1)), atol=1e-6)


def test_a_future_that_is_not_finite_is_a_hole(point: type[PointMass]) -> None:
    model = point(spoil=lambda actions: actions[:, :, 0, 0] > 0.45)
    found = around(model, BEST, grid=5, span=0.2)
    lost = unit(found.axes.T, point).T[0] > 0.45
    for p, (i, _) in enumerate(found.pairs):
        expected = np.broadcast_to(lost[:, None], (5, 5)) if i == 0 else np.zeros((5, 5), bool)
        np.testing.assert_array_equal(np.isnan(found.values[p]), expected)
    assert np.isnan(found.nudged[0]).tolist() == [False, True]
    assert found.rises[0] == pytest.approx(found.nudged[0, 0] - found.cost)
    hopeless = around(point(spoil=lambda actions: actions[:, :, 0, 0] != 0.4), BEST, grid=4, span=0.3)
    assert np.isnan(hopeless.rises[0])
    assert hopeless.lowest[0] == hopeless.cost


def test_what_the_brain_does_not_trust_is_a_hole_too(point: type[PointMass]) -> None:
    found = around(point(doubt=lambda latents: 10.0 * latents[..., 0].abs()), BEST, grid=5, span=0.2, trusted=1.2)
    doubted = unit(found.axes.T, point).T[0] > 0.48
    np.testing.assert_array_equal(np.isnan(found.values[0]), np.broadcast_to(doubted[:, None], (5, 5)))


def test_chunks_and_repetitions_give_the_same_numbers(point: type[PointMass]) -> None:
    whole, bounded = point(), point()
    at_once = around(whole, BEST, 2, grid=6, span=1.0)
    again = around(point(), BEST, 2, grid=6, span=1.0)
    small = around(bounded, BEST, 2, grid=6, span=1.0, memory_mb=2 * 3 * 4 * 10 / 2**20)
    assert whole.largest_chunk == at_once.futures
    assert bounded.largest_chunk == 10
    for other in (again, small):
        np.testing.assert_array_equal(other.values, at_once.values)
        np.testing.assert_array_equal(other.nudged, at_once.nudged)
        assert other.cost == at_once.cost


def test_a_brain_that_cannot_be_differentiated_and_has_grids_of_latents_will_do() -> None:
    class Tokens(PointMass):
        """The point's numbers on a grid of four tokens; its futures know no gradient."""

        latent_ndim = 2

        def predict(self, latent: Tensor, actions: Tensor) -> Tensor:
            with torch.no_grad():
                flat = super().predict(latent[:, 0], actions)
            return flat[..., None, :].expand(*flat.shape[:-1], 4, 3)

        def feature_distance(self, latents: Tensor, goal: Tensor) -> Tensor:
            return super().feature_distance(latents[..., 0, :], goal[:, 0])

    flat = around(PointMass(), BEST, grid=4, span=0.5)
    tokens = survey(
        Tokens(), HERE[:, None].expand(1, 4, 3), GOAL[:, None].expand(1, 4, 3), OBJECTIVE, torch.tensor([BEST]),
        grid=4, span=0.5,
    )  # fmt: skip
    np.testing.assert_array_equal(tokens.values, flat.values)


@pytest.mark.parametrize(
    ("view", "words"),
    [({"grid": 1}, "grid is 1"), ({"span": 0.0}, "span is 0.0"), ({"span": float("nan")}, "span is nan")],
)
def test_what_no_landscape_can_be_made_of_is_refused(
    point: type[PointMass], view: dict[str, float], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        around(point(), BEST, **view)


def test_two_environments_or_a_plan_of_another_space_are_refused(point: type[PointMass]) -> None:
    with pytest.raises(ValueError, match="one environment's"):
        survey(point(), HERE.repeat(2, 1), GOAL, OBJECTIVE, torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"\(steps, 3\)"):
        survey(point(), HERE, GOAL, OBJECTIVE, torch.zeros(1, 7))


def test_its_picture_is_whole_even_where_it_is_flat_or_full_of_holes(point: type[PointMass], tmp_path: Path) -> None:
    found = around(point(), BEST, grid=5, span=0.5)
    elites = np.array([[0.03, -0.02, 0.0], [0.05, 0.0, 0.1]], np.float32)
    flat = replace(found, values=np.full_like(found.values, found.cost), nudged=np.full_like(found.nudged, found.cost))
    holes = replace(found, values=np.full_like(found.values, np.nan), nudged=np.full_like(found.nudged, np.nan))
    for name, landscape, cloud in (("whole", found, elites), ("flat", flat, None), ("holes", holes, elites)):
        path = draw(landscape, tmp_path / f"{name}.png", cloud, "a point")
        with Image.open(path) as picture:
            assert picture.width > 500
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flat.png", "holes.png", "whole.png"]


def test_people_read_centimetres_and_degrees() -> None:
    assert unit_of("dz") == (100.0, "cm")
    assert unit_of("dyaw") == (pytest.approx(57.29578), "deg")
    assert unit_of("dgripper") == (1.0, "closedness")
    assert unit_of("joint 1") == (1.0, "")
