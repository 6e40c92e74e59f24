"""`premotor robots` as a person calls it: its words, its lines, its exit codes, its questions on a terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import premotor
from robots import blackbox, connect
from robots.commands import find_ports
from robots.exits import Exit
from robots.keys import Keys

ROOT = Path(premotor.__file__).parent
# An arm like a real one: it keeps wall time and somebody must say yes.
REAL = """
from robots.simulated import MujocoArm

class RealArm(MujocoArm):
    simulated = False

    def __init__(self):
        super().__init__(pace="real")
"""
REAL_WORDS = ("robot.name=my_arm:RealArm", "speed=0.4")


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """The front door, in a folder where a real-like arm lies."""
    (tmp_path / "my_arm.py").write_text(REAL)
    monkeypatch.chdir(tmp_path)
    return lambda *words: premotor.main(["robots", *words])


def records(folder: Path) -> list[Path]:
    return sorted((folder / "outputs/robots").glob("*/blackbox.jsonl"))


def test_the_list_is_the_default(call, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    assert call() == call("list") == call("action=list") == 0
    said = capsys.readouterr().out
    for words in ("mujoco ", "pybullet ", "so101_follower", "serial ports:", "pedals, gamepads"):
        assert words in said


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("docter",), "robots has no action 'docter'; did you mean doctor?"),
        (("action=prak",), "robots has no action 'prak'; did you mean park?"),
        (("park", "robot=mujocco"), "robot has no choice 'mujocco'; did you mean mujoco?"),
        (("park", "confrim=true"), "did you mean confirm?"),
        (("park", "speed=fast"), "speed=fast"),
        (("doctor", "rehearse_s=-1"), "rehearse_s=-1"),
    ],
)
def test_wrong_words_get_the_nearest_right_one(  # type: ignore[no-untyped-def]
    call, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], hint: str
) -> None:
    assert call(*words) == premotor.BAD_INPUT
    assert hint in capsys.readouterr().err


def test_models_takes_its_action_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert premotor.main(["models", "list"]) == 0
    assert premotor.main(["models", "lits"]) == premotor.BAD_INPUT
    assert "did you mean list?" in capsys.readouterr().err


def test_the_doctor_says_one_line_a_check(call, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    code = call("doctor", "rehearse_s=0.5", "camera_s=0.1")
    said = capsys.readouterr().out
    failed = [line for line in said.splitlines() if line.startswith("no ")]
    assert code == (Exit.REFUSED if failed else Exit.DONE)
    assert all(line.startswith("no  loop") for line in failed)  # on a busy machine
    assert "nothing moved" in said


def test_a_picture_is_a_goal_as_the_run_would_see_it(  # type: ignore[no-untyped-def]
    call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("picture", f"out={tmp_path}") == Exit.DONE
    said = capsys.readouterr().out
    (place,) = tmp_path.glob("*-picture/front.png")
    assert f"premotor run goal={place}" in said
    with connect("mujoco") as arm:
        np.testing.assert_array_equal(
            np.array(Image.open(place)), arm.observe().observation["observation.images.front"]
        )


def test_parking_ends_parked_and_on_record(call, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert call("park") == Exit.DONE
    (path,) = records(tmp_path)
    lines = blackbox.read(path)
    assert blackbox.verify(path).complete
    assert {"software_hash", "limits_hash", "arm_identity"} <= set(lines[0])
    moved = [line for line in lines if line["kind"] == "moved"]
    (approval,) = (line for line in lines if line["kind"] == "approval")
    assert moved[-1]["measured"] == pytest.approx(approval["joints"], abs=0.02)
    assert max(np.abs(line["velocity"]).max() for line in moved) <= 0.4 + 1e-6
    assert lines[-1]["outcome"] == "done"
    assert premotor.main(["review", f"run={path.parent}", "verify=true"]) == 0


def test_a_dry_run_sends_and_writes_nothing(call, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    assert call("home", "--dry-run") == Exit.DONE
    assert "dry run, nothing sent: would move" in capsys.readouterr().out
    assert call("release", "force=true", "dry_run=true") == Exit.DONE
    assert records(tmp_path) == []


def test_an_arm_that_is_not_parked_is_not_let_go(call, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    assert call("release") == Exit.REFUSED
    assert "may drop; park it first" in capsys.readouterr().out
    assert call("release", "force=true") == Exit.DONE


def test_limits_of_another_arm_are_refused(call, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    assert call("park", "guard.joint_names=[a,b,c,d,e,f,g]") == Exit.REFUSED
    assert "the limits are for a, b, c" in capsys.readouterr().out


def test_a_setting_without_a_default_can_be_said(call, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    assert call("doctor", "robot=franka", "guard=fr3", "robot.address=127.0.0.1") == Exit.REFUSED
    assert "no  " in capsys.readouterr().out  # the driver or the device is not there; the word was understood


def test_a_real_arm_needs_a_rated_stop_and_a_yes(call, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    assert call("park", *REAL_WORDS, "confirm=true") == Exit.REFUSED
    assert "give rated_stop_confirmed=true" in capsys.readouterr().out
    assert call("park", *REAL_WORDS, "rated_stop_confirmed=true") == Exit.REFUSED
    assert "nobody here can say yes" in capsys.readouterr().out
    assert call("release", *REAL_WORDS, "force=true") == Exit.REFUSED
    assert records(tmp_path) == []
    assert call("park", *REAL_WORDS, "rated_stop_confirmed=true", "confirm=true", "hold=/dev/input/x") == Exit.REFUSED
    assert "plugged in" in capsys.readouterr().out


# -- on a terminal -----------------------------------------------------------------------------------------------------


def on_terminal(folder: Path, answers: list[tuple[bytes, bytes]], *words: str) -> tuple[int, str]:
    """Run the command in a terminal of its own; each answer is typed when its cue has been read."""
    child, end = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.execv(sys.executable, [sys.executable, str(ROOT / "premotor.py"), "robots", *words])
    said, code, waiting = b"", -1, list(answers)
    due = time.monotonic() + 240
    try:
        while time.monotonic() < due:
            try:
                said += os.read(end, 4096)
            except OSError:  # it has ended
                break
            if waiting and waiting[0][0] in said:
                time.sleep(0.3)
                os.write(end, waiting.pop(0)[1])
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
    finally:
        os.close(end)
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGKILL)
    assert not waiting, said.decode()
    return code, said.decode()


@pytest.mark.slow
def test_yes_on_a_terminal_and_q_on_the_way(tmp_path: Path) -> None:
    (tmp_path / "my_arm.py").write_text(REAL)
    words = ("park", *REAL_WORDS, "rated_stop_confirmed=true")
    code, said = on_terminal(tmp_path, [(b"(120 s)", b"y"), (b"q stops", b"q")], *words)
    assert code == Exit.STOPPED, said
    assert "braking: stopped by the operator (key q)" in said
    (path,) = records(tmp_path)
    lines = blackbox.read(path)
    assert blackbox.verify(path).complete
    assert [line["kind"] for line in lines if line["kind"] == "brake"] == ["brake"]
    assert lines[-1]["outcome"] == "stopped"
    moved = [line for line in lines if line["kind"] == "moved"]
    assert np.abs(moved[-1]["velocity"]).max() < 1e-9  # at rest


@pytest.mark.slow
def test_no_on_a_terminal_moves_nothing_and_ctrl_c_brakes(tmp_path: Path) -> None:
    (tmp_path / "my_arm.py").write_text(REAL)
    words = ("park", *REAL_WORDS, "rated_stop_confirmed=true")
    code, said = on_terminal(tmp_path, [(b"(120 s)", b"n")], *words)
    assert code == Exit.STOPPED
    assert "the operator said no" in said
    assert records(tmp_path) == []
    code, said = on_terminal(tmp_path, [(b"(120 s)", b"y"), (b"q stops", b"\x03")], *words)
    assert code == Exit.STOPPED, said
    assert "braking: stopped by the operator" in said
    assert blackbox.read(records(tmp_path)[0])[-1]["outcome"] == "stopped"


def test_finding_a_port_by_unplugging_it(tmp_path: Path) -> None:
    person, program = pty.openpty()
    port = tmp_path / "ttyACM3"
    port.touch()
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if line.startswith("unplug"):
            threading.Timer(0.1, lambda: (port.unlink(), os.write(person, b"y"))).start()
        elif line.startswith("plug it in"):
            threading.Timer(0.1, lambda: (port.touch(), os.write(person, b"y"))).start()

    with Keys(program) as keys:
        assert find_ports(keys, say, lambda: False, tmp_path, timeout_s=5.0) is Exit.DONE
    assert f"it was: {port}" in said
    assert any(line.startswith(f"it is: {port}") for line in said)
    nothing: list[str] = []
    assert find_ports(Keys(-1), nothing.append, lambda: False, tmp_path) is Exit.DONE
    assert "run this on a terminal" in nothing[-1]
    os.close(person)
    os.close(program)
