"""`premotor collect`: seeded play in several processes into a LeRobotDataset v3, killed and resumed at will.

Episode i is a function of (recipe, i) alone: neither the number of workers nor an interruption changes it. Finished
episodes are staged one file each (`episode_store`); when all are there they become the dataset (`lerobot_files`). The
same command goes on where the last one stopped, and a larger `episodes` continues a finished dataset.
"""

from __future__ import annotations

import contextlib
import fcntl
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

import numpy as np

from envs.episode_store import Episode, Layout, keep_whole, stage, staged_paths, write_atomically
from envs.lerobot_files import check_files, finish, finished_episodes
from envs.play import POLICIES, make_policy
from envs.tabletop import ACTION_NAMES, JOINT_NAMES, OBJECT_HIGH, OBJECT_LOW, POLICY_HZ, STATE_NAMES
from envs.tasks import clear
from envs.workers import obey_parent

if TYPE_CHECKING:
    from omegaconf import DictConfig

RECIPE = "meta/collection.json"
# What the tabletop takes where nothing is said, so that saying it makes no other recipe.
_ENV_DEFAULTS: dict[str, Any] = {
    "task": "push",
    "simulator": "mujoco",
    "cameras": ["front"],
    "image_size": 64,
    "variation": "standard",
}
# How far from one of its places in the leader's episode an echo has the object.
_ELSEWHERE_M = (0.03, 0.14)
_PLACE_TRIES = 100
VECTORS = {
    "observation.state": STATE_NAMES,
    "observation.joints": JOINT_NAMES,
    "observation.environment_state": ("object_x", "object_y", "object_z", "qw", "qx", "qy", "qz"),
    "action": ACTION_NAMES,
    "action.executed": ACTION_NAMES,
}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a dataset contains.

    Attributes:
        env_id: the Gymnasium world, with the arguments `env` it is made with.
        policy: a play policy of `envs.play`.
        episodes: how many; episode i is the same however many there are.
        steps_per_episode: actions in each; an episode has one frame more.
        seed: of everything random.
        episodes_per_scene: how many episodes in a row share one scene's looks. Where nothing but places differs, a
            learner cannot tell moments apart by colours.
        episodes_per_motion: how many episodes in a row share one motion of the arm. The first is played, the others
            are its echoes: the same actions with the object elsewhere. What differs then is the object alone, so a
            learner cannot take an arm in the right place for a solved task.
    """

    env_id: str
    env: Mapping[str, Any]
    policy: str
    episodes: int
    steps_per_episode: int
    seed: int
    episodes_per_scene: int = 1
    episodes_per_motion: int = 1

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ValueError(f"no play policy is called {self.policy!r}; known are {', '.join(POLICIES)}")
        for name in ("episodes", "steps_per_episode", "episodes_per_scene", "episodes_per_motion"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.episodes_per_scene % self.episodes_per_motion:
            raise ValueError(
                f"episodes_per_scene={self.episodes_per_scene} is no multiple of episodes_per_motion="
                f"{self.episodes_per_motion}; the episodes of a motion share their scene"
            )
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must not be negative")

    def leader(self, index: int) -> int:
        """The episode whose motion episode `index` has; most often itself."""
        return index - index % self.episodes_per_motion

    def layout(self) -> Layout:
        """What its episodes hold."""
        return Layout(
            cameras=tuple(self.env.get("cameras", _ENV_DEFAULTS["cameras"])),
            image_size=int(self.env.get("image_size", _ENV_DEFAULTS["image_size"])),
            fps=round(POLICY_HZ),
            vectors=VECTORS,
        )


@dataclass(frozen=True)
class Collected:
    """What a collection did: episodes played now and kept from before, frames in the dataset, steps/s of playing."""

    played: int
    kept: int
    frames: int
    steps_per_s: float
    finish_s: float


def play_episode(env: Any, recipe: Recipe, index: int, led: Episode | None = None) -> Episode:
    """Episode `index` of a recipe, played in an environment made from it.

    Args:
        env: the environment, unwrapped.
        recipe: what to play.
        index: which episode.
        led: its leader (`Recipe.leader`), if it was played already.
    """
    leader = recipe.leader(index)
    if index != leader and led is None:
        led = play_episode(env, recipe, leader)
    rng = np.random.default_rng([recipe.seed, leader])
    seed = int(rng.integers(2**31))
    observation, info = env.reset(seed=seed, options=_looks(recipe, index))
    if index == leader or led is None:
        policy = make_policy(recipe.policy, env, rng)
    else:
        policy = iter(led.vectors["action"]).__next__
        observation, info = _object_elsewhere(env, led, np.random.default_rng([recipe.seed, index, 2]))
    layout = recipe.layout()
    frames: dict[str, list[np.ndarray]] = {camera: [] for camera in layout.cameras}
    vectors: dict[str, list[np.ndarray]] = {name: [] for name in VECTORS}
    for step in range(recipe.steps_per_episode + 1):
        for camera, feature in zip(layout.cameras, layout.pictures, strict=True):
            frames[camera].append(observation[feature])
        for name in ("observation.state", "observation.joints"):
            vectors[name].append(observation[name])
        vectors["observation.environment_state"].append(info["observation.environment_state"])
        action = executed = np.zeros(len(ACTION_NAMES), np.float32)
        if step < recipe.steps_per_episode:
            action = policy()
            observation, _, _, _, info = env.step(action)
            executed = info["action.executed"]
        vectors["action"].append(action)
        vectors["action.executed"].append(executed)
    return Episode(
        index=index,
        task=f"play: {recipe.policy}",
        frames={camera: np.stack(pictures) for camera, pictures in frames.items()},
        vectors={name: np.stack(values).astype(np.float32) for name, values in vectors.items()},
        about={
            "seed": seed,
            "policy": recipe.policy,
            "simulator": str(recipe.env.get("simulator", _ENV_DEFAULTS["simulator"])),
        },
    )


def _object_elsewhere(env: Any, led: Episode, rng: np.random.Generator) -> tuple[Any, dict[str, Any]]:
    """Put the object some way from a place it had in the leader's episode, clear of the arm; the observation then."""
    tool, half = env.world.tool_position(), env.world.scene.object_half[2]
    place = led.vectors["observation.environment_state"][0, :2]
    for _ in range(_PLACE_TRIES):
        anchor = led.vectors["observation.environment_state"][rng.integers(len(led.vectors["action"])), :2]
        angle, length = rng.uniform(-np.pi, np.pi), rng.uniform(*_ELSEWHERE_M)
        place = anchor + length * np.array([np.cos(angle), np.sin(angle)])
        inside = np.all(place > OBJECT_LOW) and np.all(place < OBJECT_HIGH)
        if inside and clear(tool, place):
            break
    place = np.clip(place, OBJECT_LOW, OBJECT_HIGH)
    env.world.place_object(np.array([*place, half + 1e-4]), float(rng.uniform(-np.pi, np.pi)))
    observation, _, _, _, info = env.step(np.zeros(len(ACTION_NAMES), np.float32))
    return observation, info


