"""A Franka arm (FR3, Panda) through franky: our ticks become the reference of a joint impedance law that runs at 1 kHz.

The law runs in franky's own control thread; a late tick of ours is a reference that stays where it is, and no missed
packet. Of the ways franky offers it was the one that followed best without a reflex (docs/arms/franka.md has the table).
Between movements no control session runs: the controller holds the arm by itself, whatever becomes of this process.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import re
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robots.arm import Arm, ArmError, Health, JointTarget, Measured, Reading, check_target
from robots.body import Body, MujocoBody, Plane
from robots.cadence import Cadence
from robots.cameras import Cameras
from robots.franka_hand import Hand
from robots.franka_model import HOME, JOINTS, KINDS, TOOL, flange, kinematics, model
from robots.settings import require
from robots.stream import MotionBounds, Streamer

INSTALL = "pip install franky-control==2.0.0 (x86-64 Linux with glibc 2.34 or newer)"
RATE_HZ = 100.0
# libfranka's own example of joint impedance control, Nm/rad. In franka-sim a wrist of (600, 600, 400) with an arm of 1000
# swings itself into tau_J_range_violation.
STIFFNESS = (600.0, 600.0, 600.0, 600.0, 250.0, 150.0, 50.0)
# Nms/rad. For the light wrist less than the example's 30, 25, 15: it follows as well, and lost packets matter less.
DAMPING = (50.0, 50.0, 50.0, 50.0, 20.0, 15.0, 8.0)
# The spring may use this share of what a joint bears: a reference that runs ahead of a blocked arm pulls no harder.
SPRING_SHARE = 0.6
# A stream that says nothing for so long is taken to have stopped: the reference then stays where it is, at rest.
SILENT_S = 0.05
# Torque may change by 1 Nm a cycle at most, or the controller stops; franky counts that from what libfranka's low-pass filter
# let through, which at its usual 100 Hz leaves 0.39: too slow for this stiffness, the arm swings up. So no filter (1000 Hz
# turns it off); what the law is told is smooth by itself.
TORQUE_STEP_NM, NO_FILTER_HZ = 0.95, 1000.0
# A first target further off than this would pull the arm there with a jerk.
START_RAD = 0.02
# How strongly `hold` brakes: half of what an FR3 may, reached in 50 ms.
BRAKE_ACCELERATION, BRAKE_JERK = 5.0, 100.0
# After the reference rests, the arm follows for this long before the law lets go; and the law may take this long to end.
SETTLE_S, END_S = 0.15, 3.0
MODES = {
    "Other": "the arm is not ready: unlock the joints and activate FCI in Desk",
    "Guiding": "the arm is being guided by hand; let go of its buttons",
    "Reflex": "the arm stopped itself with a reflex",
    "UserStopped": "the arm's own stop is pressed; release it, and see that nobody is near",
    "AutomaticErrorRecovery": "the arm is recovering from an error",
}


class FrankaArm(Arm):
    """One Franka arm with a Franka Hand, or without.

    Args:
        address: of the control box, such as 172.16.0.2.
        kind: `fr3` or `panda`.
        realtime: `enforce` refuses to run without a real-time kernel; `ignore` runs, and loses packets under load.
        stiffness: (7,) Nm/rad of the impedance law.
        collision_torque_nm, collision_force_n: beyond these outer torques and forces the arm stops itself.
        hand: whether there is a Franka Hand.
        hand_speed_m_s, hand_force_n: how fast its opening changes, and how hard it holds.
        least_success_rate: a lower share of answered control packets is a fault.
        geometry_m: how far the flange may be from where our geometry has it.
        park_joints: (7,) rad, where the arm may be left.
        cameras: name -> settings of a LeRobot camera.
    """

    simulated = False
    rate_hz = RATE_HZ
    park_speed = 0.3

    def __init__(
        self,
        address: str,
        kind: str = "fr3",
        realtime: str = "enforce",
        stiffness: Sequence[float] = STIFFNESS,
        collision_torque_nm: float = 20.0,
        collision_force_n: float = 20.0,
        hand: bool = True,
        hand_speed_m_s: float = 0.1,
        hand_force_n: float = 20.0,
        least_success_rate: float = 0.8,
        geometry_m: float = 0.005,
        park_joints: Sequence[float] | None = None,
        cameras: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        require("franka", address=(address, "172.16.0.2"))
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}; known are {', '.join(KINDS)}")
        if realtime not in ("enforce", "ignore"):
            raise ValueError(f"realtime is {realtime!r}; known are enforce, ignore")
        if len(stiffness) != JOINTS or not all(0.0 < value <= 2000.0 for value in stiffness):
            raise ValueError(
                f"stiffness needs {JOINTS} numbers above 0 and at most 2000 Nm/rad; it is {list(stiffness)}"
            )
        self.franka = KINDS[kind]
        self.name = f"franka {kind}"
        self.joint_names = self.franka.joint_names
        self.kinematics = kinematics(self.franka)
        self.park_joints = HOME if park_joints is None else np.asarray(park_joints, dtype=np.float64)
        if self.park_joints.shape != (JOINTS,):
            raise ValueError(f"park_joints needs {JOINTS} angles, it has shape {self.park_joints.shape}")
        if why := self.franka.refusal(JointTarget.still(self.park_joints, 0.0)):
            raise ValueError(f"park_joints: {why}")
        self.identity = f"{self.name} at {address}"
        self.untested = (
            "no physical arm was ever driven by this adapter; franky was run against simulated controllers"
            + ("" if kind == "fr3" else ", and those simulate an FR3, not a Panda")
        )
        self._address, self._realtime = address, realtime
        self._stiffness = np.asarray(stiffness, dtype=np.float64)
        self._reach = SPRING_SHARE * np.array(self.franka.torque) / self._stiffness
        self._lock, self._sent_s = threading.Lock(), 0.0
        self._collision = (float(collision_torque_nm), float(collision_force_n))
        self._hand_settings = (float(hand_speed_m_s), float(hand_force_n)) if hand else None
        self._least_success_rate, self._geometry_m = least_success_rate, geometry_m
        self._bounds = MotionBounds(
            self.franka.velocity, (BRAKE_ACCELERATION,) * JOINTS, (BRAKE_JERK,) * JOINTS, 10.0, 100.0, 1e4
        )
        self._cameras = Cameras(cameras)
        self._franky: Any = None
        self._robot: Any = None
        self._hand: Hand | None = None
        self._motion: Any = None
        self._last: JointTarget | None = None
        self._released = False
        self._fault = ""

    @functools.cached_property
    def body(self) -> Body:
        """Franka's own self-collision capsules, on a table at the height of the base."""
        table = Plane("table", 0.0)
        return MujocoBody(model(self.franka), self.joint_names, tool=TOOL, rest=HOME, obstacles=[table])

    # -- the arm -----------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Open the control box, hand and cameras; nothing moves and no control session is begun."""
        self._franky = franky = _driver()
        config = franky.RealtimeConfig.Enforce if self._realtime == "enforce" else franky.RealtimeConfig.Ignore
        try:
            # Of franky's own motions only the stop is used; should another ever run, it runs at a twentieth.
            self._robot = franky.Robot(self._address, relative_dynamics_factor=0.05, realtime_config=config)
            self._robot.set_collision_behavior(*self._collision)
            self._check_model()
            if self._hand_settings:
                self._hand = Hand(franky.Gripper(self._address), *self._hand_settings)
            self._cameras.connect()
        except Exception as error:
            self.disconnect()
            if isinstance(error, ArmError):
                raise
            raise ArmError(self._why_not(error)) from error
        self._released, self._motion = False, None
        self._fault = _state_faults(self._robot.state)[0] if _state_faults(self._robot.state) else ""
        self._last = JointTarget.still(self._robot.state.q, self._closedness())

    def measure(self) -> Measured:
        """Joints and closedness; instant while a movement runs, about a millisecond otherwise."""
        joints = np.array(self._state().q)
        return Measured(joints, self._closedness(), self.now())

    def observe(self) -> Reading:
        """Cameras, then joints and tool pose."""
        return self._cameras.observe(self.kinematics, self.measure)

    def command(self, target: JointTarget) -> None:
        """Make a target the reference of the law; the first one that moves begins a control session."""
        robot = self._ready()
        check_target(self, target)
        if why := self.franka.refusal(target):
            raise ArmError(f"{self.name}: {why}; nothing was sent")
        if self._motion is None:
            if self._resting(target):
                self._follow_hand(target)
                return
            self._begin(target)
        elif not robot.is_in_control:
            self._lost()
        self._refer(target)
        self._follow_hand(target)

    def hold(self) -> JointTarget:
        """Brake, end the control session, and leave the arm to its controller, which holds it."""
        robot = self._connected()
        gripper = self._closedness() if self._last is None else self._last.gripper
        if self._motion is not None and self._last is not None:
            try:
                self._brake(robot)
            except (ArmError, *self._errors()) as error:
                # Whatever went wrong, the arm was stopped by its controller; the fault stays until a person looks.
                self._fault = self._fault or self._reason(error)
            self._motion = None
        if self._hand is not None:
            self._hand.rest()
        self._last = JointTarget.still(self._state().q, gripper)
        return self._last

    def release(self) -> None:
        """End the session. The brakes belong to Desk and to the arm's own stop: until then its controller holds it."""
        self.hold()
        self._released = True

    def disconnect(self) -> None:
        """Hold and close; what the hand holds it keeps holding."""
        if self._robot is not None and self._motion is not None:
            with contextlib.suppress(Exception):
                self.hold()
        if self._hand is not None:
            self._hand.close()
        self._hand = self._motion = self._robot = None
        self._cameras.disconnect()

    def now(self) -> float:
        """This machine's monotonic clock."""
        return time.monotonic()

    def health(self) -> Health:
        """Errors and reflexes as sentences, the torques as shares of what the joints bear, the hand's temperature."""
        state = self._state()
        faults = [self._fault] if self._fault else []
        faults += [sentence for sentence in _state_faults(state) if sentence not in faults]
        quality = self.network_quality
        if quality is not None and quality < self._least_success_rate:
            faults.append(
                f"only {100 * quality:.0f} % of the last control packets were answered in time (limit "
                f"{100 * self._least_success_rate:.0f} %); use a real-time kernel and a network card of its own"
            )
        if self._hand is not None and self._hand.fault:
            faults.append(self._hand.fault)
        load = np.abs(state.tau_J) / np.array(self.franka.torque)
        hand = {} if self._hand is None else {"hand": self._hand.temperature_c}
        return Health(tuple(faults), hand, dict(zip(self.joint_names, map(float, load), strict=True)))

    # -- what only a Franka has --------------------------------------------------------------------------------------

    @property
    def network_quality(self) -> float | None:
        """Share of the last 100 control packets that came in time; None while no control session runs."""
        robot = self._connected()
        return float(robot.state.control_command_success_rate) if self._motion is not None else None

    def recover(self) -> None:
        """Clear a reflex. For a person who has looked at the arm; nothing of ours calls it."""
        robot = self._connected()
        if self._motion is not None:
            self.hold()
        if not robot.recover_from_errors():
            raise ArmError(
                f"{self.name} does not recover: {'; '.join(_state_faults(robot.state)) or 'no reason given'}"
            )
        left = _state_faults(robot.state)
        if left:
            raise ArmError(f"{self.name} still says: {'; '.join(left)}")
        self._fault = ""
        self._last = JointTarget.still(robot.state.q, self._closedness())

    # -- inside ------------------------------------------------------------------------------------------------------

    def _begin(self, target: JointTarget) -> None:
        robot, franky = self._robot, self._franky
        if faults := _state_faults(robot.state):
            self._fault = faults[0]
            raise ArmError(f"{self.name}: {self._fault}; nothing was sent")
        here = np.array(robot.state.q)
        off = np.abs(target.joints - here)
        if off.max() > START_RAD:
            worst = int(off.argmax())
            raise ArmError(
                f"the first target of {self.name} has {self.joint_names[worst]} {off[worst]:.3f} rad from where it stands "
                f"(limit {START_RAD:g}); begin from what hold() returns"
            )
        motion = franky.JointImpedanceTrackingMotion(
            stiffness=self._stiffness, damping=np.array(DAMPING), max_delta_tau=TORQUE_STEP_NM
        )
        motion.set_reference(franky.JointReference(q=here))
        try:
            robot.move(motion, asynchronous=True, cutoff_frequency=NO_FILTER_HZ)
        except self._errors() as error:
            self._fault = self._reason(error)
            raise ArmError(f"{self.name}: {self._fault}") from error
        self._motion = motion
        threading.Thread(target=self._watch, args=(motion,), name="franka watch", daemon=True).start()

    def _refer(self, target: JointTarget) -> None:
        here = np.array(self._robot.state.q)
        joints = here + np.clip(target.joints - here, -self._reach, self._reach)
        with self._lock:
            self._motion.set_reference(self._franky.JointReference(q=joints, dq=target.velocity))
            self._last, self._sent_s = target, time.monotonic()

    def _watch(self, motion: Any) -> None:
        """While a session runs: a reference nobody renews must not go on saying that the arm moves."""
        while self._motion is motion:
            time.sleep(SILENT_S / 5)
            with self._lock:
                last = self._last
                silent = self._motion is motion and time.monotonic() - self._sent_s > SILENT_S
                if silent and last is not None and np.any(last.velocity):
                    motion.set_reference(self._franky.JointReference(q=last.joints))

    def _brake(self, robot: Any) -> None:
        streamer, cadence = Streamer(self._bounds, RATE_HZ, self._last), Cadence(RATE_HZ)  # type: ignore[arg-type]
        streamer.brake()
        while streamer.moving and robot.is_in_control:
            cadence.wait()
            self._refer(streamer.tick())
        self._refer(streamer.target)
        time.sleep(SETTLE_S)
        if robot.is_in_control:
            robot.move(
                self._franky.TorqueStopMotion(max_delta_tau=TORQUE_STEP_NM),
                asynchronous=True,
                cutoff_frequency=NO_FILTER_HZ,
            )
        if not robot.join_motion(timeout=END_S):
            raise ArmError("the control session does not end")

    def _lost(self) -> None:
        """The session ended without us: a reflex, the arm's own stop, the network."""
        try:
            self._robot.join_motion(timeout=END_S)
            self._fault = "the controller ended the control session and gave no reason"
        except self._errors() as error:
            self._fault = self._reason(error)
        self._motion = None
        with contextlib.suppress(*self._errors()):  # the network may be what was lost
            self._last = JointTarget.still(self._robot.state.q, self._closedness())
        raise ArmError(f"{self.name}: {self._fault}")

    def _resting(self, target: JointTarget) -> bool:
        last = self._last
        return last is not None and not np.any(target.velocity) and bool(np.array_equal(target.joints, last.joints))

    def _follow_hand(self, target: JointTarget) -> None:
        if self._hand is not None:
            self._hand.want(target.gripper, target.gripper_velocity)

    def _closedness(self) -> float:
        return 0.0 if self._hand is None else self._hand.closedness

    def _connected(self) -> Any:
        if self._robot is None:
            raise ArmError(f"{self.name} is not connected; call connect() first")
        return self._robot

    def _ready(self) -> Any:
        robot = self._connected()
        if self._released:
            raise ArmError(f"{self.name} is released and takes no target; connect it again")
        if self._fault:
            raise ArmError(f"{self.name}: {self._fault}; look at the arm, then recover it")
        return robot

    def _state(self) -> Any:
        try:
            return self._connected().state
        except self._errors() as error:
            self._fault = self._reason(error)
            raise ArmError(f"{self.name}: {self._fault}") from error

    def _errors(self) -> tuple[type[BaseException], ...]:
        return (self._franky.Exception, RuntimeError) if self._franky is not None else (RuntimeError,)

    def _reason(self, error: BaseException) -> str:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        names = re.findall(r'"(\w+)"', text)
        if names:
            return f"the controller stopped the arm with a reflex: {', '.join(names)}"
        return f"the controller says: {text.removeprefix('libfranka: ')}"

    def _check_model(self) -> None:
        """The box drives the arm we think it drives, with the geometry we think it has."""
        description = str(self._robot.model_urdf)
        found = re.search(r'<robot[^>]*\bname="(\w+)"', description)
        told = {"fer": "panda"}.get(found.group(1), found.group(1)) if found else ""
        if told in KINDS and told != self.franka.kind:
            raise ArmError(
                f"the control box at {self._address} drives a {told}; the robot's kind is {self.franka.kind}"
            )
        state = self._robot.state
        theirs = np.array(state.O_T_EE.matrix) @ np.linalg.inv(np.array(state.F_T_EE.matrix))
        off = float(np.linalg.norm(theirs[:3, 3] - flange(np.array(state.q))[:3, 3]))
        if off > self._geometry_m:
            raise ArmError(
                f"the control box puts the flange {1000 * off:.0f} mm from where our {self.name} has it "
                f"(limit {1000 * self._geometry_m:.0f} mm)"
            )
        self.identity = f"{self.name} at {self._address}, model {hashlib.sha256(description.encode()).hexdigest()[:8]}"

    def _why_not(self, error: Exception) -> str:
        franky, text = self._franky, (str(error) or type(error).__name__).splitlines()[0]
        if isinstance(error, franky.IncompatibleVersionException):
            return (
                f"the control box at {self._address} speaks another version than this franky ({text}); "
                "see docs/arms/franka.md"
            )
        if isinstance(error, franky.RealtimeException):
            return (
                "this kernel is not real-time (PREEMPT_RT); boot one that is, or set robot.realtime=ignore and expect "
                "lost packets"
            )
        return (
            f"no Franka control box answers at {self._address} ({text}); is the cable in the control box, the joints "
            "unlocked and FCI active in Desk?"
        )


def _driver() -> Any:
    try:
        return importlib.import_module("franky")
    except ImportError as error:
        raise ArmError(f"the Franka driver cannot be imported ({error}): {INSTALL}") from error


def _state_faults(state: Any) -> list[str]:
    """What the controller says is wrong, in sentences."""
    mode = str(state.robot_mode).rpartition(".")[2]
    errors = [name for name in dir(state.current_errors) if not name.startswith("_")]
    named = [name for name in errors if getattr(state.current_errors, name) is True]
    faults = [MODES[mode] + (f": {', '.join(named)}" if named else "")] if mode in MODES else []
    return faults or ([f"the arm reports {', '.join(named)}"] if named else [])
