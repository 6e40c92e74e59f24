"""The only way to an arm: Ruckig turns wanted targets into ticks that keep to speed, acceleration and jerk.

A `Streamer` knows where the last tick was and how it moved, so a target may be replaced in the middle of a movement, and a
brake begins from what is really being sent. Nothing else of this room makes joint targets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from ruckig import (
    ControlInterface,
    InputParameter,
    OutputParameter,
    Result,
    Ruckig,
    RuckigError,
    Synchronization,
    Trajectory,
)

from robots.arm import ArmError, JointTarget

# A step's movement is done at this share of its time, so that the arm has settled when it is looked at next.
SETTLE_SHARE = 0.9
# Of doubles: what a limit may be missed by where a movement begins exactly on it.
ROUNDING = 1e-9


@dataclass(frozen=True)
class MotionBounds:
    """How fast, how strongly and how suddenly an arm may move.

    Attributes:
        velocity, acceleration, jerk: (J,) rad/s, rad/s^2, rad/s^3.
        gripper_velocity, gripper_acceleration, gripper_jerk: the same of closedness.
    """

    velocity: tuple[float, ...]
    acceleration: tuple[float, ...]
    jerk: tuple[float, ...]
    gripper_velocity: float
    gripper_acceleration: float
    gripper_jerk: float

    @classmethod
    def slow(cls, joints: int, speed: float) -> MotionBounds:
        """Gentle bounds for moving an arm out of the way: rad/s, reached in half a second."""
        return cls((speed,) * joints, (2 * speed,) * joints, (10 * speed,) * joints, 1.0, 4.0, 40.0)

    def stacked(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Velocity, acceleration, jerk (J + 1,) each, the gripper last."""
        return (
            np.array([*self.velocity, self.gripper_velocity]),
            np.array([*self.acceleration, self.gripper_acceleration]),
            np.array([*self.jerk, self.gripper_jerk]),
        )


