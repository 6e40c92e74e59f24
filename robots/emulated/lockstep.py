"""The SO-101's body without bus and clock: the same physics, servos and camera, as fast as they can be computed.

Nothing of LeRobot's driver runs here, so it says nothing of the driver. It is for collecting play and for trying a brain
before the emulator takes its time.
"""

# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false
# (mujoco is a binary module whose functions and enums no stub describes)

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from envs import so101
from envs.panda import tool_rpy
from robots.arm import IMAGES, Arm, ArmError, JointTarget, Measured, Reading, check_target
from robots.emulated.arm import start_of
from robots.emulated.body import HALF_TURN, TICKS_PER_RAD, Body
from robots.emulated.camera import NAME, Drawing
from robots.emulated.feetech import GOAL, GOAL_VELOCITY
from robots.emulated.scene import ReachScene
from robots.kinematics import so101 as so101_kinematics
from robots.lerobot_camera import cut


class LockstepSO101(Arm):
    """An SO-101 whose time passes only while targets are sent.

    Args:
        seed: of the scene.
        joints: (5,) rad, where the arm stands at first; `scene` for where the seed's task begins; folded where nothing is
            said.
        camera_px, image_size: as of `EmulatedArm`.
        rate_hz: how many targets a second.
        servo_speed: rad/s, set in the servos, as `LeRobotArm` sets it.
    """

    simulated = True
    lockstep = True
    name = "so101 in lockstep"
    joint_names = so101.JOINT_NAMES
    park_joints = so101.PARK_JOINTS
    when_killed = "the simulation ends with its process"

    def __init__(
        self,
        seed: int = 0,
        joints: Sequence[float] | str | None = None,
        camera_px: int = 128,
        image_size: int | None = 64,
        rate_hz: float = 30.0,
        servo_speed: float = 3.0,
    ) -> None:
        self.seed, self.rate_hz = seed, float(rate_hz)
        self.identity = f"so101_lockstep:{seed}"
        self.kinematics = so101_kinematics()
        self._start, self._camera_px, self._image_size = start_of(joints, seed), camera_px, image_size
        self._servo_speed = servo_speed
        self._body: Body | None = None
        self._drawing: Drawing | None = None
        self._scene: ReachScene | None = None

    @property
    def home_joints(self) -> np.ndarray:
        """(5,) rad, where a task begins."""
        return so101.HOME_JOINTS

    @property
    def scene(self) -> ReachScene:
        """The task of this seed."""
        if self._scene is None:
            self._scene = ReachScene(self.seed, lambda: self._connected().qpos(), self._camera_px, self._image_size)
        return self._scene

    def connect(self) -> None:
        """Put the arm where it starts, held."""
        self._body = body = Body(self.seed, self._start, holding=True)
        for servo in body.servos:
            servo.put(GOAL_VELOCITY, round(self._servo_speed * TICKS_PER_RAD))
        self._drawing = Drawing(self._camera_px, self.seed) if self._camera_px else None
        self._ticks, self._stepped, self._released = 0, 0, False
        measured = self.measure()
        self._held = JointTarget.still(measured.joints, measured.gripper)

    def measure(self) -> Measured:
        """Joints and closedness, as finely as the servos' ticks tell them."""
        body = self._connected()
        angles = np.array([float(body.data.joint(motor).qpos[0]) for motor in so101.MOTORS])
        angles = np.rint(angles * TICKS_PER_RAD) / TICKS_PER_RAD
        return Measured(angles[:5], float(np.clip(so101.closedness(angles[5]), 0.0, 1.0)), self.now())

    def observe(self) -> Reading:
        """Joints, tool pose and the camera."""
        measured = self.measure()
        position, rotation = self.kinematics.forward(measured.joints)
        state = np.concatenate([position, tool_rpy(rotation), [measured.gripper]]).astype(np.float32)
        seen = {"observation.state": state, "observation.joints": measured.joints.astype(np.float32)}
        if self._drawing is None:
            return Reading(seen, self.now(), time.time())
        seen[f"{IMAGES}{NAME}"] = cut(self._drawing.seen(self._connected().qpos()), self._image_size)
        return Reading(seen, self.now(), time.time(), {NAME: self.now()})

    def command(self, target: JointTarget) -> None:
        """Tell the servos, and let one tick of physics pass."""
        if self._released:
            raise ArmError(f"{self.name} is released and takes no target; connect it again")
        body = self._connected()
        check_target(self, target)
        for servo, angle in zip(body.servos, [*target.joints, float(so101.gripper_angle(target.gripper))], strict=True):
            servo.put(GOAL, round(HALF_TURN + angle * TICKS_PER_RAD))
        body.listen()
        self._ticks += 1
        # A tick is no whole number of physics steps.
        due = round(self._ticks / self.rate_hz / so101.PHYSICS_STEP_S)
        body.step(due - self._stepped)
        self._stepped, self._held = due, target

    def hold(self) -> JointTarget:
        """Rest at the last target; one tick passes unless the arm is released."""
        self._held = JointTarget.still(self._held.joints, self._held.gripper)
        if not self._released:
            self.command(self._held)
        return self._held

    def release(self) -> None:
        """It takes no more targets."""
        self._connected()
        self._released = True

    def disconnect(self) -> None:
        """Free what draws."""
        if self._scene is not None:
            self._scene.close()
            self._scene = None
        if self._drawing is not None:
            self._drawing.close()
        self._body = self._drawing = None

    def now(self) -> float:
        """Simulated seconds since connect."""
        return self._ticks / self.rate_hz if self._body is not None else 0.0

    def _connected(self) -> Body:
        if self._body is None:
            raise ArmError(f"{self.name} is not connected; call connect() first")
        return self._body
