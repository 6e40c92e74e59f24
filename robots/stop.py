"""The software stop: running, held, parked, released, in that order only, and never back by itself.

This is no emergency stop and nothing here is safety-rated: a lab provides a rated stop that works without us.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

from robots.arm import Arm


class Stage(IntEnum):
    """How far down the ladder we are."""

    RUNNING = 0
    HELD = 1
    PARKED = 2
    RELEASED = 3


@dataclass
class SoftwareStop:
    """A latch. Once set it only goes further down; a new run needs a new latch, made by a person's command.

    Attributes:
        stage: where we are.
        reason: the first reason given; later ones do not replace it.
        history: every rung taken, with its reason.
    """

    stage: Stage = Stage.RUNNING
    reason: str = ""
    history: list[tuple[Stage, str]] = field(default_factory=list)

    @property
    def running(self) -> bool:
        """Whether targets may still be sent."""
        return self.stage is Stage.RUNNING

    def advance(self, stage: Stage, reason: str) -> bool:
        """Go down to a stage; False, and nothing changes, when we are there or further already."""
        if stage <= self.stage:
            return False
        self.stage = stage
        self.reason = self.reason or reason
        self.history.append((stage, reason))
        return True


def wind_down(arm: Arm, stop: SoftwareStop, reason: str, *, moves: bool, say: Callable[[str], None]) -> list[str]:
    """Hold, park, release, whatever the state of things; returns what went wrong, one sentence each.

    Holding that fails does not keep the arm from being parked. An arm that could not be parked is held once more and
    not released: letting go of it could drop it.

    Args:
        arm: a connected arm.
        stop: the latch, moved along.
        reason: why.
        moves: whether the arm may be moved; a dry run passes False and sends nothing.
        say: told one line a rung.
    """
    faults: list[str] = []

    def attempt(what: str, act: Callable[[], object]) -> bool:
        if not moves:
            say(f"dry run, nothing sent: would {what} the arm")
            return True
        try:
            act()
        except Exception as error:  # the next rung is tried whatever failed
            faults.append(f"could not {what} {arm.name}: {error}")
            say(faults[-1])
            return False
        say(f"{what}: done")
        return True

    # The latch is set before the device is asked, so that nothing more is sent even if the device fails.
    stop.advance(Stage.HELD, reason)
    attempt("hold", arm.hold)
    if stop.stage < Stage.PARKED:
        if not attempt("park", arm.park):
            attempt("hold", arm.hold)
            say(f"{arm.name} is left held and not released: letting go of an arm that is not parked could drop it")
            return faults
        stop.advance(Stage.PARKED, reason)
    if stop.stage < Stage.RELEASED and attempt("release", arm.release):
        stop.advance(Stage.RELEASED, reason)
    return faults
