"""The guard: a pure function of (state, request, limits, time) that passes, clamps or vetoes what a planner asks for.

The checks run in a fixed order: schema, action bounds, workspace, joints, age of the observation, the model's own doubt,
and then the way itself as it would be streamed: its time, joints, tool, links, table, singularity. Clamping never repairs
nonsense: a request that is not finite is vetoed, not clamped. Whatever leaves the guard is checked once more against every
limit, so that a mistake in a clamp becomes a veto and not a movement.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from robots.arm import JointTarget
from robots.body import Body
from robots.kinematics import Kinematics, rotation_of, rpy_of
from robots.limits import Limits
from robots.schema import AXES, UNITS, Veto, check_agreement, check_request, check_state
from robots.stream import SETTLE_SHARE
from robots.way import Margins, Way, check_body, check_condition, check_joints, check_tool, place

# Rounding of float32 actions is no violation.
ROUNDING = 1e-6
# Inverse kinematics is a search; a pose is reached when it is met this closely.
REACHED_M, REACHED_RAD = 0.002, 0.02
# How far inverse kinematics may have missed its aim for the aim still to count.
AIM_M, AIM_RAD = 0.01, 0.1
# A target the joints miss by more than this, or reach only by a leap of one of them, is another movement than was asked
# for.
MISS_M, MISS_RAD, LEAP_RAD = 0.005, 0.1, 0.8
# Of doubles: what a time may be over its limit by.
INSTANT_S = 1e-9


@dataclass(frozen=True)
class State:
    """What the guard knows of the arm at the moment of a request.

    Attributes:
        pose: (7,) measured `observation.state`: tool position, roll pitch yaw, closedness.
        joints: (J,) measured, rad.
        commanded: the target the arm was last sent to.
        aim: (6,) tool position and roll pitch yaw that target was meant to reach (`Verdict.aim`), so that what the
            inverse kinematics missed by is not lost; None to go by the target itself.
    """

    pose: np.ndarray
    joints: np.ndarray
    commanded: JointTarget
    aim: np.ndarray | None = None


@dataclass(frozen=True)
class Verdict:
    """What became of a request.

    Attributes:
        outcome: `passed` as asked, `clamped` to the limits, or `vetoed`: nothing may be sent, the arm holds.
        sentence: why, with numbers.
        reasons: one sentence a clamp, or the veto's.
        action: (7,) the approved end-effector action; None when vetoed.
        target: the joint target it comes to; None when vetoed.
        aim: (6,) the tool position and roll pitch yaw the target is meant to reach; None when vetoed.
        duration_s: how long the way to the target takes; 0 when vetoed.
        margins: how near it comes to each limit, by name, as far as the checks got; below 0 a limit is passed.
    """

    outcome: Literal["passed", "clamped", "vetoed"]
    sentence: str
    reasons: tuple[str, ...] = ()
    action: np.ndarray | None = None
    target: JointTarget | None = None
    aim: np.ndarray | None = None
    duration_s: float = 0.0
    margins: Mapping[str, float] = field(default_factory=dict)


def request(action: np.ndarray, observed_s: float, uncertainty: float | None, plan: str) -> dict[str, Any]:
    """A request as the guard wants it.

    Args:
        action: (7,) physical end-effector action.
        observed_s: when the observation it was planned from was made, on the arm's clock.
        uncertainty: the model's word on its own plan, 1 = calibrated; None where the model has none.
        plan: hash of the plan, for the record.
    """
    return {"action": action, "observed_s": observed_s, "uncertainty": uncertainty, "plan": plan}


@dataclass(frozen=True)
class Guard:
    """Limits, and the kinematics and body of the arm they are for.

    Without a body links are not watched, nor what stands around, nor singularities; `watches` says so.
    """

    limits: Limits
    kinematics: Kinematics
    body: Body | None = None

    def __post_init__(self) -> None:
        if self.body is not None and tuple(self.body.joint_names) != self.limits.joint_names:
            raise ValueError(
                f"the body has joints {', '.join(self.body.joint_names)}, the limits are for "
                f"{', '.join(self.limits.joint_names)}; give the limits file of this arm"
            )

    def review(self, state: State, asked: Mapping[str, Any], now: float) -> Verdict:
        """The verdict on one request at a time on the arm's clock; never raises: what it cannot judge it vetoes."""
        margins = Margins()
        try:
            return _review(state, asked, self, now, margins)
        except Veto as veto:
            return Verdict("vetoed", str(veto), (str(veto),), margins=margins.smallest)
        except Exception as error:  # fail closed: an unforeseen error must not let a request through
            sentence = f"the guard could not judge the request ({type(error).__name__}: {error})"
            return Verdict("vetoed", sentence, (sentence,), margins=margins.smallest)

    def watches(self) -> str:
        """What is watched and what is not, in a sentence for preflight."""
        if self.body is None:
            return (
                "joints and tool only: this arm has no body, so its links, what stands around and singularities "
                "are NOT watched"
            )
        planes = ", ".join(plane.name for plane in self.body.planes) or "no plane"
        return f"joints, tool and links: {len(self.body.names)} capsules against each other and {planes}"


