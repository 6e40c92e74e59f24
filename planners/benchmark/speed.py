"""`premotor bench suite=speed`: what does a search cost beside what it imagines, and what do many plans at once save?

Two comparisons, each side by side in one run, turn about, so that whatever else the machine does falls on both, and one
that takes its turns:

- *overhead*: a plan against the bare predictions of as many futures, in the random latent world (an MLP, horizon 8), and
  against predictions and the model's own distances, which are no work of the search either.
- *together*: plans for many environments at once against as many plans in turn, with the chosen brain; and whether they
  are the same plans.
- *whole*: a large plan with the chosen brain, operation by operation or captured, for one environment or many, and how
  much of its time is arithmetic.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from planners.benchmark.latent_world import HORIZON, LatentWorld
from planners.benchmark.report import write_whole
from planners.benchmark.searching import make_problems
from planners.benchmark.stats import Estimate, Resampling
from planners.benchmark.tables import Table
from planners.benchmark.whole import Whole, fastest_product, whole
from planners.capture import CAPTURES
from planners.plan import Budget
from planners.planner import Planner, SamplingPlanner
from planners.registry import make_planner
from worldmodel.interface import WorldModel

# Rounds before anything is counted: memory is fetched, kernels are chosen.
_WARM_UP = 2


@dataclass(frozen=True)
class Pair:
    """Two things timed turn about. `first_ms` and `second_ms` are medians; `ratio` is of each round's own two times."""

    first_ms: float
    second_ms: float
    ratio: Estimate


def paired(first: Callable[[], object], second: Callable[[], object], rounds: int, wait: Callable[[], None]) -> Pair:
    """Time two things in turn; the second before and after the first, so that a drift falls on both.

    Args:
        first, second: what is timed; the ratio is the first's time over the second's.
        rounds: how often, after a warm-up.
        wait: until the device has done what it was asked.
    """

    def timed(action: Callable[[], object]) -> float:
        wait()
        began = time.perf_counter()
        action()
        wait()
        return time.perf_counter() - began

    for _ in range(_WARM_UP):
        timed(second)
        timed(first)
    times = np.array([[timed(second), timed(first), timed(second)] for _ in range(rounds)])
    tops, bottoms = times[:, 1], times[:, [0, 2]].mean(1)
    ratios = tops / bottoms
    middle = Resampling(rounds).estimate(lambda weights: float(np.median(np.repeat(ratios, weights.astype(int)))))
    return Pair(1000 * float(np.median(tops)), 1000 * float(np.median(bottoms)), middle)


def overhead(
    planner: SamplingPlanner,
    budget: Budget,
    rounds: int,
    model: WorldModel,
    start: Any,
    goal: Any,
    *,
    judged: bool = False,
) -> Pair:
    """A plan over the bare predictions of as many futures, as many at a time as the planner imagines at once.

    Args:
        planner, budget, model, start, goal: of the plan.
        rounds: how often both are timed.
        judged: beside the predictions, the model's own distances of them too, as the planner's objective asks for them.
    """
    size = model.action_space.size
    generator = torch.Generator(device=start.device).manual_seed(0)
    populations = [
        2 * torch.rand(1, n, planner.horizon, size, generator=generator, device=start.device) - 1
        for n in [*planner.populations(budget), 1]  # the belief's own middle, in the end
    ]

    def bare() -> None:
        with torch.inference_mode():
            for actions in populations:
                latents = model.predict(start, actions)
                if judged:
                    planner.objective(model, latents, actions, goal)

    return paired(lambda: planner.plan(model, start, goal, budget), bare, rounds, _wait(start))


def together(
    planner: Planner, budget: Budget, rounds: int, model: WorldModel, starts: Any, goals: Any
) -> tuple[Pair, float]:
    """Plans in turn over plans at once, and the largest difference of their actions."""

    def in_turn() -> torch.Tensor:
        plans = [planner.plan(model, starts[n : n + 1], goals[n : n + 1], budget) for n in range(len(starts))]
        return torch.cat([plan.actions for plan in plans])

    def at_once() -> torch.Tensor:
        return planner.plan(model, starts, goals, budget).actions

    apart = float((in_turn() - at_once()).abs().max())
    return paired(in_turn, at_once, rounds, _wait(starts)), apart


