"""Any LeRobot robot as an arm: its own unmodified driver, with what that driver leaves open closed here.

LeRobot's drivers would ask on the terminal when calibration is missing, would let an old goal pull the arm away when
torque comes on, would send what is beyond the calibrated range, and would drop the arm at disconnect. None of that can
happen through this adapter; docs/arms/so101.md says how each was found.
"""

from __future__ import annotations

import contextlib
import os
import termios
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np

from robots import lerobot_driver, lerobot_health, ports
from robots import lerobot_settings as settings
from robots.arm import IMAGES, Arm, ArmError, Health, JointTarget, Measured, Reading, check_target
from robots.body import Body
from robots.lerobot_bus import SLACK_RAD, ServoBus, again
from robots.lerobot_camera import Pictures
from robots.lerobot_driver import Units

# A target this far beyond the calibrated range is rounding and is cut; further, it is refused.
ROUNDING_RAD = 0.01
# Where the arm stands further than this outside its calibrated range, the calibration is not this arm's.
OUTSIDE_RAD = 0.15
# No servo of such an arm goes faster than this; a target that would need it is a leap, and is refused.
LEAP_RAD_S = 5.0
# Torque goes off only this near to the park pose; gravity bends a parked SO-101 by less.
PARKED_RAD = 0.25
SETTLE_S = 1.5
DEVICE_ERRORS = (ConnectionError, OSError, RuntimeError, IndexError, termios.error)


