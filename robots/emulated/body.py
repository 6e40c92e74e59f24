"""The body behind the registers: MuJoCo physics driven by what six servos are told, in real time.

A servo here goes to its goal at the STS3215's full speed, as LeRobot's driver sets it (maximal acceleration, no speed
limit), and pulls with the stiffness that so101.xml says.
"""

# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false
# (mujoco is a binary module whose functions and enums no stub describes)

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np

from envs import so101
from envs.panda import tool_rpy
from robots.emulated.feetech import (
    CURRENT,
    GOAL,
    GOAL_VELOCITY,
    LOAD,
    MOVING,
    POSITION,
    RESOLUTION,
    TORQUE,
    TORQUE_LIMIT,
    VELOCITY,
    Servo,
)

TICKS_PER_RAD = RESOLUTION / math.tau
# Feetech's data sheet of the 12 V STS3215: 45 rpm without load; Robonine measured 46 (SO-ARM100 issue 134).
FULL_SPEED = 45.0 / 60.0 * math.tau
# A joint that is jammed has so much dry friction, N m: more than its servo can pull.
JAMMED_NM = 50.0
# Homing offsets, in ticks, as a calibration leaves them: any numbers, all different.
HOMINGS = (-1423, 871, 1204, -388, 650, 1987)
HALF_TURN = (RESOLUTION - 1) // 2


def calibration() -> dict[str, dict[str, int]]:
    """What LeRobot's calibration file of this arm says: motor -> its `MotorCalibration`."""
    model = so101.arm_model()
    found = {}
    for index, motor in enumerate(so101.MOTORS):
        low, high = (round(HALF_TURN + limit * TICKS_PER_RAD) for limit in model.joint(motor).range)
        if motor == "wrist_roll":
            low, high = 0, RESOLUTION - 1  # LeRobot takes this joint's whole turn
        found[motor] = {
            "id": index + 1, "drive_mode": 0, "homing_offset": HOMINGS[index], "range_min": low, "range_max": high,
        }  # fmt: skip
    return found


