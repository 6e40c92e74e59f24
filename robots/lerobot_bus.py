"""A driver's motor bus, taken over without a movement and read without being deceived.

LeRobot's own connect switches torque off and on and leaves whatever goal the servos had; its reads take an answer that came
too late for the answer to the next question. Both are seen to here, with the driver's own calls.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from robots.arm import ArmError
from robots.lerobot_driver import POSITION

# Answers that got damaged are asked for again so often, at once.
RETRIES = 2
# A servo bends so far away from what it holds, under its load; its goal is then no stranger's.
SLACK_RAD = 0.1
# A read of the port sleeps so long at most before the driver looks at its own clock, seconds.
LOOK_S = 0.005
# Answers that were left on their way are waited for, but not forever.
QUIET_MOST_S = 1.0
PAUSE_S = 0.1


def again(connect: Callable[[], object], undo: Callable[[], object]) -> None:
    """Connect, and once more where a servo did not answer: LeRobot asks each only once whether it is there."""
    for tries_left in range(RETRIES, -1, -1):
        try:
            connect()
        except (ConnectionError, RuntimeError):
            if not tries_left:
                raise
            with contextlib.suppress(Exception):  # it may not have come so far as to be open
                undo()
            time.sleep(PAUSE_S)
        else:
            return


def sleep_while_reading(bus: Any) -> None:
    """Let the driver's reads sleep until their bytes are there.

    The motors' SDKs open the port so that a read returns at once and ask again and again. A program at high priority that
    waits like that takes the processor from the very part of the kernel that would bring it the answer.
    """
    port = bus.port_handler
    open_port = port.setupPort

    def open_and_wait(*words: Any) -> Any:
        opened = open_port(*words)
        port.ser.timeout = LOOK_S
        return opened

    port.setupPort = open_and_wait


class ServoBus:
    """The servos of one LeRobot robot.

    Args:
        robot: the driver.
        bus: its motor bus.
        who: what to call the arm in sentences.
    """

    def __init__(self, robot: Any, bus: Any, who: str) -> None:
        self.robot, self.bus, self.who = robot, bus, who
        self._speeds: dict[str, int] = {}
        self._untidy_s = 0.0
        sleep_while_reading(bus)

    def check_file(self, kind: str, port: str | None) -> None:
        """A calibration file is there and speaks of every motor: without one the driver would ask on the terminal."""
        found = self.robot.calibration
        if not found:
            raise ArmError(
                f"{self.who} has no calibration: {self.robot.calibration_fpath} is not there; run `lerobot-calibrate "
                f"--robot.type={kind} --robot.port={port} --robot.id={self.robot.id}` once, or give calibration_dir"
            )
        absent = [name for name in self.bus.motors if name not in found]
        if absent:
            raise ArmError(f"{self.robot.calibration_fpath} says nothing of {absent[0]}; it is another arm's")

    def check_calibration(self) -> None:
        """The file says what the servos themselves remember."""
        if self.robot.is_calibrated:
            return
        for name, kept in self.bus.read_calibration().items():
            filed = self.robot.calibration[name]
            for value in ("homing_offset", "range_min", "range_max"):
                if getattr(filed, value) != getattr(kept, value):
                    raise ArmError(
                        f"{self.who}: {self.robot.calibration_fpath} says {value} {getattr(filed, value)} for {name}, "
                        f"its servo says {getattr(kept, value)}; the file is another arm's, or the arm was calibrated "
                        "since: calibrate it again"
                    )
        raise ArmError(f"{self.who} and {self.robot.calibration_fpath} disagree; calibrate it again")

    def take_over(self) -> None:
        """Every servo's goal becomes its present position, and is read back.

        A servo that holds near its goal keeps it: it sags under its load, and sent to where it sagged it sags again.
        """
        wrong: list[str] = []
        stands: dict[str, int] = {}
        goals: dict[str, int] = {}
        for _ in range(RETRIES + 1):
            stands, goals, holds = (self._raw(r) for r in ("Present_Position", "Goal_Position", "Torque_Enable"))
            wrong = [name for name in stands if not (holds[name] and self._near(name, goals, stands))]
            if wrong:
                self.bus.sync_write("Goal_Position", {name: stands[name] for name in wrong}, normalize=False)
                goals = self._raw("Goal_Position")
                wrong = [name for name in wrong if goals[name] != stands[name]]
            if not wrong:
                return
        raise ArmError(
            f"{self.who}: {wrong[0]} keeps the goal {goals[wrong[0]]} after {stands[wrong[0]]} was written; its torque "
            "stays as it was"
        )

    def connect_driver(self) -> None:
        """Let the driver connect. It switches torque off and on, and an arm held up in the air would sag.

        One that is held already, by servos set as the driver sets them, is not put through that: only its cameras are
        connected, which is all that is left of the driver's connect then.
        """
        if self._held_and_configured():
            self.connect_cameras()
            return
        self.bus.disconnect(disable_torque=False)
        again(lambda: self.robot.connect(calibrate=False), lambda: self.bus.disconnect(disable_torque=False))

    def connect_cameras(self) -> None:
        """Without the driver, which would energise the servos."""
        for camera in self.robot.cameras.values():
            camera.connect()

    def limit_speed(self, rad_s: float) -> None:
        """No servo goes faster than this, whatever goal it is given by whomever; `unlimit_speed` undoes it."""
        if not self._knows("Goal_Velocity"):
            return
        self._speeds = self._raw("Goal_Velocity")
        ticks = {name: int(rad_s / math.tau * self._resolution(name)) for name in self.bus.motors}
        self.bus.sync_write("Goal_Velocity", ticks, normalize=False)
        if self._raw("Goal_Velocity") != ticks:
            raise ArmError(f"{self.who}: a servo does not take its speed limit of {rad_s:g} rad/s")

    def unlimit_speed(self) -> None:
        """Give the servos back the speed limits they came with."""
        if self._speeds:
            self.bus.sync_write("Goal_Velocity", self._speeds, normalize=False)
            self._speeds = {}

    def describe(self) -> str:
        """Models, ids, firmware and torque, as the servos say them."""
        motors = self.bus.motors
        words = [f"servos {', '.join(str(motor.id) for motor in motors.values())}"]
        words.append("/".join(sorted({motor.model for motor in motors.values()})))
        if self._knows("Firmware_Major_Version") and self._knows("Firmware_Minor_Version"):
            major, minor = self._raw("Firmware_Major_Version"), self._raw("Firmware_Minor_Version")
            words.append("firmware " + "/".join(sorted({f"{major[name]}.{minor[name]}" for name in motors})))
        if self._knows("Torque_Enable"):
            limp = [name for name, on in self._raw("Torque_Enable").items() if not on]
            words.append(
                "all hold" if not limp else "none holds" if len(limp) == len(motors) else f"limp: {', '.join(limp)}"
            )
        return ", ".join(words)

    def read(self, register: str = "Present_Position") -> dict[str, float]:
        """A position register of every motor, in the driver's units, by `motor.pos`."""
        return {name + POSITION: value for name, value in self._ask(register, normalize=True).items()}

    def let_go(self) -> None:
        """Torque off, and looked at whether it is."""
        self._drain()
        # One after the other, and whatever a servo says to it: one that reports an overload obeys all the same.
        for name in self.bus.motors:
            for register, value in (("Torque_Enable", 0), ("Lock", 0)):
                with contextlib.suppress(RuntimeError):
                    self.bus.write(register, name, value, num_retry=RETRIES)
        still_on = [name for name, on in self._raw("Torque_Enable").items() if on]
        if still_on:
            raise ArmError(f"{self.who}: torque of {', '.join(still_on)} is still on after it was switched off")

    def _raw(self, register: str) -> dict[str, int]:
        return self._ask(register, normalize=False)

    def _ask(self, register: str, normalize: bool) -> dict[str, Any]:
        """One register of every motor. After a question that had to be repeated, answers may be left on their way."""
        self._drain()
        began = time.monotonic()
        for tries_left in range(RETRIES, -1, -1):
            try:
                found = self.bus.sync_read(register, normalize=normalize)
            except ConnectionError:
                self._untidy_s = time.monotonic() - began
                if not tries_left:
                    raise
            else:
                if self._untidy_s:
                    self._untidy_s = time.monotonic() - began
                return found
        raise AssertionError("the last try raises or returns")

    def _near(self, name: str, goals: Mapping[str, int], stands: Mapping[str, int]) -> bool:
        ticks = SLACK_RAD / math.tau * self._resolution(name)
        return abs(goals[name] - stands[name]) <= ticks

    def _held_and_configured(self) -> bool:
        """Whether every servo holds near its goal, with the gains the driver would set; known of SO arms only."""
        gains = {f"{letter.upper()}_Coefficient": f"position_{letter}_coefficient" for letter in "pid"}
        wanted = {register: getattr(self.robot.config, name, None) for register, name in gains.items()}
        if None in wanted.values() or not all(map(self._knows, wanted)):
            return False
        stands, goals, holds = (self._raw(r) for r in ("Present_Position", "Goal_Position", "Torque_Enable"))
        if not all(holds[name] and self._near(name, goals, stands) for name in stands):
            return False
        set_so = {**wanted, "Operating_Mode": 0}
        return all(value == said for register, said in set_so.items() for value in self._raw(register).values())

    def _knows(self, register: str) -> bool:
        return all(register in self.bus.model_ctrl_table[motor.model] for motor in self.bus.motors.values())

    def _resolution(self, name: str) -> int:
        return self.bus.model_resolution_table[self.bus.motors[name].model]

    def _drain(self) -> None:
        """Throw away what comes too late for an earlier question: it would be taken for the answer to the next.

        Where a question had to be repeated, the answer to the first may still be on its way; it is waited for.
        """
        port = self.bus.port_handler
        port.is_using = False  # the SDK leaves this set when a read was cut short, and then refuses to talk
        end = time.monotonic() + QUIET_MOST_S
        quiet_since = time.monotonic()
        while self._untidy_s and time.monotonic() < min(end, quiet_since + 1.5 * self._untidy_s):
            if port.ser.in_waiting:
                port.ser.reset_input_buffer()
                quiet_since = time.monotonic()
            time.sleep(0.002)
        self._untidy_s = 0.0
        port.ser.reset_input_buffer()
