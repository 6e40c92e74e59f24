"""Approval and holding to run, on pseudo-terminals: asked, answered, expired, interrupted, and put back as it was."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import struct
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from robots.consent import Approver, Consent, Held, TimedPress, Unneeded, enable
from robots.evdev import CODES, EV_KEY, Button
from robots.keys import Keys

Terminal = tuple[int, int]


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """(the person's end, the program's end) of a pseudo-terminal."""
    ours, theirs = pty.openpty()
    yield ours, theirs
    for end in (ours, theirs):
        with contextlib.suppress(OSError):
            os.close(end)


def typed_later(end: int, text: str, after_s: float = 0.1) -> None:
    threading.Timer(after_s, lambda: os.write(end, text.encode())).start()


def local_mode(end: int) -> int:
    return termios.tcgetattr(end)[3]


def ask(keys: Keys, mode: str = "plan", **more: object) -> Approver:
    return Approver(mode, simulated=False, keys=keys, say=lambda line: None, **more)  # type: ignore[arg-type]


# -- keys --------------------------------------------------------------------------------------------------------------


def test_keys_come_without_enter_and_the_terminal_is_put_back(terminal: Terminal) -> None:
    person, program = terminal
    before = termios.tcgetattr(program)
    with Keys(program) as keys:
        assert keys.reading
        assert not local_mode(program) & termios.ICANON
        assert local_mode(program) & termios.ISIG  # Ctrl-C still is one
        began = time.monotonic()
        assert keys.pressed() == []
        assert time.monotonic() - began < 0.05
        os.write(person, b"pQ ")
        time.sleep(0.05)
        assert keys.pressed() == ["p", "q", " "]
    assert termios.tcgetattr(program) == before


def test_an_error_puts_the_terminal_back(terminal: Terminal) -> None:
    before = termios.tcgetattr(terminal[1])
    with pytest.raises(RuntimeError), Keys(terminal[1]):
        raise RuntimeError("planner")
    assert termios.tcgetattr(terminal[1]) == before


def test_where_there_is_no_terminal_there_are_no_keys(tmp_path: Path) -> None:
    read, write = os.pipe()
    with Keys(read) as keys:
        assert not keys.usable
        assert not keys.reading
        os.write(write, b"yyy")
        assert keys.pressed() == []
        assert keys.wait("y", 0.05) is None
    os.close(read)
    os.close(write)
    assert not Keys(-1).usable


@pytest.mark.parametrize("way", ["ctrl-c", "exception", "sys.exit"])
def test_a_real_program_leaves_the_terminal_as_it_was(way: str) -> None:
    """In a process of its own whose controlling terminal this is, as a person has it."""
    script = (
        "import sys, time\n"
        "from robots.keys import Keys\n"
        "from robots.operator import Operator\n"
        "with Operator() as operator, Keys() as keys:\n"
        "    print('reading' if keys.reading else 'deaf', flush=True)\n"
        "    while not operator.stop_requested:\n"
        "        for key in keys.pressed():\n"
        "            if key == 'x': raise RuntimeError('x')\n"
        "            if key == 'e': sys.exit(0)\n"
        "            print('key', key, flush=True)\n"
        "        time.sleep(0.01)\n"
    )
    child, end = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", script])
    try:
        before = termios.tcgetattr(end)
        said = b""
        while b"reading" not in said:
            said += os.read(end, 1000)
        os.write(end, b"\x1a")  # Ctrl-Z: a suspended program could not stop an arm
        os.write(end, b"p")
        while b"key p" not in said:
            said += os.read(end, 1000)
        os.write(end, {"ctrl-c": b"\x03", "exception": b"x", "sys.exit": b"e"}[way])
        due = time.monotonic() + 10
        ended = 0
        while not ended and time.monotonic() < due:
            ended, _ = os.waitpid(child, os.WNOHANG)
            time.sleep(0.02)
        assert ended == child
        assert termios.tcgetattr(end) == before
    finally:
        os.close(end)
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


# -- approval ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "word"), [("y", "yes"), ("n", "no"), ("q", "quit"), ("x?N", "no")])
def test_a_plan_is_approved_by_a_key(terminal: Terminal, key: str, word: str) -> None:
    with Keys(terminal[1]) as keys:
        approver = ask(keys)
        typed_later(terminal[0], key)
        answer = approver.ask("execute 3 steps")
    assert answer.word == word
    assert answer.by == "key"
    assert answer.yes == (word == "yes")


def test_what_was_typed_ahead_approves_nothing(terminal: Terminal) -> None:
    with Keys(terminal[1]) as keys:
        os.write(terminal[0], b"yyyy")
        time.sleep(0.05)
        answer = ask(keys, timeout_s=0.3).ask("execute")
    assert answer.word == "quit"
    assert "nobody answered within 0.3 s" in answer.sentence


def test_every_plan_is_asked_for_a_task_once(terminal: Terminal) -> None:
    with Keys(terminal[1]) as keys:
        approver = ask(keys, mode="task", timeout_s=0.3)
        typed_later(terminal[0], "y")
        assert approver.ask("execute", task="push").by == "key"
        assert approver.ask("execute", task="push").by == "earlier"
        assert not approver.ask("execute", task="lift").yes
        approver = ask(keys, timeout_s=0.3)
        typed_later(terminal[0], "y")
        assert approver.ask("execute", task="push").yes
        assert not approver.ask("execute", task="push").yes


def test_a_stop_ends_the_question(terminal: Terminal) -> None:
    stopped = threading.Event()
    threading.Timer(0.2, stopped.set).start()
    with Keys(terminal[1]) as keys:
        began = time.monotonic()
        answer = ask(keys, timeout_s=20.0, stopped=stopped.is_set).ask("execute")
    assert time.monotonic() - began < 2.0
    assert answer.word == "quit"
    assert "stopped meanwhile" in answer.sentence


def test_a_terminal_that_is_closed_approves_nothing(terminal: Terminal) -> None:
    with Keys(terminal[1]) as keys:
        threading.Timer(0.2, lambda: os.close(terminal[0])).start()
        answer = ask(keys, timeout_s=20.0).ask("execute")
    assert answer.word == "quit"
    assert "terminal is gone" in answer.sentence


def test_nobody_there_is_refused_at_the_door() -> None:
    with pytest.raises(ValueError, match="needs a terminal on which a person can answer; run it on a terminal"):
        Approver("plan", simulated=False, keys=Keys(-1), say=print)
    with pytest.raises(ValueError, match="approve=always"):
        Approver("task", simulated=True, keys=Keys(-1), say=print)
    with pytest.raises(ValueError, match="a real arm asks"):
        Approver("always", simulated=False, keys=Keys(-1), say=print)
    with pytest.raises(ValueError, match="approve=perhaps"):
        Approver("perhaps", simulated=True, keys=Keys(-1), say=print)
    assert Approver("always", simulated=True, keys=Keys(-1), say=print).ask("execute").by == "always"


# -- holding and pausing -----------------------------------------------------------------------------------------------


def test_a_press_on_a_terminal_runs_out(terminal: Terminal) -> None:
    time_s = [0.0]
    with Keys(terminal[1]) as keys:
        consent = Consent(TimedPress(3.0), keys, clock=lambda: time_s[0])
        first = consent.poll()
        assert not first.move
        assert "SPACE" in first.why
        os.write(terminal[0], b" ")
        time.sleep(0.05)
        assert consent.poll().move
        time_s[0] = 2.99
        assert consent.poll().move
        time_s[0] = 3.01
        assert not consent.poll().move
        assert not consent.poll().stop


def test_pause_go_on_and_stop(terminal: Terminal) -> None:
    def press(key: bytes) -> None:
        os.write(terminal[0], key)
        time.sleep(0.05)

    with Keys(terminal[1]) as keys:
        consent = Consent(Unneeded(), keys)
        assert consent.poll().move
        for pause, on in ((b"p", b"r"), (b" ", b" ")):
            press(pause)
            standing = consent.poll()
            assert not standing.move
            assert "paused" in standing.why
            press(on)
            assert consent.poll().move
        press(b"q")
        assert consent.poll().stop
        press(b"r ")
        assert consent.poll().stop  # a stop is for good


def test_a_press_during_a_pause_does_not_start_the_arm_later(terminal: Terminal) -> None:
    time_s = [0.0]
    with Keys(terminal[1]) as keys:
        consent = Consent(TimedPress(3.0), keys, clock=lambda: time_s[0])
        os.write(terminal[0], b"p ")
        time.sleep(0.05)
        assert not consent.poll().move
        time_s[0] = 5.0
        os.write(terminal[0], b"r")
        time.sleep(0.05)
        assert not consent.poll().move


def test_a_terminal_that_goes_away_stops_the_run(terminal: Terminal) -> None:
    with Keys(terminal[1]) as keys:
        consent = Consent(Unneeded(), keys)
        os.close(terminal[0])
        time.sleep(0.05)
        standing = consent.poll()
    assert standing.stop
    assert "terminal is gone" in standing.why


def test_a_pedal_brakes_when_let_go_and_stops_when_pulled_out(tmp_path: Path) -> None:
    path = tmp_path / "event0"
    os.mkfifo(path)
    source = enable(str(path), simulated=False, keys=Keys(-1), button="KEY_A")
    assert source.truly_held
    wire = os.open(path, os.O_WRONLY)
    consent = Consent(source)

    def send(value: int) -> None:
        os.write(wire, struct.pack("llHHi", 0, 0, EV_KEY, CODES["KEY_A"], value))

    assert not consent.poll().move
    send(1)
    assert consent.poll().move
    send(0)
    assert not consent.poll().move
    send(1)
    assert consent.poll().move
    os.close(wire)
    standing = consent.poll()
    assert standing.stop
    assert "is gone" in standing.why
    consent.close()


def test_polling_costs_next_to_nothing(terminal: Terminal, tmp_path: Path) -> None:
    path = tmp_path / "event0"
    os.mkfifo(path)
    with Keys(terminal[1]) as keys:
        source = Held(Button(path))
        wire = os.open(path, os.O_WRONLY)
        consent = Consent(source, keys)
        began = time.thread_time()
        for _ in range(1000):
            consent.poll()
        assert (time.thread_time() - began) / 1000 < 1e-4
        os.close(wire)


def test_sources_are_refused_in_sentences(terminal: Terminal) -> None:
    nobody = Keys(-1)
    with pytest.raises(ValueError, match="hold=none is for simulated arms"):
        enable("none", simulated=False, keys=nobody)
    with pytest.raises(ValueError, match="hold=terminal needs a terminal"):
        enable(None, simulated=False, keys=nobody)
    with pytest.raises(ValueError, match="known are none, terminal"):
        enable("pedal", simulated=False, keys=nobody)
    with pytest.raises(ValueError, match="plugged in"):
        enable("/dev/input/event4711", simulated=False, keys=nobody)
    with pytest.raises(ValueError, match=r"0\.1 to 10 s"):
        TimedPress(60.0)
    assert isinstance(enable(None, simulated=True, keys=nobody), Unneeded)
    assert isinstance(enable(None, simulated=False, keys=Keys(terminal[1])), TimedPress)
