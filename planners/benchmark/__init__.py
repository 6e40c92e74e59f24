"""`premotor bench`: models x planners x tasks, with intervals. The one part of the planners that also knows worlds."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planners.benchmark.brains import make_model, weights_digest
from planners.benchmark.cells import Cell, summary
from planners.registry import nearest

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["Cell", "cells_of", "main", "make_model"]

# The choices a bare `premotor bench` composes.
_DEFAULTS = {"model": "tabletop", "planner": "cem"}
_CONFIGS = Path(__file__).resolve().parents[2] / "configs"
# The suite without a planner: is the model itself to be trusted?
MODEL_SUITE = "model"
# The suite that trains: what is an encoder from video worth?
PRETRAINING_SUITE = "pretraining"
# The suite without a world: what does a search find?
PLANNERS_SUITE = "planners"
# The suite with a stopwatch: what does a search cost beside what it imagines?
SPEED_SUITE = "speed"
# And does it end when it was told to?
DEADLINES_SUITE = "deadlines"
WITHOUT_EPISODES = (MODEL_SUITE, PRETRAINING_SUITE, PLANNERS_SUITE, SPEED_SUITE, DEADLINES_SUITE)


def main(cfg: DictConfig) -> int:
    """Run what the configuration asks for, write the results, print the table."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from planners.benchmark import report
    from planners.benchmark.suite import run_cells

    if str(cfg.suite) in WITHOUT_EPISODES and _subgoals(cfg.get("subgoals")):
        raise ValueError(
            f"suite={cfg.suite} has no way with sub-goals; leave subgoals.data= and subgoals.play= out, or say suite=tabletop"
        )
    if str(cfg.suite) in WITHOUT_EPISODES and cfg.get("ahead"):
        raise ValueError(f"suite={cfg.suite} has no arm that moves on meanwhile; leave ahead=0, or say suite=tabletop")
    folder = Path(str(cfg.out or f"outputs/bench/{time.strftime('%Y-%m-%d_%H-%M-%S')}"))
    about = {"command": _command(), "versions": _versions()}
    judges = {
        MODEL_SUITE: _judge_models,
        PRETRAINING_SUITE: _judge_pretraining,
        PLANNERS_SUITE: _judge_planners,
        SPEED_SUITE: _time_planners,
        DEADLINES_SUITE: _judge_deadlines,
    }
    if str(cfg.suite) in judges:
        return judges[str(cfg.suite)](cfg, folder, about)
    console = Console()
    cells = cells_of(cfg)
    first, episodes = int(cfg.seed), int(cfg.episodes)
    if episodes < 1:
        raise ValueError(f"episodes is {episodes}; a rate needs at least 1")
    seeds = range(first, first + episodes)
    kept = {result["key"]: result for result in report.read_results(folder)}
    began, count, reached = time.perf_counter(), 0, 0
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(), console=console, transient=True,
    ) as progress:  # fmt: skip
        bar = progress.add_task("episodes", total=len(cells) * episodes, rate="")

        def on_episode(cell: Cell, row: dict[str, Any]) -> None:
            nonlocal count, reached
            count, reached = count + 1, reached + bool(row["success"])
            progress.update(
                bar,
                advance=1,
                description=f"{cell.task} {cell.model['name']} {cell.planner['name']}: {reached} of {count} reached",
                rate=f"{60 * count / (time.perf_counter() - began):.1f} episodes/min",
            )

        from planners.benchmark.suite import EpisodeLog

        before = EpisodeLog(folder / "episodes.jsonl")
        progress.update(bar, completed=sum(len(set(before.of(cell)) & set(seeds)) for cell in cells))
        log = run_cells(
            cells, seeds, folder,
            workers=int(cfg.workers), threads=int(cfg.threads), record=int(cfg.record), on_episode=on_episode,
        )  # fmt: skip
    for cell in cells:
        rows = [row for seed, row in sorted(log.of(cell).items()) if seed in seeds]
        kept[cell.key] = summary(cell, rows, first, about)
    results = list(kept.values())
    report.write_episodes(folder, log.rows)
    path = report.write_results(folder, results)
    pictures = report.write_pictures(folder, cells)
    console.print(report.table(results).drawn())
    console.print(f"{path} (cells), {folder / 'episodes.parquet'} (episodes)")
    for picture in pictures:
        console.print(f"rerun {picture}" if picture.suffix == ".rrd" else str(picture))
    return 0


def cells_of(cfg: DictConfig) -> list[Cell]:
    """The cells a configuration asks for: tasks x models x planners."""
    from omegaconf import OmegaConf

    from planners.benchmark.suite import SUITES
    from planners.plan import Budget
    from planners.registry import make_planner

    words: Any = OmegaConf.to_container(cfg, resolve=True)
    known = [*SUITES, *WITHOUT_EPISODES]
    if words["suite"] not in SUITES and ":" not in str(words["suite"]):
        raise ValueError(f"no suite is called {words['suite']!r}{nearest(str(words['suite']), known)}")
    tasks = words["task"] if isinstance(words["task"], list) else [words["task"]]
    models = _choices("model", words.get("models"), words["model"])
    planners = _choices("planner", words.get("planners"), words["planner"])
    Budget(**words["budget"])
    ahead, foresee = _ahead(words)
    for planner in planners:
        steps = getattr(make_planner(planner, words["objective"]), "horizon", ahead)
        if ahead > steps:
            raise ValueError(
                f"ahead is {ahead}, and {planner['name']} plans {steps} steps; plan no farther ahead than that"
            )
    world = {key: words[key] for key in ("cameras", "image_size", "variation")}
    subgoals = _subgoals(words.get("subgoals"), words["suite"], [str(task) for task in tasks])
    return [
        Cell(
            words["suite"], str(task), str(words["simulator"]), world, model, planner, words["objective"],
            words["budget"], weights_digest(model), subgoals, ahead, foresee,
        )
        for task in tasks for model in models for planner in planners
    ]  # fmt: skip


