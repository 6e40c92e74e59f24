"""The unmodified franky against two simulated control boxes; one of them judges by a real one's limits."""

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
from robots.franka import FrankaArm
from robots.franka_model import HOME
from robots.limits import DEFAULT_FILE, Limits
from robots.stream import MotionBounds, Streamer, path
from tests.hardware.plans import follow
from tests.hardware.servers import ROOT, Server, franka_sim, franky_sim, need

need("franky", "franky_sim", "ruckig", "mink")

LIMITS = Limits.load(DEFAULT_FILE.parent / "fr3.yaml")
PLANS = int(os.environ.get("PLANS", "20"))
# franka-sim reports the wrist where a control box reports the flange, 107 mm further out.
JUDGED = {"realtime": "ignore", "geometry_m": 0.11}


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """franka-sim with motion limits and communication constraints enforced."""
    server = franka_sim(tmp_path_factory.mktemp("judge") / "log")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """franky-sim."""
    server = franky_sim(tmp_path_factory.mktemp("box") / "log")
    yield server
    server.stop()


@pytest.fixture
def arm(judge: Server) -> Iterator[FrankaArm]:
    """A connected arm at home on the judge."""
    arm = FrankaArm(judge.address, **JUDGED)
    arm.connect()
    if arm.health().faults:
        arm.recover()
    arm.go(HOME, speed=0.8)
    yield arm
    arm.disconnect()


def drive(arm: FrankaArm, joints: np.ndarray, bounds: MotionBounds = LIMITS.bounds) -> None:
    """Stream one movement that ends at rest."""
    cadence = Cadence(arm.rate_hz)
    for target in path(arm.hold(), JointTarget.still(joints, 0.0), 0.0, arm.rate_hz, bounds):
        cadence.wait()
        arm.command(target)


def insist(arm: FrankaArm, target: JointTarget) -> None:
    """Send one target again and again, for two seconds."""
    for _ in range(200):
        arm.command(target)
        time.sleep(0.01)


@pytest.mark.timeout(120 + 10 * PLANS)
def test_random_plans_trigger_no_reflex(arm: FrankaArm, capsys: pytest.CaptureFixture[str]) -> None:
    followed = []
    for seed in range(PLANS):
        followed.append(follow(arm, LIMITS, seed))
        assert arm.health().faults == (), f"plan {seed}"
    worst, rms = max(f.furthest_rad for f in followed), np.sqrt(np.mean([f.rms_rad**2 for f in followed]))
    ticks, fastest = sum(f.ticks for f in followed), max(f.fastest_rad_s for f in followed)
    with capsys.disabled():
        print(
            f"\n{PLANS} random plans, {ticks} ticks at {arm.rate_hz:g} Hz, up to {fastest:.2f} rad/s: 0 reflexes; "
            f"{sum(f.refused for f in followed)} targets refused; off by {rms:.4f} rad rms, {worst:.4f} at most"
        )
    assert fastest > 0.9 * max(LIMITS.joint_velocity[:4])
    assert rms < 0.02


def jump(arm: FrankaArm, step_rad: float) -> None:
    """Move the reference by a step, past Ruckig and guard and past the adapter's own bound on its spring."""
    held = arm.hold()
    still_moving = replace(held, velocity=np.full(7, 1e-6))
    arm.command(still_moving)
    time.sleep(0.2)
    with arm._lock:
        arm._last = None  # nor shall its watch put the reference back
        arm._motion.set_reference(arm._franky.JointReference(q=held.joints + step_rad))
    time.sleep(0.5)
    with pytest.raises(ArmError, match=r"stopped the arm with a reflex: .*violation"):
        arm.command(still_moving)


@pytest.mark.parametrize("step_rad", [0.3, -0.3])
def test_a_raw_step_does(arm: FrankaArm, step_rad: float) -> None:
    """The judge can say no: the same controller, without Ruckig before it, is answered with a reflex."""
    jump(arm, step_rad)
    assert any("reflex" in fault for fault in arm.health().faults)


