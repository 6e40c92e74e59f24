"""The emulated SO-101's task: a goal picture of the arm elsewhere over the table, and whether the tool came there.

A seed chooses where the arm starts, where the block lies and where the tool shall be; the goal is a state physics was
really in, servos sagging and all. A planner sees its picture; the judgement is for reports.
"""

# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false
# (mujoco is a binary module whose functions and enums no stub describes)

from __future__ import annotations

import functools
from collections.abc import Callable

import mujoco
import numpy as np

from envs import so101
from robots.arm import IMAGES
from robots.emulated.body import Body, tool_state
from robots.emulated.camera import Drawing
from robots.kinematics import Kinematics
from robots.kinematics import so101 as so101_kinematics
from robots.lerobot_camera import cut

TASK, BUDGET_STEPS = "reach", 25
# The tool is there when it is this near, m.
NEAR_M = 0.02
# Where the tool starts and where it shall be, m: inside the workspace of configs/guard/so101.yaml, over the block, and at
# least so far from each other.
LOW, HIGH = np.array([0.16, -0.12, 0.05]), np.array([0.27, 0.12, 0.16])
APART_M = 0.08
# Inverse kinematics missed by less than this found a pose.
MET_M = 0.002
# Long enough for the servos to have sagged to where they stay, s.
SETTLE_S = 1.0


@functools.cache
def poses(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Joints (5,) rad of start and goal; the goal is reached from the start in steps as short as a planner's."""
    rng, kinematics = np.random.default_rng([seed, 1]), so101_kinematics()
    _, facing = kinematics.forward(so101.HOME_JOINTS)

    def somewhere() -> tuple[np.ndarray, np.ndarray]:
        while True:
            place = rng.uniform(LOW, HIGH)
            joints = _towards(kinematics, so101.HOME_JOINTS, place, facing)
            if np.abs(kinematics.forward(joints)[0] - place).max() < MET_M:
                return joints, place

    start, here = somewhere()
    while True:
        goal, there = somewhere()
        if np.linalg.norm(there - here) > APART_M:
            return start, goal


def _towards(kinematics: Kinematics, joints: np.ndarray, place: np.ndarray, facing: np.ndarray) -> np.ndarray:
    """Joints (5,) that bring the tool from `joints` to a place (3,), found as a way of 3 cm steps is found."""
    here = kinematics.forward(joints)[0]
    steps = max(1, int(np.ceil(np.abs(place - here).max() / 0.03)))
    for share in np.linspace(0, 1, steps + 1)[1:]:
        joints = kinematics.solve(joints, here + share * (place - here), facing)
    return joints


class ReachScene:
    """`robots.scene.Scene` of an emulated SO-101.

    Args:
        seed: of start, block and goal.
        qpos: gives the positions of everything in the scene, as it is now.
        camera_px: side of the emulated camera's pictures; what the planner sees of the goal is taken likewise.
        image_size: what they are resized to; None leaves them.
    """

    task = TASK
    budget_steps = BUDGET_STEPS

    def __init__(
        self, seed: int, qpos: Callable[[], np.ndarray], camera_px: int = 128, image_size: int | None = 64
    ) -> None:
        self._seed, self._qpos, self._camera_px, self._image_size = seed, qpos, camera_px, image_size
        self._goal: tuple[dict[str, np.ndarray], np.ndarray] | None = None
        self._drawings: dict[int, Drawing] = {}
        self._model = so101.scene_model()
        self._data = mujoco.MjData(self._model)

    @property
    def goal(self) -> dict[str, np.ndarray]:
        """The observation of an arm that is held at the goal, everything else as it lies at first."""
        return self._reached()[0]

    def judge(self) -> tuple[bool, float]:
        """Whether the tool is within 2 cm of the goal's, and how far it is, m; by what is really so."""
        distance = float(np.linalg.norm(self._tool(self._qpos()) - self._tool(self._reached()[1])))
        return distance < NEAR_M, distance

    def truth(self) -> np.ndarray:
        """The block's position and quaternion wxyz (7,)."""
        address = self._model.joint("block").qposadr[0]
        return self._qpos()[address : address + 7].astype(np.float32)

    def picture(self, size: int = 256) -> np.ndarray:
        """The front camera for people, (size, size, 3) uint8."""
        return self._drawing(size).clean(self._qpos())

    def goal_picture(self, size: int = 256) -> np.ndarray:
        """The goal as the front camera would see it."""
        return self._drawing(size).clean(self._reached()[1])

    def close(self) -> None:
        """Free the renderers."""
        for drawing in self._drawings.values():
            drawing.close()
        self._drawings.clear()

    def _reached(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        if self._goal is None:
            body = Body(self._seed, poses(self._seed)[1].tolist(), holding=True)
            body.step(round(SETTLE_S / so101.PHYSICS_STEP_S))
            qpos, state = body.qpos(), tool_state(body)
            seen = {"observation.state": state}
            if self._camera_px:
                picture = self._drawing(self._camera_px).seen(qpos)
                seen[f"{IMAGES}front"] = cut(picture, self._image_size)
            self._goal = seen, qpos
        return self._goal

    def _drawing(self, size: int) -> Drawing:
        if size not in self._drawings:
            self._drawings[size] = Drawing(size, self._seed)
        return self._drawings[size]

    def _tool(self, qpos: np.ndarray) -> np.ndarray:
        self._data.qpos[:] = qpos
        mujoco.mj_kinematics(self._model, self._data)
        return self._data.site(so101.TOOL_SITE).xpos.copy()
