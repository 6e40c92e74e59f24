"""The unmodified trossen-arm against trossen-arm-sim: an arm that goes wherever it is told, so no judge of limits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from robots.arm import ArmError, JointTarget
from robots.cadence import Cadence
from robots.limits import DEFAULT_FILE, Limits
from robots.stream import Streamer
from robots.trossen import GEOMETRY, READY, SLEEP, TIP_M, TrossenArm
from tests.hardware.plans import follow
from tests.hardware.servers import ROOT, Server, need, trossen_sim

need("trossen_arm", "trossen_arm_sim", "ruckig", "mink")

LIMITS = Limits.load(DEFAULT_FILE.parent / "wxai.yaml")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A simulated controller."""
    server = trossen_sim(tmp_path_factory.mktemp("trossen") / "log")
    yield server
    server.stop()


@pytest.fixture
def arm(server: Server) -> Iterator[TrossenArm]:
    """A connected arm, up and ready."""
    arm = TrossenArm(server.address)
    arm.connect()
    arm.go(READY, speed=1.0)
    yield arm
    arm.disconnect()


def test_the_geometry_is_the_driver_s_own() -> None:
    import trossen_arm

    for (axis, place), joint in zip(GEOMETRY, trossen_arm.StandardJoints.wxai_v0_20260626, strict=False):
        np.testing.assert_allclose(joint.axis[:3], axis)
        np.testing.assert_allclose(joint.origin_xyz[:3], place)
        np.testing.assert_allclose(joint.origin_rpy[:3], 0.0)
    np.testing.assert_allclose(
        trossen_arm.StandardEndEffector.wxai_v0_follower.t_flange_tool[:], [TIP_M, 0, 0, 0, 0, 0]
    )


def test_our_tool_is_where_the_driver_has_it(arm: TrossenArm) -> None:
    position, rotation = arm.kinematics.forward(arm.measure().joints)
    np.testing.assert_allclose(position, list(arm._driver.get_cartesian_positions())[:3], atol=1e-3)
    np.testing.assert_allclose(rotation[:, 2], [0, 0, -1], atol=0.05)  # ready: pointing down
    state = arm.observe().observation["observation.state"]
    np.testing.assert_allclose(state[:3], position, atol=1e-3)
    assert abs(state[3] - np.pi) < 0.1


def test_random_plans_are_followed(arm: TrossenArm, capsys: pytest.CaptureFixture[str]) -> None:
    followed = [follow(arm, LIMITS, seed) for seed in range(3)]
    with capsys.disabled():
        worst = max(f.furthest_rad for f in followed)
        print(f"\ntrossen-arm-sim: {sum(f.ticks for f in followed)} ticks, off by {worst:.3f} rad at most")
    assert max(f.furthest_rad for f in followed) < LIMITS.tracking_error_rad
    assert arm.health().faults == ()
    assert set(arm.health().temperature_c) >= set(arm.joint_names)


def test_nothing_moves_before_the_first_target_and_that_one_never_pulls(server: Server) -> None:
    with TrossenArm(server.address) as arm:
        arm.connect()
        before = arm.measure().joints
        with pytest.raises(ArmError, match=r"joint_1 0\.300 rad from where it stands"):
            arm.command(JointTarget.still(before + np.eye(6)[1] * 0.3, 0.0))
        time.sleep(0.2)
        # The simulated joints settle by a few thousandths: their brakes are the position servos.
        np.testing.assert_allclose(arm.measure().joints, before, atol=0.02)
        assert server.address in arm.identity


def test_what_no_controller_should_be_told_is_refused(arm: TrossenArm) -> None:
    held = arm.hold()
    beyond = held.joints.copy()
    beyond[0] = 10.0
    with pytest.raises(ArmError, match=r"joint_0 would be at 10\.000 rad, outside .*nothing was sent"):
        arm.command(JointTarget.still(beyond, 0.0))
    with pytest.raises(ArmError, match=r"joint_0 would move at 4\.00 rad/s"):
        arm.command(replace(held, velocity=np.full(6, 4.0)))
    np.testing.assert_allclose(arm.measure().joints, held.joints, atol=0.02)


