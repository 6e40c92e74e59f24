"""The control loop: observe, propose, review, send; every step is recorded before the next one starts.

One step is sense, plan, act, in that order, and every step ends at rest; a stop brakes within the limits, in the middle of
a step too. Whatever ends the loop, the arm is held, parked and released.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robots.arm import JointTarget, Reading
from robots.consent import Answer, Consent, Standing
from robots.exits import Exit
from robots.guard import Verdict, request
from robots.limits import Limits
from robots.operator import Operator
from robots.side import Side, Wound
from robots.stop import Stage

# How often a person's keys are looked at while nothing moves.
POLL_S = 0.02
# A permission where nobody is asked need not be renewed.
FOREVER_S = 1e9


@dataclass(frozen=True)
class Proposal:
    """What the planner wants next.

    Attributes:
        action: (7,) physical end-effector action.
        uncertainty: the model's word on its plan, 1 = calibrated; None where it has none.
        plan: hash of the plan.
        note: a few words for the step's line.
        act_ms: wall time it took.
    """

    action: np.ndarray
    uncertainty: float | None
    plan: str
    note: str = ""
    act_ms: float = 0.0


@dataclass(frozen=True)
class Step:
    """One turn of the loop, as it is recorded; `sent` is None when the arm was to hold instead."""

    index: int
    reading: Reading
    proposal: Proposal
    verdict: Verdict
    sent: JointTarget | None


@dataclass
class LoopReport:
    """Whether the loop kept time.

    Attributes:
        period_s: what one step should take.
        arm_periods_s: from one observation to the next on the arm's clock; of the last step, to its end.
        phases_s: seconds of wall time a step spent in `observe`, `propose`, `review`, `send`, `show`.
    """

    period_s: float
    arm_periods_s: list[float] = field(default_factory=list)
    phases_s: dict[str, list[float]] = field(default_factory=dict)

    def add(self, phase: str, seconds: float) -> None:
        """Note how long a phase took."""
        self.phases_s.setdefault(phase, []).append(seconds)

    def to_dict(self) -> dict[str, Any]:
        """Numbers for the record, milliseconds."""
        periods = np.array(self.arm_periods_s or [0.0]) * 1000
        return {
            "wanted_ms": self.period_s * 1000,
            "steps": len(self.arm_periods_s),
            "period_ms_median": float(np.median(periods)),
            "period_ms_worst": float(periods.max()),
            "late": int((periods > self.period_s * 1000 * 1.05).sum()),
            "phases_ms": {
                name: {"median": float(np.median(values)) * 1000, "worst": float(max(values)) * 1000}
                for name, values in self.phases_s.items()
            },
        }

    def sentence(self) -> str:
        """The report in one line."""
        if not self.arm_periods_s:
            return "no step was completed"
        numbers = self.to_dict()
        phases = ", ".join(f"{n} {v['median']:.0f} (worst {v['worst']:.0f})" for n, v in numbers["phases_ms"].items())
        pace = "no time passed on the arm's clock"
        if numbers["period_ms_median"] > 0:
            pace = (
                f"{1000 / numbers['period_ms_median']:.2f} Hz on the arm's clock, {1 / self.period_s:g} wanted; "
                f"{numbers['late']} of {numbers['steps']} steps took longer"
            )
        return f"{pace}; wall time in ms a step: {phases}"


class Stopwatch:
    """Wall time from lap to lap, noted in a report."""

    def __init__(self, report: LoopReport) -> None:
        self._report = report
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """The time since the last lap belongs to this phase."""
        now = time.perf_counter()
        self._report.add(phase, now - self._last)
        self._last = now


@dataclass(frozen=True)
class Ending:
    """How the loop ended; `stream` is how well the arm's own rate was kept, empty in lockstep;
    `dropped` what the record is without."""

    code: Exit
    reason: str
    steps: int
    passed: int
    clamped: int
    vetoed: int
    report: LoopReport
    faults: tuple[str, ...] = ()
    stream: Mapping[str, Any] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)


def drive(
    side: Side,
    propose: Callable[[Reading], Proposal],
    operator: Operator,
    *,
    steps: int,
    limits: Limits,
    header: Mapping[str, Any] | None = None,
    consent: Consent | None = None,
    ask: Callable[[Reading, Proposal], Answer] | None = None,
    dry_run: bool = False,
    say: Callable[[str], None] = print,
    on_step: Callable[[Step], None] | None = None,
) -> Ending:
    """Run the loop for a number of steps and wind the arm down; does not raise for what an arm or planner does.

    Args:
        side: the arm's side, in this process or in another.
        propose: the planner.
        operator: who may stop it by signals.
        steps: how many.
        limits: for the length of a step, and how many vetoes end the run.
        header: words for the record.
        consent: the person's keys and hand, who may pause it; None where nobody needs to hold anything.
        ask: asks a person before a proposal is sent; None where nobody is to be asked.
        dry_run: everything but sending; the side was told so as well.
        say: told one line a step.
        on_step: told of every step after it was carried out (the rollout for Rerun).
    """
    report = LoopReport(limits.period_s)
    counts = {"passed": 0, "clamped": 0, "vetoed": 0}
    code, reason, done, in_a_row = Exit.DONE, f"all {steps} steps done", 0, 0
    prefix = "dry run, nothing sent: " if dry_run else ""
    began = ended = None
    known = ""  # why a monitor paused the arm, where the operator was told and goes on

    def standing() -> Standing:
        if operator.stop_requested:
            return Standing(False, True, "stopped by the operator")
        return Standing(True) if consent is None else consent.poll()

    def leave(when: str) -> tuple[bool, tuple[Exit, str] | None]:
        """Wait until keys and hand let the arm move: whether that took waiting; how and why the run ends, if it does."""
        nonlocal known
        told = ""
        while True:
            may, where = standing(), side.progress if side.held_by else None
            if may.stop:
                return bool(told), (Exit.STOPPED, f"{may.why} {when} step {done}")
            if where is not None and where.stage >= Stage.HELD:
                return bool(told), (Exit.FAULT, f"{when} step {done}: {where.reason}")
            why = where.reason if may.move and where is not None and where.by_hand else may.why
            if not why:
                break
            if why != told:
                say(f"{prefix}paused: {why}")
                told = why
            if may.move:  # the arm's side watches its button, and goes on by itself
                time.sleep(POLL_S)
                continue
            before = side.pause(may.why)
            if before and before != known:  # a hand that comes back has not looked at that
                known = before
                if consent is None or not consent.pause(before):
                    return bool(told), (Exit.FAULT, f"{when} step {done}: {before}, and nobody is there to go on")
            while not (may := standing()).move and not may.stop:
                time.sleep(POLL_S)
            if not may.stop:
                side.resume()
                known = ""
        if told:
            say(f"{prefix}going on")
        return bool(told), None

    try:
        side.begin(header or {})
        if ask is None:
            side.permit("the program: nobody was to be asked", lifetime_s=FOREVER_S)
        while done < steps:
            waited, over = leave("before")
            if over is not None:
                code, reason = over
                break
            if waited:
                began = ended = None  # a pause is no long step
            watch = Stopwatch(report)
            reading = side.observe()
            if began is not None:
                report.arm_periods_s.append(reading.monotonic_s - began)
            began = reading.monotonic_s
            watch.lap("observe")
            with operator.interruptible():
                proposal = propose(reading)
            watch.lap("propose")
            answer: Answer | None = None
            if ask is not None:
                # Who agrees to a plan has not agreed that a frozen camera does not matter.
                paused = not side.pause("asking the operator")
                answer = ask(reading, proposal)
                if answer.word == "quit":
                    code, reason = Exit.STOPPED, f"{answer.sentence}, in step {done}"
                    break
                if paused:
                    side.resume()
                if not answer.yes:
                    say(f"{prefix}{answer.sentence}: planning anew")
                    continue
                side.permit(answer.sentence, proposal.action if answer.of == "plan" else None)
                if answer.of == "task":
                    ask = None  # approved for the whole run
            waited, over = leave("in")  # obeyed before anything is sent
            if over is not None:
                code, reason = over
                break
            if answer is not None:
                reading = side.observe()  # the answer took its time, and so may the hand have
                began = reading.monotonic_s
            elif waited:
                continue  # what was seen is old
            asked = request(proposal.action, reading.monotonic_s, proposal.uncertainty, proposal.plan)
            verdict = side.submit(done, asked)
            counts[verdict.outcome] += 1
            watch.lap("review")
            progress = side.finish(lambda: not standing().move)
            watch.lap("send")
            step = Step(done, reading, proposal, verdict, None if dry_run else verdict.target)
            if on_step is not None:
                on_step(step)
            watch.lap("show")
            done += 1
            ended = progress.arm_s
            say(prefix + line(step) + ("" if progress.whole else "; braked before its end"))
            if progress.stage >= Stage.HELD:
                code, reason = Exit.FAULT, f"in step {step.index}: {progress.reason}"
                break
            in_a_row = in_a_row + 1 if verdict.outcome == "vetoed" and not progress.by_hand else 0
            if in_a_row >= limits.vetoes_in_a_row:
                code = Exit.VETOED
                reason = f"vetoed {in_a_row} times in a row, the last time because {verdict.sentence}"
                break
            by_monitor = progress.stage is Stage.PAUSED and not progress.by_hand
            if by_monitor:
                known = progress.reason
                if consent is None or not consent.pause(known):
                    code, reason = Exit.FAULT, f"in step {step.index}: {known}, and nobody is there to go on"
                    break
        else:
            if operator.stop_requested:
                code, reason = Exit.STOPPED, f"stopped by the operator in step {done - 1}, the last"
    except KeyboardInterrupt:
        code, reason = Exit.STOPPED, f"stopped by the operator in step {done}"
    except Exception as error:  # whatever a driver, a planner or a full disk does, the arm is wound down
        code, reason = Exit.FAULT, f"{type(error).__name__} in step {done}: {error}"

    def tell(words: str) -> None:
        with contextlib.suppress(Exception):  # who cannot be told must not keep the arm from being parked
            say(words)

    if began is not None and ended is not None and ended > began:
        report.arm_periods_s.append(ended - began)  # of the last step: nothing came after it
    tell(f"{prefix}ending: {reason}")
    try:
        wound = side.end(code, reason, report.to_dict(), tell)
    except Exception as error:  # the other process is gone, and has said what it could
        wound = Wound((f"the arm's side could not wind the arm down: {error}",))
    if wound.faults and code is not Exit.FAULT:
        code, reason = Exit.FAULT, f"{reason}; then {wound.faults[0]}"
    return Ending(
        code, reason, done, **counts, report=report, faults=wound.faults, stream=wound.stream, dropped=wound.dropped
    )


def line(step: Step) -> str:
    """One step in one line."""
    asked = np.asarray(step.proposal.action, dtype=np.float64)
    moves = "  ".join(f"{name} {asked[i] * 100:+5.1f} cm" for i, name in enumerate(("dx", "dy", "dz")))
    note = f"  {step.proposal.note}" if step.proposal.note else ""
    why = "" if step.verdict.outcome == "passed" else f"  because {step.verdict.sentence}"
    held = "; the arm holds" if step.verdict.outcome == "vetoed" else ""
    return f"step {step.index:3d}  {step.verdict.outcome:7s}  {moves}{note}{why}{held}"
