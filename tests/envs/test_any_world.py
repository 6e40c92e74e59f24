"""Any Gymnasium world through `premotor collect`, and on into pretraining and adaptation."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pyarrow.parquet as pq
import pytest

import premotor
from envs.any_recipe import WorldRecipe, world_recipe
from envs.any_world import AnyWorld, fit
from envs.collect import collect
from envs.exploring import explore
from tests.envs.test_collect import _alive, contents

WORLDS = "tests.envs.tiny_worlds:"
ABOUT = {"policy": "random", "episodes": 5, "steps_per_episode": 12, "seed": 3}


def recipe_of(world: str = "Dot-v0", *, about: dict[str, Any] | None = None, **env: Any) -> WorldRecipe:
    return world_recipe({"id": WORLDS + world, **env}, **ABOUT | (about or {}))[0]


def remarks_of(world: str = "Dot-v0", **env: Any) -> str:
    return " ".join(world_recipe({"id": WORLDS + world, **env}, **ABOUT)[1])


def table(root: Path) -> Any:
    return pq.read_table(root / "data/chunk-000/file-000.parquet")


def column(root: Path, name: str) -> np.ndarray:
    return np.stack(table(root)[name].to_numpy())


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A goal world, played by two workers; episodes of even seeds end early, too early to be kept."""
    root = tmp_path_factory.mktemp("any") / "dots"
    done = collect(recipe_of(kwargs={"shows": "goal", "early": True}), root, workers=2)
    assert (done.played, done.frames) == (5, 5 * 13)
    return root


# -- what is in it -----------------------------------------------------------------------------------------------------


def test_a_dataset_holds_what_was_seen_and_done(dataset: Path) -> None:
    info = json.loads((dataset / "meta/info.json").read_text())
    features = info["features"]
    assert (info["fps"], info["robot_type"], info["total_frames"]) == (10, "gymnasium", 65)
    assert features["observation.images.front"]["shape"] == [64, 64, 3]
    assert features["action"]["names"] == ["a0", "a1"]
    assert features["observation.state"]["names"] == ["s0", "s1"]
    assert features["observation.environment_state"]["names"] == ["achieved_goal.0", "achieved_goal.1"]
    state, action = column(dataset, "observation.state"), column(dataset, "action")
    assert np.allclose(column(dataset, "observation.environment_state"), 2 * state)
    first, change = slice(0, 12), np.diff(state[:13], axis=0)
    moved = np.clip(state[first] + 0.1 * (action[first] - [0, 1]), -1, 1) - state[first]
    assert np.allclose(change, moved, atol=1e-6)
    # The last frame's action is to do nothing: 0 where the bounds hold it, else their middle.
    assert action[12].tolist() == [0.0, 1.0]
    recipe = json.loads((dataset / "meta/collection.json").read_text())
    assert recipe["env_id"] == WORLDS + "Dot-v0"
    assert recipe["env"]["kwargs"] == {"shows": "goal", "early": True}
    assert recipe["env"]["versions"]["gymnasium"] == gymnasium.__version__
    assert (recipe["env"]["low"], recipe["env"]["high"]) == ([-1.0, 0.5], [1.0, 1.5])


def test_an_episode_is_the_same_wherever_it_is_played(dataset: Path) -> None:
    recipe = recipe_of(kwargs={"shows": "goal", "early": True})
    world = recipe.open()
    third, _, again = (recipe.play(world, index) for index in (3, 0, 3))
    world.close()
    for name, values in third.vectors.items():
        assert np.array_equal(values, again.vectors[name])
        assert np.array_equal(values, column(dataset, name)[39:52])
    assert np.array_equal(third.frames["front"], again.frames["front"])
    assert int(third.about["seed"]) % 2 == 1  # of even seeds, episodes were over after two steps


