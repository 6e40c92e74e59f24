"""Whether a request is one at all: its keys, types, shapes, numbers, units and times, before anything is judged.

Nothing here repairs: what is not a finite number of the right size in metres, radians and seconds is refused whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from robots.limits import Limits

if TYPE_CHECKING:
    from robots.guard import State

REQUEST_KEYS = ("action", "observed_s", "uncertainty", "plan")
AXES = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "dgripper")
UNITS = ("m", "m", "m", "rad", "rad", "rad", "")
# What a number this many times over its bound is likely to be.
OTHER_UNITS = ("millimetres",) * 3 + ("degrees",) * 3 + ("percent",)
WRONG_UNIT = 10.0
# A joint this far outside its limits is not there: its reading is in another unit, or of another arm.
IMPOSSIBLE_RAD = 0.5
# A tool pose further than this from where the joints put it belongs to another arm, calibration or unit.
DISAGREE_M = 0.05
# Clocks are read one after the other; a stamp may be this much ahead.
CLOCK_SLACK_S = 0.001


class Veto(Exception):
    """A check failed; the message is the verdict's sentence."""


def check_request(asked: Any, limits: Limits, now: Any) -> tuple[np.ndarray, float, float | None]:
    """A request's action (7,), time of observation and doubt, each what it claims to be."""
    if not isinstance(asked, Mapping):
        raise Veto(f"a request is a mapping with {', '.join(REQUEST_KEYS)}; got {type(asked).__name__}")
    missing = [key for key in REQUEST_KEYS if key not in asked]
    unknown = [str(key) for key in asked if key not in REQUEST_KEYS]
    if missing or unknown:
        raise Veto(f"the request {'lacks ' + missing[0] if missing else 'has an unknown key ' + unknown[0]}")
    action = vector("action", asked["action"], 7)
    most = np.maximum(np.abs(limits.action_low), np.abs(limits.action_high))
    with np.errstate(over="ignore"):
        wild = np.flatnonzero(np.abs(action) > WRONG_UNIT * np.maximum(most, 1e-3))
    if len(wild):
        axis = int(wild[0])
        raise Veto(
            f"{AXES[axis]} is {action[axis]:+.4g} {UNITS[axis]}".rstrip()
            + f", over {WRONG_UNIT:g} times its bound {most[axis]:g}; is it in {OTHER_UNITS[axis]}?"
        )
    observed, now = number("observed_s", asked["observed_s"]), number("time", now)
    if observed > now + CLOCK_SLACK_S:
        raise Veto(f"the observation is stamped {observed - now:.3f} s in the future; two clocks are mixed up")
    doubt = None if asked["uncertainty"] is None else number("uncertainty", asked["uncertainty"])
    if doubt is not None and doubt < 0:
        raise Veto(f"uncertainty is {doubt:.3g}; a share of the calibrated error is never below 0")
    if not isinstance(asked["plan"], str):
        raise Veto(f"plan is {type(asked['plan']).__name__}; it is the plan's hash, in words")
    return action, observed, doubt


def check_state(state: State, limits: Limits) -> None:
    """The arm's state is finite, of this arm, and in radians and metres."""
    joints = len(limits.joint_names)
    vector("measured pose", state.pose, 7)
    if state.aim is not None:
        vector("aim", state.aim, 6)
    number("commanded closedness", state.commanded.gripper)
    number("commanded gripper speed", state.commanded.gripper_velocity)
    vector("commanded velocity", state.commanded.velocity, joints)
    for name, values in (("measured", state.joints), ("commanded", state.commanded.joints)):
        angles = vector(f"{name} joints", values, joints)
        beyond = np.maximum(np.asarray(limits.joint_low) - angles, angles - np.asarray(limits.joint_high))
        worst = int(beyond.argmax())
        if beyond[worst] > IMPOSSIBLE_RAD:
            raise Veto(
                f"{limits.joint_names[worst]} is {name} at {angles[worst]:.4g} rad, outside "
                f"[{limits.joint_low[worst]:g}, {limits.joint_high[worst]:g}] by {beyond[worst]:.3g}; is it in degrees, "
                "or of another arm?"
            )


def check_agreement(state: State, tool: np.ndarray) -> None:
    """The measured pose is where the measured joints put the tool (3,)."""
    apart = float(np.linalg.norm(np.asarray(state.pose, dtype=np.float64)[:3] - tool))
    if apart > DISAGREE_M:
        raise Veto(
            f"the measured pose is {apart:.3g} m from where the measured joints put the tool (limit {DISAGREE_M:g} m); "
            "is it in millimetres, or of another arm?"
        )


def vector(name: str, value: Any, size: int) -> np.ndarray:
    """A finite float64 vector of a size; words, truth values and the like are no numbers."""
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "iuf":
            raise TypeError
        array = array.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise Veto(f"{name} is not a vector of numbers") from error
    if array.shape != (size,):
        raise Veto(f"{name} has shape {array.shape}; it needs ({size},)")
    if not np.isfinite(array).all():
        bad = int(np.argmin(np.isfinite(array)))
        raise Veto(f"{name}[{bad}] is {array[bad]}; nothing is done with numbers that are not finite")
    return array


def number(name: str, value: Any) -> float:
    """A finite number."""
    try:
        if isinstance(value, (bool, str, bytes)) or np.ndim(value) != 0:
            raise TypeError
        found = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise Veto(f"{name} is not a number") from error
    if not math.isfinite(found):
        raise Veto(f"{name} is {found}; it must be finite")
    return found
