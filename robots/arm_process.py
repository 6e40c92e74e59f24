"""The arm's own process: it owns the port, the guard and the record, ticks at the arm's rate, and outlives the planner.

`python -m robots.arm_process FD` serves one `Station` over a link to whoever started it. When that process is gone, silent
for longer than the limits allow, or tells this one to end, the arm is braked, held, parked and released, and the record says
why. Ctrl-C in the terminal is the planner's business; it does not reach this process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from robots.arm import Arm, Reading, connect
from robots.blackbox import BlackBox
from robots.body import Body
from robots.consent import Enable, enable
from robots.exits import Exit
from robots.guard import Guard, Verdict
from robots.keys import Keys
from robots.limits import Limits
from robots.link import Link, LinkClosed
from robots.operator import shout
from robots.priority import go_first
from robots.side import Progress
from robots.station import Station
from robots.stop import Stage

# How long to wait for words when there is nothing to send.
IDLE_S = 0.05
# Of simulated time in lockstep: how many ticks between two looks at the link.
TICKS_BETWEEN_LOOKS = 25
SCENE = ("task", "goal", "budget_steps", "judge", "truth", "picture", "goal_picture")
# What goes wrong with a request is answered with its kind; everything else is a fault of this side.
KINDS: tuple[type[Exception], ...] = (FileNotFoundError, FileExistsError, ValueError, OSError)


class Server:
    """Answers a planner's process and keeps the arm's time."""

    def __init__(self, link: Link, say: Callable[[str], None] = shout) -> None:
        self._link, self._say = link, say
        self._arm: Arm | None = None
        self._station: Station | None = None
        self._hand: Enable | None = None
        self._waiting: object = None  # the number of a `finish` that is not answered yet
        self._heard_s = time.monotonic()
        self._told = ""  # by a signal
        self._ended: Exit | None = None

    def serve(self) -> int:
        """Until the run has ended, whichever way; returns the exit code."""
        try:
            while self._ended is None:
                message = self._link.receive(self._patience())
                if message is not None:
                    self._heard_s = time.monotonic()
                    self._answer(message)
                self._keep_time(quiet=message is None)
                if self._told:
                    self._abandon(Exit.STOPPED, f"the arm's process was told to end ({self._told})")
        except LinkClosed:
            self._abandon(Exit.FAULT, "the planner's process is gone")
        except Exception as error:  # a mistake of ours is no reason to leave an arm where it is
            self._abandon(Exit.FAULT, f"the arm's side failed: {type(error).__name__}: {error}")
        finally:
            if self._arm is not None:
                self._arm.disconnect()
            if self._hand is not None:
                self._hand.close()
            self._link.close()
        return int(Exit.DONE if self._ended is None else self._ended)

    def told_to_end(self, number: int, frame: FrameType | None) -> None:
        """A signal handler: wind down as soon as what is under way allows."""
        self._told = signal.Signals(number).name

    # -- keeping time ------------------------------------------------------------------------------------------------

    @property
    def _ticking(self) -> bool:
        return self._station is not None and self._station.begun and not self._station.arm.lockstep

    def _patience(self) -> float:
        station = self._station
        if station is None or not station.begun:
            return IDLE_S
        if station.arm.lockstep:
            return 0.0 if station.busy else IDLE_S
        return min(IDLE_S, max(0.0, station.cadence.left_s))

    def _keep_time(self, quiet: bool) -> None:
        """The tick that is due, or in lockstep the next few; then whoever waits for the step's end is answered.

        Args:
            quiet: nothing waits to be read. Only then is the planner silent; else it was us who were busy, with a device
                or a disk.
        """
        station = self._station
        if station is None or not station.begun:
            return
        if self._ticking:
            silent = time.monotonic() - self._heard_s
            most = station.guard.limits.heartbeat_s
            if quiet and silent > most:
                words = f"no sign of life from the planner's process for {silent:.3f} s (limit {most:g} s)"
                self._abandon(Exit.FAULT, words)
                return
            if station.cadence.left_s <= 0:
                station.cadence.begin()
                station.tick()
        else:
            station.heed()  # no tick is sent while nothing moves
            for _ in range(TICKS_BETWEEN_LOOKS):
                if not station.busy:
                    break
                station.tick()
        if self._waiting is not None and not station.busy:
            self._reply(self._waiting, progress_words(station.progress))
            self._waiting = None

    def _abandon(self, code: Exit, reason: str) -> None:
        """Nobody drives any more: wind down on our own."""
        station, self._ended = self._station, code
        if station is not None and station.begun:
            station.trip(Stage.HELD, reason)
        with contextlib.suppress(LinkClosed):
            self._link.send({"leaving": reason})
        if station is None or not station.begun:
            return
        self._say(f"arm: {reason}; braking, then hold, park, release")
        for fault in station.end(code, reason, {}, lambda words: self._say(f"arm: {words}")).faults:
            self._say(f"arm: fault: {fault}")

    # -- answering ---------------------------------------------------------------------------------------------------

    def _answer(self, message: Mapping[str, Any]) -> None:
        number, what = message.get("id"), str(message.get("do"))
        if what == "alive":
            return
        try:
            answer = getattr(self, f"_do_{what}", None)
            if answer is None:
                raise ValueError(f"the arm's side knows no {what!r}")
            reply = answer(message)
            if what != "finish":
                self._reply(number, reply)
        except LinkClosed:
            raise
        except Exception as error:  # whatever it is, who asked is told, and the arm's time is kept
            kind = next((kind.__name__ for kind in KINDS if isinstance(error, kind)), "ArmError")
            self._link.send({"re": number, "error": kind, "words": str(error) or type(error).__name__})
            return
        if what == "finish":
            self._waiting = number

    def _reply(self, number: object, value: object) -> None:
        self._link.send({"re": number, "value": value})

    def _do_connect(self, message: Mapping[str, Any]) -> dict[str, Any]:
        if self._arm is not None:
            raise ValueError("an arm is connected already")
        limits = Limits.from_mapping(message["limits"])
        record = Path(message["record"])
        if message["hold"] is not None:
            # Here and not with the planner: one that hangs must not keep the arm moving. A terminal stays with the planner.
            self._hand = enable(str(message["hold"]), simulated=False, keys=Keys(-1), button=message["button"])
        dry = bool(message["dry_run"])
        self._arm = connect(message["arm"], watching=dry, **message["settings"])
        self._station = Station(
            self._arm,
            Guard(limits, self._arm.kinematics, self._arm.body),
            lambda **header: BlackBox(record, queued=True, **header),
            dry_run=dry,
            hand=self._hand,
        )
        return {
            **dataclasses.asdict(self._station.about),
            "scene": self._arm.scene is not None,
            "watches": self._station.guard.watches(),
            "held_by": self._station.held_by,
            "figure": None if self._arm.body is None else self._figure(self._arm.body),
        }

    @staticmethod
    def _figure(body: Body) -> dict[str, Any]:
        return {"radii": body.radii, "names": list(body.names)}

    def _do_forward(self, message: Mapping[str, Any]) -> list[np.ndarray]:
        return list(self._connected().arm.kinematics.forward(message["joints"]))

    def _do_ends(self, message: Mapping[str, Any]) -> np.ndarray:
        body = self._connected().arm.body
        if body is None:
            raise ValueError(f"{self._connected().about.name} has no body")
        return body.ends(message["joints"], message["gripper"])

    def _do_observe(self, message: Mapping[str, Any]) -> dict[str, Any]:
        return dataclasses.asdict(self._connected().observe())

    def _do_begin(self, message: Mapping[str, Any]) -> None:
        self._connected().begin(message["header"])
        gc.freeze()  # what is there stays: collecting it again would cost ticks

    def _do_check(self, message: Mapping[str, Any]) -> dict[str, Any]:
        found = self._connected().check(message["actions"], message["uncertainty"])
        return {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}

    def _do_permit(self, message: Mapping[str, Any]) -> None:
        self._connected().permit(str(message["by"]), message["action"], message["lifetime_s"])

    def _do_submit(self, message: Mapping[str, Any]) -> dict[str, Any]:
        return verdict_words(self._connected().submit(int(message["step"]), message["asked"]))

    def _do_finish(self, message: Mapping[str, Any]) -> None:
        if self._waiting is not None:
            raise ValueError("somebody waits for the end of the step already")
        self._connected()

    def _do_where(self, message: Mapping[str, Any]) -> dict[str, Any]:
        return progress_words(self._connected().progress)

    def _do_brake(self, message: Mapping[str, Any]) -> None:
        self._connected().brake()

    def _do_pause(self, message: Mapping[str, Any]) -> str:
        return self._connected().pause(str(message["why"]))

    def _do_resume(self, message: Mapping[str, Any]) -> None:
        self._connected().resume()

    def _do_end(self, message: Mapping[str, Any]) -> dict[str, Any]:
        def say(words: str) -> None:
            with contextlib.suppress(LinkClosed):
                self._link.send({"said": words})

        code = Exit(int(message["code"]))
        station = self._connected()
        wound = station.end(code, str(message["reason"]), message["loop"], say)
        self._ended = Exit.FAULT if wound.faults else code
        return dataclasses.asdict(wound)

    def _do_scene(self, message: Mapping[str, Any]) -> object:
        scene, name = self._connected().scene, message["name"]
        if scene is None or name not in SCENE:
            raise ValueError(f"{self._connected().about.name} has no {name}")
        value = getattr(scene, name)
        if callable(value):
            value = value(*message["args"])
        if isinstance(value, tuple):
            value = [item.item() if isinstance(item, np.generic) else item for item in value]
        return value

    def _connected(self) -> Station:
        if self._station is None:
            raise ValueError("no arm is connected")
        return self._station


# -- what travels ----------------------------------------------------------------------------------------------------


def verdict_words(verdict: Verdict) -> dict[str, Any]:
    """A verdict as a message."""
    target = verdict.target
    words = {field.name: getattr(verdict, field.name) for field in dataclasses.fields(verdict)}
    return words | {"target": None if target is None else {"joints": target.joints, "gripper": target.gripper}}


def progress_words(progress: Progress) -> dict[str, Any]:
    """A progress as a message."""
    return {**dataclasses.asdict(progress), "stage": int(progress.stage)}


def reading_of(words: Mapping[str, Any]) -> Reading:
    """A reading from a message."""
    return Reading(dict(words["observation"]), words["monotonic_s"], words["wall_s"], dict(words["camera_s"]))


def main(number: int) -> int:
    """Serve over an inherited socket."""
    server = Server(Link(socket.socket(fileno=number)))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), server.told_to_end)
    go_first(waits_busily=True)  # an arm's tick comes before a planner's search; its driver may wait busily
    return server.serve()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
