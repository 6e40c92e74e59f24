"""The way from one target to the next, as Ruckig will stream it, and what it comes near to.

A stop may come at any moment of it, and a brake brings the joints to rest together but not on the way itself: where brakes
begun along the way would end is looked at too. Distances are looked at only where they can matter: between two looks no
point of the arm moves further than its joints times their reach, so two looks that are far enough from everything vouch for
all that is between them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from ruckig import Result, RuckigError, Synchronization, Trajectory

from robots.arm import ArmError, JointTarget
from robots.body import FAR_M, NOTHING_NEAR, Body, Near
from robots.kinematics import Kinematics
from robots.limits import Limits
from robots.schema import Veto
from robots.stream import MotionBounds, Streamer

# Along the way the tool may bulge this far out of its workspace.
BULGE_M = 0.005
# The samples lie so close that no point of the arm moves further from one to the next.
SAMPLE_M = 0.02
LEAST_SAMPLES, MOST_SAMPLES = 8, 64
CONDITIONS = 4
ROUNDING = 1e-6
# A brake begun at so many moments of the way may bring the tool this far out of its workspace, no further.
BRAKES, BRAKE_M = 4, 0.01
# Who is too near already may go on as long as it does not get worse by more than this.
WORSE_M = 5e-4


@dataclass(frozen=True)
class Way:
    """A movement to rest.

    Attributes:
        joints: (N, J) rad along it, evenly in time, both ends included.
        gripper: (N,) closedness.
        low, high: (J,) the furthest each joint goes, between samples too.
        duration_s: how long it takes.
        stops: (B, J) half-way through brakes begun along it and where they come to rest; `stop_gripper` (B,) closedness
            there.
        gripper_range: the least and the greatest closedness of all of this.
    """

    joints: np.ndarray
    gripper: np.ndarray
    low: np.ndarray
    high: np.ndarray
    duration_s: float
    stops: np.ndarray
    stop_gripper: np.ndarray
    gripper_range: tuple[float, float] = (0.0, 1.0)

    @classmethod
    def to(
        cls,
        bounds: MotionBounds,
        start: JointTarget,
        target: JointTarget,
        duration_s: float,
        reach_m: np.ndarray | None = None,
    ) -> Way:
        """The way Ruckig takes within the bounds, no quicker than a duration; sampled by the arm's reach (J,) m/rad."""
        trajectory = Trajectory(len(target.joints) + 1)
        try:
            streamer = Streamer(bounds, 1000.0, start)
            streamer.aim(target, duration_s)
            result = streamer._otg.calculate(streamer._input, trajectory)
        except (ArmError, RuckigError) as error:
            words = str(error).strip().splitlines()[-1]
            raise Veto(f"from how the arm moves now nothing leads there within its limits ({words})") from error
        if result not in (Result.Working, Result.Finished):
            raise Veto(f"from how the arm moves now nothing leads there within its limits ({result})")
        extremes = trajectory.position_extrema
        furthest = [np.array([getattr(bound, side) for bound in extremes]) for side in ("min", "max")]
        low, high = (values[:-1] for values in furthest)
        reach = np.ones(len(low)) if reach_m is None else reach_m
        count = int(np.clip(math.ceil(2 * float((high - low) @ reach) / SAMPLE_M), LEAST_SAMPLES, MOST_SAMPLES))
        duration = float(trajectory.duration)
        samples = np.array([trajectory.at_time(duration * share)[0] for share in np.arange(count + 1) / count])
        moments = duration * np.arange(1, BRAKES + 1) / (BRAKES + 1)
        stops = np.array([row for moment in moments for row in _brake(bounds, trajectory, moment)])
        low, high = np.minimum(low, stops[:, :-1].min(axis=0)), np.maximum(high, stops[:, :-1].max(axis=0))
        closed = np.array([furthest[0][-1], furthest[1][-1], *stops[:, -1]])
        return cls(
            samples[:, :-1], samples[:, -1], low, high, duration, stops[:, :-1], stops[:, -1],
            (float(closed.min()), float(closed.max())),
        )  # fmt: skip


