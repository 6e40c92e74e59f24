"""`premotor collect`: seeded play in several processes into a LeRobotDataset v3, killed and resumed at will.

Episode i is a function of (recipe, seed, i) alone: neither the number of workers nor an interruption changes it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from envs.episode_store import RECIPE, Episode, Layout, finalise, finished_episodes, write_episode
from envs.tabletop import ACTION_NAMES, JOINT_NAMES, POLICY_HZ, STATE_NAMES

if TYPE_CHECKING:
    from omegaconf import DictConfig

VECTORS = {
    "observation.state": STATE_NAMES,
    "observation.joints": JOINT_NAMES,
    "observation.environment_state": ("object_x", "object_y", "object_z", "qw", "qx", "qy", "qz"),
    "action": ACTION_NAMES,
    "action.executed": ACTION_NAMES,
}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a dataset contains."""

    env_id: str
    env: dict[str, Any]
    policy: str
    episodes: int
    steps_per_episode: int
    seed: int

    def __post_init__(self) -> None:
        from envs.play import POLICIES

        if self.policy not in POLICIES:
            raise ValueError(f"no play policy is called {self.policy!r}; known are {', '.join(POLICIES)}")
        for name in ("episodes", "steps_per_episode"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must not be negative")

    def layout(self) -> Layout:
        """What its episodes hold."""
        return Layout(
            cameras=tuple(self.env.get("cameras", ("front",))),
            image_size=int(self.env.get("image_size", 64)),
            fps=round(POLICY_HZ),
            vectors=VECTORS,
        )


def play_episode(env: Any, recipe: Recipe, index: int) -> Episode:
    """Episode `index` of a recipe, played in an environment made from it."""
    from envs.play import make_policy

    rng = np.random.default_rng([recipe.seed, index])
    observation, info = env.reset(seed=int(rng.integers(2**31)))
    policy = make_policy(recipe.policy, env, rng)
    frames: dict[str, list[np.ndarray]] = {camera: [] for camera in recipe.layout().cameras}
    vectors: dict[str, list[np.ndarray]] = {name: [] for name in VECTORS}

    def note(observation: dict[str, np.ndarray], truth: np.ndarray) -> None:
        for camera, pictures in frames.items():
            pictures.append(observation[f"observation.images.{camera}"])
        for name in ("observation.state", "observation.joints"):
            vectors[name].append(observation[name])
        vectors["observation.environment_state"].append(truth)

    for _ in range(recipe.steps_per_episode):
        note(observation, info["observation.environment_state"])
        action = policy()
        observation, _, _, _, info = env.step(action)
        vectors["action"].append(action)
        vectors["action.executed"].append(info["action.executed"])
    note(observation, info["observation.environment_state"])
    for name in ("action", "action.executed"):
        vectors[name].append(np.zeros(len(ACTION_NAMES), np.float32))
    return Episode(
        index=index,
        task=f"play: {recipe.policy}",
        frames={camera: np.stack(pictures) for camera, pictures in frames.items()},
        vectors={name: np.stack(values).astype(np.float32) for name, values in vectors.items()},
    )


def _work(recipe: Recipe, root: Path, todo: Any, done: Any) -> None:
    """One worker process: take indices until there are none."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    import gymnasium

    import envs as _worlds  # noqa: F401  registers them

    try:
        env = gymnasium.make(recipe.env_id, disable_env_checker=True, **recipe.env, with_goal=False).unwrapped
        while (index := todo.get()) is not None:
            write_episode(root, recipe.layout(), play_episode(env, recipe, index))
            done.put(index)
        env.close()
    except Exception as error:
        done.put(f"{type(error).__name__}: {error}")


def collect(recipe: Recipe, root: Path, workers: int = 2) -> dict[str, Any]:
    """Play what is missing and write the dataset; returns figures (episodes played, steps/s, frames)."""
    _check_target(recipe, root)
    layout = recipe.layout()
    whole = finished_episodes(root, layout, recipe.episodes)
    missing = [index for index in range(recipe.episodes) if index not in whole]
    began = time.monotonic()
    if missing:
        (root / "meta").mkdir(parents=True, exist_ok=True)
        (root / RECIPE).write_text(json.dumps(asdict(recipe), indent=2))
        _play_all(recipe, root, missing, max(1, min(workers, len(missing))))
    seconds = time.monotonic() - began
    frames = finalise(
        root, layout, range(recipe.episodes), robot_type="panda", extra=asdict(recipe) | {"format": "premotor play"}
    )
    steps = len(missing) * recipe.steps_per_episode
    return {
        "played": len(missing),
        "kept": len(whole),
        "frames": frames,
        "steps_per_s": steps / seconds if missing else 0.0,
    }


def _check_target(recipe: Recipe, root: Path) -> None:
    if not root.exists() or not any(root.iterdir()):
        return
    note = root / RECIPE
    if not note.exists():
        raise ValueError(f"{root} holds something that is no collection of ours; choose another out=")
    before = json.loads(note.read_text())
    now = json.loads(json.dumps(asdict(recipe)))
    # More episodes of the same recipe are a continuation; anything else would mix two recipes.
    differing = [k for k in now if k != "episodes" and before.get(k) != now[k]]
    if differing:
        raise ValueError(
            f"{root} was collected with {differing[0]}={before.get(differing[0])}, not {now[differing[0]]}; "
            "choose another out= or the same settings"
        )


def _play_all(recipe: Recipe, root: Path, missing: list[int], workers: int) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    # One rendering and one arithmetic thread a worker: the workers are the parallelism.
    saved = {name: os.environ.get(name) for name in ("LP_NUM_THREADS", "OMP_NUM_THREADS")}
    os.environ.update({"LP_NUM_THREADS": "0", "OMP_NUM_THREADS": "1"})
    context = multiprocessing.get_context("spawn")
    todo, done = context.Queue(), context.Queue()
    for index in missing:
        todo.put(index)
    for _ in range(workers):
        todo.put(None)
    processes = [context.Process(target=_work, args=(recipe, root, todo, done), daemon=True) for _ in range(workers)]
    for process in processes:
        process.start()
    for name, value in saved.items():
        if value is None:
            os.environ.pop(name)
        else:
            os.environ[name] = value
    columns = (
        TextColumn("collect"), BarColumn(), MofNCompleteColumn(), TextColumn("episodes"),
        TextColumn("{task.fields[rate]:.0f} steps/s"), TimeRemainingColumn(),
    )  # fmt: skip
    began = time.monotonic()
    with Progress(*columns) as progress:
        bar = progress.add_task("", total=len(missing), rate=0.0)
        for count in range(1, len(missing) + 1):
            _take(done, processes)
            progress.update(bar, advance=1, rate=count * recipe.steps_per_episode / (time.monotonic() - began))
    for process in processes:
        process.join(timeout=30)


def _take(done: Any, processes: list[Any]) -> int:
    """The next finished index; an error of a worker, or its death, becomes ours."""
    import queue

    while True:
        try:
            result = done.get(timeout=2.0)
        except queue.Empty:
            dead = [process.exitcode for process in processes if process.exitcode not in (None, 0)]
            if dead:
                raise RuntimeError(
                    f"a collection worker died (exit code {dead[0]}); run the same command again to go on"
                ) from None
            continue
        if isinstance(result, str):
            raise RuntimeError(f"a collection worker failed: {result}")
        return result


def main(cfg: DictConfig) -> int:
    """`premotor collect`."""
    from omegaconf import OmegaConf

    env = OmegaConf.to_container(cfg.env, resolve=True)
    assert isinstance(env, dict)
    env_id = str(env.pop("id", "premotor/Tabletop-v0"))
    recipe = Recipe(
        env_id=env_id,
        env={str(key): value for key, value in env.items() if value is not None},
        policy=str(cfg.policy),
        episodes=int(cfg.episodes),
        steps_per_episode=int(cfg.steps_per_episode),
        seed=int(cfg.seed),
    )
    root = Path(str(cfg.out))
    figures = collect(recipe, root, int(cfg.workers))
    if figures["played"]:
        print(f"{figures['played']} episodes played at {figures['steps_per_s']:.0f} steps/s, {figures['kept']} kept.")
    else:
        print("Everything was there already.")
    print(f"{root}: {recipe.episodes} episodes, {figures['frames']} frames (LeRobotDataset v3).")
    return 0
