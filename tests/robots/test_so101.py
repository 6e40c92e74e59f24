"""LeRobot's unmodified SO-101 driver on emulated servos, and what becomes of it when things break."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs import so101
from robots.arm import ArmError, JointTarget, connect
from robots.emulated.so101 import FAULTS, EmulatedSO101
from robots.lerobot_arm import LeRobotArm

HOME = so101.HOME_JOINTS.tolist()


@pytest.fixture(scope="module")
def running() -> Iterator[EmulatedSO101]:
    with EmulatedSO101(joints=HOME, holding=True) as emulated:
        yield emulated


@pytest.fixture
def emulated(running: EmulatedSO101) -> EmulatedSO101:
    """Whole, and held where a task begins."""
    running.heal()
    running.place(HOME)
    return running


def make(emulated: EmulatedSO101, **changes: Any) -> LeRobotArm:
    """An unconnected arm without cameras, which take LeRobot a second to warm up."""
    return LeRobotArm("so101_follower", **{**emulated.settings, "cameras": {}, **changes})


@pytest.fixture
def arm(emulated: EmulatedSO101) -> Iterator[LeRobotArm]:
    arm = make(emulated)
    arm.connect()
    try:
        yield arm
    finally:
        arm.disconnect()


@pytest.fixture
def seeing(emulated: EmulatedSO101) -> Iterator[LeRobotArm]:
    """The same, with its camera."""
    arm = make(emulated, cameras=emulated.settings["cameras"], image_size=64)
    arm.connect()
    try:
        yield arm
    finally:
        arm.disconnect()


# -- what the driver does that we know better -----------------------------------------------------------------------------


def test_the_driver_is_lerobots_own(arm: LeRobotArm) -> None:
    from lerobot.robots.so_follower import SO101Follower

    assert type(arm._robot) is SO101Follower
    assert type(arm._robot).__module__.startswith("lerobot.")


def test_radians_and_closedness_are_those_of_the_world(arm: LeRobotArm, emulated: EmulatedSO101) -> None:
    pose = [0.4, -0.6, 0.5, 1.1, -0.7]
    emulated.place(pose)
    time.sleep(0.3)
    measured, truth = arm.measure(), emulated.truth()
    real = [truth["joints"][name] for name in so101.JOINT_NAMES]
    np.testing.assert_allclose(measured.joints, real, atol=0.003)
    assert measured.gripper == pytest.approx(so101.closedness(truth["joints"]["gripper"]), abs=0.005)
    np.testing.assert_allclose(arm.observe().observation["observation.state"][:3], truth["tool"], atol=0.002)


def test_a_target_arrives_as_it_was_meant(arm: LeRobotArm, emulated: EmulatedSO101) -> None:
    held = arm.hold()
    for share in np.linspace(0.1, 1.0, 10):
        arm.command(JointTarget.still(held.joints + share * np.array([0.2, 0, 0, 0, -0.3]), 0.4 + 0.4 * share))
        time.sleep(1 / 30)
    goals = emulated.truth()["goals"]
    np.testing.assert_allclose(
        [goals[name] for name in so101.JOINT_NAMES], held.joints + [0.2, 0, 0, 0, -0.3], atol=0.002
    )
    assert goals["gripper"] == pytest.approx(so101.gripper_angle(0.8), abs=0.01)


def settled(emulated: EmulatedSO101) -> dict[str, float]:
    """Where the joints are when they have come to rest, rad."""
    before = emulated.truth()["joints"]
    for _ in range(40):
        time.sleep(0.15)
        now = emulated.truth()["joints"]
        if max(abs(now[name] - before[name]) for name in now) < 0.002:
            return now
        before = now
    raise AssertionError("the arm does not come to rest")


def test_what_was_let_go_is_caught_where_it_fell(emulated: EmulatedSO101) -> None:
    """Goals of the arm's last life would pull it up at full speed the moment torque comes on."""
    for motor in so101.MOTORS:
        emulated.fault("limp", servo=motor)
    emulated.fault("stale_goal", servo="shoulder_pan", radians=-1.2)
    emulated.fault("stale_goal", servo="shoulder_lift", radians=-1.5)
    fell = settled(emulated)
    arm = make(emulated)
    arm.connect()
    try:
        time.sleep(0.4)
        truth = emulated.truth()
    finally:
        arm.disconnect()
    assert all(truth["torque"].values())
    for name in so101.JOINT_NAMES:
        assert truth["joints"][name] == pytest.approx(fell[name], abs=0.05), name
    assert max(truth["fastest"].values()) < 1.0


