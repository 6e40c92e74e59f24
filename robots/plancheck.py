"""A whole plan before anybody approves it: every step through the guard's own review, every tick through its bounds.

There is no second truth here: what a step may do is the guard's verdict on it, each from where the one before comes to rest;
what the ticks do is measured on the very ticks that would be streamed. Pure: nothing is sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from robots.arm import JointTarget
from robots.guard import Guard, State, request
from robots.kinematics import rpy_of
from robots.schema import Veto, vector
from robots.stream import path
from robots.way import Margins

LONGEST_PLAN = 64
# Of doubles: what differences of positions at a few hundred hertz may be over a bound by.
ROUNDING = 1e-3
# As much as a held arm's servos and gears sag; a permit allows the same.
START_RAD = 0.05


@dataclass(frozen=True)
class PlanCheck:
    """What became of a plan.

    Attributes:
        ok: whether it may be put before a person.
        sentences: what is wrong with it, or what was clamped; with numbers, step by step.
        margins: the smallest distance to each limit, by name; below 0 a limit is passed.
        joints: (N, J) rad, the ticks as they would be streamed, the start first; as far as the plan is sound.
        gripper: (N,) closedness.
        targets: (H, J) rad, where each step comes to rest.
        duration_s: how long it takes.
    """

    ok: bool
    sentences: tuple[str, ...]
    margins: dict[str, float]
    joints: np.ndarray
    gripper: np.ndarray
    targets: np.ndarray
    duration_s: float


def check_plan(
    guard: Guard,
    state: State,
    actions: Any,
    now: float,
    *,
    rate_hz: float,
    observed_s: float,
    uncertainty: float | None = None,
    planned_from: np.ndarray | None = None,
) -> PlanCheck:
    """Look at a plan; never raises.

    Args:
        guard: limits, kinematics and body.
        state: where the arm is and was sent.
        actions: (H, 7) physical end-effector actions.
        now: the arm's clock.
        rate_hz: ticks a second.
        observed_s: when the observation was made that it was planned from.
        uncertainty: the model's word on it.
        planned_from: (J,) rad, where the arm was when it was planned; None where nobody knows.
    """
    margins, sentences = Margins(), []
    count = len(guard.limits.joint_names)
    ticks: list[JointTarget] = [state.commanded]
    targets: list[np.ndarray] = []
    duration, ok = 0.0, True
    try:
        plan = _plan(actions)
        _check_start(guard, state, planned_from, margins)
        here = state
        for index, action in enumerate(plan):
            asked = request(action, observed_s, uncertainty, "plan")
            verdict = guard.review(here, asked, now)
            for name, value in verdict.margins.items():
                margins.note(name, value)
            if verdict.outcome != "passed":
                sentences.append(f"step {index} {verdict.outcome}: {verdict.sentence}")
            if verdict.target is None:
                ok = False
                break
            ticks += path(here.commanded, verdict.target, verdict.duration_s, rate_hz, guard.limits.bounds)
            targets.append(verdict.target.joints)
            duration += verdict.duration_s
            here = _at_rest(guard, verdict.target, verdict.aim)
        _check_ticks(guard, ticks, rate_hz, margins)
    except Veto as veto:
        ok = False
        sentences.append(str(veto))
    except Exception as error:  # fail closed
        ok = False
        sentences.append(f"the plan could not be judged ({type(error).__name__}: {error})")
    joints = np.array([tick.joints for tick in ticks]) if len(ticks) > 1 else np.zeros((0, count))
    gripper = np.array([tick.gripper for tick in ticks[: len(joints)]])
    return PlanCheck(
        ok, tuple(sentences), margins.smallest, joints, gripper, np.array(targets).reshape(-1, count), duration
    )


def _plan(actions: Any) -> np.ndarray:
    try:
        steps = [vector(f"step {index} of the plan", action, 7) for index, action in enumerate(actions)]
    except TypeError as error:
        raise Veto(f"a plan is a list of actions (H, 7); got {type(actions).__name__}") from error
    if not 1 <= len(steps) <= LONGEST_PLAN:
        raise Veto(f"a plan has 1 to {LONGEST_PLAN} steps; this one has {len(steps)}")
    return np.array(steps)


def _check_start(guard: Guard, state: State, planned_from: np.ndarray | None, margins: Margins) -> None:
    """The plan begins where the arm is: as it was sent, and as it was when the plan was made."""
    names = guard.limits.joint_names
    measured = vector("measured joints", state.joints, len(names))
    for origin, words, most in (
        (state.commanded.joints, "where it was sent", guard.limits.tracking_error_rad),
        (planned_from, "where the plan begins", START_RAD),
    ):
        if origin is None:
            continue
        apart = np.abs(vector(words, origin, len(names)) - measured)
        worst = int(apart.argmax())
        margins.note("start_rad", most - float(apart[worst]))
        if apart[worst] > most:
            raise Veto(
                f"{names[worst]} is {apart[worst]:.3f} rad from {words} (limit {most:g}); plan again from where the arm is"
            )


def _at_rest(guard: Guard, target: JointTarget, aim: np.ndarray | None) -> State:
    """The arm after a step, as it is expected to be measured."""
    position, rotation = guard.kinematics.forward(target.joints)
    pose = np.concatenate([position, rpy_of(rotation), [target.gripper]])
    return State(pose, target.joints, JointTarget.still(target.joints, target.gripper), aim)


def _check_ticks(guard: Guard, ticks: list[JointTarget], rate_hz: float, margins: Margins) -> None:
    """Speed, acceleration and jerk of the ticks, by their differences; shares of the bounds that are left."""
    sent = np.array([[*tick.joints, tick.gripper] for tick in ticks])
    if len(sent) < 4:
        return
    # From rest: as if the first tick had been sent before, too. An arm in motion says how fast it is.
    rates = [np.diff(sent, axis=0) * rate_hz]
    rates += [np.diff(rates[0], axis=0) * rate_hz, np.diff(rates[0], n=2, axis=0) * rate_hz**2]
    for name, values, most in zip(
        ("velocity", "acceleration", "jerk"), rates, guard.limits.bounds.stacked(), strict=True
    ):
        share = np.abs(values).max(axis=0) / most
        margins.note(f"{name}_share", 1.0 - float(share.max()))
        if share.max() > 1.0 + ROUNDING:
            worst = int(share.argmax())
            which = (*guard.limits.joint_names, "the gripper")[worst]
            raise Veto(f"{which} would reach {share[worst]:.3f} of its highest {name}")
