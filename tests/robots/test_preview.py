"""A plan is shown before it is approved: the recording holds the ghost and the curves, the picture says the verdict."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from envs.tabletop import HOME_JOINTS
from robots import preview, viewer
from robots.arm import JointTarget
from robots.kinematics import Kinematics, panda
from robots.limits import Limits
from robots.preview_picture import write_png
from robots.stream import path

RATE_HZ = 100.0


@dataclass(frozen=True)
class Check:
    """A plan as `robots.plancheck` gives it."""

    joints: np.ndarray
    gripper: np.ndarray
    targets: np.ndarray
    ok: bool = True
    sentences: tuple[str, ...] = ()
    margins: dict[str, float] = field(default_factory=lambda: {"tool_in_workspace_m": 0.02, "jerk_share": 0.4})


@dataclass(frozen=True)
class Stick:
    """An arm of one capsule from its foot to its tool, and a ball at the foot."""

    kinematics: Kinematics
    radii: np.ndarray = field(default_factory=lambda: np.array([0.03, 0.06]))
    names: tuple[str, ...] = ("arm", "foot")

    def ends(self, joints: np.ndarray, gripper: np.ndarray) -> np.ndarray:
        tools = np.array([self.kinematics.forward(row)[0] for row in joints])
        foot = np.zeros_like(tools)
        return np.stack([np.stack([foot, tools], 1), np.stack([foot, foot], 1)], 1)


@pytest.fixture(scope="module")
def arm() -> Kinematics:
    return panda()


@pytest.fixture(scope="module")
def limits() -> Limits:
    return Limits.load()


@pytest.fixture(scope="module")
def check(limits: Limits) -> Check:
    """Two steps, as they would be streamed."""
    start = JointTarget.still(np.array(HOME_JOINTS), 0.0)
    ticks, targets, here = [start], [], start
    for turn in (0.1, -0.05):
        goal = here.joints.copy()
        goal[0] += turn
        target = JointTarget.still(goal, 0.3)
        ticks += path(here, target, limits.period_s, RATE_HZ, limits.bounds)
        targets.append(goal)
        here = target
    return Check(np.array([t.joints for t in ticks]), np.array([t.gripper for t in ticks]), np.array(targets))


def test_the_course_is_in_shares_of_the_limits(check: Check, limits: Limits, arm: Kinematics) -> None:
    course = preview.Course.of(check, limits, arm, RATE_HZ)
    assert course.stops.shape == (2, 3)
    for name in ("velocity", "acceleration", "jerk"):
        assert 0.05 < course.shares[name].max() <= 1.001
    assert course.tool[-1] == pytest.approx(course.stops[-1], abs=1e-4)
    # A joint at its margin is at 100 %.
    high = np.asarray(limits.joint_high) - limits.joint_margin_rad
    at_margin = Check(np.stack([high, high]), np.zeros(2), np.zeros((0, 7)))
    assert preview.Course.of(at_margin, limits, arm, RATE_HZ).position_share == pytest.approx(np.ones((2, 7)))


def test_the_words_are_for_people(check: Check, limits: Limits, arm: Kinematics) -> None:
    course = preview.Course.of(check, limits, arm, RATE_HZ)
    told = preview.words(check, course, "push")
    assert told[0] == "push: may be approved"
    assert "tool in workspace: 2.0 cm left" in told
    assert "jerk: 40 % left" in told
    refused = Check(check.joints, check.gripper, check.targets, False, ("step 1: too fast",), {"self_m": -0.004})
    told = preview.words(refused, None)
    assert told == ["REFUSED: nothing of it will be sent", "self: -0.4 cm too far", "- step 1: too fast"]


def test_the_recording_holds_ghost_curves_and_verdict(
    check: Check, limits: Limits, arm: Kinematics, tmp_path: Path
) -> None:
    import rerun as rr

    recording, picture = preview.write(tmp_path / "new", check, limits, arm, Stick(arm), RATE_HZ, "push")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["preview.png", "preview.rrd"]
    good, finding = viewer.verify(recording)
    assert good, finding
    rows: dict[str, int] = {}
    highest = 0.0
    for chunk in rr.experimental.RrdReader(recording).store().stream():
        batch = chunk.to_record_batch()
        entity = str(chunk.entity_path)
        rows[entity] = rows.get(entity, 0) + batch.num_rows
        if entity == "/curves/velocity/panda_joint1" and "Scalars:scalars" in batch.schema.names:
            highest = max(value[0] for value in batch["Scalars:scalars"].to_pylist() if value)
    assert rows["/ghost/arm"] == rows["/ghost/tool"] > 20
    assert {"/scene/workspace", "/scene/path", "/scene/now", "/verdict", "/curves/jerk/limit"} <= set(rows)
    course = preview.Course.of(check, limits, arm, RATE_HZ)
    assert highest == pytest.approx(100 * course.velocity_share[:, 0].max())
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[:2] == (950, 1500)
    assert (np.abs(pixels.astype(int) - (20, 128, 110)).sum(2) < 40).sum() > 300  # the verdict, in green


def test_a_refused_plan_says_so_in_red(check: Check, limits: Limits, arm: Kinematics, tmp_path: Path) -> None:
    many = tuple(f"step {number} clamped: x is outside the workspace" for number in range(60))
    refused = Check(check.joints, check.gripper, check.targets, False, many)
    course = preview.Course.of(refused, limits, arm, RATE_HZ)
    told = preview.words(refused, course, "push")
    picture = write_png(tmp_path / "p.png", refused, course, limits, Stick(arm), told)
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert (np.abs(pixels - (196, 64, 64)).sum(2) < 40).sum() > 300


def test_nothing_to_show_is_a_sentence(limits: Limits, arm: Kinematics, tmp_path: Path) -> None:
    nothing = Check(np.zeros((0, 7)), np.zeros(0), np.zeros((0, 7)), False)
    with pytest.raises(ValueError, match="no movement to show"):
        preview.write(tmp_path, nothing, limits, arm, Stick(arm), RATE_HZ)
    other = Check(np.zeros((5, 6)), np.zeros(5), np.zeros((0, 6)))
    with pytest.raises(ValueError, match="moves 6 joints, the limits are for 7"):
        preview.write(tmp_path, other, limits, arm, Stick(arm), RATE_HZ)
    assert list(tmp_path.iterdir()) == []


def test_capsules_point_where_the_links_do() -> None:
    for axis in ([0, 0, 1], [0, 0, -1], [1, 0, 0], [0.3, -0.5, -0.8]):
        unit = np.array(axis) / np.linalg.norm(axis)
        x, y, z, w = preview._turn(unit, 1.0)
        turned = np.array([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)])
        assert turned == pytest.approx(unit, abs=1e-9)
        assert x * x + y * y + z * z + w * w == pytest.approx(1.0)


@pytest.mark.slow
def test_the_viewer_draws_it(check: Check, limits: Limits, arm: Kinematics, tmp_path: Path) -> None:
    """Without a screen, where a software Vulkan is installed: the ghost is amber, the arm teal."""
    if not list(Path("/usr/share/vulkan/icd.d").glob("*.json")):
        pytest.skip("no Vulkan driver (mesa-vulkan-drivers)")
    recording = preview.write(tmp_path, check, limits, arm, Stick(arm), RATE_HZ)[0]
    script = (
        "import os, sys, time; import rerun as rr; from pathlib import Path; from robots import preview\n"
        "os.environ['PATH'] = f'{Path(sys.executable).parent}:' + os.environ['PATH']\n"
        "viewer = rr.experimental.ViewerClient.spawn(headless=True, port=int(sys.argv[3]))\n"
        "rr.init('premotor'); rr.connect_grpc(viewer.url); rr.send_blueprint(preview.blueprint())\n"
        "rr.log_file_from_path(sys.argv[1]); time.sleep(8); viewer.save_screenshot(sys.argv[2])\n"
    )
    import socket
    import sys

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    call = [sys.executable, "-c", script, str(recording), str(tmp_path / "shot.png"), str(port)]
    subprocess.run(call, check=True, timeout=120, capture_output=True)
    with Image.open(tmp_path / "shot.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    assert ((red > 120) & (green > 60) & (blue < 0.6 * green) & (red > 1.2 * green)).sum() > 2000
    assert ((green > 1.5 * red) & (green > 100) & (np.abs(green - blue) < 60)).sum() > 500
