"""Arms are found by name, and what is not found is answered."""

from __future__ import annotations

import numpy as np
import pytest

from robots import JointTarget, connect
from robots.arm import ARMS, Arm, find


@pytest.mark.parametrize("name", sorted(ARMS))
def test_every_name_in_the_table_is_an_arm(name: str) -> None:
    assert issubclass(find(name), Arm)


def test_a_typo_names_the_nearest_arm() -> None:
    with pytest.raises(ValueError, match="did you mean mujoco"):
        connect("mojoco")
    with pytest.raises(ValueError, match=r"known are mujoco.*module:Class"):
        connect("zzz")


def test_an_arm_from_elsewhere_is_named_by_its_place() -> None:
    assert find("robots.simulated:MujocoArm") is find("mujoco")
    with pytest.raises(ValueError, match="cannot import no_such_module"):
        find("no_such_module:Arm")
    with pytest.raises(ValueError, match="no class Limits that derives"):
        find("robots.arm:Limits")


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"does not take these settings.*port"):
        connect("mujoco", port="/dev/ttyACM0")


def test_parking_is_slow_and_arrives() -> None:
    with connect("mujoco", task="push", seed=10_001) as arm:
        seen = [arm.observe().observation["observation.joints"].astype(float)]
        send = arm.command

        def watched(target: JointTarget) -> None:
            send(target)
            seen.append(target.joints)

        arm.command = watched  # type: ignore[method-assign]
        arm.park()
        fastest = np.abs(np.diff(np.stack(seen), axis=0)).max() * arm.rate_hz
        assert fastest <= arm.park_speed + 1e-3
        np.testing.assert_allclose(arm.observe().observation["observation.joints"], arm.park_joints, atol=0.01)
