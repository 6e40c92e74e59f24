"""`premotor demo`: goal images the model has never seen, plans in its latent space, carried out step by step.

The main job of the house in a minute: everything it shows is written to one folder to look at afterwards.
"""

from __future__ import annotations

import shlex
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import envs
from planners import MPC, Goal, Rollout
from planners.benchmark.episode import EpisodeResult, run_episode
from planners.pictures import contact_sheet, film, write_mp4
from planners.recording import write_rrd
from robots.brain import Brain, output_folder, plain
from robots.report import versions, write_json
from robots.viewer import called, has_screen

FIRST_UNSEEN_SEED = 10_000
assert envs  # importing it registers the tabletop with Gymnasium


def main(cfg: DictConfig) -> int:
    """Run the episodes, write the folder, print the table."""
    console = Console(highlight=False)
    words = plain(cfg)
    episodes = list(_episodes(words))
    folder = output_folder(cfg.out, "demo")
    brains = {task: Brain.of(cfg, task) for task in dict(episodes)}
    brain = next(iter(brains.values()))
    console.print(
        f"\n[bold]A Panda in {_pretty(words['simulator'])} is shown goal images it has never seen.[/]\n"
        f"It plans with [cyan]{brain.model_name}[/] and [cyan]{brain.planner_name}[/] "
        f"({brain.budget.futures} imagined futures a plan), acts, looks, and plans again.\n"
    )
    began = time.perf_counter()
    results: list[tuple[str, EpisodeResult]] = []
    rollouts: list[Rollout] = []
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=console, transient=True,
    ) as progress:  # fmt: skip
        bar = progress.add_task("", total=len(episodes))
        for task, seed in episodes:
            progress.update(bar, description=f"{task}, seed {seed}")
            result, rollout = _episode(brains[task], words, task, seed)
            results.append((task, result))
            if rollout is not None:
                rollouts.append(rollout)
                rollout.save(folder / "rollouts" / f"{task}-{seed}")
            progress.advance(bar)
        progress.update(bar, description="pictures")
        _write(folder, rollouts, brain)
    write_json(folder / "results.json", _summary(results, brain, words, time.perf_counter() - began))
    console.print(_table(results))
    console.print(_verdict(results, time.perf_counter() - began))
    console.print(_how_to_look(folder), soft_wrap=True)
    return 0


def _episodes(words: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """(task, seed) of every episode."""
    seed = int(words["seed"])
    if seed < FIRST_UNSEEN_SEED:
        raise ValueError(
            f"seed is {seed}; seeds below {FIRST_UNSEEN_SEED} are for training data: a demo shows unseen goals"
        )
    tasks = words["tasks"]
    if not tasks or not any(tasks.values()):
        raise ValueError("tasks names no episode; for example tasks.push=4")
    for task, count in tasks.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise ValueError(f"tasks.{task} is {count!r}; it is a number of episodes")
        yield from ((str(task), seed + index) for index in range(count))
        seed += count  # no scene twice


def _episode(brain: Brain, words: dict[str, Any], task: str, seed: int) -> tuple[EpisodeResult, Rollout | None]:
    settings = {key: words[key] for key in ("simulator", "cameras", "image_size", "variation")}
    env = gymnasium.make("premotor/Tabletop-v0", task=task, disable_env_checker=True, **settings)

    def make_agent(goal: Goal, agent_seed: int) -> MPC:
        return brain.agent(goal, agent_seed)

    about = {"task": task, "simulator": words["simulator"], "command": "demo", **brain.about()}
    try:
        return run_episode(make_agent, env, seed, about=about, record=True, keys=brain.model.required_keys)
    finally:
        env.close()


def _write(folder: Path, rollouts: list[Rollout], brain: Brain) -> None:
    if not rollouts:
        raise RuntimeError("no episode could be shown: every start was solved already; choose another seed")
    write_rrd(rollouts, folder / "rollout.rrd")
    write_mp4([frame for rollout in rollouts for frame in film(rollout)], folder / "film.mp4")
    contact_sheet(rollouts, folder / "contact-sheet.png", title=f"premotor demo: {brain.model_name}")


def _summary(
    results: list[tuple[str, EpisodeResult]], brain: Brain, words: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """`results.json`."""
    rows = [
        {"task": task, **asdict(result), "act_ms": [round(ms, 2) for ms in result.act_ms]} for task, result in results
    ]
    return {
        "command": shlex.join(["premotor", *sys.argv[1:]]),
        "simulator": words["simulator"],
        "model": brain.model_name,
        "weights": brain.weights,
        "planner": brain.planner_name,
        "futures_per_plan": brain.budget.futures,
        "seconds": round(seconds, 1),
        "successes": sum(result.success for _, result in results),
        "plan_ms_median": _median_ms(results),
        "versions": versions(),
        "episodes": rows,
    }


def _table(results: list[tuple[str, EpisodeResult]]) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    for name, side in (("task", "left"), ("seed", "right"), ("goal", "left"), ("start", "right"), ("end", "right"),
                       ("plan", "right"), ("steps", "right")):  # fmt: skip
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    for task, result in results:
        ms = f"{statistics.median(result.act_ms):.0f} ms" if result.act_ms else "-"
        word = "[green]reached[/]" if result.success else "[red]not reached[/]"
        table.add_row(
            task, str(result.seed), word, f"{result.start_distance_cm:.1f} cm",
            f"[bold]{result.final_distance_cm:.1f} cm[/]", ms, str(result.steps),
        )  # fmt: skip
    return table


def _verdict(results: list[tuple[str, EpisodeResult]], seconds: float) -> str:
    reached = sum(result.success for _, result in results)
    return (
        f"\n[bold]{reached} of {len(results)} goals reached[/], judged by the simulator after the last step; "
        f"{_median_ms(results):.0f} ms a plan (median), {seconds:.0f} s in all."
    )


def _median_ms(results: list[tuple[str, EpisodeResult]]) -> float:
    times = [ms for _, result in results for ms in result.act_ms]
    return round(statistics.median(times), 2) if times else 0.0


def _how_to_look(folder: Path) -> str:
    table = "\n".join(
        f"  [cyan]{folder / name}[/]  {what}"
        for name, what in (
            ("contact-sheet.png", "goal | start | end | imagined end"),
            ("film.mp4", "goal, now, what was imagined for now, imagined end"),
            ("results.json", "the numbers"),
        )
    )
    premotor = called("premotor")
    # Without a screen the viewer is served as a page, to this machine only.
    look = (
        f"{called('rerun')} {folder / 'rollout.rrd'}" if has_screen() else f"{premotor} review run={folder} open=true"
    )
    return f"\n{table}\n\nOpen in Rerun:  [bold]{look}[/]\nIn words:       [bold]{premotor} review run={folder}[/]"


def _pretty(simulator: str) -> str:
    return {"mujoco": "MuJoCo", "pybullet": "PyBullet"}.get(simulator, simulator)
