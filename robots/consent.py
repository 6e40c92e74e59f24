"""A person's yes, and their hand: whether a plan may be executed, and whether the arm may move at this moment.

Approval is asked for in words and answered by a key. While the arm moves, an enabling source says whether it still may:
a button that is held (pedal, gamepad, keyboard; the kernel says when it is let go), on a terminal a press that counts
for a few seconds, nothing for simulated arms. None of this is safety-rated; a lab's own rated stop stays within reach.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from robots.evdev import Button
from robots.keys import Keys

APPROVE = ("plan", "task", "always")
PRESS_S = 3.0
ANSWER_S = 120.0


# -- may this be executed? ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """What a person said to a plan.

    Attributes:
        word: yes, no (another plan, perhaps), or quit (the run ends).
        of: whether it is about one plan or the whole task.
        by: who said so: `key`, `earlier` (the task was approved), `always`, `nobody` (no answer in time).
        sentence: for the record.
    """

    word: Literal["yes", "no", "quit"]
    by: Literal["key", "earlier", "always", "nobody"]
    sentence: str
    of: Literal["plan", "task"] = "task"

    @property
    def yes(self) -> bool:
        """Whether it may be executed."""
        return self.word == "yes"


class Approver:
    """Asks before anything is executed.

    Args:
        mode: `plan` asks for every plan, `task` for the first of a task, `always` never (simulated arms only).
        simulated: whether nothing real moves.
        keys: the terminal, entered.
        say: shows the question.
        timeout_s: no answer within it counts as a no to everything.
        stopped: whether the run was stopped meanwhile (Ctrl-C); the question then ends.

    Raises:
        ValueError: nobody could answer here, or a real arm would not be asked for.
    """

    def __init__(
        self,
        mode: str,
        *,
        simulated: bool,
        keys: Keys,
        say: Callable[[str], None],
        timeout_s: float = ANSWER_S,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        if mode not in APPROVE:
            raise ValueError(f"approve={mode}; known are {', '.join(APPROVE)}")
        if mode == "always" and not simulated:
            raise ValueError("approve=always is for simulated arms; a real arm asks: approve=task or approve=plan")
        if mode != "always" and not keys.usable:
            other = "approve=always" if simulated else "run it on a terminal"
            raise ValueError(f"approve={mode} needs a terminal on which a person can answer; {other}")
        self.mode = mode
        self._keys, self._say, self._timeout_s, self._stopped = keys, say, timeout_s, stopped
        self._tasks: set[str] = set()

    def ask(self, what: str, task: str = "") -> Answer:
        """A person's answer to `what`, a question without its question mark; waits for it, and for nothing else."""
        if self.mode == "always":
            return Answer("yes", "always", "approve=always: nobody was asked")
        if self.mode == "task" and task in self._tasks:
            return Answer("yes", "earlier", "the operator approved this task")
        question = f"{what}? y yes, n no, q quit ({self._timeout_s:g} s)"
        began = time.monotonic()
        try:
            key = self._keys.wait("ynq", self._timeout_s, self._stopped, lambda: self._say(question))
        except EOFError:
            return Answer("quit", "nobody", "the terminal is gone; nothing is executed")
        took = time.monotonic() - began
        if key is None:
            why = "it was stopped meanwhile" if self._stopped() else f"nobody answered within {self._timeout_s:g} s"
            return Answer("quit", "nobody", f"{why}; nothing is executed")
        if key == "y":
            self._tasks.add(task)
            of: Literal["plan", "task"] = "plan" if self.mode == "plan" else "task"
            return Answer("yes", "key", f"the operator said yes after {took:.1f} s", of)
        word: Literal["no", "quit"] = "no" if key == "n" else "quit"
        return Answer(word, "key", f"the operator said {word} after {took:.1f} s")


# -- may it move now? --------------------------------------------------------------------------------------------------


class Enable(Protocol):
    """Something that allows movement from moment to moment.

    Attributes:
        about: what it is and what to do, in words.
        truly_held: whether letting go is known the moment it happens.
        lost: why it can say nothing any more; empty while it can.
    """

    about: str
    truly_held: bool

    @property
    def lost(self) -> str: ...
    def allows(self, now: float) -> bool: ...
    def press(self, now: float) -> None: ...
    def close(self) -> None: ...


class Held:
    """A button that must be held."""

    truly_held = True

    def __init__(self, button: Button) -> None:
        self._button = button
        self.about = f"hold {button.name} to let the arm move; letting go brakes it"

    @property
    def lost(self) -> str:
        """Whether the device is gone."""
        return self._button.lost

    def allows(self, now: float) -> bool:
        """While it is down."""
        return self._button.held()

    def press(self, now: float) -> None:
        """A key of the terminal is no button."""

    def close(self) -> None:
        """Let go of the device."""
        self._button.close()


