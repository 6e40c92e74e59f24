"""A run may be stopped or killed at any moment: what is on disk is whole, and it goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.worldmodel.conftest import SMALL, without_times
from tests.worldmodel.forked import Forked
from worldmodel.adapt import adapt
from worldmodel.checkpoint import load_networks
from worldmodel.settings import AdaptSettings
from worldmodel.trainer import Schedule

STEPS = 400
SCRIPT = """
import sys, torch
torch.set_num_threads(1)
from tests.worldmodel.test_interruptions import train
train(sys.argv[1], sys.argv[2])
"""


def train(data: str | Path, out: str | Path, steps: int = STEPS) -> list[dict[str, float]]:
    schedule = Schedule(steps=steps, warmup_steps=5, evaluate_every=10, save_every=10)
    settings = AdaptSettings(
        data=(str(data),), out=str(out), windows_per_batch=4, window_steps=3, goal_reach=8, held_out=0.2
    )
    return adapt(settings, schedule, SMALL, bf16=False)


def start(data: Path, out: Path) -> Forked:
    """A training process of its own that has written at least one state."""
    script = out.with_suffix(".py")
    script.write_text(SCRIPT)
    process = Forked(script, [str(data), str(out)], out.with_suffix(".said"))
    limit = time.monotonic() + 120
    while not (out / "state.pt").exists():
        assert process.code is None, "the run ended before it saved"
        assert time.monotonic() < limit
        time.sleep(0.02)
    return process


def position(out: Path) -> int:
    return int(torch.load(out / "state.pt", weights_only=True)["position"]["step"])


@pytest.fixture(scope="module")
def killed(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that kill -9 ended somewhere."""
    out = tmp_path_factory.mktemp("killed") / "run"
    process = start(tiny_dataset, out)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return out


def test_kill_9_leaves_a_state_and_a_model_that_load(killed: Path) -> None:
    assert 10 <= position(killed) < STEPS
    rows = [json.loads(line) for line in (killed / "history.jsonl").read_text().splitlines()]
    assert rows[0]["step"] == 10
    assert load_networks(killed)[0].architecture == SMALL


def test_a_killed_run_goes_on_with_the_same_curve(killed: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    """The uninterrupted run is as long as what was saved and ten steps more; both see the same schedule."""
    torch.set_num_threads(1)
    after = position(killed) + 10
    curves = []
    for out in (killed, tmp_path / "whole"):
        with pytest.raises(KeyboardInterrupt):
            _train_until(after, tiny_dataset, out)
        rows = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
        curves.append(without_times(rows))
    assert curves[0] == curves[1]
    assert curves[0][-1]["step"] == after


def _train_until(step: int, data: Path, out: Path) -> None:
    """Asks to stop, as Ctrl-C does, when the history has reached a step."""
    import worldmodel.trainer as trainer

    class Watched(trainer.Trainer):
        def _evaluate(self, say) -> None:
            super()._evaluate(say)
            if self.step == step:
                os.kill(os.getpid(), signal.SIGINT)

    import worldmodel.adapt as module

    original, module.Trainer = module.Trainer, Watched
    try:
        train(data, out)
    finally:
        module.Trainer = original


def test_being_asked_to_stop_saves_a_whole_step(tiny_dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(tiny_dataset, out)
    process.send_signal(signal.SIGTERM)
    code, *_ = process.wait(60)
    assert code != 0
    assert 10 <= position(out) < STEPS
    assert not list(out.glob(".*.part"))
