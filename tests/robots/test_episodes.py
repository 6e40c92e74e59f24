"""Runs become a dataset: executed and requested actions both, over many runs, killed at will, learned from."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import premotor
from envs.lerobot_files import finished_episodes
from planners import Rollout, StepRecord
from robots.arm import JointTarget
from robots.episodes import EpisodeRecorder, overshooting
from robots.limits import Limits
from robots.recorder import executed
from robots.simulated import MujocoArm
from robots.stream import path
from worldmodel.dataset_files import open_recording
from worldmodel.interface import TABLETOP

SPACE = TABLETOP


def seen(number: int, x: float = 0.4, size: tuple[int, int] = (48, 64)) -> dict[str, np.ndarray]:
    """An observation of an arm with 6 joints and a wide camera picture."""
    picture = np.full((*size, 3), 10 * number, np.uint8)
    state = np.array([x, 0.0, 0.2, np.pi, 0.0, 0.0, 0.5], np.float32)
    return {
        "observation.images.front": picture,
        "observation.state": state,
        "observation.joints": np.zeros(6, np.float32),
    }


def record(root: Path, steps: int = 3, dx: float = 0.01, robot: str = "so101", **more: object) -> int | None:
    with EpisodeRecorder(root, SPACE, robot, **more) as recorder:  # type: ignore[arg-type]
        recorder.begin("push the block")
        for step in range(steps):
            recorder.add(seen(step, 0.4 + dx * step), np.array([0.02, 0, 0, 0, 0, 0, 0]))
        return recorder.end(seen(steps, 0.4 + dx * steps), success=True)


def test_what_was_done_and_what_was_asked_for(tmp_path: Path) -> None:
    assert record(tmp_path / "mine", steps=3, dx=0.01) == 0
    assert record(tmp_path / "mine", steps=2, dx=0.02) == 1
    recording = open_recording(tmp_path / "mine")
    assert recording.lengths.tolist() == [4, 3]
    assert recording.vector("action")[:, 0] == pytest.approx([0.01, 0.01, 0.01, 0, 0.02, 0.02, 0], abs=1e-6)
    assert recording.vector("action.requested")[:, 0] == pytest.approx([0.02] * 3 + [0] + [0.02] * 2 + [0], abs=1e-6)
    assert recording.names("action") == list(SPACE.names)
    assert recording.info["features"]["observation.images.front"]["shape"] == [48, 48, 3]
    episodes = pq.read_table(tmp_path / "mine/meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [row["success"] for row in episodes] == [1, 1]
    assert [row["tasks"] for row in episodes] == [["push the block"]] * 2


def test_overshooting_is_cut_for_the_model_and_kept_beside(tmp_path: Path) -> None:
    record(tmp_path / "mine", dx=0.09)
    recording = open_recording(tmp_path / "mine")
    assert recording.vector("action")[:3, 0] == pytest.approx([0.05] * 3)
    assert recording.vector("action.executed")[:3, 0] == pytest.approx([0.09] * 3, abs=1e-6)
    row = pq.read_table(tmp_path / "mine/meta/episodes/chunk-000/file-000.parquet").to_pylist()[0]
    assert "3 steps went beyond the model's actions, one by 80 %" in overshooting(row)
    assert overshooting({"overshot": 1, "overshot_most": 0.1}) == ""


def test_where_nobody_asked_what_was_done_stands_in(tmp_path: Path) -> None:
    with EpisodeRecorder(tmp_path / "mine", SPACE, "panda") as recorder:
        recorder.begin("by hand")
        recorder.add(seen(0, 0.40), np.full(7, np.nan))
        recorder.end(seen(1, 0.43))
    recording = open_recording(tmp_path / "mine")
    assert recording.vector("action.requested")[0] == pytest.approx(recording.vector("action")[0])


def test_an_episode_without_a_step_is_none(tmp_path: Path) -> None:
    with EpisodeRecorder(tmp_path / "mine", SPACE, "panda") as recorder:
        recorder.begin("nothing")
        assert recorder.end(seen(0)) is None
        assert recorder.end(seen(0)) is None
        with pytest.raises(ValueError, match="begin an episode"):
            recorder.add(seen(0), np.zeros(7))
    assert not (tmp_path / "mine/meta").exists()


def test_a_rollout_becomes_an_episode(tmp_path: Path) -> None:
    rollout = Rollout({"task": "reach"}, {})
    states = [0.40, 0.42, 0.45]
    for number, x in enumerate(states[:-1]):
        before, after = seen(number, x), seen(number + 1, states[number + 1])
        done = executed(before["observation.state"], after["observation.state"])
        rollout.steps.append(StepRecord(0.2 * number, before, np.zeros(7, np.float32), done, 1.0))
    rollout.final = seen(2, states[-1])
    rollout.outcome = {"success": False}
    with EpisodeRecorder(tmp_path / "mine", SPACE, "panda") as recorder:
        assert recorder.add_rollout(rollout) == 0
    done = open_recording(tmp_path / "mine").vector("action")
    assert done[:2] == pytest.approx(np.stack([step.executed for step in rollout.steps]))


def test_other_arms_rates_and_folders_are_refused(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    record(mine)
    with pytest.raises(ValueError, match="a recording of so101, not panda"):
        EpisodeRecorder(mine, SPACE, "panda")
    with pytest.raises(ValueError, match="a recording with pictures of 48, not 64"):
        EpisodeRecorder(mine, SPACE, "so101", image_size=64)
    with pytest.raises(ValueError, match="no arm recorded"):
        EpisodeRecorder(Path(premotor.__file__).parent / "robots", SPACE, "panda")
    with pytest.raises(ValueError, match="is a file"):
        EpisodeRecorder(mine / "meta/info.json", SPACE, "panda")
    with (
        EpisodeRecorder(mine, SPACE, "so101"),
        pytest.raises(ValueError, match="another collection is writing into"),
    ):
        EpisodeRecorder(mine, SPACE, "so101")
    with EpisodeRecorder(mine, SPACE, "so101") as recorder:
        recorder.begin("x")
        recorder.add({**seen(0), "observation.joints": np.zeros(7, np.float32)}, np.zeros(7))
        with pytest.raises(ValueError, match="joints"):
            recorder.end({**seen(1), "observation.joints": np.zeros(7, np.float32)})
    assert record(mine) == 1  # nothing half-written is in the way


def test_killed_at_any_moment_earlier_episodes_stay(tmp_path: Path) -> None:
    root, done = tmp_path / "mine", 0
    for wait_s in (0.5, 0.37, 0.23):
        child = os.fork()
        if child == 0:  # records for ever, one episode after the other
            while True:
                record(root, steps=4)
        time.sleep(wait_s)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        before = finished_episodes(root)
        with EpisodeRecorder(root, SPACE, "so101") as recorder:
            assert recorder.episodes >= before >= done
            done = recorder.episodes
        assert record(root, steps=4) == done
        done += 1
    assert done > 6
    assert open_recording(root).lengths.tolist() == [5] * done


# -- a simulated arm, and learning from it -----------------------------------------------------------------------------


def drive(arm: MujocoArm, recorder: EpisodeRecorder, steps: int, rng: np.random.Generator) -> None:
    """Small random movements through the streamer, recorded step by step."""
    limits = Limits.load()
    held = arm.hold()
    recorder.begin("play")
    for _ in range(steps):
        before = arm.observe().observation
        action = rng.uniform(-0.02, 0.02, 7) * [1, 1, 1, 0, 0, 0, 10]
        recorder.add(before, action)
        position, rotation = arm.kinematics.forward(held.joints)
        joints = arm.kinematics.solve(held.joints, position + action[:3], rotation)
        target = JointTarget.still(joints, float(np.clip(held.gripper + action[6], 0, 1)))
        for tick in path(held, target, limits.period_s, arm.rate_hz, limits.bounds):
            arm.command(tick)
        held = target
    recorder.end(arm.observe().observation)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of a simulated arm in one dataset."""
    root = tmp_path_factory.mktemp("data") / "mine"
    rng = np.random.default_rng(0)
    for seed in (1, 2):
        arm = MujocoArm(seed=seed)
        arm.connect()
        with arm, EpisodeRecorder(root, SPACE, arm.name) as recorder:
            drive(arm, recorder, 12, rng)
    return root


def test_two_runs_of_a_simulated_arm(recorded: Path) -> None:
    recording = open_recording(recorded)
    assert recording.lengths.tolist() == [13, 13]
    asked, done = recording.vector("action.requested"), recording.vector("action")
    # Asked and done are near each other and not the same.
    assert 1e-5 < np.abs(asked[:, :3] - done[:, :3]).max() < 0.02
    assert np.corrcoef(asked[:, 0], done[:, 0])[0, 1] > 0.9


@pytest.mark.slow
def test_what_was_recorded_is_learned_from(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`premotor adapt` on it, and LeRobot itself reads it."""
    monkeypatch.chdir(tmp_path)
    words = (f"data={recorded}", "steps=3", "batch=4", "evaluate_every=3", "device=cpu", "threads=1", "out=learned")
    assert premotor.main(["adapt", *words]) == 0
    assert (tmp_path / "learned").is_dir()
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    read = LeRobotDataset("mine", root=recorded, video_backend="pyav")
    assert (read.num_episodes, len(read)) == (2, 26)
    frame = read[3]
    assert frame["observation.images.front"].shape == (3, 64, 64)
    assert frame["action.requested"].shape == (7,)
    assert frame["task"] == "play"
