"""The suite of `conformance.py` on every arm that runs here without a device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from envs import so101
from robots.arm import Arm, find
from robots.emulated.so101 import EmulatedSO101
from robots.lerobot_arm import LeRobotArm
from tests.robots.conformance import Conformance, Make

LOOKING = ("test_an_observation_has_every_key", "test_stamps_run_forward")


@pytest.mark.parametrize("make", ["mujoco", "pybullet"], indirect=True)
class TestSimulated(Conformance):
    @pytest.fixture
    def make(self, request: pytest.FixtureRequest) -> Make:
        kind: Any = find(request.param)
        return lambda: kind(task="push", seed=10_001)


class TestEmulatedSO101(Conformance):
    """LeRobot's own `SO101Follower`, unmodified, on emulated servos with physics behind them."""

    @pytest.fixture(scope="class")
    def emulated(self) -> Iterator[EmulatedSO101]:
        with EmulatedSO101(joints=so101.HOME_JOINTS.tolist(), holding=True) as emulated:
            yield emulated

    @pytest.fixture
    def make(self, emulated: EmulatedSO101, request: pytest.FixtureRequest) -> Make:
        emulated.heal()
        emulated.place(so101.HOME_JOINTS.tolist())
        self._emulated = emulated
        # LeRobot warms a camera up for a second; most of the suite looks at none.
        seen = {} if request.function.__name__ in LOOKING else {"cameras": {}}
        return lambda: LeRobotArm("so101_follower", image_size=64, **{**emulated.settings, **seen})

    def fastest(self, arm: Arm) -> np.ndarray | None:
        speeds = self._emulated.truth()["fastest"]
        return np.array([speeds[name] for name in arm.joint_names])

    def leave_stale_goal(self, arm: Arm) -> None:
        for motor in so101.MOTORS:
            self._emulated.fault("limp", servo=motor)
        for motor in so101.JOINT_NAMES:
            self._emulated.fault("stale_goal", servo=motor, radians=0.9)
