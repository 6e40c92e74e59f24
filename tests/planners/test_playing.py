"""Play in an episode's own scene, and ways through it: one command, the same every time, refused where nobody can play."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import envs
from envs.tabletop import SCENE_SIZE
from planners import Rollout
from planners.benchmark import cells_of, main
from planners.benchmark.brains import make_model
from planners.benchmark.playing import played
from planners.subgoals import Subgoals
from tests.planners.test_benchmark import SEARCH, config

assert envs  # importing it registers the worlds
PLAY: dict[str, Any] = {"play": 2, "play_steps": 6}


@pytest.fixture(scope="module")
def worlds() -> Iterator[tuple[Any, Any]]:
    """One to act in, at the start of an episode, and one to play in."""
    words = {"task": "lift", "disable_env_checker": True}
    begun = gymnasium.make("premotor/Tabletop-v0", **words)
    begun.reset(seed=500)
    playground = gymnasium.make("premotor/Tabletop-v0", **words, with_goal=False)
    yield begun, playground
    begun.close()
    playground.close()


def test_play_is_of_the_same_scene_and_never_of_the_goal(worlds: tuple[Any, Any]) -> None:
    begun, playground = worlds
    model = make_model({"name": "simulator"}, "lift")
    before = begun.unwrapped.save_state()
    latents, onward = played(playground, begun, 500, Subgoals(**PLAY), model)
    assert latents.shape[0] == 2 * 7
    assert onward.tolist() == [*[1.0] * 6, torch.inf] * 2
    start = model.encode({"simulator.state": before[None]})
    torch.testing.assert_close(latents[[0, 7]], start.expand(2, -1))  # both begin where the episode will
    assert not torch.equal(latents[1], latents[8])  # and go on differently
    goal = model.encode({"simulator.state": begun.unwrapped.goal["simulator.state"][None]})
    assert model.distance(latents[None], goal).min() > 0.5
    np.testing.assert_array_equal(begun.unwrapped.save_state(), before)  # the episode knows nothing of it
    # The same again, and the first episode is the same however many there are.
    again, _ = played(playground, begun, 500, Subgoals(play=1, play_steps=6), model)
    torch.testing.assert_close(again, latents[:7], rtol=0, atol=0)


def test_play_may_begin_anywhere_in_the_same_scene(worlds: tuple[Any, Any]) -> None:
    begun, playground = worlds
    model = make_model({"name": "simulator"}, "lift")
    latents, _ = played(playground, begun, 500, Subgoals(**PLAY, play_from="anywhere"), model)
    # A simulator's latent begins with its scene, of which 7 to 9 are the object's place and yaw.
    scenes = latents[:, :SCENE_SIZE]
    places = slice(7, 10)
    assert (scenes[0, places] != scenes[7, places]).all()
    kept = [n for n in range(SCENE_SIZE) if n not in range(7, 10)]
    mine = torch.from_numpy(begun.unwrapped.save_state()[:SCENE_SIZE])
    torch.testing.assert_close(scenes[:, kept], mine[kept].expand(len(scenes), -1))


def test_a_benchmark_that_plays_first(tmp_path: Path) -> None:
    """End to end with the true simulator; the same command gives the same episodes, and stands beside those without."""
    words = {"planner": SEARCH, "task": "reach", "episodes": 1, "seed": 500}
    play = {**PLAY, "policy": None, "spacing": 2.0, "data": None, "frames": 2000}
    assert main(config(tmp_path / "one", **words, subgoals={"data": None, "play": None, "frames": 2000})) == 0
    assert main(config(tmp_path / "one", **words, subgoals=play, record=1)) == 0
    assert main(config(tmp_path / "two", **words, subgoals=play)) == 0
    without, within = json.loads((tmp_path / "one/results.json").read_text())
    (again,) = json.loads((tmp_path / "two/results.json").read_text())
    assert within["subgoals"]["play"] == 2
    assert "data" not in within["subgoals"]
    assert without["key"] != within["key"] == again["key"]
    assert within["final_distance_cm_median"] == again["final_distance_cm_median"]
    (kept,) = (tmp_path / "one" / "rollouts").glob("*/500")
    said = " ".join(Rollout.load(kept).steps[0].events)
    assert "found a way" in said or "heading straight" in said or "no sub-goals are needed" in said


@pytest.mark.parametrize(
    ("subgoals", "said"),
    [
        ({"play": 0}, "subgoals.play is 0; it is a whole number above 0"),
        ({"play": 2.5}, "subgoals.play is 2.5; it is a whole number"),
        ({"play": 2, "play_steps": 0}, "subgoals.play_steps is 0"),
        ({"play": 2, "play_from": "home"}, "subgoals.play_from is 'home'; play begins at the start or anywhere"),
        ({"play": 2, "policy": "juggle"}, "subgoals.policy is 'juggle'; known are random, reach"),
        ({"play": 2, "data": "somewhere"}, "give one"),
        ({"play": 2, "ask": "never"}, "ask is 'never'; a way is asked for at the start or when stuck"),
        ({"pictures": ["a.png"], "ask": "stuck"}, "your own pictures lead from the start"),
        ({"policy": "pick"}, "says how to play; say subgoals.play=N as well"),
        ({"data": "recorded", "play_steps": 9}, "subgoals.play_steps=9 says how to play; say subgoals.play=N as well"),
    ],
)
def test_what_makes_no_sense_is_refused(subgoals: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        cells_of(config(tmp_path, subgoals=subgoals))


def test_where_nobody_can_play_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"in the worlds of own\.module:World-v0 nobody can play"):
        cells_of(config(tmp_path, suite="own.module:World-v0", subgoals=PLAY))
    with pytest.raises(ValueError, match="suite=planners has no way with sub-goals"):
        main(config(tmp_path, suite="planners", subgoals=PLAY))
