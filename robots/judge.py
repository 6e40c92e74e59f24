"""The judge of what was sent: plain differences and a forward kinematics of its own, nothing of the guard's.

It sees only the ticks in their order, and the arm's numbers. That it can find fault is tested by removing the guard's checks
one at a time.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from robots.fuzz_arms import Chain
from robots.limits import Limits

# A limit may be missed by a millionth, and a third difference of doubles by what their last digits grow to.
SHARE, DIGITS = 1e-6, 2e-15
# The guard lets the tool bulge out of its box by 10 mm where it brakes (5 on the way); and what it looks at lies apart.
BULGE_M, BETWEEN_M = 0.010, 0.003
TABLE_M = 0.002


def judge(sent: np.ndarray, chain: Chain, limits: Limits, with_body: bool) -> Counter[str]:
    """Violations by kind in the ticks sent to an arm, (N, J + 1) rad and closedness, the first where it stood."""
    found: Counter[str] = Counter()
    if not np.isfinite(sent).all():
        found["not finite"] += int((~np.isfinite(sent)).any(axis=1).sum())
        return found
    low = np.append(np.asarray(limits.joint_low) + limits.joint_margin_rad, 0.0)
    high = np.append(np.asarray(limits.joint_high) - limits.joint_margin_rad, 1.0)
    found["position"] += int(((sent < low - 2e-6) | (sent > high + 2e-6)).any(axis=1).sum())
    bounds = (
        ("velocity", [*limits.joint_velocity, limits.gripper_velocity]),
        ("acceleration", [*limits.joint_acceleration, limits.gripper_acceleration]),
        ("jerk", [*limits.joint_jerk, limits.gripper_jerk]),
    )
    rate = np.concatenate([sent[:1]] * 3 + [sent])
    for power, (name, most) in enumerate(bounds, start=1):
        rate = np.diff(rate, axis=0) * chain.rate_hz
        over = np.abs(rate) > np.asarray(most) * (1 + SHARE) + DIGITS * (2 * chain.rate_hz) ** power
        found[name] += int(over.any(axis=1).sum())
    points = positions(chain, sent[:, :-1])
    slack = BULGE_M + BETWEEN_M
    tool = points[:, -1]
    out = np.maximum(np.asarray(limits.workspace_low) - tool, tool - np.asarray(limits.workspace_high)).max(axis=1)
    found["workspace"] += int((out > slack).sum())
    if with_body:
        ends = points[:, 1:]  # the base's own piece has no capsule
        radius = np.repeat(chain.radius[:, None], 1, axis=1)[:, 0]
        segments = np.stack([ends[:, :-1], ends[:, 1:]], axis=2)  # (N, J, 2, 3)
        links = np.maximum(np.asarray(limits.link_low) - segments, segments - np.asarray(limits.link_high)).max((2, 3))
        first = np.maximum(links[0] + radius, 0.0).max()
        found["links"] += int(((links + radius).max(axis=1) > first + TABLE_M).sum())
        if chain.plane_m is not None:
            above = (segments[..., 2].min(axis=2) - radius - chain.plane_m).min(axis=1)
            found["table"] += int((above < min(limits.obstacle_clearance_m, above[0]) - TABLE_M).sum())
    return +found


def positions(chain: Chain, joints: np.ndarray) -> np.ndarray:
    """Base, joints and tool of a chain: (N, J) rad -> (N, J + 2, 3) m."""
    count = len(joints)
    rotation = np.broadcast_to(np.eye(3), (count, 3, 3))
    points = [np.zeros((count, 3))]
    for index in range(joints.shape[1]):
        points.append(points[-1] + rotation @ chain.offsets[index])
        rotation = rotation @ _of_quaternion(chain.turns[index]) @ _about(chain.axes[index], joints[:, index])
    points.append(points[-1] + rotation @ chain.offsets[-1])
    return np.stack(points, axis=1)


def _of_quaternion(q: np.ndarray) -> np.ndarray:
    w, x, y, z = q
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip


def _about(axis: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Rodrigues' formula: (N, 3, 3)."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    sine, versine = np.sin(angles)[:, None, None], (1 - np.cos(angles))[:, None, None]
    return np.eye(3) + sine * cross + versine * (cross @ cross)
