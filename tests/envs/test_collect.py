"""`premotor collect` end to end: real play in real processes, read by LeRobot's own reader."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from omegaconf import OmegaConf

import envs
from envs.collect import Collected, Recipe, collect, main, play_episode
from envs.play import make_policy

assert envs
RECIPE = Recipe(
    env_id="premotor/Tabletop-v0",
    env={"cameras": ["front"], "image_size": 64, "variation": "standard"},
    policy="mixed",
    episodes=6,
    steps_per_episode=6,
    seed=11,
)
FRAMES = RECIPE.steps_per_episode + 1


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted collection by two workers."""
    root = tmp_path_factory.mktemp("collected") / "dataset"
    done = collect(RECIPE, root, workers=2)
    assert (done.played, done.kept, done.frames) == (6, 0, 6 * FRAMES)
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def configuration(root: Path, **changes: Any) -> Any:
    settings = {
        "env": {"id": RECIPE.env_id, **RECIPE.env},
        "policy": RECIPE.policy,
        "episodes": RECIPE.episodes,
        "steps_per_episode": RECIPE.steps_per_episode,
        "seed": RECIPE.seed,
        "episodes_per_scene": RECIPE.episodes_per_scene,
        "episodes_per_motion": RECIPE.episodes_per_motion,
        "workers": 2,
        "out": str(root),
    }
    return OmegaConf.create(settings | changes)


def read(root: Path, **options: Any) -> Any:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset("local/test", root=root, return_uint8=True, **options)


def test_lerobot_reads_what_was_seen_and_done(dataset: Path) -> None:
    """Every frame of an episode against the same episode played again here."""
    read_back = read(dataset)
    assert (read_back.fps, read_back.num_episodes, len(read_back)) == (5, 6, 6 * FRAMES)
    assert read_back.meta.features["action"]["names"][:3] == ["dx", "dy", "dz"]
    assert read_back.meta.features["observation.state"]["names"][-1] == "gripper"
    world = gymnasium.make(RECIPE.env_id, disable_env_checker=True, **RECIPE.env, with_goal=False).unwrapped
    played = play_episode(world, RECIPE, 4)
    world.close()
    for step in range(FRAMES):
        frame = read_back[4 * FRAMES + step]
        assert frame["episode_index"] == 4
        assert frame["frame_index"] == step
        assert frame["timestamp"] == pytest.approx(step / 5)
        assert frame["task"] == "play: mixed"
        for name, values in played.vectors.items():
            assert np.array_equal(frame[name].numpy(), values[step]), name
        picture = frame["observation.images.front"].permute(1, 2, 0).numpy().astype(int)
        assert np.abs(picture - played.frames["front"][step]).mean() < 4.0
        assert np.abs(picture - played.frames["front"][step - 1]).max() > 8 or step == 0


def test_lerobot_cuts_windows(dataset: Path) -> None:
    windows = read(dataset, delta_timestamps={"observation.images.front": [0.0, 0.2], "action": [0.0, 0.2]})
    last = windows[FRAMES - 1]
    assert last["observation.images.front"].shape == (2, 3, 64, 64)
    assert last["action_is_pad"].tolist() == [False, True]


def test_requested_and_executed_actions_are_both_there(dataset: Path) -> None:
    """Executed at t is the change measured from t to t + 1; an episode's last frame has none."""
    columns = read(dataset).hf_dataset.with_format("numpy")
    state, wanted, done = (
        np.stack(columns[name]).reshape(6, FRAMES, 7) for name in ("observation.state", "action", "action.executed")
    )
    assert np.allclose(np.diff(state[..., :3], axis=1), done[:, :-1, :3], atol=1e-6)
    assert np.allclose(np.diff(state[..., 6], axis=1), done[:, :-1, 6], atol=1e-6)
    assert not np.allclose(wanted, done, atol=1e-3)
    assert not wanted[:, -1].any()
    assert not done[:, -1].any()


def test_the_table_of_episodes_says_where_each_came_from(dataset: Path) -> None:
    rows = [read(dataset).meta.episodes[index] for index in range(6)]
    assert len({row["seed"] for row in rows}) == 6
    assert {(row["policy"], row["simulator"], row["length"]) for row in rows} == {("mixed", "mujoco", FRAMES)}
    assert json.loads((dataset / "meta/collection.json").read_text())["seed"] == RECIPE.seed


