"""Permits: a person's word that one plan, for one arm under one set of limits, may be carried out, once and soon.

A permit is bound to everything that was looked at when it was given. Whatever changes afterwards (the plan, the limits,
the calibration, the arm, its posture) makes it void, and so do time and use. The seal is made with a key that only
`Permits` has, so a permit cannot be made or altered by who carries it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

# How far any joint may be from where it was when the permit was given: more than a held arm's servos and gears sag.
MOVED_RAD = 0.05
LIFETIME_S, TASK_LIFETIME_S = 30.0, 600.0
LEAST_KEY_BYTES = 16


def plan_hash(actions: np.ndarray, period_s: float) -> str:
    """The hash of a plan: its actions (H, 7) to the last bit, and its pace."""
    plan = np.ascontiguousarray(actions, dtype="<f8")
    header = struct.pack(f"<{plan.ndim + 1}Id", plan.ndim, *plan.shape, period_s)
    return hashlib.sha256(header + plan.tobytes()).hexdigest()


@dataclass(frozen=True)
class Bond:
    """What a permit is bound to.

    Attributes:
        plan: `plan_hash`; empty in a permit for a task, whose plans are not known yet.
        goal: hash of what the plan is for.
        limits: `Limits.hash`.
        calibration: `Arm.calibration_hash`.
        arm: `Arm.identity`.
    """

    plan: str
    goal: str
    limits: str
    calibration: str
    arm: str


@dataclass(frozen=True)
class Permit:
    """A sealed permission.

    Attributes:
        kind: for one `plan`, carried out once, or for the plans of one `task`.
        number: counts the permits of a run; one number is used once.
        bond: what it is bound to.
        joints: (J,) rad, where the arm was.
        issued_s, expires_s: on the arm's clock.
        by: who gave it.
        seal: hex digits over all of this.
    """

    kind: Literal["plan", "task"]
    number: int
    bond: Bond
    joints: tuple[float, ...]
    issued_s: float
    expires_s: float
    by: str
    seal: str

    def to_dict(self) -> dict[str, Any]:
        """For a record or the way to another process."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Permit:
        """The inverse of `to_dict`; refuses what has other keys. The seal says whether the contents are genuine."""
        names = {field.name for field in dataclasses.fields(cls)}
        bonds = {field.name for field in dataclasses.fields(Bond)}
        bond = values.get("bond") if isinstance(values, Mapping) else None
        if (
            not isinstance(values, Mapping)
            or set(values) != names
            or not isinstance(bond, Mapping)
            or set(bond) != bonds
        ):
            raise ValueError(f"a permit has {', '.join(sorted(names))}, and a bond of {', '.join(sorted(bonds))}")
        try:
            joints = tuple(float(angle) for angle in values["joints"])
            return cls(**{**values, "bond": Bond(**bond), "joints": joints})
        except (TypeError, ValueError) as error:
            raise ValueError("a permit's joints are a list of numbers") from error


@dataclass(frozen=True)
class Redeemed:
    """Whether a permit was honoured, and why not."""

    granted: bool
    sentence: str


