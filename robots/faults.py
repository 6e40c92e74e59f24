"""Breaking things on purpose: every fault an arm's day may bring, injected again and again, and what came of each.

`python -m robots.faults times=10 out=outputs/faults` runs LeRobot's unmodified driver on the emulated SO-101 with its arm's
side in a process of its own, breaks one thing in the middle of a run, and holds what followed against what is documented: how
the run ended, within what time the arm was told to stop, and where it stands. A killed run goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from robots import blackbox
from robots.arm import Reading
from robots.emulated.so101 import EmulatedSO101
from robots.exits import Exit
from robots.limits import Limits
from robots.loop import Proposal, drive
from robots.operator import Operator
from robots.remote import RemoteStation

LIMITS_FILE = Path(__file__).resolve().parent.parent / "configs" / "guard" / "so101.yaml"
# A run is so long; what is broken is broken in its second second.
STEPS, BREAK_AT_STEP = 18, 3
LAST_S = 0.1  # what may be missing from the record of a process that was killed
# An arm that was parked and let go sinks onto its stops.
RELEASED_RAD = 0.25
# The guard lets 2.5 rad/s through, the servos are told never to go faster than 3.
FASTEST_RAD_S = 3.0


@dataclass
class Trial:
    """One run that is about to be disturbed.

    Attributes:
        emulated: the arm's hardware.
        record: the black box's file.
        side: the arm's side; None where another process plans.
        operator: who may stop it.
        planner: the process that plans, where it is another.
        arm: the arm's process.
        bad: what the planner proposes from now on, if anything else than gentle movements.
    """

    emulated: EmulatedSO101
    record: Path
    side: RemoteStation | None = None
    operator: Operator | None = None
    planner: subprocess.Popen[str] | None = None
    arm: int = 0
    bad: Callable[[Reading], Proposal] | None = None


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong, and what is to come of it.

    Attributes:
        name: in a word or two.
        inject: does it, at any moment of a run.
        code: how the run ends.
        words: a pattern that the reason for it matches.
        state: where the arm ends: `parked` (and let go), or `held` (where it stopped, its servos on).
        deadline_s: within what time of the fault the arm is told to stop; None where nothing has to be stopped.
        elsewhere: whether the planner is a process of its own.
        camera: whether the arm's camera is needed.
    """

    name: str
    inject: Callable[[Trial], object]
    code: Exit
    words: str
    state: str
    deadline_s: float | None
    elsewhere: bool = False
    camera: bool = False


def _servo(kind: str, **how: Any) -> Callable[[Trial], object]:
    return lambda trial: trial.emulated.fault(kind, **how)


def _signal(number: signal.Signals, *, arm: bool = False) -> Callable[[Trial], object]:
    def send(trial: Trial) -> None:
        process = trial.arm if arm else trial.planner.pid if trial.planner is not None else os.getpid()
        os.kill(process, number)

    return send


def _proposes(proposal: Callable[[Reading], Proposal]) -> Callable[[Trial], object]:
    def from_now(trial: Trial) -> None:
        trial.bad = proposal

    return from_now


def _full_disk(trial: Trial) -> None:
    """The arm's process may not write another byte to any file."""
    size = trial.record.stat().st_size
    resource.prlimit(trial.arm, resource.RLIMIT_FSIZE, (size, size))


def _noise(trial: Trial) -> None:
    assert trial.side is not None
    trial.side._link._socket.sendall(b"\xff" * 64)


def _raises(reading: Reading) -> Proposal:
    raise RuntimeError("the model's file is gone")


def _hangs(reading: Reading) -> Proposal:
    time.sleep(1.5)
    return gentle(reading)


def _thinks_on(reading: Reading) -> Proposal:
    time.sleep(0.6)
    return gentle(reading)


def _of(action: Any, doubt: float | None = 0.5) -> Callable[[Reading], Proposal]:
    return lambda reading: Proposal(np.asarray(action, dtype=np.float64), doubt, "plan")