def test_killed_and_resumed_with_another_number_of_workers_it_is_the_same(dataset: Path, tmp_path: Path) -> None:
    root = tmp_path / "killed"
    script = (
        "import sys; from pathlib import Path; from envs.collect import Recipe, collect\n"
        f"collect(Recipe(**{RECIPE.__dict__!r}), Path(sys.argv[1]), workers=1)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(root)], start_new_session=True, stdout=subprocess.DEVNULL
    )
    stage = root / ".episodes"
    deadline = time.monotonic() + 60
    while len(list(stage.glob("episode-*"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while _alive(process.pid):  # its worker follows it
        assert time.monotonic() < deadline
        time.sleep(0.05)
    kept = sorted(stage.glob("episode-*"))
    assert 2 <= len(kept) < RECIPE.episodes
    kept[0].write_bytes(kept[0].read_bytes()[:1000])  # what a disk may do on top
    done = collect(RECIPE, root, workers=2)
    assert done.kept == len(kept) - 1
    assert contents(root) == contents(dataset)


def _alive(session: int) -> bool:
    """Whether a process of that session is left (a zombie does not count)."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            return True
    return False


def test_complete_says_so_and_changes_nothing(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(dataset)
    assert main(configuration(dataset)) == 0
    assert "complete already" in capsys.readouterr().out
    assert main(configuration(dataset, episodes=2)) == 0
    assert "6 episodes" in capsys.readouterr().out
    assert contents(dataset) == before


def test_more_episodes_continue_a_finished_dataset(dataset: Path, tmp_path: Path) -> None:
    root = tmp_path / "grown"
    shutil.copytree(dataset, root)
    assert main(configuration(root, episodes=7, workers=1)) == 0
    grown = read(root)
    assert (grown.num_episodes, len(grown)) == (7, 7 * FRAMES)
    assert grown[6 * FRAMES]["observation.images.front"].float().mean() > 10
    assert grown.meta.episodes[6]["dataset_from_index"] == 6 * FRAMES
    first = "data/chunk-000/file-000.parquet"
    assert (root / first).read_bytes() == (dataset / first).read_bytes()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"policy": "dance"}, "no play policy is called 'dance'; known are random"),
        ({"episodes": 0}, "episodes is 0; it must be at least 1"),
        ({"episodes": "many"}, "episodes=many is not a whole number"),
        ({"steps_per_episode": -1}, "steps_per_episode is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"workers": 0}, "workers is 0"),
        ({"out": None}, "out=DIR"),
    ],
)
def test_bad_settings_are_refused_with_nothing_written(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    root = tmp_path / "new"
    with pytest.raises(ValueError, match=sentence):
        main(configuration(root, **changes))
    assert not root.exists()


def test_what_is_not_ours_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="no collection of ours; choose another out="):
        collect(RECIPE, tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        collect(RECIPE, tmp_path / "thesis.tex")
    with pytest.raises(ValueError, match="cannot be made"):
        collect(RECIPE, tmp_path / "thesis.tex" / "inside")
    assert contents(tmp_path) == {"thesis.tex": b"years of work"}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (replace(RECIPE, seed=12), "collected with seed=11, not 12"),
        (replace(RECIPE, env={**RECIPE.env, "image_size": 96}), "collected with env.image_size=64, not 96"),
        (replace(RECIPE, env={**RECIPE.env, "simulator": "pybullet"}), "env.simulator=mujoco, not pybullet"),
    ],
)
def test_two_recipes_do_not_mix(dataset: Path, changed: Recipe, sentence: str) -> None:
    before = contents(dataset)
    with pytest.raises(ValueError, match=sentence):
        collect(changed, dataset)
    assert contents(dataset) == before


def test_saying_a_default_makes_no_other_recipe(dataset: Path) -> None:
    spoken = replace(RECIPE, env={**RECIPE.env, "task": "push", "simulator": "mujoco"})
    assert collect(spoken, dataset).played == 0


def test_two_collections_do_not_write_into_one_folder(dataset: Path) -> None:
    other = os.open(dataset, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    try:
        with pytest.raises(ValueError, match="another collection is writing"):
            collect(RECIPE, dataset)
    finally:
        os.close(other)


def test_a_damaged_file_of_a_finished_dataset_is_named(dataset: Path, tmp_path: Path) -> None:
    root = tmp_path / "damaged"
    shutil.copytree(dataset, root)
    video = root / "videos/observation.images.front/chunk-000/file-000.mp4"
    video.write_bytes(video.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"file-000.mp4 is damaged; restore it, or delete"):
        collect(RECIPE, root)


def test_a_world_that_cannot_be_made_is_said_and_can_be_corrected(tmp_path: Path) -> None:
    wrong = replace(RECIPE, episodes=1, env={**RECIPE.env, "cameras": ["ceiling"]})
    with pytest.raises(RuntimeError, match=r"episode 0 could not be collected .* no camera is called 'ceiling'"):
        collect(wrong, tmp_path, workers=1)
    done = collect(replace(RECIPE, episodes=1), tmp_path, workers=1)
    assert isinstance(done, Collected)
    assert done.played == 1


def test_episodes_of_one_scene_look_alike_and_lie_elsewhere() -> None:
    env = gymnasium.make(RECIPE.env_id, disable_env_checker=True, with_goal=False, image_size=64).unwrapped
    recipe = replace(RECIPE, episodes_per_scene=2, steps_per_episode=1)
    scenes = []
    for index in range(4):
        play_episode(env, recipe, index)
        scenes.append(env.world.scene)  # pyright: ignore[reportAttributeAccessIssue]
    env.close()
    looks = [(scene.object_color, scene.object_half, scene.light_strength) for scene in scenes]
    assert looks[0] == looks[1] != looks[2] == looks[3]
    assert len({scene.object_position for scene in scenes}) == 4


def test_an_echo_has_its_leader_s_motion_and_the_object_elsewhere() -> None:
    recipe = replace(RECIPE, episodes_per_scene=4, episodes_per_motion=2, steps_per_episode=8)
    env = gymnasium.make(RECIPE.env_id, disable_env_checker=True, **RECIPE.env, with_goal=False).unwrapped
    led = play_episode(env, recipe, 2)
    echo, alone = play_episode(env, recipe, 3, led), play_episode(env, recipe, 3)
    other = play_episode(env, recipe, 0)
    env.close()
    for name, values in echo.vectors.items():
        assert np.array_equal(values, alone.vectors[name]), name
    assert np.array_equal(echo.vectors["action"], led.vectors["action"])
    tool, thing = ("observation.state", slice(3)), ("observation.environment_state", slice(3))
    assert np.abs(echo.vectors[tool[0]] - led.vectors[tool[0]])[:, tool[1]].max() < 0.02
    assert np.linalg.norm((echo.vectors[thing[0]] - led.vectors[thing[0]])[0, thing[1]]) > 0.01
    assert not np.allclose(other.vectors["action"], led.vectors["action"])


def test_echoes_are_the_same_after_an_interruption(tmp_path: Path) -> None:
    """Only a leader's echo is missing: it is played as if nothing had happened."""
    recipe = replace(RECIPE, episodes=4, episodes_per_scene=2, episodes_per_motion=2, steps_per_episode=3)
    collect(recipe, tmp_path / "whole", workers=1)
    collect(replace(recipe, episodes=3), tmp_path / "grown", workers=1)
    assert collect(recipe, tmp_path / "grown", workers=1).played == 1
    whole, grown = (read(tmp_path / name)[15]["observation.state"] for name in ("whole", "grown"))
    assert whole.equal(grown)


def test_a_motion_that_would_span_scenes_is_refused() -> None:
    with pytest.raises(ValueError, match="no multiple of episodes_per_motion=2"):
        replace(RECIPE, episodes_per_scene=3, episodes_per_motion=2)


@pytest.mark.parametrize("simulator", ["mujoco", pytest.param("pybullet", marks=pytest.mark.slow)])
def test_play_that_regrasps_ends_up_holding_more(simulator: str) -> None:
    """Of the same scenes, under the same noise: what was missed or lost is grasped again."""
    seeds = range(200, 212)
    lifted = {policy: sum(_lifts(policy, simulator, seed) for seed in seeds) for policy in ("pick", "regrasp")}
    assert lifted["regrasp"] >= lifted["pick"]
    assert lifted["regrasp"] >= 10


def test_play_that_mends_goes_round_and_puts_right() -> None:
    """Of the same scenes: how often the object is a few centimetres off with the arm near, and some steps later it is not."""
    seeds = range(200, 212)
    mended = {policy: sum(_mended(policy, seed) for seed in seeds) for policy in ("mixed", "mend")}
    assert mended["mend"] > 1.5 * mended["mixed"] > 0


def _mended(policy: str, seed: int) -> int:
    env = gymnasium.make("premotor/Tabletop-v0", task="push", with_goal=False, disable_env_checker=True)
    env.reset(seed=seed)
    act, world = make_policy(policy, env, np.random.default_rng(seed)), env.unwrapped.world
    tools, things = [], []
    for _ in range(40):
        env.step(act())
        tools.append(world.tool_position().copy())
        things.append(world.object_pose()[:3].copy())
    env.close()
    tool, thing = np.stack(tools), np.stack(things)
    on_table = thing[:, 2] < thing[:, 2].min() + 0.01
    moved = np.linalg.norm(thing[:, None] - thing, axis=-1)
    touching = np.linalg.norm(tool - thing, axis=-1) < 0.055
    near = np.linalg.norm(tool[:, None] - tool, axis=-1) < 0.07
    later = np.arange(40)[None] - np.arange(40)[:, None]
    pairs = (moved > 0.025) & (moved < 0.06) & near & (later >= 7) & (later < 28)
    return int((pairs & touching[None] & on_table[None] & on_table[:, None]).sum())


def _lifts(policy: str, simulator: str, seed: int) -> bool:
    env = gymnasium.make("premotor/Tabletop-v0", task="lift", simulator=simulator, disable_env_checker=True)
    env.reset(seed=seed)
    act, world = make_policy(policy, env, np.random.default_rng(seed)), env.unwrapped.world
    high = 0
    for _ in range(48):
        env.step(act())
        high += world.object_pose()[2] > 0.06
    env.close()
    return high > 4
