"""Play of the SO-101 in lockstep, for `premotor adapt`: the tool wanders between places, through guard and streamer.

python -m robots.emulated.play --out data/so101 --episodes 200
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
from rich.progress import track

from robots.emulated.lockstep import LockstepSO101
from robots.episodes import EpisodeRecorder
from robots.guard import Guard, State, request
from robots.limits import Limits
from robots.stream import SETTLE_SHARE, Streamer
from worldmodel.interface import ActionSpace

# Seeds of play come after those of other development; evaluation's are 10000 and up.
FIRST_SEED, LAST_SEED = 1000, 9999
# A place is given up after so many steps, or when it is this near, m.
PATIENCE, NEAR_M = 12, 0.015
# How fast it goes, of an action's bound, and how much it strays from the straight way.
SPEED, STRAY = (0.3, 1.0), 0.25
# How often the gripper goes somewhere else, and how often a step is anything at all.
GRIPS, WHIMS = 0.08, 0.1


def wander(limits: Limits, rng: np.random.Generator) -> Generator[np.ndarray, np.ndarray]:
    """Actions (7,), physical; send it the state (7,) after each, as to any generator."""
    low, high = np.asarray(limits.workspace_low), np.asarray(limits.workspace_high)
    bound = np.asarray(limits.action_high)
    state = yield np.zeros(7)
    closed = float(state[6])
    while True:
        place, speed = rng.uniform(low + 0.01, high - 0.01), rng.uniform(*SPEED)
        for _ in range(PATIENCE):
            way = place - state[:3]
            if np.abs(way).max() < NEAR_M:
                break
            step = way / np.maximum(np.abs(way).max(), bound[0] * speed) * bound[0] * speed
            action = np.zeros(7)
            action[:3] = step + rng.normal(0.0, STRAY * bound[:3] * speed)
            # The orientation follows; a model shall know that these numbers say nothing.
            action[3:6] = rng.uniform(-bound[3:6], bound[3:6])
            if rng.random() < WHIMS:
                action[:3] = rng.uniform(-bound[:3], bound[:3])
            if rng.random() < GRIPS:
                closed = float(rng.uniform())
            action[6] = closed - state[6]
            state = yield np.clip(action, -bound, bound)


class Guarded:
    """An arm in lockstep behind guard and streamer: one action, one step that ends at rest, as a run takes them.

    Args:
        arm: connected.
        limits: of the guard.
    """

    def __init__(self, arm: LockstepSO101, limits: Limits) -> None:
        self._arm, self._guard = arm, Guard(limits, arm.kinematics)
        self._streamer = Streamer(limits.bounds, arm.rate_hz, arm.hold())
        self._aim: np.ndarray | None = None
        self.seen = arm.observe().observation

    def step(self, action: np.ndarray) -> np.ndarray | None:
        """Do an action (7,) and look (`seen`); returns what was let through of it, None where it was vetoed."""
        arm, state = self._arm, self.seen["observation.state"]
        at = State(state, self.seen["observation.joints"], self._streamer.target, self._aim)
        verdict = self._guard.review(at, request(action, arm.now(), None, "play"), arm.now())
        self._aim = verdict.aim
        if verdict.target is None:
            return None
        self._streamer.aim(verdict.target, SETTLE_SHARE * verdict.duration_s)
        left = math.ceil(verdict.duration_s * arm.rate_hz - 1e-6)
        while left > 0 or self._streamer.moving:
            arm.command(self._streamer.tick())
            left -= 1
        self.seen = arm.observe().observation
        return verdict.action


def episode(seed: int, limits: Limits, steps: int) -> tuple[list[dict[str, np.ndarray]], list[np.ndarray]]:
    """One episode: observations (steps + 1) and what was asked for between them; what the guard vetoes is left out."""
    play = wander(limits, np.random.default_rng([seed, 2]))
    next(play)
    with LockstepSO101(seed, "scene") as arm:
        arm.connect()
        guarded = Guarded(arm, limits)
        seen, asked = [guarded.seen], []
        for _ in range(2 * steps):
            done = guarded.step(play.send(guarded.seen["observation.state"]))
            if done is None:
                continue
            seen.append(guarded.seen)
            asked.append(done)
            if len(asked) == steps:
                break
    return seen, asked


def main(words: Sequence[str] | None = None) -> int:
    """Collect."""
    from omegaconf import OmegaConf

    parser = argparse.ArgumentParser(prog="python -m robots.emulated.play", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="a LeRobotDataset, new or made by this before")
    parser.add_argument("--episodes", type=int, default=200, help="how many more")
    parser.add_argument("--steps", type=int, default=40, help="of each, a fifth of a second long")
    said = parser.parse_args(words)
    file = Path(__file__).parents[2] / "configs/guard/so101.yaml"
    limits = Limits.from_mapping(OmegaConf.to_container(OmegaConf.load(file)), "guard")  # type: ignore[arg-type]
    from envs.tabletop import ACTION_NAMES

    space = ActionSpace(limits.action_low, limits.action_high, ACTION_NAMES, 1 / limits.period_s)
    with EpisodeRecorder(said.out, space, "so101_emulated") as recorder:
        for _ in track(range(said.episodes), "playing"):
            seed = FIRST_SEED + recorder.episodes
            if seed > LAST_SEED:
                raise ValueError(
                    f"{said.out} has {recorder.episodes} episodes; the seeds from {seed} on are for evaluation"
                )
            seen, asked = episode(seed, limits, said.steps)
            if not asked:
                continue
            recorder.begin("play", seed=seed)
            for observation, action in zip(seen, asked, strict=False):
                recorder.add(observation, action)
            recorder.end(seen[-1])
    print(f"{said.out}: {said.episodes} episodes more")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
