"""The vendors' simulated controllers as processes, each on a loopback address of its own so that runs never meet."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# franka-sim pins a numpy and a MuJoCo that the drivers do not bear.
JUDGE_PYTHON = ROOT / ".venv-franka-sim" / "bin" / "python"
# `make test-robots` sets it: what is missing is then a failure and not a reason to skip.
REQUIRED = "PREMOTOR_ROBOTS_REQUIRED"
READY_S = 60.0
_count = itertools.count(1)


def need(*modules: str) -> None:
    """Skip the module that calls where a driver is not installed; fail instead when `make test-robots` runs it."""
    import importlib.util

    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing and os.environ.get(REQUIRED):
        raise RuntimeError(f"{', '.join(missing)} is not installed in this environment; .ci/robots.sh installs it")
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed here; make test-robots runs this", allow_module_level=True)


def hurry() -> None:
    """Go before others on a shared machine where that is allowed: a controller's millisecond does not wait."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -15)


def own_address() -> str:
    """A loopback address that no other run uses."""
    pid = os.getpid()
    return f"127.{1 + pid // 250 % 250}.{1 + pid % 250}.{next(_count)}"


class Server:
    """A process that serves on an address; killed with everything it started.

    Args:
        command: what to run.
        address, port: where it is ready once someone answers there.
        log: where its output goes.
    """

    def __init__(self, command: list[str], address: str, port: int, log: Path) -> None:
        self.address, self.log = address, log
        with log.open("w") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=hurry
            )
        deadline = time.monotonic() + READY_S
        while not _listens(address, port):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{command[0]} does not serve on {address}:{port}:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Ask, then end."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
            try:
                self.process.wait(10.0)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait(10.0)


def _listens(address: str, port: int) -> bool:
    """Whether somebody listens; without connecting, which some of these servers take for a client."""
    wanted = f"{_hex(address)}:{port:04X}"
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(row.split()[1] in (wanted, f"00000000:{port:04X}") and row.split()[3] == "0A" for row in rows)


def _hex(address: str) -> str:
    return socket.inet_aton(address)[::-1].hex().upper()


def franka_sim(log: Path) -> Server:
    """franka-sim, which answers with a reflex whatever a real control box would."""
    if not JUDGE_PYTHON.is_file():
        raise RuntimeError(f"{JUDGE_PYTHON.parent.parent.name} is missing; .ci/robots.sh makes it")
    address = own_address()
    model = Path(sysconfig.get_path("purelib")) / "franky_sim" / "assets" / "fr3.xml"
    script = Path(__file__).with_name("franka_sim_server.py")
    return Server([str(JUDGE_PYTHON), str(script), address, str(model)], address, 1338, log)


def franky_sim(log: Path) -> Server:
    """franky-sim: an FR3 under gravity with a hand that takes its time; it has no limits."""
    address = own_address()
    command = str(Path(sys.executable).with_name("franky-sim"))
    return Server([command, "--hostname", address, "-s", "mujoco"], address, 1338, log)


def trossen_sim(log: Path) -> Server:
    """trossen-arm-sim: a WidowX AI that goes wherever it is told, up to its mechanical ends."""
    address = own_address()
    port = 20000 + os.getpid() % 20000
    command = str(Path(sys.executable).with_name("trossen-arm-sim"))
    return Server([command, "--host", address, "--ws-port", str(port)], address, 50001, log)
