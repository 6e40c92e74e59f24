"""`premotor bench suite=planners`: the search alone. What does a plan cost, for so many futures and so much time?

The same problems, the same brain, the same seeds and the same number of imagined futures for every planner, other people's
too (`search.peers`). A gradient counts as two more futures. What is compared is the cost of the plan that comes back,
computed afresh.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from planners.benchmark import search_report
from planners.benchmark.brains import make_model, weights_digest
from planners.benchmark.latent_world import HORIZON, LatentWorld
from planners.benchmark.peers import Asked, Peer, find
from planners.benchmark.report import write_whole
from planners.benchmark.stats import median
from planners.hybrid import Hybrid
from planners.objectives import FeatureDistance, LearnedDistance, Objective
from planners.plan import Budget
from planners.planner import Planner, per_dimension, resting_action
from planners.registry import make_objective, make_planner, nearest
from worldmodel.interface import WorldModel

# What searching in the latent world wants instead of the arm's settings.
_LATENT_SETTINGS = {
    "horizon": HORIZON, "initial_std": 0.8, "min_std": 0.02, "proposal_share": 0.0, "within_prior": 0.0,
    "steps": "newton", "starts": 3, "schedules": None, "knots": None, "repeat": 1,
}  # fmt: skip
# Of the brain's cost alone, not of what comes of it in the world: slopes may lead as far as other people's planners go.
_MODEL_SETTINGS = {"reach": 0.0}
# The simulator has no prior that proposes, and measures the true distance.
_SIMULATOR_SETTINGS = {"proposal_share": 0.0, "within_prior": 0.0}
PROBLEMS = ("latent", "model", "simulator")
# The kinds whose brain has no slopes to follow.
WITHOUT_SLOPES = ("simulator",)
# Enough for a peer to import what it needs.
WARMING = Budget(20, 1)


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


@dataclass(frozen=True)
class SearchSpace:
    """What a peer is given beside problem and budget: the steps of a plan, and where our planners begin to search."""

    horizon: int
    initial_std: float | Sequence[float]


class Kept:
    """Searches that were made before, by what decides them: a killed run goes on where it was stopped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._done: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else {}

    @classmethod
    def of(cls, problems: Problems, folder: Path, seed: int) -> Kept:
        """The file of exactly these problems."""
        return cls(folder / "searches" / f"{problems.name}-{problems.mark}-{len(problems.starts)}-{seed}.json")

    def get(self, key: Sequence[Any]) -> dict[str, Any] | None:
        """What was found, or None."""
        return self._done.get(json.dumps(key, sort_keys=True))

    def put(self, key: Sequence[Any], found: dict[str, Any]) -> None:
        """Keep it, at once and whole."""
        self._done[json.dumps(key, sort_keys=True)] = found
        write_whole(self.path, json.dumps(self._done).encode())


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
    peers = find(words["search"].get("peers") or [])
    spaces = {kind: search_space(kind, planners) for kind in kinds} if peers else {}
    torch.set_num_threads(int(words["threads"]))
    console = Console()
    if words["search"].get("tune"):
        from planners.benchmark.peers import tune

        return tune.run(words, peers, spaces, kinds, budgets, folder, str(about["command"]), console)
    count, seed = int(words["episodes"]), int(words["seed"])
    made = [make_planner(dict(settings), words["objective"]) for settings in planners]
    # Before any peer is imported: some bring a simulator along that would choose how to draw.
    every = [make_problems(kind, words, count, seed) for kind in kinds]
    rows: list[dict[str, Any]] = []
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console,
        transient=True,
    ) as progress:  # fmt: skip
        searches = len(kinds) * (len(made) + len(peers)) * len(budgets) * count
        bar = progress.add_task("searches", total=searches)
        for problems in every:
            kind = problems.name
            kept = Kept.of(problems, folder, seed)
            able = [one for one in [*planners, *peers] if kind not in WITHOUT_SLOPES or not follows_slopes(one)]
            left_out = [_name(one) for one in [*planners, *peers] if one not in able]
            if not able:
                raise ValueError(f"{kind} problems have no slopes to follow; add one that samples to planners=: cem")
            if left_out:
                console.print(f"{kind}: without {', '.join(left_out)}, who follow slopes; it has none.")
            progress.advance(bar, count * len(budgets) * len(left_out))
            for one, budget in itertools.product(able, budgets):
                if isinstance(one, Peer):
                    settings, space = one.settings(kind), spaces[kind]
                    key = peer_key(one, settings, space, words["objective"], budget)
                    search = partial(search_all_by_peer, problems, one, settings, space, budget)
                    who = {
                        "planner": _name(one),
                        "peer": {**one.about, "settings": settings, "tuned": kind in one.tuned},
                    }
                else:
                    key = [dict(one), words["objective"], budget.samples, budget.iterations]
                    search = partial(search_all, problems, one, words["objective"], budget)
                    who = {"planner": _name(one)}
                progress.update(bar, description=f"{kind}: {who['planner']}, {budget.futures} futures")
                found = kept.get(key)
                if found is None:
                    found = search(on_plan=lambda: progress.advance(bar))
                    kept.put(key, found)
                else:
                    progress.advance(bar, count)
                rows.append({"problems": kind, **who, "futures": budget.futures, **found})
    written = search_report.write(folder, rows, {**about, "seed": seed, "count": count})
    for kind in kinds:
        console.print(search_report.table([row for row in rows if row["problems"] == kind]).drawn())
    console.print(f"{folder}: {', '.join(path.name for path in written)}")
    return 0


