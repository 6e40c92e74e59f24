"""The arm's side as the loop sees it, whether it lives in this process (`Station`) or in another (`RemoteStation`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from robots.arm import Arm, Reading
from robots.exits import Exit
from robots.guard import Verdict
from robots.plancheck import PlanCheck
from robots.scene import Scene
from robots.stop import Stage


@dataclass(frozen=True)
class About:
    """What others may know of an arm.

    Attributes:
        when_killed: what its hardware does when the process that drives it is killed.
    """

    name: str
    identity: str
    simulated: bool
    lockstep: bool
    joint_names: tuple[str, ...]
    rate_hz: float
    untested: str
    calibration_hash: str
    when_killed: str

    @classmethod
    def of(cls, arm: Arm) -> About:
        """Of a connected arm."""
        return cls(
            arm.name, arm.identity, arm.simulated, arm.lockstep, tuple(arm.joint_names), float(arm.rate_hz), arm.untested,
            arm.calibration_hash, arm.when_killed,
        )  # fmt: skip


@dataclass(frozen=True)
class Progress:
    """Where the arm's side stands.

    Attributes:
        stage: of the software stop.
        reason: why it is not running; empty while it is.
        whole: whether the last step came to its end, and was not broken off by a brake.
        arm_s: the arm's clock.
        by_hand: whether it is paused because a button was let go; held again, the arm goes on by itself.
    """

    stage: Stage
    reason: str
    whole: bool
    arm_s: float
    by_hand: bool = False


@dataclass(frozen=True)
class Wound:
    """What came of winding an arm down.

    Attributes:
        faults: what went wrong, one sentence each.
        stream: how well the arm's rate was kept (`CadenceReport.to_dict`); empty in lockstep.
        dropped: what the record is without because the disk was too slow: `lines`, `frames`.
    """

    faults: tuple[str, ...] = ()
    stream: Mapping[str, Any] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)


class Side(Protocol):
    """The arm's side as the loop sees it, in this process or in another."""

    @property
    def about(self) -> About: ...
    @property
    def scene(self) -> Scene | None:
        """What only a simulation can say; None for a real arm."""
        ...

    @property
    def held_by(self) -> str:
        """The button that lets it move, in a sentence, where the arm's side watches one; empty otherwise."""
        ...

    @property
    def progress(self) -> Progress:
        """Where we stand."""
        ...

    def observe(self) -> Reading: ...
    def begin(self, header: Mapping[str, Any]) -> None:
        """Open the record and hold the arm where it is."""
        ...

    def check(self, actions: np.ndarray, uncertainty: float | None) -> PlanCheck:
        """Look at a whole plan (H, 7) from where the arm is; nothing is sent."""
        ...

    def permit(self, by: str, action: np.ndarray | None = None, lifetime_s: float | None = None) -> None:
        """A person's permission: for one action (7,), or for whatever leads to the goal of this run."""
        ...

    def submit(self, step: int, asked: Mapping[str, Any]) -> Verdict:
        """Have a request reviewed; what is let through begins at once."""
        ...

    def finish(self, interrupted: Callable[[], bool]) -> Progress:
        """Wait until the step is over; when `interrupted` says so, brake."""
        ...

    def pause(self, why: str) -> str:
        """Brake and wait; what is asked for meanwhile is vetoed. What a monitor paused the arm for before; empty else."""
        ...

    def resume(self) -> None:
        """Go on after a pause."""
        ...

    def end(self, code: Exit, reason: str, loop: Mapping[str, Any], say: Callable[[str], None]) -> Wound:
        """Hold, park, release, close the record."""
        ...
