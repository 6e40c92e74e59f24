"""`premotor collect`: seeded play in several processes into a LeRobotDataset v3, killed and resumed at will.

Episode i is a function of (recipe, i) alone: neither the number of workers nor an interruption changes it. Finished
episodes are staged one file each (`episode_store`); when all are there they become the dataset (`lerobot_files`). The
same command goes on where the last one stopped, and a larger `episodes` continues a finished dataset.
"""

from __future__ import annotations

import contextlib
import functools
import json
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envs.episode_store import Episode, keep_whole, own_folder, stage, staged_paths, write_atomically
from envs.lerobot_files import check_files, finish, finished_episodes
from envs.recipe import Recipe, play_episode
from envs.workers import obey_parent

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["Collected", "Recipe", "collect", "main", "play_episode"]

RECIPE = "meta/collection.json"


@dataclass(frozen=True)
class Collected:
    """What a collection did: episodes played now and kept from before, frames in the dataset, steps/s of playing."""

    played: int
    kept: int
    frames: int
    steps_per_s: float
    finish_s: float


def collect(recipe: Recipe, root: Path, workers: int = 2) -> Collected:
    """Play what is missing and finish the dataset at `root`."""
    if workers < 1:
        raise ValueError(f"workers is {workers}; it must be at least 1")
    layout = recipe.layout()
    with _owned(root):
        _check_recipe(recipe, root)
        finished = finished_episodes(root)
        if finished:
            check_files(root, layout)
        staged = keep_whole(root, layout)
        if not finished and not staged:
            write_atomically(root / RECIPE, json.dumps(asdict(recipe), indent=2).encode())
        missing = [i for i in range(finished, recipe.episodes) if i not in staged]
        began, steps = time.monotonic(), 0
        if missing:
            steps = _play_all(recipe, root, missing, min(workers, len(missing)))
        played = time.monotonic()
        frames = finish(root, layout, max(recipe.episodes, finished), robot_type=recipe.robot_type)
        if recipe.episodes > finished:
            write_atomically(root / RECIPE, json.dumps(asdict(recipe), indent=2).encode())
    return Collected(
        played=len(missing),
        kept=max(recipe.episodes, finished) - len(missing),
        frames=frames,
        steps_per_s=steps / (played - began) if missing else 0.0,
        finish_s=time.monotonic() - played,
    )


@contextlib.contextmanager
def _owned(root: Path) -> Iterator[None]:
    """The folder, made if need be and ours alone while we write; the lock ends with the process, however it ends."""
    folder = own_folder(root, "out")
    try:
        yield
    finally:
        os.close(folder)


def _check_recipe(recipe: Recipe, root: Path) -> None:
    """Refuse a folder that holds something else than this recipe's episodes."""
    note = root / RECIPE
    if not note.exists():
        if any(path.is_file() and path.suffix != ".part" for path in root.rglob("*")):
            raise ValueError(f"{root} holds something that is no collection of ours; choose another out=")
        return
    try:
        before = _settings(json.loads(note.read_text()), recipe.defaults)
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{note} is damaged; delete {root} and collect again") from None
    now = _settings(json.loads(json.dumps(asdict(recipe))), recipe.defaults)
    # Of another world nearly everything differs; that it is another says it.
    names = ["env_id", *sorted(now | before)]
    differing = [name for name in names if before.get(name) != now.get(name)]
    # Where nothing was played yet, a mistaken setting may still be corrected.
    if differing and (finished_episodes(root) or staged_paths(root)):
        name = differing[0]
        raise ValueError(
            f"{root} was collected with {name}={before.get(name)}, not {now.get(name)}; choose another out= or the "
            "same settings"
        )