def make_problems(kind: str, words: Mapping[str, Any], count: int, seed: int) -> Problems:
    """`latent`: a random world with reachable goals. `model`: the brain, asked for what a task wants. `simulator`: the same
    tasks with the true simulator for a brain and the true distance for a cost."""
    if kind == "latent":
        world = LatentWorld()
        starts, goals = world.problems(count, seed)
        return Problems(
            kind, world, world, starts, goals, Objective(feature=FeatureDistance()), _LATENT_SETTINGS, "random"
        )
    import gymnasium

    import envs
    from planners.benchmark.episode import SIMULATOR, visible_goal
    from planners.benchmark.suite import SUITES

    assert envs  # importing it registers the worlds
    true = kind == "simulator"
    config = {"name": "simulator"} if true else words["model"]
    model = make_model(config, str(words["task"]), int(words["threads"]))
    judge = model if true else make_model({**config, "precision": "float32"}, str(words["task"]), int(words["threads"]))
    world = {key: words[key] for key in ("simulator", "cameras", "image_size", "variation", "task")}
    env: Any = gymnasium.make(SUITES["tabletop"], disable_env_checker=True, **world)
    starts, goals = [], []
    for number in range(seed, seed + count):
        observation, info = env.reset(seed=number)
        observation[SIMULATOR] = env.unwrapped.save_state()
        starts.append(
            model.encode({key: torch.from_numpy(np.array(observation[key]))[None] for key in model.required_keys})
        )
        goal = visible_goal(info["goal"], model.required_keys).encode(model)
        assert isinstance(goal, Tensor)  # a scene's goal is one picture
        goals.append(goal)
    env.close()
    objective = Objective(learned=LearnedDistance()) if true else make_objective(words["objective"])
    decides = json.dumps([world, dict(config), weights_digest(config)], sort_keys=True)
    mark = hashlib.sha256(decides.encode()).hexdigest()[:12]
    settings = _SIMULATOR_SETTINGS if true else _MODEL_SETTINGS
    return Problems(kind, model, judge, torch.cat(starts), torch.cat(goals), objective, settings, mark)


def _name(planner: Mapping[str, Any] | Peer) -> str:
    return planner.name if isinstance(planner, Peer) else str(planner["name"])


def follows_slopes(planner: Mapping[str, Any] | Peer) -> bool:
    """Whether it asks for the gradient of a cost, which not every brain has."""
    return planner.slopes if isinstance(planner, Peer) else isinstance(make_planner(planner), Hybrid)


