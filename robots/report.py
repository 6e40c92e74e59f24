"""After a run: what is written and what is told. The arm is parked by then, and the black box is complete."""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from planners import Rollout
from planners.recording import write_rrd
from robots import blackbox
from robots.loop import Ending
from robots.ticks import Ticks
from robots.viewer import called


def write(folder: Path, rollout: Rollout, ending: Ending) -> list[str]:
    """How it ended, the rollout and its recording; the black box is complete already. Returns what could not be written:
    the arm is parked by now, and a full disk must not hide how the run ended."""
    result = {
        "ended": ending.code.name.lower(), "exit_code": int(ending.code), "reason": ending.reason,
        "steps": ending.steps, "passed": ending.passed, "clamped": ending.clamped, "vetoed": ending.vetoed,
        "faults": list(ending.faults), "loop": ending.report.to_dict(), "stream": dict(ending.stream),
        "dropped": dict(ending.dropped), **rollout.outcome,
    }  # fmt: skip
    rollout.outcome |= {"ended": result["ended"], "reason": ending.reason}
    writers: list[tuple[str, Callable[[], object]]] = [
        ("results.json", lambda: write_json(folder / "results.json", result))
    ]
    if rollout.steps:
        writers += [
            ("rollout", lambda: rollout.save(folder / "rollout")),
            ("rollout.rrd", lambda: _write_rrd(folder, rollout)),
        ]
    unwritten = []
    for name, write in writers:
        try:
            write()
        except Exception as error:
            unwritten.append(f"{folder / name} could not be written: {error}")
    return unwritten


def _write_rrd(folder: Path, rollout: Rollout) -> None:
    """The recording, with what the arm was sent and measured tick by tick."""
    box = folder / "blackbox.jsonl"
    ticks = Ticks.of(blackbox.read(box)) if box.is_file() else None
    if ticks is None:
        write_rrd(rollout, folder / "rollout.rrd")
    else:
        write_rrd(rollout, folder / "rollout.rrd", also=ticks.log, tabs=[ticks.view()])


def tell(folder: Path, rollout: Rollout, ending: Ending, say: Callable[[str], None]) -> None:
    say(f"\nended: {ending.code.name.lower()} after {ending.steps} steps, exit code {int(ending.code)}")
    say(f"guard: {ending.passed} passed, {ending.clamped} clamped, {ending.vetoed} vetoed")
    say(f"loop: {ending.report.sentence()}")
    outcome = rollout.outcome
    if "final_distance_cm" in outcome:
        word = "reached" if outcome["success"] else "not reached"
        say(
            f"goal: {word}, {outcome['final_distance_cm']:.1f} cm away after {outcome['start_distance_cm']:.1f} cm at "
            "the start (the simulator's word)"
        )
    if "in_region" in outcome:
        away = ", ".join(f"{value:.3f}" for value in outcome["outside_region"])
        say("region: the arm is inside" if outcome["in_region"] else f"region: the arm is outside, by {away} (m, rad)")
    if lost := {what: number for what, number in ending.dropped.items() if number}:
        many = " and ".join(f"{number} {what}" for what, number in lost.items())
        say(f"black box: {many} are missing, the disk was too slow; the record says where")
    for fault in ending.faults:
        say(f"fault: {fault}")
    say(f"record: {folder / 'blackbox.jsonl'}" + (f", {folder / 'rollout.rrd'}" if rollout.steps else ""))
    say(f"next: {called('premotor')} review run={folder}")


def write_json(path: Path, value: Any) -> None:
    """A JSON file that appears whole or not at all."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(unfinished, path)


def versions() -> dict[str, str]:
    """Of what decides a run."""
    found = {}
    for name in ("premotor", "torch", "mujoco", "pybullet", "mink", "numpy", "rerun-sdk"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
