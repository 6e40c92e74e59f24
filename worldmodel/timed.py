"""Training for so long: a loop of steps whose learning rate ends when the time does."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from worldmodel.trainer import Schedule

WARM_UP_STEPS = 100
FINAL_SHARE = 0.01


def timed_steps(title: str, minutes: float, optimizer: torch.optim.Optimizer, learning_rate: float) -> Iterator[int]:
    """Count steps until the time is over, showing progress, rate and what is left.

    The learning rate rises for a hundred steps and falls along a cosine to a hundredth.
    """
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(title), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.fields[words]}"),
    )  # fmt: skip
    schedule = Schedule(learning_rate=learning_rate, warmup_steps=WARM_UP_STEPS, final_share=FINAL_SHARE)
    began = time.monotonic()
    step = 0
    with Progress(*columns) as progress:
        bar = progress.add_task("", total=1000, words="")
        while (spent := time.monotonic() - began) < 60 * minutes:
            share = spent / (60 * minutes)
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(share, step)
            yield step
            step += 1
            if step % 10 == 0:
                progress.update(bar, completed=int(1000 * share), words=f"step {step}  {step / spent:.1f}/s")
        progress.update(bar, completed=1000)