def _review(state: State, asked: Mapping[str, Any], guard: Guard, now: float, margins: Margins) -> Verdict:
    limits, kinematics = guard.limits, guard.kinematics
    action, observed_s, doubt = check_request(asked, limits, now)
    check_state(state, limits)
    check_agreement(state, kinematics.forward(np.asarray(state.joints, dtype=np.float64))[0])
    reasons: list[str] = []
    action = _bound_action(action, limits, reasons)
    start, facing = _commanded_pose(state, kinematics)
    measured = np.asarray(state.pose[:3], dtype=np.float64)
    lead = np.full(3, limits.position_lead_m)
    start = measured + np.clip(start - measured, -lead, lead)
    position, rpy = _bound_pose(start, facing, action, limits, reasons)
    joints = _bound_joints(state, position, rpy, limits, kinematics, reasons)
    aim = np.concatenate([position, rpy])
    _check_age(observed_s, now, limits)
    _check_doubt(doubt, limits)
    # Closedness ends at 0 and 1 by construction of a gripper; that is no clamp worth a word.
    closed = float(np.clip(state.commanded.gripper + action[6], 0.0, 1.0))
    held = float(state.pose[6])
    closed = float(np.clip(held + np.clip(closed - held, -limits.gripper_lead, limits.gripper_lead), 0.0, 1.0))
    target = JointTarget.still(joints, closed)
    duration, slowed = _check_way(state, target, guard, margins)
    reached, turned = kinematics.forward(joints)
    _check_result(joints, duration, reached, turned, state, limits)
    if not reasons:
        longer = (
            f"; the step takes {duration:.2f} s instead of {limits.period_s:g}" if duration > limits.period_s else ""
        )
        words = f"within all limits{longer}{slowed}"
        return Verdict("passed", words, (), action, target, aim, duration, margins.smallest)
    turn = rpy_of(turned @ facing.T)
    turn = (turn + math.pi) % (2 * math.pi) - math.pi
    approved = np.concatenate([reached - start, turn, [closed - state.commanded.gripper]])
    return Verdict("clamped", "; ".join(reasons), tuple(reasons), approved, target, aim, duration, margins.smallest)


def _commanded_pose(state: State, kinematics: Kinematics) -> tuple[np.ndarray, np.ndarray]:
    """Where the tool was sent: position (3,), rotation (3, 3)."""
    position, rotation = kinematics.forward(state.commanded.joints)
    if state.aim is None:
        return position, rotation
    aimed = rotation_of(state.aim[3:])
    turn = math.acos(float(np.clip((np.trace(aimed.T @ rotation) - 1) / 2, -1.0, 1.0)))
    # An aim that the joints do not bear out belongs to another target.
    if np.linalg.norm(state.aim[:3] - position) > AIM_M or turn > AIM_RAD:
        return position, rotation
    return state.aim[:3], aimed


def _bound_action(action: np.ndarray, limits: Limits, reasons: list[str]) -> np.ndarray:
    bounded = np.clip(action, limits.action_low, limits.action_high)
    reasons += [
        f"{AXES[i]} {action[i]:+.4g} clamped to {bounded[i]:+.4g} {UNITS[i]}".rstrip()
        for i in np.flatnonzero(np.abs(bounded - action) > ROUNDING)
    ]
    return bounded