def test_killed_and_resumed_by_one_worker_it_is_what_two_made(dataset: Path, tmp_path: Path) -> None:
    root = tmp_path / "killed"
    command = [sys.executable, "-m", "premotor", "collect", "env=gymnasium", f"env.id={WORLDS}Dot-v0",
               "env.kwargs={shows: goal, early: true}", "episodes=5", "steps_per_episode=12", "seed=3", "workers=1",
               f"out={root}"]  # fmt: skip
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while len(kept := list((root / ".episodes").glob("episode-*"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while _alive(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    kept = list((root / ".episodes").glob("episode-*"))
    done = collect(recipe_of(kwargs={"shows": "goal", "early": True}), root, workers=1)
    assert done.kept == len(kept)
    assert contents(root) == contents(dataset)


def test_another_world_or_other_versions_do_not_go_into_the_same_folder(dataset: Path) -> None:
    recipe = recipe_of(kwargs={"shows": "goal", "early": True})
    assert collect(recipe, dataset, workers=1).played == 0
    with pytest.raises(ValueError, match=r"was collected with env.kwargs=\{'shows': 'goal'.*not \{\}"):
        collect(recipe_of(), dataset)
    other = replace(recipe, env={**recipe.env, "versions": {"gymnasium": "9.9"}})
    with pytest.raises(ValueError, match=r"env.versions=\{'gymnasium': .*, not \{'gymnasium': '9.9'\}"):
        collect(other, dataset)
    with pytest.raises(ValueError, match=r"was collected with env_id=tests\..*Dot-v0, not tests\..*Old-v0; choose"):
        collect(recipe_of("Old-v0"), dataset)


def test_an_episode_that_the_world_ends_is_kept_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = recipe_of(kwargs={"ends_after": 7}, about={"episodes": 2})
    done = collect(recipe, tmp_path, workers=1)
    assert done.frames == 2 * 8
    assert table(tmp_path)["episode_index"].to_pylist() == [0] * 8 + [1] * 8
    # The moment it ended in is there: what the last action led to.
    state, action = column(tmp_path, "observation.state"), column(tmp_path, "action")
    assert np.allclose(state[7], np.clip(state[6] + 0.1 * (action[6] - [0, 1]), -1, 1), atol=1e-6)
    assert len(recipe_of(kwargs={"ends_after": 7}, repeat=2, about={"steps_per_episode": 3}).layout().cameras) == 1


def test_a_world_that_ends_at_once_is_refused() -> None:
    recipe = recipe_of(kwargs={"ends_after": 3})
    world = recipe.open()
    with pytest.raises(ValueError, match=r"ends its episodes after 3 actions or fewer \(20 seeds\); at least 6"):
        recipe.play(world, 0)
    short = replace(recipe, steps_per_episode=3)
    assert len(short.play(world, 0).vectors["action"]) == 4


# -- what is seen ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("world", "shows", "cameras", "state"),
    [
        ("Dot-v0", "flat", ("front",), ("s0", "s1")),
        ("Dot-v0", "picture", ("front",), ("nothing",)),
        ("Dot-v0", "channels", ("front",), ("nothing",)),
        ("Dot-v0", "two", ("pixels_top", "pixels_side"), ("s0", "s1")),
        ("Dot-v0", "nothing", ("front",), ("nothing",)),
        ("Old-v0", None, ("front",), ("nothing",)),
        ("Screen-v0", "picture", ("front",), ("nothing",)),
    ],
)
def test_pictures_and_state_are_found_wherever_they_are(
    world: str, shows: str | None, cameras: tuple[str, ...], state: tuple[str, ...]
) -> None:
    opened = AnyWorld(WORLDS + world, {} if shows is None else {"shows": shows})
    seen = opened.reset(1)
    place = opened.env.unwrapped.place  # pyright: ignore[reportAttributeAccessIssue]
    assert (opened.cameras, opened.state_names, opened.truth_names) == (cameras, state, ())
    assert all(picture.shape == (64, 64, 3) and picture.dtype == np.uint8 for picture in seen.pictures.values())
    drawn = fit(opened.env.unwrapped._picture(), 64)  # pyright: ignore[reportAttributeAccessIssue]
    assert np.array_equal(seen.pictures[cameras[0]], drawn)
    assert np.allclose(seen.state, place if state == ("s0", "s1") else [0.0])
    opened.close()


def test_a_state_that_is_not_there_is_said() -> None:
    assert "observation.state is one number that is always 0" in remarks_of(kwargs={"shows": "picture"})
    assert "one seed does not give one episode" in remarks_of(kwargs={"careless": True})
    assert "one seed" not in remarks_of()


def test_pictures_are_cut_and_resized_as_a_brain_does_it() -> None:
    from worldmodel import decoding

    rng = np.random.default_rng(0)
    for shape in ((48, 64), (64, 64), (100, 30), (480, 640)):
        picture = rng.integers(0, 255, (*shape, 3), dtype=np.uint8)
        assert np.array_equal(fit(picture, 64), decoding.fit(picture, 64))


def test_a_part_of_the_picture_is_kept() -> None:
    world = AnyWorld(WORLDS + "Dot-v0", crop=[0.5, 0.25, 1, 1])
    seen = world.reset(0).pictures["front"]
    whole = world.env.unwrapped._picture()  # pyright: ignore[reportAttributeAccessIssue]
    assert np.array_equal(seen, fit(whole[6:, 16:], 64))


# -- how it is played --------------------------------------------------------------------------------------------------


def test_actions_are_held_and_the_rate_follows() -> None:
    world = AnyWorld(WORLDS + "Dot-v0", repeat="auto")
    before = world.reset(0).state
    after, _ = world.step(np.array([1.0, 1.0]))
    assert (world.repeat, world.fps) == (2, 5)
    assert after.state[0] - before[0] == pytest.approx(0.2, abs=1e-6) or after.state[0] == 1.0
    assert AnyWorld(WORLDS + "Timeless-v0", rate_hz=60).fps == 60
    assert "written as 7, a whole number" in remarks_of("Timeless-v0", rate_hz=66.7, repeat=10)


def test_random_play_is_smooth_explores_and_rests() -> None:
    low, high = np.array([-2.0, 0.0, 1.0]), np.array([2.0, 1.0, 5.0])
    for rate, seed in ((5.0, 1), (5.0, 2), (50.0, 3)):
        policy = explore(low, high, rate, np.random.default_rng(seed))
        actions = np.stack([next(policy) for _ in range(int(300 * rate))])
        assert (actions >= low).all()
        assert (actions <= high).all()
        # Nearly all of each range is visited, and in a fifth of a second an action goes less far than at random.
        assert (np.ptp(actions, axis=0) > 0.95 * (high - low)).all()
        lag = round(rate / 5)
        step = np.abs(actions[lag:] - actions[:-lag]).mean(0)
        shuffled = np.abs(actions - np.random.default_rng(0).permutation(actions)).mean(0)
        assert (step < 0.8 * shuffled).all()
        still = (np.diff(actions, axis=0) == 0).all(1).mean()
        assert 0.05 < still < 0.35
    again = explore(low, high, 5.0, np.random.default_rng(4))
    same = explore(low, high, 5.0, np.random.default_rng(4))
    assert all(np.array_equal(next(again), next(same)) for _ in range(50))


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("world", "env", "words"),
    [
        ("Dott-v0", {}, r"knows no world called 'Dott-v0'; did you mean Dot-v0\?"),
        ("Hungry-v0", {}, "needs the package gymnasium_of_nobody, which is not installed here: pip install"),
        ("Screen-v0", {}, "Screen-v0 shows no pictures: it renders human, and its observation holds none"),
        ("Acting-v0", {}, "has no bounds for action 0"),
        ("Acting-v0", {"kwargs": {"space": "choice"}}, "acts in Discrete; what is collected has actions in a Box"),
        ("Acting-v0", {"kwargs": {"space": "whole"}}, r"acts in whole numbers \(int64\)"),
        ("Dot-v0", {"kwargs": {"colour": "red"}}, "cannot be made: .*unexpected keyword argument 'colour'"),
        ("Dot-v0", {"kwargs": 3}, r"env.kwargs is 3; it is a mapping"),
        ("Dot-v0", {"kwargs": {"broken_after": 0}}, r"breaks down: observation.state holds nan \(number 0\)"),
        ("Dot-v0", {"repeat": 0}, "env.repeat is 0; it is a whole number from 1 up, or auto"),
        ("Dot-v0", {"repeat": 30}, "make 0.333 frames a second; a dataset has a whole number of them"),
        ("Dot-v0", {"image_size": 63}, "image_size is 63; it may be 64 to 256 px"),
        ("Dot-v0", {"camera": "a/b"}, "env.camera is 'a/b'"),
        (
            "Dot-v0",
            {"crop": [0.5, 0.0, 0.4, 1.0]},
            r"env.crop is \[0.5, 0.0, 0.4, 1.0\]; it is \[left,top,right,bottom\]",
        ),
        ("Dot-v0", {"crop": 0.5}, "env.crop is 0.5; it is"),
        ("Dot-v0", {"simulator": "mujoco"}, "env.simulator is no setting of a Gymnasium world"),
        ("Timeless-v0", {}, "does not say how many steps a second it makes; say env.rate_hz="),
    ],
)
def test_what_cannot_be_collected_in_is_refused_in_a_sentence(world: str, env: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        recipe_of(world, **env)


def test_modules_that_are_not_there_are_named() -> None:
    with pytest.raises(ValueError, match=r"needs the package gymnasium_of_nobody.*: pip install"):
        world_recipe({"id": "gymnasium_of_nobody:Dot-v0"}, **ABOUT)
    with pytest.raises(ValueError, match=r"say which world with env.id="):
        world_recipe({"id": None}, **ABOUT)


def test_the_tabletop_s_words_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["collect", "env=gymnasium", f"env.id={WORLDS}Dot-v0", f"out={tmp_path / 'none'}"]
    for word, sentence in (
        ("policy=push", "policy=push is no policy for"),
        ("episodes_per_scene=4", "episodes_per_scene is 4; it is the tabletop's"),
    ):
        assert premotor.main([*words, word]) == premotor.BAD_INPUT
        assert sentence in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "none").exists()
    for command in ("plan", "run"):
        assert premotor.main([command, "env=gymnasium"]) == premotor.BAD_INPUT
        assert "env has no choice 'gymnasium'" in capsys.readouterr().err


def test_a_world_that_breaks_down_on_the_way_leaves_nothing_half_written(tmp_path: Path) -> None:
    broken = recipe_of(kwargs={"broken_after": 9}, about={"episodes": 2})
    with pytest.raises(RuntimeError, match=r"episode 0 could not be collected into .*: .*observation.state holds nan"):
        collect(broken, tmp_path, workers=1)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["collection.json"]


# -- on into training --------------------------------------------------------------------------------------------------

SMALL = ["architecture.features=24", "architecture.keypoints=8", "architecture.predictor_width=48", "device=cpu",
         "architecture.predictor_depth=2", "architecture.head_width=48", "architecture.proposal_steps=3", "batch=8",
         "architecture.image_size=32", "window_steps=3", "steps=3", "evaluate_every=3", "bf16=false"]  # fmt: skip


def test_a_world_without_state_is_adapted_to(tmp_path: Path) -> None:
    """A state that is always 0 divides nothing by 0."""
    recipe = recipe_of(kwargs={"shows": "picture"}, about={"episodes": 4})
    collect(recipe, tmp_path / "data", workers=1)
    assert premotor.main(["adapt", f"data={tmp_path / 'data'}", f"out={tmp_path / 'brain'}", *SMALL]) == 0
    curve = json.loads((tmp_path / "brain/card.json").read_text())
    assert curve["architecture"]["state_size"] == 1


def test_pusher_goes_from_the_door_to_a_brain_also_beside_the_tabletop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pusher, table_top, eyes = (str(tmp_path / name) for name in ("pusher", "tabletop", "eyes"))
    words = ["steps_per_episode=8", "workers=1"]
    assert premotor.main(["collect", "env=gymnasium", "env.id=Pusher", "env.repeat=auto", "episodes=4", f"out={pusher}",
                          *words]) == 0  # fmt: skip
    said = capsys.readouterr().out
    assert "Pusher-v5: 7 numbers to an action, 23 to the state; pictures front at 64 px; 5 a second, each" in said
    recipe = json.loads((Path(pusher) / "meta/collection.json").read_text())
    assert set(recipe["env"]["versions"]) == {"gymnasium", "mujoco"}
    assert premotor.main(["collect", "episodes=2", f"out={table_top}", *words]) == 0
    assert premotor.main(["pretrain", f"data=[{table_top},{pusher}]", f"out={eyes}", *SMALL]) == 0
    brain = str(tmp_path / "brain")
    assert premotor.main(["adapt", f"data={pusher}", f"encoder={eyes}", f"out={brain}", *SMALL]) == 0
    card = json.loads((tmp_path / "brain/card.json").read_text())
    assert (card["architecture"]["state_size"], card["architecture"]["action_size"]) == (23, 7)
    assert card["action_space"]["rate_hz"] == 5
