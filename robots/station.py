"""The arm's side: it owns the arm, the guard, the streamer and the record, and nothing reaches the arm but through it.

`Station` is that side within one process; `robots.arm_process` serves one to a planner in another.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from robots.arm import Arm, ArmError, Health, JointTarget, Measured, Reading
from robots.blackbox import BlackBox
from robots.cadence import Cadence
from robots.consent import Enable
from robots.exits import Exit
from robots.guard import Guard, State, Verdict
from robots.monitors import HEALTH_EVERY_S, Memory, Signs, look
from robots.parking import park
from robots.permit import Bond, Permit, Permits, plan_hash
from robots.plancheck import PlanCheck, check_plan
from robots.scene import Scene
from robots.side import About, Progress, Wound
from robots.stop import SoftwareStop, Stage, wind_down
from robots.stream import SETTLE_SHARE, Streamer

# What was sent and measured goes into the record in lines of this many seconds: no more than that is lost with a killed
# process, and writing takes no time to speak of.
LINE_S = 0.1
# A cadence need not be watched closer than this.
LOOKS_PER_SECOND = 100.0


@dataclass
class _Line:
    """Ticks that wait to be written together."""

    at_s: list[float] = field(default_factory=list)
    sent: list[np.ndarray] = field(default_factory=list)
    measured: list[np.ndarray] = field(default_factory=list)


class Station:
    """One arm with its guard, in this process.

    Args:
        arm: connected.
        guard: what it asks.
        open_record: makes the black box, when the run begins.
        dry_run: everything but sending.
        hand: a button that must be held for the arm to move; looked at before every tick, whatever the planner does.
    """

    def __init__(
        self,
        arm: Arm,
        guard: Guard,
        open_record: Callable[..., BlackBox],
        *,
        dry_run: bool = False,
        hand: Enable | None = None,
    ) -> None:
        self.arm, self.guard, self.dry_run, self._hand = arm, guard, dry_run, hand
        self._late_s = 0.0  # of the ticks in motion since the last look
        self._from_rest = False  # the next tick is the first of a movement: a review that took long is no late tick
        self._by_hand = False  # paused because the button was let go, and for no other reason
        self.about = About.of(arm)
        self.stop = SoftwareStop()
        self._key = self.stop.key()
        self.cadence = Cadence(arm.rate_hz)
        self._open_record = open_record
        self._box: BlackBox | None = None
        self._seen: Reading | None = None
        self._asked_s: float | None = None  # since when a plan is awaited
        self._memory = Memory()
        self._health: Health | None = None
        self._health_s = -HEALTH_EVERY_S
        self._permits = Permits(secrets.token_bytes(32))
        self._permit: Permit | None = None
        self._goal = ""
        self._aim: np.ndarray | None = None
        self._left = 0  # ticks of the step under way
        self._braked = self._blind = self._over = False
        self._line = _Line()
        self._look_every = max(1, round(arm.rate_hz / LOOKS_PER_SECOND))
        self._ticks = 0

    @property
    def scene(self) -> Scene | None:
        """What only a simulation can say; None for a real arm."""
        return self.arm.scene

    @property
    def held_by(self) -> str:
        """The button that lets it move, in a sentence; empty where there is none."""
        return "" if self._hand is None else self._hand.about

    @property
    def begun(self) -> bool:
        """Whether there is a record, and the arm is ours to move."""
        return self._box is not None

    @property
    def busy(self) -> bool:
        """Whether a step is under way."""
        return self.begun and not self.dry_run and (self._left > 0 or self._streamer.moving)

    def observe(self) -> Reading:
        """Look, with the cameras."""
        self._seen = seen = self.arm.observe()
        if self.begun:
            self._asked_s = self.arm.now()
            pictures = {} if self.arm.lockstep else _digests(seen)
            signs = Signs(
                self.arm.now(),
                camera_s=seen.camera_s,
                pictures=pictures,
                noisy=not self.arm.simulated,
                joints=seen.observation["observation.joints"],
            )
            self._judge(signs)
        return seen

    def measure(self) -> Measured:
        """Look quickly, without."""
        return self.arm.measure()

    def begin(self, header: Mapping[str, Any]) -> None:
        """Open the record and hold the arm where it is; once."""
        if self.begun or self._over:
            raise ArmError("the run has begun already; another one needs a new connection")
        box = self._open_record(**header)
        try:
            start = self._measured() if self.dry_run else self.arm.hold()
            self._streamer = Streamer(self.guard.limits.bounds, self.arm.rate_hz, start)
        except Exception as error:
            self._over = True
            with contextlib.suppress(OSError, ValueError):
                reason = f"the arm could not be held at the beginning: {error}"
                box.close(code=int(Exit.FAULT), outcome="fault", reason=reason)
            raise
        self._goal, self._box = str(header.get("goal_hash") or "no goal"), box

    def check(self, actions: np.ndarray, uncertainty: float | None) -> PlanCheck:
        """Look at a whole plan (H, 7) from where the arm is; nothing is sent."""
        seen = self._seen or self.observe()
        state = State(
            seen.observation["observation.state"],
            seen.observation["observation.joints"],
            self._sent(seen) if self.begun else self._measured(),
            self._aim,
        )
        return check_plan(
            self.guard,
            state,
            actions,
            self.arm.now(),
            rate_hz=self.arm.rate_hz,
            observed_s=seen.monotonic_s,
            uncertainty=uncertainty,
            planned_from=seen.observation["observation.joints"],
        )

    def permit(self, by: str, action: np.ndarray | None = None, lifetime_s: float | None = None) -> None:
        """A person's permission: for one action (7,), or for whatever leads to the goal of this run."""
        box = self._begun()
        now, joints = self.arm.now(), self.arm.measure().joints
        kind: Literal["plan", "task"] = "task" if action is None else "plan"
        permit = self._permits.approve(kind, self._bond(action), joints, now, by, lifetime_s)
        box.commit("permit", arm_s=now, permit=permit.to_dict())  # on disk before anything moves by it
        self._permit = permit

    def submit(self, step: int, asked: Mapping[str, Any]) -> Verdict:
        """Have a request reviewed; what is let through begins at once, what is not brings the arm to rest."""
        box = self._begun()
        self._asked_s = None
        verdict = self._review(asked)
        doubt = asked.get("uncertainty")
        if isinstance(doubt, int | float):
            self._judge(Signs(self.arm.now(), doubt=float(doubt), plan=f"{step} {asked.get('plan')}"))
        self._record_step(box, step, asked, verdict)
        if self.dry_run:
            return verdict
        period = verdict.duration_s or self.guard.limits.period_s
        self._left, self._braked = math.ceil(period * self.arm.rate_hz - 1e-6), False
        if verdict.target is not None:
            self._from_rest = not self._streamer.moving
            self._streamer.aim(verdict.target, SETTLE_SHARE * period)
            self._aim = verdict.aim
        elif self._streamer.moving:
            self._streamer.brake()
            self._aim = None
        return verdict

    def finish(self, interrupted: Callable[[], bool]) -> Progress:
        """Tick until the step is over; when `interrupted` says so, brake."""
        self.cadence.rest()
        while self.busy:
            if not self._braked and interrupted():
                self.brake()
            if not self.arm.lockstep:
                self.cadence.wait()
            self.tick()
        return self.progress

    @property
    def progress(self) -> Progress:
        """Where we stand."""
        return Progress(self.stop.stage, self.stop.reason, not self._braked, self.arm.now(), self.paused_by_hand)

    @property
    def paused_by_hand(self) -> bool:
        """Whether it waits for the button, and for nothing else."""
        return self._by_hand and self.stop.stage is Stage.PAUSED

    def heed(self) -> None:
        """Look at the button: let go, the arm brakes and waits; held again, it may go on; a lost one holds it for good."""
        if self._hand is None or not self.begun:
            return
        allowed = self._hand.allows(self.arm.now())
        if self._hand.lost:
            self.trip(Stage.HELD, f"nobody can hold the button any more: {self._hand.lost}")
        elif not allowed and self.stop.running:
            self.pause(self._hand.about)
            self._by_hand = True
        elif allowed and self._by_hand and self.stop.resume(self._key, "the button is held again"):
            self._by_hand = False
            self._note("resume", by="the button is held again")

    def tick(self) -> None:
        """Send the next tick; a device or a record that fails stops the arm for good. Never raises."""
        try:
            self.heed()
        except Exception as error:  # a button that cannot be asked is not held
            self.trip(Stage.HELD, f"{type(error).__name__}: {error}")
        try:
            moved, late_s = self._streamer.moving and not self._from_rest, self.cadence.take_lateness()
            self._late_s, self._from_rest = max(self._late_s, late_s if moved else 0.0), False
            target = self._streamer.tick()
            if not self.dry_run:
                self.arm.command(target)
        except Exception as error:  # whatever a driver does: no more of it
            self.trip(Stage.HELD, f"{type(error).__name__}: {error}")
            # There is nobody to brake for: what would be sent now is not received, or not understood.
            self._left, self._braked = 0, True
            self._streamer = Streamer(self.guard.limits.bounds, self.arm.rate_hz, _rest(self._streamer.target))
            return
        self._ticks += 1
        self._left = max(0, self._left - 1)
        if self._blind or self._ticks % self._look_every:
            return
        try:
            self._look(target, self.arm.measure())
        except Exception as error:
            # It can still be sent to, so it brakes within its limits; asking it again would only take time from that.
            self._blind = True
            self.trip(Stage.HELD, f"{type(error).__name__}: {error}")

    def brake(self) -> None:
        """Come to rest as soon as the limits allow; the step under way is not finished."""
        if self.begun and self.busy:
            self._streamer.brake()
            self._left, self._braked, self._aim = 0, True, None

    def trip(self, stage: Stage, reason: str) -> None:
        """Something is wrong: go down the ladder, and brake. Parking is the operator's or the end's; it begins with a hold."""
        stage = min(stage, Stage.HELD)
        if self.stop.advance(stage, reason) or self._take_over(stage, reason):
            self.brake()
            # What a person allowed, they allowed before they knew of this; a task goes on only where they go on from a pause.
            if stage is Stage.HELD:
                self._permits.revoke_all(reason)
            elif self._permit is not None and self._permit.kind == "plan":
                self._permits.revoke(self._permit, f"when the arm was paused: {reason}")
            self._note("trip", stage=stage.name.lower(), reason=reason)

    def pause(self, why: str) -> str:
        """Brake and wait; what is asked for meanwhile is vetoed. What a monitor paused the arm for before; empty else."""
        if self.stop.stage >= Stage.HELD:
            raise ArmError(f"the arm was stopped for good: {self.stop.reason}")
        before = "" if self.paused_by_hand else self.stop.reason
        self._asked_s = None  # whatever was awaited: what goes on after a pause begins with a new look
        if self.stop.advance(Stage.PAUSED, why) or self._take_over(Stage.PAUSED, why):
            self.brake()
            self._note("pause", reason=why)
        return before

    def resume(self) -> None:
        """Go on after a pause; from any other rung there is no way back."""
        if not self.stop.resume(self._key, "the operator goes on"):
            raise ArmError(f"the arm cannot go on: {self.stop.reason or 'it is not paused'}")
        self._by_hand = False
        self._note("resume")
        self.heed()

    def end(self, code: Exit, reason: str, loop: Mapping[str, Any], say: Callable[[str], None]) -> Wound:
        """Brake, hold, park, release, close the record. An arm whose run never began is held and not moved."""
        if not self.begun:
            return self._end_before_the_beginning(reason, say)
        self._over = True
        # Before the arm is wound down: should the power go while it parks, the record says why it ended.
        if self._box is not None:
            with contextlib.suppress(OSError, ValueError):
                self._box.write(
                    "ending", arm_s=self.arm.now(), code=int(code), outcome=code.name.lower(), reason=reason,
                    dry_run=self.dry_run,
                )  # fmt: skip
        self.brake()
        self.cadence.rest()
        while self.busy:
            if not self.arm.lockstep:
                self.cadence.wait()
            self.tick()
        faults = wind_down(self.arm, self.stop, reason, moves=not self.dry_run, say=say, park=self._park)
        if faults and code is not Exit.FAULT:
            code, reason = Exit.FAULT, f"{reason}; then {faults[0]}"
        report = self.cadence.report
        if report.ticks:
            say(f"{'dry run, nothing sent: ticks' if self.dry_run else 'stream'}: {report.sentence()}")
        box = self._box
        faults += self._close(code, reason, loop)
        dropped = {} if box is None else dataclasses.asdict(box.dropped)
        return Wound(tuple(faults), report.to_dict() if report.ticks else {}, dropped)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _end_before_the_beginning(self, reason: str, say: Callable[[str], None]) -> Wound:
        """Without a record nothing moves."""
        if self.stop.stage >= Stage.HELD:
            return Wound()
        self.stop.advance(Stage.HELD, reason)
        say(f"{self.arm.name} is left as it stands, held and not parked: the run never began, and has no record")
        if self.dry_run:
            return Wound()
        try:
            self.arm.hold()
        except Exception as error:
            return Wound((f"could not hold {self.arm.name}: {error}",))
        return Wound()

    def _park(self) -> None:
        def record(sent: JointTarget, measured: Measured) -> None:
            with contextlib.suppress(OSError):  # a full disk is no reason to leave the arm where it is
                self._record_ticks(sent, measured)

        park(self.arm, self.guard.limits, self._look_every, record)

    def _take_over(self, stage: Stage, reason: str) -> bool:
        """Whether this reason makes a pause of the hand one that a hand alone does not end."""
        was, self._by_hand = self._by_hand, False
        if was and stage is Stage.PAUSED:
            self.stop.reason = reason
        return was and stage is Stage.PAUSED

    def _note(self, kind: str, **values: Any) -> None:
        """A line that must not keep the arm from being stopped."""
        if self._box is not None:
            with contextlib.suppress(OSError, ValueError):
                self._box.write(kind, arm_s=self.arm.now(), **values)

    def _begun(self) -> BlackBox:
        if self._box is None:
            raise ArmError("nothing can be asked for before the run has begun")
        return self._box

    def _sent(self, seen: Reading) -> JointTarget:
        """What the arm was sent last; in a dry run, where somebody else may move it, where it is."""
        if not self.dry_run:
            return self._streamer.target
        return JointTarget.still(
            np.asarray(seen.observation["observation.joints"], dtype=np.float64),
            float(np.clip(seen.observation["observation.state"][6], 0.0, 1.0)),
        )

    def _measured(self) -> JointTarget:
        seen = self.arm.measure()
        return JointTarget.still(seen.joints, seen.gripper)

    def _bond(self, action: np.ndarray | None) -> Bond:
        """What a permission is bound to, as things are now."""
        limits = self.guard.limits
        plan = "" if action is None else plan_hash(np.asarray(action, dtype=np.float64)[None], limits.period_s)
        return Bond(plan, self._goal, limits.hash, self.arm.calibration_hash, self.arm.identity)

    def _review(self, asked: Mapping[str, Any]) -> Verdict:
        """The guard's verdict; without a permit that fits, or with the arm stopped, a veto."""
        if self._seen is None:
            raise ArmError("nothing can be asked for before the arm was looked at")
        if not self.stop.running:
            return vetoed(f"the arm takes nothing now: {self.stop.reason}")
        # The planner says when it looked; when we looked for it is known here.
        age, most = self.arm.now() - self._seen.monotonic_s, self.guard.limits.observation_age_s
        if age > most:
            return vetoed(f"the arm was looked at {age:.3f} s ago (limit {most:g} s)")
        measured = self._seen.observation
        state = State(measured["observation.state"], measured["observation.joints"], self._sent(self._seen), self._aim)
        verdict = self.guard.review(state, asked, self.arm.now())
        if verdict.target is None or self.dry_run:
            return verdict
        # Asked last: a plan's permit is spent by asking.
        answer = self._permits.redeem(
            self._permit, self._bond(np.asarray(asked["action"])), measured["observation.joints"], self.arm.now()
        )
        return verdict if answer.granted else vetoed(answer.sentence)

    def _judge(self, signs: Signs) -> None:
        """What the monitors say of what can be seen now; the gravest stops the arm."""
        trips, self._memory = look(signs, self.guard.limits, self._memory)
        for trip in trips:
            self.trip(trip.rung, trip.sentence)

    def _look(self, sent: JointTarget, measured: Measured) -> None:
        """What the arm did: for the monitors and for the record."""
        now, late_s, self._late_s = self.arm.now(), self._late_s, 0.0
        if not self.arm.lockstep and now - self._health_s >= HEALTH_EVERY_S:
            self._health, self._health_s = self.arm.health(), now
        signs = Signs(
            now,
            state_s=measured.monotonic_s,
            late_s=None if self.arm.lockstep else late_s,
            asked_s=None if self.arm.lockstep or self.stop.stage is Stage.PAUSED else self._asked_s,
            joints=measured.joints,
            sent=None if self.dry_run else sent.joints,
            health=self._health,
        )
        self._judge(signs)
        self._record_ticks(sent, measured)

    def _record_ticks(self, sent: JointTarget, measured: Measured) -> None:
        line = self._line
        line.at_s.append(measured.monotonic_s)
        line.sent.append(np.append(sent.joints, sent.gripper))
        line.measured.append(np.append(measured.joints, measured.gripper))
        if self._box is not None and line.at_s[-1] - line.at_s[0] >= LINE_S:
            self._write_line(self._box)

    def _write_line(self, box: BlackBox) -> None:
        line, self._line = self._line, _Line()
        if line.at_s:
            box.write(
                "ticks",
                arm_s=[round(at, 4) for at in line.at_s],
                sent=np.round(line.sent, 6),
                measured=np.round(line.measured, 6),
            )

    def _record_step(self, box: BlackBox, step: int, asked: Mapping[str, Any], verdict: Verdict) -> None:
        assert self._seen is not None
        observation = self._seen.observation
        target = None if self.dry_run else verdict.target
        box.write(
            "step",
            step=step,
            observed_s=self._seen.monotonic_s,
            measured={
                "observation.state": observation["observation.state"],
                "observation.joints": observation["observation.joints"],
            },
            requested=asked.get("action"),
            uncertainty=asked.get("uncertainty"),
            plan=asked.get("plan"),
            verdict=verdict.outcome,
            reasons=verdict.reasons,
            approved=verdict.action,
            target=None if target is None else {"joints": target.joints, "gripper": target.gripper},
            duration_s=verdict.duration_s,
            dry_run=self.dry_run,
        )

    def _close(self, code: Exit, reason: str, loop: Mapping[str, Any]) -> list[str]:
        """The last words of the record; a disk that is full must not hide how the run ended."""
        box = self._box
        if box is None:
            return []
        self._box = None
        try:
            self._write_line(box)
            for stage, why in self.stop.history:
                box.write("stop", stage=Stage(stage).name.lower(), reason=why)
            box.close(
                code=int(code), outcome=code.name.lower(), reason=reason, loop=dict(loop),
                stream=self.cadence.report.to_dict(),
            )  # fmt: skip
        except (OSError, ValueError) as error:
            with contextlib.suppress(OSError):
                box.abandon()
            return [f"the end of the run could not be recorded: {error}"]
        return []


def vetoed(sentence: str) -> Verdict:
    """A veto for a reason that is not the guard's."""
    return Verdict("vetoed", sentence, (sentence,))


def _digests(reading: Reading) -> dict[str, str]:
    """A name for exactly each camera's picture."""
    return {
        camera: hashlib.blake2b(np.ascontiguousarray(picture).data, digest_size=8).hexdigest()
        for camera, picture in reading.pictures.items()
    }


def _rest(target: JointTarget) -> JointTarget:
    return JointTarget.still(target.joints, target.gripper)
