"""What a model is judged by: fresh episodes of play, impossible events in them, and scenes with the object elsewhere.

All of it is made in the simulator from the world's settings and a seed alone, whatever brain is judged; one file each,
so that a stopped command goes on where it was and several brains see the same.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from envs.play import make_policy
from envs.tabletop import OBJECT_HIGH, OBJECT_LOW, PALETTE, SCENE_SIZE, Scene
from envs.tasks import clear
from planners.benchmark.episode import SIMULATOR

Arrays = dict[str, np.ndarray]

# What the files hold; another number and they are played anew.
_FORMAT = 1
TELEPORT, VANISH, COLOUR = "teleport", "vanish", "colour"
MADE_EVENTS = (TELEPORT, VANISH, COLOUR)
# Events, and moments with the object elsewhere, of each episode, where it has as many untouched moments.
_EVENTS, _MOMENTS = 3, 2
_TELEPORT_M = (0.05, 0.14)
DISPLACEMENTS_CM = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0)
# An object is seen that makes so many of 64 x 64 pixels differ by so much, and rests that moves less than this in a step.
_SEEN_PX, _CHANGE, _LOOK_SIZE = 15, 12, 64
_REST_M = 1e-3
_TRIES = 100
_NOWHERE = np.array([0.5, 0.0, -3.0])
_STILL = np.zeros(7)


@dataclass(frozen=True)
class Held:
    """One held-out episode of T steps.

    Attributes:
        seed: of everything in it.
        observations: every key (T + 1, ...), the simulator's state included.
        actions: physical (T, A).
        poses: the object's position and quaternion (T + 1, 7).
        event_steps: (E,) steps t at which nothing touches the object, which rests and is seen.
        events: for every made event what is seen at t + 1 instead, every key (E, ...).
        moments: (M,) such steps again, from which the object is put elsewhere.
        displaced: what is seen at moment m with the object DISPLACEMENTS_CM[d] away, all else the same: (M, D, ...).
        settled: what is seen at moment m when a step is spent on holding still: (M, ...).
    """

    seed: int
    observations: Arrays
    actions: np.ndarray
    poses: np.ndarray
    event_steps: np.ndarray
    events: dict[str, Arrays]
    moments: np.ndarray
    displaced: Arrays
    settled: Arrays

    def to_arrays(self) -> Arrays:
        """Flat, for a file."""
        flat = {"seed": np.asarray(self.seed), "actions": self.actions, "poses": self.poses}
        flat |= {"event_steps": self.event_steps, "moments": self.moments}
        groups = {"observations": self.observations, "displaced": self.displaced, "settled": self.settled}
        groups |= {f"events/{name}": seen for name, seen in self.events.items()}
        return flat | {f"{group}/{key}": value for group, seen in groups.items() for key, value in seen.items()}

    @classmethod
    def from_arrays(cls, flat: Mapping[str, np.ndarray]) -> Held:
        """The inverse of `to_arrays`."""

        def group(name: str) -> Arrays:
            return {key.removeprefix(f"{name}/"): flat[key] for key in flat if key.startswith(f"{name}/")}

        return cls(
            int(flat["seed"]), group("observations"), flat["actions"], flat["poses"], flat["event_steps"],
            {name: group(f"events/{name}") for name in MADE_EVENTS}, flat["moments"], group("displaced"),
            group("settled"),
        )  # fmt: skip


def hold_out(
    env: Any,
    world: Mapping[str, Any],
    seeds: Sequence[int],
    steps: int,
    folder: Path,
    on_episode: Callable[[], None] | None = None,
) -> list[Held]:
    """The episodes of these seeds: those that lie in `folder` are read, the others played and laid there.

    Args:
        env: a tabletop, unwrapped, made from `world`.
        world: its settings, which name the files together with `steps`.
        seeds: one an episode.
        steps: actions in each.
        folder: where the files lie.
        on_episode: told about every episode.
    """
    words = json.dumps([_FORMAT, steps, dict(world)], sort_keys=True, default=str)
    place = folder / hashlib.sha256(words.encode()).hexdigest()[:12]
    place.mkdir(parents=True, exist_ok=True)
    episodes = []
    for seed in seeds:
        path = place / f"{seed}.npz"
        held = _read(path)
        if held is None:
            held = play(env, seed, steps)
            _write(path, held)
        episodes.append(held)
        if on_episode is not None:
            on_episode()
    return episodes


def play(env: Any, seed: int, steps: int) -> Held:
    """One episode of mixed play, and afterwards, from its states, what never happened."""
    _, info = env.reset(seed=seed)
    policy = make_policy("mixed", env, np.random.default_rng([seed, 1]))
    seen, actions, poses = [_look(env)], [], [info["observation.environment_state"]]
    for _ in range(steps):
        actions.append(policy())
        _, _, _, _, info = env.step(actions[-1])
        seen.append(_look(env))
        poses.append(info["observation.environment_state"])
    observations, pose = _stack(seen), np.stack(poses)
    quiet = [step for step in range(steps) if _untouched(observations["observation.state"], pose, step)]
    rng = np.random.default_rng([seed, 2])
    quiet = [int(step) for step in rng.permutation(quiet) if _is_seen(env, observations[SIMULATOR][step + 1])]
    events: dict[str, list[Arrays]] = {name: [] for name in MADE_EVENTS}
    event_steps: list[int] = []
    for step in quiet:
        made = _make_events(env, observations[SIMULATOR][step + 1], rng) if len(event_steps) < _EVENTS else None
        if made is not None:
            event_steps.append(step)
            for name, after in made.items():
                events[name].append(after)
    moments: list[int] = []
    displaced, settled = [], []
    for step in quiet:
        away = _displace(env, observations[SIMULATOR][step], rng) if len(moments) < _MOMENTS else None
        if away is not None:
            moments.append(step)
            displaced.append(away)
            env.restore_state(observations[SIMULATOR][step])
            env.step(_STILL)
            settled.append(_look(env))
    return Held(
        seed=seed,
        observations=observations,
        actions=np.stack(actions).astype(np.float32),
        poses=pose,
        event_steps=np.array(event_steps, np.int64),
        events={name: _stack(after, like=observations) for name, after in events.items()},
        moments=np.array(moments, np.int64),
        displaced=_stack(displaced, like=observations, inner=(len(DISPLACEMENTS_CM),)),
        settled=_stack(settled, like=observations),
    )


# -- what never happened -----------------------------------------------------------------------------------------------


def _make_events(env: Any, state: np.ndarray, rng: np.random.Generator) -> dict[str, Arrays] | None:
    """What is seen in a state when the object has leapt, is gone, or has another colour; None without room to leap."""
    env.restore_state(state)
    thing, tool = env.world.object_pose(), env.world.tool_position()
    yaw = _yaw(thing)
    for _ in range(_TRIES):
        angle, length = rng.uniform(-np.pi, np.pi), rng.uniform(*_TELEPORT_M)
        place = thing[:2] + length * np.array([np.cos(angle), np.sin(angle)])
        if _has_room(tool, place):
            break
    else:
        return None
    env.world.place_object(np.array([*place, thing[2]]), yaw)
    made = {TELEPORT: _look(env)}
    env.world.place_object(_NOWHERE, yaw)
    made[VANISH] = _look(env)
    scene = Scene.from_vector(state[:SCENE_SIZE])
    others = [colour for colour in PALETTE if not np.allclose(colour, scene.object_color)]
    painted = dataclasses.replace(scene, object_color=others[int(rng.integers(len(others)))])
    env.restore_state(np.concatenate([painted.to_vector(), state[SCENE_SIZE:]]))
    made[COLOUR] = _look(env)
    env.restore_state(state)
    return made


def _displace(env: Any, state: np.ndarray, rng: np.random.Generator) -> Arrays | None:
    """What is seen (D, ...) with the object ever further along one direction; None where no direction has room."""
    env.restore_state(state)
    thing, tool = env.world.object_pose(), env.world.tool_position()
    for _ in range(_TRIES):
        angle = rng.uniform(-np.pi, np.pi)
        way = np.array([np.cos(angle), np.sin(angle)]) / 100
        places = [thing[:2] + distance * way for distance in DISPLACEMENTS_CM]
        if all(_has_room(tool, place) for place in places):
            break
    else:
        return None
    seen = []
    for place in places:
        env.world.place_object(np.array([*place, thing[2]]), _yaw(thing))
        seen.append(_look(env))
    env.restore_state(state)
    return _stack(seen)


def _has_room(tool: np.ndarray, place: np.ndarray) -> bool:
    return bool(np.all(place > OBJECT_LOW) and np.all(place < OBJECT_HIGH)) and clear(tool, place)


def _untouched(states: np.ndarray, poses: np.ndarray, step: int) -> bool:
    """Whether the object rests from `step` to the next while the tool is clear of it."""
    rests = float(np.linalg.norm(poses[step + 1, :3] - poses[step, :3])) < _REST_M
    return rests and all(clear(states[at, :3], poses[at, :2]) for at in (step, step + 1))


def _is_seen(env: Any, state: np.ndarray) -> bool:
    """Whether the front camera sees enough of the object in a state."""
    env.restore_state(state)
    there = env.world.render("front", _LOOK_SIZE).astype(np.int16)
    env.world.place_object(_NOWHERE, 0.0)
    changed = np.abs(there - env.world.render("front", _LOOK_SIZE)).max(-1) > _CHANGE
    return int(changed.sum()) >= _SEEN_PX


def _yaw(pose: np.ndarray) -> float:
    w, x, y, z = pose[3:]
    return float(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)))


# -- arrays and files --------------------------------------------------------------------------------------------------


def _look(env: Any) -> Arrays:
    return {**env.observe(), SIMULATOR: env.save_state()}


def _stack(seen: Sequence[Arrays], like: Arrays | None = None, inner: tuple[int, ...] = ()) -> Arrays:
    """Observations with a leading axis; of none, arrays of length 0 in the shapes of `like`, `inner` axes before them."""
    if not seen:
        return {key: np.zeros((0, *inner, *value.shape[1:]), value.dtype) for key, value in (like or {}).items()}
    return {key: np.stack([one[key] for one in seen]) for key in seen[0]}


def _read(path: Path) -> Held | None:
    """A held-out episode from its file; None where there is none, or half of one."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return Held.from_arrays({key: file[key] for key in file.files})
    except (FileNotFoundError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _write(path: Path, held: Held) -> None:
    """Whole or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **held.to_arrays())  # type: ignore[arg-type]
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_bytes(buffer.getvalue())
    os.replace(unfinished, path)
