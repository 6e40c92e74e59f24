"""The scene probe at the command line: where transitions come from, and how its finding is told and drawn."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from rich.table import Table

from planners import Rollout
from planners.probe import CALIBRATE, GO, NO_GO, Probe, Transitions, probe
from robots.arm import IMAGES
from worldmodel import WorldModel
from worldmodel.turned import Turned

__all__ = ["CALIBRATE", "GO", "NO_GO", "advice", "corrected", "examine", "table", "write"]

TRANSITIONS = 32
# Where the arm moves to and fro for a probe: over the objects, where nothing is touched.
_LOW, _HIGH = np.array([0.38, -0.18, 0.12]), np.array([0.60, 0.18, 0.24])
_SPEED = (0.5, 0.9)


def scene_transitions(scene: Mapping[str, Any], seed: int, count: int = TRANSITIONS) -> Transitions:
    """An arm's random motions over a simulated scene of its own, made from the configuration group `env`.

    Args:
        scene: id, task, simulator, cameras, image_size, variation.
        seed: of scene and motion.
        count: transitions.
    """
    import gymnasium

    import envs  # noqa: F401  registers the worlds
    from envs.tabletop import ACTION_HIGH

    settings = {key: scene[key] for key in ("task", "simulator", "cameras", "image_size", "variation")}
    world = gymnasium.make(str(scene["id"]), **settings, with_goal=False, disable_env_checker=True)
    rng = np.random.default_rng(seed)
    seen, done = [], []
    try:
        observation, _ = world.reset(seed=seed)
        seen.append(observation)
        for _ in range(count):
            here = np.asarray(observation["observation.state"][:3], dtype=np.float64)
            way = rng.uniform(_LOW, _HIGH) - here
            step = way / np.abs(way).max() * rng.uniform(*_SPEED) * ACTION_HIGH[0]
            action = np.zeros(len(ACTION_HIGH), np.float32)
            action[:3] = step
            observation, _, _, _, info = world.step(action)
            seen.append(observation)
            done.append(info["action.executed"])
    finally:
        world.close()
    return _in_a_row(seen, np.stack(done))


def recorded_transitions(path: str | Path, cameras: tuple[str, ...], model: WorldModel, seed: int = 0) -> Transitions:
    """From a recording: a rollout (`premotor run`, `premotor plan`), or a LeRobotDataset folder.

    Args:
        path: the folder, or that of the run the rollout lies in.
        cameras: the names the brain looks through.
        model: whose action space a dataset's actions have.
        seed: which of a dataset's transitions.
    """
    folder = Path(path)
    for rollout in (folder, folder / "rollout"):
        if (rollout / "rollout.json").is_file():
            return _of_rollout(Rollout.load(rollout), rollout)
    if not (folder / "meta/info.json").is_file():
        raise FileNotFoundError(f"{folder} holds neither a rollout nor a LeRobotDataset; record some motion first")
    from worldmodel.data import Episodes

    size = getattr(getattr(model, "architecture", None), "image_size", None)
    episodes = Episodes([folder], cameras, model.action_space, image_size=size)
    starts = episodes.frames_of((episodes.lengths > 1).nonzero()[:, 0]).numpy()
    starts = starts[~np.isin(starts, (episodes.starts + episodes.lengths - 1).numpy())]
    chosen = np.sort(np.random.default_rng(seed).permutation(starts)[: 4 * TRANSITIONS])

    def observed(at: np.ndarray) -> dict[str, np.ndarray]:
        pictures = episodes.pictures[at]
        views = {f"{IMAGES}{camera}": pictures[:, number] for number, camera in enumerate(cameras)}
        return {**views, "observation.state": episodes.states[at].numpy()}

    actions = model.action_space.to_physical(episodes.actions[chosen]).numpy()
    return Transitions(observed(chosen), observed(chosen + 1), actions)


def _of_rollout(rollout: Rollout, where: Path) -> Transitions:
    seen = [step.observation for step in rollout.steps]
    done = [np.where(np.isfinite(step.executed), step.executed, step.action) for step in rollout.steps]
    if rollout.final:
        seen.append(rollout.final)
    else:
        done = done[:-1]
    if not done:
        raise ValueError(f"{where} has no step with what came after it; a probe needs a recording of motion")
    return _in_a_row(seen, np.stack(done))


def _in_a_row(seen: list[Any], actions: np.ndarray) -> Transitions:
    """T + 1 observations and T actions -> T transitions."""
    shared = [key for key in seen[0] if all(key in each for each in seen) and str(key).startswith("observation.")]
    stacked = {key: np.stack([each[key] for each in seen]) for key in shared}
    before, after = ({key: value[part] for key, value in stacked.items()} for part in (slice(-1), slice(1, None)))
    return Transitions(before, after, actions.astype(np.float32))


def examine(model: WorldModel, source: object, scene: Mapping[str, Any] | None, seed: int) -> Probe:
    """Probe a brain on a recording, or on a simulated scene where no recording is named."""
    cameras = tuple(key.removeprefix(IMAGES) for key in model.required_keys if key.startswith(IMAGES))
    if source is not None:
        return probe(model, recorded_transitions(str(source), cameras, model, seed), seed=seed)
    if scene is None:
        raise ValueError("a real arm is probed on a recording: give probe_data=FOLDER, or probe=false")
    return probe(model, scene_transitions(scene, seed), seed=seed)


def advice(found: Probe) -> str:
    """What to say to the next command."""
    return f"model.turn_deg={found.angle_deg:.0f}"


def corrected(model: WorldModel, found: Probe) -> WorldModel:
    """The brain with the probe's turn undone."""
    return Turned(model, math.radians(found.angle_deg))


