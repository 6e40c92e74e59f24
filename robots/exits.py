"""How a command that concerns an arm ended, as its process says it."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """The exit codes of `premotor run` and `premotor robots`."""

    DONE = 0
    REFUSED = 3
    VETOED = 4
    STOPPED = 5
    FAULT = 6