def _subgoals(words: Any, suite: str = "tabletop", tasks: Sequence[str] = ()) -> dict[str, Any] | None:
    """The words of `subgoals:`, checked, with the data's fingerprint; None where there are to be none."""
    from planners.benchmark.playing import policy_of
    from planners.benchmark.suite import SUITES
    from planners.progress import Rule
    from planners.subgoals import Subgoals, fingerprint

    said = Subgoals.of(words)
    if said is None:
        return None
    if said.pictures:
        raise ValueError(
            "a benchmark's scenes have no pictures of the way; give subgoals.data=DIR, or subgoals.play=N to let the arm play "
            "in each scene first"
        )
    left_out = {"data", "frames"} if said.play is not None else {"play", "policy", "play_steps", "play_from"}
    if said.ask == Rule.ask:
        left_out.add("ask")  # such a cell is the same cell as before there was a choice
    kept = {str(key): value for key, value in words.items() if key not in left_out}
    if said.data is not None:
        return {**kept, "fingerprint": fingerprint(said.data)}
    if suite not in SUITES:
        raise ValueError(
            f"in the worlds of {suite} nobody can play before the goal; give subgoals.data=DIR instead of play"
        )
    for task in tasks:
        policy_of(said, task)
    return kept


def _ahead(words: dict[str, Any]) -> tuple[int, bool]:
    """The words `ahead` and `foresee`, checked."""
    ahead, foresee = words.get("ahead") or 0, words.get("foresee", True)
    if isinstance(ahead, bool) or not isinstance(ahead, int) or ahead < 0:
        raise ValueError(f"ahead is {ahead!r}; it is a whole number of steps, 0 lets the world wait for every plan")
    if not isinstance(foresee, bool):
        raise ValueError(f"foresee is {foresee!r}; say true or false")
    return ahead, foresee


def _judge_models(cfg: DictConfig, folder: Path, about: dict[str, Any]) -> int:
    """`suite=model`: the brains alone, without planner or goal."""
    from omegaconf import OmegaConf

    from planners.benchmark import trust

    words: Any = OmegaConf.to_container(cfg, resolve=True)
    return trust.run(words, _choices("model", words.get("models"), words["model"]), folder, about)


def _judge_pretraining(cfg: DictConfig, folder: Path, about: dict[str, Any]) -> int:
    """`suite=pretraining`: brains adapted with and without an encoder from video, on the world of one cell."""
    from omegaconf import OmegaConf

    from planners.benchmark import pretraining

    words: Any = OmegaConf.to_container(cfg, resolve=True)
    cells = cells_of(OmegaConf.create({**words, "suite": "tabletop"}))
    if len(cells) != 1:
        raise ValueError("suite=pretraining compares encoders on one task with one planner; give one of each")
    return pretraining.run(words, cells[0], folder, about)


def _judge_planners(cfg: DictConfig, folder: Path, about: dict[str, Any]) -> int:
    """`suite=planners`: the searches alone, on problems and not on episodes."""
    from omegaconf import OmegaConf

    from planners.benchmark import searching

    words: Any = OmegaConf.to_container(cfg, resolve=True)
    return searching.run(words, _choices("planner", words.get("planners"), words["planner"]), folder, about)


def _time_planners(cfg: DictConfig, folder: Path, about: dict[str, Any]) -> int:
    """`suite=speed`: the searches' time, beside what they imagine and for many environments at once."""
    from omegaconf import OmegaConf

    from planners.benchmark import speed

    words: Any = OmegaConf.to_container(cfg, resolve=True)
    return speed.run(words, _choices("planner", words.get("planners"), words["planner"]), folder, about)


def _judge_deadlines(cfg: DictConfig, folder: Path, about: dict[str, Any]) -> int:
    """`suite=deadlines`: the searches alone, with more to imagine than there is time for."""
    from omegaconf import OmegaConf

    from planners.benchmark import deadlines

    words: Any = OmegaConf.to_container(cfg, resolve=True)
    return deadlines.run(words, _choices("planner", words.get("planners"), words["planner"]), folder, about)


def _choices(group: str, names: Any, one: dict[str, Any]) -> list[dict[str, Any]]:
    """Several choices of a config group by name, or the one that was composed."""
    if names is None:
        return [one]
    from omegaconf import OmegaConf

    own = OmegaConf.to_container(OmegaConf.load(_CONFIGS / group / f"{_DEFAULTS[group]}.yaml"), resolve=True)
    if isinstance(own, dict) and one.get("name") == own["name"] and one != own:
        raise ValueError(
            f"{group}s= takes each {group}'s own settings; leave out {group}= and {group}.KEY=, or give one {group} at a time"
        )
    chosen = []
    for name in [names] if isinstance(names, str) else names:
        path = _CONFIGS / group / f"{name}.yaml"
        if not path.is_file():
            known = sorted(file.stem for file in (_CONFIGS / group).glob("*.yaml"))
            raise ValueError(f"{group} has no choice {name!r}{nearest(str(name), known)}")
        chosen.append(OmegaConf.to_container(OmegaConf.load(path), resolve=True))
    return chosen


def _command() -> str:
    return shlex.join(["premotor", *sys.argv[1:]])


def _versions() -> dict[str, str]:
    names = ("premotor", "torch", "mujoco", "pybullet", "numpy", "gymnasium")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