def _settings(recipe: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """What must stay the same while a dataset grows."""
    same = {name: recipe[name] for name in ("env_id", "policy", "steps_per_episode", "seed")}
    for name in ("episodes_per_scene", "episodes_per_motion"):
        same[name] = recipe.get(name, 1)
    return same | {f"env.{name}": value for name, value in {**defaults, **recipe["env"]}.items()}


# -- processes ---------------------------------------------------------------------------------------------------------


def _play_all(recipe: Recipe, root: Path, missing: list[int], workers: int) -> int:
    """Play the missing episodes and stage them; returns how many steps that took."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("collect"), BarColumn(), MofNCompleteColumn(), TextColumn("episodes"),
        TextColumn("{task.fields[rate]:.0f} steps/s"), TimeRemainingColumn(),
    )  # fmt: skip
    began = time.monotonic()
    # Spawned, because a forked renderer does not survive.
    context = multiprocessing.get_context("spawn")
    with (
        _one_thread_each(),
        ProcessPoolExecutor(workers, mp_context=context, initializer=obey_parent) as pool,
        Progress(*columns) as progress,
    ):
        bar = progress.add_task("", total=recipe.episodes, completed=recipe.episodes - len(missing), rate=0.0)
        motions: dict[int, list[int]] = {}
        for index in missing:
            motions.setdefault(recipe.leader(index), []).append(index)
        futures = {pool.submit(_play_motion, recipe, root, indices): indices for indices in motions.values()}
        steps = 0
        try:
            for future in as_completed(futures):
                steps += future.result()
                rate = steps / (time.monotonic() - began)
                progress.update(bar, advance=len(futures[future]), rate=rate)
        except BrokenProcessPool:
            raise RuntimeError(
                f"a process playing episodes for {root} was killed (out of memory?); run the same command again to "
                "go on, with fewer workers= if it happens again"
            ) from None
        except Exception as error:
            raise RuntimeError(f"episode {futures[future][0]} could not be collected into {root}: {error}") from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return steps


def _play_motion(recipe: Recipe, root: Path, indices: list[int]) -> int:
    """In a worker: the missing episodes of one motion, each staged as soon as it is played; returns their steps."""
    world = _world(type(recipe), json.dumps(asdict(recipe)))
    led: Episode | None = None
    if any(recipe.leader(index) != index for index in indices):
        led = recipe.play(world, recipe.leader(indices[0]))
    steps = 0
    for index in indices:
        whole = led if led is not None and led.index == index else recipe.play(world, index, led)
        stage(root, recipe.layout(), whole)
        steps += len(whole.vectors["action"]) - 1
    return steps


@functools.cache
def _world(kind: type[Recipe], recipe: str) -> Any:
    """In a worker: its one world."""
    return kind(**json.loads(recipe)).open()


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started inside render and calculate with one thread each: the processes are the parallelism."""
    settings = {"LP_NUM_THREADS": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    saved = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


# -- the command -------------------------------------------------------------------------------------------------------


def _whole(cfg: DictConfig, name: str) -> int:
    value = cfg.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name}={value} is not a whole number")
    return value


def _recipe(env: dict[str, Any], about: Mapping[str, Any]) -> Recipe:
    """The tabletop's (or of a world with its face), or any other Gymnasium world's: those are made with `kwargs`."""
    if "kwargs" in env:
        from envs.any_recipe import world_recipe

        recipe, sentences = world_recipe(env, **about)
        print("\n".join(sentences))
        return recipe
    env_id = str(env.pop("id", "premotor/Tabletop-v0"))
    return Recipe(env_id=env_id, env={key: value for key, value in env.items() if value is not None}, **about)


def main(cfg: DictConfig) -> int:
    """`premotor collect`."""
    from omegaconf import OmegaConf

    env = OmegaConf.to_container(cfg.env, resolve=True)
    if not isinstance(env, dict):
        raise ValueError(f"env is {env!r}; choose one of the group's, e.g. env=tabletop/push")
    env = {str(key): value for key, value in env.items()}
    about: dict[str, Any] = {"policy": str(cfg.policy)}
    about |= {name: _whole(cfg, name) for name in ("episodes", "steps_per_episode", "seed")}
    about |= {name: _whole(cfg, name) for name in ("episodes_per_scene", "episodes_per_motion")}
    if not cfg.get("out"):
        raise ValueError("say where the dataset goes with out=DIR")
    root = Path(str(cfg.out))
    workers = os.cpu_count() or 1 if cfg.get("workers") is None else _whole(cfg, "workers")
    recipe = _recipe(env, about)
    try:
        done = collect(recipe, root, workers)
    except KeyboardInterrupt:
        print(f"Stopped; what was played is kept in {root}. Run the same command again to go on.")
        return 130
    if done.played:
        print(f"{done.played} episodes played at {done.steps_per_s:.0f} steps/s, {done.kept} kept from before.")
    else:
        print(f"{root} is complete already; nothing was played.")
    episodes = done.played + done.kept
    print(f"{root}: {episodes} episodes, {done.frames} frames (LeRobotDataset v3).")
    if done.frames < (whole := episodes * (recipe.steps_per_episode + 1)):
        print(f"Some episodes are shorter, because the world ended them: all together by {whole - done.frames} frames.")
    return 0
