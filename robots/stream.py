"""From one joint target to the next: a minimum-jerk path sampled at the arm's own rate.

A path starts and ends at rest. The peak of its speed is known in closed form (`PEAK`), so that the guard can judge a
whole path by its two ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from robots.arm import JointTarget

# The path is done at this share of its time, so that the arm has settled when it is looked at next.
SETTLE_SHARE = 0.9
# Highest speed of the path, in distances per duration.
PEAK = 1.875 / SETTLE_SHARE


def path(start: JointTarget, end: JointTarget, duration_s: float, rate_hz: float) -> Iterator[JointTarget]:
    """Targets at 1/rate, 2/rate, ... duration; the last one is `end`, at rest."""
    ticks = max(1, math.ceil(duration_s * rate_hz - 1e-6))  # never shorter than asked: that would be faster
    for tick in range(1, ticks + 1):
        share = min(tick / (SETTLE_SHARE * ticks), 1.0)
        progress = 10 * share**3 - 15 * share**4 + 6 * share**5
        speed = (30 * share**2 - 60 * share**3 + 30 * share**4) / (SETTLE_SHARE * ticks) * rate_hz
        yield JointTarget(
            joints=start.joints + (end.joints - start.joints) * progress,
            gripper=start.gripper + (end.gripper - start.gripper) * progress,
            velocity=(end.joints - start.joints) * speed,
            gripper_velocity=(end.gripper - start.gripper) * speed,
        )


def travel(start: JointTarget, joints: np.ndarray, speed: float, rate_hz: float) -> Iterator[JointTarget]:
    """A path to joint angles (J,) on which no joint is ever faster than `speed` rad/s; the gripper stays as it is."""
    furthest = float(np.abs(joints - start.joints).max())
    duration = math.ceil(max(furthest * PEAK / speed, 1.0 / rate_hz) * rate_hz) / rate_hz
    return path(start, JointTarget.still(joints, start.gripper), duration, rate_hz)