# What a run without a fault ends with: nothing has to be stopped.
DONE = "all 18 steps done"
PARKED, HELD = "parked", "held"
PAN, LIFT, WRIST = "shoulder_pan", "shoulder_lift", "wrist_flex"
FAULTS = {
    fault.name: fault
    for fault in (
        # -- the device
        Fault("dead servo", _servo("dead", servo="elbow_flex"), Exit.FAULT, "elbow_flex|answer", HELD, 0.5),
        Fault("silent bus", _servo("silent"), Exit.FAULT, "answer", HELD, 0.5),
        Fault("cable pulled", _servo("unplug"), Exit.FAULT, ".", HELD, 0.5),
        Fault("answers garbled for good", _servo("corrupt", count=100_000), Exit.FAULT, ".", HELD, 0.5),
        Fault("two answers garbled", _servo("corrupt", count=2), Exit.DONE, DONE, PARKED, None),
        Fault("answers late", _servo("late", seconds=0.3), Exit.FAULT, ".", HELD, 1.0),
        Fault("one answer in a thousand lost", _servo("lost", share=0.001), Exit.DONE, DONE, PARKED, None),
        Fault("overload bit", _servo("error", servo=LIFT, bit="overload"), Exit.FAULT, "overload", PARKED, 3.0),
        Fault("too hot", _servo("temperature", servo=WRIST, celsius=71), Exit.FAULT, f"{WRIST} is 71 C", PARKED, 3.0),
        Fault("load", _servo("load", servo=LIFT, share=0.97), Exit.FAULT, f"{LIFT} bears 97 %", PARKED, 3.0),
        Fault("jammed joint", _servo("jam", servo=LIFT), Exit.FAULT, f"{LIFT} (is .* from where it was|bears)", HELD, 6.0),
        Fault("servo lets go", _servo("limp", servo=LIFT), Exit.FAULT, ".", HELD, 3.0),
        Fault("camera frozen", _servo("camera", value="frozen"), Exit.FAULT, "front", PARKED, 1.2, camera=True),
        Fault("camera silent", _servo("camera", value="silent"), Exit.FAULT, "front", PARKED, 1.5, camera=True),
        # -- the planner
        Fault("planner raises", _proposes(_raises), Exit.FAULT, "the model's file is gone", PARKED, None),
        Fault("planner hangs", _proposes(_hangs), Exit.FAULT, "the question to the planner", PARKED, 1.9),
        Fault("planner too late", _proposes(_thinks_on), Exit.VETOED, "looked at .* s ago", PARKED, None),
        Fault("planner proposes NaN", _proposes(_of([np.nan] * 7)), Exit.VETOED, r"action\[0\] is nan", PARKED, None),
        Fault("planner proposes 10 m", _proposes(_of([10.0, *[0.0] * 6])), Exit.VETOED, "m", PARKED, None),
        Fault("planner doubts", _proposes(_of(np.zeros(7), 50.0)), Exit.VETOED, "does not trust", PARKED, None),
        # -- processes and people
        Fault("planner killed", _signal(signal.SIGKILL), Exit.FAULT, "planner's process", PARKED, 0.15, True),
        Fault("planner stopped", _signal(signal.SIGSTOP), Exit.FAULT, "no sign of life", PARKED, 0.15, True),
        Fault("Ctrl-C", _signal(signal.SIGINT), Exit.STOPPED, "by the operator", PARKED, 0.5, True),
        Fault("terminal closed", _signal(signal.SIGHUP), Exit.STOPPED, "by the operator", PARKED, 0.5, True),
        Fault("arm's side told to end", _signal(signal.SIGTERM, arm=True), Exit.FAULT, "SIGTERM", PARKED, 0.15),
        Fault("arm's side killed", _signal(signal.SIGKILL, arm=True), Exit.FAULT, "ended by SIGKILL", HELD, None),
        Fault("disk full", _full_disk, Exit.FAULT, "File too large|No space|recorded", PARKED, None),
        Fault("noise on the link", _noise, Exit.FAULT, ".", PARKED, 0.15),
    )
}  # fmt: skip


def gentle(reading: Reading) -> Proposal:
    """Circles over the table, one or two centimetres a step."""
    angle = 1.3 * reading.monotonic_s
    action = np.array([0.012 * np.cos(angle), 0.02 * np.sin(angle), 0.006 * np.cos(2 * angle), 0, 0, 0, 0])
    time.sleep(0.03)  # as if searching
    return Proposal(action, 0.5, "plan")


@dataclass
class Outcome:
    """What became of a trial.

    Attributes:
        right: whether all of it was as documented.
        wrong: what was not, in sentences.
        stopped_s: between the fault and the word that stopped the arm; None where there was none.
    """

    fault: str
    number: int
    right: bool
    wrong: list[str] = field(default_factory=list)
    stopped_s: float | None = None
    reason: str = ""