def test_an_arm_that_is_only_watched_is_left_as_it_is(emulated: EmulatedSO101) -> None:
    for motor in so101.MOTORS:
        emulated.fault("limp", servo=motor)
    emulated.fault("stale_goal", servo="shoulder_pan", radians=1.0)
    stands = settled(emulated)
    before = emulated.truth()
    arm = make(emulated, cameras=emulated.settings["cameras"])
    arm.watching = True
    arm.connect()
    try:
        for name, angle in zip(so101.JOINT_NAMES, arm.measure().joints, strict=True):
            assert angle == pytest.approx(stands[name], abs=0.02)
        assert arm.description == "servos 1, 2, 3, 4, 5, 6, sts3215, firmware 3.10, none holds"
        assert "observation.images.front" in arm.observe().observation
        with pytest.raises(ArmError, match="is only watched and takes no target"):
            arm.command(JointTarget.still(arm.measure().joints, 0.5))
        with pytest.raises(ArmError, match="is only watched; its torque stays as it is"):
            arm.release()
        arm.hold()
    finally:
        arm.disconnect()
    after = emulated.truth()
    assert not any(after["torque"].values())
    assert after["raw_goals"] == before["raw_goals"]


def test_lerobots_own_connect_would_have_run_off(emulated: EmulatedSO101) -> None:
    """The reason for the above, seen: without the adapter the same arm swings a radian."""
    from lerobot.robots.so_follower import SO101Follower, SO101FollowerConfig

    for motor in so101.MOTORS:
        emulated.fault("limp", servo=motor)
    emulated.fault("stale_goal", servo="shoulder_pan", radians=-1.2)
    config = SO101FollowerConfig(
        port=emulated.port,
        id=emulated.id,
        calibration_dir=emulated.calibration_dir,
        disable_torque_on_disconnect=False,
    )
    robot = SO101Follower(config)
    robot.connect(calibrate=False)
    time.sleep(0.6)
    robot.disconnect()
    assert emulated.truth()["joints"]["shoulder_pan"] < -0.9


def test_an_arm_that_is_held_is_not_dropped_on_connecting(emulated: EmulatedSO101) -> None:
    first = make(emulated)  # sets the servos as the driver does
    first.connect()
    first.disconnect()
    time.sleep(0.3)
    emulated.truth()
    again = make(emulated)
    again.connect()
    try:
        truth = emulated.truth()
    finally:
        again.disconnect()
    assert max(truth["fastest"].values()) < 0.05
    assert all(truth["torque"].values())


def test_goals_that_switch_torque_on_start_no_movement(emulated: EmulatedSO101) -> None:
    for motor in so101.MOTORS:
        emulated.fault("limp", servo=motor)
    emulated.fault("energises")
    emulated.fault("stale_goal", servo="shoulder_pan", radians=1.0)
    before = settled(emulated)["shoulder_pan"]
    arm = make(emulated)
    arm.connect()
    time.sleep(0.3)
    truth = emulated.truth()
    arm.disconnect()
    assert truth["joints"]["shoulder_pan"] == pytest.approx(before, abs=0.02)
    assert truth["fastest"]["shoulder_pan"] < 0.5


def test_servos_keep_a_speed_limit_of_their_own_while_connected(arm: LeRobotArm, emulated: EmulatedSO101) -> None:
    emulated.fault("stale_goal", servo="shoulder_pan", radians=1.5)  # torque is on: it goes there at once
    time.sleep(0.7)
    limited = emulated.truth()["fastest"]["shoulder_pan"]
    arm.disconnect()
    emulated.place(HOME)
    emulated.fault("stale_goal", servo="shoulder_pan", radians=1.5)
    time.sleep(0.7)
    free = emulated.truth()["fastest"]["shoulder_pan"]  # the limit was taken back
    assert limited < 4.2 < 4.6 < free  # a servo this soft swings a little beyond its 3 rad/s


@pytest.mark.parametrize(("joint", "far"), [(0, 2.2), (2, -1.9), (4, np.pi + 0.1)])
def test_beyond_the_calibrated_range_nothing_is_sent(
    arm: LeRobotArm, emulated: EmulatedSO101, joint: int, far: float
) -> None:
    held = arm.hold()
    before = emulated.truth()["raw_goals"]
    arm._held = JointTarget.still(np.where(np.arange(5) == joint, far, held.joints), held.gripper)  # no leap
    with pytest.raises(ArmError, match=r"outside its calibrated range.*nothing was sent"):
        arm.command(arm._held)
    assert emulated.truth()["raw_goals"] == before


