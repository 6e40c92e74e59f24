"""Goals from the command line: several pictures, a region alone or besides, and sentences for what does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planners import Goal, Region, Rollout
from robots import viewer
from robots.brain import goal_hash
from robots.loop import Exit
from robots.wanted import make_goal
from tests.robots.conftest import Premotor
from tests.robots.test_run_subgoals import picture

TRUSTING = "guard.uncertainty=1e9"
REGION = ("region.low=[0.45,-0.1,0.1]", "region.high=[0.55,0.1,0.2]")


def test_a_plan_for_any_of_two_pictures_within_a_region(call: Premotor, tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    words = ("goal=[a.png,b.png]", *REGION, "objective.feature.measure=cosine", "landscape.grid=2", "out=p")
    assert call("plan", *words) == 0
    plan = json.loads((tmp_path / "p" / "plan.json").read_text())
    assert list(plan["terms"]) == ["learned", "feature", "state", "region"]
    assert sum(plan["terms"].values()) == pytest.approx(plan["cost"], rel=1e-4)
    assert plan["landscape"]["cost"] == pytest.approx(plan["cost"], rel=1e-4)
    kept = Rollout.load(tmp_path / "p" / "rollout").goal
    assert {"observation.images.front", "2/observation.images.front", "region.low", "region.high"} <= set(kept)
    assert viewer.verify(tmp_path / "p" / "rollout.rrd")[0]


def test_a_run_to_a_region_alone(call: Premotor, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        call("run", TRUSTING, "goal=null", *REGION, "objective.region={final: 10.0}", "steps=2", "out=r") == Exit.DONE
    )
    said = capsys.readouterr().out
    assert "ok  goal" in said
    assert "region 0.45 to 0.55, -0.1 to 0.1, 0.1 to 0.2" in said
    assert "region: the arm is" in said
    assert "simulator's word" not in said  # it judges another goal
    result = json.loads((tmp_path / "r" / "results.json").read_text())
    assert result["in_region"] == (not any(result["outside_region"]))
    assert "success" not in result
    rollout = Rollout.load(tmp_path / "r" / "rollout")
    assert rollout.steps[0].plan is not None
    assert list(rollout.steps[0].plan.terms) == ["region", "rest"]


LIKE = {"observation.images.front": np.zeros((64, 64, 3), np.uint8)}
WORDS = {
    "goal": "scene", "goal_mode": "any", "region": {"low": None, "high": None}, "objective": {"region": None},
}  # fmt: skip


def scene() -> tuple[Goal, dict[str, np.ndarray], str]:
    return Goal.from_observation(LIKE), {"picture": np.ones((2, 2, 3), np.uint8)}, "picture from the scene"


def test_a_goal_is_what_the_configuration_says(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    paths = [str(tmp_path / name) for name in ("a.png", "b.png")]
    goal, seen, _ = make_goal(WORDS, LIKE, scene)
    assert list(seen) == ["picture"]
    assert len(goal.wishes[0].observations) == 1
    goal, seen, said = make_goal({**WORDS, "goal": paths}, LIKE, scene)
    assert goal.wishes[0].weights is None
    assert list(seen) == ["observation.images.front", "2/observation.images.front"]
    assert said.startswith("2 pictures, whichever is nearest: ")
    goal, _, said = make_goal({**WORDS, "goal": paths, "goal_mode": "mean"}, LIKE, scene)
    assert goal.wishes[0].weights == (0.5, 0.5)
    assert said.startswith("2 pictures, their mean: ")
    goal, seen, said = make_goal({**WORDS, "region": {"low": [0.4, None], "high": None}}, LIKE, scene)
    assert goal.wishes[0].region == Region.of([0.4, None], None)
    assert {"picture", "region.low", "region.high"} <= set(seen)
    assert said == "picture from the scene; within the region at least 0.4, free"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"goal": None}, "there is no goal; give goal=PATH of a picture, or region.low"),
        ({"goal": []}, "goal lists no picture"),
        ({"goal": ["nowhere.png"]}, "no goal picture at nowhere.png"),
        ({"goal_mode": "men"}, "goal_mode is 'men'; did you mean mean?"),
        ({"region": {"low": [0.5], "high": [0.4]}}, "number 0 of the region has low 0.5 and high 0.4"),
        ({"region": {"low": [0.5], "hihg": [0.4]}}, "region has no key 'hihg'"),
        ({"objective": {"region": {"final": 3.0}}}, "objective.region weighs a region, and there is none"),
    ],
)
def test_what_is_no_goal_gets_a_sentence(words: dict[str, Any], said: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        make_goal({**WORDS, **words}, LIKE, scene)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("region.lo=[0.5]", "did you mean region.low?"),
        ("objective.regio={final: 3.0}", "did you mean objective.region?"),
        ("objective.feature.measure=l3", "the measure is 'l3'; known are squared, l2, l1, cosine"),
        ("objective.region={low: [0.1]}", "the bounds of a region come with the goal"),
    ],
)
def test_a_wrong_word_gets_the_nearest_right_one(
    call: Premotor, word: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("plan", word, "out=p") == 2
    assert said in capsys.readouterr().err


def test_other_goals_have_other_names() -> None:
    one, two = (Goal.image(np.full((4, 4, 3), value, np.uint8)) for value in (1, 2))
    goals = [one, Goal.any_of([one, two]), Goal.mean_of([one, two]), Goal.stack([one, two]), one.within([0.1])]
    goals += [Goal.region([0.1]), Goal.region([0.2])]
    assert len({goal_hash(goal) for goal in goals}) == len(goals)
