"""The SO-101's task: a goal it can come to, play that a brain can learn from, and a run that ends parked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from envs import so101
from envs.tabletop import ACTION_NAMES
from robots import connect
from robots.emulated import scene
from robots.emulated.lockstep import LockstepSO101
from robots.emulated.play import Guarded, episode, main
from robots.limits import Limits
from tests.robots.conftest import SMALL
from worldmodel.checkpoint import save
from worldmodel.corpus import fit_to_data
from worldmodel.interface import ActionSpace
from worldmodel.networks import Architecture, Networks

ROOT = Path(__file__).parents[2]
LIMITS = Limits.from_mapping(
    OmegaConf.to_container(OmegaConf.load(ROOT / "configs/guard/so101.yaml")),  # type: ignore[arg-type]
    "guard",
)


@pytest.mark.parametrize("seed", [10_000, 10_001, 10_002])
def test_a_goal_is_elsewhere_and_straight_steps_through_the_guard_come_there(seed: int) -> None:
    with connect("so101_lockstep", seed=seed, joints="scene") as arm:
        assert isinstance(arm, LockstepSO101)
        task = arm.scene
        goal, guarded = task.goal["observation.state"], Guarded(arm, LIMITS)
        done, start = task.judge()
        assert not done
        assert start > scene.APART_M - 0.02
        for _ in range(task.budget_steps):
            action = np.zeros(7)
            action[:3] = np.clip(goal[:3] - guarded.seen["observation.state"][:3], -0.03, 0.03)
            assert guarded.step(action) is not None
        done, distance = task.judge()
        assert done
        assert distance < 0.005
        # The pictures agree with the judge: what is seen there is the goal picture, but for noise.
        seen, wanted = (each["observation.images.front"].astype(float) for each in (guarded.seen, task.goal))
        assert np.abs(seen - wanted).mean() < 4.0
        np.testing.assert_array_equal(task.goal_picture(64).shape, (64, 64, 3))
        assert task.truth()[2] == pytest.approx(so101.BLOCK_HALF_M, abs=1e-3)


def test_seeds_choose_start_and_goal() -> None:
    (start, goal), (other_start, other_goal) = scene.poses(3), scene.poses(4)
    assert np.abs(start - other_start).max() > 0.01
    assert np.abs(goal - other_goal).max() > 0.01
    np.testing.assert_array_equal(scene.poses(3)[1], goal)


def test_play_is_a_dataset_with_the_guards_actions(tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path / "play"), "--episodes", "2", "--steps", "12"]) == 0
    architecture, space = fit_to_data({}, [str(tmp_path / "play")])
    np.testing.assert_allclose(space.low, LIMITS.action_low)
    np.testing.assert_allclose(space.high, LIMITS.action_high)
    assert space.rate_hz == 5.0
    assert architecture.image_size == 64
    from worldmodel.dataset_files import open_recording

    recording = open_recording(tmp_path / "play")
    assert recording.lengths.tolist() == [13, 13]
    action, state = recording.vector("action"), recording.vector("observation.state")
    moved = np.diff(state[:13], axis=0)[:, :3]
    cut = np.clip(moved, -0.03, 0.03)
    np.testing.assert_allclose(action[:12, :3], cut, atol=1e-5)  # what was done, not what was asked for
    # The orientation follows: what is learned of it is what was asked for, all over its tiny bounds.
    np.testing.assert_array_equal(action[:, 3:6], recording.vector("action.requested")[:, 3:6])
    assert np.abs(action[:, 3:6]).max() <= 0.001
    assert np.unique(action[:12, 3]).size > 6


@pytest.mark.slow
def test_play_is_the_same_again() -> None:
    (seen, asked), (again, same) = episode(1234, LIMITS, 4), episode(1234, LIMITS, 4)
    np.testing.assert_array_equal(asked, same)
    np.testing.assert_array_equal(seen[-1]["observation.images.front"], again[-1]["observation.images.front"])
    assert seen[-1]["observation.state"][2] > 0.01


def test_the_guard_lets_most_of_play_through() -> None:
    """Five joints cannot keep the orientation: that is no reason for a veto."""
    with LockstepSO101(10_004, "scene", camera_px=0) as arm:
        arm.connect()
        guarded, rng = Guarded(arm, LIMITS), np.random.default_rng(0)
        outcomes = []
        for _ in range(40):
            way = rng.uniform([0.16, -0.12, 0.05], [0.27, 0.12, 0.16]) - guarded.seen["observation.state"][:3]
            action = np.zeros(7)
            action[:3] = way / np.abs(way).max() * 0.03
            outcomes.append(guarded.step(action) is not None)
    assert np.mean(outcomes) > 0.95


@pytest.mark.slow
def test_from_a_goal_picture_to_a_parked_arm_through_lerobots_driver(tmp_path: Path) -> None:
    """Whatever a brain is worth, this one nothing: it plans for a picture, the arm moves, the run is recorded and parked."""
    torch.manual_seed(0)
    sizes = Architecture(features=32, keypoints=8, predictor_width=32, predictor_depth=2, head_width=32)
    space = ActionSpace(LIMITS.action_low, LIMITS.action_high, ACTION_NAMES, 1 / LIMITS.period_s)
    save(tmp_path / "untrained", Networks(sizes), space, {"name": "untrained"})
    out = tmp_path / "run"
    words = [
        "robot=so101_emulated",
        "guard=so101",
        f"model.name={tmp_path / 'untrained'}",
        "guard.uncertainty=1e9",
        *SMALL,
    ]
    words += [
        "goal=scene",
        "seed=10000",
        "steps=4",
        "guard.planner_deadline_s=5",
        f"out={out}",
        f"record={tmp_path / 'kept'}",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "premotor", "run", *words], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    results = json.loads((out / "results.json").read_text())
    assert results["passed"] + results["clamped"] + results["vetoed"] == 4
    assert 0.0 < results["final_distance_cm"] < 60.0
    kinds = [json.loads(line) for line in (out / "blackbox.jsonl").read_text().splitlines()]
    stages = [line["stage"] for line in kinds if line["kind"] == "stop"]
    assert stages == ["held", "parked", "released"]
    assert json.loads((tmp_path / "kept/meta/info.json").read_text())["total_frames"] == 5
