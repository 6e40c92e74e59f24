"""Cheaper steps change no more than they say, and short memory is said in a sentence that helps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.worldmodel.conftest import SMALL, without_times
from worldmodel import cost
from worldmodel.adapt import adapt
from worldmodel.checkpoint import load_networks
from worldmodel.networks import Networks
from worldmodel.settings import AdaptSettings
from worldmodel.trainer import Schedule

ROOT = Path(__file__).parents[2]


def train(data: Path | str, out: Path | str, *, batch: int = 8, **extra) -> list[dict[str, float]]:
    settings = AdaptSettings(
        data=(str(data),), out=str(out), windows_per_batch=batch, window_steps=3, goal_reach=8, held_out=0.2, **extra
    )
    return adapt(settings, Schedule(steps=4, warmup_steps=2, evaluate_every=2, save_every=2), SMALL, bf16=False)


def test_checkpointing_changes_no_number_and_may_begin_in_the_middle(tiny_dataset: Path, tmp_path: Path) -> None:
    plain = train(tiny_dataset, tmp_path / "plain")
    assert without_times(train(tiny_dataset, tmp_path / "spared", checkpointing=True)) == without_times(plain)
    # The same recipe: what was saved without goes on with it.
    assert train(tiny_dataset, tmp_path / "plain", checkpointing=True) == plain


def test_checkpointing_keeps_less_for_the_backward_pass() -> None:
    pictures = torch.randint(0, 255, (16, 1, 32, 32, 3), dtype=torch.uint8)

    def kept(checkpointing: bool) -> int:
        networks = Networks(SMALL)
        cost.spare(networks, compiled=False, checkpointing=checkpointing)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.nbytes) or x, lambda x: x):
            networks.encoder(pictures)
        return sum(sizes)

    assert kept(True) < 0.2 * kept(False)


@pytest.mark.slow
def test_compiled_networks_learn_nearly_the_same(tiny_dataset: Path, tmp_path: Path) -> None:
    assert cost.can_compile(torch.device("cpu")) is None
    plain = train(tiny_dataset, tmp_path / "plain")
    for name, extra in (("compiled", {}), ("both", {"checkpointing": True})):
        compiled = train(tiny_dataset, tmp_path / name, compile=True, **extra)
        assert compiled[-1]["rollout"] == pytest.approx(plain[-1]["rollout"], rel=1e-2)
        assert load_networks(tmp_path / name)[0].architecture == SMALL
    with pytest.raises(ValueError, match="was trained with compile=True, now it is False"):
        train(tiny_dataset, tmp_path / "compiled")


def run(script: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *words], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True,
        timeout=250, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_without_a_compiler_training_says_so_and_goes_on(tiny_dataset: Path, tmp_path: Path) -> None:
    script = "import sys; from tests.worldmodel.test_cost import train; train(*sys.argv[1:], compile=True)"
    cache = str(tmp_path / "cache")
    done = run(script, str(tiny_dataset), str(tmp_path / "run"), CXX="/no/compiler", TORCHINDUCTOR_CACHE_DIR=cache)
    assert done.returncode == 0, done.stderr
    assert "compile=true was said, but nothing compiles here (" in done.stdout
    assert load_networks(tmp_path / "run")[0].architecture == SMALL


def test_short_memory_says_what_to_lower(tiny_dataset: Path, tmp_path: Path) -> None:
    """No machine has room for such a batch: the allocator really refuses."""
    with pytest.raises(RuntimeError) as caught:
        train(tiny_dataset, tmp_path / "run", batch=2**58)
    said = str(caught.value)
    assert f"memory ran out with batch={2**58} windows of 6 pictures of 32 px on cpu; say checkpointing=true" in said
    assert "or lower batch=" in said
    assert said.endswith("nothing was saved yet")


@pytest.mark.parametrize("allocate", [np.empty, torch.empty])
def test_short_memory_says_what_is_kept(allocate) -> None:
    with pytest.raises(RuntimeError, match="what was saved at step 40 is kept"), cost.memory_said("x", lambda: 40):
        allocate(2**59)
    with pytest.raises(RuntimeError, match="not of memory"), cost.memory_said("x", lambda: 40):
        raise RuntimeError("not of memory")
