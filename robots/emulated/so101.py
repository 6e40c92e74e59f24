"""An emulated SO-101 in a process of its own: servos on a pseudo-terminal, physics behind them, a camera beside them.

    python -m robots.emulated.so101 --port-file arm.json

writes where to find it into `arm.json` and runs until Ctrl-C. From Python, `EmulatedSO101` does the same in a `with`
block; `fault` breaks it while it runs, `truth` says what is really so.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from robots.priority import go_first

# How often physics looks at the registers, and its step (`envs.so101.PHYSICS_STEP_S`).
TICK_S, STEP_S = 0.004, 0.002
# Where LeRobot looks for a calibration: DIRECTORY/ID.json.
ARM_ID = "emulated"
START_TIMEOUT_S = 60.0
# How long physics may keep the servos from answering.
SWITCH_S = 0.0005
# Physics that fell so far behind gives up the time it lost.
LOST_S = 0.1


class Emulator:
    """The process's side: bus, body, camera and the control channel.

    Args:
        folder: where calibration and control channel lie.
        seed: of the scene.
        joints: (5,) rad, where the arm stands; folded where nothing is said.
        holding: its servos hold it there already, as a program that was killed leaves them.
        image_size: side of the camera's pictures; 0 for no camera.
        fps: pictures a second.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        joints: Sequence[float] | None = None,
        holding: bool = False,
        image_size: int = 128,
        fps: float = 30.0,
    ) -> None:
        from robots.emulated.body import Body, calibration
        from robots.emulated.camera import Camera
        from robots.emulated.feetech import Port, Wire

        self.body = Body(seed, joints, holding)
        self.wire = Wire(self.body.servos, seed)
        self.camera = Camera(len(self.body.qpos()), image_size, fps, seed) if image_size else None
        self.port = Port(self.wire)
        (folder / f"{ARM_ID}.json").write_text(json.dumps(calibration(), indent=4))
        self._control = socket.socket(socket.AF_UNIX)
        self._control.bind(str(folder / "control"))
        self._control.listen()
        self.address: dict[str, Any] = {
            "port": self.port.name, "id": ARM_ID, "calibration_dir": str(folder), "control": str(folder / "control"),
            "camera": None,
        }  # fmt: skip
        if self.camera is not None:
            self.address["camera"] = {
                "type": "zmq", "server_address": "127.0.0.1", "port": self.camera.port, "camera_name": "front",
                "width": image_size, "height": image_size, "fps": round(fps),
            }  # fmt: skip
        threading.Thread(target=self._obey, name="control", daemon=True).start()

    def run(self, going: Callable[[], bool]) -> None:
        """Physics in real time, until told otherwise."""
        go_first(waits_busily=False)
        gc.freeze()  # collecting what is there anyway would keep the servos from answering
        sys.setswitchinterval(SWITCH_S)
        done = time.monotonic()
        while going():
            # Always some sleep, however far behind: the servos answer in it.
            time.sleep(TICK_S)
            behind = time.monotonic() - done
            if behind > LOST_S:
                done += behind - LOST_S
            steps = int((time.monotonic() - done) / STEP_S)
            done += steps * STEP_S
            with self.wire.lock:
                self.body.listen()
                self.body.step(steps)
                self.body.report()
            if self.camera is not None:
                self.camera.show(self.body.qpos())

    def close(self) -> None:
        """Switch everything off."""
        self._control.close()
        self.port.unplug()
        if self.camera is not None:
            self.camera.close()

    # -- the control channel: one line of JSON asks, one answers -----------------------------------------------------

    def _obey(self) -> None:
        while True:
            try:
                caller, _ = self._control.accept()
            except OSError:
                return
            with caller, caller.makefile("rw") as lines:
                for line in lines:
                    try:
                        answer = {"ok": self._do(json.loads(line))}
                    except Exception as error:  # whatever was asked, the arm goes on
                        answer = {"error": f"{type(error).__name__}: {error}"}
                    with contextlib.suppress(OSError):
                        lines.write(json.dumps(answer) + "\n")
                        lines.flush()

    def _do(self, asked: dict[str, Any]) -> Any:
        with self.wire.lock:
            if asked["do"] == "truth":
                return self.body.truth() | {"requests": self.wire.requests}
            if asked["do"] == "place":
                return self.body.place(asked["joints"], bool(asked["holding"]))
            if asked["do"] == "heal":
                self.wire.heal()
                self.body.free()
                if self.camera is not None:
                    self.camera.behave("working")
                return None
            if asked["do"] == "fault":
                return self._fault(str(asked["kind"]), asked["how"])
        raise ValueError(f"an emulator cannot {asked['do']!r}")

    def _fault(self, kind: str, how: dict[str, Any]) -> None:
        from envs import so101
        from robots.emulated import feetech
        from robots.emulated.body import HALF_TURN, TICKS_PER_RAD

        if kind not in FAULTS:
            raise ValueError(f"no fault is called {kind!r}; known are {', '.join(FAULTS)}")
        unknown = set(how) - set(FAULTS[kind])
        if unknown:
            raise ValueError(f"fault {kind} takes {', '.join(FAULTS[kind]) or 'nothing'}, not {sorted(unknown)[0]}")
        index = so101.MOTORS.index(how["servo"]) if "servo" in how else 0
        servo, value = self.body.servos[index], how.get("value")
        if kind == "dead":
            servo.dead = bool(how.get("on", True))
        elif kind == "corrupt":
            self.wire.corrupt = int(how["count"])
        elif kind == "error":
            servo.error = feetech.ERROR_BITS[how["bit"]]
        elif kind == "silent":
            self.wire.silent = bool(how.get("on", True))
        elif kind == "lost":
            self.wire.lost = float(how["share"])
        elif kind == "late":
            self.wire.late_s = float(how["seconds"])
        elif kind == "temperature":
            servo.fixed[feetech.TEMPERATURE] = int(how["celsius"])
        elif kind == "voltage":
            servo.fixed[feetech.VOLTAGE] = round(10 * float(how["volts"]))
        elif kind == "load":
            ticks = round(1000 * float(how["share"]))
            servo.fixed[feetech.LOAD], servo.fixed[feetech.LOAD + 1] = ticks & 0xFF, ticks >> 8
        elif kind == "stale_goal":
            servo.put(feetech.GOAL, round(HALF_TURN + float(how["radians"]) * TICKS_PER_RAD))
        elif kind == "energises":
            for each in self.body.servos:
                each.energises = bool(how.get("on", True))
        elif kind == "limp":
            servo.memory[feetech.TORQUE] = 0
        elif kind == "jam":
            self.body.jam(index, bool(how.get("on", True)))
        elif kind == "camera":
            if self.camera is None:
                raise ValueError("this emulator has no camera")
            self.camera.behave(str(value))
        elif kind == "unplug":
            threading.Thread(target=self.port.unplug).start()


