"""One slow movement to a known posture, outside any run: looked at before, watched on the way, on record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from robots.arm import Arm, JointTarget
from robots.blackbox import BlackBox
from robots.body import Body
from robots.cadence import Cadence
from robots.consent import Standing
from robots.exits import Exit
from robots.limits import Limits
from robots.schema import Veto
from robots.stream import MotionBounds, Streamer
from robots.way import Margins, Way, check_body, check_joints

# How often the arm is measured while it moves.
LOOKS_HZ = 20.0


@dataclass(frozen=True)
class Journey:
    """A movement that was looked at and may begin.

    Attributes:
        way: what Ruckig will stream.
        bounds: within which.
        target: where it ends.
        margins: how near it comes to each limit.
    """

    way: Way
    bounds: MotionBounds
    target: JointTarget
    margins: dict[str, float] = field(default_factory=dict)

    def sentence(self, names: tuple[str, ...]) -> str:
        """The movement in words."""
        turns = self.way.joints[-1] - self.way.joints[0]
        furthest = int(np.abs(turns).argmax())
        return (
            f"{self.way.duration_s:.1f} s, {names[furthest]} goes furthest, {turns[furthest]:+.2f} rad, none faster than "
            f"{max(self.bounds.velocity):g} rad/s"
        )


def slow_bounds(limits: Limits, speed: float) -> MotionBounds:
    """No joint faster than `speed` (rad/s), and all of it within the limits.

    Raises:
        ValueError: that is no speed.
    """
    if not 0.01 <= speed <= 1.0:
        raise ValueError(f"speed={speed:g} rad/s is no slow movement; give 0.01 to 1")
    slow, most = MotionBounds.slow(len(limits.joint_names), speed), limits.bounds

    def least(one: tuple[float, ...], other: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(min(pair) for pair in zip(one, other, strict=True))

    return MotionBounds(
        least(slow.velocity, most.velocity), least(slow.acceleration, most.acceleration), least(slow.jerk, most.jerk),
        min(slow.gripper_velocity, most.gripper_velocity), min(slow.gripper_acceleration, most.gripper_acceleration),
        min(slow.gripper_jerk, most.gripper_jerk),
    )  # fmt: skip


def look(arm: Arm, limits: Limits, body: Body | None, joints: np.ndarray, speed: float) -> Journey:
    """The movement from where the arm is to joint angles (J,), looked at whole.

    Raises:
        ValueError: it would meet a limit, the arm itself or what stands around; the sentence says where.
    """
    seen = arm.measure()
    start, target = JointTarget.still(seen.joints, seen.gripper), JointTarget.still(joints, seen.gripper)
    bounds, margins = slow_bounds(limits, speed), Margins()
    way = Way.to(bounds, start, target, 0.0, None if body is None else body.reach_m)
    try:
        check_joints(way, limits, margins)
        if body is not None:
            check_body(way, limits, body, margins)
    except Veto as veto:
        raise ValueError(f"{veto}; move the arm by hand to where the way is free") from None
    return Journey(way, bounds, target, margins.smallest)


def go(
    arm: Arm,
    limits: Limits,
    journey: Journey,
    box: BlackBox,
    standing: Callable[[], Standing],
    say: Callable[[str], None],
) -> tuple[Exit, str]:
    """Carry the movement out; returns how it ended and why. Whatever happens, the arm is held at the end.

    Args:
        arm: connected.
        limits: what it is watched against.
        journey: from `look`, just now.
        box: the record.
        standing: what a person's hands say; asked at every tick.
        say: told of pauses.
    """
    code, reason = Exit.DONE, "arrived"
    try:
        code, reason = _stream(arm, limits, journey, box, standing, say)
    except Exception as error:
        code, reason = Exit.FAULT, f"{type(error).__name__}: {error}"
    try:
        arm.hold()
    except Exception as error:
        code, reason = Exit.FAULT, f"{reason}; then the arm could not be held: {error}"
    return code, reason


def _stream(
    arm: Arm,
    limits: Limits,
    journey: Journey,
    box: BlackBox,
    standing: Callable[[], Standing],
    say: Callable[[str], None],
) -> tuple[Exit, str]:
    held = arm.hold()
    apart = np.abs(held.joints - journey.way.joints[0])
    if apart.max() > limits.tracking_error_rad:
        worst = int(apart.argmax())
        return Exit.REFUSED, f"{limits.joint_names[worst]} has moved by {apart[worst]:.3f} rad since it was looked at"
    streamer = Streamer(journey.bounds, arm.rate_hz, held)
    streamer.aim(journey.target)
    cadence, every = Cadence(arm.rate_hz), max(1, round(arm.rate_hz / LOOKS_HZ))
    braking, ticks, ended = False, 0, ""
    code = Exit.STOPPED
    while True:
        hands = standing()
        if hands.stop and not ended:
            ended = hands.why or "stopped by the operator"
        if ended or not hands.move:
            if not braking:
                streamer.brake()
                braking = True
                say(f"braking: {ended or hands.why}")
                box.write("brake", why=ended or hands.why)
        elif braking:
            streamer.aim(journey.target)
            braking = False
            say("going on")
        if not streamer.moving and (ended or not braking):
            break
        if not arm.lockstep:
            cadence.wait()
        arm.command(streamer.tick())
        ticks += 1
        if ticks % every == 0:
            fault = _watch(arm, limits, streamer.target, box)
            if fault and not ended:
                ended, code = fault, Exit.FAULT
    if arm.lockstep:
        return (code, ended) if ended else (Exit.DONE, "arrived")
    return (code, ended) if ended else (Exit.DONE, f"arrived; {cadence.report.sentence()}")


def _watch(arm: Arm, limits: Limits, sent: JointTarget, box: BlackBox) -> str:
    """Measure and record; a sentence when the arm is not where it was sent."""
    seen = arm.measure()
    box.write("moved", arm_s=seen.monotonic_s, sent=sent.joints, velocity=sent.velocity, measured=seen.joints)
    error = np.abs(seen.joints - sent.joints)
    worst = int(error.argmax())
    if not np.isfinite(seen.joints).all():
        return f"{limits.joint_names[int(np.isfinite(seen.joints).argmin())]} reads no finite number"
    if error[worst] > limits.tracking_error_rad:
        return (
            f"{limits.joint_names[worst]} is {error[worst]:.3f} rad from where it was sent (limit "
            f"{limits.tracking_error_rad:g}); it pushes against something or does not follow"
        )
    return ""
