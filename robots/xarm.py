"""UFACTORY xArm 5/6/7, 850 and Lite 6 through xarm-python-sdk, servo mode. UNTESTED on hardware and on any simulator.

Only its logic was run, against a double that this project wrote and that is labelled so (tests/robots/doubles.py). Read
docs/arms/xarm.md before you let it move anything.
"""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robots.arm import Arm, ArmError, Health, JointTarget, Measured, Reading, check_target
from robots.cameras import Cameras
from robots.mujoco_kinematics import MujocoKinematics
from robots.settings import require

INSTALL = "pip install xarm-python-sdk==1.18.4"
RATE_HZ = 100.0
# The arm's documented top speed of a joint, rad/s.
FASTEST = 3.14
START_RAD = 0.05
POSITION_MODE, SERVO_MODE, READY_STATE, STOP_STATE = 0, 1, 0, 4
# The gripper's own units: 850 is open.
OPEN_UNITS = 850.0
# Gripper wishes nearer than this are not sent: each is a message over a serial line.
GRIPPER_STEP = 0.02


class XArm(Arm):
    """One arm of UFACTORY with its own gripper, or without.

    Args:
        address: of the control box.
        model: path of an MJCF or URDF of exactly this arm and tool, its joints called joint1, joint2, ...
        site: the tool site in it; its z axis points out of the gripper.
        joints: how many, 5 to 7.
        park_joints: (J,) rad, where the arm may be left.
        gripper: whether there is an xArm gripper.
        cameras: name -> settings of a LeRobot camera.
    """

    simulated = False
    name = "xarm (untested)"
    rate_hz = RATE_HZ
    untested = (
        "this xArm adapter was never run on hardware nor on a vendor's simulator, only against a double written here"
    )

    def __init__(
        self,
        address: str,
        model: str,
        site: str,
        park_joints: Sequence[float],
        joints: int = 7,
        gripper: bool = True,
        cameras: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        require(
            "xarm", address=(address, "192.168.1.203"), model=(model, "arm.xml"), site=(site, "tool"),
            park_joints=(park_joints, "[0,-0.5,0,0.5,0,1,0]"),
        )  # fmt: skip
        if joints not in (5, 6, 7):
            raise ValueError(f"joints is {joints}; an xArm has 5, 6 or 7")
        self.identity = f"{self.name} at {address}"
        self.joint_names = tuple(f"joint{index}" for index in range(1, joints + 1))
        self.kinematics = MujocoKinematics(model, self.joint_names, site)
        self.park_joints = np.asarray(park_joints, dtype=np.float64)
        if self.park_joints.shape != (joints,):
            raise ValueError(f"park_joints needs {joints} angles, it has shape {self.park_joints.shape}")
        self._address, self._gripper = address, gripper
        self._cameras = Cameras(cameras)
        self._api: Any = None
        self._servoing = self._released = False
        self._last: JointTarget | None = None
        self._gripper_sent: float | None = None

    def connect(self) -> None:
        """Open the control box. Nothing is enabled, no mode is changed and no error is cleared here."""
        try:
            wrapper = importlib.import_module("xarm.wrapper")
        except ImportError as error:
            raise ArmError(f"the xArm driver cannot be imported ({error}): {INSTALL}") from error
        try:
            self._api = wrapper.XArmAPI(self._address, is_radian=True)
            if not self._api.connected:
                raise ArmError("no connection")
            if self._api.axis != len(self.joint_names):
                raise ArmError(f"it has {self._api.axis} joints, the robot's settings say {len(self.joint_names)}")
            self._cameras.connect()
        except Exception as error:
            self.disconnect()
            raise ArmError(f"no xArm opens at {self._address}: {_first(error)}") from error
        self.identity = f"{self.name} {self._api.sn} at {self._address}"
        self._servoing = self._released = False
        self._gripper_sent = None
        measured = self.measure()
        self._last = JointTarget.still(measured.joints, measured.gripper)

    def measure(self) -> Measured:
        """Joints and closedness as the control box has them."""
        api = self._connected()
        angles = self._answer("angles", api.get_servo_angle(is_radian=True))
        closed = 0.0
        if self._gripper:
            units = float(self._answer("gripper position", api.get_gripper_position()))
            closed = float(np.clip(1.0 - units / OPEN_UNITS, 0.0, 1.0))
        return Measured(np.array(angles[: len(self.joint_names)], dtype=np.float64), closed, self.now())

    def observe(self) -> Reading:
        """Cameras, then joints and tool pose."""
        return self._cameras.observe(self.kinematics, self.measure)

    def command(self, target: JointTarget) -> None:
        """One servo target; the first one enables the motors and changes to servo mode."""
        api = self._connected()
        if self._released:
            raise ArmError(f"{self.name} is released and takes no target; connect it again")
        check_target(self, target)
        if np.abs(target.velocity).max() > FASTEST:
            raise ArmError(
                f"{self.name}: a joint would move at {np.abs(target.velocity).max():.2f} rad/s (limit {FASTEST:g}); "
                "nothing was sent"
            )
        if faults := self._faults():
            raise ArmError(f"{self.name}: {faults[0]}; nothing was sent")
        if not self._servoing:
            self._begin(target)
        # The box takes seven angles whatever the arm has.
        angles = [*map(float, target.joints), *[0.0] * (7 - len(target.joints))]
        self._answer("servo target", api.set_servo_angle_j(angles, is_radian=True))
        if self._gripper and (self._gripper_sent is None or abs(target.gripper - self._gripper_sent) >= GRIPPER_STEP):
            self._answer("gripper target", api.set_gripper_position((1.0 - target.gripper) * OPEN_UNITS, wait=False))
            self._gripper_sent = target.gripper
        self._last = target

    def hold(self) -> JointTarget:
        """Leave servo mode; the box holds the arm where it is."""
        api = self._connected()
        measured = self.measure()
        if self._servoing and not api.error_code:
            self._servoing = False
            self._answer("position mode", api.set_mode(POSITION_MODE))
            self._answer("ready state", api.set_state(READY_STATE))
            measured = self.measure()
        gripper = measured.gripper if self._last is None else self._last.gripper
        self._last = JointTarget.still(measured.joints, gripper)
        return self._last

    def release(self) -> None:
        """The box's stop state: no target is taken, the motors go on holding. Brakes: switch the motors off at the box."""
        self.hold()
        self._released = True
        self._answer("stop state", self._connected().set_state(STOP_STATE))

    def disconnect(self) -> None:
        """Hold and close."""
        if self._api is not None:
            with contextlib.suppress(Exception):
                self.hold()
            with contextlib.suppress(Exception):
                self._api.disconnect()
        self._api = None
        self._cameras.disconnect()

    def now(self) -> float:
        """This machine's monotonic clock."""
        return time.monotonic()

    def health(self) -> Health:
        """The box's error code as a sentence, and the temperature of each joint."""
        hot = list(self._connected().temperatures)[: len(self.joint_names)]
        return Health(tuple(self._faults()), dict(zip(self.joint_names, map(float, hot), strict=False)))

    def _begin(self, target: JointTarget) -> None:
        api = self._api
        off = np.abs(target.joints - self.measure().joints)
        if off.max() > START_RAD:
            worst = int(off.argmax())
            raise ArmError(
                f"the first target of {self.name} has {self.joint_names[worst]} {off[worst]:.3f} rad from where it stands "
                f"(limit {START_RAD:g}); begin from what hold() returns"
            )
        self._answer("motors", api.motion_enable(enable=True))
        self._answer("servo mode", api.set_mode(SERVO_MODE))
        self._answer("ready state", api.set_state(READY_STATE))
        self._servoing = True

    def _faults(self) -> list[str]:
        api = self._connected()
        if not api.connected:
            return ["the connection to the control box is lost"]
        code = int(api.error_code)
        return [f"the control box reports error {code} (UFACTORY's manual lists them)"] if code else []

    def _answer(self, what: str, answer: Any) -> Any:
        """The value of an answer of the SDK, whose first part is a code that is 0 when all is well."""
        code, value = answer if isinstance(answer, tuple) else (answer, None)
        if code != 0:
            raise ArmError(f"{self.name}: the control box answered {what} with code {code}")
        return value

    def _connected(self) -> Any:
        if self._api is None:
            raise ArmError(f"{self.name} is not connected; call connect() first")
        return self._api


def _first(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