def _brake(bounds: MotionBounds, trajectory: Trajectory, moment_s: float) -> list[np.ndarray]:
    """Where (J + 1,) a brake begun at a moment is half-way, and where it comes to rest."""
    position, velocity, acceleration = (np.array(values) for values in trajectory.at_time(moment_s))
    moving = JointTarget(position[:-1], position[-1], velocity[:-1], velocity[-1], acceleration[:-1], acceleration[-1])
    streamer, brake = Streamer(bounds, 1000.0, moving), Trajectory(len(position))
    if not streamer.moving:
        return [position]
    try:
        streamer._otg.calculate(streamer._input, brake)
    except RuckigError:  # the joints cannot stop together: each for itself, as the streamer does then
        streamer._input.synchronization, streamer._input.per_dof_synchronization = Synchronization.No, None
        streamer._otg.calculate(streamer._input, brake)
    return [np.array(brake.at_time(share * brake.duration)[0]) for share in (0.5, 1.0)]


@dataclass
class Margins:
    """How near a movement comes to each limit, by its name; the smallest seen. Below 0 a limit is passed."""

    smallest: dict[str, float] = field(default_factory=dict)

    def note(self, name: str, value: float) -> None:
        """One more distance to a limit."""
        self.smallest[name] = min(value, self.smallest.get(name, math.inf))


def check_joints(way: Way, limits: Limits, margins: Margins) -> None:
    """No joint passes its limits on the way, or, where it starts outside, goes further out."""
    low = np.minimum(np.asarray(limits.joint_low) + limits.joint_margin_rad, way.joints[0]) - 1e-6
    high = np.maximum(np.asarray(limits.joint_high) - limits.joint_margin_rad, way.joints[0]) + 1e-6
    beyond = np.maximum(low - way.low, way.high - high)
    worst = int(beyond.argmax())
    margins.note("joint_position_rad", float(-beyond[worst]))
    if beyond[worst] > 0:
        raise Veto(
            f"on the way {limits.joint_names[worst]} would pass its limits by {beyond[worst]:.3f} rad "
            f"([{low[worst]:.3f}, {high[worst]:.3f}])"
        )
    least, most = (min(0.0, float(way.gripper[0])), max(1.0, float(way.gripper[0])))
    past = max(least - way.gripper_range[0], way.gripper_range[1] - most)
    if past > ROUNDING:
        raise Veto(f"on the way the gripper would pass its end by {past:.4f} of its range")


