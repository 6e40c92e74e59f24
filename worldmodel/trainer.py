"""One training loop for pretraining and adaptation: schedules, averages, resumes, measures, exports.

The state of a run (weights, optimiser, averages, generators, position) is written whole and renamed into place, so a
run that was killed goes on from its last save, bit for bit on the CPU.
"""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to learn.

    A run ends after `steps` optimiser steps (0 leaves the weights as they come, for refinement alone) or, when `minutes`
    is given, after that much training time.
    """

    steps: int = 10_000
    minutes: float | None = None
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    final_share: float = 0.02
    weight_decay: float = 1e-4
    clip_norm: float = 3.0
    average: float = 0.999
    evaluate_every: int = 500
    save_every: int = 500

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("warmup_steps", 1), ("evaluate_every", 1), ("save_every", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        for name in ("minutes", "learning_rate"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} is {value}; it must be more than 0")

    def rate(self, progress: float, step: int) -> float:
        """Learning rate at a share of the run: linear warm-up, then a cosine."""
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        share = self.final_share + (1 - self.final_share) * cosine
        return self.learning_rate * share * min(1.0, (step + 1) / self.warmup_steps)


class Trainer:
    """Trains a module on batches of losses.

    Args:
        module: what learns.
        losses: (generator) -> {name: scalar tensor}; draws its own batch.
        weights: name -> how much it counts in the sum.
        evaluate: (module with averaged weights) -> figures to log.
        export: (averaged module, history) -> None; writes what planning can load.
        out: folder of the run.
        recipe: what else decides the run (data, sizes, weights); a run goes on only under the same.
    """

    def __init__(
        self,
        module: nn.Module,
        losses: Callable[[torch.Generator], dict[str, Tensor]],
        weights: dict[str, float],
        schedule: Schedule,
        *,
        evaluate: Callable[[nn.Module], dict[str, float]],
        export: Callable[[nn.Module, list[dict[str, float]]], None],
        settle: Callable[[nn.Module], None],
        out: Path,
        seed: int,
        bf16: bool,
        device: torch.device,
        recipe: Mapping[str, Any] | None = None,
    ) -> None:
        self.module, self.losses, self.weights, self.schedule = module, losses, weights, schedule
        self.recipe = {**asdict(schedule), **weights, "seed": seed, "bf16": bf16, **(recipe or {})}
        self.evaluate, self.export, self.settle = evaluate, export, settle
        self.out, self.bf16, self.device = out, bf16, device
        self.generator = torch.Generator().manual_seed(seed)
        self.optimizer = torch.optim.AdamW(
            module.parameters(), schedule.learning_rate, weight_decay=schedule.weight_decay
        )
        self.averages = {name: value.detach().clone() for name, value in module.state_dict().items()}
        self.history: list[dict[str, float]] = []
        self.step, self.seconds = 0, 0.0
        self._smooth: dict[str, float] = {}

    # -- running ---------------------------------------------------------------------------------------------------

    def run(self) -> list[dict[str, float]]:
        """Train to the end of the schedule; Ctrl-C or SIGTERM saves and stops. Returns the history of evaluations."""
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("train"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[words]}"),
        )  # fmt: skip
        with Progress(*columns) as progress, _Asked() as asked:
            bar = progress.add_task("", total=1000, completed=int(1000 * self.progress()), words="")
            while self.progress() < 1.0:
                self._advance()
                if self.step % 10 == 0:
                    progress.update(bar, completed=int(1000 * self.progress()), words=self._words())
                if self.step % self.schedule.evaluate_every == 0:
                    self._evaluate(progress.console.print)
                if asked.to_stop or self.step % self.schedule.save_every == 0:
                    self.save()
                if asked.to_stop:
                    raise KeyboardInterrupt
        if not self.history or self.history[-1]["step"] != self.step:
            self._evaluate(print)
        self.save()
        return self.history

    def _words(self) -> str:
        shown = [f"{name} {self._smooth[name]:.3f}" for name in ("rollout", "distance") if name in self._smooth]
        return "  ".join([f"step {self.step}", f"{self.step / max(self.seconds, 1e-9):.1f}/s", *shown])

    def progress(self) -> float:
        """Share of the run that is done."""
        if self.schedule.minutes is not None:
            return self.seconds / (60 * self.schedule.minutes)
        return self.step / self.schedule.steps if self.schedule.steps else 1.0

    def _advance(self) -> None:
        began = time.monotonic()
        self.module.train()
        rate = self.schedule.rate(self.progress(), self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            terms = self.losses(self.generator)
            total = torch.stack([self.weights[name] * value.float() for name, value in terms.items()]).sum()
        if not torch.isfinite(total):
            bad = [name for name, value in terms.items() if not torch.isfinite(value)] or ["the sum"]
            raise RuntimeError(f"training diverged at step {self.step}: loss {bad[0]} is not finite; lower the rate")
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), self.schedule.clip_norm)
        self.optimizer.step()
        self.step += 1
        keep = min(self.schedule.average, self.step / (self.step + 20.0))
        with torch.no_grad():
            for name, value in self.module.state_dict().items():
                if value.dtype.is_floating_point:
                    self.averages[name].lerp_(value, 1 - keep)
                else:
                    self.averages[name].copy_(value)
        for name, value in terms.items():
            self._smooth[name] = 0.98 * self._smooth.get(name, value.item()) + 0.02 * value.item()
        self.seconds += time.monotonic() - began

    def averaged(self) -> Any:
        """A context in which the module holds the averaged weights, settled for evaluation."""
        return _Swapped(self)

    def _evaluate(self, say: Callable[[str], None]) -> None:
        with self.averaged():
            figures = {"step": float(self.step), "minutes": self.seconds / 60, **self._smooth}
            with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                figures |= self.evaluate(self.module)
            self.history = [row for row in self.history if row["step"] < self.step] + [figures]
            say("  ".join(f"{name} {value:.4g}" for name, value in figures.items()))
            temporary = self.out / f".history.{os.getpid()}.part"
            temporary.write_text("".join(json.dumps(row) + "\n" for row in self.history))
            os.replace(temporary, self.out / "history.jsonl")
            self.export(self.module, self.history)

    # -- saving ----------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the run's state, whole."""
        self.out.mkdir(parents=True, exist_ok=True)
        state = {
            "module": self.module.state_dict(),
            "averages": self.averages,
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "global_generator": torch.get_rng_state(),
            "position": {"step": self.step, "seconds": self.seconds},
            "smooth": self._smooth,
            "history": self.history,
            "recipe": self.recipe,
        }
        temporary = self.out / f".state.{os.getpid()}.part"
        torch.save(state, temporary)
        os.replace(temporary, self.out / "state.pt")

    def resume(self) -> bool:
        """Go on from the last save if there is one; a damaged one, or one of another recipe, is refused."""
        path = self.out / "state.pt"
        if not path.exists():
            return False
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
        except Exception as error:
            raise ValueError(f"{path} is damaged ({type(error).__name__}); delete it or say resume=false") from None
        if not isinstance(state, dict) or "recipe" not in state:
            raise ValueError(f"{path} was not written by this version; delete it or say resume=false")
        before = state["recipe"]
        changed = [name for name in {**self.recipe, **before} if before.get(name) != self.recipe.get(name)]
        if changed:
            name = changed[0]
            raise ValueError(
                f"{self.out} was trained with {name}={before.get(name)}, now it is {self.recipe.get(name)}; "
                "choose another out= or the same settings"
            )
        self.module.load_state_dict(state["module"])
        self.averages = state["averages"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())
        torch.set_rng_state(state["global_generator"].cpu())
        self.step, self.seconds = int(state["position"]["step"]), float(state["position"]["seconds"])
        self._smooth, self.history = state["smooth"], state["history"]
        return True


class _Asked:
    """Notes a wish to stop (SIGINT, SIGTERM), so that it is obeyed between steps and what is saved is a whole step.

    A second one is obeyed at once. Outside the main thread, where Python allows no handlers, nothing is caught.
    """

    def __init__(self) -> None:
        self.to_stop = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Asked:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, *_: object) -> None:
        if self.to_stop:
            raise KeyboardInterrupt
        self.to_stop = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class _Swapped:
    """Averaged weights in, settled, evaluation mode; the training weights and random state come back after."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def __enter__(self) -> None:
        module = self.trainer.module
        self._kept = {name: value.detach().clone() for name, value in module.state_dict().items()}
        self._random = torch.get_rng_state()
        module.load_state_dict(self.trainer.averages)
        if self.trainer.step:  # a run of no steps leaves the statistics as the heads know them
            self.trainer.settle(module)
        module.eval()

    def __exit__(self, *_: object) -> None:
        self.trainer.module.load_state_dict(self._kept)
        torch.set_rng_state(self._random)
        self.trainer.module.train()