def test_a_leap_is_refused(arm: LeRobotArm) -> None:
    held = arm.hold()
    with pytest.raises(ArmError, match=r"shoulder_pan would leap 0\.50 rad"):
        arm.command(JointTarget.still(held.joints + [0.5, 0, 0, 0, 0], held.gripper))


def test_disconnecting_drops_nothing_and_release_needs_the_park_pose(emulated: EmulatedSO101) -> None:
    arm = make(emulated)
    arm.connect()
    with pytest.raises(ArmError, match=r"not parked.*would fall"):
        arm.release()
    arm.disconnect()
    truth = emulated.truth()
    assert all(truth["torque"].values())
    emulated.place(so101.PARK_JOINTS.tolist())
    arm.connect()
    arm.release()
    assert not any(emulated.truth()["torque"].values())
    arm.disconnect()
    assert not any(emulated.truth()["torque"].values())


# -- things that break ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("servo", ["shoulder_pan", "elbow_flex", "gripper"])
def test_a_dead_servo_is_named_at_once(arm: LeRobotArm, emulated: EmulatedSO101, servo: str) -> None:
    emulated.fault("dead", servo=servo)
    began = time.monotonic()
    with pytest.raises(ArmError, match=f"{servo} .servo .* does not answer"):
        arm.measure()
    assert time.monotonic() - began < 0.3
    emulated.heal()
    assert np.isfinite(arm.measure().joints).all()


def test_a_silent_bus_is_no_reason_to_let_go(arm: LeRobotArm, emulated: EmulatedSO101) -> None:
    held = arm.hold()
    emulated.fault("silent")
    with pytest.raises(ArmError, match="the first on the bus, does not answer"):
        arm.measure()
    assert np.array_equal(arm.hold().joints, held.joints)
    with pytest.raises(ArmError):
        arm.release()
    assert all(emulated.truth()["torque"].values())


@pytest.mark.parametrize("count", [1, 2])
def test_damaged_answers_are_asked_for_again(arm: LeRobotArm, emulated: EmulatedSO101, count: int) -> None:
    before = arm.measure()
    emulated.fault("corrupt", count=count)
    np.testing.assert_allclose(arm.measure().joints, before.joints, atol=0.01)


@pytest.mark.slow
def test_a_bus_that_only_garbles_is_given_up(arm: LeRobotArm, emulated: EmulatedSO101) -> None:
    emulated.fault("corrupt", count=1000)
    with pytest.raises(ArmError, match="Incorrect status packet"):
        arm.measure()


def test_answers_that_come_too_late_are_not_taken_for_new_ones(arm: LeRobotArm, emulated: EmulatedSO101) -> None:
    """LeRobot asks again after 50 ms; the first answer then passes for the second's, and so on from there."""
    before = arm.measure()
    emulated.fault("late", seconds=0.12)
    late = arm.measure()
    assert arm.now() - late.monotonic_s > 0.1  # it is said how old this is
    np.testing.assert_allclose(late.joints, before.joints, atol=0.01)
    moved = [0.5, -0.6, 0.4, 1.2, 0.3]
    emulated.place(moved)
    np.testing.assert_allclose(arm.measure().joints, moved, atol=0.06)
    emulated.heal()
    time.sleep(0.5)


def test_lost_answers_are_survived_while_they_are_few(arm: LeRobotArm, emulated: EmulatedSO101) -> None:
    emulated.fault("lost", share=0.01)
    for _ in range(20):
        assert np.isfinite(arm.measure().joints).all()


@pytest.mark.parametrize(
    ("bit", "words"), [("overload", "overloaded"), ("overheat", "too hot"), ("voltage", "voltage is out of range")]
)
def test_errors_that_a_group_read_hides_show_in_health(
    arm: LeRobotArm, emulated: EmulatedSO101, bit: str, words: str
) -> None:
    emulated.fault("error", servo="elbow_flex", bit=bit)
    arm.measure()  # says nothing of it
    assert any(words in fault and "elbow_flex" in fault for fault in swept(arm).faults)
    emulated.heal()
    assert not swept(arm).faults


def swept(arm: LeRobotArm) -> Any:
    """What is known when every servo was asked once."""
    return [arm.health() for _ in so101.MOTORS][-1]


def test_temperature_load_and_voltage_are_read(arm: LeRobotArm, emulated: EmulatedSO101) -> None:
    emulated.fault("temperature", servo="wrist_flex", celsius=71)
    emulated.fault("load", servo="shoulder_lift", share=0.85)
    emulated.fault("voltage", servo="gripper", volts=9.4)
    health = swept(arm)
    assert health.temperature_c["wrist_flex"] == 71
    assert health.temperature_c["elbow_flex"] == 32
    assert health.load["shoulder_lift"] == pytest.approx(0.85)
    assert health.voltage_v == pytest.approx(9.4)


