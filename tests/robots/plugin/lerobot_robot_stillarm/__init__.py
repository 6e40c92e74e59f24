"""A LeRobot plugin as a third party would write it: an arm without a motor bus that stands wherever it was sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lerobot.robots.config import RobotConfig
from lerobot.robots.robot import Robot

JOINTS = ("turn", "lift", "bend", "jaw")


@RobotConfig.register_subclass("stillarm")
@dataclass(kw_only=True)
class StillArmConfig(RobotConfig):
    stands: list[float]
    calibrated: bool = True


class StillArm(Robot):
    config_class = StillArmConfig
    name = "stillarm"

    def __init__(self, config: StillArmConfig) -> None:
        super().__init__(config)
        self.config = config
        self.stands = dict(zip(JOINTS, config.stands, strict=True))
        self.sent: list[dict[str, float]] = []
        self._open = False

    @property
    def observation_features(self) -> dict[str, Any]:
        return {f"{name}.pos": float for name in JOINTS}

    action_features = observation_features

    @property
    def is_connected(self) -> bool:
        return self._open

    @property
    def is_calibrated(self) -> bool:
        return self.config.calibrated

    def connect(self, calibrate: bool = True) -> None:
        if calibrate and not self.is_calibrated:
            self.calibrate()
        self._open = True

    def calibrate(self) -> None:
        input("Move the arm to its middle and press ENTER")

    def configure(self) -> None: ...

    def get_observation(self) -> dict[str, Any]:
        return {f"{name}.pos": value for name, value in self.stands.items()}

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        self.sent.append(dict(action))
        self.stands.update({key.removesuffix(".pos"): value for key, value in action.items()})
        return action

    def disconnect(self) -> None:
        self._open = False
