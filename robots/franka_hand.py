"""The Franka Hand follows a closedness: it moves while it is free to, and what stops it from closing it grasps.

The hand's own commands block until they are done, so they are given from a thread of its own, which also reads it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

from robots.arm import ArmError

# Smaller wishes than this are not worth a command, which takes tens of milliseconds.
DEADBAND = 0.03
# A stream is aimed this far ahead, so that one command covers many of its ticks.
AHEAD_S = 0.2
# Closing that ends this much wider (closedness) than wished was stopped by something: hold it.
STOPPED = 0.05
POLL_S = 0.02


class Hand:
    """One Franka Hand, read and moved from a thread of its own.

    Args:
        gripper: a connected `franky.Gripper`.
        speed_m_s: of the opening width; both fingers together.
        force_n: with which something is held.

    Attributes:
        temperature_c: the hand's own.
        fault: what went wrong last, a sentence; empty while all is well.
    """

    def __init__(self, gripper: Any, speed_m_s: float, force_n: float) -> None:
        self._gripper, self._speed, self._force = gripper, speed_m_s, force_n
        self._lock = threading.Lock()
        self._wish: float | None = None
        self._sent: float | None = None
        self._grasping = False
        self._ended = threading.Event()
        self.fault, self.temperature_c = "", 0.0
        self.closedness = 0.0
        self._read()
        self._thread = threading.Thread(target=self._follow, name="franka hand", daemon=True)
        self._thread.start()

    def want(self, closedness: float, speed: float = 0.0) -> None:
        """Where the fingers shall be, 0 open to 1 closed, and how fast they pass it (1/s); returns at once."""
        with self._lock:
            self._wish = min(max(closedness + AHEAD_S * speed, 0.0), 1.0)

    def rest(self) -> None:
        """Ask nothing more of it; what it holds it keeps holding."""
        with self._lock:
            self._wish = None

    def close(self) -> None:
        """End the thread; what the hand holds it keeps holding."""
        self._ended.set()
        self._thread.join(timeout=2.0)

    def _follow(self) -> None:
        pending: Any = None
        while not self._ended.wait(POLL_S):
            try:
                self._read()
                if pending is not None:
                    if not pending.wait(0.0):
                        continue
                    pending = self._after(pending)
                    continue
                with self._lock:
                    wish = self._wish
                if wish is not None and (
                    self._sent is None or abs(wish - self._sent) > DEADBAND or self._ended_short(wish)
                ):
                    pending = self._give(wish)
                self.fault = ""
            except Exception as error:  # the thread must live to say so
                pending = None
                self.fault = f"the hand does not answer: {(str(error) or type(error).__name__).splitlines()[0]}"
                time.sleep(0.2)

    def _give(self, wish: float) -> Any:
        here, self._sent, self._grasping = self.closedness, wish, False
        if abs(wish - here) <= DEADBAND / 2:
            return None
        return self._gripper.move_async(self._width(wish), self._speed)

    def _after(self, done: Any) -> Any:
        """A command has ended: hold what stopped the fingers from closing."""
        with contextlib.suppress(Exception):  # a move that something stopped ends in an error; the width tells
            done.get()
        self._read()
        if not self._grasping and self._sent is not None and self._sent - self.closedness > STOPPED:
            self._grasping = True
            width = self._width(self.closedness)
            return self._gripper.grasp_async(width, self._speed, self._force, self._most, self._most)
        return None

    def _ended_short(self, wish: float) -> bool:
        """Whether the fingers are off although nothing was left to be said: someone moved them."""
        return not self._grasping and abs(wish - self.closedness) > STOPPED

    def _read(self) -> None:
        state = self._gripper.state
        self._most = float(state.max_width)
        if self._most < 0.01:
            raise ArmError("the Franka Hand does not know its width; home it in Desk, with nothing between the fingers")
        self.closedness = min(max(1.0 - float(state.width) / self._most, 0.0), 1.0)
        self.temperature_c = float(state.temperature)

    def _width(self, closedness: float) -> float:
        return (1.0 - closedness) * self._most
