"""A black box in sentences: what was asked for and allowed, who said yes, what stopped the arm, how it kept time."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from robots import blackbox
from robots.ticks import Ticks

Line = Mapping[str, Any]
# Of one kind of line, so many are told one by one.
MOST = 4


def describe_box(lines: list[dict[str, Any]], found: blackbox.Inspection) -> list[str]:
    """A black box in sentences."""
    words = [*_requests(lines), *_permits(lines), *_pauses(lines), *_trips(lines)]
    ticks = Ticks.of(lines)
    words += [ticks.sentence()] if ticks is not None else []
    words += [*_stream(lines), *_dropped(lines)]
    stages = [str(line["stage"]) for line in lines if line["kind"] == "stop"]
    words += [f"then {', '.join(_ladder(stages))}"] if stages else []
    ends = [line for line in lines if line["kind"] == "end"]
    if ends:
        end = ends[-1]
        words.append(
            f"ended {end.get('outcome', 'by an error')}: {end.get('reason', end.get('error', 'no reason given'))}"
        )
    else:
        steps = [line["step"] for line in lines if line["kind"] == "step"]
        words.append(f"it ends without a word after step {steps[-1] if steps else 'no'}: {found.sentence}")
    return words


def _requests(lines: list[dict[str, Any]]) -> list[str]:
    steps = [line for line in lines if line["kind"] == "step"]
    counts = Counter(str(step["verdict"]) for step in steps)
    words = [f"{_count(len(steps), 'request')}: " + (", ".join(f"{n} {v}" for v, n in counts.items()) or "none")]
    if steps and steps[0].get("dry_run"):
        words[0] += "; a dry run, nothing was sent"
    reasons = Counter(_kind(str(reason)) for step in steps for reason in step["reasons"])
    return words + [f"{number} x {reason}" for reason, number in reasons.most_common(MOST)]


def _permits(lines: list[dict[str, Any]]) -> list[str]:
    permits = [line["permit"] for line in lines if line["kind"] == "permit"]
    return _some((f"permit {one['number']} for the {one['kind']}: {one['by']}" for one in permits), "permits")


def _pauses(lines: list[dict[str, Any]]) -> list[str]:
    """Who paused the arm, how often, for how long; a pause that nobody ended lasts until the end."""
    reasons: Counter[str] = Counter()
    seconds, since = 0.0, None
    for line in lines:
        if line["kind"] == "pause":
            reasons[str(line["reason"])] += 1
            since = line["arm_s"] if since is None else since
        elif line["kind"] in ("resume", "ending") and since is not None and "arm_s" in line:
            seconds, since = seconds + line["arm_s"] - since, None
    if not reasons:
        return []
    why = "; ".join(f"{number} x {reason}" for reason, number in reasons.most_common(MOST))
    return [f"paused {_count(reasons.total(), 'time')}, {seconds:.1f} s in all: {why}"]


def _trips(lines: list[dict[str, Any]]) -> list[str]:
    began = next((line["arm_s"] for line in lines if "arm_s" in line and line["kind"] != "ticks"), 0.0)
    return _some(
        (
            f"tripped after {line['arm_s'] - began:.2f} s ({line['stage']}): {line['reason']}"
            for line in lines
            if line["kind"] == "trip"
        ),
        "trips",
    )


def _stream(lines: list[dict[str, Any]]) -> list[str]:
    stream = next((line["stream"] for line in reversed(lines) if line["kind"] == "end" and line.get("stream")), None)
    if not stream or not stream["ticks"]:
        return []
    share = 100 * stream["within_5_ms"] / stream["ticks"]
    return [
        f"stream: {1000 / stream['mean_ms']:.2f} Hz, {1000 / stream['wanted_ms']:g} wanted; {share:.2f} % of "
        f"{stream['ticks']} periods within 5 ms, the longest {stream['worst_ms']:.1f} ms, "
        f"{_count(stream['gaps'], 'gap') if stream['gaps'] else 'no gap'}"
    ]


def _dropped(lines: list[dict[str, Any]]) -> list[str]:
    lost = {what: sum(line[what] for line in lines if line["kind"] == "dropped") for what in ("lines", "frames")}
    if not any(lost.values()):
        return []
    return [f"missing because the disk was too slow: {' and '.join(f'{n} {what}' for what, n in lost.items() if n)}"]


def _ladder(stages: list[str]) -> list[str]:
    """The rungs of the end; a pause and the return from it are told as pauses."""
    return [stage for stage in stages if stage not in ("paused", "running")] or stages


def _some(words: Iterable[str], what: str) -> list[str]:
    told = list(words)
    return told if len(told) <= MOST else [*told[:MOST], f"... and {len(told) - MOST} more {what}"]


def _kind(reason: str) -> str:
    """A clamp's or veto's sentence without its measurements, so that like is counted with like."""
    return re.sub(r"(?<![\w\[(,.])(?<!limit )[-+]?\d+(\.\d+)?(?=[ %;,s]|$)", "...", reason)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
