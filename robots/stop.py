"""The software stop: running, paused, held, parked, released, in that order only; it never arms itself again.

A pause is the one rung with a way back, and only the operator has the key to it. All others are latched: who wants to go
on after them starts a new run. This is no emergency stop and nothing here is safety-rated: a lab provides a rated stop
that works without us.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

from robots.arm import Arm


class Stage(IntEnum):
    """How far down the ladder we are."""

    RUNNING = 0
    PAUSED = 1
    HELD = 2
    PARKED = 3
    RELEASED = 4


class Key:
    """Whoever has this may end a pause. A latch gives it out once, to the operator."""


@dataclass
class SoftwareStop:
    """A latch. It only goes further down, but for the operator's return from a pause; a new run needs a new latch.

    Attributes:
        stage: where we are.
        reason: why we are not running: the first reason given since we were; later ones do not replace it, but that of a
            pause gives way to what stopped us for good.
        history: every rung taken, with its reason.
    """

    stage: Stage = Stage.RUNNING
    reason: str = ""
    history: list[tuple[Stage, str]] = field(default_factory=list)
    _key: Key | None = field(default=None, repr=False)

    @property
    def running(self) -> bool:
        """Whether targets may still be sent."""
        return self.stage is Stage.RUNNING

    def advance(self, stage: Stage, reason: str) -> bool:
        """Go down to a stage; False, and nothing changes, when we are there or further already."""
        if stage <= self.stage:
            return False
        paused, self.stage = self.stage is Stage.PAUSED, Stage(stage)
        self.reason = reason if paused else self.reason or reason
        self.history.append((self.stage, reason))
        return True

    def key(self) -> Key:
        """The operator's key; given out once.

        Raises:
            PermissionError: somebody has it already.
        """
        if self._key is not None:
            raise PermissionError("the key to end a pause was given out already; one operator has it")
        self._key = Key()
        return self._key

    def resume(self, key: object, reason: str) -> bool:
        """End a pause; False, and nothing changes, without the operator's key or from any other rung."""
        if self.stage is not Stage.PAUSED or self._key is None or key is not self._key:
            return False
        self.stage, self.reason = Stage.RUNNING, ""
        self.history.append((Stage.RUNNING, reason))
        return True


def wind_down(
    arm: Arm,
    stop: SoftwareStop,
    reason: str,
    *,
    moves: bool,
    say: Callable[[str], None],
    park: Callable[[], object] | None = None,
) -> list[str]:
    """Hold, park, release an arm at rest, whatever the state of things; returns what went wrong, one sentence each.

    A rung that fails does not keep the arm from the next. An arm that could not be parked is held once more and not
    released: letting go of it could drop it.

    Args:
        arm: a connected arm.
        stop: the latch, moved along.
        reason: why.
        moves: whether the arm may be moved; a dry run passes False and sends nothing.
        say: told one line a rung.
        park: brings the arm to its park pose; the arm's own way where nothing is said.
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
        if not attempt("park", park or arm.park):
            attempt("hold", arm.hold)
            say(f"{arm.name} is left held and not released: letting go of an arm that is not parked could drop it")
            return faults
        stop.advance(Stage.PARKED, reason)
    if stop.stage < Stage.RELEASED and attempt("release", arm.release):
        stop.advance(Stage.RELEASED, reason)
    return faults
