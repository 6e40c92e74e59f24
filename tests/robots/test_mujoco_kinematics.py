"""Kinematics of an arm with too few joints: the position is met, and of the orientation as much as can be."""

# pyright: reportAttributeAccessIssue=false
# (mujoco is a binary module whose functions and enums no stub describes)

from __future__ import annotations

import math
from pathlib import Path

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs import so101 as model
from robots.emulated.so101 import STEP_S
from robots.kinematics import SO101_KEEPS_OFF_RAD, so101
from robots.limits import Limits
from robots.mujoco_kinematics import MujocoKinematics

SO101_LIMITS = Path(__file__).parents[2] / "configs" / "guard" / "so101.yaml"
ARM = so101()
LIMITS = Limits.load(SO101_LIMITS)


def test_the_shipped_limits_fit_the_arm() -> None:
    assert LIMITS.joint_names == model.JOINT_NAMES
    whole = model.arm_model()
    ranges = np.array([whole.joint(name).range for name in model.JOINT_NAMES])
    np.testing.assert_allclose(LIMITS.joint_low, ranges[:, 0], atol=1e-5)
    np.testing.assert_allclose(LIMITS.joint_high, ranges[:, 1], atol=1e-5)
    assert LIMITS.joint_margin_rad < SO101_KEEPS_OFF_RAD  # or the guard would cut solutions
    for pose in (model.PARK_JOINTS, model.HOME_JOINTS):
        assert (pose > np.array(LIMITS.joint_low) + LIMITS.joint_margin_rad).all()
        assert (pose < np.array(LIMITS.joint_high) - LIMITS.joint_margin_rad).all()
    tool, _ = ARM.forward(model.HOME_JOINTS)
    assert (tool > LIMITS.workspace_low).all()
    assert (tool < LIMITS.workspace_high).all()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 1), min_size=5, max_size=5), st.lists(st.floats(-0.2, 0.2), min_size=5, max_size=5))
def test_a_pose_it_was_in_is_found_again(shares: list[float], off: list[float]) -> None:
    joints = ARM.lower + np.array(shares) * (ARM.upper - ARM.lower)
    position, rotation = ARM.forward(joints)
    found = ARM.solve(np.clip(joints + off, ARM.lower, ARM.upper), position, rotation)
    assert (found >= ARM.lower - 1e-9).all()
    assert (found <= ARM.upper + 1e-9).all()
    assert np.linalg.norm(ARM.forward(found)[0] - position) < 2e-3


def test_a_walk_over_the_workspace_meets_every_step() -> None:
    """Random steps of up to 3 cm, the orientation asked to stay: it cannot, and the position is met all the same."""
    rng, joints = np.random.default_rng(0), model.HOME_JOINTS.copy()
    missed, turned = [], []
    for _ in range(400):
        position, rotation = ARM.forward(joints)
        wanted = np.clip(position + rng.uniform(-0.03, 0.03, 3), LIMITS.workspace_low, LIMITS.workspace_high)
        joints = ARM.solve(joints, wanted, rotation)
        reached, now = ARM.forward(joints)
        missed.append(np.linalg.norm(reached - wanted))
        turned.append(math.acos(np.clip((np.trace(now @ rotation.T) - 1) / 2, -1, 1)))
    assert np.percentile(missed, 95) < 1e-3
    assert np.percentile(turned, 99) < ARM.orientation_slack_rad  # type: ignore[attr-defined]


def test_limits_may_be_narrowed_and_not_to_nothing() -> None:
    narrow = MujocoKinematics(model.arm_model(), model.JOINT_NAMES, model.TOOL_SITE).narrowed(
        np.full(5, -0.5), np.full(5, 0.5)
    )
    position, rotation = ARM.forward(np.array([1.2, -1.0, 1.0, 1.0, 0.0]))
    found = narrow.solve(np.zeros(5), position, rotation)
    assert np.abs(found).max() <= 0.5
    with pytest.raises(ValueError, match="nothing is left of shoulder_pan"):
        narrow.narrowed(np.full(5, 0.6), np.full(5, 0.7))


def test_a_body_may_be_the_tool_and_other_joints_stand_still(tmp_path: Path) -> None:
    arm = MujocoKinematics(model.ARM_FILE, model.JOINT_NAMES[:3], "wrist")
    position, rotation = arm.forward(np.array([0.2, 0.1, -0.1]))
    found = arm.solve(np.zeros(3), position, rotation)
    assert np.linalg.norm(arm.forward(found)[0] - position) < 1e-3
    with pytest.raises(ValueError, match="no joint 'elbow'; did you mean elbow_flex"):
        MujocoKinematics(model.ARM_FILE, ["elbow"], "wrist")
    with pytest.raises(ValueError, match="no site or body 'tol'"):
        MujocoKinematics(model.ARM_FILE, model.JOINT_NAMES, "tol")
    with pytest.raises(ValueError, match="there is no model at"):
        MujocoKinematics(tmp_path / "arm.xml", model.JOINT_NAMES, "tool")
    (tmp_path / "arm.xml").write_text("<mujoco><worldbody><bdy/></worldbody></mujoco>")
    with pytest.raises(ValueError, match="no model that MuJoCo loads"):
        MujocoKinematics(tmp_path / "arm.xml", model.JOINT_NAMES, "tool")


def test_the_scene_holds_the_same_arm() -> None:
    assert model.PHYSICS_STEP_S == STEP_S
    scene, alone = model.scene_model(), model.arm_model()
    data, other = mujoco.MjData(scene), mujoco.MjData(alone)
    for name, angle in zip(model.JOINT_NAMES, model.HOME_JOINTS, strict=True):
        data.joint(name).qpos[:] = other.joint(name).qpos[:] = angle
    mujoco.mj_kinematics(scene, data)
    mujoco.mj_kinematics(alone, other)
    np.testing.assert_allclose(data.site("tool").xpos, other.site("tool").xpos)
    assert model.closedness(model.GRIPPER_CLOSED) == pytest.approx(1.0)
    assert model.closedness(model.gripper_angle(0.3)) == pytest.approx(0.3)
