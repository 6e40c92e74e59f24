"""A LeRobot driver by name, and what turns its numbers into radians and closedness.

LeRobot fills its registry when packages are imported and asks questions on the terminal; here every package that could
know a type is imported, plugins included, and nothing is ever asked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import importlib
import io
import json
import math
import pkgutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from robots.arm import ArmError
from robots.cameras import end_in_time

POSITION = ".pos"
# Settings of a driver that this adapter decides itself, with the reason a person gets.
OURS = {
    "disable_torque_on_disconnect": "an arm is let go only by park and release",
}


def make_driver(kind: str, settings: Mapping[str, Any]) -> Any:
    """An unconnected LeRobot `Robot` of a registered type.

    Raises:
        ValueError: an unknown type, or settings it does not take.
    """
    import draccus
    from lerobot.robots import RobotConfig, make_robot_from_config

    for name, why in OURS.items():
        if name in settings:
            raise ValueError(f"robot={kind}: {name} is not yours to set: {why}")
    known = register(kind)
    if kind not in known:
        near = difflib.get_close_matches(kind, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
        raise ValueError(
            f"no LeRobot robot is of type {kind!r}; {hint} (a plugin must be installed under a name that begins with "
            "lerobot_robot_)"
        )
    names = {field.name for field in dataclasses.fields(RobotConfig.get_choice_class(kind))}
    for name in settings:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(sorted(names - set(OURS)))}"
            raise ValueError(f"robot type {kind} has no setting {name!r}; {hint}")
    whole = {"type": kind, **settings}
    if "disable_torque_on_disconnect" in names:
        whole["disable_torque_on_disconnect"] = False
    try:
        config = draccus.decode(RobotConfig, whole)
    except Exception as error:  # draccus has many, and a setting of the wrong kind is all they mean
        raise ValueError(f"robot type {kind}: {_first(error)}") from error
    try:
        robot = make_robot_from_config(config)
    except ImportError as error:
        raise ValueError(f"robot type {kind} needs more than is installed: {_first(error)}") from error
    for camera in getattr(robot, "cameras", {}).values():
        end_in_time(camera)
    return robot


def register(kind: str) -> set[str]:
    """Import LeRobot's packages until one knows the type, plugins last; returns the types known by then."""
    import lerobot.cameras
    import lerobot.robots
    from lerobot.robots import RobotConfig
    from lerobot.utils.import_utils import register_third_party_plugins

    for package in pkgutil.iter_modules(lerobot.cameras.__path__, "lerobot.cameras."):
        _import(package)
    packages = list(pkgutil.iter_modules(lerobot.robots.__path__, "lerobot.robots."))
    packages.sort(key=lambda package: -difflib.SequenceMatcher(None, package.name.rpartition(".")[2], kind).ratio())
    for package in packages:
        if kind in RobotConfig.get_known_choices():
            break
        _import(package)
    if kind not in RobotConfig.get_known_choices():
        register_third_party_plugins()
    return set(RobotConfig.get_known_choices())


def _import(package: pkgutil.ModuleInfo) -> None:
    if package.ispkg:
        with contextlib.suppress(ImportError):  # a driver whose SDK is not installed is not there
            importlib.import_module(package.name)


@contextlib.contextmanager
def nothing_asked() -> Iterator[None]:
    """Whatever a driver would ask on the terminal becomes an error: nobody sits there."""
    stdin, sys.stdin = sys.stdin, io.StringIO("")
    try:
        yield
    except EOFError as error:
        raise ArmError(
            "the driver wanted to ask something on the terminal; calibrate the arm with its own tool"
        ) from error
    finally:
        sys.stdin = stdin


def motor_bus(robot: Any) -> Any | None:
    """The serial bus of a driver that has one (Feetech, Dynamixel); None otherwise."""
    from lerobot.motors.motors_bus import SerialMotorsBus

    bus = getattr(robot, "bus", None)
    return bus if isinstance(bus, SerialMotorsBus) else None