def test_a_jammed_joint_shows_in_what_is_measured(arm: LeRobotArm, emulated: EmulatedSO101) -> None:
    emulated.fault("jam", servo="shoulder_pan")
    held = arm.hold()
    for step in range(1, 11):
        arm.command(JointTarget.still(held.joints + [0.04 * step, 0, 0, 0, 0], held.gripper))
        time.sleep(1 / 30)
    assert abs(arm.measure().joints[0] - held.joints[0]) < 0.05
    rest = arm.hold()  # it does not go on pushing
    assert abs(rest.joints[0] - held.joints[0]) < 0.05


@pytest.mark.parametrize("how", ["frozen", "silent"])
def test_a_camera_that_stands_still_has_a_stamp_that_stands_still(
    seeing: LeRobotArm, emulated: EmulatedSO101, how: str
) -> None:
    fresh(seeing)
    emulated.fault("camera", value=how)
    time.sleep(0.5)  # what was under way arrives
    one = seeing.observe().camera_s["front"]
    time.sleep(0.4)
    two = seeing.observe()
    assert two.camera_s["front"] == one
    assert seeing.now() - two.camera_s["front"] > 0.4
    emulated.fault("camera", value="working")
    fresh(seeing)


def fresh(arm: LeRobotArm) -> None:
    """Wait until the camera's picture is a new one; a busy machine may take a while to draw it."""
    end = time.monotonic() + 5.0
    while arm.now() - arm.observe().camera_s["front"] > 0.1:
        assert time.monotonic() < end, "the camera stands still"
        time.sleep(0.01)


def test_pictures_are_cut_to_what_the_model_wants(seeing: LeRobotArm) -> None:
    picture = seeing.observe().observation["observation.images.front"]
    assert picture.shape == (64, 64, 3)
    red = (picture[..., 0] > 120) & (picture[..., 1] < 70) & (picture[..., 2] < 70)
    assert red.sum() >= 3  # the block, in the right colour


def test_a_pulled_cable_is_said() -> None:
    with EmulatedSO101(joints=HOME, holding=True, image_size=0) as emulated:
        arm = make(emulated)
        arm.connect()
        emulated.fault("unplug")
        time.sleep(0.3)
        began = time.monotonic()
        with pytest.raises(ArmError, match="is gone; is the cable in"):
            arm.measure()
        assert time.monotonic() - began < 0.3
        arm.disconnect()


# -- doors that stay shut -------------------------------------------------------------------------------------------------


def test_a_wrong_port_names_those_there_are(emulated: EmulatedSO101) -> None:
    with pytest.raises(ArmError, match=r"there is no port /dev/ttyNOWHERE; (there are /dev|this machine shows no)"):
        make(emulated, port="/dev/ttyNOWHERE").connect()
    with pytest.raises(ArmError, match="is no serial port"):
        make(emulated, port=str(emulated.calibration_dir / "emulated.json")).connect()


def test_a_port_has_one_user(arm: LeRobotArm, emulated: EmulatedSO101) -> None:
    with pytest.raises(ArmError, match=f"{emulated.port} is in use"):
        make(emulated).connect()
    arm.measure()


def test_a_port_that_another_program_has_open_is_refused(emulated: EmulatedSO101) -> None:
    script = f"import os; os.open({emulated.port!r}, os.O_RDWR | os.O_NOCTTY); print('open', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline()
        with pytest.raises(ArmError, match=rf"is open by process {other.pid} \(python"):
            make(emulated).connect()
        assert other.stdin is not None
        other.stdin.close()
    arm = make(emulated)
    arm.connect()
    arm.disconnect()


def test_without_calibration_nothing_is_asked_and_nothing_moves(
    emulated: EmulatedSO101, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("the driver asked on the terminal"))
    before = emulated.truth()
    with pytest.raises(ArmError, match=r"no calibration: .*emulated\.json is not there; run `lerobot-calibrate"):
        make(emulated, calibration_dir=str(tmp_path)).connect()
    after = emulated.truth()
    assert after["raw_goals"] == before["raw_goals"]
    assert after["requests"] == before["requests"]  # it was not even spoken to


def test_another_arms_calibration_is_refused_with_the_difference(emulated: EmulatedSO101, tmp_path: Path) -> None:
    shutil.copy(emulated.calibration_dir / "emulated.json", tmp_path)
    values = json.loads((tmp_path / "emulated.json").read_text())
    values["elbow_flex"]["homing_offset"] += 40
    (tmp_path / "emulated.json").write_text(json.dumps(values))
    with pytest.raises(ArmError, match=r"says homing_offset 1244 for elbow_flex, its servo says 1204"):
        make(emulated, calibration_dir=str(tmp_path)).connect()
    assert all(emulated.truth()["torque"].values())


