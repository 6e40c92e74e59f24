"""`premotor bench suite=pretraining`: what an encoder learned from video is worth, on few and on many episodes.

The same episodes, the same architecture, the same planner: once from an encoder that watched video (frozen, or tuned at a
lower rate), once from scratch. What is compared is what the robot does, not a loss.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from planners.benchmark.brains import weights_digest
from planners.benchmark.cells import Cell, summary
from planners.benchmark.report import write_whole
from planners.benchmark.suite import run_cells
from planners.benchmark.tables import Table
from worldmodel.interface import ActionSpace
from worldmodel.networks import Architecture

ARMS = {
    "frozen": "from video, the encoder as it came",
    "tuned": "from video, the encoder learning slowly",
    "scratch": "from scratch",
}
TUNED_RATE = 0.1
_COLOURS = {"frozen": "#1f6f8b", "tuned": "#7a5195", "scratch": "#c4553b"}


@dataclass(frozen=True)
class Comparison:
    """What is compared, as the settings say.

    Attributes:
        encoder: the checkpoint from video.
        data: LeRobotDatasets; the first episodes of each are learned from.
        sizes: how many, for every point of a line.
        arms: names of ARMS.
        minutes: of training from pixels; a frozen encoder spends them on its stored features too.
        refine_minutes: then on stored features, for every arm.
        batch: windows a step.
        threads: of training.
        seed: of training.
    """

    encoder: str
    data: tuple[str, ...]
    sizes: tuple[int, ...]
    arms: tuple[str, ...]
    minutes: float
    refine_minutes: float
    batch: int
    threads: int
    seed: int

    def __post_init__(self) -> None:
        for arm in self.arms:
            if arm not in ARMS:
                raise ValueError(f"pretraining.arms has {arm!r}; known are {', '.join(ARMS)}")
        if not self.arms or not self.sizes:
            raise ValueError("pretraining.arms and pretraining.sizes must each name at least one")
        if min(self.sizes) < 2 or len(set(self.sizes)) < len(self.sizes):
            raise ValueError(
                f"pretraining.sizes is {list(self.sizes)}; give different numbers of episodes, each at least 2"
            )

    @classmethod
    def of(cls, words: Mapping[str, Any], threads: int) -> Comparison:
        """From the settings under `pretraining`."""
        for name in ("encoder", "data"):
            if not words[name]:
                raise ValueError(f"suite=pretraining wants pretraining.{name}=DIR; see premotor bench --help")
        data = words["data"] if isinstance(words["data"], list) else [words["data"]]
        return cls(
            encoder=str(words["encoder"]), data=tuple(str(root) for root in data),
            sizes=tuple(sorted(int(size) for size in words["sizes"])), arms=tuple(str(arm) for arm in words["arms"]),
            minutes=float(words["minutes"]), refine_minutes=float(words["refine_minutes"]), batch=int(words["batch"]),
            threads=threads, seed=int(words["seed"]),
        )  # fmt: skip


def run(words: Mapping[str, Any], cell: Cell, folder: Path, about: Mapping[str, Any]) -> int:
    """Adapt every arm on every number of episodes, let each act, write `pretraining.json`, `.md` and `.png`.

    Args:
        words: the benchmark's settings.
        cell: world, planner, objective and budget; its model is exchanged.
        folder: for all that is written; the same folder again goes on where it was stopped.
        about: command and versions, for the record.
    """
    from rich.console import Console

    console = Console()
    workers, threads = int(words["workers"]), int(words["threads"])
    comparison = Comparison.of(words["pretraining"], threads=max(1, workers) * threads)
    first, episodes = int(words["seed"]), int(words["episodes"])
    seeds = range(first, first + episodes)
    points: list[dict[str, Any]] = []
    architecture, space = sizes_of(comparison)
    for size in comparison.sizes:
        for arm in comparison.arms:
            console.print(f"[bold]{size} episodes, {ARMS[arm]}[/]")
            out = folder / f"{arm}-{size}"
            learned = adapted(comparison, arm, size, out, architecture, space)
            model = {**cell.model, "name": str(out)}
            point = Cell(
                cell.suite, cell.task, cell.simulator, cell.world, model, cell.planner, cell.objective, cell.budget,
                weights_digest(model),
            )  # fmt: skip
            log = run_cells([point], seeds, folder, workers=workers, threads=threads)
            rows = [row for seed, row in sorted(log.of(point).items()) if seed in seeds]
            result = {"arm": arm, "adapted_on": size, "learned": learned, **summary(point, rows, first, about)}
            points.append(result)
            console.print(f"  {_rate(result)}, median end {result['final_distance_cm_median']:.1f} cm")
            _write(folder, points, comparison, about)
    console.print(_table(points))
    console.print(verdict(points))
    console.print(f"{folder}: pretraining.json, pretraining.md, pretraining.png")
    return 0


def sizes_of(comparison: Comparison) -> tuple[Architecture, ActionSpace]:
    """What every arm is made like: the encoder's sizes, the data's actions and state."""
    from worldmodel import checkpoint
    from worldmodel.corpus import fit_to_data

    card = checkpoint.read_card(checkpoint.locate(comparison.encoder))
    from_data = {"cameras": [], "state_size": None, "action_size": None, "reader": 0, "goal_state": True}
    return fit_to_data({**card["architecture"], **from_data}, comparison.data)


def adapted(
    comparison: Comparison, arm: str, episodes: int, out: Path, architecture: Architecture, space: ActionSpace
) -> dict[str, float]:
    """A brain adapted on the first `episodes` episodes in `out`; the figures of its last evaluation."""
    from worldmodel import checkpoint
    from worldmodel.adapt import adapt
    from worldmodel.losses import LossWeights
    from worldmodel.settings import AdaptSettings
    from worldmodel.trainer import Schedule

    torch.set_num_threads(comparison.threads)
    frozen = arm == "frozen"
    settings = AdaptSettings(
        data=comparison.data, out=str(out), name=out.name, seed=comparison.seed, episodes=episodes,
        windows_per_batch=comparison.batch, refine_minutes=comparison.refine_minutes + frozen * comparison.minutes,
        encoder=None if arm == "scratch" else comparison.encoder, encoder_rate=TUNED_RATE if arm == "tuned" else 1.0,
    )  # fmt: skip
    schedule = Schedule(steps=0) if frozen else Schedule(minutes=comparison.minutes, evaluate_every=10_000)
    weights = LossWeights(contrast=0.6, spread=50.0)
    adapt(settings, schedule, architecture, space, weights=weights, device=checkpoint.resolve_device("auto"))
    return dict(checkpoint.read_card(out)["measured"])


# -- what is written and shown -----------------------------------------------------------------------------------------


def verdict(points: Sequence[Mapping[str, Any]]) -> str:
    """From how many episodes on an encoder from video does as well as scratch with all of them."""
    scratch = [point for point in points if point["arm"] == "scratch"]
    if not scratch or len(scratch) == len(points):
        return "There is nothing to compare with."
    most = max(scratch, key=lambda point: point["adapted_on"])
    sentences = []
    for arm in [arm for arm in ARMS if arm != "scratch"]:
        line = sorted((point for point in points if point["arm"] == arm), key=lambda point: point["adapted_on"])
        if not line:
            continue
        enough = next((point for point in line if point["rate"] >= most["rate"]), None)
        goal = f"from scratch with {most['adapted_on']} ({_rate(most)})"
        if enough is None:
            sentences.append(f"{ARMS[arm]}: never as good as {goal}.")
        else:
            sentences.append(f"{ARMS[arm]}: with {enough['adapted_on']} episodes ({_rate(enough)}) as good as {goal}.")
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)


def _rate(point: Mapping[str, Any]) -> str:
    return (
        f"{point['successes']} of {point['episodes']}, {100 * point['rate']:.0f} % "
        f"[{100 * point['low']:.0f}, {100 * point['high']:.0f}]"
    )


def _table(points: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: one row a number of episodes, one column an arm."""
    arms = [arm for arm in ARMS if any(point["arm"] == arm for point in points)]
    found = {(point["adapted_on"], point["arm"]): point for point in points}
    rows = []
    for size in sorted({size for size, _ in found}):
        cells = [_rate(found[size, arm]) if (size, arm) in found else "" for arm in arms]
        rows.append([str(size), *cells])
    return Table.plain("", ("episodes", *(ARMS[arm] for arm in arms)), rows).markdown()


