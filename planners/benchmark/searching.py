"""`premotor bench suite=planners`: the search alone. What does a plan cost, for so many futures and so much time?

The same problems, the same brain, the same seeds and the same number of imagined futures for every planner. A gradient
counts as two more futures. What is compared is the cost of the plan that comes back, computed afresh.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from planners.benchmark.brains import make_model, weights_digest
from planners.benchmark.latent_world import HORIZON, LatentWorld
from planners.benchmark.report import write_whole
from planners.benchmark.stats import Resampling, median, percentile_99
from planners.objectives import FeatureDistance, Objective
from planners.plan import Budget
from planners.planner import Planner, resting_action
from planners.registry import make_objective, make_planner, nearest
from worldmodel.interface import WorldModel

# What searching in the latent world wants instead of the arm's settings.
_LATENT_SETTINGS = {"horizon": HORIZON, "initial_std": 0.8, "min_std": 0.02, "proposal_share": 0.0, "within_prior": 0.0}
PROBLEMS = ("latent", "model")
# What the others are compared with, problem by problem.
BASELINE = "cem"
_COLOURS = ("#1f6f8b", "#c4553b", "#7a5195", "#5b8c3a", "#8a8f98", "#d18f2a")


@dataclass(frozen=True)
class Problems:
    """Starts and goals (N, *L), the brain that imagines and the one that judges, and what a plan is judged by."""

    name: str
    model: WorldModel
    judge: WorldModel
    starts: Tensor
    goals: Tensor
    objective: Objective
    settings: Mapping[str, Any]
    mark: str  # a name for exactly these problems and these weights

    def costs(self, actions: Tensor) -> np.ndarray:
        """What plans (N, H, A), one for each problem, come to: (N,), as the judge imagines them."""
        with torch.inference_mode():
            latents = self.judge.predict(self.starts, actions[:, None])
            terms = self.objective(self.judge, latents, actions[:, None], self.goals)
        return torch.stack([value.float() for value in terms.values()]).sum(0)[:, 0].cpu().numpy()


def run(words: Mapping[str, Any], planners: Sequence[Mapping[str, Any]], folder: Path, about: Mapping[str, Any]) -> int:
    """Search, write `planners.json`, `planners.md` and a picture for every kind of problem, print the tables.

    Args:
        words: the benchmark's settings.
        planners: the configs of the planners.
        folder: for all that is written; the same folder again goes on where it was stopped.
        about: command and versions, for the record.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    kinds, budgets = _check(words)
    torch.set_num_threads(int(words["threads"]))
    console = Console()
    count, seed = int(words["episodes"]), int(words["seed"])
    made = [make_planner(dict(settings), words["objective"]) for settings in planners]
    rows: list[dict[str, Any]] = []
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console,
        transient=True,
    ) as progress:  # fmt: skip
        bar = progress.add_task("searches", total=len(kinds) * len(made) * len(budgets) * count)
        for kind in kinds:
            problems = make_problems(kind, words, count, seed)
            kept = folder / "searches" / f"{kind}-{problems.mark}-{count}-{seed}.json"
            done = json.loads(kept.read_text()) if kept.is_file() else {}
            for settings in planners:
                for budget in budgets:
                    key = json.dumps(
                        [dict(settings), words["objective"], budget.samples, budget.iterations], sort_keys=True
                    )
                    progress.update(bar, description=f"{kind}: {settings['name']}, {budget.futures} futures")
                    if key not in done:
                        done[key] = search_all(
                            problems, settings, words["objective"], budget, lambda: progress.advance(bar)
                        )
                        write_whole(kept, json.dumps(done).encode())
                    else:
                        progress.advance(bar, count)
                    rows.append(
                        {"problems": kind, "planner": str(settings["name"]), "futures": budget.futures, **done[key]}
                    )
    written = _write(folder, rows, {**about, "seed": seed, "count": count})
    for kind in kinds:
        console.print(_table([row for row in rows if row["problems"] == kind]))
    console.print(f"{folder}: {', '.join(path.name for path in written)}")
    return 0


