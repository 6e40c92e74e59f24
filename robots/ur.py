"""UR e-series through ur-rtde: servoJ at 125 Hz. UNTESTED on hardware and on any vendor simulator.

Only its logic was run, against a double that this project wrote and that is labelled so (tests/robots/doubles.py). Read
docs/arms/ur.md before you let it move anything.
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

INSTALL = "pip install ur-rtde==1.6.5"
JOINT_NAMES: tuple[str, ...] = (
    "shoulder_pan_joint", "shoulder_lift_joint", "elbow_joint", "wrist_1_joint", "wrist_2_joint", "wrist_3_joint",
)  # fmt: skip
RATE_HZ = 125.0
# servoJ's look-ahead (0.03 to 0.2 s) and gain (100 to 2000), in the middle of what ur-rtde documents.
LOOKAHEAD_S, GAIN = 0.1, 300
# rad/s and rad/s^2: UR's own limits of the e-series' slowest joints, and what `hold` brakes with.
FASTEST, BRAKE = 3.14, 4.0
START_RAD = 0.05
# safety_status_bits of the RTDE guide.
SAFETY = {
    2: "a protective stop", 3: "recovery mode", 4: "a safeguard stop", 5: "a system emergency stop",
    6: "a robot emergency stop", 7: "an emergency stop", 8: "a safety violation", 9: "a fault of the safety system",
}  # fmt: skip


class UrArm(Arm):
    """One UR e-series arm without a gripper of its own; closedness is 0 and stays so.

    Args:
        address: of the control box.
        model: path of an MJCF or URDF of exactly this arm and tool.
        site: the tool site in it; its z axis points out of the gripper.
        park_joints: (6,) rad, where the arm may be left.
        payload_kg: what the arm carries, gripper included.
        cameras: name -> settings of a LeRobot camera.
    """

    simulated = False
    name = "ur (untested)"
    joint_names = JOINT_NAMES
    rate_hz = RATE_HZ
    untested = "this UR adapter was never run on hardware nor on URSim, only against a double written here"

    def __init__(
        self,
        address: str,
        model: str,
        site: str,
        park_joints: Sequence[float],
        payload_kg: float,
        cameras: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        require(
            "ur", address=(address, "192.168.0.10"), model=(model, "arm.xml"), site=(site, "tool"),
            park_joints=(park_joints, "[0,-1.57,1.57,-1.57,-1.57,0]"), payload_kg=(payload_kg, "1.0"),
        )  # fmt: skip
        self.identity = f"{self.name} at {address}"
        self.kinematics = MujocoKinematics(model, JOINT_NAMES, site)
        self.park_joints = np.asarray(park_joints, dtype=np.float64)
        if self.park_joints.shape != (6,):
            raise ValueError(f"park_joints needs 6 angles, it has shape {self.park_joints.shape}")
        if not 0.0 <= payload_kg <= 30.0:
            raise ValueError(f"payload_kg is {payload_kg:g}; it must be between 0 and 30")
        self._address, self._payload_kg = address, payload_kg
        self._cameras = Cameras(cameras)
        self._control: Any = None
        self._receive: Any = None
        self._servoing = self._released = False
        self._last: JointTarget | None = None

    def connect(self) -> None:
        """Open both RTDE connections. ur-rtde uploads its script to the controller; nothing moves."""
        control, receive = _driver("rtde_control"), _driver("rtde_receive")
        try:
            self._receive = receive.RTDEReceiveInterface(self._address)
            self._control = control.RTDEControlInterface(self._address)
            self._control.setPayload(self._payload_kg, [0.0, 0.0, 0.0])
            self._cameras.connect()
        except Exception as error:
            self.disconnect()
            if isinstance(error, ArmError):
                raise
            raise ArmError(
                f"no UR controller answers at {self._address} ({_first(error)}); is it on, in Remote Control, and in this "
                "network?"
            ) from error
        self._servoing = self._released = False
        self._last = JointTarget.still(self.measure().joints, 0.0)

    def measure(self) -> Measured:
        """Joints of the newest RTDE packet."""
        return Measured(np.array(self._reader().getActualQ()), 0.0, self.now())

    def observe(self) -> Reading:
        """Cameras, then joints and tool pose."""
        return self._cameras.observe(self.kinematics, self.measure)

    def command(self, target: JointTarget) -> None:
        """servoJ to the target; nothing is sent to an arm that says it is stopped."""
        control = self._controller()
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
            off = np.abs(target.joints - self.measure().joints)
            if off.max() > START_RAD:
                worst = int(off.argmax())
                raise ArmError(
                    f"the first target of {self.name} has {JOINT_NAMES[worst]} {off[worst]:.3f} rad from where it stands "
                    f"(limit {START_RAD:g}); begin from what hold() returns"
                )
            self._servoing = True
        # Speed and acceleration are not used by servoJ, says ur-rtde; a controller that refuses answers False.
        if not control.servoJ(list(target.joints), 0.0, 0.0, 1.0 / RATE_HZ, LOOKAHEAD_S, GAIN):
            self._servoing = False
            raise ArmError(f"{self.name}: the controller refused a target; is its program still running?")
        self._last = target

    def hold(self) -> JointTarget:
        """servoStop: the controller brakes and holds."""
        control = self._controller()
        if self._servoing:
            control.servoStop(BRAKE)
            self._servoing = False
        self._last = JointTarget.still(self.measure().joints, 0.0)
        return self._last

    def release(self) -> None:
        """Stop the script. The brakes are the pendant's."""
        self.hold()
        self._released = True
        self._controller().stopScript()

    def disconnect(self) -> None:
        """Hold and close."""
        if self._control is not None:
            with contextlib.suppress(Exception):
                self.hold()
        for side in (self._control, self._receive):
            if side is not None:
                with contextlib.suppress(Exception):
                    side.disconnect()
        self._control = self._receive = None
        self._cameras.disconnect()

    def now(self) -> float:
        """This machine's monotonic clock."""
        return time.monotonic()

    def health(self) -> Health:
        """Safety status as sentences, joint temperatures, supply voltage."""
        receive = self._reader()
        hot = dict(zip(JOINT_NAMES, map(float, receive.getJointTemperatures()), strict=True))
        return Health(tuple(self._faults()), hot, {}, float(receive.getActualMainVoltage()))

    def _faults(self) -> list[str]:
        receive = self._reader()
        if not receive.isConnected():
            return ["the connection to the controller is lost"]
        bits = int(receive.getSafetyStatusBits())
        return [f"the controller reports {text}" for bit, text in SAFETY.items() if bits >> bit & 1]

    def _controller(self) -> Any:
        if self._control is None:
            raise ArmError(f"{self.name} is not connected; call connect() first")
        return self._control

    def _reader(self) -> Any:
        if self._receive is None:
            raise ArmError(f"{self.name} is not connected; call connect() first")
        return self._receive


def _driver(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ArmError(f"the UR driver cannot be imported ({error}): {INSTALL}") from error


def _first(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
