"""A million requests at random arms: good, wild, broken, stale, forged; what is sent is judged independently.

    python -m robots.fuzz requests=1000000 seed=10000 workers=2 out=outputs/robots/fuzz

Every arm takes a few hundred requests, reviewed by the guard and streamed at the arm's rate, and its ticks go before
`robots.judge`. A killed run goes on where it was; the same seed gives the same requests.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from robots.arm import ArmError, JointTarget
from robots.fuzz_arms import RandomArm, random_arm
from robots.guard import State, Verdict, request
from robots.judge import judge
from robots.kinematics import rpy_of
from robots.permit import Bond, Permit, Permits
from robots.stream import SETTLE_SHARE, Streamer

CHUNK = 250
PERMIT_SHARE = 0.02
# What must not be let through, whatever else is right about it.
FORBIDDEN = frozenset((
    "nan", "inf", "huge", "shape", "type", "missing", "unknown_key", "stale", "future", "degrees", "millimetres", "doubt",
    "clock", "elsewhere", "broken_state", "evil",
))  # fmt: skip
# (kind, how often)
KINDS = {
    "modest": 22, "bold": 8, "corner": 8, "zero": 2, "denormal": 3, "retarget": 16, "duplicate": 4, "late": 4, "brake": 4,
    "stale": 3, "future": 2, "reordered": 3, "nan": 3, "inf": 2, "huge": 3, "shape": 2, "type": 3, "missing": 1,
    "unknown_key": 1, "degrees": 2, "millimetres": 2, "doubt": 2, "clock": 1, "elsewhere": 2, "broken_state": 2, "evil": 1,
    "gripper": 3,
}  # fmt: skip


class Evil(Mapping[str, Any]):
    """A request that raises wherever it is touched."""

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("no")

    def __iter__(self) -> Iterator[str]:
        raise MemoryError("no")

    def __len__(self) -> int:
        raise ValueError("no")


@dataclass
class Tally:
    """What came of some requests.

    Attributes:
        outcomes: by "kind outcome".
        violations: by kind of limit; and `accepted KIND` for what must never pass, `crash ERROR` for what was raised.
        requests, ticks: how many.
        examples: the first few violations, to look into: seed of the chunk and words.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    violations: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    ticks: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Sum up."""
        self.outcomes.update(other.outcomes)
        self.violations.update(other.violations)
        self.requests += other.requests
        self.ticks += other.ticks
        self.examples = (self.examples + other.examples)[:20]


class Rig:
    """A simulated arm that follows what it is sent with a small error, and what stands before it: guard and streamer."""

    def __init__(self, arm: RandomArm, rng: np.random.Generator) -> None:
        self.arm, self.rng = arm, rng
        self.streamer = Streamer(arm.limits.bounds, arm.chain.rate_hz, JointTarget.still(arm.chain.home, 0.5))
        self.sent: list[np.ndarray] = [np.append(arm.chain.home, 0.5)]
        self.now, self.aim = 10.0, None
        self.last: dict[str, Any] | None = None

    def state(self) -> State:
        """Measured near where the arm was sent."""
        target = self.streamer.target
        joints = target.joints + self.rng.normal(0.0, 0.002, len(target.joints))
        position, rotation = self.arm.guard.kinematics.forward(joints)
        held = float(np.clip(target.gripper + self.rng.normal(0.0, 0.01), 0.0, 1.0))
        pose = np.concatenate([position, rpy_of(rotation), [held]])
        return State(pose, joints, target, None if self.streamer.moving else self.aim)

    def follow(self, verdict: Verdict, share: float) -> None:
        """Stream a share of an approved step; a veto in motion brakes, or lets the step before come to its end."""
        if verdict.target is not None:
            self.streamer.aim(verdict.target, SETTLE_SHARE * verdict.duration_s)
            self.aim = verdict.aim
        elif self.streamer.moving and self.rng.random() < 0.5:
            self.streamer.brake()
            self.aim = None
        duration = verdict.duration_s or self.arm.limits.period_s
        most = max(1, math.ceil(share * duration * self.arm.chain.rate_hz))
        self.tick(most if share < 1.0 else None)

    def tick(self, most: int | None) -> None:
        """So many ticks; until the arm rests where None."""
        count = 0
        while (self.streamer.moving if most is None else count < most) and count < 10_000:
            target = self.streamer.tick()
            self.sent.append(np.append(target.joints, target.gripper))
            count += 1
        self.now += count / self.arm.chain.rate_hz


def ask(kind: str, rig: Rig) -> tuple[State, Any, float]:
    """A request of a kind: the state it is judged in, the request, the time."""
    rng, limits = rig.rng, rig.arm.limits
    state, now = rig.state(), rig.now
    high = np.asarray(limits.action_high)
    action = rng.uniform(-1, 1, 7) * high * rng.random()
    if kind in ("bold", "late", "retarget", "elsewhere"):
        action = rng.uniform(-1, 1, 7) * high * rng.choice([1.0, 1.0, 1.5, 5.0])
    elif kind == "corner":
        action = high * rng.choice([-1.0, 0.0, 1.0], 7)
    elif kind == "zero":
        action = np.zeros(7)
    elif kind == "denormal":
        action = rng.choice([5e-324, -5e-324, 1e-310, 1e-16, -0.0], 7)
    elif kind == "gripper":
        action = np.array([0, 0, 0, 0, 0, 0, rng.choice([-1, 1]) * high[6]])
    elif kind in ("nan", "inf", "huge"):
        bad = {"nan": [math.nan], "inf": [math.inf, -math.inf], "huge": [1e9, -1e30, 1e300, -1.7e308]}[kind]
        action[rng.choice(7, int(rng.integers(1, 8)), replace=False)] = rng.choice(bad)
    elif kind == "degrees":
        action[3:6] = np.rad2deg(high[3:6]) * rng.choice([-1, 1], 3)
    elif kind == "millimetres":
        action[:3] = 1000 * high[:3] * rng.choice([-1, 1], 3)
    if rng.random() < 0.5:
        with np.errstate(over="ignore"):
            action = action.astype(np.float32)
    asked: Any = request(action, now, float(rng.random()), "plan")
    if kind == "late":
        now += float(rng.uniform(0.0, limits.observation_age_s * 0.99))
    elif kind == "stale":
        asked["observed_s"] = now - limits.observation_age_s - float(rng.choice([1e-3, 0.1, 5.0, 1e9]))
    elif kind == "reordered":
        asked["observed_s"] = now - float(rng.uniform(0.0, 2.0)) * limits.observation_age_s
    elif kind == "future":
        asked["observed_s"] = now + float(rng.choice([0.01, 1.0, 1.7e9]))
    elif kind == "clock":
        now = float(rng.choice([math.nan, math.inf, -math.inf, -1e300]))
    elif kind == "doubt":
        asked["uncertainty"] = float(rng.choice([limits.uncertainty * 1.01 + 1e-9, 1e9, math.nan, math.inf, -0.5]))
    elif kind == "missing":
        del asked[str(rng.choice(list(asked)))]
    elif kind == "unknown_key":
        asked[str(rng.choice(["", "speed", "ACTION", "action "]))] = 0
    elif kind == "shape":
        asked["action"] = [np.zeros(int(rng.choice([0, 1, 6, 8, 700]))), np.zeros((1, 7)), np.float64(0.0)][
            rng.integers(3)
        ]
    elif kind == "type":
        wrong = [
            "up",
            None,
            {},
            [None] * 7,
            ["0"] * 7,
            [True] * 7,
            [1j] * 7,
            b"0000000",
            [[0], [0, 1]],
            object(),
            [10**400] * 7,
        ]
        asked[str(rng.choice(["action", "observed_s"]))] = wrong[rng.integers(len(wrong))]
    elif kind == "evil":
        asked = [Evil(), None, 7, "please", [asked], lambda: asked][rng.integers(6)]
    elif kind == "elsewhere":
        joints = state.joints.copy()
        joints[rng.integers(len(joints))] += rng.choice([-1, 1]) * (limits.tracking_error_rad + rng.uniform(0.02, 90.0))
        state = State(state.pose, joints, state.commanded, state.aim)
    elif kind == "broken_state":
        state = _broken(state, rng)
    elif kind == "duplicate" and rig.last is not None:
        asked = rig.last
    return state, asked, now


def _broken(state: State, rng: np.random.Generator) -> State:
    """A state no arm can be in."""
    bad = float(rng.choice([math.nan, math.inf, 1e12]))
    pose, joints, commanded = state.pose.copy(), state.joints.copy(), state.commanded
    which = rng.integers(5)
    if which == 0:
        pose[rng.integers(3)] = bad
    elif which == 1:
        joints[rng.integers(len(joints))] = bad
    elif which == 2:
        commanded = JointTarget.still(np.full(len(joints), bad), commanded.gripper)
    elif which == 3:
        joints = joints[:-1]
    else:
        pose = pose[:3] * 1000.0 + 1000.0
        pose = np.append(pose, state.pose[3:])
    return State(pose, joints, commanded, state.aim)


def run_chunk(seed: int, count: int = CHUNK) -> Tally:
    """One random arm and so many requests to it."""
    rng = np.random.default_rng(seed)
    arm = random_arm(rng)
    rig, tally = Rig(arm, rng), Tally()
    names, shares = list(KINDS), np.array(list(KINDS.values()), dtype=np.float64)
    for kind in rng.choice(names, count, p=shares / shares.sum()):
        kind = str(kind)
        tally.requests += 1
        try:
            outcome = _one(kind, rig)
        except Exception as error:  # what a guard must not do
            outcome = "crash"
            tally.violations[f"crash {type(error).__name__}"] += 1
            tally.examples.append(f"seed {seed}, {kind}: {type(error).__name__}: {error}")
            rig.streamer = Streamer(arm.limits.bounds, arm.chain.rate_hz, JointTarget.still(*_split(rig.sent[-1])))
        tally.outcomes[f"{kind} {outcome}"] += 1
        if outcome in ("passed", "clamped") and kind in FORBIDDEN:
            tally.violations[f"accepted {kind}"] += 1
            tally.examples.append(f"seed {seed}: a request of kind {kind} was {outcome}")
    sent = np.array(rig.sent)
    tally.ticks = len(sent) - 1
    violations = judge(sent, arm.chain, arm.limits, arm.guard.body is not None)
    tally.violations.update(violations)
    tally.examples += [f"seed {seed}: {number} ticks beyond {name}" for name, number in violations.items()]
    for words, number in permits(rng, max(1, int(count * PERMIT_SHARE))).items():
        tally.violations[words] += number
        tally.examples.append(f"seed {seed}: {words}")
    return tally


def _split(row: np.ndarray) -> tuple[np.ndarray, float]:
    return row[:-1], float(row[-1])


def _one(kind: str, rig: Rig) -> str:
    """One request, and what is streamed because of it."""
    if kind == "brake":
        rig.streamer.brake()
        rig.tick(None)
        return "braken"
    state, asked, now = ask(kind, rig)
    verdict = rig.arm.guard.review(state, asked, now)
    if "could not judge" in verdict.sentence and kind != "evil":
        raise ArmError(verdict.sentence)
    if math.isfinite(now):
        rig.now = max(rig.now, now)
    # Half-way through a step comes the next: a retarget in motion, a duplicate, a brake.
    rig.follow(verdict, float(rig.rng.uniform(0.05, 0.9)) if rig.rng.random() < 0.4 else 1.0)
    rig.last = asked if isinstance(asked, dict) else rig.last
    return verdict.outcome


def permits(rng: np.random.Generator, count: int) -> Counter[str]:
    """Forge, alter, keep too long and use twice; what is granted against the rules, by kind."""
    wrong: Counter[str] = Counter()
    office, other = Permits(rng.bytes(32)), Permits(rng.bytes(32))
    joints = rng.uniform(-1, 1, 6)
    for index in range(count):
        bond = Bond(f"plan{index}", "goal", "limits", "calibration", "arm")
        good = office.approve("plan", bond, joints, 10.0, "fuzz", 30.0)
        fields = good.to_dict()
        altered = {
            "expires_s": 1e9, "number": good.number + 1, "kind": "task", "joints": [0.0] * 6, "seal": "0" * 64,
            "bond": {**fields["bond"], "plan": "another"}, "by": "me",
        }  # fmt: skip
        name = str(rng.choice(list(altered)))
        tries: list[tuple[str, Any, Bond, np.ndarray, float]] = [
            ("forged", other.approve("plan", bond, joints, 10.0, "fuzz", 30.0), bond, joints, 11.0),
            (f"altered {name}", Permit.from_dict({**fields, name: altered[name]}), bond, joints, 11.0),
            (
                "changed",
                good,
                Bond(bond.plan, *rng.permutation(["goal", "limits", "calibration", "ARM"])),
                joints,
                11.0,
            ),
            ("expired", good, bond, joints, 10.0 + 30.0 + float(rng.exponential(5.0)) + 1e-6),
            ("early", good, bond, joints, 10.0 - float(rng.exponential(5.0)) - 1e-6),
            ("clock", good, bond, joints, math.nan),
            ("moved", good, bond, joints + rng.choice([-1, 1]) * 0.06, 11.0),
            ("nonsense", [None, "permit", 7, fields, good.seal][rng.integers(5)], bond, joints, 11.0),
        ]
        for what, permit, about, where, when in tries:
            if office.redeem(permit, about, where, when).granted:
                wrong[f"permit {what}"] += 1
        if not office.redeem(good, bond, joints, 11.0).granted:
            wrong["permit good refused"] += 1
        if office.redeem(good, bond, joints, 11.0).granted:
            wrong["permit used twice"] += 1
    return wrong


# -- many, in processes ------------------------------------------------------------------------------------------------


def fuzz(requests: int, seed: int, workers: int, out: Path, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Run, or go on with, a fuzz of so many requests; writes and returns the report.

    Args:
        requests: how many, rounded up to whole arms.
        seed: of the first arm.
        workers: processes.
        out: folder for `chunks.jsonl` (one line an arm) and `report.json`.
        say: told what went before and how it ended.
    """
    if requests < 1 or workers < 1:
        raise ValueError(f"requests={requests}, workers={workers}; both are at least 1")
    out.mkdir(parents=True, exist_ok=True)
    chunks = range(seed, seed + math.ceil(requests / CHUNK))
    path = out / "chunks.jsonl"
    done = {number: tally for number, tally in _read(path) if number in chunks}
    if done:
        say(f"{len(done)} of {len(chunks)} arms are done already; going on")
    todo = [number for number in chunks if number not in done]
    began, total = time.monotonic(), Tally()
    for tally in done.values():
        total.add(tally)
    with open(path, "a") as file, multiprocessing.get_context("spawn").Pool(workers) as pool:
        for number, tally in _progress(pool.imap_unordered(_numbered, todo), len(todo)):
            total.add(tally)
            file.write(json.dumps({"chunk": number, **_plain(tally)}) + "\n")
            file.flush()
    seconds = time.monotonic() - began
    report = {
        "requests": total.requests, "arms": len(chunks), "ticks": total.ticks, "seed": seed,
        "violations": dict(sorted(total.violations.items())), "outcomes": dict(sorted(total.outcomes.items())),
        "examples": total.examples, "seconds_of_this_run": round(seconds, 1),
        "requests_a_second": round(len(todo) * CHUNK / seconds) if todo else None,
    }  # fmt: skip
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    beyond = sum(total.violations.values())
    say(
        f"{total.requests} requests to {len(chunks)} random arms, {total.ticks} ticks sent: {beyond} violations and crashes"
        + "".join(f"\n  {name}: {number}" for name, number in sorted(total.violations.items()))
    )
    return report


