"""A Trossen WidowX AI through trossen-arm: each tick is a goal a tick ahead, which the driver's own thread interpolates to."""

# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false
# (mujoco is a binary module whose functions and enums no stub describes)

from __future__ import annotations

import contextlib
import functools
import importlib
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import mujoco
import numpy as np

from robots.arm import Arm, ArmError, Health, JointTarget, Measured, Reading, check_target
from robots.body import Body, MujocoBody, Plane
from robots.cadence import Cadence
from robots.cameras import Cameras
from robots.kinematics import Kinematics
from robots.settings import require
from robots.stream import MotionBounds, Streamer

INSTALL = "pip install trossen-arm==1.11.0 (x86-64 Linux; its version must be the controller's firmware version)"
RATE_HZ = 100.0
JOINT_NAMES = tuple(f"joint_{index}" for index in range(6))
# The carriage's way (m), open is the far end: limits of the controller, as trossen-arm reads them.
OPEN_M = 0.044
# rad: what trossen-arm-sim, whose model Trossen publishes, has for ranges; rad/s: the controller's velocity_max.
LOWER = (-3.05433, 0.0, 0.0, -1.5708, -1.5708, -3.14159)
UPPER = (3.05433, 3.14159, 2.35619, 1.5708, 1.5708, 3.14159)
VELOCITY = (3.14,) * 6
# Folded on itself: where the arm lies when it is switched off.
SLEEP = np.zeros(6)
# The arm is up, its gripper points down over the table.
READY = np.array([0.0, 1.5, 1.2, -1.27, 0.0, 0.0])
# trossen_arm.StandardJoints.wxai_v0_20260626: each joint's axis and its place in the link before it (m).
GEOMETRY = (
    ((0.0, 0.0, 1.0), (0.0, 0.0, 0.05725)),
    ((0.0, 1.0, 0.0), (0.02, 0.0, 0.04625)),
    ((0.0, -1.0, 0.0), (-0.264, 0.0, 0.0)),
    ((0.0, -1.0, 0.0), (0.245, 0.0, 0.06)),
    ((0.0, 0.0, -1.0), (0.06775, -5e-05, 0.0455)),
    ((1.0, 0.0, 0.0), (0.02895, 0.0, -0.0455)),
)
# StandardEndEffector.wxai_v0_follower: from the last joint to the tip, along x.
TIP_M = 0.156062
TOOL = "tool"
# Capsules around the links, generous, by eye from the model that trossen-arm-sim bundles: link -> (from m, to m, radius m).
CAPSULES = (
    ((0.0, 0.0, 0.02), (0.0, 0.0, 0.05), 0.05),
    ((0.0, 0.0, 0.0), (-0.264, 0.0, 0.0), 0.045),
    ((0.0, 0.0, 0.06), (0.245, 0.0, 0.06), 0.045),
    ((0.0, 0.0, 0.0), (0.06775, 0.0, 0.03), 0.04),
    ((0.0, 0.0, 0.0), (0.0, 0.0, -0.045), 0.04),
    ((0.0, 0.0, 0.0), (0.06, 0.0, 0.0), 0.05),
)
HAND_CAPSULES = (((0.075, -0.09, 0.0), (0.075, 0.09, 0.0), 0.035), ((0.1, -0.03, 0.0), (0.14, -0.03, 0.0), 0.02),
                 ((0.1, 0.03, 0.0), (0.14, 0.03, 0.0), 0.02))  # fmt: skip
# A first target further off than this would be a jump.
START_RAD = 0.05
BRAKE_ACCELERATION, BRAKE_JERK = 6.0, 120.0
SETTLE_S = 0.1