def test_hold_comes_to_rest_and_the_gripper_follows(arm: TrossenArm) -> None:
    streamer, cadence = Streamer(LIMITS.bounds, arm.rate_hz, arm.hold()), Cadence(arm.rate_hz)
    streamer.aim(JointTarget.still(READY + 0.3, 1.0))
    for _ in range(45):
        cadence.wait()
        arm.command(streamer.tick())
    assert np.abs(streamer.target.velocity).max() > 0.3
    held = arm.hold()
    time.sleep(0.3)
    np.testing.assert_allclose(arm.measure().joints, held.joints, atol=0.02)
    streamer = Streamer(LIMITS.bounds, arm.rate_hz, held)
    streamer.aim(JointTarget.still(held.joints, 0.9))
    while streamer.moving:
        cadence.wait()
        arm.command(streamer.tick())
    time.sleep(0.3)
    assert abs(arm.measure().gripper - 0.9) < 0.05


def test_park_then_release_then_no_target(arm: TrossenArm) -> None:
    arm.go(SLEEP, speed=1.0)
    arm.release()
    with pytest.raises(ArmError, match="released and takes no target"):
        arm.command(JointTarget.still(SLEEP, 0.0))
    np.testing.assert_allclose(arm.measure().joints, SLEEP, atol=0.03)
    arm.disconnect()
    arm.disconnect()


def test_a_killed_client_leaves_the_last_goal(server: Server) -> None:
    """kill -9 in mid-movement: the simulated controller goes on to the last goal it got and stays there."""
    script = (
        "import sys\nfrom robots.trossen import TrossenArm, READY\nfrom robots.arm import JointTarget\n"
        "from robots.limits import Limits\nfrom robots.stream import Streamer\nfrom robots.cadence import Cadence\n"
        "arm = TrossenArm(sys.argv[1]); arm.connect(); arm.go(READY, speed=1.0)\n"
        "s, c = Streamer(Limits.load(sys.argv[2]).bounds, 100.0, arm.hold()), Cadence(100.0)\n"
        "s.aim(JointTarget.still(READY + 0.3, 0.0))\n"
        "for tick in range(500):\n"
        "    c.wait(); arm.command(s.tick())\n"
        "    if tick == 40: print(*s.target.joints, flush=True)\n"
    )
    client = subprocess.Popen(
        [sys.executable, "-c", script, server.address, str(DEFAULT_FILE.parent / "wxai.yaml")],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert client.stdout is not None
    lines = (line for line in client.stdout if not line.startswith("["))
    last = np.array([float(v) for v in next(lines).split()])
    client.send_signal(signal.SIGKILL)
    client.wait()
    time.sleep(0.7)
    arm = TrossenArm(server.address)
    arm.connect()
    joints = arm.measure().joints
    arm.disconnect()
    assert np.abs(joints - last).max() < 0.1
    assert np.abs(joints - READY - 0.3).max() > 0.05  # it did not go on to where the stream was bound


def test_a_dead_controller_is_a_fault_that_stays(tmp_path_factory: pytest.TempPathFactory) -> None:
    server = trossen_sim(tmp_path_factory.mktemp("dead") / "log")
    arm = TrossenArm(server.address)
    arm.connect()
    held = arm.hold()
    os.killpg(server.process.pid, signal.SIGKILL)
    server.process.wait()
    time.sleep(0.2)
    with pytest.raises(ArmError, match="Failed to"):
        arm.command(held)
    with pytest.raises(ArmError, match="look at the arm, then recover it"):
        arm.command(held)
    assert arm.health().faults
    began = time.monotonic()
    arm.disconnect()
    assert time.monotonic() - began < 3.0


def test_nobody_there_is_one_sentence() -> None:
    arm = TrossenArm("127.255.255.2", timeout_s=1.0)
    with pytest.raises(ArmError, match=r"no WidowX AI controller opens at 127\.255\.255\.2"):
        arm.connect()
