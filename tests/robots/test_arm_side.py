"""The arm's side under a planner that is slow, silent, repetitive or gone, and over devices that fail half-way."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robots import Guard, JointTarget, Limits, Reading, blackbox
from robots.arm import ArmError, Measured
from robots.arm_process import Server
from robots.blackbox import BlackBox
from robots.consent import Answer, Standing
from robots.exits import Exit
from robots.guard import request
from robots.link import Link
from robots.loop import Proposal, drive
from robots.operator import Operator
from robots.remote import RemoteStation, SideGone
from robots.simulated import MujocoArm
from robots.station import Station
from robots.stop import SoftwareStop, Stage

LIMITS = Limits.load()
WORDS = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(LIMITS).items()}
FAST = np.array([0.05, 0.05, 0.0, 0.0, 0.0, 0.0, 0.0])


class SlowEye(MujocoArm):
    """Looking takes a third of a second, as through cameras on a busy machine."""

    def observe(self) -> Reading:
        time.sleep(0.3)
        return super().observe()


class DeepEye(MujocoArm):
    """A camera whose pixels the link has no word for."""

    def observe(self) -> Reading:
        seen = super().observe()
        seen.observation["observation.images.depth"] = np.zeros((2, 2), dtype=np.uint16)
        return seen


class Planner:
    """The other end of a server that runs in a thread."""

    def __init__(self, kind: str, record: Path) -> None:
        here, there = Link.pair()
        self.link, self.record, self.number = Link(here), record, 0
        self.server = Server(Link(there), lambda line: None)
        self.thread = threading.Thread(target=self.server.serve)
        self.thread.start()
        self.left = ""
        settings = {"task": "reach", "seed": 10_000, "pace": "real"}
        self.ask(
            "connect",
            arm=f"{__name__}:{kind}",
            settings=settings,
            limits=WORDS,
            record=str(record),
            dry_run=False,
            hold=None,
            button=None,
        )

    def ask(self, do: str, **values: Any) -> Any:
        """The answer to a question, with signs of life while it is awaited."""
        self.number += 1
        self.link.send({"do": do, "id": self.number, **values})
        due = time.monotonic() + 20
        while time.monotonic() < due:
            message = self.link.receive(0.02)
            if message is None:
                self.link.send({"do": "alive"})
            elif "leaving" in message:
                self.left = str(message["leaving"])
            elif message.get("re") == self.number:
                if "error" in message:
                    raise ArmError(str(message["words"]))
                return message["value"]
        raise AssertionError(f"no answer to {do}")

    def close(self) -> None:
        self.link.close()
        self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture
def planner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Planner]:
    made = Planner(request.param, tmp_path / "blackbox.jsonl")
    yield made
    made.close()


@pytest.mark.parametrize("planner", ["SlowEye"], indirect=True)
def test_a_device_that_keeps_the_arms_side_busy_is_no_silence_of_the_planner(planner: Planner) -> None:
    planner.ask("begin", header={"goal_hash": "g"})
    for _ in range(2):
        planner.ask("observe")
    assert planner.left == ""
    planner.ask("end", code=0, reason="done", loop={})
    assert not [line for line in blackbox.read(planner.record) if line["kind"] == "trip"]


@pytest.mark.parametrize("planner", ["DeepEye"], indirect=True)
def test_an_answer_that_cannot_be_sent_is_a_sentence_and_the_arm_is_still_wound_down(planner: Planner) -> None:
    planner.ask("begin", header={"goal_hash": "g"})
    with pytest.raises(ArmError, match="array of uint16 cannot be sent"):
        planner.ask("observe")
    planner.ask("end", code=0, reason="done", loop={})
    assert [line["stage"] for line in blackbox.read(planner.record) if line["kind"] == "stop"][-1] == "released"


@pytest.mark.parametrize("planner", ["SlowEye"], indirect=True)
def test_whatever_goes_wrong_inside_the_arms_side_the_arm_is_wound_down(
    planner: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    planner.ask("begin", header={"goal_hash": "g"})

    def broken() -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(planner.server._station, "tick", broken)
    planner.thread.join(20)
    lines = blackbox.read(planner.record)
    assert "a mistake of ours" in lines[-1]["reason"]
    assert [line["stage"] for line in lines if line["kind"] == "stop"] == ["held", "parked", "released"]


@pytest.mark.parametrize("planner", ["SlowEye"], indirect=True)
def test_a_planner_that_falls_silent_while_it_pauses_the_arm_is_noticed(planner: Planner) -> None:
    planner.ask("begin", header={"goal_hash": "g"})
    planner.ask("pause", why="asking the operator")
    time.sleep(0.3)
    planner.thread.join(20)
    end = blackbox.read(planner.record)[-1]
    assert end["kind"] == "end"
    assert end["reason"].startswith("no sign of life")


# -- the link --------------------------------------------------------------------------------------------------------


def test_signs_of_life_to_a_side_that_is_busy_do_not_break_the_link() -> None:
    """An arm that parks for half a minute reads nothing for so long."""
    here, there = Link.pair()
    link, other = Link(here), Link(there)
    for _ in range(3000):
        link.offer({"do": "alive"})
        time.sleep(0.0002)
    link.send({"do": "end"})
    seen = 0
    while (message := other.receive(2.0)) is not None and message["do"] != "end":
        seen += 1
    assert message == {"do": "end"}
    assert seen > 50
    link.close()
    other.close()


# -- the station -----------------------------------------------------------------------------------------------------


class Failing(MujocoArm):
    """Breaks when it is told to."""

    blind = no_hold = False
    sent: list[JointTarget]

    def command(self, target: JointTarget) -> None:
        self.sent.append(target)
        super().command(target)

    def measure(self) -> Measured:
        if self.blind:
            raise ArmError("servo 3 does not answer")
        return super().measure()

    def hold(self) -> JointTarget:
        if self.no_hold:
            raise ArmError("the bus is gone")
        return super().hold()


@pytest.fixture
def arm() -> Iterator[Failing]:
    made = Failing(task="reach", seed=10_000)
    made.sent = []
    made.connect()
    yield made
    made.disconnect()


def station_of(arm: Failing, path: Path) -> Station:
    return Station(arm, Guard(LIMITS, arm.kinematics), lambda **header: BlackBox(path, **header))


@pytest.fixture
def station(arm: Failing, tmp_path: Path) -> Station:
    return station_of(arm, tmp_path / "blackbox.jsonl")


def step(station: Station, number: int = 0, action: np.ndarray = FAST) -> Any:
    seen = station.observe()
    return station.submit(number, request(action, seen.monotonic_s, 0.5, f"plan {number}"))


def test_an_arm_that_cannot_be_read_brakes_within_its_limits_as_long_as_it_can_be_sent_to(
    station: Station, arm: Failing, tmp_path: Path
) -> None:
    station.begin({"goal_hash": "g"})
    station.permit("somebody", lifetime_s=60.0)
    assert step(station).target is not None
    for _ in range(22):  # of fifty: about the fastest
        station.tick()
    assert np.abs(arm.sent[-1].velocity).max() > 0.1
    arm.blind = True
    progress = station.finish(lambda: False)
    assert progress.stage is Stage.HELD
    assert "servo 3 does not answer" in progress.reason
    joints = np.stack([target.joints for target in arm.sent])
    strongest = np.abs(np.diff(joints, n=2, axis=0)).max(axis=0) * arm.rate_hz**2
    assert (strongest <= np.array(LIMITS.joint_acceleration) * (1 + 1e-6)).all()
    assert not arm.sent[-1].velocity.any()


def test_a_run_begins_once(station: Station) -> None:
    station.begin({"goal_hash": "g"})
    with pytest.raises(ArmError, match="has begun already"):
        station.begin({"goal_hash": "g"})
    station.end(Exit.DONE, "done", {}, lambda line: None)
    with pytest.raises(ArmError, match="has begun already"):
        station.begin({"goal_hash": "g"})


def test_an_arm_that_cannot_be_held_at_the_beginning_ends_in_a_sentence(
    station: Station, arm: Failing, tmp_path: Path
) -> None:
    arm.no_hold = True
    ending = drive(
        station, lambda seen: Proposal(FAST, 0.5, "p"), Operator(), steps=2, limits=LIMITS, say=lambda line: None
    )
    assert ending.code is Exit.FAULT
    assert "the bus is gone" in ending.reason
    assert not any("attribute" in fault for fault in ending.faults)
    lines = blackbox.read(tmp_path / "blackbox.jsonl")
    assert lines[-1]["kind"] == "end"
    assert "the bus is gone" in lines[-1]["reason"]


def test_nothing_moves_in_a_run_that_has_no_record(station: Station, arm: Failing, tmp_path: Path) -> None:
    (tmp_path / "blackbox.jsonl").write_text("somebody else's")
    start, said = arm.measure().joints, list[str]()
    ending = drive(station, lambda seen: Proposal(FAST, 0.5, "p"), Operator(), steps=2, limits=LIMITS, say=said.append)
    assert ending.code is Exit.FAULT
    np.testing.assert_allclose(arm.measure().joints, start, atol=1e-3)
    assert any("left as it stands" in line for line in said)
    assert (tmp_path / "blackbox.jsonl").read_text() == "somebody else's"


def test_time_a_person_took_to_answer_is_not_the_planners(station: Station, arm: Failing) -> None:
    arm.lockstep = False  # its clock stays: what matters is that the monitors look
    clock = itertools.count(0.0, 1e-3)
    ahead = 0.0
    arm.now = lambda: next(clock) + ahead  # type: ignore[method-assign]
    station.begin({"goal_hash": "g"})
    station.observe()
    station.pause("asking the operator")
    ahead = 30.0
    station.resume()
    for _ in range(20):
        station.tick()
    assert station.stop.running, station.stop.reason


def test_a_reason_to_stop_for_good_replaces_that_of_a_pause() -> None:
    stop = SoftwareStop()
    stop.advance(Stage.PAUSED, "asking the operator")
    stop.advance(Stage.HELD, "servo 3 does not answer")
    stop.advance(Stage.PARKED, "the end")
    assert stop.reason == "servo 3 does not answer"


def test_an_old_look_at_the_arm_is_not_made_new_by_a_word(station: Station, arm: Failing) -> None:
    station.begin({"goal_hash": "g"})
    station.permit("somebody", lifetime_s=60.0)
    station.observe()
    for _ in range(400):
        station.tick()
    verdict = station.submit(0, request(FAST, arm.now(), 0.5, "plan"))
    assert verdict.outcome == "vetoed"
    assert "was looked at" in verdict.sentence


# -- the loop --------------------------------------------------------------------------------------------------------


class Hands:
    """A person who lets the arm move, and presses no key."""

    about = "nobody"

    def poll(self) -> Standing:
        return Standing(True)

    def pause(self, why: str) -> bool:
        return False


def test_a_task_approved_earlier_does_not_end_a_pause_that_a_monitor_asked_for(station: Station) -> None:
    """As a planner that missed its deadline, or a camera that froze: a person must look."""

    def propose(seen: Reading) -> Proposal:
        station.trip(Stage.PAUSED, "camera front is frozen")
        return Proposal(FAST, 0.5, "plan")

    ending = drive(
        station, propose, Operator(), steps=3, limits=LIMITS, say=lambda line: None, consent=Hands(),  # type: ignore[arg-type]
        ask=lambda seen, proposal: Answer("yes", "earlier", "the task was approved", "task"),
    )  # fmt: skip
    assert ending.code is Exit.FAULT
    assert "camera front is frozen" in ending.reason
    assert ending.passed == 0


# -- the planner's end -----------------------------------------------------------------------------------------------


def test_an_arms_side_that_hangs_in_a_step_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os
    import signal

    from robots import remote

    monkeypatch.setattr(remote, "STEP_S", 0.5)
    with RemoteStation("mujoco", {"task": "reach", "pace": "real"}, WORDS, tmp_path / "b.jsonl") as side:
        side.begin({"goal_hash": "g"})
        os.kill(side.process.pid, signal.SIGSTOP)
        try:
            with pytest.raises(SideGone, match="has not finished the step"):
                side.finish(lambda: True)
        finally:
            os.kill(side.process.pid, signal.SIGCONT)


def test_an_arms_process_that_cannot_start_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robots.remote.sys.executable", "/bin/false")
    with pytest.raises(SideGone, match="the arm's process ended with code 1; of its hardware: nothing was connected"):
        RemoteStation("mujoco", {}, WORDS, tmp_path / "b.jsonl")


def test_an_audience_that_left_does_not_make_the_planner_deaf(tmp_path: Path) -> None:
    def deaf(line: str) -> None:
        raise BrokenPipeError

    with RemoteStation("mujoco", {"task": "reach"}, WORDS, tmp_path / "b.jsonl") as side:
        side.begin({"goal_hash": "g"})
        began = time.monotonic()
        assert not side.end(Exit.DONE, "done", {}, deaf).faults
        assert time.monotonic() - began < 60