class TrossenArm(Arm):
    """One WidowX AI with the follower's gripper.

    Args:
        address: of the controller, such as 192.168.1.2.
        timeout_s: how long the controller may take to answer when it is opened.
        park_joints: (6,) rad, where the arm may be left.
        cameras: name -> settings of a LeRobot camera.
    """

    name = "trossen wxai"
    simulated = False
    joint_names = JOINT_NAMES
    rate_hz = RATE_HZ
    park_speed = 0.5
    untested = "no physical arm was ever driven by this adapter; trossen-arm was run against trossen-arm-sim"

    def __init__(
        self,
        address: str,
        timeout_s: float = 5.0,
        park_joints: Sequence[float] | None = None,
        cameras: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        require("trossen", address=(address, "192.168.1.2"))
        self.identity = f"{self.name} at {address}"
        self.kinematics: Kinematics = kinematics()
        self.park_joints = SLEEP if park_joints is None else np.asarray(park_joints, dtype=np.float64)
        if self.park_joints.shape != (6,):
            raise ValueError(f"park_joints needs 6 angles, it has shape {self.park_joints.shape}")
        self._address, self._timeout_s = address, timeout_s
        self._cameras = Cameras(cameras)
        self._bounds = MotionBounds(VELOCITY, (BRAKE_ACCELERATION,) * 6, (BRAKE_JERK,) * 6, 10.0, 100.0, 1e4)
        self._sdk: Any = None
        self._driver: Any = None
        self._follows = self._released = False
        self._last: JointTarget | None = None
        self._fault = ""

    @functools.cached_property
    def body(self) -> Body:
        """Capsules around the links, on a table at the height of the base."""
        table = Plane("table", 0.0)
        return MujocoBody(model(), JOINT_NAMES, tool=TOOL, rest=SLEEP, obstacles=[table])

    @property
    def home_joints(self) -> np.ndarray:
        """Up, the gripper pointing down."""
        return READY

    def connect(self) -> None:
        """Open the controller, which puts every joint into idle (braked, says Trossen), and the cameras."""
        self._sdk = sdk = _driver()
        driver = sdk.TrossenArmDriver()
        try:
            ends = sdk.StandardEndEffector.wxai_v0_follower
            driver.configure(sdk.Model.wxai_v0, ends, self._address, False, timeout=self._timeout_s)
        except sdk.RuntimeError as error:
            raise ArmError(
                f"no WidowX AI controller opens at {self._address} ({_first(error)}); is it on, in this network, and of "
                f"firmware {driver.get_driver_version()}? An error it still holds is cleared by recover()"
            ) from error
        self._driver = driver
        try:
            self._cameras.connect()
        except ArmError:
            self.disconnect()
            raise
        self.identity = f"{self.name} at {self._address}, firmware {driver.get_controller_version()}"
        self._follows = self._released = False
        self._fault = ""
        joints, gripper = self._read()
        self._last = JointTarget.still(joints, gripper)

    def measure(self) -> Measured:
        """Joints and closedness of the driver's last millisecond."""
        joints, gripper = self._read()
        return Measured(joints, gripper, self.now())

    def observe(self) -> Reading:
        """Cameras, then joints and tool pose."""
        return self._cameras.observe(self.kinematics, self.measure)

    def command(self, target: JointTarget) -> None:
        """Hand the driver a goal one tick ahead; the first one takes the joints out of idle where they stand."""
        self._connected()
        if self._released:
            raise ArmError(f"{self.name} is released and takes no target; connect it again")
        if self._fault:
            raise ArmError(f"{self.name}: {self._fault}; look at the arm, then recover it")
        check_target(self, target)
        for name, value, low, high in zip(JOINT_NAMES, target.joints, LOWER, UPPER, strict=True):
            if not low - 1e-3 <= value <= high + 1e-3:
                raise ArmError(
                    f"{self.name}: {name} would be at {value:.3f} rad, outside [{low:g}, {high:g}]; nothing was sent"
                )
        fastest = int(np.argmax(np.abs(target.velocity) / VELOCITY))
        if abs(target.velocity[fastest]) > VELOCITY[fastest]:
            raise ArmError(
                f"{self.name}: {JOINT_NAMES[fastest]} would move at {target.velocity[fastest]:.2f} rad/s (limit "
                f"{VELOCITY[fastest]:g}); nothing was sent"
            )
        if not self._follows:
            self._begin(target)
        self._send(target)

    def hold(self) -> JointTarget:
        """Brake within the arm's bounds and stay there, driven."""
        self._connected()
        if self._follows and self._last is not None and not self._fault:
            streamer, cadence = Streamer(self._bounds, RATE_HZ, self._last), Cadence(RATE_HZ)
            if streamer.moving:
                streamer.brake()
                while streamer.moving:
                    cadence.wait()
                    self._send(streamer.tick())
                time.sleep(SETTLE_S)
        else:
            joints, gripper = self._read()
            self._last = JointTarget.still(joints, gripper)
        assert self._last is not None
        return self._last

    def release(self) -> None:
        """Every joint into idle, in which Trossen says it is braked. Nothing here says what a braked arm bears: park first."""
        driver = self._connected()
        self.hold()
        self._released, self._follows = True, False
        self._asked(lambda: driver.set_all_modes(self._sdk.Mode.idle))

    def disconnect(self) -> None:
        """Hold and close; the driver puts every joint into idle."""
        if self._driver is not None:
            with contextlib.suppress(Exception):
                self.hold()
            with contextlib.suppress(Exception):
                self._driver.cleanup()
        self._driver = None
        self._follows = False
        self._cameras.disconnect()

    def now(self) -> float:
        """This machine's monotonic clock."""
        return time.monotonic()

    def health(self) -> Health:
        """The controller's error, the hotter of motor and driver of each joint, and efforts as shares of what is allowed."""
        driver = self._connected()
        faults = [self._fault] if self._fault else []
        try:
            said = str(driver.get_error_information()).splitlines()[0]
            limits = driver.get_joint_limits()
            motor, board = list(driver.get_all_rotor_temperatures()), list(driver.get_all_driver_temperatures())
            efforts = list(driver.get_all_efforts())
        except self._sdk.RuntimeError as error:
            self._fault = self._fault or f"the controller does not answer: {_first(error)}"
            return Health((self._fault,))
        if said and not said.lower().startswith("no error") and said not in faults:
            faults.append(f"the controller says: {said}")
        names = (*JOINT_NAMES, "gripper")
        hot = {name: float(max(pair)) for name, *pair in zip(names, motor, board, strict=True)}
        load = {
            n: abs(float(e)) / x.effort_max for n, e, x in zip(names, efforts, limits, strict=True) if x.effort_max > 0
        }
        return Health(tuple(faults), hot, load)

    def recover(self) -> None:
        """Clear the controller's error. For a person who has looked at the arm; nothing of ours calls it."""
        self._follows = False
        if self._driver is not None:
            with contextlib.suppress(Exception):
                self._driver.cleanup()
        self._sdk = sdk = _driver()
        driver = sdk.TrossenArmDriver()
        try:
            ends = sdk.StandardEndEffector.wxai_v0_follower
            driver.configure(sdk.Model.wxai_v0, ends, self._address, True, timeout=self._timeout_s)
        except sdk.RuntimeError as error:
            raise ArmError(f"{self.name} does not recover: {_first(error)}") from error
        self._driver, self._fault, self._released = driver, "", False
        joints, gripper = self._read()
        self._last = JointTarget.still(joints, gripper)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _begin(self, target: JointTarget) -> None:
        here, _ = self._read()
        off = np.abs(target.joints - here)
        if off.max() > START_RAD:
            worst = int(off.argmax())
            raise ArmError(
                f"the first target of {self.name} has {JOINT_NAMES[worst]} {off[worst]:.3f} rad from where it stands "
                f"(limit {START_RAD:g}); begin from what hold() returns"
            )
        driver = self._driver
        self._asked(lambda: driver.set_all_modes(self._sdk.Mode.position))
        self._follows = True

    def _send(self, target: JointTarget) -> None:
        goal = [*target.joints, (1.0 - min(max(target.gripper, 0.0), 1.0)) * OPEN_M]
        speed = [*target.velocity, -target.gripper_velocity * OPEN_M]
        sdk, driver = self._sdk, self._driver
        self._asked(
            lambda: driver.set_all_positions(
                sdk.VectorDouble(goal), 1.0 / RATE_HZ, False, goal_feedforward_velocities=sdk.VectorDouble(speed)
            )
        )
        self._last = target

    def _read(self) -> tuple[np.ndarray, float]:
        driver = self._connected()
        positions = np.array(self._asked(lambda: list(driver.get_all_positions())))
        return positions[:6], float(np.clip(1.0 - positions[6] / OPEN_M, 0.0, 1.0))

    def _asked(self, ask: Any) -> Any:
        """Ask the driver; what it says instead of an answer is a fault that stays."""
        try:
            return ask()
        except (self._sdk.RuntimeError, self._sdk.LogicError) as error:
            self._fault = self._fault or _first(error)
            raise ArmError(f"{self.name}: {self._fault}") from error

    def _connected(self) -> Any:
        if self._driver is None:
            raise ArmError(f"{self.name} is not connected; call connect() first")
        return self._driver


def model() -> mujoco.MjModel:
    """The arm as a MuJoCo model: joints, the tool site (z out of the gripper), and capsules for who asks how near."""
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    body = spec.worldbody.add_body(name="base_link")
    body.add_geom(type=mujoco.mjtGeom.mjGEOM_CAPSULE, size=[0.04, 0, 0], fromto=[0, 0, 0.04, 0, 0, 0.045])
    for index, ((axis, place), (start, end, radius)) in enumerate(zip(GEOMETRY, CAPSULES, strict=True)):
        body = body.add_body(name=f"link_{index + 1}", pos=place)
        body.add_joint(
            name=JOINT_NAMES[index], type=mujoco.mjtJoint.mjJNT_HINGE, axis=axis, limited=True,
            range=[LOWER[index], UPPER[index]],
        )  # fmt: skip
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_CAPSULE, size=[radius, 0, 0], fromto=[*start, *end])
    for start, end, radius in HAND_CAPSULES:
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_CAPSULE, size=[radius, 0, 0], fromto=[*start, *end])
    # The flange's x points out of the gripper; a tool's z does, and its x forward when it points down.
    half = math.sqrt(0.5)
    body.add_site(name=TOOL, pos=[TIP_M, 0.0, 0.0], quat=[0.0, half, 0.0, half])
    return spec.compile()


def kinematics() -> Kinematics:
    """Between the six joints and the tip of the gripper."""
    from robots.mujoco_kinematics import MujocoKinematics

    return MujocoKinematics(model(), JOINT_NAMES, TOOL, home=READY)


def _driver() -> Any:
    try:
        return importlib.import_module("trossen_arm")
    except ImportError as error:
        raise ArmError(f"the Trossen driver cannot be imported ({error}): {INSTALL}") from error


def _first(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
