"""LeRobot's cameras for arms whose driver has none: opened all or none, read without waiting, stamped, refused by name."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from robots.arm import ArmError, Measured
from robots.cameras import Cameras
from robots.emulated.so101 import EmulatedSO101
from robots.kinematics import so101


@pytest.fixture(scope="module")
def running() -> Iterator[EmulatedSO101]:
    with EmulatedSO101() as emulated:
        yield emulated


@pytest.fixture
def front(running: EmulatedSO101) -> Iterator[dict[str, Any]]:
    """LeRobot's settings of a camera that works."""
    running.heal()
    assert running.camera is not None
    yield running.camera
    running.heal()


def test_an_arm_sees_with_them_and_knows_when(front: dict[str, Any]) -> None:
    cameras = Cameras({"front": front})
    cameras.connect()
    try:
        before = time.monotonic()
        time.sleep(0.1)
        kinematics, joints = so101(), np.zeros(5)
        reading = cameras.observe(kinematics, lambda: Measured(joints, 0.5, time.monotonic()))
        assert reading.observation["observation.images.front"].shape == (128, 128, 3)
        assert reading.observation["observation.images.front"].dtype == np.uint8
        assert before < reading.camera_s["front"] <= time.monotonic()
        np.testing.assert_allclose(
            reading.observation["observation.state"][:3], kinematics.forward(joints)[0], atol=1e-6
        )
        assert reading.observation["observation.state"][6] == 0.5
    finally:
        cameras.disconnect()


def test_a_camera_that_falls_silent_gives_no_old_frame_and_ends_no_process(
    running: EmulatedSO101, front: dict[str, Any]
) -> None:
    """LeRobot would close the socket under the thread that waits on it, and libzmq would abort."""
    cameras = Cameras({"front": front})
    cameras.connect()
    try:
        running.fault("camera", value="silent")
        time.sleep(0.8)
        with pytest.raises(ArmError, match="camera front gives no frame"):
            cameras.read()
    finally:
        cameras.disconnect()


def test_all_are_opened_or_none(front: dict[str, Any]) -> None:
    cameras = Cameras({"front": front, "wrist": {"type": "opencv", "index_or_path": "/dev/no-such-video"}})
    with pytest.raises(ArmError, match="camera wrist cannot be opened"):
        cameras.connect()
    with pytest.raises(ArmError, match="camera front gives no frame"):
        cameras.read()
    cameras.disconnect()  # twice is once


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"type": "opencb", "index_or_path": 0}, "camera front has type 'opencb'; did you mean opencv"),
        ({"index_or_path": 0}, "camera front has type None; known are"),
        ({"type": "opencv", "index_or_pth": 0}, "camera front: "),
    ],
)
def test_what_lerobot_does_not_know_is_refused_before_anything_is_opened(
    settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        Cameras({"front": settings})


def test_no_cameras_are_no_fault() -> None:
    cameras = Cameras()
    cameras.connect()
    assert cameras.read() == ({}, {})
    cameras.disconnect()
