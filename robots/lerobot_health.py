"""What the servos of a LeRobot motor bus say of themselves: temperature, load, voltage, and the errors a group read hides.

LeRobot reads positions of all servos at once and ignores the error byte in their answers. Only a read of one servo shows
it, so one servo is asked at a time, in turn.
"""

from __future__ import annotations

from typing import Any

from robots.arm import Health

# Bits of a Feetech servo's status byte.
FEETECH_ERRORS = {
    1: "its supply voltage is out of range", 2: "its angle sensor fails", 4: "it is too hot", 8: "it draws too much current",
    32: "it is overloaded",
}  # fmt: skip
# Registers by the first name a bus knows, with what one of its units is.
TEMPERATURE = (("Present_Temperature", 1.0),)
VOLTAGE = (("Present_Voltage", 0.1), ("Present_Input_Voltage", 0.1))
LOAD = (("Present_Load", 0.001),)
# A value that leaps so far from the last one is asked for again: a damaged answer can leave another one's bytes behind.
LEAPS = {TEMPERATURE: 10.0, VOLTAGE: 2.0, LOAD: 0.3}
ASKED_AGAIN = 3


class Sweep:
    """Asks one servo of a bus at each call."""

    def __init__(self, bus: Any) -> None:
        self._bus = bus
        self._motors = list(bus.motors)
        self._turn = 0
        self._faults: dict[str, str] = {}
        self._temperature: dict[str, float] = {}
        self._load: dict[str, float] = {}
        self._voltage: dict[str, float] = {}
        for _ in self._motors:
            self.next()

    def next(self) -> Health:
        """Ask the next servo; returns what is known of all of them."""
        name = self._motors[self._turn]
        self._turn = (self._turn + 1) % len(self._motors)
        errors = 0
        for registers, known in (
            (TEMPERATURE, self._temperature), (LOAD, self._load), (VOLTAGE, self._voltage),
        ):  # fmt: skip
            found = self._believed(name, registers, known.get(name))
            if found is not None:
                known[name], error = found
                errors |= error
        self._faults.pop(name, None)
        if errors:
            said = [words for bit, words in FEETECH_ERRORS.items() if errors & bit]
            self._faults[name] = f"{name} reports that {' and '.join(said) or f'of error {errors}'}"
        lowest = min(self._voltage.values(), default=None)
        return Health(tuple(self._faults.values()), dict(self._temperature), dict(self._load), lowest)

    def _believed(
        self, name: str, registers: tuple[tuple[str, float], ...], last: float | None
    ) -> tuple[float, int] | None:
        """A value near the last one, or the same far one twice."""
        found = self._read(name, registers)
        for _ in range(ASKED_AGAIN):
            if found is None or (last is not None and abs(found[0] - last) <= LEAPS[registers]):
                break
            last = found[0]
            self._bus.port_handler.clearPort()
            found = self._read(name, registers)
        return found

    def _read(self, name: str, registers: tuple[tuple[str, float], ...]) -> tuple[float, int] | None:
        """The first register the servo has, in its unit, and the error byte that came with it."""
        bus, motor = self._bus, self._bus.motors[name]
        table = bus.model_ctrl_table[motor.model]
        for register, unit in registers:
            if register in table:
                address, length = table[register]
                # The public `read` raises on an error byte and loses value and byte; this gives both.
                value, reached, error = bus._read(address, length, motor.id, num_retry=2, raise_on_error=False)
                if not bus._is_comm_success(reached):
                    raise ConnectionError(f"{name} (servo {motor.id}) does not answer; are its cable and power in?")
                return abs(bus._decode_sign(register, {motor.id: value})[motor.id]) * unit, error
        return None


def silent_motor(bus: Any, words: str) -> str:
    """Which servo did not answer the last group read, as a sentence; empty where the error was another."""
    if "status packet" not in words:
        return ""
    answered = getattr(bus.sync_reader, "data_dict", {})
    for ident, data in answered.items():
        if not data:
            first = ident == next(iter(answered))
            name = bus._id_to_name(ident)
            if first:
                return f"{name} (servo {ident}), the first on the bus, does not answer; are cable and power in?"
            return f"{name} (servo {ident}) does not answer; are its cable and power in?"
    return ""