def _write(folder: Path, points: Sequence[Mapping[str, Any]], comparison: Comparison, about: Mapping[str, Any]) -> None:
    text = json.dumps({**about, "points": list(points)}, indent=1, default=str)
    write_whole(folder / "pretraining.json", (text + "\n").encode())
    some = points[0]
    page = [
        "# What is an encoder from video worth?",
        f"{some['task']}, {some['simulator']}, {some['planner']}, {some['episodes']} episodes each from seed "
        f"{some['seed']}, Wilson 95 % intervals. Encoder {comparison.encoder}; adapted on the first episodes of "
        f"{', '.join(comparison.data)}. Every arm learns for {comparison.minutes + comparison.refine_minutes:g} minutes: "
        f"from scratch and tuned {comparison.minutes:g} of them from pixels, the rest, and all of a frozen encoder's, on "
        "stored features.",
        f"```bash\n{about['command']}\n```",
        _table(points),
        verdict(points),
        "![success against episodes](pretraining.png)",
    ]
    write_whole(folder / "pretraining.md", ("\n\n".join(page) + "\n").encode())
    _draw(points, folder / "pretraining.png")


def _draw(points: Sequence[Mapping[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context({"axes.spines.top": False, "axes.spines.right": False, "font.size": 10}):
        figure, axis = plt.subplots(figsize=(6.4, 4.2))
        for arm in ARMS:
            line = sorted((p for p in points if p["arm"] == arm), key=lambda p: p["adapted_on"])
            if not line:
                continue
            sizes = [p["adapted_on"] for p in line]
            rates, lows, highs = ([100 * p[name] for p in line] for name in ("rate", "low", "high"))
            axis.plot(sizes, rates, color=_COLOURS[arm], marker="o", markersize=4, label=ARMS[arm])
            axis.fill_between(sizes, lows, highs, color=_COLOURS[arm], alpha=0.15, linewidth=0)
        sizes = sorted({p["adapted_on"] for p in points})
        axis.set_xscale("log")
        axis.set_xticks(sizes, [str(size) for size in sizes])
        axis.minorticks_off()
        axis.set_ylim(0, 100)
        axis.set_xlabel("episodes adapted on")
        axis.set_ylabel(f"{points[0]['task']}: success, %")
        axis.legend(frameon=False, loc="upper left")
        figure.tight_layout()
        unfinished = path.with_name(f".{path.stem}.unfinished.png")
        figure.savefig(unfinished, dpi=130)
        plt.close(figure)
    os.replace(unfinished, path)
