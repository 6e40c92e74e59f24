"""UR and xArm: the adapters' logic against doubles written here. No arm and no vendor's simulator says they are right."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from robots.arm import ArmError, JointTarget, connect
from robots.limits import DEFAULT_FILE
from robots.ur import JOINT_NAMES, UrArm
from robots.xarm import XArm
from tests.robots.doubles import install_ur, install_xarm


def chain(folder: Path, names: tuple[str, ...]) -> str:
    """A made-up arm of hinges, 0.2 m apart."""
    body = '<site name="tool" pos="0 0 0.1"/>'
    for index, name in enumerate(reversed(names)):
        axis = "0 0 1" if (len(names) - index) % 2 else "0 1 0"
        joint = f'<joint name="{name}" axis="{axis}" range="-6.28 6.28" limited="true"/>'
        body = f'<body pos="0 0 0.2">{joint}<geom size="0.02"/>{body}</body>'
    path = folder / "arm.xml"
    path.write_text(f'<mujoco><compiler angle="radian"/><worldbody>{body}</worldbody></mujoco>')
    return str(path)


def moving(joints: np.ndarray, speed: float = 0.1) -> JointTarget:
    return replace(JointTarget.still(joints, 0.5), velocity=np.full(len(joints), speed))


@pytest.fixture
def ur(tmp_path: Path) -> UrArm:
    return UrArm("10.0.0.2", chain(tmp_path, JOINT_NAMES), "tool", [0.0] * 6, payload_kg=1.0)


@pytest.fixture
def xarm(tmp_path: Path) -> XArm:
    names = tuple(f"joint{index}" for index in range(1, 7))
    return XArm("10.0.0.3", chain(tmp_path, names), "tool", [0.0] * 6, joints=6)


def test_both_say_aloud_that_they_are_untested(ur: UrArm, xarm: XArm) -> None:
    for arm in (ur, xarm):
        assert "never run on hardware" in arm.untested
        assert "untested" in arm.name
        assert "untested" in arm.identity


@pytest.mark.parametrize("module", ["rtde_control", "xarm.wrapper"])
def test_a_missing_driver_is_one_sentence_with_the_command(
    ur: UrArm, xarm: XArm, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    arm, package = (ur, "ur-rtde") if module == "rtde_control" else (xarm, "xarm-python-sdk")
    with pytest.raises(ArmError, match=rf"cannot be imported .*: pip install {package}=="):
        arm.connect()


def test_ur_streams_holds_and_releases(ur: UrArm, monkeypatch: pytest.MonkeyPatch) -> None:
    double = install_ur(monkeypatch)
    ur.connect()
    assert [c[0] for c in double.calls] == ["setPayload"]  # nothing moved
    with pytest.raises(ArmError, match=r"shoulder_pan_joint 0\.300 rad from where it stands"):
        ur.command(moving(np.full(6, 0.3)))
    ur.command(moving(np.full(6, 0.02)))
    assert double.calls[-1] == ("servoJ", (0.02,) * 6, 1 / 125)
    np.testing.assert_allclose(ur.hold().joints, 0.02)
    assert double.calls[-1][0] == "servoStop"
    state = ur.observe().observation
    assert state["observation.state"].shape == (7,)
    assert ur.health().voltage_v == 48.0
    ur.release()
    assert double.calls[-1] == ("stopScript",)
    with pytest.raises(ArmError, match="released and takes no target"):
        ur.command(moving(np.full(6, 0.02)))
    ur.disconnect()
    ur.disconnect()


def test_ur_sends_nothing_to_an_arm_that_says_it_is_stopped(ur: UrArm, monkeypatch: pytest.MonkeyPatch) -> None:
    double = install_ur(monkeypatch)
    ur.connect()
    double.safety_bits = 1 << 2
    with pytest.raises(ArmError, match="a protective stop; nothing was sent"):
        ur.command(moving(np.zeros(6)))
    assert ur.health().faults == ("the controller reports a protective stop",)
    double.safety_bits, double.accepts = 1, False
    with pytest.raises(ArmError, match="the controller refused a target"):
        ur.command(moving(np.zeros(6)))
    with pytest.raises(ArmError, match=r"4\.00 rad/s"):
        ur.command(moving(np.zeros(6), speed=4.0))
    double.connected = False
    assert ur.health().faults == ("the connection to the controller is lost",)


def test_xarm_streams_holds_and_releases(xarm: XArm, monkeypatch: pytest.MonkeyPatch) -> None:
    double = install_xarm(monkeypatch)
    xarm.connect()
    assert double.calls == []  # nothing enabled, nothing cleared
    assert "XDOUBLE" in xarm.identity
    with pytest.raises(ArmError, match=r"joint1 0\.300 rad from where it stands"):
        xarm.command(moving(np.full(6, 0.3)))
    for step in range(1, 4):
        xarm.command(moving(np.full(6, 0.01 * step)))
    names = [call[0] for call in double.calls]
    assert (
        names
        == ["motion_enable", "set_mode", "set_state", "set_servo_angle_j", "set_gripper_position"]
        + ["set_servo_angle_j"] * 2
    )
    assert double.units == 425.0
    assert xarm.measure().gripper == 0.5
    np.testing.assert_allclose(xarm.hold().joints, 0.03)
    assert (double.mode, double.state) == (0, 0)
    xarm.release()
    assert double.state == 4
    with pytest.raises(ArmError, match="released and takes no target"):
        xarm.command(moving(np.zeros(6)))
    xarm.disconnect()
    xarm.disconnect()


def test_xarm_sends_nothing_after_an_error_and_clears_none(xarm: XArm, monkeypatch: pytest.MonkeyPatch) -> None:
    double = install_xarm(monkeypatch)
    xarm.connect()
    double.error_code = 31
    with pytest.raises(ArmError, match=r"error 31 .*nothing was sent"):
        xarm.command(moving(np.zeros(6)))
    assert "error 31" in xarm.health().faults[0]
    double.error_code, double.axis = 0, 7
    xarm.disconnect()
    with pytest.raises(ArmError, match="it has 7 joints, the robot's settings say 6"):
        xarm.connect()


def test_settings_that_cannot_be_are_refused(tmp_path: Path) -> None:
    path = chain(tmp_path, JOINT_NAMES)
    with pytest.raises(ValueError, match="payload_kg is 99"):
        UrArm("a", path, "tool", [0.0] * 6, payload_kg=99.0)
    with pytest.raises(ValueError, match="park_joints needs 6 angles"):
        UrArm("a", path, "tool", [0.0] * 5, payload_kg=0.0)
    with pytest.raises(ValueError, match="joints is 4"):
        XArm("a", path, "tool", [0.0] * 4, joints=4)


@pytest.mark.parametrize("name", ["franka", "trossen", "ur", "xarm"])
def test_what_its_config_leaves_open_is_asked_for(name: str) -> None:
    settings = OmegaConf.to_container(OmegaConf.load(DEFAULT_FILE.parent.parent / "robot" / f"{name}.yaml"))
    assert isinstance(settings, dict)
    assert settings.pop("name") == name
    with pytest.raises(ValueError, match=rf"{name} needs to be told more, such as robot\.address="):
        connect(name, **{str(key): value for key, value in settings.items()})
