"""Before anything moves: one line a check, each with what was found and, where it fails, what to do."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from robots.arm import IMAGES
from robots.limits import Limits
from robots.side import Side

LEAST_FREE_BYTES = 500_000_000
# An arm that rests at a limit of orientation reads a little past it.
TURN_SLACK_RAD = 0.05
# An arm that was parked and let go may lie a little outside.
BRING = "`premotor robots home` brings it in, or move it by hand"


@dataclass
class Preflight:
    """Runs checks in order and tells each as it is done; later checks run even if one failed, unless they need it."""

    say: Callable[[str], None]
    interruptible: Callable[[], AbstractContextManager[None]] = nullcontext
    failed: list[str] = field(default_factory=list)

    def check[T](self, what: str, test: Callable[[], tuple[T, str]]) -> T | None:
        """Run one check.

        Args:
            what: two or three words.
            test: returns (what later checks need, what was found) or raises with a sentence.
        """
        try:
            with self.interruptible():
                value, found = test()
        except Exception as error:  # whatever a check meets is its finding
            sentence = str(error) or type(error).__name__
            self.failed.append(f"{what}: {sentence}")
            self.say(f"no  {what:14s} {sentence}")
            return None
        self.say(f"ok  {what:14s} {found}")
        return value

    @property
    def passed(self) -> bool:
        """Whether every check so far did."""
        return not self.failed


def observation(side: Side, required: tuple[str, ...]) -> tuple[None, str]:
    """The arm can be read: what the model needs is there, finite, and stamped with a clock that runs forward."""
    first, second = side.observe(), side.observe()
    for key in ("observation.state", "observation.joints", *required):
        if key not in second.observation:
            have = ", ".join(sorted(second.observation))
            raise ValueError(f"the model needs {key}, the arm gives {have}; set the robot's cameras")
        if not np.isfinite(np.asarray(second.observation[key], dtype=np.float64)).all():
            raise ValueError(f"{key} has NaN or infinity in it; check the arm's driver and calibration")
    if second.monotonic_s < first.monotonic_s:
        raise ValueError("the arm's clock ran backwards between two observations")
    for key, value in second.observation.items():
        if key.startswith(IMAGES) and int(value.max()) - int(value.min()) < 8:
            raise ValueError(f"{key} is one flat colour; is the lens covered or the camera dead?")
    images = [k.rsplit(".", 1)[1] for k in second.observation if k.startswith(IMAGES)]
    shape = np.shape(second.observation[f"{IMAGES}{images[0]}"]) if images else ()
    return None, f"cameras {', '.join(images)} {shape[1]}x{shape[0]}" if shape else "no camera"


def start_pose(side: Side, limits: Limits) -> tuple[None, str]:
    """Joints and tool start inside the limits, and the limits are for this arm."""
    if side.about.joint_names != limits.joint_names:
        raise ValueError(
            f"the limits are for {', '.join(limits.joint_names)}; {side.about.name} has {', '.join(side.about.joint_names)}; "
            "choose the limits file of this arm"
        )
    seen = side.observe().observation
    joints, tool = np.asarray(seen["observation.joints"]), np.asarray(seen["observation.state"])[:3]
    if np.abs(joints).max() > 4 * math.pi:
        raise ValueError(f"a joint reads {np.abs(joints).max():.0f}; joints are radians, this looks like degrees")
    low = np.asarray(limits.joint_low) + limits.joint_margin_rad
    high = np.asarray(limits.joint_high) - limits.joint_margin_rad
    for name, value, least, most in zip(limits.joint_names, joints, low, high, strict=True):
        if not least <= value <= most:
            raise ValueError(f"{name} is at {value:.3f} rad, outside [{least:.3f}, {most:.3f}]; {BRING}")
    for axis, value, least, most in zip("xyz", tool, limits.workspace_low, limits.workspace_high, strict=True):
        if not least - limits.position_lead_m <= value <= most + limits.position_lead_m:
            raise ValueError(f"the tool is at {axis} = {value:.3f} m, outside [{least:g}, {most:g}]; {BRING}")
    rpy = np.asarray(seen["observation.state"])[3:6]
    for axis, value, least, most in zip(
        ("roll", "pitch", "yaw"), rpy, limits.tool_rpy_low, limits.tool_rpy_high, strict=True
    ):
        if not least - TURN_SLACK_RAD <= value <= most + TURN_SLACK_RAD:
            raise ValueError(
                f"the tool's {axis} is {value:.2f} rad, outside [{least:.2f}, {most:.2f}]; turn it by hand"
            )
    return None, f"tool at ({tool[0]:.3f}, {tool[1]:.3f}, {tool[2]:.3f}) m, all joints inside their limits"


def disk(folder: Path) -> tuple[None, str]:
    """There is room for the record."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < LEAST_FREE_BYTES:
        raise ValueError(f"{free / 1e6:.0f} MB free at {folder}; a record needs {LEAST_FREE_BYTES / 1e6:.0f} MB")
    return None, f"{free / 1e9:.1f} GB free at {folder}"


def rated_stop(confirmed: bool) -> tuple[None, str]:
    """A person says that a rated stop is within reach; software cannot."""
    if not confirmed:
        raise ValueError(
            "this software has no safety-rated function; check the lab's own rated stop, then give "
            "rated_stop_confirmed=true"
        )
    return None, "confirmed by the operator"