def run(words: Mapping[str, Any], planners: Sequence[Mapping[str, Any]], folder: Path, about: Mapping[str, Any]) -> int:
    """Measure, print the tables, write `speed.json` and `speed.md`.

    Args:
        words: the benchmark's settings.
        planners: the configs of the planners.
        folder: for what is written.
        about: command and versions, for the record.
    """
    from rich.console import Console

    asked = _check(words)
    made = {str(settings["name"]): make_planner(dict(settings), words["objective"]) for settings in planners}
    torch.set_num_threads(int(words["threads"]))
    console = Console()
    rounds = int(asked["rounds"])
    costs, savings, wholes = [], [], []
    with console.status("measuring") as status:
        many = max(int(asked["environments"]), *map(int, asked["batches"]))
        problems = make_problems("model", words, many, int(words["seed"]))
        _check_device(asked["captures"], problems.starts.device)
        world = LatentWorld(device=problems.starts.device)
        starts, goals = world.problems(1, int(words["seed"]))
        search = Budget(int(asked["samples"]), int(asked["iterations"]))
        for name, planner in made.items():
            if not isinstance(planner, SamplingPlanner) or sum(planner.populations(search)) < search.futures:
                continue  # bare predictions are no measure of what follows slopes, nor of what does not search
            status.update(f"overhead of {name}")
            inner = replace(
                planner, horizon=HORIZON, initial_std=0.8, within_prior=0.0, proposal_share=0.0, schedules=None,
                knots=None, repeat=1,
            )  # fmt: skip
            pair = overhead(inner, search, rounds, world, starts, goals)
            judged = overhead(inner, search, rounds, world, starts, goals, judged=True)
            costs.append({"planner": name, **asdict(pair), "judged_ratio": asdict(judged.ratio)})
        for name, planner in made.items():
            for samples, iterations in asked["budgets"]:
                status.update(f"{name}, {samples} x {iterations}, {asked['environments']} environments")
                budget = Budget(int(samples), int(iterations))
                at_once = slice(int(asked["environments"]))
                beginnings, ends = problems.starts[at_once], problems.goals[at_once]
                pair, apart = together(planner, budget, rounds, problems.model, beginnings, ends)
                savings.append({"planner": name, "budget": f"{samples} x {iterations}", **asdict(pair), "apart": apart})
        fastest = cache(partial(fastest_product, device=problems.starts.device))
        large = Budget(int(asked["whole"]["samples"]), int(asked["whole"]["iterations"]))
        for name, planner in made.items():
            for batch in map(int, asked["batches"]):
                for capture in asked["captures"]:
                    if not isinstance(planner, SamplingPlanner):
                        continue
                    status.update(f"{name}, a whole plan for {batch}, capture={capture}")
                    inner = replace(planner, horizon=int(asked["whole"]["horizon"]), capture=capture, schedules=None)
                    wholes.append(
                        whole(
                            name, inner, large, rounds, problems.model, problems.starts[:batch],
                            problems.goals[:batch], fastest, _wait(problems.starts),
                        )
                    )  # fmt: skip
    said = {
        **about, "seed": int(words["seed"]), "threads": torch.get_num_threads(), "rounds": rounds,
        "device": str(problems.starts.device), "environments": int(asked["environments"]),
        "overhead": costs, "together": savings, "whole": [{**asdict(one), "share": one.share} for one in wholes],
    }  # fmt: skip
    write_whole(folder / "speed.json", (json.dumps(said, indent=1, default=str) + "\n").encode())
    tables = [*_tables(said, search), _whole_table(wholes, said, asked["whole"], problems.model.name)]
    write_whole(folder / "speed.md", _page(said, tables).encode())
    for table in tables:
        if table.rows:
            console.print(table.drawn())
    console.print(f"{folder}: speed.json, speed.md")
    return 0


# -- inside ------------------------------------------------------------------------------------------------------------


