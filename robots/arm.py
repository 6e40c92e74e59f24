"""What every arm offers: read it, stream joint targets to it at its own rate, hold, park, release.

An adapter is one file with one class that derives from `Arm`. `connect("mujoco", seed=3)` finds it in the table
below; an arm from elsewhere is named by its place, `connect("my_package.my_arm:MyArm", port=...)`.
"""

from __future__ import annotations

import difflib
import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import numpy as np

from robots.body import Body
from robots.kinematics import Kinematics
from robots.scene import Scene

# name -> module:Class. Written out, so that one glance says what there is and a typo can be answered.
ARMS = {
    "mujoco": "robots.simulated:MujocoArm",
    "pybullet": "robots.simulated:PybulletArm",
    "lerobot": "robots.lerobot_arm:LeRobotArm",
    "so101_emulated": "robots.emulated.arm:EmulatedArm",
    "so101_lockstep": "robots.emulated.lockstep:LockstepSO101",
    "franka": "robots.franka:FrankaArm",
    "trossen": "robots.trossen:TrossenArm",
    "ur": "robots.ur:UrArm",  # untested
    "xarm": "robots.xarm:XArm",  # untested
}
# What a camera's name follows in an observation, as LeRobot has it.
IMAGES = "observation.images."


class ArmError(RuntimeError):
    """An arm cannot do what was asked: not connected, released, or its device failed."""


@dataclass(frozen=True)
class Reading:
    """What an arm observed, and when.

    Attributes:
        observation: LeRobot names: `observation.images.<camera>` uint8 (H, W, 3), `observation.state` float32 (7,),
            `observation.joints` float32 (J,) rad.
        monotonic_s: the arm's own clock (`Arm.now`), for ages.
        wall_s: seconds since the epoch, for people.
        camera_s: when each camera's picture was new, on the same clock; empty where that is not known.
    """

    observation: dict[str, np.ndarray]
    monotonic_s: float
    wall_s: float
    camera_s: Mapping[str, float] = field(default_factory=dict)

    @property
    def pictures(self) -> dict[str, np.ndarray]:
        """By camera, (H, W, 3) uint8."""
        return {key.removeprefix(IMAGES): seen for key, seen in self.observation.items() if key.startswith(IMAGES)}


@dataclass(frozen=True)
class Measured:
    """The quick look, without a camera: joints (J,) rad, closedness, and when on the arm's clock."""

    joints: np.ndarray
    gripper: float
    monotonic_s: float


@dataclass(frozen=True)
class Health:
    """What a device says of itself; empty where it says nothing.

    Attributes:
        faults: sentences; any of them stops the arm.
        temperature_c: by joint.
        load: by joint, as a share of what the device bears, 0 to 1.
        voltage_v: of its supply.
    """

    faults: tuple[str, ...] = ()
    temperature_c: Mapping[str, float] = field(default_factory=dict)
    load: Mapping[str, float] = field(default_factory=dict)
    voltage_v: float | None = None


@dataclass(frozen=True)
class JointTarget:
    """Where the joints shall be at the next tick.

    Attributes:
        joints: (J,) rad.
        gripper: closedness, 0 open to 1 closed.
        velocity: (J,) rad/s with which the joints pass the target; zeros when they shall stop there.
        gripper_velocity: closedness per second, likewise.
        acceleration: (J,) rad/s^2 with which they pass it; None where nobody asks.
        gripper_acceleration: closedness per second squared, likewise.
    """

    joints: np.ndarray
    gripper: float
    velocity: np.ndarray
    gripper_velocity: float = 0.0
    acceleration: np.ndarray | None = None
    gripper_acceleration: float = 0.0

    @classmethod
    def still(cls, joints: np.ndarray, gripper: float) -> JointTarget:
        """A target to come to rest at."""
        joints = np.array(joints, dtype=np.float64)
        return cls(joints, float(gripper), np.zeros_like(joints))