def make_problems(kind: str, words: Mapping[str, Any], count: int, seed: int) -> Problems:
    """`latent`: a random world with reachable goals. `model`: the brain, asked for what a task wants."""
    if kind == "latent":
        world = LatentWorld()
        starts, goals = world.problems(count, seed)
        return Problems(
            kind, world, world, starts, goals, Objective(feature=FeatureDistance()), _LATENT_SETTINGS, "random"
        )
    import gymnasium

    import envs
    from planners.benchmark.episode import visible_goal
    from planners.benchmark.suite import SUITES

    assert envs  # importing it registers the worlds
    config = words["model"]
    model = make_model(config, str(words["task"]), int(words["threads"]))
    judge = make_model({**config, "precision": "float32"}, str(words["task"]), int(words["threads"]))
    world = {key: words[key] for key in ("simulator", "cameras", "image_size", "variation", "task")}
    env: Any = gymnasium.make(SUITES["tabletop"], disable_env_checker=True, **world)
    starts, goals = [], []
    for number in range(seed, seed + count):
        observation, info = env.reset(seed=number)
        starts.append(
            model.encode({key: torch.from_numpy(np.array(observation[key]))[None] for key in model.required_keys})
        )
        goal = visible_goal(info["goal"], model.required_keys).encode(model)
        assert isinstance(goal, Tensor)  # a scene's goal is one picture
        goals.append(goal)
    env.close()
    objective = make_objective(words["objective"])
    decides = json.dumps([world, dict(config), weights_digest(config)], sort_keys=True)
    mark = hashlib.sha256(decides.encode()).hexdigest()[:12]
    return Problems(kind, model, judge, torch.cat(starts), torch.cat(goals), objective, {}, mark)