def attempt(fault: Fault, number: int, folder: Path) -> Outcome:
    """One run with one fault, at a moment of its own."""
    rng = np.random.default_rng([20_000 + number, *fault.name.encode()])
    delay_s = float(rng.uniform(0.0, 0.4))
    from envs import so101

    record = folder / "blackbox.jsonl"
    with EmulatedSO101(seed=number, joints=so101.HOME_JOINTS.tolist(), holding=True) as emulated:
        settings: dict[str, Any] = {"type": "so101_follower", **emulated.settings, "image_size": 64}
        if not fault.camera:
            settings["cameras"] = {}
        trial = Trial(emulated, record)
        run = _run_elsewhere if fault.elsewhere else _run_here
        broken_s, code, reason = run(trial, fault, settings, delay_s)
        time.sleep(0.7)  # servos arrive where they were sent last
        fastest = emulated.truth()["fastest"]  # of the whole run
        time.sleep(0.3)
        truth = {**emulated.truth(), "ever": fastest}
        return _judge(fault, number, trial, broken_s, code, reason, truth)


def _run_here(trial: Trial, fault: Fault, settings: Mapping[str, Any], delay_s: float) -> tuple[float, int, str]:
    """This process plans. Returns when it was broken (wall time), the exit code and the reason."""
    limits = Limits.load(LIMITS_FILE)
    words = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(limits).items()}
    broken: list[float] = []

    def inject() -> None:
        time.sleep(delay_s)
        broken.append(time.time())
        fault.inject(trial)

    steps = 0

    def propose(reading: Reading) -> Proposal:
        nonlocal steps
        if steps == BREAK_AT_STEP:
            threading.Thread(target=inject, daemon=True).start()
        steps += 1
        return gentle(reading) if trial.bad is None else trial.bad(reading)

    with Operator() as operator, RemoteStation("lerobot", settings, words, trial.record) as side:
        trial.side, trial.operator, trial.arm = side, operator, side.process.pid
        ending = drive(side, propose, operator, steps=STEPS, limits=limits, say=lambda line: None)
    # A run that ended before anything was broken did not wait for it.
    return (broken or [time.time()])[0], int(ending.code), ending.reason


def _run_elsewhere(trial: Trial, fault: Fault, settings: Mapping[str, Any], delay_s: float) -> tuple[float, int, str]:
    """Another process plans, so that it can be killed."""
    job = {"settings": dict(settings), "record": str(trial.record)}
    trial.planner = subprocess.Popen(
        [sys.executable, "-m", "robots.faults", "plan", json.dumps(job)], stdout=subprocess.PIPE, text=True
    )
    assert trial.planner.stdout is not None
    broken_s, said = 0.0, []
    for line in trial.planner.stdout:
        said.append(line)
        if line.startswith("arm "):
            trial.arm = int(line.split()[1])
        if line.startswith(f"step {BREAK_AT_STEP:3d}"):
            time.sleep(delay_s)
            broken_s = time.time()
            fault.inject(trial)
            break
    due = time.monotonic() + 60.0
    while trial.planner.poll() is None and time.monotonic() < due:
        if _ended(trial.record):
            with contextlib.suppress(ProcessLookupError):
                os.kill(trial.planner.pid, signal.SIGCONT)
        time.sleep(0.05)
    while not _ended(trial.record) and time.monotonic() < due:  # the arm's side outlives the planner
        time.sleep(0.05)
    trial.planner.kill()
    lines = blackbox.read(trial.record)
    end = next((line for line in reversed(lines) if line["kind"] == "end"), {})
    return broken_s, int(end.get("code", -1)), str(end.get("reason", "there is no end in the record"))


def _ended(record: Path) -> bool:
    return record.is_file() and any(line["kind"] == "end" for line in blackbox.read(record))


def _plan(job: Mapping[str, Any]) -> int:
    """The other process: what `_run_here` does, without the fault."""
    limits = Limits.load(LIMITS_FILE)
    words = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(limits).items()}
    with Operator() as operator, RemoteStation("lerobot", job["settings"], words, job["record"]) as side:
        print(f"arm {side.process.pid}", flush=True)
        say = lambda line: print(line, flush=True)  # noqa: E731
        return int(drive(side, gentle, operator, steps=STEPS, limits=limits, say=say).code)


def _judge(
    fault: Fault, number: int, trial: Trial, broken_s: float, code: int, reason: str, truth: Mapping[str, Any]
) -> Outcome:
    """What happened, against what is documented."""
    wrong: list[str] = []
    lines = blackbox.read(trial.record)
    after = [line for line in lines if line["wall_s"] >= broken_s - 1e-3]
    stops = [line for line in after if line["kind"] in ("trip", "pause", "ending", "stop")]
    stopped_s = stops[0]["wall_s"] - broken_s if stops else None
    if code != fault.code:
        wrong.append(f"it ended with code {code}, not {int(fault.code)}")
    if not re.search(fault.words, reason):
        wrong.append(f"its reason does not say {fault.words!r}: {reason}")
    if fault.deadline_s is not None and (stopped_s is None or stopped_s > fault.deadline_s):
        wrong.append(f"the arm was told to stop after {stopped_s} s (deadline {fault.deadline_s:g} s)")
    killed = fault.name == "arm's side killed"
    full = fault.name == "disk full"
    found = blackbox.verify(trial.record)
    if not killed and not full and not found.complete:
        wrong.append(f"the record is {found.sentence}")
    if killed and broken_s - lines[-1]["wall_s"] > LAST_S + 0.05:
        wrong.append(f"the record ends {broken_s - lines[-1]['wall_s']:.3f} s before the kill")
    wrong += _wrong_state(fault, truth)
    return Outcome(fault.name, number, not wrong, wrong, stopped_s, reason)


