"""An arm is parked slowly and watched: what becomes amiss on the way ends it, what was amiss before is why it parks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from robots.arm import ArmError, Health, JointTarget, Measured
from robots.limits import Limits
from robots.parking import park
from robots.simulated import MujocoArm

LIMITS = Limits.load()


class Complains(MujocoArm):
    """Its device reports a fault from the given question on; its joints are read with an error."""

    def __init__(self, first_fault: int, off_rad: float = 0.0, **settings: str) -> None:
        super().__init__(task="push", **settings)  # type: ignore[arg-type]
        self.first_fault, self.off_rad, self.asked = first_fault, off_rad, 0

    def health(self) -> Health:
        self.asked += 1
        return Health(faults=("elbow overloaded",)) if self.asked >= self.first_fault else Health()

    def measure(self) -> Measured:
        seen = super().measure()
        return replace(seen, joints=seen.joints + self.off_rad)


def taken(arm: MujocoArm) -> list[tuple[JointTarget, Measured]]:
    """Park it; what was recorded on the way."""
    seen: list[tuple[JointTarget, Measured]] = []
    arm.connect()
    try:
        park(arm, LIMITS, 2, lambda sent, measured: seen.append((sent, measured)))
        np.testing.assert_allclose(arm.measure().joints, arm.park_joints, atol=0.02)
    finally:
        arm.disconnect()
    return seen


def test_an_arm_that_was_at_fault_before_is_still_brought_down() -> None:
    seen = taken(Complains(first_fault=1))
    assert len(seen) > 100
    speeds = np.diff([sent.joints for sent, _ in seen], axis=0) * MujocoArm(task="push").rate_hz / 2
    assert np.abs(speeds).max() <= 0.4 + 1e-6


def test_another_fault_than_the_one_it_parks_for_ends_it() -> None:
    class Worse(Complains):
        def health(self) -> Health:
            self.asked += 1
            return Health(faults=("elbow overloaded",) if self.asked < 3 else ("elbow overloaded", "base overheats"))

    with pytest.raises(ArmError, match="on the way to the park pose the device reports: base overheats"):
        taken(Worse(first_fault=1, pace="real"))


def test_a_device_that_cannot_say_how_it_is_is_still_brought_down() -> None:
    class Mute(Complains):
        def health(self) -> Health:
            raise OSError("no answer")

    assert len(taken(Mute(first_fault=1000))) > 100


def test_a_fault_that_comes_on_the_way_ends_it() -> None:
    arm = Complains(first_fault=2, pace="real")
    with pytest.raises(ArmError, match="on the way to the park pose the device reports: elbow overloaded"):
        taken(arm)
    assert arm.asked == 2


@pytest.mark.parametrize("off_rad", [0.5, float("nan")])
def test_a_joint_that_does_not_follow_ends_it(off_rad: float) -> None:
    with pytest.raises(ArmError, match=r"on the way to the park pose panda_joint\d is .* rad from where it was sent"):
        taken(Complains(first_fault=1000, off_rad=off_rad))
