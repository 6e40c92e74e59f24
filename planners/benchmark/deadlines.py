"""`premotor bench suite=deadlines`: does a search end when it was told to, and with a plan?

Every planner is given far more to imagine than there is time for. How much later than its deadline a plan comes back is
measured from outside, by the clock on the wall. The same by the processor's clock is told beside it: on a machine that is
shared, the difference is time in which somebody else had the processor.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from planners.benchmark.report import write_whole
from planners.benchmark.searching import Problems, make_problems
from planners.benchmark.stats import median, percentile_99
from planners.benchmark.tables import Table
from planners.floors import Floor
from planners.plan import Budget
from planners.planner import Planner
from planners.registry import make_planner

# The bar: by so much at most the 99th percentile may come late on a CPU.
BAR_MS = 5.0
_COLUMNS = (
    "planner", "deadline ms", "late ms: median", "p99", "worst", "by the processor's clock: p99", "futures", "with a plan",
)  # fmt: skip


def run(words: Mapping[str, Any], planners: Sequence[Mapping[str, Any]], folder: Path, about: Mapping[str, Any]) -> int:
    """Search against the clock, write `deadlines.json` and `deadlines.md`, print the table.

    Args:
        words: the benchmark's settings; `episodes` is how many plans are made with each planner and deadline.
        planners: the configs of the planners.
        folder: for what is written.
        about: command and versions, for the record.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    deadlines, warm_up = _check(words)
    torch.set_num_threads(int(words["threads"]))
    made = [(str(settings["name"]), make_planner(dict(settings), words["objective"])) for settings in planners]
    for name, planner in made:
        if isinstance(planner, Floor):
            raise ValueError(f"planner {name} does not search, so that no deadline can end it; leave it out")
    console = Console()
    count, seed = int(words["episodes"]), int(words["seed"])
    asked = words["deadlines"]
    problems = make_problems("model", words, count, seed)
    rows = []
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console,
        transient=True,
    ) as progress:  # fmt: skip
        bar = progress.add_task("searches", total=len(made) * len(deadlines) * count)
        for name, planner in made:
            for deadline_ms in deadlines:
                progress.update(bar, description=f"{name}, {deadline_ms:g} ms")
                budget = Budget(int(asked["samples"]), int(asked["iterations"]), deadline_ms)
                plans = against_the_clock(problems, planner, budget, warm_up, lambda: progress.advance(bar))
                rows.append({"planner": name, "deadline_ms": deadline_ms, "plans": plans})
    written = _write(folder, rows, {**about, "seed": seed, "count": count, "warm_up": warm_up, "search": dict(asked)})
    console.print(_table(rows, count).drawn())
    console.print(f"{folder}: {', '.join(path.name for path in written)}")
    return 0


def against_the_clock(
    problems: Problems,
    planner: Planner,
    budget: Budget,
    warm_up: int = 0,
    on_plan: Callable[[], None] = lambda: None,
    wall: Callable[[], float] = time.perf_counter,
    processor: Callable[[], float] = time.process_time,
) -> list[dict[str, Any]]:
    """One plan for each problem, alone, after a few that do not count.

    Returns:
        for every plan `ms`, `processor_ms`, `futures`, `out_of_time` and whether it `held`.
    """
    rows = []
    count = len(problems.starts)
    for number in [*(n % count for n in range(warm_up)), *range(count)]:
        here, goal = problems.starts[number : number + 1], problems.goals[number : number + 1]
        generator = torch.Generator(device=here.device).manual_seed(number)
        began, worked = wall(), processor()
        plan = planner.plan(problems.model, here, goal, budget, generator=generator)
        ms, processor_ms = 1000 * (wall() - began), 1000 * (processor() - worked)
        rows.append(
            {
                "ms": ms, "processor_ms": processor_ms, "futures": plan.futures, "out_of_time": plan.out_of_time,
                "held": bool(plan.held.any()),
            }
        )  # fmt: skip
        if len(rows) > warm_up:
            on_plan()
    return rows[warm_up:]


def figures(row: Mapping[str, Any]) -> dict[str, Any]:
    """What one planner with one deadline came to; how late is negative where a plan came back before its deadline."""
    plans, deadline_ms = row["plans"], float(row["deadline_ms"])
    late = [plan["ms"] - deadline_ms for plan in plans]
    return {
        "planner": row["planner"],
        "deadline_ms": deadline_ms,
        "late_ms_median": median(late),
        "late_ms_p99": percentile_99(late),
        "late_ms_worst": max(late),
        "late_processor_ms_p99": percentile_99([plan["processor_ms"] - deadline_ms for plan in plans]),
        "futures_median": median([plan["futures"] for plan in plans]),
        "ended_by_deadline": sum(plan["out_of_time"] for plan in plans) / len(plans),
        "with_a_plan": sum(not plan["held"] for plan in plans) / len(plans),
    }


def _check(words: Mapping[str, Any]) -> tuple[list[float], int]:
    """The deadlines and how many plans warm up, or a sentence."""
    asked = words["deadlines"]
    deadlines, warm_up = [float(ms) for ms in asked["ms"]], int(asked["warm_up"])
    if not deadlines or not all(math.isfinite(ms) and ms > 0 for ms in deadlines):
        raise ValueError(f"deadlines.ms is {deadlines}; list at least one, each above 0")
    if warm_up < 0:
        raise ValueError(f"deadlines.warm_up is {warm_up}; it is a number of plans, 0 or more")
    if int(words["episodes"]) < 1:
        raise ValueError(f"episodes is {words['episodes']}; a figure needs at least 1 plan, a percentile 100")
    if not isinstance(words["task"], str):
        raise ValueError(f"suite=deadlines asks for one task; task is {words['task']}, give one")
    Budget(int(asked["samples"]), int(asked["iterations"]))
    return deadlines, warm_up


# -- what is written and shown -----------------------------------------------------------------------------------------


def _line(row: Mapping[str, Any]) -> tuple[str, ...]:
    one = figures(row)
    return (
        one["planner"], f"{one['deadline_ms']:g}", f"{one['late_ms_median']:+.1f}", f"{one['late_ms_p99']:+.1f}",
        f"{one['late_ms_worst']:+.1f}", f"{one['late_processor_ms_p99']:+.1f}", f"{one['futures_median']:.0f}",
        f"{100 * one['with_a_plan']:.0f} %",
    )  # fmt: skip


def _table(rows: Sequence[Mapping[str, Any]], count: int) -> Table:
    title = f"{count} plans each; the bar is {BAR_MS:g} ms at the 99th percentile"
    return Table.plain(title, _COLUMNS, [_line(row) for row in rows])


def _write(folder: Path, rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> list[Path]:
    written = [folder / "deadlines.json", folder / "deadlines.md"]
    found = [figures(row) for row in rows]
    content = {**about, "figures": found, "plans": list(rows)}
    write_whole(written[0], (json.dumps(content, indent=1, default=str) + "\n").encode())
    asked = about["search"]
    page = [
        "# Deadlines",
        f"{about['count']} plans with each planner and deadline, from seed {about['seed']}, one at a time, after "
        f"{about['warm_up']} that do not count; {asked['iterations']} x {asked['samples']} futures would be the budget. How "
        "much later than its deadline a plan came back (negative: before it), by the clock on the wall, and at the 99th "
        "percentile also by the processor's.",
        f"```bash\n{about['command']}\n```",
        _table(rows, about["count"]).markdown(),
    ]
    write_whole(written[1], ("\n\n".join(page) + "\n").encode())
    return written