def _looks(recipe: Recipe, index: int) -> dict[str, int] | None:
    """What makes episode `index` look like its scene's others."""
    if recipe.episodes_per_scene == 1:
        return None
    scene = index // recipe.episodes_per_scene
    return {"looks": int(np.random.default_rng([recipe.seed, scene, 1]).integers(2**31))}


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
        began = time.monotonic()
        if missing:
            _play_all(recipe, root, missing, min(workers, len(missing)))
        played = time.monotonic()
        frames = finish(root, layout, max(recipe.episodes, finished), robot_type="panda")
        if recipe.episodes > finished:
            write_atomically(root / RECIPE, json.dumps(asdict(recipe), indent=2).encode())
    steps = len(missing) * recipe.steps_per_episode
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
    if root.exists() and not root.is_dir():
        raise ValueError(f"{root} is a file; choose another out=")
    try:
        root.mkdir(parents=True, exist_ok=True)
        folder = os.open(root, os.O_RDONLY)
    except OSError as error:
        raise ValueError(f"{root} cannot be made or entered ({error.strerror}); choose another out=") from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ValueError(f"another collection is writing into {root}; wait for it, or choose another out=") from None
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
        before = _settings(json.loads(note.read_text()))
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{note} is damaged; delete {root} and collect again") from None
    now = _settings(json.loads(json.dumps(asdict(recipe))))
    differing = [name for name in sorted(now | before) if before.get(name) != now.get(name)]
    # Where nothing was played yet, a mistaken setting may still be corrected.
    if differing and (finished_episodes(root) or staged_paths(root)):
        name = differing[0]
        raise ValueError(
            f"{root} was collected with {name}={before.get(name)}, not {now.get(name)}; choose another out= or the "
            "same settings"
        )