def search_all(
    problems: Problems,
    settings: Mapping[str, Any],
    objective: Mapping[str, Any],
    budget: Budget,
    on_plan: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """One planner on all problems, each alone: what its plans come to, and what they took.

    Returns:
        `costs` (N,) of the plans, `rest` (N,) of doing nothing, `ms` (N,), `imagined` futures of the median plan.
    """
    own = {name: value for name, value in problems.settings.items() if name in settings}
    planner: Planner = make_planner({**settings, **own}, objective)
    if problems.settings and hasattr(planner, "objective"):
        planner = replace(planner, objective=problems.objective)  # type: ignore[type-var]
    plans, times, imagined = [], [], []
    for number in range(len(problems.starts)):
        here, goal = problems.starts[number : number + 1], problems.goals[number : number + 1]
        generator = torch.Generator(device=here.device).manual_seed(number)
        began = time.perf_counter()
        plan = planner.plan(problems.model, here, goal, budget, generator=generator)
        times.append(1000 * (time.perf_counter() - began))
        plans.append(plan.actions)
        imagined.append(plan.futures)
        on_plan()
    actions = torch.cat(plans)
    rest = resting_action(problems.model, actions.device).expand_as(actions)
    return {
        "costs": problems.costs(actions).tolist(), "rest": problems.costs(rest).tolist(), "ms": times,
        "imagined": median(imagined),
    }  # fmt: skip


# -- the door ----------------------------------------------------------------------------------------------------------


def _check(words: Mapping[str, Any]) -> tuple[list[str], list[Budget]]:
    """The kinds of problems and the budgets, or a sentence."""
    asked = words["search"]
    kinds, futures = [str(kind) for kind in asked["problems"]], [int(number) for number in asked["futures"]]
    iterations = int(asked["iterations"])
    for kind in kinds:
        if kind not in PROBLEMS:
            raise ValueError(f"search.problems has {kind!r}{nearest(kind, PROBLEMS)}")
    if not kinds or not futures:
        raise ValueError("search.problems and search.futures must each name at least one")
    if iterations < 1 or min(futures) < iterations:
        raise ValueError(
            f"search.futures is {futures}, search.iterations {iterations}; every iteration imagines at least one future"
        )
    if int(words["episodes"]) < 2:
        raise ValueError(f"episodes is {words['episodes']}; intervals over problems need at least 2, good ones 100")
    if not isinstance(words["task"], str):
        raise ValueError(f"suite=planners asks for one task; task is {words['task']}, give one")
    return kinds, [Budget(number // iterations, iterations) for number in futures]


# -- what is written and shown -----------------------------------------------------------------------------------------


def _figures(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each search came to: the cost over that of doing nothing, and over plain CEM's, problem by problem."""
    plain = {row["futures"]: row for row in rows if row["planner"] == BASELINE}
    out = []
    for row in rows:
        costs, rest = np.array(row["costs"]), np.array(row["rest"])
        resampling = Resampling(len(costs))
        share = costs / rest
        figures = {
            **{key: row[key] for key in ("problems", "planner", "futures", "imagined")},
            "cost_over_rest": asdict(resampling.estimate(lambda w, x=share: float(w @ x / w.sum()))),
            "cost": float(costs.mean()),
            "ms_median": median(row["ms"]),
            "ms_p99": percentile_99(row["ms"]),
        }
        base = plain.get(row["futures"])
        if base is not None and row["planner"] != BASELINE:
            apart = share - np.array(base["costs"]) / np.array(base["rest"])
            figures[f"minus_{BASELINE}"] = asdict(resampling.estimate(lambda w, x=apart: float(w @ x / w.sum())))
        out.append(figures)
    return out


def _said(estimate: Mapping[str, float]) -> str:
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


_COLUMNS = ("planner", "futures", "cost over rest (95 %)", f"minus {BASELINE}'s, paired", "ms (p99)")


def _lines(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    return [
        (
            one["planner"], f"{one['imagined']:.0f}", _said(one["cost_over_rest"]),
            _said(one[f"minus_{BASELINE}"]) if f"minus_{BASELINE}" in one else "",
            f"{one['ms_median']:.0f} ({one['ms_p99']:.0f})",
        )
        for one in _figures(rows)
    ]  # fmt: skip


def _table(rows: Sequence[Mapping[str, Any]]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    title = f"{len(rows[0]['costs'])} problems of kind {rows[0]['problems']}"
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, column in enumerate(_COLUMNS):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=bool(number))
    for line in _lines(rows):
        table.add_row(*line)
    return table


def _write(folder: Path, rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> list[Path]:
    kinds = list(dict.fromkeys(row["problems"] for row in rows))
    by_kind = {kind: [row for row in rows if row["problems"] == kind] for kind in kinds}
    written = [folder / "planners.json", folder / "planners.md"]
    figures = [one for kind in kinds for one in _figures(by_kind[kind])]
    write_whole(written[0], (json.dumps({**about, "figures": figures}, indent=1, default=str) + "\n").encode())
    page = [
        "# The search alone",
        f"{about['count']} problems of each kind from seed {about['seed']}, one at a time. Cost of the plan that came back, "
        "judged in float32, over that of doing nothing; mean and 95 % interval over problems (bootstrap). A gradient counts "
        "as two futures.",
        f"```bash\n{about['command']}\n```",
    ]
    for kind in kinds:
        heads = [f"| {' | '.join(line)} |" for line in (_COLUMNS, ("---",) * len(_COLUMNS))]
        lines = [f"| {' | '.join(line)} |" for line in _lines(by_kind[kind])]
        page += [f"## {kind}", "\n".join([*heads, *lines]), f"![cost](planners-{kind}.png)"]
        written.append(_draw(by_kind[kind], folder / f"planners-{kind}.png"))
    write_whole(written[1], ("\n\n".join(page) + "\n").encode())
    return written


def _draw(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Cost against futures and against milliseconds, a line for each planner."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter

    figures = _figures(rows)
    with plt.rc_context({"axes.spines.top": False, "axes.spines.right": False, "font.size": 10}):
        figure, axes = plt.subplots(1, 2, figsize=(9.6, 4.0), sharey=True)
        for planner, colour in zip(dict.fromkeys(one["planner"] for one in figures), itertools.cycle(_COLOURS)):
            own = [one for one in figures if one["planner"] == planner]
            value, low, high = (
                np.array([max(one["cost_over_rest"][end], 1e-6) for one in own]) for end in ("value", "low", "high")
            )
            for axis, what in zip(axes, ("imagined", "ms_median"), strict=True):
                axis.plot([one[what] for one in own], value, color=colour, marker="o", markersize=4, label=planner)
                axis.fill_between([one[what] for one in own], low, high, color=colour, alpha=0.15, linewidth=0)
        for axis, name in zip(axes, ("futures imagined", "milliseconds, median"), strict=True):
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.set_xlabel(name)
            axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_formatter(NullFormatter())
        axes[0].set_ylabel("cost over doing nothing")
        axes[0].legend(frameon=False)
        figure.tight_layout()
        unfinished = path.with_name(f".{path.stem}.unfinished.png")
        figure.savefig(unfinished, dpi=130)
        plt.close(figure)
    os.replace(unfinished, path)
    return path