def test_a_raw_step_through_the_adapter_pulls_no_harder_than_its_spring_may(arm: FrankaArm) -> None:
    held = arm.hold()
    target = JointTarget.still(held.joints + 0.3, held.gripper)
    arm.command(replace(held, velocity=np.full(7, 1e-6)))
    for _ in range(100):
        arm.command(target)
        time.sleep(0.01)
    assert arm.health().faults == ()


def test_a_reflex_stays_until_a_person_recovers_the_arm(arm: FrankaArm, judge: Server) -> None:
    jump(arm, 0.3)
    here = arm.measure().joints
    held = arm.hold()
    np.testing.assert_allclose(held.joints, here, atol=0.01)
    with pytest.raises(ArmError, match="look at the arm, then recover it"):
        arm.command(held)
    arm.disconnect()
    arm.connect()  # connecting again clears nothing of what the controller says
    if arm.health().faults:
        with pytest.raises(ArmError, match="then recover it"):
            arm.command(arm.hold())
    arm.recover()
    assert arm.health().faults == ()
    drive(arm, HOME)


def test_the_first_target_after_connecting_never_pulls(arm: FrankaArm) -> None:
    held = arm.hold()
    with pytest.raises(ArmError, match=r"fr3_joint2 0\.100 rad from where it stands"):
        arm.command(JointTarget.still(held.joints + np.eye(7)[1] * 0.1, 0.0))
    time.sleep(0.2)
    np.testing.assert_allclose(arm.measure().joints, held.joints, atol=1e-3)
    assert arm.network_quality is None


def test_what_would_be_a_reflex_is_not_even_sent(arm: FrankaArm) -> None:
    held = arm.hold()
    fast = replace(held, velocity=np.full(7, 3.0))
    with pytest.raises(ArmError, match=r"fr3_joint1 would move at 3\.00 rad/s.*nothing was sent"):
        arm.command(fast)
    with pytest.raises(ArmError, match="NaN"):
        arm.command(replace(held, joints=np.full(7, np.nan)))
    assert arm.health().faults == ()


def test_hold_brakes_within_half_a_second_and_then_needs_nobody(arm: FrankaArm) -> None:
    streamer, cadence = Streamer(LIMITS.bounds, arm.rate_hz, arm.hold()), Cadence(arm.rate_hz)
    streamer.aim(JointTarget.still(HOME + 0.4, 0.0))
    for _ in range(40):
        cadence.wait()
        arm.command(streamer.tick())
    assert np.abs(streamer.target.velocity).max() > 0.7
    began = time.monotonic()
    held = arm.hold()
    assert time.monotonic() - began < 1.0
    assert arm.network_quality is None
    time.sleep(0.3)
    np.testing.assert_allclose(arm.measure().joints, held.joints, atol=2e-3)


def test_a_stream_that_stops_leaves_the_arm_at_rest_near_its_last_target(arm: FrankaArm) -> None:
    streamer, cadence = Streamer(LIMITS.bounds, arm.rate_hz, arm.hold()), Cadence(arm.rate_hz)
    streamer.aim(JointTarget.still(HOME + 0.4, 0.0))
    for _ in range(40):
        cadence.wait()
        arm.command(streamer.tick())
    last = streamer.target
    time.sleep(1.0)
    one = arm.measure().joints
    time.sleep(0.2)
    assert np.abs(arm.measure().joints - one).max() < 2e-3
    assert np.abs(one - last.joints).max() < 0.03
    assert arm.health().faults == ()


def test_released_is_released(arm: FrankaArm) -> None:
    arm.release()
    with pytest.raises(ArmError, match="released and takes no target"):
        arm.command(JointTarget.still(HOME, 0.0))
    arm.disconnect()
    arm.disconnect()
    arm.connect()
    drive(arm, HOME + 0.05)