class Permits:
    """Gives permits and honours each at most as it says; lives with the arm, not with the planner.

    Args:
        key: random bytes nobody else has; a run has its own (`secrets.token_bytes(32)`).
        moved_rad: how far the arm may have moved since.
    """

    def __init__(self, key: bytes, moved_rad: float = MOVED_RAD) -> None:
        if len(key) < LEAST_KEY_BYTES:
            raise ValueError(f"a key of {len(key)} bytes can be guessed; give {LEAST_KEY_BYTES} or more")
        self._key = bytes(key)
        self._moved_rad = moved_rad
        self._given = 0
        self._spent: dict[int, str] = {}
        self._void_below = 0
        self._void_because = ""

    def approve(
        self,
        kind: Literal["plan", "task"],
        bond: Bond,
        joints: np.ndarray,
        now: float,
        by: str,
        lifetime_s: float | None = None,
    ) -> Permit:
        """A permit, given by a person.

        Args:
            kind: for one `plan`, or for the plans of one `task` (whose bond names no plan).
            bond: what was looked at.
            joints: (J,) rad, measured.
            now: the arm's clock.
            by: who approves.
            lifetime_s: how long it holds; half a minute for a plan, ten for a task.
        """
        lifetime = (LIFETIME_S if kind == "plan" else TASK_LIFETIME_S) if lifetime_s is None else lifetime_s
        if kind not in ("plan", "task"):
            raise ValueError(f"a permit is for a plan or a task, not for {kind!r}")
        if (kind == "plan") != bool(bond.plan):
            raise ValueError("a permit for a plan names its hash; one for a task names only the goal's")
        if not bond.goal or not bond.limits or not bond.arm:
            raise ValueError("a permit names the goal, the limits and the arm it is for; one of them is empty")
        if not by.strip():
            raise ValueError("a permit says who gave it")
        angles = np.asarray(joints, dtype=np.float64)
        if not (math.isfinite(now) and math.isfinite(lifetime) and lifetime > 0 and np.isfinite(angles).all()):
            raise ValueError("a permit's times and joints are finite, and it holds for longer than no time")
        self._given += 1
        blank = Permit(kind, self._given, bond, tuple(angles.tolist()), float(now), float(now + lifetime), by, "")
        return dataclasses.replace(blank, seal=self._seal(blank))

    def redeem(self, permit: Any, bond: Bond, joints: np.ndarray, now: float) -> Redeemed:
        """Whether a plan may be carried out now; a plan's permit is spent by asking successfully. Never raises.

        Args:
            permit: what the planner's side presents.
            bond: what is really about to happen: this plan, goal, limits, calibration, arm.
            joints: (J,) rad, measured now.
            now: the arm's clock.
        """
        try:
            refusal = self._refusal(permit, bond, np.asarray(joints, dtype=np.float64), float(now))
        except Exception as error:  # fail closed: what cannot be understood permits nothing
            refusal = f"the permit could not be understood ({type(error).__name__}: {error})"
        if refusal:
            return Redeemed(False, f"not permitted: {refusal}")
        if permit.kind == "plan":
            self._spent[permit.number] = "has been used; a permit is for one execution"
        return Redeemed(True, f"permit {permit.number} by {permit.by} for this {permit.kind}")

    def revoke(self, permit: Permit, because: str = "by the operator") -> None:
        """This permit permits nothing any more."""
        self._spent[permit.number] = f"was revoked {because}"

    def revoke_all(self, because: str) -> None:
        """No permit given so far permits anything any more: the run was stopped, or something changed."""
        self._void_below, self._void_because = self._given, because

    def _refusal(self, permit: Any, bond: Bond, joints: np.ndarray, now: float) -> str:
        if permit is None:
            return "there is no permit for this plan; a person approves it first"
        if type(permit) is not Permit:
            return f"a permit is needed, this is {type(permit).__name__}"
        if not isinstance(permit.seal, str) or not hmac.compare_digest(
            permit.seal.encode(), self._seal(permit).encode()
        ):
            return "its seal is not ours; it was altered, or given for another run"
        if permit.number <= self._void_below:
            return f"permit {permit.number} is void since {self._void_because}"
        if permit.number in self._spent:
            return f"permit {permit.number} {self._spent[permit.number]}"
        if not math.isfinite(now) or now < permit.issued_s:
            return f"it was given at {permit.issued_s:.3f} s and now is {now:.3f} s; two clocks are mixed up"
        if now > permit.expires_s:
            return (
                f"permit {permit.number} expired {now - permit.expires_s:.1f} s ago "
                f"(it held {permit.expires_s - permit.issued_s:g} s); approve again"
            )
        for name, words in (
            ("limits", "the limits have"), ("calibration", "the calibration has"), ("arm", "the arm has"),
            ("goal", "the goal has"), ("plan", "the plan has"),
        ):  # fmt: skip
            if name == "plan" and permit.kind == "task":
                continue
            if getattr(permit.bond, name) != getattr(bond, name):
                return f"{words} changed since permit {permit.number} was given; approve again"
        if joints.shape != (len(permit.joints),) or not np.isfinite(joints).all():
            return f"the arm's {len(permit.joints)} measured joints are needed, finite"
        if permit.kind == "plan" and len(joints):
            moved = np.abs(joints - permit.joints)
            worst = int(moved.argmax())
            if moved[worst] > self._moved_rad:
                return (
                    f"joint {worst + 1} has moved {moved[worst]:.3f} rad since permit {permit.number} was given "
                    f"(limit {self._moved_rad:g}); approve again"
                )
        return ""

    def _seal(self, permit: Permit) -> str:
        body = dataclasses.asdict(dataclasses.replace(permit, seal=""))
        return hmac.new(self._key, json.dumps(body, sort_keys=True).encode(), hashlib.sha256).hexdigest()
