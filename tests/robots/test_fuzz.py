"""The fuzz finds nothing wrong with the guard, and something wrong with every guard that lacks a check."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import robots.fuzz
import robots.guard
import robots.permit
import robots.schema
from robots.arm import JointTarget
from robots.fuzz import CHUNK, KINDS, Tally, fuzz, main, run_chunk
from robots.fuzz_arms import random_arm
from robots.judge import judge, positions
from robots.limits import Limits
from robots.stream import MotionBounds, Streamer

ARMS = 20  # of 250 requests each; the million is for a quiet afternoon


def run(arms: int, seed: int = 70_000) -> Tally:
    total = Tally()
    for number in range(arms):
        total.add(run_chunk(seed + number))
    return total


def test_five_thousand_requests_at_random_arms_exceed_nothing() -> None:
    found = run(ARMS)
    assert found.requests == ARMS * CHUNK
    assert found.violations == {}, found.examples
    # And it was no empty exercise: every kind came, much was let through, and much moved.
    kinds = {outcome.rsplit(" ", 1)[0] for outcome in found.outcomes}
    assert kinds == set(KINDS)
    let_through = sum(count for outcome, count in found.outcomes.items() if outcome.endswith(("passed", "clamped")))
    assert let_through > 0.15 * found.requests
    assert found.ticks > 2 * found.requests


def test_the_same_seed_gives_the_same_requests() -> None:
    assert run_chunk(5, 60) == run_chunk(5, 60)


Patch = Callable[[pytest.MonkeyPatch], None]


def without(*names: str) -> Patch:
    """Checks of the guard that say nothing any more."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        for name in names:
            monkeypatch.setattr(robots.guard, name, lambda *args, **kwargs: None)

    return patch


def no_joint_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    without("check_joints", "_check_result")(monkeypatch)
    true = robots.guard._bound_joints

    def wide(state: Any, position: Any, rpy: Any, limits: Limits, *rest: Any) -> np.ndarray:
        return true(state, position, rpy, dataclasses.replace(limits, joint_margin_rad=0.0), *rest)

    monkeypatch.setattr(robots.guard, "_bound_joints", wide)


def no_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    without("check_tool", "_check_result")(monkeypatch)

    def unbounded(start: np.ndarray, facing: np.ndarray, action: np.ndarray, *rest: Any) -> tuple[Any, Any]:
        turned = robots.guard.rotation_of(action[3:6]) @ facing
        return start + action[:3], robots.guard.rpy_of(turned)

    monkeypatch.setattr(robots.guard, "_bound_pose", unbounded)


def faster(name: str) -> Patch:
    """Bounds that are a fifth too wide."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        true = Limits.bounds.fget
        assert true is not None

        def wide(limits: Limits) -> MotionBounds:
            bounds = true(limits)
            return dataclasses.replace(bounds, **{name: tuple(1.2 * most for most in getattr(bounds, name))})

        monkeypatch.setattr(Limits, "bounds", property(wide))

    return patch


class Jumper(Streamer):
    """No stream at all: the target at once."""

    def tick(self) -> JointTarget:
        while self.moving:
            super().tick()
        return self.target


def jumps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robots.fuzz, "Streamer", Jumper)


def any_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robots.schema, "WRONG_UNIT", math.inf)


def any_number(monkeypatch: pytest.MonkeyPatch) -> None:
    true = robots.schema.vector
    repaired = lambda name, value, size: np.nan_to_num(true(name, np.nan_to_num(value), size))  # noqa: E731
    monkeypatch.setattr(robots.schema, "vector", repaired)


def one_seal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robots.permit.Permits, "_seal", lambda self, permit: permit.seal or "0" * 64)


@pytest.mark.parametrize(
    ("mutant", "found"),
    [
        (no_joint_limits, "position"),
        (faster("velocity"), "velocity"),
        (faster("acceleration"), "acceleration"),
        (faster("jerk"), "jerk"),
        (jumps, "velocity"),
        (no_workspace, "workspace"),
        (without("check_body"), "table"),
        (without("_check_age"), "accepted stale"),
        (without("_check_doubt"), "accepted doubt"),
        (without("check_state", "check_agreement"), "accepted broken_state"),
        (any_unit, "accepted millimetres"),
        (any_number, "accepted nan"),
        (one_seal, "permit forged"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_guard_without_a_check_is_caught(mutant: Patch, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)
    for number in range(40):
        if found in run_chunk(80_000 + number).violations:
            return
    pytest.fail(f"nothing was found wrong with a guard without it: {found}")


def test_the_judge_agrees_with_the_guards_kinematics_on_where_an_arm_is() -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        arm = random_arm(rng)
        joints = rng.uniform(-2, 2, (5, len(arm.chain.home)))
        for row, points in zip(joints, positions(arm.chain, joints), strict=True):
            np.testing.assert_allclose(arm.guard.kinematics.forward(row)[0], points[-1], atol=1e-12)


def test_the_judge_lets_a_still_arm_be() -> None:
    arm = random_arm(np.random.default_rng(0))
    still = np.tile(np.append(arm.chain.home, 0.5), (10, 1))
    assert not judge(still, arm.chain, arm.limits, with_body=True)
    still[5, 0] = math.nan
    assert judge(still, arm.chain, arm.limits, with_body=True) == {"not finite": 1}


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    said: list[str] = []
    whole = fuzz(3 * CHUNK, 90_000, 1, tmp_path / "whole", said.append)
    lines = (tmp_path / "whole" / "chunks.jsonl").read_text().splitlines()
    cut = tmp_path / "cut"
    cut.mkdir()
    (cut / "chunks.jsonl").write_text(lines[0] + "\n" + lines[1][:40])
    again = fuzz(3 * CHUNK, 90_000, 1, cut, said.append)
    for name in ("requests", "ticks", "outcomes", "violations"):
        assert again[name] == whole[name]
    assert "1 of 3 arms are done already; going on" in said
    assert json.loads((cut / "report.json").read_text())["outcomes"] == whole["outcomes"]


def test_bad_words_are_refused() -> None:
    with pytest.raises(SystemExit, match="cannot read 'speed=3'"):
        main(["speed=3"])
    with pytest.raises(ValueError, match="both are at least 1"):
        main(["requests=0"])


def test_a_gripper_that_brakes_with_the_arm_stays_within_its_range() -> None:
    """Found by a million requests: a brake shared out over all joints let a gripper pass its end by 0.009."""
    assert not run_chunk(10_358, 250).violations
