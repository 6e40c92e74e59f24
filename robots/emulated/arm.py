"""The emulated SO-101 as an arm: LeRobot's unmodified driver on an emulator that starts and ends with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from robots.emulated.scene import ReachScene, poses
from robots.emulated.so101 import EmulatedSO101
from robots.lerobot_arm import LeRobotArm


class EmulatedArm(LeRobotArm):
    """An SO-101 that is not there.

    Args:
        seed: of the scene.
        joints: (5,) rad, where the arm stands at first; `scene` for where the seed's task begins; folded where nothing is
            said.
        holding: its servos hold it there already, as a program that was killed leaves them.
        camera_px: side of the emulated camera's pictures; 0 for no camera.
        fps: pictures a second.
        image_size, settings: as of `LeRobotArm`.

    Attributes:
        emulator: for faults and for the truth.
    """

    simulated = True
    untested = ""
    when_killed = "the emulator ends with the process that drives it"

    def __init__(
        self,
        seed: int = 0,
        joints: Sequence[float] | str | None = None,
        holding: bool = False,
        camera_px: int = 128,
        fps: float = 30.0,
        image_size: int | None = 64,
        **settings: Any,
    ) -> None:
        self.seed = seed
        joints = start_of(joints, seed)
        self._scene: ReachScene | None = None
        self._camera_px, self._image_size = camera_px, image_size
        self.emulator = EmulatedSO101(seed, joints, holding, camera_px, fps)
        self._asked = {"type": "so101_follower", "image_size": image_size, **settings}
        self._start()

    @property
    def scene(self) -> ReachScene:
        """The task of this seed, judged by the emulator's truth."""
        if self._scene is None:
            self._scene = ReachScene(
                self.seed, lambda: np.array(self.emulator.truth()["qpos"]), self._camera_px, self._image_size
            )
        return self._scene

    def connect(self) -> None:
        """Start the emulator, unless it runs, and connect to it."""
        if not self.emulator.running:
            self._start()
        try:
            super().connect()
        except BaseException:
            self.emulator.stop()
            raise

    def disconnect(self) -> None:
        """Close the port and end the emulator."""
        super().disconnect()
        if self._scene is not None:
            self._scene.close()
            self._scene = None
        self.emulator.stop()

    def _start(self) -> None:
        self.emulator.start()
        try:
            super().__init__(**{**self._asked, **self.emulator.settings})
        except BaseException:
            self.emulator.stop()
            raise
        self.name = "emulated so101"

    def _identity(self) -> str:
        return f"so101_emulated:{self.seed}"


def start_of(joints: Sequence[float] | str | None, seed: int) -> Sequence[float] | None:
    """What a setting says of where the arm stands at first, as (5,) rad; None for folded."""
    if isinstance(joints, str):
        if joints != "scene":
            raise ValueError(f"joints is {joints!r}; give five angles in rad, scene, or null for folded")
        return poses(seed)[0].tolist()
    return joints