def _numbered(number: int) -> tuple[int, Tally]:
    return number, run_chunk(number)


def _plain(tally: Tally) -> dict[str, Any]:
    return {
        "outcomes": dict(tally.outcomes), "violations": dict(tally.violations), "requests": tally.requests,
        "ticks": tally.ticks, "examples": tally.examples,
    }  # fmt: skip


def _read(path: Path) -> Iterator[tuple[int, Tally]]:
    """Arms done before; a line cut short by a kill is done again."""
    if not path.is_file():
        return
    for line in path.read_text().splitlines():
        try:
            values = json.loads(line)
            yield (
                int(values["chunk"]),
                Tally(
                    Counter(values["outcomes"]), Counter(values["violations"]), values["requests"], values["ticks"],
                    values["examples"],
                ),
            )  # fmt: skip
        except (ValueError, KeyError):
            continue


def _progress(results: Iterator[tuple[int, Tally]], arms: int) -> Iterator[tuple[int, Tally]]:
    """Pass results on, with a bar, the rate and the time left."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("requests"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]:.0f}/s"),
               TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns) as bar:
        task, began = bar.add_task("fuzz", total=arms * CHUNK, rate=0.0), time.monotonic()
        for count, result in enumerate(results, start=1):
            bar.update(task, advance=CHUNK, rate=count * CHUNK / (time.monotonic() - began))
            yield result


def main(words: list[str]) -> int:
    """`key=value` words; returns 1 where anything was violated."""
    settings = {"requests": "5000", "seed": "10000", "workers": "1", "out": "outputs/robots/fuzz"}
    for word in words:
        name, _, value = word.partition("=")
        if name not in settings or not value:
            raise SystemExit(f"cannot read {word!r}; say {' '.join(f'{k}={v}' for k, v in settings.items())}")
        settings[name] = value
    numbers = {name: int(settings[name]) for name in ("requests", "seed", "workers")}
    report = fuzz(numbers["requests"], numbers["seed"], numbers["workers"], Path(settings["out"]))
    return 1 if report["violations"] else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