def _bound_pose(
    start: np.ndarray, facing: np.ndarray, action: np.ndarray, limits: Limits, reasons: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """The pose asked for, (3,) m and (3,) rad, inside the workspace; a veto when one step cannot bring it there."""
    wanted = start + action[:3]
    position = np.clip(wanted, limits.workspace_low, limits.workspace_high)
    step = position - start
    outside = np.maximum(step - limits.action_high[:3], np.asarray(limits.action_low[:3]) - step)
    if outside.max() > REACHED_M:
        axis = int(outside.argmax())
        raise Veto(
            f"the tool is at {'xyz'[axis]} = {start[axis]:.3f} m, outside the workspace "
            f"[{limits.workspace_low[axis]:g}, {limits.workspace_high[axis]:g}] by over a step; move it back by hand"
        )
    reasons += [
        f"{'xyz'[axis]} {wanted[axis]:.3f} m is outside the workspace "
        f"[{limits.workspace_low[axis]:g}, {limits.workspace_high[axis]:g}], clamped to {position[axis]:.3f}"
        for axis in np.flatnonzero(np.abs(position - wanted) > ROUNDING)
    ]
    asked = rpy_of(rotation_of(action[3:6]) @ facing)
    rpy = np.clip(asked, limits.tool_rpy_low, limits.tool_rpy_high)
    turn, most = _angle(rotation_of(rpy), facing), float(np.linalg.norm(limits.action_high[3:6]))
    if turn > most + REACHED_RAD:
        raise Veto(
            f"the tool is turned {turn:.2f} rad past its limits, over a step's {most:.2f} rad; turn it back by hand"
        )
    reasons += [
        f"{('roll', 'pitch', 'yaw')[axis]} {asked[axis]:.3f} rad is outside "
        f"[{limits.tool_rpy_low[axis]:.3f}, {limits.tool_rpy_high[axis]:.3f}], clamped to {rpy[axis]:.3f}"
        for axis in np.flatnonzero(np.abs(rpy - asked) > 1e-4)
    ]
    return position, rpy


def _bound_joints(
    state: State, position: np.ndarray, rpy: np.ndarray, limits: Limits, kinematics: Kinematics, reasons: list[str]
) -> np.ndarray:
    """Joint angles (J,) for a pose inside their limits, reached on a way that stays in the workspace."""
    commanded = np.asarray(state.commanded.joints, dtype=np.float64)
    error = np.abs(commanded - state.joints)
    if error.max() > limits.tracking_error_rad:
        worst = int(error.argmax())
        raise Veto(
            f"{limits.joint_names[worst]} is {error[worst]:.3f} rad from where it was sent (limit "
            f"{limits.tracking_error_rad:g}); the arm is pushing against something or did not follow"
        )
    joints = kinematics.solve(commanded, position, rotation_of(rpy))
    if not np.isfinite(joints).all():
        raise Veto(f"no joint angles bring the tool to {place(position)}")
    low = np.asarray(limits.joint_low) + limits.joint_margin_rad
    high = np.asarray(limits.joint_high) - limits.joint_margin_rad
    inside = np.clip(joints, low, high)
    reasons += [
        f"{limits.joint_names[i]} {joints[i]:.3f} rad is outside [{low[i]:.3f}, {high[i]:.3f}], "
        f"clamped to {inside[i]:.3f}"
        for i in np.flatnonzero(np.abs(inside - joints) > ROUNDING)
    ]
    _check_target(commanded, inside, position, rpy, limits, kinematics)
    return inside


def _check_target(
    commanded: np.ndarray,
    joints: np.ndarray,
    position: np.ndarray,
    rpy: np.ndarray,
    limits: Limits,
    kinematics: Kinematics,
) -> None:
    """The joints bring the tool where it was asked to, without a leap."""
    reached, rotation = kinematics.forward(joints)
    missed, turned = float(np.linalg.norm(reached - position)), _angle(rotation, rotation_of(rpy))
    # Five joints cannot have position and orientation both; their solver says how far it may be off. Where the tool may be
    # turned to is checked on the result all the same.
    if missed > MISS_M or turned > max(MISS_RAD, getattr(kinematics, "orientation_slack_rad", MISS_RAD)):
        raise Veto(
            f"no joint angles near these bring the tool to {place(position)}; the nearest found are "
            f"{missed * 1000:.0f} mm and {turned:.2f} rad away"
        )
    leap = np.abs(joints - commanded)
    if leap.max() > LEAP_RAD:
        worst = int(leap.argmax())
        raise Veto(f"{limits.joint_names[worst]} would leap {leap[worst]:.2f} rad in one step (limit {LEAP_RAD:g})")


def _check_way(state: State, target: JointTarget, guard: Guard, margins: Margins) -> tuple[float, str]:
    """Seconds the step takes, and why longer; all along it joints, tool and links keep to their limits.

    A step too fast for a joint is not shortened but takes longer: it still ends, at rest, where it was rehearsed to.
    """
    limits, body = guard.limits, guard.body
    settle = (1.0 - SETTLE_SHARE) * limits.period_s
    reach = None if body is None else body.reach_m
    way = Way.to(limits.bounds, state.commanded, target, limits.period_s - settle, reach)
    duration, slowed = settle + way.duration_s, ""
    share = 1.0 if body is None else check_condition(way, limits, body, margins)
    if share < 1.0:
        slowed = f", at {100 * share:.0f} % of its speed for a singularity nearby"
        way = Way.to(limits.bounds, state.commanded, target, SETTLE_SHARE * duration / share, reach)
        duration = way.duration_s / SETTLE_SHARE
    margins.note("duration_s", limits.longest_step_s - duration)
    if duration > limits.longest_step_s + INSTANT_S:
        raise Veto(
            f"within the limits of speed, acceleration and jerk the step would take {duration:.2f} s "
            f"(limit {limits.longest_step_s:g} s){slowed}"
        )
    check_joints(way, limits, margins)
    check_tool(way, limits, guard.kinematics, margins)
    if body is not None:
        check_body(way, limits, body, margins)
    return duration, slowed


def _angle(one: np.ndarray, other: np.ndarray) -> float:
    """The angle (rad) between two rotation matrices (3, 3)."""
    return math.acos(float(np.clip((np.trace(one @ other.T) - 1) / 2, -1.0, 1.0)))


def _check_age(observed_s: float, now: float, limits: Limits) -> None:
    age = now - observed_s
    if age > limits.observation_age_s:
        raise Veto(f"the observation is {age:.3f} s old (limit {limits.observation_age_s:g} s)")


def _check_doubt(doubt: float | None, limits: Limits) -> None:
    if doubt is not None and doubt > limits.uncertainty:
        raise Veto(
            f"the model does not trust this plan: its uncertainty is {doubt:.2f} times the calibrated error "
            f"(limit {limits.uncertainty:g})"
        )


def _check_result(
    joints: np.ndarray,
    duration_s: float,
    position: np.ndarray,
    rotation: np.ndarray,
    state: State,
    limits: Limits,
) -> None:
    """The last look at what would be sent, independent of how it came about."""
    low, high = np.asarray(limits.joint_low), np.asarray(limits.joint_high)
    margin = limits.joint_margin_rad - ROUNDING
    beyond = np.maximum(low + margin - joints, joints - high + margin)
    if beyond.max() > 0:
        worst = int(beyond.argmax())
        raise Veto(
            f"{limits.joint_names[worst]} would be at {joints[worst]:.3f} rad, outside "
            f"[{low[worst]:.3f}, {high[worst]:.3f}] less the margin {limits.joint_margin_rad:g}"
        )
    # Whatever the way looks like, on average it cannot be faster than at most.
    speed = np.abs(joints - state.commanded.joints) / duration_s
    if (speed > np.asarray(limits.joint_velocity)).any():
        raise Veto(f"a joint would go at {speed.max():.2f} rad/s on average, above its limit")
    outside = np.maximum(np.asarray(limits.workspace_low) - position, position - np.asarray(limits.workspace_high))
    if outside.max() > REACHED_M:
        raise Veto(
            f"the joints would bring the tool to {place(position)}, {outside.max() * 1000:.0f} mm out of the workspace"
        )
    rpy = rpy_of(rotation)
    tilt = np.maximum(np.asarray(limits.tool_rpy_low) - rpy, rpy - np.asarray(limits.tool_rpy_high))
    if tilt.max() > REACHED_RAD:
        raise Veto(f"the joints would turn the tool {tilt.max():.3f} rad past its limits")