class LeRobotArm(Arm):
    """A LeRobot robot whose joints take positions.

    Args:
        type: the driver's registered name, `so101_follower` for instance; plugins named `lerobot_robot_*` count.
        kinematics: `module:function` without arguments, or {model: PATH of an MJCF or URDF, site: NAME, joints: [...]}.
        rate_hz: how many targets a second.
        park, home: (J,) rad, where the arm may be left, and where a task begins; None for the SO-101's own.
        gripper: the driver's name of the gripper; None where there is none.
        gripper_range: what the driver calls closed and open.
        units: `degrees` or `radians`, of drivers without a motor bus, which cannot be asked.
        signs, zeros: (J,) model angle = sign * driver's angle + zero (rad), where the model was drawn otherwise.
        servo_speed: rad/s, set in Feetech servos themselves while connected, so that no goal from anywhere makes them go
            faster; None leaves them as they are.
        image_size: cameras are cut to the middle square and resized to this, px; None leaves them.
        driver: everything else goes to LeRobot: port, id, calibration_dir, cameras, ...
    """

    simulated = False
    when_killed = "its servos stay on and hold the last target, until they are let go or their power is cut"
    untested = "this adapter has moved an emulated SO-101 and no physical arm"

    def __init__(
        self,
        type: str,
        kinematics: str | Mapping[str, Any] | None = None,
        rate_hz: float = 30.0,
        park: Sequence[float] | None = None,
        home: Sequence[float] | None = None,
        gripper: str | None = "gripper",
        gripper_range: Sequence[float] = (0.0, 100.0),
        units: str | None = None,
        signs: Sequence[float] | None = None,
        zeros: Sequence[float] | None = None,
        servo_speed: float | None = 3.0,
        image_size: int | None = None,
        **driver: Any,
    ) -> None:
        if not 1.0 <= rate_hz <= 1000.0:
            raise ValueError(f"rate_hz is {rate_hz}; a LeRobot arm takes 1 to 1000 targets a second")
        if units not in (None, "degrees", "radians"):
            raise ValueError(f"units is {units!r}; a driver's joints are in degrees or radians")
        self._settings = {key: value for key, value in driver.items() if value is not None}
        self._robot = lerobot_driver.make_driver(type, self._settings)
        self.joint_names, self._gripper = lerobot_driver.joint_names(self._robot, type, gripper)
        count = len(self.joint_names)
        self.type, self.rate_hz = type, float(rate_hz)
        self._port: str | None = getattr(self._robot.config, "port", None)
        self._bus = lerobot_driver.motor_bus(self._robot)
        if self._bus is None and units is None:
            raise ValueError(
                f"robot type {type} has no motor bus that says its units; say units=degrees or units=radians"
            )
        if servo_speed is not None and not 0.1 <= servo_speed <= 20.0:
            raise ValueError(f"servo_speed is {servo_speed}; servos take 0.1 to 20 rad/s, or null for no limit")
        self._servo_speed = servo_speed
        self._said_units = units
        self._gripper_range = cast("tuple[float, float]", tuple(map(float, gripper_range)))
        if len(self._gripper_range) != 2 or self._gripper_range[0] == self._gripper_range[1]:
            raise ValueError(f"gripper_range is {list(gripper_range)}; it needs two different numbers: closed, open")
        self._signs = settings.vector("signs", signs, count, 1.0)
        if not (np.abs(self._signs) == 1.0).all():
            raise ValueError(f"signs are {self._signs.tolist()}; each is 1 or -1")
        self._zeros = settings.vector("zeros", zeros, count, 0.0)
        self.kinematics = settings.kinematics_of(type, kinematics, count)
        self._model = self.kinematics
        # Angles of a model somebody brought are not this house's model's.
        self._body = None if kinematics is not None else settings.KNOWN_BODIES.get(type)
        self.park_joints, self._home = settings.poses(type, park, home, count)
        self.name = f"{type} {self._robot.id or ''}".strip()
        self.identity = self._identity()
        self._servos = None if self._bus is None else ServoBus(self._robot, self._bus, self.name)
        self._pictures = Pictures(image_size)
        self._lock = threading.RLock()
        self._claim: ports.Claim | None = None
        self._units: Units | None = None
        self._connected = self._released = False

    @property
    def home_joints(self) -> np.ndarray:
        """(J,) rad, where a task begins."""
        return self._home

    @property
    def body(self) -> Body | None:
        """Capsules around the links over a table, of types this house has a model of; None of all others."""
        return None if self._body is None else settings.body_at(self._body)

    # -- coming and going --------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Open port and cameras; the arm is held where it stands, whatever goal its servos still had.

        An arm that is only watched keeps its torque as it was, on or off.

        Raises:
            ArmError: no such port, somebody else has it, servos do not answer, or calibration is missing.
        """
        if self._connected:
            raise ArmError(f"{self.name} is connected already")
        if self._port is not None:
            self._claim = ports.Claim(self._port)
        try:
            with lerobot_driver.nothing_asked():
                self._open()
        except BaseException:
            self._close()
            raise
        if self._claim is not None:
            self._claim.shut()
        self.identity = self._identity()
        self.calibration_hash = lerobot_driver.calibration_hash(self._robot)
        self._connected, self._released = True, self.watching
        try:
            with self._talking("read"):
                self._held = self._standing()
                self.description = "" if self._servos is None else self._servos.describe()
                self._sweep = None if self._bus is None else lerobot_health.Sweep(self._bus)
                if self._bus is None and not self.watching:
                    self._send(self._held)
        except BaseException:
            self._close()
            raise

    def disconnect(self) -> None:
        """Close port and cameras. The arm is not let go: unless it was released, its servos hold the last target."""
        with self._lock:
            self._close()

    def release(self) -> None:
        """Torque off, at the park pose only: from anywhere else the arm would fall."""
        if self.watching:
            raise ArmError(f"{self.name} is only watched; its torque stays as it is")
        with self._talking("let go"):
            measured = self._measure()
            away = np.abs(measured.joints - self.park_joints)
            if away.max() > PARKED_RAD:
                worst = int(away.argmax())
                raise ArmError(
                    f"{self.name} is not parked: {self.joint_names[worst]} is {away[worst]:.2f} rad from its park pose "
                    "and would fall; park it, or hold it by hand and switch its power off"
                )
            if self._servos is None:
                raise ArmError(f"{self.name}: its driver cannot switch torque off; switch its power off")
            self._released = True
            self._servos.let_go()

    def park(self) -> None:
        """Move slowly to `park_joints`, and wait until the joints are there."""
        super().park()
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline and np.abs(self.measure().joints - self.park_joints).max() > PARKED_RAD / 2:
            time.sleep(1.0 / self.rate_hz)

    # -- every tick --------------------------------------------------------------------------------------------------

    def now(self) -> float:
        """The machine's monotonic clock."""
        return time.monotonic()

    def measure(self) -> Measured:
        """Joints and closedness from the motor bus alone."""
        with self._talking("read"):
            return self._measure()

    def observe(self) -> Reading:
        """Joints, tool pose and cameras; `camera_s` says when each picture was last a new one."""
        with self._talking("read"):
            seen = {} if self._bus is not None else self._robot.get_observation()
            measured = self._measure(seen)
        position, rotation = self.kinematics.forward(measured.joints)
        from envs.panda import tool_rpy

        state = np.concatenate([position, tool_rpy(rotation), [measured.gripper]]).astype(np.float32)
        observation = {"observation.state": state, "observation.joints": measured.joints.astype(np.float32)}
        stamps = {}
        for name, camera in getattr(self._robot, "cameras", {}).items():
            picture, stamps[name] = self._pictures.look(name, camera, seen.get(name))
            observation[f"{IMAGES}{name}"] = picture
        return Reading(observation, measured.monotonic_s, time.time(), stamps)

    def command(self, target: JointTarget) -> None:
        """Send one target; one outside the calibrated range is refused whole."""
        check_target(self, target)
        if self._released:
            raise ArmError(f"{self.name} is released and takes no target; connect it again")
        with self._talking("send"):
            leap = np.abs(target.joints - self._held.joints)
            if leap.max() * self.rate_hz > LEAP_RAD_S:
                worst = int(leap.argmax())
                raise ArmError(
                    f"{self.name}: {self.joint_names[worst]} would leap {leap[worst]:.2f} rad within a tick of "
                    f"{1000 / self.rate_hz:.0f} ms; targets come in small steps (robots.stream makes them). Nothing was sent"
                )
            self._send(target)

    def hold(self) -> JointTarget:
        """Stay on the last target; on the measured joints where they are far from it, or where none was sent."""
        with self._talking("hold"):
            held = JointTarget.still(self._held.joints, self._held.gripper)
            if self._released:
                return held
            with contextlib.suppress(ArmError):  # a bus that cannot be read may still hear
                measured = self.measure()
                if np.abs(measured.joints - held.joints).max() > SLACK_RAD:
                    held = JointTarget.still(np.clip(measured.joints, self._lower, self._upper), held.gripper)
            self._send(held)
            return held

    def health(self) -> Health:
        """What the servos say of themselves; each call asks one of them, and all of them in turn."""
        with self._talking("read"):
            return Health() if self._sweep is None else self._sweep.next()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        robot, bus, servos = self._robot, self._bus, self._servos
        if bus is None or servos is None:
            with self._said("open"):
                robot.connect(calibrate=False)
                if not robot.is_calibrated:
                    raise ArmError(f"{self.name} is not calibrated; calibrate it with LeRobot first")
            low, high = self._model.lower, self._model.upper
            assert self._said_units is not None
            self._units = lerobot_driver.units_as_said(
                self.joint_names,
                self._gripper,
                self._gripper_range,
                self._said_units,
                self._signs,
                self._zeros,
                low,
                high,
            )
        else:
            servos.check_file(self.type, self._port)
            with self._said("open"):
                again(bus.connect, lambda: bus.disconnect(disable_torque=False))
            with self._said("read the calibration of"):
                servos.check_calibration()
            self._units = lerobot_driver.units_of_bus(
                robot, bus, self.joint_names, self._gripper, self._gripper_range, self._signs, self._zeros
            )
            self._check_stand()
            if self.watching:
                with self._said("open a camera of"):
                    servos.connect_cameras()
            else:
                self._take_over(servos)
        self._lower, self._upper = self._units.lower, self._units.upper
        narrowed = getattr(self._model, "narrowed", None)
        if narrowed is not None:
            self.kinematics = narrowed(self._lower, self._upper)

    def _take_over(self, servos: ServoBus) -> None:
        # The driver may switch torque off and on; whatever goal the servos still have must be where they stand by then.
        with self._said("take over"):
            if self._servo_speed is not None:
                servos.limit_speed(self._servo_speed)
            servos.take_over()
            servos.connect_driver()
            servos.take_over()

    def _close(self) -> None:
        """Give back whatever is open; never switches torque off."""
        self._connected = False
        for camera in getattr(self._robot, "cameras", {}).values():
            with contextlib.suppress(Exception):  # one that is broken must not keep the port from being closed
                camera.disconnect()
        if self._bus is None:
            with contextlib.suppress(Exception):
                self._robot.disconnect()
        elif self._bus.is_connected:
            with contextlib.suppress(Exception):
                if self._servos is not None:
                    self._servos.unlimit_speed()
            with contextlib.suppress(Exception):
                self._bus.disconnect(disable_torque=False)
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    def _check_stand(self) -> None:
        """The arm stands inside its calibrated range, or nearly."""
        assert self._units is not None
        with self._said("read"):
            joints = self._measure().joints
        outside = np.maximum(self._units.lower - joints, joints - self._units.upper)
        if outside.max() > OUTSIDE_RAD:
            worst = int(outside.argmax())
            raise ArmError(
                f"{self.name}: {self.joint_names[worst]} stands {outside[worst]:.2f} rad outside its calibrated range; "
                "move it inside by hand, or calibrate the arm again"
            )

    def _measure(self, seen: Mapping[str, Any] | None = None) -> Measured:
        assert self._units is not None
        stamp = self.now()  # an answer that took long was true when it was asked for, at best
        if self._servos is not None:
            seen = self._servos.read()
        elif not seen:
            seen = cast("Mapping[str, Any]", self._robot.get_observation())
        joints = self._units.radians(seen)
        if not np.isfinite(joints).all():
            raise ArmError(f"{self.name} reports a joint at {joints}; a servo or its driver is broken")
        return Measured(joints, self._units.closedness(seen), stamp)

    def _standing(self) -> JointTarget:
        """What the arm holds after connecting: its goals, or where it stands for a driver that cannot say them."""
        assert self._units is not None
        if self._servos is None or self.watching:
            measured = self._measure()
            return JointTarget.still(np.clip(measured.joints, self._lower, self._upper), measured.gripper)
        goals = self._servos.read("Goal_Position")
        joints = np.clip(self._units.radians(goals), self._lower, self._upper)
        return JointTarget.still(joints, self._units.closedness(goals))

    def _send(self, target: JointTarget) -> None:
        assert self._units is not None
        joints = self._inside(target.joints)
        self._robot.send_action(self._units.action(joints, float(np.clip(target.gripper, 0.0, 1.0))))
        self._held = target

    def _identity(self) -> str:
        place = ports.serial_number(self._port) or self._port if self._port is not None else "no port"
        return f"{self.type}:{self._robot.id}@{place}"

    def _inside(self, joints: np.ndarray) -> np.ndarray:
        """(J,) rad inside the calibrated range; refused where they were meant to be outside."""
        beyond = np.maximum(self._lower - joints, joints - self._upper)
        if beyond.max() > ROUNDING_RAD:
            worst = int(beyond.argmax())
            raise ArmError(
                f"{self.name}: {self.joint_names[worst]} was sent to {joints[worst]:.3f} rad, outside its calibrated "
                f"range [{self._lower[worst]:.3f}, {self._upper[worst]:.3f}]; nothing was sent"
            )
        return np.clip(joints, self._lower, self._upper)

    @contextlib.contextmanager
    def _talking(self, what: str) -> Iterator[None]:
        """One conversation with the device at a time."""
        with self._lock:
            if not self._connected:
                raise ArmError(f"{self.name} is not connected; call connect() first")
            with self._said(what):
                yield

    @contextlib.contextmanager
    def _said(self, what: str) -> Iterator[None]:
        """What a driver raises becomes a sentence."""
        try:
            yield
        except ArmError:
            raise
        except DEVICE_ERRORS as error:
            raise ArmError(f"could not {what} {self.name}: {self._why(error)}") from error

    def _why(self, error: Exception) -> str:
        words = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, IndexError):
            words = "a servo's answer was garbled"
        if self._port is not None and not os.path.exists(self._port):
            return f"{self._port} is gone; is the cable in?"
        silent = lerobot_health.silent_motor(self._bus, words) if self._bus is not None else ""
        return f"{silent} ({words})" if silent else words