# What can be broken -> what may be said about it.
FAULTS: dict[str, tuple[str, ...]] = {
    "dead": ("servo", "on"),  # hears and answers nothing
    "corrupt": ("count",),  # so many of the next answers are damaged
    "error": ("servo", "bit"),  # its status byte: voltage, angle, overheat, overcurrent, overload
    "silent": ("on",),  # the whole bus
    "lost": ("share",),  # of the answers
    "late": ("seconds",),  # every answer
    "temperature": ("servo", "celsius"),
    "voltage": ("servo", "volts"),
    "load": ("servo", "share"),
    "stale_goal": ("servo", "radians"),  # left in its register by somebody else
    "energises": ("on",),  # writing a goal switches torque on
    "limp": ("servo",),  # it lets go by itself, as after an overload
    "jam": ("servo", "on"),  # it cannot move
    "camera": ("value",),  # working, frozen, silent
    "unplug": (),  # the cable is pulled; for good
}


class EmulatedSO101:
    """An emulated arm for a `with` block, in a process of its own that ends with the block, or with this process.

    Args:
        seed: of the scene.
        joints: (5,) rad, where the arm stands; folded where nothing is said.
        holding: its servos hold it there already, as a program that was killed leaves them.
        image_size: side of the camera's pictures, px; 0 for no camera.
        fps: pictures a second.

    Attributes:
        port: the terminal a driver opens.
        id, calibration_dir: what LeRobot finds its calibration by.
        camera: settings of a LeRobot `zmq` camera; None without one.
    """

    port: str
    id: str
    calibration_dir: Path
    camera: dict[str, Any] | None

    def __init__(
        self,
        seed: int = 0,
        joints: Sequence[float] | None = None,
        holding: bool = False,
        image_size: int = 128,
        fps: float = 30.0,
    ) -> None:
        self._settings = ["--seed", str(seed), "--image-size", str(image_size), "--fps", str(fps)]
        if joints is not None:
            self._settings.append("--joints=" + ",".join(f"{float(j):.6f}" for j in joints))
        if holding:
            self._settings.append("--holding")
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def start(self) -> Self:
        """Start the process and wait until it can be talked to."""
        self._folder = Path(tempfile.mkdtemp(prefix="so101-"))
        found = self._folder / "arm.json"
        command = [sys.executable, "-m", "robots.emulated.so101", "--port-file", str(found), "--until-stdin-closes"]
        root = str(Path(__file__).resolve().parents[2])
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [*command, *self._settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C is for whoever drives the arm, not for the arm
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not found.is_file():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.kill()
                said = self._process.stderr.read().decode().strip().splitlines() if self._process.stderr else []
                self.stop()
                raise RuntimeError(f"the emulated SO-101 did not start: {said[-1] if said else 'it said nothing'}")
            time.sleep(0.02)
        address = json.loads(found.read_text())
        self.port, self.id, self.camera = address["port"], address["id"], address["camera"]
        self.calibration_dir = Path(address["calibration_dir"])
        self._channel = socket.socket(socket.AF_UNIX)
        self._channel.settimeout(10.0)
        self._channel.connect(address["control"])
        self._lines = self._channel.makefile("rw")
        return self

    def stop(self) -> None:
        """End the process; safe to call twice."""
        if self._channel is not None:
            self._lines.close()
            self._channel.close()
            self._channel = None
        if self._process is not None:
            if self._process.stdin is not None:
                self._process.stdin.close()
            try:
                self._process.wait(timeout=5.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._process.stderr is not None:
                self._process.stderr.close()
            self._process = None
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def settings(self) -> dict[str, Any]:
        """What LeRobot's driver needs to find this arm."""
        cameras = {} if self.camera is None else {"front": self.camera}
        return {"port": self.port, "id": self.id, "calibration_dir": str(self.calibration_dir), "cameras": cameras}

    def fault(self, kind: str, **how: Any) -> None:
        """Break something: a kind from `FAULTS` and what it takes."""
        self._ask({"do": "fault", "kind": kind, "how": how})

    def heal(self) -> None:
        """Mend everything but a pulled cable."""
        self._ask({"do": "heal"})

    def place(self, joints: Sequence[float], holding: bool = True) -> None:
        """Put the arm somewhere, (5,) rad, its servos holding it there or limp."""
        self._ask({"do": "place", "joints": [float(joint) for joint in joints], "holding": holding})

    def truth(self) -> dict[str, Any]:
        """What is really so, whatever the driver believes; see `Body.truth`."""
        return self._ask({"do": "truth"})

    def _ask(self, what: dict[str, Any]) -> Any:
        self._lines.write(json.dumps(what) + "\n")
        self._lines.flush()
        answer = json.loads(self._lines.readline())
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer["ok"]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def main(words: Sequence[str] | None = None) -> int:
    """Run the emulator until Ctrl-C, SIGTERM, or the end of standard input."""
    parser = argparse.ArgumentParser(prog="python -m robots.emulated.so101", description=__doc__)
    parser.add_argument("--port-file", type=Path, required=True, help="where to write how the arm is found, JSON")
    parser.add_argument("--seed", type=int, default=0, help="of the scene")
    parser.add_argument("--joints", default=None, help="five angles, rad, where the arm stands")
    parser.add_argument("--holding", action="store_true", help="torque is on")
    parser.add_argument("--image-size", type=int, default=128, help="side of the pictures, px; 0 for no camera")
    parser.add_argument("--fps", type=float, default=30.0, help="pictures a second")
    parser.add_argument("--until-stdin-closes", action="store_true")
    said = parser.parse_args(words)
    joints = None if said.joints is None else [float(word) for word in said.joints.split(",")]
    if joints is not None and len(joints) != 5:
        parser.error(f"--joints needs five angles; got {len(joints)}")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    if said.until_stdin_closes:
        threading.Thread(target=lambda: (sys.stdin.buffer.read(), stop.set()), daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="so101-") as folder:
        emulator = Emulator(Path(folder), said.seed, joints, said.holding, said.image_size, said.fps)
        unfinished = said.port_file.with_name(f".{said.port_file.name}.unfinished")
        unfinished.write_text(json.dumps(emulator.address, indent=2) + "\n")
        os.replace(unfinished, said.port_file)
        print(f"an emulated SO-101 is on {emulator.port.name}; {said.port_file} says how to find it", flush=True)
        try:
            emulator.run(lambda: not stop.is_set())
        finally:
            emulator.close()
            said.port_file.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
