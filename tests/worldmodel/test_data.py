"""Windows come straight from a LeRobotDataset, and bad datasets get one sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.worldmodel.conftest import picture_of, record
from worldmodel.data import DatasetError, Episodes
from worldmodel.interface import TABLETOP


def test_windows_hold_what_was_recorded(tiny_dataset) -> None:
    episodes = Episodes([tiny_dataset], ("front",), TABLETOP)
    training, held_out = episodes.split(0.2, 0)
    assert not set(training.tolist()) & set(held_out.tolist())
    windows = episodes.draw(training, 16, 4, 8, torch.Generator().manual_seed(0))
    assert windows.pictures.shape == (16, 5, 1, 32, 32, 3)
    assert windows.actions.shape == (16, 4, 7)
    assert windows.later_actions[:, :4].equal(windows.actions)
    assert windows.actions.abs().max() <= 1.001
    assert (windows.goal_steps >= 1).all()
    for n in range(4):
        expected = picture_of(windows.states[n, 0, :2].numpy()).astype(float)
        assert np.abs(windows.pictures[n, 0, 0].numpy() - expected).mean() < 12


def test_the_same_generator_draws_the_same_windows(tiny_dataset) -> None:
    episodes = Episodes([tiny_dataset], ("front",), TABLETOP)
    drawn = [episodes.draw(torch.arange(8), 8, 3, 5, torch.Generator().manual_seed(3)).pictures for _ in range(2)]
    assert drawn[0].equal(drawn[1])


def test_a_twin_is_of_another_episode_of_the_scene_with_the_arm_in_place(tiny_dataset) -> None:
    episodes = Episodes([tiny_dataset], ("front",), TABLETOP)
    episodes.scenes = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    at = episodes.choose(torch.arange(8), 64, 3, 5, torch.Generator().manual_seed(0))
    owner, of_twin = (
        torch.bucketize(frames, episodes.starts, right=True) - 1 for frames in (at.window[:, 0].contiguous(), at.twin)
    )
    assert episodes.scenes[of_twin].equal(episodes.scenes[owner])
    assert (of_twin != owner).all()
    assert (at.goal_steps >= 1).all()
    assert (at.goal <= at.last).all()

    def apart(frames: torch.Tensor) -> torch.Tensor:
        own = episodes.states[torch.cat([at.window, at.goal[:, None]], 1), :3]
        return (own - episodes.states[frames, None, :3]).norm(dim=-1).amin(1)

    anyone = torch.randint(len(episodes.pictures), (64,), generator=torch.Generator().manual_seed(1))
    assert apart(at.twin).mean() < 0.5 * apart(anyone).mean()


def test_the_twin_of_an_echoed_motion_is_mostly_its_echo_s_same_moment(tiny_dataset) -> None:
    episodes = Episodes([tiny_dataset], ("front",), TABLETOP)
    episodes.motions = torch.tensor([0, 0, 1, 1, 2, 2, 3, 4])
    at = episodes.choose(torch.arange(8), 256, 3, 5, torch.Generator().manual_seed(0))
    first = at.window[:, 0].contiguous()
    owner, of_twin = (torch.bucketize(frames, episodes.starts, right=True) - 1 for frames in (first, at.twin))
    echoed = (episodes.motions[owner] == episodes.motions[of_twin]) & (owner != of_twin)
    moment = at.twin - episodes.starts[of_twin]
    anchors = torch.cat([at.window, at.goal[:, None]], 1) - episodes.starts[owner][:, None]
    assert 0.4 < echoed[owner < 6].float().mean() < 0.8
    assert not echoed[owner >= 6].any()
    # The few others were found as the nearest moment of the scene.
    assert (moment[echoed, None] == anchors[echoed]).any(1).float().mean() > 0.8


def test_a_scene_with_one_episode_still_gives_windows(tiny_dataset) -> None:
    episodes = Episodes([tiny_dataset], ("front",), TABLETOP)
    episodes.scenes = torch.arange(8)
    windows = episodes.draw(torch.arange(8), 9, 3, 5, torch.Generator().manual_seed(3))
    assert windows.twin_pictures.shape == windows.goal_pictures.shape == (9, 1, 32, 32, 3)
    assert windows.twin_states.shape == windows.goal_states.shape == (9, 7)


def test_of_many_scenes_whole_ones_are_held_out(tiny_dataset) -> None:
    episodes = Episodes([tiny_dataset] * 10, ("front",), TABLETOP)
    assert episodes.scenes.max() == 9
    episodes.scenes = torch.arange(80) // 2
    training, held_out = episodes.split(0.1, 0)
    assert not set(episodes.scenes[training].tolist()) & set(episodes.scenes[held_out].tolist())
    assert len(training) + len(held_out) == 80
    assert len(held_out) == 8


def test_two_datasets_make_one(tiny_dataset) -> None:
    both = Episodes([tiny_dataset, tiny_dataset], ("front",), TABLETOP)
    assert len(both) == 16
    assert len(both.pictures) == 2 * 8 * 14


@pytest.fixture
def copy(tiny_dataset: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_dataset, tmp_path / "copy", ignore=shutil.ignore_patterns(".decoded"))
    return tmp_path / "copy"


def rewrite_column(root: Path, name: str, change) -> None:
    path = next((root / "data").glob("chunk-*/*.parquet"))
    table = pq.read_table(path)
    values = change(np.stack(table[name].to_numpy()))
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), pa.float32()), values.shape[1])
    pq.write_table(table.set_column(table.column_names.index(name), name, column), path)


def poke(value: float):
    def change(values: np.ndarray) -> np.ndarray:
        values = values.copy()
        values[20, 2] = value
        return values

    return change


def test_nan_in_a_state_is_refused_with_its_place(copy) -> None:
    rewrite_column(copy, "observation.state", poke(np.nan))
    with pytest.raises(DatasetError, match=r"observation\.state has NaN or infinity in dimension 2 of episode 1"):
        Episodes([copy], ("front",), TABLETOP)


def test_an_action_out_of_bounds_is_refused(copy) -> None:
    rewrite_column(copy, "action", poke(0.4))
    with pytest.raises(DatasetError, match=r"action dz is 0\.4 in frame 20, outside"):
        Episodes([copy], ("front",), TABLETOP)


def test_a_truncated_table_is_refused(copy) -> None:
    path = next((copy / "data").glob("chunk-*/*.parquet"))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DatasetError, match="truncated or damaged"):
        Episodes([copy], ("front",), TABLETOP)


def test_a_truncated_video_is_refused_and_leaves_no_cache(copy) -> None:
    path = next((copy / "videos").glob("**/*.mp4"))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DatasetError, match="truncated or no video"):
        Episodes([copy], ("front",), TABLETOP)
    assert not list((copy / ".decoded").glob("*"))


def test_lost_rows_are_noticed(copy) -> None:
    info = json.loads((copy / "meta/info.json").read_text())
    info["total_frames"] += 5
    (copy / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(DatasetError, match="promises 117 frames"):
        Episodes([copy], ("front",), TABLETOP)


def test_foreign_folders_and_missing_cameras_are_named(tiny_dataset, tmp_path) -> None:
    with pytest.raises(DatasetError, match=r"no finished LeRobotDataset"):
        Episodes([tmp_path], ("front",), TABLETOP)
    with pytest.raises(DatasetError, match=r"has no observation\.images\.wrist; it has observation\.images\.front"):
        Episodes([tiny_dataset], ("wrist",), TABLETOP)


def test_another_action_size_is_refused(tmp_path) -> None:
    root = record(tmp_path / "six", episodes=1, length=4, action_size=6)
    with pytest.raises(DatasetError, match="actions of 6 numbers; the action space has 7"):
        Episodes([root], ("front",), TABLETOP)