@dataclasses.dataclass(frozen=True)
class Units:
    """Between a driver's numbers and ours, joint by joint.

    Attributes:
        joints: the driver's names of J joints.
        gripper: the driver's name of the gripper; None without one.
        per_rad: (J,) driver units a radian, with the sign of the model's joint.
        zero: (J,) driver units where the model's angle is 0.
        lower, upper: (J,) rad, the calibrated range.
        half_step: (J + 1,) driver units; the driver cuts off fractions of a tick, half a tick more makes that a rounding.
        gripper_range: driver units when closed, when open.
    """

    joints: tuple[str, ...]
    gripper: str | None
    per_rad: np.ndarray
    zero: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    half_step: np.ndarray
    gripper_range: tuple[float, float]

    def radians(self, seen: Mapping[str, Any]) -> np.ndarray:
        """(J,) rad from an observation with keys `joint.pos`."""
        return (np.array([float(seen[name + POSITION]) for name in self.joints]) - self.zero) / self.per_rad

    def closedness(self, seen: Mapping[str, Any]) -> float:
        """0 open to 1 closed; 0 without a gripper."""
        if self.gripper is None:
            return 0.0
        closed, opened = self.gripper_range
        return float(np.clip((opened - float(seen[self.gripper + POSITION])) / (opened - closed), 0.0, 1.0))

    def action(self, joints: np.ndarray, closed: float) -> dict[str, float]:
        """What the driver's `send_action` takes."""
        values = self.zero + joints * self.per_rad + self.half_step[:-1]
        sent = {name + POSITION: float(value) for name, value in zip(self.joints, values, strict=True)}
        if self.gripper is not None:
            shut, opened = self.gripper_range
            sent[self.gripper + POSITION] = float(opened + closed * (shut - opened) + self.half_step[-1])
        return sent


def joint_names(robot: Any, kind: str, gripper: str | None) -> tuple[tuple[str, ...], str | None]:
    """The names of joints and gripper that a driver takes; a driver of another sort is refused."""
    taken = list(robot.action_features)
    foreign = [name for name in taken if not name.endswith(POSITION)]
    if foreign:
        raise ValueError(f"robot type {kind} is driven by {foreign[0]}; only joint positions ({POSITION}) can be sent")
    names = [name.removesuffix(POSITION) for name in taken]
    if gripper is not None and gripper not in names:
        raise ValueError(
            f"robot type {kind} has no gripper {gripper!r}; it has {', '.join(names)} (gripper=null for none)"
        )
    return tuple(name for name in names if name != gripper), gripper


def units_of_bus(
    robot: Any, bus: Any, joints: Sequence[str], gripper: str | None, gripper_range: tuple[float, float],
    signs: np.ndarray, zeros: np.ndarray,
) -> Units:  # fmt: skip
    """Units from each motor's own norm mode and calibration.

    Args:
        signs, zeros: (J,) model angle = sign * driver's angle + zero (rad).
    """
    from lerobot.motors import MotorNormMode

    per_rad, half_range, half_step = [], [], []
    for name in [*joints, *filter(None, [gripper])]:
        motor, found = bus.motors[name], robot.calibration[name]
        span = found.range_max - found.range_min
        if span <= 0:
            raise ArmError(f"the calibration gives {name} a range of {span} ticks; calibrate the arm again")
        steps = bus.model_resolution_table[motor.model] - 1
        reach = span / 2 * math.tau / steps  # rad from the middle to either end
        degrees = motor.norm_mode is MotorNormMode.DEGREES
        wide = 2.0 if motor.norm_mode is MotorNormMode.RANGE_M100_100 else 1.0
        tick = 360 / steps if degrees else 100 * wide / span
        turned = -1.0 if not degrees and bus.apply_drive_mode and found.drive_mode else 1.0
        half_step.append(turned * tick / 2)
        if name != gripper:
            per_rad.append(180 / math.pi if degrees else 50 * wide / reach)
            half_range.append(reach)
    if gripper is None:
        half_step.append(0.0)
    scale, reach = np.array(per_rad), np.array(half_range)
    middle = np.array([50.0 if _percent(bus, name) else 0.0 for name in joints])
    lower, upper = np.sort(np.stack([zeros - reach, zeros + reach]), axis=0)
    return Units(
        tuple(joints),
        gripper,
        signs * scale,
        middle - signs * zeros * scale,
        lower,
        upper,
        np.array(half_step),
        gripper_range,
    )


def _percent(bus: Any, name: str) -> bool:
    from lerobot.motors import MotorNormMode

    return bus.motors[name].norm_mode is MotorNormMode.RANGE_0_100


def units_as_said(
    joints: Sequence[str], gripper: str | None, gripper_range: tuple[float, float], said: str, signs: np.ndarray,
    zeros: np.ndarray, lower: np.ndarray, upper: np.ndarray,
) -> Units:  # fmt: skip
    """Units of a driver that has no motor bus to ask: `degrees` or `radians`, limits those of the model (J,)."""
    scale = {"degrees": 180 / math.pi, "radians": 1.0}[said]
    per_rad = signs * scale
    step = np.zeros(len(joints) + 1)
    return Units(tuple(joints), gripper, per_rad, -per_rad * zeros, lower, upper, step, gripper_range)


def calibration_hash(robot: Any) -> str:
    """16 hex digits that change when any calibration value does; empty for a driver without one."""
    if not getattr(robot, "calibration", None):
        return ""
    values = {name: dataclasses.asdict(entry) for name, entry in robot.calibration.items()}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _first(error: BaseException) -> str:
    """The first line of what was wrong in the first place."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    words = str(error).strip().splitlines()
    return words[0] if words else type(error).__name__
