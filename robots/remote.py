"""The arm's side seen from the planner's process: it starts the arm's own process, talks to it, and says when it is gone."""

from __future__ import annotations

import contextlib
import gc
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from robots.arm import ArmError, JointTarget, Reading
from robots.arm_process import reading_of
from robots.exits import Exit
from robots.guard import Verdict
from robots.link import Link, LinkClosed
from robots.plancheck import PlanCheck
from robots.priority import go_first
from robots.scene import Scene
from robots.side import About, Progress, Wound
from robots.stop import Stage

# Signs of life: five of them fit into the shortest silence the limits allow.
BEATS_PER_HEARTBEAT = 5
# How long an answer may take: connecting a device, a picture, a park.
CONNECT_S, ANSWER_S, END_S = 60.0, 10.0, 120.0
# And the end of a step, simulated ones on a busy machine included.
STEP_S = 30.0
ROOT = Path(__file__).resolve().parent.parent
ERRORS: dict[str, type[Exception]] = {
    kind.__name__: kind for kind in (FileNotFoundError, FileExistsError, ValueError, OSError)
}


class SideGone(ArmError):
    """The arm's process has ended, or does not answer."""


class RemoteStation:
    """`Side` over a link; a context manager that connects on entering and closes on leaving.

    Args:
        name, settings: the arm, as for `robots.arm.connect`.
        limits: every limit, as `Limits.from_mapping` reads them.
        record: the black box's file.
        dry_run: everything but sending.
        heartbeat_s: how long the arm's side may hear nothing.
        hold: an input device that the arm's side watches at every tick; None where nothing needs to be held there.
        button: of that device; None for whichever is pressed.

    Attributes:
        watches: what its guard watches, in words.
        figure: what the arm looks like in a posture, for pictures.
    """

    def __init__(
        self,
        name: str,
        settings: Mapping[str, Any],
        limits: Mapping[str, Any],
        record: str | Path,
        *,
        dry_run: bool = False,
        heartbeat_s: float = 0.1,
        hold: str | None = None,
        button: str | int | None = None,
    ) -> None:
        here, there = Link.pair()
        with there:
            # Its own session: Ctrl-C in the terminal is ours to hear, and a closed terminal must not kill the arm's side.
            self.process = subprocess.Popen(
                [sys.executable, "-m", "robots.arm_process", str(there.fileno())],
                pass_fds=[there.fileno()],
                cwd=Path.cwd(),
                env=_environment(),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._link = Link(here)
        self._numbers = 0
        self._replies: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._said: Callable[[str], None] | None = None
        self._lock = threading.Lock()
        self._gone = ""
        self._when_killed = "nothing was connected"
        self._alive = threading.Event()
        self._beat_s = heartbeat_s / BEATS_PER_HEARTBEAT
        self._listener = threading.Thread(target=self._listen, name="premotor-listen", daemon=True)
        self._listener.start()
        try:
            words = self._call(
                "connect",
                CONNECT_S,
                arm=name,
                settings=dict(settings),
                limits=dict(limits),
                record=str(Path(record).resolve()),
                dry_run=dry_run,
                hold=hold,
                button=None if button is None else str(button),
            )
        except BaseException:
            self.close()
            raise
        has_scene, self.watches = words.pop("scene"), str(words.pop("watches"))
        self.held_by = str(words.pop("held_by"))
        self.figure = RemoteFigure(self._call, words.pop("figure"))
        self.about = About(**{**words, "joint_names": tuple(words["joint_names"])})
        self._when_killed = self.about.when_killed
        self.scene: Scene | None = RemoteScene(self._ask_scene) if has_scene else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- Side --------------------------------------------------------------------------------------------------------

    def observe(self) -> Reading:
        """Look, with the cameras."""
        gc.collect(1)
        return reading_of(self._call("observe"))

    def begin(self, header: Mapping[str, Any]) -> None:
        """Open the record and hold the arm where it is; from now on signs of life are sent."""
        # A full collection of a planner's memory keeps Python's lock for over 0.1 s, and the arm's side takes that for a
        # planner that is gone (measured: three runs of three broke off). While an arm is driven only young garbage is
        # collected.
        gc.collect()
        gc.freeze()
        gc.disable()
        threading.Thread(target=self._beat, name="premotor-heartbeat", daemon=True).start()
        self._call("begin", header=dict(header))

    def check(self, actions: np.ndarray, uncertainty: float | None) -> PlanCheck:
        """Look at a whole plan (H, 7) from where the arm is."""
        words = self._call("check", actions=np.asarray(actions), uncertainty=uncertainty)
        return PlanCheck(**{**words, "sentences": tuple(words["sentences"])})

    def permit(self, by: str, action: np.ndarray | None = None, lifetime_s: float | None = None) -> None:
        """A person's permission."""
        self._call("permit", by=by, action=action, lifetime_s=lifetime_s)

    def submit(self, step: int, asked: Mapping[str, Any]) -> Verdict:
        """Have a request reviewed; what is let through begins at once."""
        words = self._call("submit", step=step, asked=dict(asked))
        target = words["target"]
        if target is not None:
            words["target"] = JointTarget.still(target["joints"], target["gripper"])
        return Verdict(**{**words, "reasons": tuple(words["reasons"])})

    def finish(self, interrupted: Callable[[], bool]) -> Progress:
        """Wait until the step is over; when `interrupted` says so, brake."""
        number, braked, due = self._send("finish"), False, time.monotonic() + STEP_S
        while (reply := self._reply(number, 0.005)) is None:
            if time.monotonic() > due:
                raise SideGone(f"the arm's process has not finished the step for {STEP_S:g} s")
            if not braked and interrupted():
                braked = True
                self._send("brake")
        return _progress(reply)

    @property
    def progress(self) -> Progress:
        """Where the arm's side stands."""
        return _progress(self._call("where"))

    def pause(self, why: str) -> str:
        """Brake and wait; why the arm did not run before, empty where it did."""
        return str(self._call("pause", why=why))

    def resume(self) -> None:
        """Go on after a pause."""
        self._call("resume")

    def end(self, code: Exit, reason: str, loop: Mapping[str, Any], say: Callable[[str], None]) -> Wound:
        """Have the arm braked, held, parked, released and the record closed."""
        self._said = say
        words = self._call("end", END_S, code=int(code), reason=reason, loop=dict(loop))
        return Wound(tuple(words["faults"]), words["stream"], words["dropped"])

    def close(self) -> None:
        """End the connection. An arm that was ours to move is wound down by its own side when we are gone."""
        gc.enable()
        gc.unfreeze()
        self._alive.set()
        self._link.close()
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:  # it hangs in a driver; a person must look
            self.process.terminate()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _ask_scene(self, name: str, *args: Any) -> Any:
        return self._call("scene", name=name, args=args)

    def _call(self, do: str, patience_s: float = ANSWER_S, **values: Any) -> Any:
        number = self._send(do, **values)
        due = time.monotonic() + patience_s
        while (left := due - time.monotonic()) > 0:
            reply = self._whole_reply(number, min(left, 0.5))
            if reply is not None:
                return reply["value"]
        raise SideGone(f"the arm's process has not answered {do!r} for {patience_s:g} s")

    def _send(self, do: str, **values: Any) -> int:
        with self._lock:
            self._numbers += 1
            number = self._numbers
        try:
            self._link.send({"do": do, "id": number, **values})
        except LinkClosed:
            raise self._why_gone() from None
        return number

    def _reply(self, number: int, patience_s: float) -> Any:
        """The value of an answer; None when there is none yet."""
        reply = self._whole_reply(number, patience_s)
        return None if reply is None else reply["value"]

    def _whole_reply(self, number: int, patience_s: float) -> dict[str, Any] | None:
        due = time.monotonic() + patience_s
        while True:
            try:
                message = self._replies.get(timeout=max(0.0, due - time.monotonic()))
            except queue.Empty:
                return None
            if message is None:
                self._replies.put(None)  # for whoever asks next
                raise self._why_gone()
            if message.get("re") != number:
                continue  # an answer nobody waits for any more
            if "error" in message:
                raise ERRORS.get(str(message["error"]), ArmError)(str(message["words"]))
            return message

    def _listen(self) -> None:
        with contextlib.suppress(LinkClosed):
            while True:
                message = self._link.receive()
                assert message is not None
                if "said" in message:
                    if self._said is not None:
                        with contextlib.suppress(Exception):  # who cannot be told must not make us deaf
                            self._said(str(message["said"]))
                elif "leaving" in message:
                    self._gone = f"the arm's side ended the run: {message['leaving']}"
                else:
                    self._replies.put(message)
        self._replies.put(None)

    def _beat(self) -> None:
        go_first(waits_busily=True)  # a planner at work must not look like one that is gone
        with contextlib.suppress(LinkClosed):
            while not self._alive.wait(self._beat_s):
                # An arm's side that parks for a while reads nothing: what it will find is sign enough.
                self._link.offer({"do": "alive"})

    def _why_gone(self) -> SideGone:
        self._listener.join(1.0)  # it may have said why
        if not self._gone:
            how = "does not answer"
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self.process.wait(1.0)
                how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            self._gone = f"the arm's process {how}; of its hardware: {self._when_killed}"
        return SideGone(self._gone)


class RemoteFigure:
    """The arm's tool and its capsules in any posture, asked of the arm's side: the very ones its guard knows.

    Nothing is connected and nothing is built a second time for a picture. An arm without a body has no capsules.
    """

    def __init__(self, ask: Callable[..., Any], body: Mapping[str, Any] | None) -> None:
        self._ask, self._known = ask, body is not None
        self.radii: np.ndarray = np.zeros(0) if body is None else body["radii"]
        self.names: tuple[str, ...] = () if body is None else tuple(body["names"])

    def forward(self, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tool position (3,) m and rotation (3, 3) at joint angles (J,)."""
        position, rotation = self._ask("forward", joints=joints)
        return position, rotation

    def ends(self, joints: np.ndarray, gripper: np.ndarray) -> np.ndarray:
        """Where the capsules' axes begin and end: joints (N, J), closedness (N,) -> (N, G, 2, 3) m."""
        return self._ask("ends", joints=joints, gripper=gripper) if self._known else np.zeros((len(joints), 0, 2, 3))


class RemoteScene:
    """`Scene` over a link."""

    def __init__(self, ask: Callable[..., Any]) -> None:
        self._ask = ask

    @property
    def task(self) -> str:
        """What is to be done, in a word."""
        return str(self._ask("task"))

    @property
    def goal(self) -> dict[str, np.ndarray]:
        """The scene's goal observation."""
        return dict(self._ask("goal"))

    @property
    def budget_steps(self) -> int:
        """Policy steps the task gives."""
        return int(self._ask("budget_steps"))

    def judge(self) -> tuple[bool, float]:
        """Whether the task is done, and the distance to the goal in metres."""
        done, distance = self._ask("judge")
        return bool(done), float(distance)

    def truth(self) -> np.ndarray:
        """The object's position and quaternion wxyz (7,)."""
        return self._ask("truth")

    def picture(self, size: int = 256) -> np.ndarray:
        """The front camera for people, (size, size, 3) uint8."""
        return self._ask("picture", size)

    def goal_picture(self, size: int = 256) -> np.ndarray:
        """The goal as the front camera would see it."""
        return self._ask("goal_picture", size)


def _progress(words: Mapping[str, Any]) -> Progress:
    return Progress(**{**words, "stage": Stage(words["stage"])})


def _environment() -> dict[str, str]:
    """Ours, with the way to this code."""
    places = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(places)), "OMP_NUM_THREADS": "1"}