def test_a_killed_client_leaves_an_arm_that_stands(judge: Server) -> None:
    """kill -9 in mid-movement: the simulated controller stops the arm and holds it."""
    script = (
        "import sys, time, numpy as np\n"
        "from robots.franka import FrankaArm\nfrom robots.arm import JointTarget\nfrom robots.limits import Limits\n"
        "from robots.stream import Streamer\nfrom robots.cadence import Cadence\n"
        "arm = FrankaArm(sys.argv[1], realtime='ignore', geometry_m=0.11, hand=False); arm.connect()\n"
        "s, c = Streamer(Limits.load(sys.argv[2]).bounds, 100.0, arm.hold()), Cadence(100.0)\n"
        "s.aim(JointTarget.still(arm.home_joints + 0.45, 0.0))\n"
        "for tick in range(500):\n"
        "    c.wait(); arm.command(s.tick())\n"
        "    if tick == 45: print(*s.target.velocity, flush=True)\n"
    )
    watcher = FrankaArm(judge.address, hand=False, **JUDGED)
    watcher.connect()
    if watcher.health().faults:
        watcher.recover()
    watcher.go(HOME, speed=0.8)
    watcher.disconnect()
    client = subprocess.Popen(
        [sys.executable, "-c", script, judge.address, str(DEFAULT_FILE.parent / "fr3.yaml")],
        stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert client.stdout is not None
    speed = np.abs(np.array([float(v) for v in client.stdout.readline().split()])).max()
    assert speed > 0.7
    client.send_signal(signal.SIGKILL)
    client.wait()
    time.sleep(0.5)
    watcher.connect()
    one = watcher.measure().joints
    time.sleep(0.3)
    assert np.abs(watcher.measure().joints - one).max() < 2e-3
    assert np.abs(one - HOME).max() < 0.45 + 0.05
    if watcher.health().faults:
        watcher.recover()
    drive(watcher, HOME)
    watcher.disconnect()


def test_a_dead_controller_is_said_within_three_seconds(tmp_path_factory: pytest.TempPathFactory) -> None:
    server = franka_sim(tmp_path_factory.mktemp("dead") / "log")
    arm = FrankaArm(server.address, hand=False, **JUDGED)
    arm.connect()
    streamer = Streamer(LIMITS.bounds, arm.rate_hz, arm.hold())
    streamer.aim(JointTarget.still(arm.measure().joints + 0.4, 0.0))
    for _ in range(30):
        arm.command(streamer.tick())
        time.sleep(0.01)
    os.killpg(server.process.pid, signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(ArmError):
        insist(arm, streamer.target)
    assert time.monotonic() - began < 3.0
    arm.disconnect()


def test_nobody_there_is_one_sentence() -> None:
    arm = FrankaArm("127.255.255.1", hand=False)
    with pytest.raises(ArmError, match=r"no Franka control box answers at 127\.255\.255\.1 .*FCI active in Desk"):
        arm.connect()


def test_the_wrong_kind_is_refused(box: Server) -> None:
    with pytest.raises(ArmError, match="drives a fr3; the robot's kind is panda"):
        FrankaArm(box.address, kind="panda", realtime="ignore").connect()


def test_geometry_pose_and_hand_under_gravity(box: Server) -> None:
    """franky-sim: our kinematics agree with the controller's, the arm holds its pose, the hand opens and closes."""
    arm = FrankaArm(box.address, realtime="ignore")
    arm.connect()
    assert box.address in arm.identity
    arm.go(HOME, speed=0.8)
    seen = arm.observe().observation
    np.testing.assert_allclose(seen["observation.joints"], HOME, atol=0.02)
    position, _ = arm.kinematics.forward(seen["observation.joints"].astype(float))
    np.testing.assert_allclose(seen["observation.state"][:3], position, atol=1e-5)
    load = arm.health().load
    assert 0.05 < load["fr3_joint2"] < 1.0  # it carries itself
    for wanted in (1.0, 0.0):
        start = arm.hold()
        cadence = Cadence(arm.rate_hz)
        for target in path(start, JointTarget.still(start.joints, wanted), 0.0, arm.rate_hz, LIMITS.bounds):
            cadence.wait()
            arm.command(target)
        deadline = time.monotonic() + 4.0
        while abs(arm.measure().gripper - wanted) > 0.05 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert abs(arm.measure().gripper - wanted) <= 0.05
    assert arm.health().faults == ()
    arm.release()
    arm.disconnect()
