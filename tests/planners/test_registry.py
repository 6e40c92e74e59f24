"""Planners and objectives by their words."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from omegaconf import OmegaConf

from planners import CEM, MPPI, FeatureDistance, Hold, SamplingPlanner, make_objective, make_planner
from planners.planner import Belief


def test_a_planner_is_what_its_config_says() -> None:
    config = OmegaConf.create({"name": "cem", "horizon": 5, "initial_std": [0.6, 0.2], "elites": 7})
    objective = OmegaConf.create({"feature": {"final": 2.0}, "learned": None})
    planner = make_planner(config, objective)  # type: ignore[arg-type]
    assert isinstance(planner, CEM)
    assert planner.initial_std == (0.6, 0.2)
    assert (planner.horizon, planner.elites) == (5, 7)
    assert planner.objective.terms == {"feature": FeatureDistance(final=2.0)}
    assert isinstance(make_planner({"name": "mppi", "temperature": 0.2}), MPPI)
    assert isinstance(make_planner({"name": "hold"}, {"learned": {}}), Hold)


@dataclass(frozen=True, kw_only=True)
class Mine(SamplingPlanner):
    """A newcomer's planner."""

    pull: float = 0.5

    def refit(self, belief: Belief, actions: object, costs: object, search: object) -> Belief:
        return belief


def test_a_newcomer_needs_no_registration(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "my_planners", sys.modules[__name__])
    planner = make_planner({"name": "my_planners:Mine", "pull": 0.25}, {"feature": {}})
    assert isinstance(planner, Mine)
    assert planner.pull == 0.25
    assert planner.objective.names == ("feature",)
    with pytest.raises(ValueError, match="cannot be imported"):
        make_planner({"name": "my_planners:Yours"})
    with pytest.raises(ValueError, match="no subclass"):
        make_planner({"name": "pathlib:Path"})


@pytest.mark.parametrize(
    ("planner", "objective", "sentence"),
    [
        ({"name": "cen"}, {"feature": {}}, "no planner is called 'cen'; did you mean cem?"),
        ({}, {"feature": {}}, "no planner is called ''; known are cem"),
        (
            {"name": "cem", "horizont": 4},
            {"feature": {}},
            "planner cem has no setting 'horizont'; did you mean horizon?",
        ),
        ({"name": "cem"}, {"feture": {}}, "an objective has no term 'feture'; did you mean feature?"),
        ({"name": "cem"}, {"feature": {"weight": 1}}, "objective term feature has no setting 'weight'"),
        ({"name": "cem"}, {}, "at least one term"),
    ],
)
def test_a_wrong_word_gets_the_nearest_right_one(planner: dict, objective: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make_planner(planner, objective)


def test_objectives_keep_their_order() -> None:
    words = {"uncertainty": {"weight": 2.0}, "learned": {}, "action": {}, "smoothness": {}, "feature": None}
    assert make_objective(words).names == ("uncertainty", "learned", "action", "smoothness")