def test_the_calibration_hash_is_of_its_values(arm: LeRobotArm, emulated: EmulatedSO101) -> None:
    from robots.lerobot_driver import calibration_hash

    assert len(arm.calibration_hash) == 16
    arm._robot.calibration["gripper"].range_max += 1
    assert calibration_hash(arm._robot) != arm.calibration_hash
    arm._robot.calibration["gripper"].range_max -= 1


def test_a_dead_servo_keeps_the_door_shut(emulated: EmulatedSO101) -> None:
    emulated.fault("dead", servo="wrist_roll")
    with pytest.raises(ArmError, match=r"could not open .*Missing motor IDs: - 5"):
        make(emulated).connect()
    emulated.heal()
    arm = make(emulated)
    arm.connect()  # nothing was left half open
    arm.disconnect()


# -- the emulator itself --------------------------------------------------------------------------------------------------


def test_every_fault_and_no_other_can_be_asked_for(emulated: EmulatedSO101) -> None:
    with pytest.raises(ValueError, match="no fault is called 'flood'"):
        emulated.fault("flood")
    with pytest.raises(ValueError, match="fault dead takes servo, on, not motor"):
        emulated.fault("dead", motor="elbow_flex")
    assert set(FAULTS) >= {
        "dead",
        "corrupt",
        "error",
        "silent",
        "late",
        "lost",
        "stale_goal",
        "jam",
        "camera",
        "unplug",
    }


@pytest.mark.slow
def test_it_runs_as_a_program_of_its_own_and_ends_without_a_trace(tmp_path: Path) -> None:
    found = tmp_path / "arm.json"
    command = [sys.executable, "-m", "robots.emulated.so101", "--port-file", str(found), "--image-size", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        assert "an emulated SO-101 is on /dev/pts/" in process.stdout.readline()
        address = json.loads(found.read_text())
        assert Path(address["calibration_dir"], f"{address['id']}.json").is_file()
    finally:
        process.terminate()
        process.wait(timeout=10)
    assert process.returncode == 0
    assert not found.exists()
    assert not Path(address["calibration_dir"]).exists()


def test_connect_by_name_starts_one_and_ends_it() -> None:
    with connect("so101_emulated", seed=4, camera_px=0) as arm:
        assert arm.simulated
        assert arm.identity == "so101_emulated:4"
        process = arm.emulator._process  # type: ignore[attr-defined]
        assert process.poll() is None
    assert process.poll() is not None
    assert not os.path.exists(arm._port)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_who_is_killed_leaves_the_arm_held_and_the_next_takes_it_over(emulated: EmulatedSO101) -> None:
    settings = {**emulated.settings, "cameras": {}}
    script = (
        "import sys, time, numpy as np\nfrom robots.arm import JointTarget\nfrom robots.lerobot_arm import LeRobotArm\n"
        f"arm = LeRobotArm('so101_follower', **{settings!r})\narm.connect()\nheld = arm.hold()\n"
        "for n in range(10**6):\n"
        "    arm.command(JointTarget.still(held.joints + [min(0.02 * n, 0.4), 0, 0, 0, 0], held.gripper))\n"
        "    print(n, flush=True)\n    time.sleep(1 / 30)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        while driver.stdout.readline().strip() != "8":
            assert driver.poll() is None
        driver.kill()
    truth = emulated.truth()
    assert all(truth["torque"].values())
    rest = settled(emulated)
    emulated.truth()
    arm = make(emulated)
    arm.connect()
    try:
        assert max(emulated.truth()["fastest"].values()) < 0.1
        np.testing.assert_allclose(arm.measure().joints, [rest[name] for name in so101.JOINT_NAMES], atol=0.02)
        arm.park()
        arm.release()
    finally:
        arm.disconnect()


@pytest.mark.slow
def test_thirty_hertz_are_kept_for_half_a_minute() -> None:
    from robots.emulated.loop import keep_time
    from robots.priority import go_first

    def first() -> tuple[str, Any]:
        return go_first(waits_busily=True), keep_time(arm, 30.0)

    with connect("so101_emulated") as arm, ThreadPoolExecutor(1) as aside:  # the priority stays with that thread
        arm.go(arm.home_joints)
        priority, (report, worked) = aside.submit(first).result()
    assert report.ticks == 899
    if "nice" in priority:  # without it, other work of the machine decides
        assert report.within / report.ticks >= 0.98, report.sentence()
        assert np.median(worked) < 5.0