def _check(words: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings `speed:`, or a sentence."""
    asked = words["speed"]
    for key, least in (("rounds", 2), ("environments", 2), ("samples", 1), ("iterations", 1)):
        if int(asked[key]) < least:
            raise ValueError(f"speed.{key} is {asked[key]}; it must be {least} or more")
    if not asked["budgets"] or any(not isinstance(pair, list) or len(pair) != 2 for pair in asked["budgets"]):
        raise ValueError(f"speed.budgets is {asked['budgets']}; give [samples,iterations] pairs, [[96,3],[16,1]]")
    try:
        for samples, iterations in asked["budgets"]:
            Budget(int(samples), int(iterations))
    except (TypeError, ValueError) as error:
        raise ValueError(f"speed.budgets is {asked['budgets']}: {error}") from None
    for key in ("samples", "iterations", "horizon"):
        if int(asked["whole"][key]) < 1:
            raise ValueError(f"speed.whole.{key} is {asked['whole'][key]}; it must be 1 or more")
    if not asked["batches"] or any(int(batch) < 1 for batch in asked["batches"]):
        raise ValueError(f"speed.batches is {asked['batches']}; give numbers of environments, [1,16]")
    wrong = [word for word in asked["captures"] if word not in CAPTURES]
    if wrong or not asked["captures"]:
        raise ValueError(f"speed.captures is {asked['captures']}; give some of [{','.join(CAPTURES)}]")
    if not isinstance(words["task"], str):
        raise ValueError(f"suite=speed asks for one task; task is {words['task']}, give one")
    return asked


def _check_device(captures: Sequence[str], device: torch.device) -> None:
    """Whether it can do that, before anything is measured."""
    recorded = [word for word in captures if word in ("graph", "both")]
    if recorded and device.type != "cuda":
        raise ValueError(f"speed.captures has {recorded[0]}, a CUDA graph, and the brain is on {device}; leave it out")


def _wait(like: torch.Tensor) -> Callable[[], None]:
    """Until the tensor's device is done."""
    return (lambda: torch.cuda.synchronize(like.device)) if like.device.type == "cuda" else (lambda: None)


def _said(estimate: Mapping[str, float]) -> str:
    return f"{estimate['value']:.2f} [{estimate['low']:.2f}, {estimate['high']:.2f}]"


def _tables(said: Mapping[str, Any], search: Budget) -> list[Table]:
    place = f"{said['device']}, {said['threads']} threads, {said['rounds']} rounds, median and 95 % interval"
    costs = [
        (
            one["planner"], f"{one['first_ms']:.1f}", f"{one['second_ms']:.1f}", _said(one["ratio"]),
            _said(one["judged_ratio"]),
        )
        for one in said["overhead"]
    ]  # fmt: skip
    savings = [
        (
            one["planner"], one["budget"], f"{one['first_ms']:.0f}", f"{one['second_ms']:.0f}", _said(one["ratio"]),
            "the same" if one["apart"] == 0.0 else f"{one['apart']:.1e} apart",
        )
        for one in said["together"]
    ]  # fmt: skip
    count = said["environments"]
    return [
        Table.plain(
            f"Overhead: {search.samples} x {search.iterations} futures of {HORIZON} steps in a random MLP ({place})",
            ("planner", "plan ms", "bare predictions ms", "plan over bare", "over predictions and their costs"), costs,
        ),
        Table.plain(
            f"{count} environments at once ({place})",
            ("planner", "futures", f"{count} plans in turn ms", "at once ms", "times as fast", "plans"), savings,
        ),
    ]  # fmt: skip


def _whole_table(wholes: Sequence[Whole], said: Mapping[str, Any], asked: Mapping[str, Any], brain: str) -> Table:
    rows = [
        (
            one.planner, str(one.environments), one.capture, f"{one.warm_up_s:.1f}", f"{one.median_ms:.1f}",
            f"{one.p99_ms:.1f}", f"{one.floor_ms:.2f}", f"{100 * one.share:.0f} %",
        )
        for one in wholes
    ]  # fmt: skip
    size = f"{asked['samples']} x {asked['iterations']} futures of {asked['horizon']} steps"
    return Table.plain(
        f"A whole plan: {size} with {brain} ({said['device']}, {said['threads']} threads, {said['rounds']} plans)",
        ("planner", "at once", "capture", "warm-up s", "plan ms", "p99 ms", "its products alone ms", "share"), rows,
    )  # fmt: skip


def _page(said: Mapping[str, Any], tables: Sequence[Table]) -> str:
    parts = ["# How fast the search is", f"```bash\n{said['command']}\n```"]
    for table in tables:
        parts += [f"## {table.title}", table.markdown()]
    return "\n\n".join(parts) + "\n"
