"""Training for so long: a loop of steps whose learning rate ends when the time does, and that survives being killed."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from worldmodel import processes
from worldmodel.decoding import whole
from worldmodel.trainer import Schedule

WARM_UP_STEPS = 100
FINAL_SHARE = 0.01
# Seconds between two saves: what a kill may cost.
SAVE_S = 60.0
# Saving takes at most one part in so many of the time.
PATIENCE = 20


@dataclass(frozen=True)
class Keeping:
    """A folder in which a stage of training writes down how far it is; it goes when the stage is over.

    Attributes:
        folder: where.
        recipe: all that the stage depends on; what another one left there is not gone on from.
    """

    folder: Path
    recipe: Mapping[str, object]

    def begin(self) -> None:
        """Make the folder, or find what a killed stage of this recipe left in it; another one's is refused."""
        said = self.folder / "recipe.json"
        if said.is_file():
            before, now = json.loads(said.read_text()), json.loads(json.dumps(self.recipe))
            changed = [key for key in {**now, **before} if before.get(key) != now.get(key)]
            if changed:
                key = changed[0]
                raise ValueError(
                    f"{self.folder} holds part of a run with {key}={before.get(key)}, now it is {now.get(key)}; say so "
                    "again, or delete that folder to begin anew"
                )
        else:
            self.end()  # nothing was begun that could be gone on from
            self.folder.mkdir(parents=True)
            replace_whole(said, json.dumps(self.recipe).encode())
        for left in self.folder.glob("*.part"):
            left.unlink()

    def end(self) -> None:
        """Forget it all."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def rows(self, name: str, shape: tuple[int, int]) -> Rows:
        """A file for rows of numbers that takes long to fill, as far as it was filled."""
        path, count = self.folder / f"{name}.npy", self.folder / f"{name}.done"
        done = int(count.read_text()) if count.is_file() else 0
        if done and whole(path, shape, np.float16) is not None:
            return Rows(np.load(path, mmap_mode="r+"), count, done)
        count.unlink(missing_ok=True)
        needed, free = 2 * shape[0] * shape[1], shutil.disk_usage(self.folder).free
        if needed > free:
            raise OSError(f"{path} takes {needed / 1e9:.1f} GB; {free / 1e9:.1f} GB are free: make room")
        rows = np.lib.format.open_memmap(path, "w+", np.float16, shape)
        with path.open("r+b") as file:  # no hole in it that a disk filling up meanwhile could not fill
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return Rows(rows, count, 0)

    def loop(self, title: str, module: nn.Module, generator: torch.Generator) -> Kept:
        """Where one timed loop of the stage is written down."""
        return Kept(self.folder / f"{title}.pt", module, generator)


@dataclass
class Rows:
    """Rows of a file on disk, and how many of them hold.

    Attributes:
        rows: (N, D) float16, memory-mapped.
        count: the file that says how many of them hold.
        done: how many that is.
    """

    rows: np.ndarray
    count: Path
    done: int
    _saved: float = field(default_factory=time.monotonic)

    def reach(self, done: int) -> None:
        """So many hold now; said on disk now and then, and when all do."""
        self.done = done
        if done == len(self.rows) or time.monotonic() - self._saved > SAVE_S / 3:
            self.rows.flush()  # type: ignore[attr-defined]
            replace_whole(self.count, str(done).encode())
            self._saved = time.monotonic()


@dataclass(frozen=True)
class Kept:
    """What is written down of a timed loop: the weights that learn, their optimiser, the chance, the time spent."""

    path: Path
    module: nn.Module
    generator: torch.Generator

    def save(self, optimizer: torch.optim.Optimizer, seconds: float, step: int) -> None:
        """Replace the last save."""
        temporary = self.path.with_suffix(f".{os.getpid()}.part")
        torch.save(
            {
                "module": self.module.state_dict(),
                "optimizer": optimizer.state_dict(),
                "generator": self.generator.get_state(),
                "position": {"seconds": seconds, "step": step},
            },
            temporary,
        )
        os.replace(temporary, self.path)

    def go_on(self, optimizer: torch.optim.Optimizer) -> tuple[float, int]:
        """Take over the last save, if there is one: seconds spent and steps made until then."""
        if not self.path.is_file():
            return 0.0, 0
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
            position = state["position"]
        except Exception as error:
            raise ValueError(
                f"{self.path} is damaged ({type(error).__name__}); delete it and this part begins anew"
            ) from None
        self.module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        return float(position["seconds"]), int(position["step"])


def replace_whole(path: Path, content: bytes) -> None:
    """Write a small file that is there whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def timed_steps(
    title: str, minutes: float, optimizer: torch.optim.Optimizer, learning_rate: float, kept: Kept | None = None
) -> Iterator[int]:
    """Count steps until the time is over, showing progress, rate and what is left.

    The learning rate rises for a hundred steps and falls along a cosine to a hundredth. With `kept` a loop that was killed
    goes on from its last save, and one that had ended has nothing left to do.
    """
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(title), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.fields[words]}"),
    )  # fmt: skip
    schedule = Schedule(learning_rate=learning_rate, warmup_steps=WARM_UP_STEPS, final_share=FINAL_SHARE)
    before, step = (0.0, 0) if kept is None else kept.go_on(optimizer)
    if 0 < before < 60 * minutes:
        processes.say(f"Going on with {title} after {before / 60:.1f} of {minutes:g} minutes.")
    began = time.monotonic() - before
    saved, wait = before, SAVE_S
    with Progress(*columns) as progress:
        bar = progress.add_task("", total=1000, words="")
        while (spent := time.monotonic() - began) < 60 * minutes:
            if kept is not None and spent - saved > wait:
                kept.save(optimizer, spent, step)
                saved = spent
                wait = max(SAVE_S, PATIENCE * (time.monotonic() - began - spent))
            share = spent / (60 * minutes)
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(share, step)
            yield step
            step += 1
            if step % 10 == 0:
                progress.update(bar, completed=int(1000 * share), words=f"step {step}  {step / spent:.1f}/s")
        progress.update(bar, completed=1000)
    if kept is not None and saved < 60 * minutes:
        kept.save(optimizer, max(spent, 60 * minutes), step)
