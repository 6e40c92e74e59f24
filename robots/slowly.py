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
        if faults := arm.health().faults:
            code, reason = Exit.FAULT, f"{reason}; {'; '.join(faults)}"
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
    stream = _Stream(arm, journey.bounds, limits.bounds, held)
    try:
        code, reason = _follow(stream, limits, journey, box, standing, say)
    except Exception:
        # Whatever failed, a record perhaps, the arm does not stop dead as long as it takes targets.
        stream.brake()
        while stream.moving:
            stream.send()
        raise
    return code, reason if arm.lockstep else f"{reason}; {stream.cadence.report.sentence()}"


class _Stream:
    """Ticks to an arm: slowly towards a target, to rest as soon as the limits allow."""

    def __init__(self, arm: Arm, slow: MotionBounds, most: MotionBounds, held: JointTarget) -> None:
        self.arm, self._slow, self._most = arm, slow, most
        self.cadence = Cadence(arm.rate_hz)
        self._streamer = Streamer(slow, arm.rate_hz, held)

    @property
    def moving(self) -> bool:
        return self._streamer.moving

    @property
    def target(self) -> JointTarget:
        return self._streamer.target

    def aim(self, target: JointTarget) -> None:
        """Begin from rest."""
        self._streamer = Streamer(self._slow, self.arm.rate_hz, self.target)
        self._streamer.aim(target)

    def brake(self) -> None:
        """A hand that was taken away means at once, not gently."""
        self._streamer = Streamer(self._most, self.arm.rate_hz, self.target)
        self._streamer.brake()

    def send(self) -> None:
        """The next tick, when it is due."""
        if not self.arm.lockstep:
            self.cadence.wait()
        self.arm.command(self._streamer.tick())


def _follow(
    stream: _Stream,
    limits: Limits,
    journey: Journey,
    box: BlackBox,
    standing: Callable[[], Standing],
    say: Callable[[str], None],
) -> tuple[Exit, str]:
    """Tick by tick until the arm is there, or at rest after a stop."""
    stream.aim(journey.target)
    every, ticks = max(1, round(stream.arm.rate_hz / LOOKS_HZ)), 0
    braking, code, ended = False, Exit.STOPPED, ""
    while stream.moving or (braking and not ended):
        hands = standing()
        if hands.stop and not ended:
            ended = hands.why or "stopped by the operator"
        may = hands.move and not ended
        if not may and not braking:
            braking = True
            stream.brake()
            say(f"braking: {ended or hands.why}")
            box.write("brake", why=ended or hands.why)
        elif may and braking and not stream.moving:
            braking = False
            stream.aim(journey.target)
            say("going on")
            box.write("go on")
        stream.send()
        ticks += 1
        if ticks % every == 0 and (fault := _watch(stream, limits, box)) and not ended:
            ended, code = fault, Exit.FAULT
    _watch(stream, limits, box)
    return (code, ended) if ended else (Exit.DONE, "arrived")


def _watch(stream: _Stream, limits: Limits, box: BlackBox) -> str:
    """Measure and record; a sentence when the arm is not where it was sent."""
    seen, sent = stream.arm.measure(), stream.target
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
