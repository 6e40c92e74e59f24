"""Smooth random play in any box of actions: what a world is explored by when nothing is known of it.

Independent noise goes nowhere and shakes; here actions drift, at many speeds, sometimes with an aim, and now and then
nothing is done for a while, so that a learner also sees what stillness looks like. Half of the episodes are tethered:
actions are drawn back against their own sum, so that where an action is a change, play stays near where it began.
Times are in seconds, so that play looks the same whatever a world's rate is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

BOUT_S = (1.0, 3.0)
RESTING = 0.15
AIMED = 0.5
SPEEDS = (0.1, 1.0)
TETHERED = 0.5
# For how long a tether remembers, and how hard it pulls against the mean action of that time.
TETHER_S = 2.0
PULL = 1.0
# How much of the drift is left after a step at 5 Hz.
MEMORY = (0.5, 0.9)
MEMORY_HZ = 5.0
DRIFT = 0.7


def resting(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The action (A,) of doing nothing, as far as bounds (A,) tell: 0 where they hold it, else their middle.

    >>> resting(np.array([-1.0, 2.0]), np.array([1.0, 4.0])).tolist()
    [0.0, 3.0]
    """
    return np.where((low <= 0) & (high >= 0), 0.0, (low + high) / 2).astype(np.float32)


def explore(low: np.ndarray, high: np.ndarray, rate_hz: float, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless physical actions (A,) float32 within the bounds.

    Args:
        low, high: (A,) bounds, finite.
        rate_hz: actions a second.
        rng: decides everything.
    """
    rest = resting(low, high)
    drift = rng.normal(0.0, DRIFT, len(low))
    action = rest
    tether = PULL if rng.random() < TETHERED else 0.0
    mean, forgotten = np.zeros(len(low)), 1 / max(1.0, TETHER_S * rate_hz)
    while True:
        steps = max(1, round(rng.uniform(*BOUT_S) * rate_hz))
        if rng.random() < RESTING:
            # Where actions are targets, repeating the last one is what holds still; elsewhere the middle does.
            action = action if rng.random() < 0.5 else rest
            for _ in range(steps):
                yield action
            continue
        # As often slow as fast, in proportion: fine motion is seldom seen otherwise.
        speed = math.exp(rng.uniform(*np.log(SPEEDS)))
        memory = rng.uniform(*MEMORY) ** (MEMORY_HZ / rate_hz)
        aim = rng.uniform(-1.0, 1.0, len(low)) if rng.random() < AIMED else np.zeros(len(low))
        for _ in range(steps):
            drift = memory * drift + math.sqrt(1 - memory**2) * rng.normal(0.0, DRIFT, len(low))
            share = np.clip(speed * (aim + drift) - tether * mean, -1.0, 1.0)
            mean += forgotten * (share - mean)
            action = rest + share * np.where(share > 0, high - rest, rest - low)
            action = np.clip(action, low, high).astype(np.float32)
            yield action
