"""Doubles of the UR and xArm drivers, WRITTEN HERE: no vendor's simulator and no recording of an arm stands behind them.

They answer the few calls the adapters make with the types the drivers' own documentation states, move at once to where they
are sent, and note what was called. A test that passes against them says that an adapter's logic is as meant, not that an
arm would follow.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest


class UrDouble:
    """Both RTDE interfaces of one arm."""

    def __init__(self, address: str) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.joints = [0.0] * 6
        self.safety_bits = 1
        self.connected = self.accepts = True

    def setPayload(self, mass: float, centre: list[float]) -> bool:
        self.calls.append(("setPayload", mass))
        return True

    def servoJ(self, q: list[float], speed: float, acceleration: float, t: float, ahead: float, gain: float) -> bool:
        self.calls.append(("servoJ", tuple(q), t))
        self.joints = list(q) if self.accepts else self.joints
        return self.accepts

    def servoStop(self, a: float = 10.0) -> bool:
        self.calls.append(("servoStop", a))
        return True

    def stopScript(self) -> None:
        self.calls.append(("stopScript",))

    def disconnect(self) -> None:
        self.calls.append(("disconnect",))

    def getActualQ(self) -> list[float]:
        return list(self.joints)

    def isConnected(self) -> bool:
        return self.connected

    def getSafetyStatusBits(self) -> int:
        return self.safety_bits

    def getJointTemperatures(self) -> list[float]:
        return [30.0] * 6

    def getActualMainVoltage(self) -> float:
        return 48.0


class XArmDouble:
    """`xarm.wrapper.XArmAPI` of one arm."""

    sn = "XDOUBLE"

    def __init__(self, address: str, is_radian: bool = False) -> None:
        assert is_radian
        self.calls: list[tuple[Any, ...]] = []
        self.connected, self.axis, self.error_code = True, 6, 0
        self.joints, self.units = [0.0] * 7, 850.0
        self.temperatures = [25.0] * 7
        self.mode = self.state = 0

    def get_servo_angle(self, is_radian: bool | None = None) -> tuple[int, list[float]]:
        return 0, list(self.joints)

    def get_gripper_position(self) -> tuple[int, float]:
        return 0, self.units

    def motion_enable(self, enable: bool = True) -> int:
        self.calls.append(("motion_enable", enable))
        return 0

    def set_mode(self, mode: int) -> int:
        self.calls.append(("set_mode", mode))
        self.mode = mode
        return 0

    def set_state(self, state: int) -> int:
        self.calls.append(("set_state", state))
        self.state = state
        return 0

    def set_servo_angle_j(self, angles: list[float], is_radian: bool | None = None) -> int:
        self.calls.append(("set_servo_angle_j", tuple(angles)))
        assert len(angles) == 7
        if self.mode != 1:
            return 1
        self.joints = list(angles)
        return 0

    def set_gripper_position(self, pos: float, wait: bool = False) -> int:
        self.calls.append(("set_gripper_position", pos))
        self.units = pos
        return 0

    def disconnect(self) -> None:
        self.calls.append(("disconnect",))


def install_ur(monkeypatch: pytest.MonkeyPatch) -> UrDouble:
    """The double in place of ur-rtde's modules."""
    double = UrDouble("double")
    for name, kind in (("rtde_control", "RTDEControlInterface"), ("rtde_receive", "RTDEReceiveInterface")):
        module = ModuleType(name)
        setattr(module, kind, lambda address: double)
        monkeypatch.setitem(__import__("sys").modules, name, module)
    return double


def install_xarm(monkeypatch: pytest.MonkeyPatch) -> XArmDouble:
    """The double in place of xarm-python-sdk."""
    double = XArmDouble("double", is_radian=True)
    module = ModuleType("xarm.wrapper")
    module.XArmAPI = lambda address, is_radian: double  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "xarm", ModuleType("xarm"))
    monkeypatch.setitem(__import__("sys").modules, "xarm.wrapper", module)
    return double
