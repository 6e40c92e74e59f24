"""A serial port has one user: claims on ports, and sentences about ports that are not there or not free."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import termios
from pathlib import Path

from robots.arm import ArmError


class Claim:
    """The sole use of a serial port, from `Claim(port)` to `close`.

    A lock on the device keeps other programs of ours away at once. `shut` also asks the kernel to refuse everybody
    else (which it does not do to root); it is called once the driver has the port open itself.
    """

    def __init__(self, port: str) -> None:
        self.port = port
        check(port)
        try:
            self._handle: int | None = os.open(port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError as error:
            raise ArmError(_refused(port, error)) from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise ArmError(
                f"{port} is in use{_by(port)}; two programs on one bus garble each other's packets"
            ) from error
        if who := _by(port):
            self.close()
            raise ArmError(f"{port} is open{who}; end that program first: two on one bus garble each other's packets")

    def shut(self) -> None:
        """Nobody else may open the port from now on."""
        if self._handle is not None:
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._handle, termios.TIOCEXCL)

    def close(self) -> None:
        """Give the port back; safe to call twice."""
        if self._handle is not None:
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._handle, termios.TIOCNXCL)
            os.close(self._handle)
            self._handle = None


def check(port: str) -> None:
    """Refuse a port that is no serial port, naming those there are."""
    try:
        mode = os.stat(port).st_mode
    except OSError as error:
        raise ArmError(f"there is no port {port}; {there_are()}") from error
    if not stat.S_ISCHR(mode):
        raise ArmError(f"{port} is no serial port; {there_are()}")


def there_are() -> str:
    """A sentence about the serial ports of this machine."""
    from serial.tools import list_ports

    found = [f"{port.device} ({port.description})" for port in list_ports.comports() if port.hwid != "n/a"]
    return (
        f"there are {', '.join(sorted(found))}"
        if found
        else "this machine shows no serial port; is the arm plugged in?"
    )


def serial_number(port: str) -> str:
    """Of the USB adapter behind a port; empty where it has none."""
    from serial.tools import list_ports

    real = os.path.realpath(port)
    for found in list_ports.comports():
        if os.path.realpath(found.device) == real:
            return found.serial_number or ""
    return ""


def _refused(port: str, error: OSError) -> str:
    if error.errno == errno.EACCES:
        return f"this user may not open {port}; add the user to the group that owns it (`ls -l {port}` names it)"
    if error.errno == errno.EBUSY:
        return f"{port} is in use{_by(port)}; end that program first"
    return f"{port} cannot be opened: {error.strerror}"


def _by(port: str) -> str:
    """` by process N (name)` of another process that has the port open, as far as this user may see."""
    real = os.path.realpath(port)
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        with contextlib.suppress(OSError):
            for handle in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.readlink(handle) == real:
                        return f" by process {process.name} ({(process / 'comm').read_text().strip()})"
    return ""
