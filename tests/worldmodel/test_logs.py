"""Evaluations can be followed from outside, and a log that cannot be kept is refused before training."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest

from tests.worldmodel.test_interruptions import SMALL
from worldmodel import logs
from worldmodel.adapt import adapt
from worldmodel.settings import AdaptSettings
from worldmodel.trainer import Schedule


def train(data: Path, out: Path, log: str) -> list[dict[str, float]]:
    settings = AdaptSettings(
        data=(str(data),), out=str(out), windows_per_batch=4, window_steps=3, held_out=0.2, log=log
    )
    return adapt(settings, Schedule(steps=4, evaluate_every=2, save_every=2), SMALL, bf16=False)


def test_tensorboard_shows_the_history(tiny_dataset: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    history = train(tiny_dataset, tmp_path / "run", "tensorboard")
    events = EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == set(history[0]) - {"step"}
    for name in ("rollout", "prediction_error", "loader_share"):
        shown = [(event.step, event.value) for event in events.Scalars(name)]
        assert shown == [(row["step"], pytest.approx(row[name], rel=1e-6)) for row in history]


def test_a_resumed_run_hides_what_came_after_its_save(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    killed = logs.start("tensorboard", tmp_path, 0, {})
    for step in (1, 2, 3):
        killed.write({"step": float(step), "rollout": 10.0 * step, "rank": math.nan})
    killed.close()
    resumed = logs.start("tensorboard", tmp_path, 1, {})
    resumed.write({"step": 2.0, "rollout": 21.0})
    resumed.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("rollout")] == [(1, 10.0), (2, 21.0)]


def test_a_log_whose_package_is_missing_is_refused_before_anything_is_read(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="log=wandb needs a package that is not here: python -m uv pip install wandb"):
        train(tmp_path / "no data", tmp_path / "run", "wandb")
    assert not (tmp_path / "run").exists()


def test_an_unknown_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="log=paper is not known; known are null, tensorboard, wandb"):
        train(tmp_path / "no data", tmp_path / "run", "paper")
