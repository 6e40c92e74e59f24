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
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from worldmodel import sharding
from worldmodel.data import Windows
from worldmodel.loader import Loader
from worldmodel.logs import Log
from worldmodel.processes import Team

SHAPES = ("cosine", "constant")
# What runs were like whose saves say nothing of it.
ALWAYS_BEFORE = {"shape": "cosine", "processes": 1, "prefetch": False, "compile": False}
# Between the seeds of what windows are drawn by and of what losses draw, where those are not one generator.
NOISE_SEED = 7919


# (module, batch on the device, generator) -> {name: scalar tensor}
Losses = Callable[[nn.Module, Windows, torch.Generator], dict[str, Tensor]]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to learn.

    A run ends after `steps` optimiser steps (0 leaves the weights as they come, for refinement alone) or, when `minutes`
    is given, after that much training time. The rate warms up, then falls along a cosine or stays constant (`shape`).
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
    shape: str = "cosine"

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ValueError(f"schedule={self.shape} is not known; known are {', '.join(SHAPES)}")
        for name, least in (("steps", 0), ("warmup_steps", 1), ("evaluate_every", 1), ("save_every", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        for name in ("minutes", "learning_rate"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} is {value}; it must be more than 0")

    def rate(self, progress: float, step: int) -> float:
        """Learning rate at a share of the run: linear warm-up, then a cosine or always the same."""
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        share = self.final_share + (1 - self.final_share) * cosine if self.shape == "cosine" else 1.0
        return self.learning_rate * share * min(1.0, (step + 1) / self.warmup_steps)


class Learner(nn.Module):
    """A module with its losses: a batch goes in, losses come out, so that whoever wraps it sees one whole forward."""

    def __init__(self, module: nn.Module, losses: Losses) -> None:
        super().__init__()
        self.module, self.losses = module, losses

    def forward(self, batch: Windows, generator: torch.Generator) -> dict[str, Tensor]:
        return self.losses(self.module, batch, generator)


class Trainer:
    """Trains a module on batches of losses.

    Args:
        module: what learns.
        draw: (generator) -> a batch of windows on the CPU.
        losses: (module, batch on the device, generator) -> {name: scalar tensor}.
        weights: name -> how much it counts in the sum.
        evaluate: (module with averaged weights) -> figures to log.
        export: (averaged module, history) -> None; writes what planning can load.
        out: folder of the run.
        seed: decides what is drawn; with several processes each draws its own.
        team: the processes that learn together, and this one's device.
        prefetch: draw the next batch while this one is learnt from; the losses then draw from a generator of their own.
        slower: beginning of parameters' names -> their share of the learning rate.
        recipe: what else decides the run (data, sizes, weights); a run goes on only under the same.
        log: (step) -> where evaluations are also taken down.
        sharded: weights are spread over the processes (`worldmodel.sharding`).
        shown: made like the module, it holds all averaged weights where they are evaluated and exported; None: the module
            does. Sharded, the first process needs one.
    """

    def __init__(
        self,
        module: nn.Module,
        draw: Callable[[torch.Generator], Windows],
        losses: Losses,
        weights: dict[str, float],
        schedule: Schedule,
        *,
        evaluate: Callable[[nn.Module], dict[str, float]],
        export: Callable[[nn.Module, list[dict[str, float]]], None],
        settle: Callable[[nn.Module], None],
        out: Path,
        seed: int,
        bf16: bool,
        team: Team,
        prefetch: bool = False,
        slower: Mapping[str, float] | None = None,
        recipe: Mapping[str, Any] | None = None,
        log: Callable[[int], Log] = lambda step: Log(),
        sharded: bool = False,
        shown: nn.Module | None = None,
    ) -> None:
        self.module, self.weights, self.schedule = module, weights, schedule
        self.sharded, self.shown = sharded, shown or module
        self.recipe = {
            **asdict(schedule), **weights, "seed": seed, "bf16": bf16, "processes": team.size, "prefetch": prefetch,
            **({"sharded": True} if self.sharded else {}), **(recipe or {}),
        }  # fmt: skip
        self.evaluate, self.export, self.settle = evaluate, export, settle
        self.out, self.bf16, self.team, self.device = out, bf16, team, team.device
        team.share_norms(module)
        learner = Learner(module, losses)
        if sharded:
            sharding.spread(learner, module, self.device)
        self.learner = learner if sharded else team.wrap(learner)
        seed = team.seed(seed)
        generator = torch.Generator().manual_seed(seed)
        self.noise = torch.Generator().manual_seed(seed + NOISE_SEED) if prefetch else generator
        self.loader = Loader(draw, generator, ahead=prefetch, device=self.device)
        self.start_log = log
        groups = _groups(module, {name: share for name, share in (slower or {}).items() if share != 1})
        self.optimizer = torch.optim.AdamW(groups, schedule.learning_rate, weight_decay=schedule.weight_decay)
        self.averages = {name: value.detach().clone() for name, value in module.state_dict().items()}
        self.history: list[dict[str, float]] = []
        self.step, self.seconds, self.waited = 0, 0.0, 0.0
        self._smooth: dict[str, float] = {}

    # -- running ---------------------------------------------------------------------------------------------------

    def run(self) -> list[dict[str, float]]:
        """Train to the end of the schedule; Ctrl-C or SIGTERM saves and stops. Returns the history of evaluations."""
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("train"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[words]}"),
        )  # fmt: skip
        self.log = self.start_log(self.step) if self.team.first else Log()
        with closing(self.log), closing(self.loader):
            with Progress(*columns, disable=not self.team.first) as progress, _Asked() as asked:
                bar = progress.add_task("", total=1000, completed=int(1000 * self.progress()), words="")
                while self.progress() < 1.0:
                    self._advance()
                    stop, self.seconds = self.team.agree(asked.to_stop, self.seconds)
                    if self.step % 10 == 0:
                        progress.update(bar, completed=int(1000 * self.progress()), words=self._words())
                    if self.step % self.schedule.evaluate_every == 0:
                        self._evaluate(progress.console.print)
                    if stop or self.step % self.schedule.save_every == 0:
                        self.save()
                    if stop:
                        raise KeyboardInterrupt
            if not self.history or self.history[-1]["step"] != self.step:
                self._evaluate(print)
        self.save()
        return self.history

    def _words(self) -> str:
        shown = [f"{name} {self._smooth[name]:.3f}" for name in ("rollout", "distance") if name in self._smooth]
        speed = f"{self.step / max(self.seconds, 1e-9):.1f}/s"
        return "  ".join([f"step {self.step}", speed, f"loader {100 * self._loader_share():.0f} %", *shown])

    def _loader_share(self) -> float:
        """Share of the training time that went by waiting for batches."""
        return self.waited / max(self.seconds, 1e-9)

    def progress(self) -> float:
        """Share of the run that is done."""
        if self.schedule.minutes is not None:
            return self.seconds / (60 * self.schedule.minutes)
        return self.step / self.schedule.steps if self.schedule.steps else 1.0

    def _advance(self) -> None:
        began, waited = time.monotonic(), self.loader.waited
        self.module.train()
        rate = self.schedule.rate(self.progress(), self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        batch = self.loader.take()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            terms = self.learner(batch, self.noise)
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
        stacked = torch.stack([value.detach().float() for value in terms.values()])
        now: list[float] = stacked.tolist()  # one wait for the device
        for name, figure in zip(terms, now, strict=True):
            self._smooth[name] = 0.98 * self._smooth.get(name, figure) + 0.02 * figure
        self.waited += self.loader.waited - waited
        self.seconds += time.monotonic() - began

    def _evaluate(self, say: Callable[[str], None]) -> None:
        """The first process evaluates and writes; the others wait for what it found."""
        averages = sharding.whole(self.averages, keep=self.team.first) if self.sharded else self.averages
        if self.team.first:
            with self.team.alone():
                self._measure(say, averages)
        self.history = self.team.from_first(self.history)

    def _measure(self, say: Callable[[str], None], averages: dict[str, Tensor]) -> None:
        with _Averaged(self, averages) as module:
            times = {"minutes": self.seconds / 60, "loader_share": self._loader_share()}
            figures = {"step": float(self.step), **times, **self._smooth}
            with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                figures |= self.evaluate(module)
            self.history = [row for row in self.history if row["step"] < self.step] + [figures]
            say("  ".join(f"{name} {value:.4g}" for name, value in figures.items()))
            temporary = self.out / f".history.{os.getpid()}.part"
            temporary.write_text("".join(json.dumps(row) + "\n" for row in self.history))
            os.replace(temporary, self.out / "history.jsonl")
            self.log.write(figures)
            self.export(module, self.history)

    # -- saving ----------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the run's state, whole; with several processes the first writes, and all have to come."""
        generators = self.team.gather(torch.stack([self.loader.state(), self.noise.get_state()]))
        learned = {
            "module": self.module.state_dict(),
            "averages": self.averages,
            "optimizer": self.optimizer.state_dict(),
        }
        if self.sharded:
            learned = sharding.whole(learned, keep=self.team.first)
        if not self.team.first:
            return
        self.out.mkdir(parents=True, exist_ok=True)
        state = {
            **learned,
            "generators": generators,  # (processes, 2, bytes)
            "global_generator": torch.get_rng_state(),
            "position": {"step": self.step, "seconds": self.seconds, "waited": self.waited},
            "smooth": self._smooth,
            "history": self.history,
            "recipe": self.recipe,
        }
        temporary = self.out / f".state.{os.getpid()}.part"
        torch.save(state, temporary)
        os.replace(temporary, self.out / "state.pt")

    def saved_step(self) -> int | None:
        """The step of the last save in the run's folder, if there is one."""
        path = self.out / "state.pt"
        if not path.exists():
            return None
        return int(torch.load(path, map_location="cpu", mmap=True, weights_only=True)["position"]["step"])

    def resume(self) -> bool:
        """Go on from the last save if there is one; a damaged one, or one of another recipe, is refused."""
        path = self.out / "state.pt"
        if path.exists() != self.team.from_first(path.exists()):
            raise ValueError(f"{path} is there for some processes only; out= must be on a disk that all of them share")
        if not path.exists():
            return False
        try:
            state = torch.load(path, map_location="cpu" if self.sharded else self.device, weights_only=True)
        except Exception as error:
            raise ValueError(f"{path} is damaged ({type(error).__name__}); delete it or say resume=false") from None
        if not isinstance(state, dict) or "recipe" not in state:
            raise ValueError(f"{path} was not written by this version; delete it or say resume=false")
        before = {**ALWAYS_BEFORE, **state["recipe"]}
        changed = [name for name in {**self.recipe, **before} if before.get(name) != self.recipe.get(name)]
        if changed:
            name = changed[0]
            was, now = before.get(name), self.recipe.get(name)
            if isinstance(was, dict) and isinstance(now, dict):
                inner = next(key for key in {**now, **was} if was.get(key) != now.get(key))
                name, was, now = f"{name}.{inner}", was.get(inner), now.get(inner)
            raise ValueError(
                f"{self.out} was trained with {name}={was}, now it is {now}; choose another out= or the same settings"
            )
        if self.sharded:
            own = self.module.state_dict()
            state |= {name: sharding.shared(state[name], own) for name in ("module", "averages")}
            state["optimizer"] = sharding.shared_moments(state["optimizer"], self.optimizer)
        self.module.load_state_dict(state["module"])
        self.averages = state["averages"]
        for group in state["optimizer"]["param_groups"]:
            group.setdefault("share", 1.0)  # saves of runs that knew one rate
        self.optimizer.load_state_dict(state["optimizer"])
        windows, noise = (part.clone() for part in _generators(state)[self.team.rank].cpu())  # a view is misread
        self.loader.go_on_from(windows)
        self.noise.set_state(noise)
        torch.set_rng_state(state["global_generator"].cpu())
        position = state["position"]
        self.step, self.seconds, self.waited = (position.get(name, 0.0) for name in ("step", "seconds", "waited"))
        self._smooth, self.history = state["smooth"], state["history"]
        return True


def _groups(module: nn.Module, slower: Mapping[str, float]) -> list[dict[str, Any]]:
    """The parameters in groups of one `share` of the learning rate each."""
    groups: dict[float, list[nn.Parameter]] = {1.0: []}
    for name, parameter in module.named_parameters():
        share = next((share for beginning, share in slower.items() if name.startswith(beginning)), 1.0)
        groups.setdefault(share, []).append(parameter)
    return [{"params": parameters, "share": share} for share, parameters in groups.items() if parameters]


def _generators(state: Mapping[str, Any]) -> Tensor:
    """(processes, 2, bytes) what windows and what losses are drawn by; once one generator was saved, for both."""
    return state["generators"] if "generators" in state else state["generator"].expand(1, 2, -1)


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


class _Averaged:
    """A module with the averaged weights, settled, in evaluation mode; training weights and random state come back after."""

    def __init__(self, trainer: Trainer, averages: dict[str, Tensor]) -> None:
        self.trainer, self.averages = trainer, averages

    def __enter__(self) -> nn.Module:
        trainer, module = self.trainer, self.trainer.shown
        self._kept = {name: value.detach().clone() for name, value in module.state_dict().items()}
        self._random = torch.get_rng_state()
        module.load_state_dict(self.averages)
        if trainer.step:  # a run of no steps leaves the statistics as the heads know them
            trainer.settle(module)
        return module.eval()

    def __exit__(self, *_: object) -> None:
        module = self.trainer.shown
        module.load_state_dict(self._kept)
        torch.set_rng_state(self._random)
        module.train()
