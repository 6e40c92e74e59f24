"""Checkpoints come back as they were, and what is damaged or foreign is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from worldmodel import checkpoint, load
from worldmodel.interface import TABLETOP, ActionSpace


@pytest.fixture
def saved(model, tmp_path: Path) -> Path:
    checkpoint.save(tmp_path / "mine", model.networks, TABLETOP, {"name": "mine"}, half=False)
    return tmp_path / "mine"


def test_a_model_comes_back_as_it_was(model, saved, observation) -> None:
    again = load(saved, "cpu", TABLETOP)
    assert again.name == "mine"
    torch.testing.assert_close(again.encode(observation), model.encode(observation))


def test_a_card_from_before_there_were_readers_still_loads(model, saved, observation) -> None:
    card = json.loads((saved / checkpoint.CARD).read_text())
    assert card["architecture"].pop("reader") == 0
    (saved / checkpoint.CARD).write_text(json.dumps(card))
    torch.testing.assert_close(load(saved, "cpu").encode(observation), model.encode(observation))


def test_a_reader_is_saved_with_what_it_belongs_to(model, tmp_path, observation) -> None:
    model.networks.grow_reader(5).eval()
    checkpoint.save(tmp_path / "reading", model.networks, TABLETOP, {}, half=False)
    again = load(tmp_path / "reading", "cpu")
    pictures = {key: value for key, value in observation.items() if "images" in key}
    torch.testing.assert_close(again.encode(pictures), model.encode(pictures))


def test_what_only_training_needs_is_a_file_of_its_own(model, saved, observation) -> None:
    whole, _ = checkpoint.load_networks(saved)
    for name, value in model.networks.state_dict().items():
        assert value.equal(whole.state_dict()[name]), name
    (saved / checkpoint.TRAINING).write_bytes(b"damaged")
    with pytest.raises(checkpoint.CheckpointError, match=r"training\.safetensors is truncated or damaged"):
        checkpoint.load_networks(saved)
    (saved / checkpoint.TRAINING).unlink()
    with pytest.raises(checkpoint.CheckpointError, match="it can plan, but not be trained on"):
        checkpoint.load_networks(saved)
    torch.testing.assert_close(load(saved, "cpu").encode(observation), model.encode(observation))


def test_half_precision_is_near(model, tmp_path, observation) -> None:
    checkpoint.save(tmp_path / "half", model.networks, TABLETOP, {}, half=True)
    near = load(tmp_path / "half", "cpu").encode(observation)
    torch.testing.assert_close(near, model.encode(observation), atol=0.1, rtol=0.1)


def test_a_truncated_file_is_refused(saved) -> None:
    weights = saved / checkpoint.WEIGHTS
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(checkpoint.CheckpointError, match="truncated or damaged"):
        load(saved, "cpu")


def test_a_foreign_card_is_refused(saved) -> None:
    (saved / checkpoint.CARD).write_text(json.dumps({"format": "somebody else 3"}))
    with pytest.raises(checkpoint.CheckpointError, match="foreign card"):
        load(saved, "cpu")


def test_a_half_written_card_is_refused(saved) -> None:
    text = (saved / checkpoint.CARD).read_text()
    (saved / checkpoint.CARD).write_text(text[: len(text) // 2])
    with pytest.raises(checkpoint.CheckpointError, match="damaged"):
        load(saved, "cpu")


def test_a_card_of_other_weights_is_refused(saved) -> None:
    card = json.loads((saved / checkpoint.CARD).read_text())
    card["architecture"]["features"] = 32
    (saved / checkpoint.CARD).write_text(json.dumps(card))
    with pytest.raises(checkpoint.CheckpointError, match="the card's architecture wants"):
        load(saved, "cpu")


def test_nan_in_the_weights_is_refused(model, tmp_path) -> None:
    with torch.no_grad():
        model.networks.predictor.enter.bias[0] = float("nan")
    checkpoint.save(tmp_path / "nan", model.networks, TABLETOP, {}, half=False)
    with pytest.raises(checkpoint.CheckpointError, match="NaN"):
        load(tmp_path / "nan", "cpu")


@pytest.mark.parametrize("name", checkpoint.shipped_models())
def test_what_is_shipped_loads_and_fits_in_the_repository(name: str) -> None:
    if checkpoint.watched_only(checkpoint.read_card(checkpoint.SHIPPED / name)):
        with pytest.raises(checkpoint.CheckpointError, match="learned from video alone"):
            load(name, "cpu")
    else:
        # Those of the tabletop fit its actions; the others are of arms of their own.
        assert (load(name, "cpu").action_space == TABLETOP) == name.startswith("tabletop")
    for file in (checkpoint.SHIPPED / name).iterdir():
        assert file.stat().st_size < 16e6, file
    checkpoint.load_networks(checkpoint.SHIPPED / name)  # and can be trained on


def test_all_that_is_shipped_together_is_small() -> None:
    assert sum(file.stat().st_size for file in checkpoint.SHIPPED.rglob("*") if file.is_file()) < 48e6


def test_another_action_space_is_refused(saved) -> None:
    other = ActionSpace(TABLETOP.low, TABLETOP.high, TABLETOP.names, 15.0)
    with pytest.raises(ValueError, match="15 Hz"):
        load(saved, "cpu", other)


def test_a_name_that_is_nothing_lists_what_is_shipped() -> None:
    with pytest.raises(checkpoint.CheckpointError, match="tabletop"):
        load("tabeltop")


def test_the_shipped_model_loads_and_is_small() -> None:
    folder = checkpoint.SHIPPED / "tabletop"
    card = checkpoint.read_card(folder)
    assert load("tabletop", "cpu", TABLETOP).architecture.cameras == ("front",)
    assert all(file.stat().st_size <= 16 * 2**20 for file in folder.iterdir())
    assert card["data"][0]["recipe"]["seed"] < 10_000
    assert card["training"]["command"].startswith("premotor adapt")
    assert not Path(card["training"]["settings"]["out"]).is_absolute()


def test_a_brain_of_ones_own_is_named_by_its_place(model, monkeypatch, tmp_path) -> None:
    (tmp_path / "my_brains.py").write_text(
        "class Half:\n    def __init__(self, device):\n        self.name = 'half'\n"
        "def whole(device):\n    return MODEL\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import my_brains  # pyright: ignore[reportMissingImports]

    my_brains.MODEL = model
    assert load("my_brains:whole", "cpu") is model
    with pytest.raises(checkpoint.CheckpointError, match="lacks action_space"):
        load("my_brains:Half", "cpu")
    with pytest.raises(checkpoint.CheckpointError, match="no attribute 'Nothing'"):
        load("my_brains:Nothing", "cpu")
    with pytest.raises(checkpoint.CheckpointError, match="No module named"):
        load("their_brains:Mine", "cpu")