class Body:
    """The arm, its table and its block.

    Args:
        seed: of the block's place.
        joints: (5,) rad, where the arm stands; folded where nothing is said.
        holding: the servos hold it there already, as a program that was killed leaves them.

    Attributes:
        servos: one a motor, in the order of `so101.MOTORS`.
        fastest: rad/s, the highest speed of each joint (6,) since it was last asked for.
    """

    def __init__(self, seed: int = 0, joints: Sequence[float] | None = None, holding: bool = False) -> None:
        self.model, rng = so101.scene_model(), np.random.default_rng(seed)
        self.data = mujoco.MjData(self.model)
        place, turn = rng.uniform(so101.BLOCK_LOW, so101.BLOCK_HIGH), rng.uniform(0, math.pi)
        start = so101.PARK_JOINTS if joints is None else np.asarray(joints, dtype=np.float64)
        self._joints = [self.model.joint(motor) for motor in so101.MOTORS]
        self._q = np.array([joint.qposadr[0] for joint in self._joints])
        self._v = np.array([joint.dofadr[0] for joint in self._joints])
        self.data.qpos[self._q] = [*start, float(so101.gripper_angle(0.5))]
        thing = self.model.joint("block").qposadr[0]
        self.data.qpos[thing : thing + 7] = [*place, so101.BLOCK_HALF_M, math.cos(turn / 2), 0, 0, math.sin(turn / 2)]
        mujoco.mj_forward(self.model, self.data)
        self._gain, self._bias = self.model.actuator_gainprm[:, 0].copy(), self.model.actuator_biasprm[:, 1].copy()
        self._force = self.model.actuator_forcerange.copy()
        self._friction = self.model.dof_frictionloss.copy()
        self.servos = [
            Servo(entry["id"], entry["range_min"], entry["range_max"], entry["homing_offset"], ticks)
            for entry, ticks in zip(calibration().values(), self._ticks(), strict=True)
        ]
        for servo in self.servos:
            servo.memory[TORQUE] = int(holding)
        self._setpoint = self.data.qpos[self._q].copy()
        self._goal = self._setpoint.copy()
        self._speed = np.full(6, FULL_SPEED)
        self._holds = np.zeros(6, bool)
        self.fastest = np.zeros(6)
        self.listen()
        self.report()

    def listen(self) -> None:
        """Take over what the registers ask for; to be called with the bus locked."""
        for i, servo in enumerate(self.servos):
            holds = servo.torque
            if holds and not self._holds[i]:
                self._setpoint[i] = self.data.qpos[self._q[i]]
            self._holds[i] = holds
            self._goal[i] = (servo.aim - HALF_TURN) / TICKS_PER_RAD
            limit = abs(servo.get(GOAL_VELOCITY)) / TICKS_PER_RAD
            self._speed[i] = min(limit, FULL_SPEED) if limit else FULL_SPEED
            self.model.actuator_forcerange[i] = self._force[i] * servo.get(TORQUE_LIMIT) / 1000
        self.model.actuator_gainprm[:, 0] = np.where(self._holds, self._gain, 0.0)
        self.model.actuator_biasprm[:, 1] = np.where(self._holds, self._bias, 0.0)

    def step(self, steps: int) -> None:
        """So many physics steps."""
        most = self._speed * so101.PHYSICS_STEP_S
        for _ in range(steps):
            self._setpoint += np.clip(self._goal - self._setpoint, -most, most)
            self.data.ctrl[:] = self._setpoint
            mujoco.mj_step(self.model, self.data)
            np.maximum(self.fastest, np.abs(self.data.qvel[self._v]), out=self.fastest)

    def report(self) -> None:
        """Write into the registers what the servos feel; to be called with the bus locked."""
        speeds = np.rint(self.data.qvel[self._v] * TICKS_PER_RAD).astype(int)
        loads = np.rint(1000 * self.data.actuator_force / self._force[:, 1]).astype(int)
        for servo, ticks, speed, load in zip(self.servos, self._ticks(), speeds, loads, strict=True):
            servo.put(POSITION, ticks)
            servo.put(VELOCITY, int(speed))
            servo.put(LOAD, int(np.clip(load, -1000, 1000)))
            servo.put(CURRENT, abs(int(load)) // 4)
            servo.memory[MOVING] = int(abs(speed) > 10)

    def place(self, joints: Sequence[float], holding: bool) -> None:
        """Put the arm somewhere, (5,) rad, at rest, its servos holding it there or limp; their goals are where it stands."""
        self.data.qpos[self._q[:5]] = joints
        self.data.qvel[:] = 0.0
        mujoco.mj_forward(self.model, self.data)
        self._setpoint = self.data.qpos[self._q].copy()
        for servo, ticks in zip(self.servos, self._ticks(), strict=True):
            servo.put(GOAL, ticks)
            servo.memory[TORQUE] = int(holding)
            servo.put(GOAL_VELOCITY, 0)
        self.listen()
        self.report()
        self.fastest[:] = 0.0

    def jam(self, index: int, jammed: bool) -> None:
        """Block a joint, or free it."""
        dof = self._v[index]
        self.model.dof_frictionloss[dof] = JAMMED_NM if jammed else self._friction[dof]

    def free(self) -> None:
        """Free every joint."""
        self.model.dof_frictionloss[:] = self._friction

    def truth(self) -> dict[str, Any]:
        """What is really so: joints, goals, torque, tool, block, fastest speeds since last asked, all positions (`qpos`)."""
        angles = self.data.qpos[self._q]
        found = {
            "joints": dict(zip(so101.MOTORS, map(float, angles), strict=True)),
            "goals": dict(zip(so101.MOTORS, map(float, self._goal), strict=True)),
            "raw_goals": {motor: servo.get(GOAL) for motor, servo in zip(so101.MOTORS, self.servos, strict=True)},
            "torque": {motor: servo.torque for motor, servo in zip(so101.MOTORS, self.servos, strict=True)},
            "fastest": dict(zip(so101.MOTORS, map(float, self.fastest), strict=True)),
            "tool": self.data.site(so101.TOOL_SITE).xpos.tolist(),
            "block": self.data.body("block").xpos.tolist(),
            "qpos": self.data.qpos.tolist(),
            "time": float(self.data.time),
        }
        self.fastest[:] = 0.0
        return found

    def qpos(self) -> np.ndarray:
        """All positions, for a camera elsewhere."""
        return self.data.qpos.copy()

    def _ticks(self) -> list[int]:
        angles = np.rint(HALF_TURN + self.data.qpos[self._q] * TICKS_PER_RAD).astype(int)
        return [int(ticks) for ticks in np.clip(angles, 0, RESOLUTION - 1)]


def tool_state(body: Body) -> np.ndarray:
    """`observation.state` (7,) float32 of what is really so: tool x, y, z (m), roll, pitch, yaw (rad), closedness."""
    site = body.data.site(so101.TOOL_SITE)
    closed = so101.closedness(float(body.data.joint(so101.GRIPPER).qpos[0]))
    return np.array([*site.xpos, *tool_rpy(site.xmat.reshape(3, 3)), closed], np.float32)