def check_tool(way: Way, limits: Limits, kinematics: Kinematics, margins: Margins) -> None:
    """The tool stays in its workspace."""
    start, _ = kinematics.forward(way.joints[0])
    # Where the tool stands further outside already, the way back in is no further outside: else it could creep out.
    low = np.minimum(np.asarray(limits.workspace_low) - BULGE_M, start - WORSE_M)
    high = np.maximum(np.asarray(limits.workspace_high) + BULGE_M, start + WORSE_M)
    every = max(1, (len(way.joints) - 1) // LEAST_SAMPLES)
    for joints in way.joints[1::every]:
        tool, _ = kinematics.forward(joints)
        out = float(np.maximum(low - tool, tool - high).max())
        margins.note("tool_in_workspace_m", -out)
        if out > 0:
            raise Veto(f"on the way the tool would be at {place(tool)}, out of the workspace")
    for joints in way.stops:
        tool, _ = kinematics.forward(joints)
        if float(np.maximum(low - tool, tool - high).max()) > BRAKE_M - BULGE_M:
            raise Veto(f"a brake on the way would leave the tool at {place(tool)}, out of the workspace")


def check_body(way: Way, limits: Limits, body: Body, margins: Margins) -> None:
    """The links stay in their box, off each other and off what stands around."""
    joints, gripper = np.concatenate([way.joints, way.stops]), np.concatenate([way.gripper, way.stop_gripper])
    ends = body.ends(joints, gripper)[:, body.moving]
    names = [body.names[part] for part in body.moving]
    radii = body.radii[body.moving]
    out = np.maximum(np.asarray(limits.link_low) - ends, ends - np.asarray(limits.link_high)).max(axis=(2, 3)) + radii
    worst = np.unravel_index(int(out.argmax()), out.shape)
    margins.note("links_in_box_m", float(-out[worst]))
    if out[worst] > max(0.0, float(out[0].max())) + WORSE_M:
        raise Veto(
            f"on the way {names[worst[1]]} would be {out[worst]:.3f} m out of the box "
            f"[{place(np.asarray(limits.link_low))}, {place(np.asarray(limits.link_high))}] for the links"
        )
    for plane in body.planes:
        above = ends[..., 2].min(axis=2) - radii - plane.height_m
        at = np.unravel_index(int(above.argmin()), above.shape)
        near = Near(float(above[at]), (names[at[1]], plane.name))
        _too_near(near, float(above[0].min()), limits.obstacle_clearance_m, "obstacle_m", margins)
    _check_nearness(way, limits, body, margins)


def _check_nearness(way: Way, limits: Limits, body: Body, margins: Margins) -> None:
    """Look at both ends; where they cannot vouch for what is between them, look at the middle, and so on."""
    looks: dict[int, tuple[Near, Near]] = {}
    least = (limits.self_clearance_m, limits.obstacle_clearance_m)

    def look(index: int) -> tuple[Near, Near]:
        if index not in looks:
            looks[index] = body.near(way.joints[index], float(way.gripper[index]))
            for near, limit, name, first in zip(looks[index], least, ("self_m", "obstacle_m"), looks[0], strict=True):
                _too_near(near, first.distance_m, limit, name, margins)
        return looks[index]

    first = look(0)
    for joints, closed in zip(way.stops, way.stop_gripper, strict=True):
        for near, limit, name, start in zip(
            body.near(joints, closed), least, ("self_m", "obstacle_m"), first, strict=True
        ):
            _too_near(near, start.distance_m, limit, name, margins)
    moved = np.abs(np.diff(way.joints, axis=0)) @ body.reach_m + np.abs(np.diff(way.gripper)) * body.finger_m
    travelled = np.concatenate([[0.0], np.cumsum(moved)])
    waiting = [(0, len(way.joints) - 1)]
    while waiting:
        begin, end = waiting.pop()
        between = travelled[end] - travelled[begin]
        pairs = zip(look(begin), look(end), least, strict=True)
        if end - begin > 1 and any((a.distance_m + b.distance_m - between) / 2 < limit for a, b, limit in pairs):
            middle = (begin + end) // 2
            waiting += [(begin, middle), (middle, end)]


def _too_near(near: Near, at_first: float, limit: float, name: str, margins: Margins) -> None:
    if near is NOTHING_NEAR or near.distance_m >= FAR_M:
        return
    margins.note(name, near.distance_m - limit)
    if near.distance_m < min(limit, at_first - WORSE_M):
        one, other = near.parts
        raise Veto(
            f"on the way {one} would be {1000 * near.distance_m:.1f} mm from {other} (limit {1000 * limit:g} mm)"
        )


def check_condition(way: Way, limits: Limits, body: Body, margins: Margins) -> float:
    """How much slower to go because of a singularity: 1 far from it, less near it, a veto at the limit."""
    indices = np.linspace(0, len(way.joints) - 1, CONDITIONS).round().astype(int)
    conditions = [body.condition(way.joints[index]) for index in indices]
    worst = max(conditions)
    margins.note("condition", limits.condition_stop - worst)
    if worst <= limits.condition_slow:
        return 1.0
    slowest = limits.period_s / limits.longest_step_s
    if worst >= limits.condition_stop:
        if worst <= conditions[0] and conditions[-1] < conditions[0]:
            return slowest  # the way out of a singularity is open, slowly
        raise Veto(
            f"the way leads to a singularity: the Jacobian's condition number would be {worst:.0f} "
            f"(slower from {limits.condition_slow:g}, no further than {limits.condition_stop:g})"
        )
    span = limits.condition_stop - limits.condition_slow
    return max(slowest, (limits.condition_stop - worst) / span)


def place(position: np.ndarray) -> str:
    """A point in words."""
    return "(" + ", ".join(f"{v:.3f}" for v in position) + ") m"
