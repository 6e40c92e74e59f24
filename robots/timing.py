"""What the guard costs: `python -m robots.timing` measures a tick of the stream, a review, and the check of a whole plan.

The Panda with its body over the tabletop, from play-like requests of a seed; wall time on whatever else the machine does.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np

from envs.tabletop import HOME_JOINTS
from robots.arm import JointTarget
from robots.body import panda_body
from robots.guard import Guard, State, request
from robots.kinematics import panda, rpy_of
from robots.limits import Limits
from robots.plancheck import check_plan
from robots.stream import SETTLE_SHARE, Streamer

RATE_HZ = 250.0
HORIZON = 8


def rest_at(guard: Guard, joints: np.ndarray) -> State:
    """The arm at rest at joint angles (7,)."""
    position, rotation = guard.kinematics.forward(joints)
    pose = np.concatenate([position, rpy_of(rotation), [0.0]])
    return State(pose, joints, JointTarget.still(joints, 0.0))


def measure(count: int, seed: int) -> dict[str, np.ndarray]:
    """Milliseconds of `count` ticks, reviews and plan checks (a fifth as many), each (N,)."""
    rng = np.random.default_rng(seed)
    guard = Guard(Limits.load(), panda(), panda_body())
    low, high = np.asarray(guard.limits.action_low), np.asarray(guard.limits.action_high)
    found: dict[str, list[float]] = {"tick": [], "review": [], "plan check": []}

    def timed[T](what: str, act: Callable[[], T]) -> T:
        begun = time.perf_counter()
        value = act()
        found[what].append(1000 * (time.perf_counter() - begun))
        return value

    state = rest_at(guard, np.array(HOME_JOINTS))
    streamer = Streamer(guard.limits.bounds, RATE_HZ, state.commanded)
    while len(found["review"]) < count:
        asked = request(0.6 * rng.uniform(low, high), 10.0, 0.5, "plan")
        verdict = timed("review", lambda: guard.review(state, asked, 10.0))  # noqa: B023 - called at once
        if verdict.target is None:
            continue
        streamer.aim(verdict.target, SETTLE_SHARE * verdict.duration_s)
        while streamer.moving:
            timed("tick", streamer.tick)
        state = rest_at(guard, verdict.target.joints)
        if len(found["review"]) % 5 == 0:
            plan = 0.3 * rng.uniform(low, high, (HORIZON, 7))
            timed("plan check", lambda: check_plan(guard, state, plan, 10.0, rate_hz=RATE_HZ, observed_s=10.0))  # noqa: B023
    return {name: np.array(values) for name, values in found.items()}


def main(words: list[str]) -> int:
    """`count=500 seed=10000`."""
    said = dict(word.split("=", 1) for word in words)
    measure(20, 1)  # warm
    print("| of the guard | n | median, ms | 99 of 100 within, ms | longest, ms |\n| --- | --- | --- | --- | --- |")
    for name, values in measure(int(said.get("count", 500)), int(said.get("seed", 10_000))).items():
        print(
            f"| {name} | {len(values)} | {np.median(values):.3f} | {np.percentile(values, 99):.3f} | {values.max():.2f} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
