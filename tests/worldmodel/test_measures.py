"""The figures that say whether training is healthy say so of what is known; and the examples run."""

from __future__ import annotations

import doctest
import importlib
import json
import pkgutil
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

import worldmodel
from tests.worldmodel.conftest import SMALL
from worldmodel import adapt, checkpoint, load, models, pretrain
from worldmodel.data import Episodes
from worldmodel.interface import TABLETOP
from worldmodel.losses import spread_loss
from worldmodel.measures import HORIZON, effective_rank, evaluate, ridge_error
from worldmodel.native import NativeModel
from worldmodel.networks import Networks, architecture_to_dict

CONFIGS = Path(__file__).parents[2] / "configs"
MODULES = [module.name for module in pkgutil.walk_packages(worldmodel.__path__, "worldmodel.")]


def test_a_probe_reads_what_is_linear_and_not_what_is_absent() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 12, generator=generator)
    y = x @ torch.randn(12, 2, generator=generator) + 3
    noise = torch.randn(400, 2, generator=generator)
    assert ridge_error(x[:300], y[:300], x[300:], y[300:], 1e-6).max() < 0.01
    assert ridge_error(x[:300], noise[:300], x[300:], noise[300:]).min() > 0.8


def test_rank_counts_directions() -> None:
    generator = torch.Generator().manual_seed(0)
    full = torch.randn(4000, 10, generator=generator)
    flat = full[:, :3] @ torch.randn(3, 10, generator=generator)
    assert effective_rank(full) > 9.5
    assert effective_rank(flat) < 3.5


@pytest.mark.parametrize(("weight", "collapses"), [(0.0, True), (5.0, False)])
def test_the_guard_keeps_features_that_only_predict_from_collapsing(weight: float, collapses: bool) -> None:
    """Ten independent walks of different predictability: predicting alone keeps little but the slowest of them."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    now = torch.randn(512, 10, generator=generator)
    change = torch.linspace(0, 1, 10) * torch.randn(512, 10, generator=generator)
    encoder = nn.Sequential(nn.Linear(10, 8), nn.BatchNorm1d(8, affine=False))
    predictor = nn.Linear(8, 8)
    optimizer = torch.optim.Adam([*encoder.parameters(), *predictor.parameters()], 2e-2)
    for _ in range(300):
        z = encoder(torch.cat([now, now + change]))
        loss = (predictor(z[:512]) - z[512:]).square().mean() + weight * 10 * spread_loss(z, generator, 64)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    rank = effective_rank(encoder(now).detach())
    assert (rank < 4) == collapses, rank


def test_doubt_of_one_is_the_error_that_most_held_out_predictions_stay_under(tiny_dataset: Path) -> None:
    torch.manual_seed(0)
    episodes = Episodes([tiny_dataset], ("front",), TABLETOP)
    training, held_out = episodes.split(0.25, 0)
    networks = Networks(SMALL).eval()
    with torch.no_grad():
        figures = evaluate(networks, episodes, training, held_out, torch.device("cpu"))
    model = NativeModel(networks, TABLETOP)
    errors = []
    for episode in held_out:
        length = int(episodes.lengths[episode])
        index = episodes.starts[episode] + torch.arange(length)
        seen = {"observation.images.front": episodes.frames(index)[:, 0], "observation.state": episodes.states[index]}
        latent = model.encode(seen)
        starts = torch.arange(length - HORIZON)
        actions = episodes.actions[index[starts[:, None] + torch.arange(HORIZON)]]
        reached = model.predict(latent[starts], actions[:, None])[:, 0, -1]
        errors.append((reached - latent[HORIZON:])[:, : SMALL.features].square().mean(-1))
    under = (torch.cat(errors) <= networks.get_buffer("doubt_scale")[0] + 1e-6).float().mean()
    assert 0.88 <= under < 1.0
    assert {"probe_tool_cm", "probe_object_cm", "prediction_error", "rank", "doubt_correlation"} <= set(figures)
    assert all(torch.isfinite(torch.tensor(value)) for value in figures.values())


def config(command: str, **values: object) -> DictConfig:
    """The command's own configuration, small enough for a test."""
    cfg = OmegaConf.load(CONFIGS / f"{command}.yaml")
    small = {"architecture": architecture_to_dict(SMALL), "name": "tiny", "device": "cpu", "colour_jitter": 0.1}
    short = {"steps": 3, "evaluate_every": 3, "batch": 8, "window_steps": 3}
    merged = OmegaConf.merge(cfg, small, short, values)
    assert isinstance(merged, DictConfig)
    return merged


def test_the_commands_train_one_after_the_other(tiny_dataset, tmp_path, monkeypatch, capsys) -> None:
    data, video, brain = str(tiny_dataset), str(tmp_path / "video"), str(tmp_path / "brain")
    assert pretrain.main(config("pretrain", data=data, out=video)) == 0
    assert adapt.main(config("adapt", data=[data, data], out=brain, encoder=video)) == 0
    assert load(tmp_path / "brain", "cpu").name == "tiny"
    monkeypatch.setattr(checkpoint, "SHIPPED", tmp_path)
    assert models.main(OmegaConf.create({"action": "list", "name": "brain"})) == 0
    assert models.main(OmegaConf.create({"action": "show", "name": "brain"})) == 0
    said = capsys.readouterr().out
    assert "Shipped models" in said
    assert '"encoder"' in said
    card = json.loads((tmp_path / "brain/card.json").read_text())
    assert len(card["data"]) == 2
    assert card["training"]["settings"]["seed"] == 0
    with pytest.raises(ValueError, match="no action 'burn'; known are list, show"):
        models.main(OmegaConf.create({"action": "burn", "name": "brain"}))


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_its_idea_and_its_examples_run(name: str) -> None:
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0
    assert module.__doc__
