"""What is watched while an arm runs: signs go in, and out comes what is amiss, in numbers, and how far down to stop.

One pure function over signs and a small memory; clocks, devices and the stop itself live elsewhere. A sign that is None
is not watched; a sign that is no finite number is amiss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from robots.arm import Health
from robots.limits import Limits
from robots.schema import CLOCK_SLACK_S
from robots.stop import Stage

# A camera that sees the arm must see a change when a joint has turned so far.
SEEN_RAD = 0.05
# How often a device is asked for its own word.
HEALTH_EVERY_S = 0.2


@dataclass(frozen=True)
class Signs:
    """What can be seen at one moment; all times on the arm's clock.

    Attributes:
        now: the moment.
        state_s: when the newest joint reading was made.
        camera_s: by camera, when its newest picture was made.
        pictures: by camera, a digest of that picture.
        noisy: a picture of a still scene never comes twice, as from a real sensor. False for rendered pictures, which
            must change only when the arm has moved.
        asked_s: when the planner was asked for the plan that is still awaited.
        heartbeat_s: when the planner's process was last heard of.
        joints: (J,) measured, rad.
        sent: (J,) where the arm was sent by the time of that measurement, rad.
        health: the device's own word.
        doubt: the model's uncertainty of its newest plan, and `plan` that plan's hash.
        late_s: how late the last tick was sent.
    """

    now: float
    state_s: float | None = None
    camera_s: Mapping[str, float] = field(default_factory=dict)
    pictures: Mapping[str, str] = field(default_factory=dict)
    noisy: bool = True
    asked_s: float | None = None
    heartbeat_s: float | None = None
    joints: np.ndarray | None = None
    sent: np.ndarray | None = None
    health: Health | None = None
    doubt: float | None = None
    plan: str = ""
    late_s: float | None = None


@dataclass(frozen=True)
class Trip:
    """Something amiss: which monitor, the rung of the ladder it demands, and why."""

    monitor: str
    rung: Stage
    sentence: str


@dataclass(frozen=True)
class Seen:
    """What one camera showed: the picture, its stamp, in how many looks since, and where the arm was at first."""

    picture: str
    stamp_s: float
    looks: int
    joints: tuple[float, ...]


@dataclass(frozen=True)
class Memory:
    """What the monitors remember from look to look."""

    cameras: Mapping[str, Seen] = field(default_factory=dict)
    doubted: int = 0
    plan: str = ""


def look(signs: Signs, limits: Limits, memory: Memory) -> tuple[tuple[Trip, ...], Memory]:
    """What is amiss now, the gravest first, and what to remember. Never raises; what it cannot judge holds the arm."""
    trips: list[Trip] = []
    try:
        if not math.isfinite(signs.now):
            trips.append(Trip("clock", Stage.HELD, f"the arm's clock says {signs.now}"))
        else:
            _ages(signs, limits, trips)
            _arm(signs, limits, trips)
            memory = _doubt(signs, limits, memory, trips)
            memory = _pictures(signs, limits, memory, trips)
    except Exception as error:  # fail closed
        trips.append(Trip("monitors", Stage.HELD, f"a sign cannot be judged ({type(error).__name__}: {error})"))
    return tuple(sorted(trips, key=lambda trip: -trip.rung)), memory


def _ages(signs: Signs, limits: Limits, trips: list[Trip]) -> None:
    watched = [("heartbeat", Stage.PARKED, "the planner's last sign of life", signs.heartbeat_s, limits.heartbeat_s)]
    watched += [("state", Stage.HELD, "the newest joint reading", signs.state_s, limits.state_age_s)]
    watched += [
        ("camera", Stage.PAUSED, f"the newest picture of camera {name}", stamp, limits.camera_age_s)
        for name, stamp in signs.camera_s.items()
    ]
    watched += [("planner", Stage.PAUSED, "the question to the planner", signs.asked_s, limits.planner_deadline_s)]
    for monitor, rung, what, stamp, most in watched:
        if stamp is None:
            continue
        age = signs.now - stamp
        if not math.isfinite(age):
            trips.append(Trip(monitor, rung, f"{what} is stamped {stamp}"))
        elif age < -CLOCK_SLACK_S:
            trips.append(Trip(monitor, rung, f"{what} is stamped {-age:.3f} s in the future; two clocks are mixed up"))
        elif age > most:
            trips.append(Trip(monitor, rung, f"{what} is {age:.3f} s old (limit {most:g} s)"))
    if signs.late_s is not None and not -math.inf < signs.late_s <= limits.late_tick_s:
        trips.append(
            Trip(
                "cadence",
                Stage.PAUSED,
                f"a tick was sent {1000 * signs.late_s:.0f} ms late (limit {1000 * limits.late_tick_s:g} ms)",
            )
        )


def _arm(signs: Signs, limits: Limits, trips: list[Trip]) -> None:
    if signs.joints is not None and signs.sent is not None:
        error = np.abs(np.asarray(signs.joints, dtype=np.float64) - signs.sent)
        worst = int(error.argmax())  # NaN counts as the greatest
        if not error[worst] <= limits.tracking_error_rad:
            trips.append(
                Trip(
                    "tracking",
                    Stage.HELD,
                    f"{limits.joint_names[worst]} is {error[worst]:.3f} rad from where it was sent (limit "
                    f"{limits.tracking_error_rad:g}); the arm is pushing against something or did not follow",
                )
            )
    health = signs.health
    if health is None:
        return
    trips += [Trip("fault", Stage.HELD, f"the device reports: {fault}") for fault in health.faults]
    for name, celsius in health.temperature_c.items():
        if not -math.inf < celsius <= limits.temperature_c:
            words = f"{name} is {celsius:.0f} C warm (limit {limits.temperature_c:g} C); parked, it carries less"
            trips.append(Trip("temperature", Stage.PARKED, words))
    for name, share in health.load.items():
        if not abs(share) <= limits.load_share:
            words = f"{name} bears {100 * share:.0f} % of what it can (limit {100 * limits.load_share:g} %)"
            trips.append(Trip("load", Stage.HELD, words))


def _doubt(signs: Signs, limits: Limits, memory: Memory, trips: list[Trip]) -> Memory:
    """One plan in doubt is vetoed by the guard, and the arm holds for that step; many in a row pause the run."""
    if signs.doubt is None or signs.plan == memory.plan:
        return memory
    doubted = 0 if signs.doubt <= limits.uncertainty else memory.doubted + 1
    if doubted >= limits.vetoes_in_a_row:
        words = (
            f"the model has not trusted {doubted} plans in a row: its uncertainty is {signs.doubt:.2f} times the "
            f"calibrated error (limit {limits.uncertainty:g})"
        )
        trips.append(Trip("uncertainty", Stage.PAUSED, words))
    return Memory(memory.cameras, doubted, signs.plan)


def _pictures(signs: Signs, limits: Limits, memory: Memory, trips: list[Trip]) -> Memory:
    """A camera whose stamps run on while its picture stays is frozen."""
    cameras = dict(memory.cameras)
    joints = () if signs.joints is None else tuple(float(angle) for angle in signs.joints)
    for name, picture in signs.pictures.items():
        stamp = float(signs.camera_s.get(name, signs.now))
        before = cameras.get(name)
        if before is None or before.picture != picture:
            cameras[name] = Seen(picture, stamp, 1, joints)
            continue
        if stamp <= before.stamp_s:
            continue  # no new picture; its age is watched
        moved = max((abs(a - b) for a, b in zip(joints, before.joints, strict=False)), default=0.0)
        # A still scene, rendered, is the same picture: begin to count when the arm has moved in it.
        counts = signs.noisy or moved > SEEN_RAD
        looks = before.looks + 1 if counts else before.looks
        cameras[name] = Seen(picture, stamp, looks, before.joints)
        if looks >= limits.frozen_looks:
            words = (
                f"camera {name} has shown the same picture in {looks} looks although its stamps run on; it is frozen"
            )
            trips.append(Trip("frozen", Stage.PAUSED, words))
    return Memory(cameras, memory.doubted, memory.plan)
