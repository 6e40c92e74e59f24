"""Paths keep their ends and their speed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robots.arm import JointTarget
from robots.stream import PEAK, path, travel

angles = st.lists(st.floats(-3, 3), min_size=3, max_size=3).map(np.array)


@settings(deadline=None)
@given(start=angles, end=angles, rate=st.sampled_from([30.0, 100.0, 250.0]))
def test_a_path_ends_at_rest_and_its_peak_is_known(start: np.ndarray, end: np.ndarray, rate: float) -> None:
    ticks = list(path(JointTarget.still(start, 0.0), JointTarget.still(end, 1.0), 0.2, rate))
    assert len(ticks) == round(0.2 * rate)
    np.testing.assert_allclose(ticks[-1].joints, end, atol=1e-12)
    np.testing.assert_allclose(ticks[-1].velocity, 0.0, atol=1e-9)
    assert ticks[-1].gripper == pytest.approx(1.0)
    peak = np.abs(end - start) * PEAK / 0.2
    assert (np.max([np.abs(t.velocity) for t in ticks], axis=0) <= peak + 1e-9).all()
    between = np.diff(np.stack([start] + [t.joints for t in ticks]), axis=0) * rate
    assert (np.abs(between).max(axis=0) <= peak + 1e-9).all()


@settings(deadline=None)
@given(start=angles, end=angles, speed=st.floats(0.2, 2.0))
def test_travel_is_never_faster_than_asked(start: np.ndarray, end: np.ndarray, speed: float) -> None:
    ticks = list(travel(JointTarget.still(start, 0.3), end, speed, 50.0))
    joints = np.stack([start] + [t.joints for t in ticks])
    if np.abs(end - start).max() * 50.0 > speed:  # shorter ways than one tick take one tick
        assert (np.abs(np.diff(joints, axis=0)) * 50.0).max() <= speed + 1e-9
    np.testing.assert_allclose(ticks[-1].joints, end, atol=1e-12)
    assert all(t.gripper == pytest.approx(0.3) for t in ticks)
