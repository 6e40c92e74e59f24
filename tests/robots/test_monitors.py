"""Each monitor trips at its limit, with numbers, and demands its rung; quiet signs trip nothing; nonsense holds the arm."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robots.arm import Health
from robots.limits import Limits
from robots.monitors import Memory, Signs, Trip, look
from robots.stop import Stage

LIMITS = Limits.load()
QUIET = Signs(
    now=100.0, state_s=99.95, camera_s={"front": 99.7}, pictures={"front": "a"}, asked_s=99.5, heartbeat_s=99.95,
    joints=np.zeros(7), sent=np.full(7, 0.1), health=Health((), {"panda_joint1": 40.0}, {"panda_joint1": 0.5}),
    doubt=1.0, plan="p", late_s=0.001,
)  # fmt: skip


def trips(memory: Memory | None = None, **changes: Any) -> tuple[Trip, ...]:
    return look(dataclasses.replace(QUIET, **changes), LIMITS, memory or Memory())[0]


def test_quiet_signs_and_no_signs_trip_nothing() -> None:
    assert trips() == ()
    assert look(Signs(now=1.0), LIMITS, Memory())[0] == ()


@pytest.mark.parametrize(
    ("changes", "monitor", "rung", "words"),
    [
        ({"state_s": 99.85}, "state", Stage.HELD, "the newest joint reading is 0.150 s old (limit 0.1 s)"),
        ({"camera_s": {"front": 99.0}}, "camera", Stage.PAUSED, "camera front is 1.000 s old (limit 0.5 s)"),
        ({"heartbeat_s": 99.8}, "heartbeat", Stage.PARKED, "last sign of life is 0.200 s old (limit 0.1 s)"),
        ({"asked_s": 98.0}, "planner", Stage.PAUSED, "the question to the planner is 2.000 s old (limit 1 s)"),
        ({"late_s": 0.3}, "cadence", Stage.PAUSED, "a tick was sent 300 ms late (limit 250 ms)"),
        ({"sent": np.full(7, 0.2)}, "tracking", Stage.HELD, "panda_joint1 is 0.200 rad from where it was sent"),
        ({"health": Health(("overload on id 3",))}, "fault", Stage.HELD, "the device reports: overload on id 3"),
        ({"health": Health((), {"elbow": 71.0})}, "temperature", Stage.PARKED, "elbow is 71 C warm (limit 65 C)"),
        ({"health": Health((), {}, {"elbow": -0.95})}, "load", Stage.HELD, "bears -95 % of what it can (limit 90 %)"),
        ({"state_s": 100.5}, "state", Stage.HELD, "0.500 s in the future"),
        ({"now": math.nan}, "clock", Stage.HELD, "the arm's clock says nan"),
        ({"heartbeat_s": math.nan}, "heartbeat", Stage.PARKED, "is stamped nan"),
        ({"joints": np.full(7, math.nan)}, "tracking", Stage.HELD, "is nan rad from"),
        ({"late_s": math.nan}, "cadence", Stage.PAUSED, "nan ms late"),
        ({"late_s": -math.inf}, "cadence", Stage.PAUSED, "-inf ms late"),
        ({"health": Health(temperature_c={"j": -math.inf})}, "temperature", Stage.PARKED, "j is -inf C warm"),
        ({"sent": np.zeros(3)}, "monitors", Stage.HELD, "cannot be judged"),
    ],
)
def test_each_monitor_trips(changes: dict[str, Any], monitor: str, rung: Stage, words: str) -> None:
    found = trips(**changes)
    assert [trip.monitor for trip in found] == [monitor]
    assert found[0].rung is rung
    assert words in found[0].sentence


@pytest.mark.parametrize("name", ["state_s", "heartbeat_s", "asked_s"])
def test_just_inside_its_limit_nothing_trips(name: str) -> None:
    most = {"state_s": LIMITS.state_age_s, "heartbeat_s": LIMITS.heartbeat_s, "asked_s": LIMITS.planner_deadline_s}[
        name
    ]
    assert not trips(**{name: 100.0 - 0.999 * most})
    assert trips(**{name: 100.0 - 1.001 * most})


def test_the_gravest_comes_first() -> None:
    found = trips(camera_s={"front": 98.0}, heartbeat_s=90.0, state_s=99.0)
    assert [trip.rung for trip in found] == [Stage.PARKED, Stage.HELD, Stage.PAUSED]


def watch(count: int, *, picture: Any = lambda k: "same", stamp: Any = lambda k: k, joints: Any = lambda k: 0.0,
          noisy: bool = True) -> list[int]:  # fmt: skip
    """At which looks the frozen monitor trips."""
    memory, found = Memory(), []
    for k in range(count):
        signs = Signs(
            now=k / 5, camera_s={"front": stamp(k) / 5}, pictures={"front": picture(k)}, noisy=noisy,
            joints=np.full(7, joints(k)),
        )  # fmt: skip
        result, memory = look(signs, LIMITS, memory)
        found += [k for trip in result if trip.monitor == "frozen"]
    return found


def test_a_frozen_camera_is_found_by_its_stamps_running_on() -> None:
    assert watch(12) == [9, 10, 11]
    assert watch(30, picture=lambda k: str(k // 9)) == []
    # No new picture at all is another monitor's business.
    memory = Memory()
    for _ in range(30):
        found, memory = look(QUIET, LIMITS, memory)
        assert not found


def test_a_rendered_still_scene_is_not_frozen_but_one_in_which_the_arm_moves_is() -> None:
    assert watch(40, noisy=False) == []
    assert watch(40, noisy=False, joints=lambda k: 0.002 * k)[:1] == [34]  # ten looks after the arm has turned 0.05 rad


def test_doubt_in_one_plan_is_a_veto_and_in_many_a_pause() -> None:
    memory = Memory()
    rungs = []
    for index, doubt in enumerate([9.0] * 4 + [1.0] + [9.0] * 5):
        for _ in range(3):  # looked at more often than plans come
            found, memory = look(dataclasses.replace(QUIET, doubt=doubt, plan=f"p{index}"), LIMITS, memory)
            rungs += [(index, trip.rung) for trip in found]
    assert rungs == [(9, Stage.PAUSED)]


numbers = st.one_of(st.none(), st.floats())


@settings(deadline=None, max_examples=200)
@given(
    now=st.floats(), state=numbers, camera=st.floats(), asked=numbers, beat=numbers, doubt=numbers, late=numbers,
    joints=st.lists(st.floats(), min_size=7, max_size=7), sent=st.lists(st.floats(), min_size=6, max_size=7),
    warm=st.floats(), load=st.floats(),
)  # fmt: skip
def test_nothing_crashes_and_nothing_that_is_no_number_passes(
    now: float, state: Any, camera: float, asked: Any, beat: Any, doubt: Any, late: Any, joints: list[float],
    sent: list[float], warm: float, load: float,
) -> None:  # fmt: skip
    signs = Signs(
        now, state, {"front": camera}, {"front": "x"}, True, asked, beat, np.array(joints), np.array(sent),
        Health((), {"j": warm}, {"j": load}), doubt, "plan", late,
    )  # fmt: skip
    found, _ = look(signs, LIMITS, Memory())
    values = [now, state, camera, asked, beat, late, warm, load, *joints, *sent]
    if not all(v is None or math.isfinite(v) for v in values):
        assert found
    assert all(trip.rung in (Stage.PAUSED, Stage.HELD, Stage.PARKED) and trip.sentence for trip in found)
