"""A brain that knows nothing, saved as a checkpoint: enough to see that everything around it works."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

import premotor
import robots
from worldmodel.checkpoint import save
from worldmodel.interface import ActionSpace
from worldmodel.networks import Architecture, Networks

assert robots  # imported before any test's mujoco, which must be told how to render first
ROOT = Path(premotor.__file__).parent
# A search so small that a plan takes milliseconds.
SMALL = ("budget.samples=8", "budget.iterations=2", "planner.horizon=3", "planner.elites=4")


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder of a small native model with random weights."""
    torch.manual_seed(0)
    sizes = Architecture(features=32, keypoints=8, predictor_width=32, predictor_depth=2, head_width=32)
    folder = tmp_path_factory.mktemp("checkpoint") / "untrained"
    save(folder, Networks(sizes), ActionSpace.tabletop(), {"name": "untrained"})
    return folder


Premotor = Callable[..., int]


@pytest.fixture
def call(untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Premotor:
    """The front door, in an empty folder, with the untrained model and a small search where the command plans."""
    monkeypatch.chdir(tmp_path)

    def enter(command: str, *words: str) -> int:
        return premotor.main([command, *planning(command, untrained), *words])

    return enter


def planning(command: str, untrained: Path) -> Sequence[str]:
    """Words that make a command plan with the untrained model, quickly."""
    trusting = ("probe=false",) if command == "run" else ()  # a brain that knows nothing would not pass
    return (f"model.name={untrained}", *SMALL, *trusting) if command in ("run", "demo", "plan") else ()


def start(command: str, untrained: Path, folder: Path, *words: str) -> subprocess.Popen[str]:
    """The front door in a process of its own."""
    call = [sys.executable, str(ROOT / "premotor.py"), command, *planning(command, untrained), *words]
    return subprocess.Popen(call, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