class Arm(ABC):
    """One arm. Joint angles in radians, poses in metres and radians in the arm's base frame.

    Attributes:
        name: what to call it in records.
        simulated: whether nothing real moves.
        joint_names: J names, in the order of every joint vector.
        kinematics: between joint angles and the tool's pose.
        rate_hz: how many targets a second `command` is meant to receive.
        park_joints: (J,) rad, where the arm may be left.
        park_speed: rad/s, the fastest any joint moves on the way there.
        identity: which device exactly (serial number, port, scene), for permits and records.
        calibration_hash: of what turns the device's units into radians; empty where the device keeps that itself.
        lockstep: simulated time passes only while targets are sent, so nobody waits between them.
        untested: what a person must know of an adapter that never met its device; empty otherwise.
        description: what the device says it is, once connected; empty where it says nothing.
        when_killed: what the hardware does when the process that drives it is killed.
        watching: set before `connect`: only to be read. Nothing is taken over or energised where the device leaves a choice.
    """

    name: str
    simulated: bool
    joint_names: tuple[str, ...]
    kinematics: Kinematics
    rate_hz: float
    park_joints: np.ndarray
    park_speed: float = 0.4
    identity: str
    calibration_hash: str = ""
    lockstep: bool = False
    untested: str = ""
    description: str = ""
    when_killed: str = "not known"
    watching: bool = False

    @property
    def scene(self) -> Scene | None:
        """What only a simulation can say."""
        return None

    @property
    def body(self) -> Body | None:
        """The room its links take, for the guard; without one links and obstacles are not watched."""
        return None

    @property
    def home_joints(self) -> np.ndarray:
        """(J,) rad, where a task begins."""
        return self.park_joints

    @abstractmethod
    def connect(self) -> None:
        """Open the device; nothing moves, and a target left over from before is replaced by the measured pose."""

    @abstractmethod
    def observe(self) -> Reading:
        """Read joints, tool pose and cameras."""

    @abstractmethod
    def command(self, target: JointTarget) -> None:
        """Send the target of one tick and return; the caller sends the next one 1 / rate_hz seconds later."""

    @abstractmethod
    def hold(self) -> JointTarget:
        """Come to rest where the arm is; returns the target that is held. Allowed at any time while connected."""

    @abstractmethod
    def release(self) -> None:
        """Let go: brakes or torque off, as the device has it. The arm takes no target until it is connected again."""

    @abstractmethod
    def disconnect(self) -> None:
        """Close the device. Safe to call twice."""

    @abstractmethod
    def now(self) -> float:
        """The arm's monotonic clock, seconds; what `Reading.monotonic_s` is stamped with."""

    def measure(self) -> Measured:
        """Joints and closedness, as quickly as the device gives them."""
        reading = self.observe()
        state = reading.observation["observation.state"]
        return Measured(reading.observation["observation.joints"], float(state[6]), reading.monotonic_s)

    def health(self) -> Health:
        """What the device says of itself; may take longer than a tick."""
        return Health()

    def park(self) -> None:
        """Move slowly to `park_joints` and stay there."""
        self.go(self.park_joints)

    def go(self, joints: np.ndarray, speed: float | None = None) -> None:
        """Move slowly to joint angles (J,) and stay there; returns when the arm was sent there.

        Args:
            joints: where to, rad.
            speed: rad/s of the fastest joint; `park_speed` where nothing is said.
        """
        from robots.cadence import Cadence
        from robots.stream import travel

        start, cadence = self.hold(), Cadence(self.rate_hz)
        for target in travel(start, joints, self.park_speed if speed is None else speed, self.rate_hz):
            if not self.lockstep:
                cadence.wait()
            self.command(target)
        self.hold()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disconnect()


def find(name: str) -> type[Arm]:
    """The class of an arm: a name from `ARMS`, or `module:Class`."""
    place = ARMS.get(name, name)
    if ":" not in place:
        near = difflib.get_close_matches(name, ARMS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(ARMS)}, or give module:Class"
        raise ValueError(f"no arm is called {name!r}; {hint}")
    module_name, _, class_name = place.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(f"arm {name!r}: cannot import {module_name} ({error}); is its driver installed?") from error
    found = getattr(module, class_name, None)
    if isinstance(found, type) and issubclass(found, Arm):
        return found
    raise ValueError(f"arm {name!r}: {module_name} has no class {class_name} that derives from robots.arm.Arm")


def connect(name: str, *, watching: bool = False, **config: Any) -> Arm:
    """A connected arm; use it in a `with` block, which disconnects it.

    Args:
        name: of the arm.
        watching: it is only to be read; its motors are left as they are where the device leaves that choice.
        config: its settings.

    Raises:
        ValueError: when the name or a setting is unknown.
    """
    kind = find(name)
    try:
        arm = kind(**config)
    except TypeError as error:
        raise ValueError(f"arm {name!r} does not take these settings: {error}") from error
    arm.watching = watching
    arm.connect()
    return arm


def check_target(arm: Arm, target: JointTarget) -> None:
    """Refuse a target that is no target, whoever sent it; every adapter calls this first in `command`."""
    if arm.watching:
        raise ArmError(f"{arm.name} is only watched and takes no target; connect it again")
    count = len(arm.joint_names)
    if np.shape(target.joints) != (count,) or np.shape(target.velocity) != (count,):
        raise ArmError(f"{arm.name} has {count} joints; a target came with {np.shape(target.joints)}")
    if not (np.isfinite(target.joints).all() and np.isfinite(target.velocity).all()):
        raise ArmError(f"a target for {arm.name} has NaN or infinity in it; nothing was sent")
    if not (math.isfinite(target.gripper) and math.isfinite(target.gripper_velocity)):
        raise ArmError(f"a gripper target for {arm.name} is {target.gripper}; nothing was sent")