def search_space(kind: str, planners: Sequence[Mapping[str, Any]]) -> SearchSpace:
    """That of the kind of problems, or that of the first planner that has one."""
    for settings in (_LATENT_SETTINGS if kind == "latent" else {}, *planners):
        if {"horizon", "initial_std"} <= settings.keys():
            return SearchSpace(int(settings["horizon"]), settings["initial_std"])
    raise ValueError(
        "search.peers takes horizon and initial_std from our planners; add one to planners= that has both: cem"
    )


def peer_key(
    peer: Peer, settings: Mapping[str, Any], space: SearchSpace, objective: Mapping[str, Any], budget: Budget
) -> list[Any]:
    """What decides a peer's search, the library's version too."""
    return [peer.name, peer.version, dict(settings), asdict(space), objective, budget.samples, budget.iterations]


def search_all(
    problems: Problems,
    settings: Mapping[str, Any],
    objective: Mapping[str, Any],
    budget: Budget,
    on_plan: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """One planner on all problems, each alone: what its plans come to, and what they took.

    Returns:
        `costs` (N,) of the plans, `rest` (N,) of doing nothing, `ms` (N,), `imagined` futures of the median plan; how many
        plans were `unsound`, and the `largest_action` among the others before they were clipped.
    """
    own = {name: value for name, value in problems.settings.items() if name in settings}
    planner: Planner = make_planner({**settings, **own}, objective)
    if problems.settings and hasattr(planner, "objective"):
        planner = replace(planner, objective=problems.objective)  # type: ignore[type-var]

    def plan(number: int, here: Tensor, goal: Tensor) -> tuple[Tensor, int]:
        generator = torch.Generator(device=here.device).manual_seed(number)
        found = planner.plan(problems.model, here, goal, budget, generator=generator)
        return found.actions, found.futures

    return _search_each(problems, plan, on_plan)


def search_all_by_peer(
    problems: Problems,
    peer: Peer,
    settings: Mapping[str, Any],
    space: SearchSpace,
    budget: Budget,
    on_plan: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Somebody else's planner on the same problems with the same seeds: as `search_all`."""
    size = problems.model.action_space.size
    std = per_dimension(space.initial_std, size, "initial_std", torch.zeros(size, device=problems.starts.device))

    def asked(number: int, here: Tensor, goal: Tensor, budget: Budget) -> Asked:
        return Asked(
            problems.model,
            here,
            goal,
            problems.objective,
            space.horizon,
            budget.samples,
            budget.iterations,
            number,
            std,
        )

    def plan(number: int, here: Tensor, goal: Tensor) -> tuple[Tensor, int]:
        question = asked(number, here, goal, budget)
        return peer.plan(question, settings)[None], question.futures

    # A library's import is no part of a search's time.
    peer.plan(asked(0, problems.starts[:1], problems.goals[:1], WARMING), settings)
    return _search_each(problems, plan, on_plan)


def _search_each(
    problems: Problems, plan: Callable[[int, Tensor, Tensor], tuple[Tensor, int]], on_plan: Callable[[], None]
) -> dict[str, Any]:
    """Every problem alone: (number, start, goal) -> plan (1, H, A) and the futures it took.

    Plans are clipped to their bounds before they are judged; one that is not finite is judged as doing nothing.
    """
    plans, times, imagined = [], [], []
    for number in range(len(problems.starts)):
        here, goal = problems.starts[number : number + 1], problems.goals[number : number + 1]
        began = time.perf_counter()
        actions, futures = plan(number, here, goal)
        times.append(1000 * (time.perf_counter() - began))
        plans.append(actions.detach())
        imagined.append(futures)
        on_plan()
    drawn = torch.cat(plans)
    rest = resting_action(problems.model, drawn.device).expand_as(drawn)
    sound = torch.isfinite(drawn).all(-1).all(-1)
    actions = torch.where(sound[:, None, None], drawn.clamp(-1.0, 1.0), rest)
    return {
        "costs": problems.costs(actions).tolist(), "rest": problems.costs(rest).tolist(), "ms": times,
        "imagined": median(imagined), "unsound": int((~sound).sum()),
        "largest_action": float(drawn[sound].abs().max()) if sound.any() else 0.0,
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
