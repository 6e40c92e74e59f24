"""LeRobot drivers by name: plugins are found, wrong words answered, and units are each joint's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robots import lerobot_driver
from robots.arm import ArmError, JointTarget, connect
from robots.lerobot_arm import LeRobotArm

PLUGIN = Path(__file__).with_name("plugin")
MODEL = """
<mujoco><compiler angle="radian"/><worldbody><body name="stand">
  <body name="first"><joint name="turn" axis="0 0 1" range="-2 2"/><geom size="0.01" mass="1"/>
    <body name="second" pos="0 0 0.1"><joint name="lift" axis="0 1 0" range="-2 2"/><geom size="0.01" mass="1"/>
      <body name="third" pos="0.2 0 0"><joint name="bend" axis="0 1 0" range="-2 2"/><geom size="0.01" mass="1"/>
        <body name="tip" pos="0.2 0 0"><site name="tool" quat="0.7071068 0 0.7071068 0"/></body>
      </body></body></body></body></worldbody></mujoco>
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the plugin's arm needs; the plugin is installed for the length of a test."""
    monkeypatch.syspath_prepend(str(PLUGIN))
    model = tmp_path / "stillarm.xml"
    model.write_text(MODEL)
    return {
        "type": "stillarm", "id": "a", "calibration_dir": str(tmp_path), "stands": [10.0, -20.0, 30.0, 25.0],
        "park": [0, 0, 0], "gripper": "jaw", "units": "degrees",
        "kinematics": {"model": str(model), "site": "tool", "joints": ["turn", "lift", "bend"]},
    }  # fmt: skip


def test_a_plugin_is_an_arm(settings: dict[str, Any]) -> None:
    with connect("lerobot", **settings) as arm:
        assert arm.joint_names == ("turn", "lift", "bend")
        assert arm.untested
        np.testing.assert_allclose(arm.measure().joints, np.radians([10.0, -20.0, 30.0]))
        assert arm.measure().gripper == pytest.approx(0.75)
        driver = arm._robot  # type: ignore[attr-defined]
        assert driver.sent[0]["lift.pos"] == pytest.approx(-20.0)  # connecting sends it where it stands
        held = arm.hold()
        arm.command(JointTarget.still(held.joints + [0.1, 0, 0], 0.5))
        assert driver.sent[-1] == pytest.approx(
            {"turn.pos": 10 + np.degrees(0.1), "lift.pos": -20, "bend.pos": 30, "jaw.pos": 50}
        )
        position, _ = arm.kinematics.forward(arm.measure().joints)
        np.testing.assert_allclose(arm.observe().observation["observation.state"][:3], position, atol=1e-6)


def test_signs_and_zeros_bring_a_driver_to_its_model(settings: dict[str, Any]) -> None:
    with connect("lerobot", **settings, signs=[1, -1, 1], zeros=[0, 0.2, 0]) as arm:
        seen = arm.measure().joints
        np.testing.assert_allclose(seen, [np.radians(10), np.radians(20) + 0.2, np.radians(30)])
        before = arm._robot.get_observation()  # type: ignore[attr-defined]
        arm.command(JointTarget.still(seen, arm.measure().gripper))
        assert arm._robot.get_observation() == pytest.approx(before)  # type: ignore[attr-defined]


def test_a_plugin_that_would_ask_is_not_let(settings: dict[str, Any]) -> None:
    with pytest.raises(ArmError, match="not calibrated"):
        connect("lerobot", **settings, calibrated=False)