def table(found: Probe) -> Table:
    """The finding, figure by figure."""
    shown = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    low, high = found.angle_interval_deg
    colour = {GO: "green", CALIBRATE: "yellow"}.get(found.verdict, "red")
    for name, value, meaning in (
        (
            "rank",
            f"{100 * found.rank:.0f} %",
            f"of random actions explain what was seen better than the true one; {100 * found.rank_turned:.0f} % turned",
        ),
        ("margin", f"{found.margin:.2f}", "1: the true action explains it as well as any; 0: no better than chance"),
        (
            "cosine",
            f"{found.cosine:.2f}",
            f"between inferred and true horizontal motion; {found.cosine_turned:.2f} turned",
        ),
        ("turn W*", f"{found.angle_deg:+.0f} deg", f"from inferred to true motion, 95 % {low:.0f} to {high:.0f}"),
        ("condition", f"{found.condition:.1f}", f"of W*; 1 is a pure turn. Stretch {found.stretch:.2f}"),
        ("error", f"{100 * found.error_m:.1f} cm", "between inferred and true displacement, turned"),
        ("verdict", f"[bold {colour}]{found.verdict}[/]", found.reason),
    ):
        shown.add_row(f"[cyan]{name}[/]", value, f"[dim]{meaning}[/]")
    return shown


def write(found: Probe, folder: Path) -> None:
    """`probe.json` and `probe.png`: inferred motion beside true motion, from above."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    (folder / "probe.json").write_text(json.dumps(found.to_dict(), indent=2) + "\n")
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.0, 4.2), layout="constrained")
    true, inferred = 100 * found.true, 100 * found.inferred
    for axis, flat, name in ((left, inferred, "as inferred"), (right, 100 * found.inferred_turned, "turned by W*")):
        for t, i in zip(true, flat, strict=True):
            axis.plot([t[1], i[1]], [t[0], i[0]], color="#ccc", linewidth=1)
        axis.plot(true[:, 1], true[:, 0], "o", color="#1f9e8f", label="true")
        axis.plot(flat[:, 1], flat[:, 0], "x", color="#d9901a", label="inferred")
        axis.set(title=f"{name}, horizontal motion", xlabel="dy (cm)", ylabel="dx (cm)", aspect="equal")
        axis.axhline(0, color="#eee", zorder=0)
        axis.axvline(0, color="#eee", zorder=0)
        axis.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, fontsize=9)
    figure.suptitle(f"{found.verdict}: cosine {found.cosine:.2f}, turn {found.angle_deg:+.0f} deg", fontsize=11)
    figure.savefig(folder / "probe.png", dpi=110)
    plt.close(figure)
