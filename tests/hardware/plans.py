"""Random plans as a guard would let them through: small steps inside the limits, replaced midway, braked, held."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ruckig import RuckigError

from robots.arm import Arm, ArmError, JointTarget
from robots.cadence import Cadence
from robots.limits import Limits
from robots.stream import Streamer

STEPS, FURTHEST_RAD, AROUND_RAD = 8, 0.2, 0.5


@dataclass
class Followed:
    """How an arm followed a plan: ticks sent, the furthest a joint was from its target and their root mean square (rad),
    the fastest joint, and how many targets Ruckig would not take from where the arm was."""

    ticks: int
    furthest_rad: float
    rms_rad: float
    fastest_rad_s: float
    refused: int


Act = tuple[Literal["aim", "brake", "hold"], JointTarget | None, float, int]


def acts(rng: np.random.Generator, limits: Limits, home: np.ndarray) -> Iterator[Act]:
    """What to do and for how many ticks of 100 Hz: mostly to replace the target before it is reached."""
    margin = limits.joint_margin_rad
    low = np.maximum(np.array(limits.joint_low) + margin, home - AROUND_RAD)
    high = np.minimum(np.array(limits.joint_high) - margin, home + AROUND_RAD)
    goal = home.copy()
    for _ in range(STEPS):
        goal = np.clip(goal + rng.uniform(-FURTHEST_RAD, FURTHEST_RAD, len(home)), low, high)
        target = JointTarget.still(goal, float(rng.uniform(0.0, 1.0)))
        what = rng.choice(["aim", "aim", "aim", "brake", "hold"])
        duration = float(rng.choice([0.0, limits.period_s, 2 * limits.period_s]))
        yield "aim", target, duration, int(rng.integers(5, 60))
        if what != "aim":
            yield what, None, 0.0, int(rng.integers(5, 40))  # type: ignore[misc]


def follow(arm: Arm, limits: Limits, seed: int) -> Followed:
    """Stream one plan to an arm as the station does, every tick through Ruckig, and measure."""
    rng = np.random.default_rng(seed)
    cadence, sent, seen = Cadence(arm.rate_hz), [], []
    fastest, refused = 0.0, 0
    streamer = Streamer(limits.bounds, arm.rate_hz, arm.hold())
    for what, target, duration, ticks in acts(rng, limits, arm.home_joints):
        if what == "aim" and target is not None:
            try:
                streamer.aim(target, duration)
            except (ArmError, RuckigError):
                refused += 1  # what was under way goes on, and its end is inside the limits too
        elif what == "brake":
            streamer.brake()
        else:
            streamer = Streamer(limits.bounds, arm.rate_hz, arm.hold())
            cadence = Cadence(arm.rate_hz)
        for _ in range(ticks):
            cadence.wait()
            sample = streamer.tick()
            arm.command(sample)
            sent.append(sample.joints)
            seen.append(arm.measure().joints)
            fastest = max(fastest, float(np.abs(sample.velocity).max()))
    arm.hold()
    off = np.abs(np.array(seen) - np.array(sent))
    return Followed(len(sent), float(off.max()), float(np.sqrt(np.mean(off**2))), fastest, refused)
