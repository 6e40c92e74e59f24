"""Running cells: episodes in several processes, each result on disk before the next counts, so that nothing is lost."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import torch

from envs.workers import obey_parent
from planners.ahead import Ahead
from planners.benchmark.brains import make_model
from planners.benchmark.cells import Cell
from planners.benchmark.episode import run_episode
from planners.benchmark.playing import played
from planners.goal import Goal
from planners.mpc import MPC
from planners.plan import Budget
from planners.registry import make_planner
from planners.subgoals import Subgoals
from planners.waypoints import Finder

Row = dict[str, Any]
# A suite of one's own is named by its place, `package.module:World-v0`, as Gymnasium does.
SUITES = {"tabletop": "premotor/Tabletop-v0"}


@dataclass(frozen=True)
class Job:
    """One episode of one cell; `record` is the folder for its rollout, if it is to be kept."""

    cell: Cell
    seed: int
    record: Path | None
    threads: int


class EpisodeLog:
    """`episodes.jsonl`: one line per finished episode, on disk before `append` returns; a torn last line is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.rows: list[Row] = self._read()

    def append(self, row: Row) -> None:
        """Add a finished episode."""
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.rows.append(row)

    def of(self, cell: Cell) -> dict[int, Row]:
        """The cell's rows by seed."""
        return {row["seed"]: row for row in self.rows if row["key"] == cell.key}

    def _read(self) -> list[Row]:
        if not self.path.is_file():
            return []
        text = self.path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        rows = []
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                row = json.loads(line)
                rows.append({**row, "seed": int(row["seed"]), "key": str(row["key"])})
            except (ValueError, KeyError, TypeError):
                raise ValueError(
                    f"{self.path} line {number} is no episode; it is damaged or not ours: move the file away or choose "
                    "another out"
                ) from None
        if len(whole) < len(text):
            # Killed while writing: the torn line never counted.
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
        return rows


def run_cells(
    cells: Sequence[Cell],
    seeds: Sequence[int],
    folder: Path,
    *,
    workers: int = 1,
    threads: int = 1,
    record: int = 0,
    on_episode: Callable[[Cell, Row], None] | None = None,
) -> EpisodeLog:
    """Run what is not on disk yet.

    Args:
        cells: what to measure.
        seeds: the episodes of each cell.
        folder: where `episodes.jsonl` and `rollouts/` lie.
        workers: processes; 1 runs in this one.
        threads: of each.
        record: keep the rollouts of the first so many episodes of each cell.
        on_episode: told about every episode as it is done.
    """
    log = EpisodeLog(folder / "episodes.jsonl")
    jobs = []
    for cell in cells:
        done = log.of(cell)
        for index, seed in enumerate(seeds):
            kept = folder / "rollouts" / cell.label / str(seed) if index < record else None
            if seed not in done or (kept is not None and not kept.exists() and not done[seed]["solved_at_start"]):
                jobs.append(Job(cell, seed, kept, threads))

    def finish(job: Job, row: Row) -> None:
        if job.seed not in log.of(job.cell):
            log.append(row)
        if on_episode is not None:
            on_episode(job.cell, row)

    if workers <= 1:
        for job in jobs:
            finish(job, play(job))
        return log
    # Spawned, not forked: a renderer's or a model's threads do not survive a fork.
    with ProcessPoolExecutor(
        min(workers, max(1, len(jobs))), multiprocessing.get_context("spawn"), initializer=obey_parent
    ) as pool:
        running: dict[Future[Row], Job] = {pool.submit(play, job): job for job in jobs}
        try:
            for future in as_completed(running):
                finish(running[future], future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return log


def play(job: Job) -> Row:
    """One episode of a cell; worlds and brains are kept between a process's episodes."""
    torch.set_num_threads(job.threads)
    cell = job.cell
    env, model = _env(cell), _model(cell, job.threads)
    planner = make_planner(cell.planner, cell.objective)
    budget = Budget(**cell.budget)
    subgoals = Subgoals.of(cell.subgoals)
    find: Callable[[int], Finder | None] = partial(_finder, cell, subgoals, env, model, planner, job.threads)
    result, rollout = run_episode(
        partial(_agent, model, planner, budget, find, subgoals, cell.ahead, cell.foresee),
        env,
        job.seed,
        about={
            "suite": cell.suite, "task": cell.task, "simulator": cell.simulator,
            "model": str(cell.model["name"]), "planner": str(cell.planner["name"]), "budget": dict(cell.budget),
        },
        record=job.record is not None,
        keys=model.required_keys,
    )  # fmt: skip
    if rollout is not None and job.record is not None:
        rollout.save(job.record)
    identity = {"key": cell.key, "suite": cell.suite, "task": cell.task, "simulator": cell.simulator}
    return {**identity, "model": str(cell.model["name"]), "planner": str(cell.planner["name"]), **result.to_dict()}


def _agent(
    model: Any,
    planner: Any,
    budget: Budget,
    find: Callable[[int], Finder | None],
    subgoals: Subgoals | None,
    ahead: int,
    foresee: bool,
    goal: Goal,
    seed: int,
) -> MPC:
    rule, route = None if subgoals is None else subgoals.rule, find(seed)
    if ahead:
        return Ahead(model, planner, goal, budget, seed, route=route, rule=rule, delay=ahead, foresee=foresee)
    return MPC(model, planner, goal, budget, seed, route=route, rule=rule)


_ENVS: dict[str, gymnasium.Env[Any, Any]] = {}
_MODELS: dict[str, Any] = {}
_GRAPHS: dict[str, Finder] = {}


def _env(cell: Cell, **more: Any) -> gymnasium.Env[Any, Any]:
    """The cell's world, made once in a process; `more` makes another one beside it."""
    import envs

    assert envs  # importing it registers the worlds
    words: Mapping[str, Any] = {"task": cell.task, "simulator": cell.simulator, **cell.world, **more}
    key = json.dumps([cell.suite, words], sort_keys=True)
    if key not in _ENVS:
        # Gymnasium's wrappers would end the episode at its own limits or check every step; the budget is the task's.
        _ENVS[key] = gymnasium.make(SUITES.get(cell.suite, cell.suite), disable_env_checker=True, **words)
    return _ENVS[key]


def _model(cell: Cell, threads: int) -> Any:
    """The cell's brain, made once in a process."""
    key = json.dumps([dict(cell.model), cell.task, threads], sort_keys=True)
    if key not in _MODELS:
        _MODELS[key] = make_model(cell.model, cell.task, threads)
    return _MODELS[key]


def _finder(
    cell: Cell,
    subgoals: Subgoals | None,
    env: gymnasium.Env[Any, Any],
    model: Any,
    planner: Any,
    threads: int,
    seed: int,
) -> Finder | None:
    """Who finds the ways of the episode with this seed, which its world is at the start of."""
    if subgoals is None:
        return None
    if subgoals.play is None:
        return _graph(cell, subgoals, model, planner, threads)
    return subgoals.graph_of(model, planner, *played(_env(cell, with_goal=False), env, seed, subgoals, model))


def _graph(cell: Cell, subgoals: Subgoals, model: Any, planner: Any, threads: int) -> Finder:
    """The ways that the cell's brain sees in the cell's data, looked for once in a process."""
    horizon, size = getattr(planner, "horizon", None), int(cell.world["image_size"])
    key = json.dumps([dict(cell.model), cell.task, threads, dict(cell.subgoals or {}), size, horizon], sort_keys=True)
    if key not in _GRAPHS:
        _GRAPHS[key] = subgoals.graph(model, planner, size)
    return _GRAPHS[key]
