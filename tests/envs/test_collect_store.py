"""Episodes on disk: nothing damaged passes for whole, and finishing can be interrupted anywhere."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.episode_store import Episode, Layout, keep_whole, read_staged, stage, staged_paths
from envs.lerobot_files import check_files, finish, finished_episodes

LAYOUT = Layout(("front", "wrist"), 64, 5, {"observation.state": ("x", "y"), "action": ("dx",)})


def episode(index: int, length: int = 4, task: str = "play") -> Episode:
    rng = np.random.default_rng(index)
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    picture = np.broadcast_to(ramp[None, :, None], (length, 64, 64, 3)).copy()
    picture[:, :16] = rng.integers(255, size=3)
    return Episode(
        index=index,
        task=task,
        frames={"front": picture, "wrist": picture[:, ::-1].copy()},
        vectors={
            "observation.state": rng.normal(size=(length, 2)).astype(np.float32),
            "action": rng.normal(size=(length, 1)).astype(np.float32),
        },
        about={"seed": index + 100},
    )


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def staged_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("staged")
    stage(root, LAYOUT, episode(3))
    return staged_paths(root)[3]


def test_a_staged_episode_reads_back(staged_file: Path) -> None:
    table, notes = read_staged(staged_file, LAYOUT)
    assert np.array_equal(np.stack(table["action"].to_numpy()), episode(3).vectors["action"])
    assert notes["task"] == "play"
    assert notes["about"] == {"seed": 103}
    assert notes["stats"]["observation.images.front"]["count"] == [4]


@settings(deadline=None)
@given(st.data())
def test_no_changed_or_missing_byte_goes_unnoticed(staged_file: Path, data: st.DataObject) -> None:
    original = staged_file.read_bytes()
    at = data.draw(st.integers(0, len(original) - 1))
    damaged = data.draw(
        st.sampled_from([original[:at], original[:at] + bytes([original[at] ^ 0x10]) + original[at + 1 :]])
    )
    copy = staged_file.parent.parent / staged_file.name
    copy.write_bytes(damaged)
    with pytest.raises(ValueError, match="damaged"):
        read_staged(copy, LAYOUT)


def test_only_whole_episodes_are_kept(tmp_path: Path) -> None:
    for index in range(3):
        stage(tmp_path, LAYOUT, episode(index))
    path = staged_paths(tmp_path)[1]
    path.write_bytes(path.read_bytes()[:-20])
    (path.parent / ".episode-000007-00000000.parquet.1.part").write_bytes(b"half")
    assert keep_whole(tmp_path, LAYOUT) == {0, 2}
    assert len(list(path.parent.iterdir())) == 2


def test_nan_is_refused_with_nothing_written(tmp_path: Path) -> None:
    broken = episode(0)
    broken.vectors["action"][2] = np.nan
    with pytest.raises(ValueError, match="episode 0: action has NaN"):
        stage(tmp_path, LAYOUT, broken)
    assert contents(tmp_path) == {}


class Killed(BaseException):
    pass


def test_finishing_can_be_killed_at_any_file_and_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while a finished dataset grows: up to the last moment it is what it was, afterwards all of it is there."""
    monkeypatch.setattr("envs.lerobot_files.FRAMES_PER_FILE", 8)
    before, staged, whole = (tmp_path / name for name in ("before", "staged", "whole"))
    for index in range(3):
        stage(before, LAYOUT, episode(index))
    finish(before, LAYOUT, 3, "panda")
    shutil.copytree(before, staged)
    for index in range(3, 7):
        stage(staged, LAYOUT, episode(index, length=3 + index % 2, task=f"play {index % 2}"))
    shutil.copytree(staged, whole)
    assert finish(whole, LAYOUT, 7, "panda") == 3 * 4 + 2 * 4 + 2 * 3
    rename = os.replace
    kills = 0
    while True:
        root = tmp_path / f"killed{kills}"
        shutil.copytree(staged, root)
        left = kills

        def replace_or_die(source: Path, target: Path) -> None:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            rename(source, target)

        monkeypatch.setattr(os, "replace", replace_or_die)
        try:
            finish(root, LAYOUT, 7, "panda")
        except Killed:
            monkeypatch.setattr(os, "replace", rename)
        else:
            break
        assert finished_episodes(root) == 3
        check_files(root, LAYOUT)
        finish(root, LAYOUT, 7, "panda")
        assert contents(root) == contents(whole)
        kills += 1
    # Two groups of (data, two cameras), then episodes, tasks, statistics and info.
    assert kills == 2 * 3 + 4


def test_the_statistics_are_those_lerobot_computes(tmp_path: Path) -> None:
    from lerobot.datasets.compute_stats import aggregate_stats

    episodes = [episode(index, length=3 + index) for index in range(3)]
    notes = []
    for one in episodes:
        stage(tmp_path, LAYOUT, one)
        notes.append(read_staged(staged_paths(tmp_path)[one.index], LAYOUT)[1]["stats"])
    finish(tmp_path, LAYOUT, 3, "panda")
    ours = json.loads((tmp_path / "meta/stats.json").read_text())
    as_arrays = [{f: {k: np.array(v) for k, v in stats.items()} for f, stats in note.items()} for note in notes]
    for feature, stats in aggregate_stats(as_arrays).items():
        for name, value in stats.items():
            assert np.allclose(ours[feature][name], value), (feature, name)
    actions = np.concatenate([one.vectors["action"] for one in episodes])
    assert np.allclose(ours["action"]["mean"], actions.mean(0))
    assert np.allclose(ours["action"]["std"], actions.std(0))
    pixels = np.concatenate([one.frames["front"][:, ::4, ::4].reshape(-1, 3) for one in episodes]) / 255
    assert np.allclose(np.ravel(ours["observation.images.front"]["mean"]), pixels.mean(0))


@pytest.mark.parametrize(
    "victim", ["videos/observation.images.wrist/chunk-000/file-000.mp4", "data/chunk-000/file-000.parquet"]
)
def test_a_truncated_or_missing_file_is_named(tmp_path: Path, victim: str) -> None:
    stage(tmp_path, LAYOUT, episode(0))
    finish(tmp_path, LAYOUT, 1, "panda")
    check_files(tmp_path, LAYOUT)
    path = tmp_path / victim
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=f"{path.name} is damaged"):
        check_files(tmp_path, LAYOUT)
    path.unlink()
    with pytest.raises(ValueError, match=f"{path.name} is missing"):
        check_files(tmp_path, LAYOUT)
