"""What every arm must do, whatever stands behind it: derive from `Conformance`, give it an arm, and pytest runs it all.

    class TestMyArm(Conformance):
        @pytest.fixture
        def make(self) -> Make:
            return lambda: MyArm(...)          # unconnected; called once or twice a test

An arm that knows what really moved overrides `fastest`; one that can leave a goal behind overrides `leave_stale_goal`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from robots.arm import Arm, ArmError, JointTarget
from robots.cadence import Cadence
from robots.stream import MotionBounds, Streamer

Make = Callable[[], Arm]


class Conformance:
    """The suite. Angles in radians, seconds.

    Attributes:
        speed: rad/s that the suite lets joints be sent at.
        overshoot: how much faster than it was sent a joint may really go: servos catch up.
        still: rad by which an arm that stands may be seen to move (gravity on a servo that has just come on).
        near: rad by which an arm may be off where it was sent, once it has come to rest.
    """

    speed = 0.5
    overshoot = 1.6
    still = 0.05
    near = 0.06

    @pytest.fixture
    def make(self) -> Make:
        raise NotImplementedError("an arm's own suite says how to make one")

    @pytest.fixture
    def arm(self, make: Make) -> Iterator[Arm]:
        arm = make()
        arm.connect()
        try:
            yield arm
        finally:
            arm.disconnect()

    def fastest(self, arm: Arm) -> np.ndarray | None:
        """(J,) rad/s, the highest real speed of each joint since this was last asked; None where nobody knows."""
        return None

    def leave_stale_goal(self, arm: Arm) -> None:
        """Leave a goal far from where the (unconnected) arm stands, as a program that was killed does."""
        pytest.skip("this arm keeps no goal of its own")

    # -- connecting --------------------------------------------------------------------------------------------------

    def test_connecting_moves_nothing(self, make: Make) -> None:
        arm = make()
        arm.connect()
        try:
            before = arm.measure().joints
            let_pass(arm, 0.4)
            assert np.abs(arm.measure().joints - before).max() < self.still
        finally:
            arm.disconnect()

    def test_a_stale_goal_pulls_at_nothing(self, make: Make) -> None:
        arm = make()
        self.leave_stale_goal(arm)
        arm.connect()
        try:
            before = arm.measure().joints
            let_pass(arm, 0.4)
            assert np.abs(arm.measure().joints - before).max() < self.still
        finally:
            arm.disconnect()

    def test_the_first_movement_keeps_to_its_speed(self, arm: Arm) -> None:
        self.fastest(arm)
        start = arm.hold()
        goal = towards_the_middle(arm, start.joints, 0.3)
        sent = drive(arm, start, goal, self.speed)
        rate = np.abs(np.diff(np.stack([start.joints, *sent]), axis=0)).max() * arm.rate_hz
        assert rate <= self.speed * 1.001
        real = self.fastest(arm)
        if real is not None:
            assert real.max() <= self.speed * self.overshoot
        assert np.abs(arm.measure().joints - goal).max() < self.near

    def test_it_says_what_it_is(self, arm: Arm) -> None:
        count = len(arm.joint_names)
        assert arm.name
        assert arm.identity
        assert count > 0
        assert len(set(arm.joint_names)) == count
        assert arm.rate_hz > 0
        for pose in (arm.park_joints, arm.home_joints, arm.kinematics.lower, arm.kinematics.upper):
            assert np.shape(pose) == (count,)
        for pose in (arm.park_joints, arm.home_joints):
            assert (pose >= arm.kinematics.lower).all()
            assert (pose <= arm.kinematics.upper).all()

    # -- reading -----------------------------------------------------------------------------------------------------

    def test_an_observation_has_every_key(self, arm: Arm) -> None:
        seen = arm.observe().observation
        state, joints = seen["observation.state"], seen["observation.joints"]
        assert state.shape == (7,)
        assert state.dtype == np.float32
        assert joints.shape == (len(arm.joint_names),)
        assert np.isfinite(state).all()
        assert 0.0 <= state[6] <= 1.0
        position, _ = arm.kinematics.forward(joints.astype(np.float64))
        assert np.abs(position - state[:3]).max() < 2e-3
        for key, picture in seen.items():
            if key.startswith("observation.images."):
                assert picture.ndim == 3
                assert picture.shape[2] == 3
                assert picture.dtype == np.uint8
                assert picture.std() > 1

    def test_stamps_run_forward(self, arm: Arm) -> None:
        stamps, pictures = [], []
        for _ in range(4):
            reading = arm.observe()
            stamps += [reading.monotonic_s]
            pictures.append(dict(reading.camera_s))
            let_pass(arm, 0.12)
            stamps += [arm.measure().monotonic_s, arm.now()]
        assert all(later >= earlier for earlier, later in itertools.pairwise(stamps))
        assert stamps[-1] > stamps[0]
        assert abs(reading.wall_s - time.time()) < 60
        for name in pictures[0]:
            assert pictures[-1][name] > pictures[0][name], f"camera {name} stands still"
            assert pictures[-1][name] <= stamps[-1] + 1e-3

    def test_the_quick_look_agrees_with_the_long_one(self, arm: Arm) -> None:
        let_pass(arm, 0.3)
        reading, quick = arm.observe(), arm.measure()
        assert np.abs(reading.observation["observation.joints"] - quick.joints).max() < 0.02
        assert abs(float(reading.observation["observation.state"][6]) - quick.gripper) < 0.02

    def test_nothing_is_wrong_with_a_healthy_arm(self, arm: Arm) -> None:
        health = arm.health()
        assert not health.faults
        assert all(0.0 <= share <= 1.0 for share in health.load.values())

    # -- moving ------------------------------------------------------------------------------------------------------

    def test_holding_is_at_rest(self, arm: Arm) -> None:
        start = arm.hold()
        drive(arm, start, towards_the_middle(arm, start.joints, 0.3), self.speed, ticks=int(0.3 * arm.rate_hz))
        held = arm.hold()
        assert not np.any(held.velocity)
        assert held.gripper_velocity == 0
        let_pass(arm, 0.6)
        one = arm.measure().joints
        let_pass(arm, 0.3)
        assert np.abs(arm.measure().joints - one).max() < 0.01
        assert np.abs(one - held.joints).max() < self.near

    @pytest.mark.parametrize("wrong", ["nan", "infinite speed", "too few", "too many", "gripper"])
    def test_what_is_no_target_is_refused_whole(self, arm: Arm, wrong: str) -> None:
        held = arm.hold()
        before = arm.measure().joints
        joints, velocity, gripper = held.joints.copy(), np.zeros_like(held.joints), held.gripper
        if wrong == "nan":
            joints[0] = np.nan
        elif wrong == "infinite speed":
            velocity[-1] = np.inf
        elif wrong == "too few":
            joints, velocity = joints[:-1], velocity[:-1]
        elif wrong == "too many":
            joints, velocity = np.append(joints, 0.0), np.append(velocity, 0.0)
        else:
            gripper = float("nan")
        with pytest.raises(ArmError):
            arm.command(JointTarget(joints, gripper, velocity))
        let_pass(arm, 0.1)
        assert np.abs(arm.measure().joints - before).max() < self.still

    # -- the end -----------------------------------------------------------------------------------------------------

    def test_parking_ends_at_the_park_pose_and_release_is_final(self, arm: Arm) -> None:
        start = arm.hold()
        drive(arm, start, towards_the_middle(arm, start.joints, 0.2), self.speed)
        self.fastest(arm)
        arm.park()
        let_pass(arm, 0.3)
        real = self.fastest(arm)
        if real is not None:
            assert real.max() <= arm.park_speed * self.overshoot
        parked = arm.measure()
        assert np.abs(parked.joints - arm.park_joints).max() < self.near
        arm.release()
        with pytest.raises(ArmError, match="released"):
            arm.command(JointTarget.still(parked.joints, parked.gripper))

    def test_it_may_be_disconnected_twice(self, make: Make) -> None:
        arm = make()
        arm.connect()
        arm.disconnect()
        arm.disconnect()
        with pytest.raises(ArmError, match="connect"):
            arm.measure()


def let_pass(arm: Arm, seconds: float) -> None:
    """Time goes by: real time, or ticks of holding where time passes only with them."""
    if not arm.lockstep:
        time.sleep(seconds)
        return
    for _ in range(max(1, round(seconds * arm.rate_hz))):
        arm.hold()


def towards_the_middle(arm: Arm, joints: np.ndarray, far: float) -> np.ndarray:
    """A pose (J,) up to `far` rad away from `joints`, each joint towards the middle of its range."""
    middle = (arm.kinematics.lower + arm.kinematics.upper) / 2
    return joints + np.clip(middle - joints, -far, far)


def drive(arm: Arm, start: JointTarget, joints: np.ndarray, speed: float, ticks: int | None = None) -> list[np.ndarray]:
    """Stream to a pose at a speed, all the way or for so many ticks; returns what was sent, (J,) each."""
    streamer = Streamer(MotionBounds.slow(len(start.joints), speed), arm.rate_hz, start)
    streamer.aim(JointTarget.still(joints, start.gripper))
    cadence, sent = Cadence(arm.rate_hz), []
    while streamer.moving and (ticks is None or len(sent) < ticks):
        if not arm.lockstep:
            cadence.wait()
        target = streamer.tick()
        arm.command(target)
        sent.append(target.joints)
    if ticks is None:
        let_pass(arm, 0.5)
    return sent
