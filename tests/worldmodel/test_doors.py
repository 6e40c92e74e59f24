"""What does not fit is refused at the door with a sentence, and nothing is left half-done."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.worldmodel.conftest import SMALL
from worldmodel import checkpoint, load
from worldmodel.adapt import adapt
from worldmodel.data import DatasetError, Episodes
from worldmodel.interface import TABLETOP, ActionSpace
from worldmodel.networks import Architecture, Networks
from worldmodel.settings import AdaptSettings
from worldmodel.trainer import Schedule


@pytest.fixture
def copy(tiny_dataset: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_dataset, tmp_path / "copy", ignore=shutil.ignore_patterns(".decoded"))
    return tmp_path / "copy"


def edit_info(root: Path, change) -> None:
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda info: info.update(codebase_version="v2.1"), "is a LeRobotDataset v2.1"),
        (
            lambda info: info.update(fps=30),
            "gap in episode 0: frame 1 comes 0.2 s after .* at 30 fps it should be 0.033",
        ),
        (lambda info: info.pop("video_path"), "says nothing of video_path"),
        (lambda info: info["features"].pop("action"), "has no action"),
        (lambda info: info["features"]["observation.images.front"].update(dtype="image"), "stored as images"),
        (lambda info: info["features"]["observation.images.front"].update(shape=[32]), r"has shape \[32\]"),
        (lambda info: info.update(fps=0), "says fps=0"),
    ],
)
def test_foreign_datasets_are_refused(copy: Path, change, words: str) -> None:
    edit_info(copy, change)
    with pytest.raises(DatasetError, match=words):
        Episodes([copy], ("front",), TABLETOP)


def test_video_alone_is_read_from_any_robot(copy: Path) -> None:
    """Pretraining asks for pictures only: other actions and their bounds do not matter."""
    edit_info(copy, lambda info: info["features"]["action"].update(shape=[6]))
    episodes = Episodes([copy], ("front",), TABLETOP, video_only=True)
    assert not episodes.states.any()
    assert not episodes.actions.any()
    assert len(episodes) == 8


@pytest.mark.parametrize(
    ("kind", "setting", "words"),
    [
        (Schedule, {"steps": -1}, "at least 0"),
        (Schedule, {"minutes": -1.0}, "more than 0"),
        (Schedule, {"learning_rate": float("nan")}, "more than 0"),
        (Schedule, {"evaluate_every": 0}, "at least 1"),
        (AdaptSettings, {"data": ("d",), "out": "o", "windows_per_batch": 0}, "at least 2"),
        (AdaptSettings, {"data": ("d",), "out": "o", "refine_minutes": -1.0}, "0 or more"),
    ],
)
def test_schedules_that_would_never_end_are_refused(kind, setting, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        kind(**setting)


def test_a_run_goes_on_from_another_s_weights_only_if_they_fit(tiny_dataset: Path, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "before", Networks(SMALL), TABLETOP, {"training": {"command": "x"}, "data": []})
    settings = AdaptSettings(
        data=(str(tiny_dataset),), out=str(tmp_path / "on"), windows_per_batch=8, window_steps=3, held_out=0.2,
        start=str(tmp_path / "before"),
    )  # fmt: skip
    schedule = Schedule(steps=1, learning_rate=1e-9, evaluate_every=1, save_every=1)
    adapt(settings, schedule, SMALL, bf16=False)
    before, after = (checkpoint.load_networks(tmp_path / name)[0] for name in ("before", "on"))
    torch.testing.assert_close(after.encoder.join.weight, before.encoder.join.weight, atol=2e-3, rtol=2e-3)
    assert checkpoint.read_card(tmp_path / "on")["training"]["before"]["command"] == "x"
    with pytest.raises(ValueError, match="has features=24, here it is 16"):
        adapt(replace(settings, out=str(tmp_path / "no")), schedule, replace(SMALL, features=16), bf16=False)


def test_a_half_written_description_is_refused(copy: Path) -> None:
    path = copy / "meta/info.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(DatasetError, match="damaged"):
        Episodes([copy], ("front",), TABLETOP)


def test_lost_episode_rows_are_noticed_and_leave_no_cache(copy: Path) -> None:
    next((copy / "meta/episodes").glob("chunk-*/*.parquet")).unlink()
    with pytest.raises(DatasetError, match="meta/episodes is truncated or damaged"):
        Episodes([copy], ("front",), TABLETOP)
    assert not list((copy / ".decoded").glob("*"))


def test_what_a_killed_decoder_left_is_cleared(copy: Path) -> None:
    left = copy / ".decoded/front-0123.999999999.part"
    left.parent.mkdir()
    left.write_bytes(b"half")
    Episodes([copy], ("front",), TABLETOP)
    assert not left.exists()
    assert len(list(left.parent.glob("*.npy"))) == 1


def test_two_datasets_read_as_one_row_after_the_other(tiny_dataset: Path, copy: Path) -> None:
    one, two = (Episodes(roots, ("front",), TABLETOP) for roots in ([tiny_dataset], [tiny_dataset, copy]))
    count = len(one.pictures)
    index = torch.tensor([[0, count - 1], [count, 2 * count - 1]])
    frames = two.frames(index)
    assert frames.shape == (2, 2, 1, 32, 32, 3)
    assert frames[0].equal(one.frames(index[0]))
    assert frames[1].equal(frames[0])


def test_episodes_shorter_than_a_window_are_said(tiny_dataset: Path) -> None:
    episodes = Episodes([tiny_dataset], ("front",), TABLETOP)
    with pytest.raises(DatasetError, match="no episode is longer than the window of 20 steps"):
        episodes.draw(torch.arange(8), 2, 20, 5, torch.Generator())


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"action_size": 6}, "actions of 7 numbers, the model takes 6"),
        ({"state_size": 8}, "observation.state has 7 numbers, the model takes 8"),
    ],
)
def test_a_model_of_other_sizes_is_refused_before_training(tiny_dataset, tmp_path, sizes, words) -> None:
    settings = AdaptSettings(data=(str(tiny_dataset),), out=str(tmp_path / "run"))
    with pytest.raises(ValueError, match=words):
        adapt(settings, Schedule(steps=1), replace(SMALL, **sizes))
    assert not (tmp_path / "run").exists()


def test_an_encoder_of_other_sizes_is_refused(tiny_dataset, tmp_path) -> None:
    checkpoint.save(tmp_path / "other", Networks(replace(SMALL, features=16)), TABLETOP, {})
    settings = AdaptSettings(data=(str(tiny_dataset),), out=str(tmp_path / "run"), encoder=str(tmp_path / "other"))
    with pytest.raises(ValueError, match="trained with features=16, here it is 24"):
        adapt(settings, Schedule(steps=1), SMALL)


def test_a_run_under_another_seed_does_not_go_on(tiny_dataset, tmp_path) -> None:
    def train(seed: int) -> None:
        settings = AdaptSettings(
            data=(str(tiny_dataset),), out=str(tmp_path / "run"), windows_per_batch=4, window_steps=3, held_out=0.2,
            seed=seed,
        )  # fmt: skip
        adapt(settings, Schedule(steps=1, evaluate_every=9, save_every=9), SMALL, bf16=False)

    train(0)
    with pytest.raises(ValueError, match="trained with seed=0, now it is 1"):
        train(1)


def test_weights_with_strangers_among_them_are_refused(model, tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    checkpoint.save(tmp_path / "mine", model.networks, TABLETOP, {})
    weights = tmp_path / "mine" / checkpoint.WEIGHTS
    save_file({**load_file(weights), "policy.weight": torch.zeros(1)}, weights)
    with pytest.raises(checkpoint.CheckpointError, match=r"also holds policy\.weight"):
        load(tmp_path / "mine", "cpu")


def test_a_card_without_an_action_space_is_refused(model, tmp_path) -> None:
    checkpoint.save(tmp_path / "mine", model.networks, TABLETOP, {})
    card = tmp_path / "mine" / checkpoint.CARD
    values = json.loads(card.read_text())
    del values["action_space"]
    card.write_text(json.dumps(values))
    with pytest.raises(checkpoint.CheckpointError, match="no action space"):
        load(tmp_path / "mine", "cpu")


def test_weights_for_actions_of_another_size_are_refused() -> None:
    from worldmodel.native import NativeModel

    space = ActionSpace((-1.0,), (1.0,), ("push",), 5.0)
    with pytest.raises(ValueError, match="actions of 7 numbers, the action space has 1"):
        NativeModel(Networks(SMALL), space)


def test_actions_of_another_size_are_refused(model, observation) -> None:
    with pytest.raises(ValueError, match="takes actions of 7 numbers; got 6"):
        model.predict(model.encode(observation), torch.zeros(2, 1, 3, 6))


def test_a_device_that_is_not_here_is_said() -> None:
    with pytest.raises(ValueError, match="device=nonsense is not here"):
        checkpoint.resolve_device("nonsense")


def test_two_cameras_are_one_picture_to_the_encoder() -> None:
    from worldmodel.native import NativeModel

    both = replace(SMALL, cameras=("front", "wrist"))
    model = NativeModel(Networks(both), TABLETOP)
    seen = {key: torch.zeros(1, 32, 32, 3, dtype=torch.uint8) for key in model.picture_keys}
    assert model.encode({**seen, "observation.state": torch.zeros(1, 7)}).shape == (1, 32)
    assert isinstance(model.architecture, Architecture)
