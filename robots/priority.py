"""Going first: a thread that keeps an arm's time asks the system to be scheduled before others."""

from __future__ import annotations

import contextlib
import os
import threading

NICE = -10


def go_first(*, waits_busily: bool) -> str:
    """Schedule the calling thread before others, as far as the system allows; returns how, as words for a report.

    Args:
        waits_busily: whether it may wait by asking again and again, as a driver may (`lerobot_bus` has its own sleep). At
            real-time priority such a thread keeps the kernel from handing it the answer (seen on a pseudo-terminal: no
            answer within 150 ms); it is given a better nice value instead.

    Either needs root, or `rtprio` and `nice` entries in /etc/security/limits.conf. Threads and processes begun later do not
    inherit real-time priority; they do inherit the nice value.
    """
    if not waits_busily:
        with contextlib.suppress(OSError, AttributeError):
            os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
            return "real-time priority"
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        return f"a nice value of {NICE}"
    return "no priority: this user may not ask for any"