class TimedPress:
    """SPACE on a terminal lets the arm move for a few seconds: a terminal does not say when a key is let go."""

    truly_held = False
    lost = ""

    def __init__(self, seconds: float = PRESS_S) -> None:
        if not 0.1 <= seconds <= 10.0:
            raise ValueError(f"a press that counts for {seconds:g} s is none; give 0.1 to 10 s")
        self.seconds = seconds
        self.about = f"press SPACE to let the arm move for {seconds:g} s, again to go on; it brakes when the time is up"
        self._until = float("-inf")

    def allows(self, now: float) -> bool:
        """Until the time of the last press is up."""
        return now < self._until

    def press(self, now: float) -> None:
        """Count from now."""
        self._until = now + self.seconds

    def close(self) -> None:
        """From now on nothing is allowed."""
        self._until = float("-inf")


class Unneeded:
    """Nobody needs to hold anything: nothing real moves, or somebody decided so and says why."""

    truly_held = False
    lost = ""

    def __init__(self, about: str = "nothing real moves: no button needs to be held") -> None:
        self.about = about

    def allows(self, now: float) -> bool:
        """Always."""
        return True

    def press(self, now: float) -> None:
        """Nothing to count."""

    def close(self) -> None:
        """Nothing to let go of."""


def enable(source: str | None, *, simulated: bool, keys: Keys, button: str | None = None) -> Enable:
    """The enabling source of a run.

    Args:
        source: `none` (simulated arms), `terminal`, or a device under /dev/input; None takes `none` for simulated arms
            and `terminal` for real ones.
        simulated: whether nothing real moves.
        keys: the terminal.
        button: of a device, its name or number; None for whichever is pressed.

    Raises:
        ValueError: the source is not there, or a real arm would move without one.
    """
    chosen = source or ("none" if simulated else "terminal")
    if chosen == "none":
        if not simulated:
            raise ValueError("hold=none is for simulated arms; for a real one give hold=terminal or a device's path")
        return Unneeded()
    if chosen == "terminal":
        if not keys.usable:
            raise ValueError("hold=terminal needs a terminal; run it on one, or give hold=/dev/input/by-id/...")
        return TimedPress()
    if "/" not in chosen:
        raise ValueError(f"hold={chosen}; known are none, terminal, or the path of a device (premotor robots find)")
    return Held(Button(chosen, button))


# -- both, while a run goes on -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Standing:
    """What a person's hands say at this moment.

    Attributes:
        move: whether the arm may move; where not, it brakes and holds.
        stop: whether the run is to end.
        why: for the record and the operator, where it may not move.
    """

    move: bool
    stop: bool = False
    why: str = ""


BY_OPERATOR = "paused by the operator"
HELP = "keys: p pauses, r goes on, q stops"


class Consent:
    """Keys and enabling source of a run, polled by its loop; nothing here ever waits.

    Pausing holds until `r`. What the enabling source takes away it gives back by itself when it is held again: the
    person's hand is the latch. A stop is for good.

    Args:
        source: see `enable`.
        keys: the terminal, entered; without one there are no keys.
        clock: monotonic seconds.
    """

    def __init__(self, source: Enable, keys: Keys | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._source, self._keys, self._clock = source, keys, clock
        self._paused, self._why = False, BY_OPERATOR
        self._stopped = ""
        self._had_keys = keys is not None and keys.reading

    @property
    def about(self) -> str:
        """What a person may press, in one sentence."""
        return self._source.about + (f"; {HELP}" if self._had_keys else "")

    def poll(self) -> Standing:
        """Take what was pressed since the last call, and say where that leaves the arm."""
        now = self._clock()
        for key in self._keys.pressed() if self._keys is not None else ():
            self._take(key, now)
        if self._had_keys and self._keys is not None and not self._keys.reading:
            self._stopped = self._stopped or "the operator's terminal is gone"
        # The source is asked even when the arm may not move anyway, so that an old press never counts later.
        allowed = self._source.allows(now)
        if self._source.lost:
            self._stopped = self._stopped or f"nobody can hold it any more: {self._source.lost}"
        if self._stopped:
            return Standing(False, True, self._stopped)
        if self._paused:
            return Standing(False, False, f"{self._why}; r goes on")
        if not allowed:
            return Standing(False, False, self._source.about)
        return Standing(True)

    def pause(self, why: str) -> bool:
        """Something else than the operator paused the arm: `r` goes on; False where nobody can press it."""
        if not self._had_keys:
            return False
        self._paused, self._why = True, why
        return True

    def close(self) -> None:
        """Let go of the source."""
        self._source.close()

    def _take(self, key: str, now: float) -> None:
        if key == "q":
            self._stopped = self._stopped or "stopped by the operator (key q)"
        elif key == "p":
            self._paused, self._why = True, BY_OPERATOR
        elif key == "r":
            self._paused = False
        elif key == " ":
            if isinstance(self._source, TimedPress):
                self._source.press(now)
            else:
                self._paused, self._why = not self._paused, BY_OPERATOR