def _settings(recipe: dict[str, Any]) -> dict[str, Any]:
    """What must stay the same while a dataset grows."""
    same = {name: recipe[name] for name in ("env_id", "policy", "steps_per_episode", "seed")}
    for name in ("episodes_per_scene", "episodes_per_motion"):
        same[name] = recipe.get(name, 1)
    return same | {f"env.{name}": value for name, value in (_ENV_DEFAULTS | recipe["env"]).items()}


# -- processes ---------------------------------------------------------------------------------------------------------


def _play_all(recipe: Recipe, root: Path, missing: list[int], workers: int) -> None:
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
        count = 0
        try:
            for future in as_completed(futures):
                future.result()
                count += len(futures[future])
                rate = count * recipe.steps_per_episode / (time.monotonic() - began)
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


def _play_motion(recipe: Recipe, root: Path, indices: list[int]) -> None:
    """In a worker: the missing episodes of one motion, each staged as soon as it is played."""
    env = _world(recipe.env_id, json.dumps(dict(recipe.env)))
    led: Episode | None = None
    if any(recipe.leader(index) != index for index in indices):
        led = play_episode(env, recipe, recipe.leader(indices[0]))
    for index in indices:
        whole = led if led is not None and led.index == index else play_episode(env, recipe, index, led)
        stage(root, recipe.layout(), whole)


@functools.cache
def _world(env_id: str, arguments: str) -> Any:
    """In a worker: its one environment."""
    import gymnasium

    import envs as _worlds  # noqa: F401  registers them

    return gymnasium.make(env_id, disable_env_checker=True, **json.loads(arguments), with_goal=False).unwrapped


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


def main(cfg: DictConfig) -> int:
    """`premotor collect`."""
    from omegaconf import OmegaConf

    env = OmegaConf.to_container(cfg.env, resolve=True)
    if not isinstance(env, dict):
        raise ValueError(f"env is {env!r}; choose one of the group's, e.g. env=tabletop/push")
    env_id = str(env.pop("id", "premotor/Tabletop-v0"))
    recipe = Recipe(
        env_id=env_id,
        env={str(key): value for key, value in env.items() if value is not None},
        policy=str(cfg.policy),
        episodes=_whole(cfg, "episodes"),
        steps_per_episode=_whole(cfg, "steps_per_episode"),
        seed=_whole(cfg, "seed"),
        episodes_per_scene=_whole(cfg, "episodes_per_scene"),
        episodes_per_motion=_whole(cfg, "episodes_per_motion"),
    )
    if not cfg.get("out"):
        raise ValueError("say where the dataset goes with out=DIR")
    root = Path(str(cfg.out))
    workers = os.cpu_count() or 1 if cfg.get("workers") is None else _whole(cfg, "workers")
    try:
        done = collect(recipe, root, workers)
    except KeyboardInterrupt:
        print(f"Stopped; what was played is kept in {root}. Run the same command again to go on.")
        return 130
    if done.played:
        print(f"{done.played} episodes played at {done.steps_per_s:.0f} steps/s, {done.kept} kept from before.")
    else:
        print(f"{root} is complete already; nothing was played.")
    print(f"{root}: {done.played + done.kept} episodes, {done.frames} frames (LeRobotDataset v3).")
    return 0