class Streamer:
    """From where an arm was sent last to where it shall rest, tick by tick, all joints arriving together.

    Args:
        bounds: kept by every tick.
        rate_hz: ticks a second.
        start: where the arm is sent now, and how it moves.
    """

    def __init__(self, bounds: MotionBounds, rate_hz: float, start: JointTarget) -> None:
        self.bounds, self.rate_hz = bounds, rate_hz
        self._size = len(bounds.velocity) + 1
        self._otg = Ruckig(self._size, 1.0 / rate_hz)
        self._input, self._output = InputParameter(self._size), OutputParameter(self._size)
        limits = bounds.stacked()
        self._input.max_velocity, self._input.max_acceleration, self._input.max_jerk = (a.tolist() for a in limits)
        self._most = limits
        self.target = start
        self.moving = False
        self._stand(start)

    def aim(self, target: JointTarget, duration_s: float = 0.0) -> None:
        """Come to rest at a target's joints and closedness, no sooner than in `duration_s`.

        Raises:
            ArmError: the target is no target; what was under way goes on.
        """
        goal = _position(target)
        if goal.shape != (self._size,) or not np.isfinite(goal).all() or not math.isfinite(duration_s):
            raise ArmError(
                f"a target needs {self._size - 1} finite joints and a closedness; the movement goes on as it was"
            )
        self._begin(ControlInterface.Position)
        self._input.target_position = goal.tolist()
        self._input.minimum_duration = duration_s if duration_s > 0 else None
        try:
            valid = self._otg.validate_input(self._input, True, True)
        except RuckigError as error:
            raise ArmError(f"no movement within the limits leads there: {error}") from error
        if not valid:
            raise ArmError("the movement asked for lies outside the limits of speed or acceleration already")
        self.moving = True

    def brake(self) -> None:
        """Come to rest as soon as the bounds allow, wherever that is."""
        self._begin(ControlInterface.Velocity)
        self._input.minimum_duration = None
        self.moving = True

    def tick(self) -> JointTarget:
        """What to send next; the last target again, at rest, when nothing is under way."""
        if not self.moving:
            return self.target
        try:
            result = self._update()
        except RuckigError as error:
            raise ArmError(f"no movement within the limits: {error}") from error
        if result not in (Result.Working, Result.Finished):
            raise ArmError(f"no movement within the limits: {result}")
        self._output.pass_to_input(self._input)
        self.moving = result == Result.Working
        position, velocity, acceleration = (
            np.array(values)
            for values in (self._output.new_position, self._output.new_velocity, self._output.new_acceleration)
        )
        if self.moving:
            self.target = JointTarget(
                position[:-1], float(position[-1]), velocity[:-1], float(velocity[-1]), acceleration[:-1],
                float(acceleration[-1]),
            )  # fmt: skip
        else:
            self._stand(JointTarget.still(position[:-1], float(position[-1])))
        return self.target

    def _update(self) -> Result:
        try:
            return self._otg.update(self._input, self._output)
        except RuckigError:
            # Seldom (once in some 100 000) Ruckig finds no brake in which all joints stop at once: then each for itself.
            if self._input.control_interface != ControlInterface.Velocity:
                raise
            self._input.synchronization, self._input.per_dof_synchronization = Synchronization.No, None
            return self._otg.update(self._input, self._output)

    def _begin(self, interface: ControlInterface) -> None:
        """A movement from what is being sent now."""
        now = self.target
        velocity = np.append(now.velocity, now.gripper_velocity)
        strength = np.zeros(self._size - 1) if now.acceleration is None else now.acceleration
        acceleration = np.append(strength, now.gripper_acceleration)
        limit, hardest, jerk = self._most
        most_velocity, most_acceleration = limit * (1 - ROUNDING), hardest * (1 - ROUNDING)
        velocity = np.clip(velocity, -most_velocity, most_velocity)
        # An acceleration takes some speed to fade away: by the last digit of it a movement at its limit may be too fast.
        up, down = (np.sqrt(2 * jerk * (limit - along) * (1 - ROUNDING)) for along in (velocity, -velocity))
        acceleration = np.clip(acceleration, -np.minimum(most_acceleration, down), np.minimum(most_acceleration, up))
        self._input.control_interface = interface
        self._input.synchronization = Synchronization.Time
        # A brake brings the joints to rest together; the gripper is not made to wait for them, it would pass its end.
        brakes = interface == ControlInterface.Velocity
        self._input.per_dof_synchronization = (
            [Synchronization.Time] * (self._size - 1) + [Synchronization.No] if brakes else None
        )
        self._input.current_position = _position(now).tolist()
        self._input.current_velocity = velocity.tolist()
        self._input.current_acceleration = acceleration.tolist()
        self._input.target_velocity = self._input.target_acceleration = [0.0] * self._size

    def _stand(self, target: JointTarget) -> None:
        self.target = target
        self.moving = bool(np.any(target.velocity) or target.gripper_velocity)
        if self.moving:
            self.brake()


def motion_time(bounds: MotionBounds, start: JointTarget, target: JointTarget, duration_s: float = 0.0) -> float:
    """Seconds the movement to a target takes: as short as the bounds allow, no shorter than `duration_s`."""
    streamer = Streamer(bounds, 1000.0, start)
    streamer.aim(target, duration_s)
    trajectory = Trajectory(streamer._size)
    try:
        result = streamer._otg.calculate(streamer._input, trajectory)
    except RuckigError as error:
        raise ArmError(f"no movement within the limits: {error}") from error
    if result not in (Result.Working, Result.Finished):
        raise ArmError(f"no movement within the limits: {result}")
    return float(trajectory.duration)


def path(
    start: JointTarget, end: JointTarget, duration_s: float, rate_hz: float, bounds: MotionBounds
) -> Iterator[JointTarget]:
    """The ticks of one step, 1/rate, 2/rate, ...: they come to rest at `end` and last `duration_s`, or longer."""
    streamer = Streamer(bounds, rate_hz, start)
    streamer.aim(end, SETTLE_SHARE * duration_s)
    ticks = math.ceil(duration_s * rate_hz - 1e-6)
    sent = 0
    while sent < ticks or streamer.moving:
        yield streamer.tick()
        sent += 1


def travel(start: JointTarget, joints: np.ndarray, speed: float, rate_hz: float) -> Iterator[JointTarget]:
    """A gentle way to joint angles (J,), no joint ever faster than `speed` rad/s; the gripper stays as it is."""
    bounds = MotionBounds.slow(len(start.joints), speed)
    return path(start, JointTarget.still(joints, start.gripper), 0.0, rate_hz, bounds)


def _position(target: JointTarget) -> np.ndarray:
    return np.append(np.asarray(target.joints, dtype=np.float64), target.gripper)
