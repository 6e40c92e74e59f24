"""To the park pose, slowly, watched by the monitors of a run; those of planner and cameras have nothing to say there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from robots.arm import Arm, ArmError, Health, JointTarget, Measured
from robots.cadence import Cadence
from robots.limits import Limits
from robots.monitors import HEALTH_EVERY_S, Memory, Signs, look
from robots.stop import Stage
from robots.stream import travel

# Servos trail and sag; a park pose is reached when they are this near, or have been given this long.
SETTLED_RAD, SETTLE_S = 0.03, 2.0


def park(arm: Arm, limits: Limits, look_every: int, record: Callable[[JointTarget, Measured], object]) -> None:
    """Bring an arm at rest to its park pose and wait until it has settled.

    What was amiss before it began is why it parks, often enough: an overheated servo is to be brought down. What
    becomes amiss on the way, and holds an arm in a run, ends it, and so does a joint that is not where it was sent.

    Args:
        arm: connected, at rest.
        limits: its limits.
        look_every: ticks between two looks.
        record: told what was sent and measured, at every look.

    Raises:
        ArmError: something became amiss on the way; the arm is where the last target was.
    """
    start, cadence = arm.hold(), Cadence(arm.rate_hz)
    health, asked_s = _health(arm), arm.now()
    before = _amiss(arm, limits, arm.measure(), None, health)
    told, suspected = health is not None, set[str]()
    for number, target in enumerate(travel(start, arm.park_joints, arm.park_speed, arm.rate_hz)):
        if not arm.lockstep:
            cadence.wait()
        arm.command(target)
        if number % look_every:
            continue
        measured, now = arm.measure(), arm.now()
        record(target, measured)
        if not arm.lockstep and now - asked_s >= HEALTH_EVERY_S:
            health, asked_s = _health(arm), now
        found = _amiss(arm, limits, measured, target, health)
        if health is not None and not told:  # what it says first it could have said before
            before, told = before | _amiss(arm, limits, measured, None, health), True
        news = {what: words for what, words in found.items() if what not in before}
        for what, words in news.items():
            if what in suspected:  # one look may come late; two tell
                raise ArmError(f"on the way to the park pose {words}")
        suspected = set(news)
    held = arm.hold()
    if arm.lockstep:
        return
    for _ in range(round(SETTLE_S * arm.rate_hz)):
        if np.abs(arm.measure().joints - held.joints).max() <= SETTLED_RAD:
            return
        cadence.wait()


def _amiss(
    arm: Arm, limits: Limits, measured: Measured, sent: JointTarget | None, health: Health | None
) -> dict[str, str]:
    """What would hold an arm in a run: a name that stays the same from look to look -> the sentence."""
    where = None if sent is None else sent.joints
    signs = Signs(arm.now(), state_s=measured.monotonic_s, joints=measured.joints, sent=where, health=health)
    found = {}
    for trip in look(signs, limits, Memory())[0]:
        if trip.rung is Stage.HELD:
            which = {"fault": trip.sentence, "load": trip.sentence.split()[0]}.get(trip.monitor, "")
            found[f"{trip.monitor} {which}"] = trip.sentence
    return found


def _health(arm: Arm) -> Health | None:
    """What the device says of itself; one that cannot say it is still to be brought down, and its joints are watched."""
    try:
        return arm.health()
    except Exception:  # every driver has errors of its own
        return None