def _wrong_state(fault: Fault, truth: Mapping[str, Any]) -> list[str]:
    """Where the arm really is, by the emulator's own word."""
    from envs import so101

    wrong = []
    arm = so101.MOTORS[:-1]
    away = max(abs(truth["joints"][name] - parked) for name, parked in zip(arm, so101.PARK_JOINTS, strict=True))
    off = [name for name, on in truth["torque"].items() if not on]
    if fault.state == "parked":
        if away > RELEASED_RAD:
            wrong.append(f"a joint is {away:.2f} rad from the park pose")
        if len(off) < len(so101.MOTORS):
            wrong.append("its servos are still on")
    # A servo that let go by itself cannot be held; all others are, and at rest.
    falls = fault.name == "servo lets go"
    if fault.state == "held" and not falls:
        if off:
            wrong.append(f"{', '.join(off)} let go")
        if max(truth["fastest"][name] for name in arm) > 0.05:
            wrong.append(f"a joint moves at {max(truth['fastest'].values()):.2f} rad/s")
    if not falls and (ever := max(truth["ever"][name] for name in arm)) > FASTEST_RAD_S:
        wrong.append(f"a joint went at {ever:.2f} rad/s")
    return wrong


# -- the command -----------------------------------------------------------------------------------------------------


def run(names: list[str], times: int, out: Path, say: Callable[[str], None] = print) -> list[Outcome]:
    """Every fault so many times; what was done before is not done again."""
    out.mkdir(parents=True, exist_ok=True)
    done_file = out / "faults.jsonl"
    done = [Outcome(**json.loads(line)) for line in done_file.read_text().splitlines()] if done_file.is_file() else []
    finished = {(each.fault, each.number) for each in done}
    waiting = [(name, number) for number in range(times) for name in names if (name, number) not in finished]
    begun = time.monotonic()
    for count, (name, number) in enumerate(waiting, 1):
        with tempfile.TemporaryDirectory(prefix="fault-") as folder:
            outcome = attempt(FAULTS[name], number, Path(folder))
        done.append(outcome)
        with open(done_file, "a") as file:
            file.write(json.dumps(vars(outcome)) + "\n")
        left = (time.monotonic() - begun) / count * (len(waiting) - count)
        verdict = "ok" if outcome.right else "WRONG: " + "; ".join(outcome.wrong)
        took = "" if outcome.stopped_s is None else f" after {1000 * outcome.stopped_s:.0f} ms"
        say(f"{count}/{len(waiting)}  {left / 60:.0f} min left  {name} {number}{took}  {verdict}")
    return done


def table(done: list[Outcome]) -> str:
    """One line a fault."""
    lines = ["| fault | as documented | told to stop within, ms | deadline | ends |", "| --- | --- | --- | --- | --- |"]
    for name, fault in FAULTS.items():
        mine = [each for each in done if each.fault == name]
        if not mine:
            continue
        times = [1000 * each.stopped_s for each in mine if each.stopped_s is not None]
        worst = f"{max(times):.0f}" if times and fault.deadline_s is not None else "-"
        deadline = "-" if fault.deadline_s is None else f"{1000 * fault.deadline_s:.0f}"
        lines.append(
            f"| {name} | {sum(each.right for each in mine)} of {len(mine)} | {worst} | {deadline} | "
            f"{fault.code.name.lower()}, {fault.state} |"
        )
    return "\n".join(lines)


def main(words: list[str]) -> int:
    """`times=10 out=FOLDER [only=NAME,NAME]`; or `plan JOB`, for the process that is to be killed."""
    if words[:1] == ["plan"]:
        return _plan(json.loads(words[1]))
    said = dict(word.split("=", 1) for word in words)
    names = said.get("only", ",".join(FAULTS)).split(",")
    done = run(
        names, int(said.get("times", 1)), Path(said.get("out", "outputs/faults")), lambda line: print(line, flush=True)
    )
    print(table(done))
    return 0 if all(each.right for each in done) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
