"""Buttons of pedals, gamepads and keyboards under Linux, read from the kernel: it also says when one is let go.

A terminal only ever says that a key was pressed. `/dev/input/event*` says both, which is what holding to run needs.
"""

from __future__ import annotations

import contextlib
import os
import struct
from dataclasses import dataclass
from pathlib import Path

# struct input_event of the kernel: two longs of time, type, code, value.
EVENT = struct.Struct("llHHi")
EV_SYN, EV_KEY = 0, 1
SYN_DROPPED = 3
RELEASED = 0
# Names people know, from the kernel's input-event-codes.h.
CODES = {
    "KEY_ESC": 1, "KEY_ENTER": 28, "KEY_LEFTCTRL": 29, "KEY_A": 30, "KEY_LEFTSHIFT": 42, "KEY_B": 48, "KEY_C": 46,
    "KEY_SPACE": 57, "KEY_F12": 88, "KEY_RIGHTCTRL": 97, "KEY_PAGEUP": 104, "KEY_PAGEDOWN": 109,
    "BTN_0": 256, "BTN_1": 257, "BTN_LEFT": 272, "BTN_RIGHT": 273, "BTN_TRIGGER": 288,
    "BTN_SOUTH": 304, "BTN_EAST": 305, "BTN_NORTH": 307, "BTN_WEST": 308, "BTN_TL": 310, "BTN_TR": 311,
    "BTN_TL2": 312, "BTN_TR2": 313,
}  # fmt: skip
DEVICES = Path("/dev/input")
NAMES = Path("/sys/class/input")


@dataclass(frozen=True)
class InputDevice:
    """A device that is plugged in: where it is read, what it calls itself, whether we may read it."""

    path: Path
    name: str
    readable: bool


def devices(folder: Path = DEVICES, names: Path = NAMES) -> list[InputDevice]:
    """Every input device of this machine; those with a name that lasts (`by-id`) under that name."""
    lasting = {path.resolve(): path for path in sorted((folder / "by-id").glob("*event*"))}
    found = []
    for path in sorted(folder.glob("event*"), key=lambda path: (len(path.name), path.name)):
        try:
            name = (names / path.name / "device" / "name").read_text().strip()
        except OSError:
            name = "unnamed"
        found.append(InputDevice(lasting.get(path.resolve(), path), name, os.access(path, os.R_OK)))
    return found


def code_of(name: str) -> int:
    """The kernel's number of a key or button: one of `CODES`, or the number itself."""
    if name in CODES:
        return CODES[name]
    if name.isdigit() and int(name) < 768:
        return int(name)
    raise ValueError(f"no button is called {name!r}; known are {', '.join(CODES)}, or the kernel's number of it")


class Button:
    """One button of one device. It counts as held only after a press that was seen, and until anything is in doubt.

    Args:
        path: the device, best one under /dev/input/by-id.
        button: its name or number; None takes whichever is pressed, as pedals have only one.

    Raises:
        ValueError: the device cannot be read.
    """

    def __init__(self, path: str | Path, button: str | None = None) -> None:
        self.path = Path(path)
        self._code = None if button is None else code_of(button)
        self.name = f"{button or 'any button'} of {self.path}"
        self.lost = ""
        self._held: set[int] = set()
        self._rest = b""
        try:
            self._device = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except PermissionError:
            raise ValueError(
                f"{self.path} may not be read; put yourself into its group (sudo usermod -aG input $USER, then log in "
                "again) or give the device to you by a udev rule"
            ) from None
        except OSError as error:
            raise ValueError(f"{self.path} cannot be read: {error.strerror}; is the device plugged in?") from None

    def held(self) -> bool:
        """Whether it is down now. Never blocks; False once the device is gone."""
        if not self.lost:
            self._read()
        return bool(self._held) and not self.lost

    def close(self) -> None:
        """Let go of the device. Safe to call twice."""
        if self._device >= 0:
            os.close(self._device)
            self._device = -1
            self.lost = self.lost or "closed"

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._device, 64 * EVENT.size)
            except BlockingIOError:
                return
            except OSError as error:
                self._lose(error.strerror or str(error))
                return
            if not data:
                self._lose("it ended")
                return
            data = self._rest + data
            whole = len(data) - len(data) % EVENT.size
            self._rest = data[whole:]
            for _, _, kind, code, value in EVENT.iter_unpack(data[:whole]):
                self._take(kind, code, value)

    def _take(self, kind: int, code: int, value: int) -> None:
        if kind == EV_SYN and code == SYN_DROPPED:
            self._held.clear()  # events were lost: one of them may have been the release
        elif kind == EV_KEY and self._code in (None, code):
            if value == RELEASED:
                self._held.discard(code)
            elif value == 1:  # a repeat (2) continues a press, it makes none
                self._held.add(code)

    def _lose(self, why: str) -> None:
        self._held.clear()
        self.lost = f"{self.path} is gone ({why})"
        with contextlib.suppress(OSError):
            os.close(self._device)
        self._device = -1