def test_a_question_on_the_terminal_is_an_error() -> None:
    with pytest.raises(ArmError, match="ask something on the terminal"), lerobot_driver.nothing_asked():
        input("Press ENTER")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"type": "so101_folower"}, r"no LeRobot robot is of type 'so101_folower'; did you mean so101_follower\?"),
        ({"type": "zzz"}, r"known are .*so101_follower.*lerobot_robot_"),
        ({"prot": "/dev/x"}, "has no setting 'prot'; did you mean port"),
        ({"disable_torque_on_disconnect": True}, "let go only by park and release"),
        ({"max_relative_target": "lots"}, "robot type so101_follower: .*"),
        ({"cameras": {"front": {"type": "opencv", "index_or_path": 0}}}, "width"),
        ({"gripper": "claw"}, "has no gripper 'claw'; it has shoulder_pan"),
        ({"units": "grad"}, "units is 'grad'"),
        ({"rate_hz": 0}, "rate_hz is 0"),
        ({"servo_speed": 1000}, "servo_speed is 1000"),
        ({"park": [0, 0]}, "park is .* this arm has 5 joints"),
        ({"park": [0, 0, float("nan"), 0, 0]}, "park is .* a finite number for each"),
        ({"signs": [1, 2, 1, 1, 1]}, "each is 1 or -1"),
        ({"gripper_range": [5, 5]}, "two different numbers"),
        ({"kinematics": "robots.kinematics:so102"}, "kinematics=robots.kinematics:so102 cannot be made"),
        ({"kinematics": "robots.kinematics:panda"}, "kinematics has 7 joints, robot type so101_follower has 5"),
        ({"kinematics": {"model": "x.xml"}}, "kinematics takes model, site and joints; joints is missing"),
        ({"kinematics": {"model": "none.xml", "site": "a", "joints": ["b"]}}, "there is no model at none.xml"),
    ],
)
def test_wrong_settings_are_refused_with_the_right_one(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    settings = {
        "type": "so101_follower",
        "port": "/dev/ttyNOWHERE",
        "id": "a",
        "calibration_dir": str(tmp_path),
        **changes,
    }
    with pytest.raises(ValueError, match=words):
        LeRobotArm(**settings)


def test_a_driver_that_takes_no_joint_positions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"robot type lekiwi_client is driven by x\.vel"):
        LeRobotArm("lekiwi_client", remote_ip="127.0.0.1", calibration_dir=str(tmp_path), units="degrees", cameras={})


def test_a_robot_of_unknown_shape_needs_kinematics_and_a_park_pose(settings: dict[str, Any]) -> None:
    for missing in ("kinematics", "park", "units"):
        fewer = {key: value for key, value in settings.items() if key != missing}
        with pytest.raises(ValueError, match=missing):
            LeRobotArm(**fewer)


ranges = st.tuples(st.integers(0, 1500), st.integers(2500, 4095))


@pytest.mark.parametrize("degrees", [True, False])
@given(
    spans=st.lists(ranges, min_size=6, max_size=6),
    flipped=st.lists(st.booleans(), min_size=6, max_size=6),
    data=st.data(),
)
def test_units_follow_the_drivers_own_arithmetic(
    degrees: bool, spans: list[tuple[int, int]], flipped: list[bool], data: st.DataObject, tmp_path_factory: Any
) -> None:
    """What we send as radians comes to the tick that the servo must stand at, and comes back as the same radians."""
    from lerobot.motors import MotorCalibration

    robot = lerobot_driver.make_driver(
        "so101_follower",
        {"port": "/dev/x", "id": "a", "calibration_dir": str(tmp_path_factory.getbasetemp()), "use_degrees": degrees},
    )
    bus: Any = lerobot_driver.motor_bus(robot)
    for (name, motor), (low, high), turned in zip(bus.motors.items(), spans, flipped, strict=True):
        bus.calibration[name] = robot.calibration[name] = MotorCalibration(motor.id, int(turned), 0, low, high)
    joints, gripper = lerobot_driver.joint_names(robot, "so101_follower", "gripper")
    units = lerobot_driver.units_of_bus(robot, bus, joints, gripper, (0.0, 100.0), np.ones(5), np.zeros(5))
    shares = np.array(data.draw(st.lists(st.floats(0, 1), min_size=5, max_size=5)))
    wanted = units.lower + shares * (units.upper - units.lower)
    closed = data.draw(st.floats(0, 1))
    by_id = {bus.motors[name.removesuffix(".pos")].id: value for name, value in units.action(wanted, closed).items()}
    ticks = bus._unnormalize(by_id)
    for index, (low, high) in enumerate(spans):
        assert low <= ticks[index + 1] <= high  # the driver itself does not see to that in degrees
    back = {f"{bus._id_to_name(i)}.pos": value for i, value in bus._normalize(ticks).items()}
    tick = 2 * np.pi / 4095
    np.testing.assert_allclose(units.radians(back), wanted, atol=0.51 * tick)
    low, high = spans[5]
    assert units.closedness(back) == pytest.approx(closed, abs=0.51 / (high - low) + 1e-9)
