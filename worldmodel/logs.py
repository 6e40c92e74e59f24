"""Where evaluations may also be followed while a run goes on: TensorBoard or Weights & Biases, if one wishes."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KINDS = ("tensorboard", "wandb")


class Log:
    """Takes down the figures of every evaluation, under their step; this one keeps nothing."""

    def write(self, figures: Mapping[str, float]) -> None:
        """Figures of one evaluation, `step` among them."""

    def close(self) -> None:
        """What was written is on disk."""


class TensorBoardLog(Log):
    """Event files in `folder`; what an earlier, killed part of the run wrote after `step` is hidden."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def write(self, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            if name != "step" and math.isfinite(value):
                self._writer.add_scalar(name, value, int(figures["step"]))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WandbLog(Log):
    """A run of Weights & Biases, offline where WANDB_MODE=offline; the parts of a resumed run share a group."""

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        import wandb  # type: ignore[import-not-found]

        self._run = wandb.init(project="premotor", group=str(out), dir=str(out), config=dict(settings))

    def write(self, figures: Mapping[str, float]) -> None:
        self._run.log({name: value for name, value in figures.items() if name != "step"}, step=int(figures["step"]))

    def close(self) -> None:
        self._run.finish()


def check(kind: str | None) -> None:
    """Refuse at the door a log that is not known or whose package is not here."""
    if kind is None:
        return
    if kind not in KINDS:
        raise ValueError(f"log={kind} is not known; known are null, {', '.join(KINDS)}")
    if importlib.util.find_spec(kind) is None:
        raise ValueError(
            f"log={kind} needs a package that is not here: python -m uv pip install {kind}, or say log=null"
        )


def start(kind: str | None, out: Path, step: int, settings: Mapping[str, Any]) -> Log:
    """The log of a run in `out` that stands at `step`."""
    if kind == "tensorboard":
        return TensorBoardLog(out / "tensorboard", step)
    return Log() if kind is None else WandbLog(out, settings)
