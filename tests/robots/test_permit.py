"""A permit is honoured once, in time, for exactly what it was given for, and never when it was made or altered elsewhere."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robots.permit import MOVED_RAD, Bond, Permit, Permits, plan_hash

KEY = bytes(range(32))
JOINTS = np.array([0.1, -0.4, 1.2])
BOND = Bond("plan", "goal", "limits", "calibration", "arm")
TASK = dataclasses.replace(BOND, plan="")


def given_permit(kind: Any = "plan") -> tuple[Permits, Permit]:
    office = Permits(KEY)
    return office, office.approve(kind, BOND if kind == "plan" else TASK, JOINTS, 100.0, "operator", 30.0)


def test_a_plan_is_carried_out_once() -> None:
    office, permit = given_permit()
    assert office.redeem(permit, BOND, JOINTS, 101.0).granted
    again = office.redeem(permit, BOND, JOINTS, 101.1)
    assert not again.granted
    assert "has been used; a permit is for one execution" in again.sentence


def test_a_refusal_does_not_use_a_permit_up() -> None:
    office, permit = given_permit()
    assert not office.redeem(permit, dataclasses.replace(BOND, plan="other"), JOINTS, 101.0).granted
    assert office.redeem(permit, BOND, JOINTS, 101.0).granted


@pytest.mark.parametrize("name", ["plan", "goal", "limits", "calibration", "arm"])
def test_whatever_changes_makes_it_void(name: str) -> None:
    office, permit = given_permit()
    answer = office.redeem(permit, dataclasses.replace(BOND, **{name: "other"}), JOINTS, 101.0)
    assert f"the {name} ha" in answer.sentence
    assert "changed since permit 1 was given" in answer.sentence


def test_time_and_movement_make_it_void() -> None:
    office, permit = given_permit()
    assert "expired 0.5 s ago (it held 30 s)" in office.redeem(permit, BOND, JOINTS, 130.5).sentence
    assert "clocks are mixed up" in office.redeem(permit, BOND, JOINTS, 99.0).sentence
    assert "clocks are mixed up" in office.redeem(permit, BOND, JOINTS, math.nan).sentence
    moved = JOINTS + [0.0, 2 * MOVED_RAD, 0.0]
    assert "joint 2 has moved 0.100 rad" in office.redeem(permit, BOND, moved, 101.0).sentence
    assert "joints are needed" in office.redeem(permit, BOND, JOINTS[:2], 101.0).sentence
    assert office.redeem(permit, BOND, JOINTS + 0.9 * MOVED_RAD, 130.0).granted


def test_a_task_covers_its_plans_until_it_is_revoked() -> None:
    office, permit = given_permit("task")
    for index in range(5):
        bond = dataclasses.replace(BOND, plan=f"plan{index}")
        assert office.redeem(permit, bond, JOINTS + index, 100.0 + index).granted  # the arm moves between plans
    other = dataclasses.replace(BOND, goal="another")
    assert "the goal has changed" in office.redeem(permit, other, JOINTS, 105.0).sentence
    office.revoke(permit)
    assert "permit 1 was revoked by the operator" in office.redeem(permit, BOND, JOINTS, 105.0).sentence


def test_a_stop_voids_all_that_was_given_before_it() -> None:
    office, permit = given_permit()
    office.revoke_all("the run was stopped")
    assert "void since the run was stopped" in office.redeem(permit, BOND, JOINTS, 101.0).sentence
    new = office.approve("plan", BOND, JOINTS, 102.0, "operator")
    assert office.redeem(new, BOND, JOINTS, 103.0).granted


altered = st.fixed_dictionaries(
    {},
    optional={
        "kind": st.sampled_from(["plan", "task", "all"]), "number": st.integers(-3, 9),
        "joints": st.lists(st.floats(-3, 3), min_size=3, max_size=3).map(tuple), "issued_s": st.floats(),
        "expires_s": st.floats(), "by": st.text(max_size=5), "seal": st.text(max_size=70),
        "bond": st.builds(Bond, *[st.sampled_from(["", "plan", "goal", "limits", "calibration", "arm", "x"])] * 5),
    },
)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(changes=altered, now=st.floats(100.0, 130.0), key=st.one_of(st.just(KEY), st.binary(min_size=16, max_size=40)))
def test_nothing_altered_or_made_elsewhere_is_honoured(changes: dict[str, Any], now: float, key: bytes) -> None:
    office, permit = given_permit()
    forged = dataclasses.replace(permit, **changes)
    if key != KEY:
        forged = dataclasses.replace(
            forged, seal=Permits(key).approve("plan", BOND, JOINTS, 100.0, "operator", 30.0).seal
        )
    answer = office.redeem(forged, forged.bond, JOINTS, now)
    assert answer.granted == (forged == permit)
    assert "could not be understood" not in answer.sentence or not answer.granted


@settings(deadline=None, max_examples=100)
@given(
    what=st.one_of(st.none(), st.text(), st.integers(), st.dictionaries(st.text(max_size=3), st.integers())),
    joints=st.lists(st.floats(), max_size=4),
    now=st.floats(),
)
def test_nonsense_is_refused_in_a_sentence(what: Any, joints: list[float], now: float) -> None:
    office, permit = given_permit()
    assert not office.redeem(what, BOND, np.array(joints), now).granted
    answer = office.redeem(permit, BOND, np.array(joints), now)
    assert answer.sentence.startswith("not permitted: ") or answer.granted
    with pytest.raises(ValueError, match="a permit has"):
        Permit.from_dict(what)


def test_it_travels_as_a_dictionary() -> None:
    office, permit = given_permit()
    assert office.redeem(Permit.from_dict(permit.to_dict()), BOND, JOINTS, 101.0).granted
    with pytest.raises(ValueError, match="joints are a list of numbers"):
        Permit.from_dict({**permit.to_dict(), "joints": "up"})


def test_a_plan_differs_from_another_by_its_last_bit_its_shape_and_its_pace() -> None:
    plan = np.zeros((3, 7))
    other = plan.copy()
    other[2, 6] = 5e-324
    hashes = {plan_hash(plan, 0.2), plan_hash(other, 0.2), plan_hash(plan, 0.25), plan_hash(plan[:2], 0.2)}
    assert len(hashes) == 4
    assert plan_hash(plan.copy(order="F"), 0.2) == plan_hash(plan, 0.2)


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"kind": "always"}, "for a plan or a task"),
        ({"bond": TASK}, "names its hash"),
        ({"bond": dataclasses.replace(BOND, limits="")}, "one of them is empty"),
        ({"by": " "}, "says who gave it"),
        ({"lifetime_s": 0.0}, "longer than no time"),
        ({"now": math.inf}, "finite"),
    ],
)
def test_what_cannot_be_permitted_is_not(settings_: dict[str, Any], words: str) -> None:
    good: dict[str, Any] = {"kind": "plan", "bond": BOND, "joints": JOINTS, "now": 1.0, "by": "operator"}
    with pytest.raises(ValueError, match=words):
        Permits(KEY).approve(**{**good, **settings_})
    with pytest.raises(ValueError, match="can be guessed"):
        Permits(b"short")
