"""Limits are read whole or refused in a sentence."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from robots import Limits
from robots.limits import DEFAULT_FILE


def values(**changes: Any) -> dict[str, Any]:
    return {**dataclasses.asdict(Limits.load()), **changes}


def test_the_shipped_limits_load_and_fit_the_tabletop() -> None:
    from envs.tabletop import ACTION_HIGH, ACTION_LOW, JOINT_NAMES, WORKSPACE_HIGH, WORKSPACE_LOW
    from robots.kinematics import panda

    limits = Limits.load()
    assert limits.joint_names == JOINT_NAMES
    assert limits.action_high == pytest.approx(ACTION_HIGH)
    assert limits.action_low == pytest.approx(ACTION_LOW)
    assert limits.workspace_low == pytest.approx(WORKSPACE_LOW)
    assert limits.workspace_high == pytest.approx(WORKSPACE_HIGH)
    arm = panda()
    assert limits.joint_low == pytest.approx(arm.lower)
    assert limits.joint_high == pytest.approx(arm.upper)


def test_the_hash_changes_with_any_limit() -> None:
    limits = Limits.load()
    assert Limits.load().hash == limits.hash
    assert dataclasses.replace(limits, uncertainty=2.9).hash != limits.hash


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"workspace_low": [0.7, -0.26, 0.017]}, "are the two swapped"),
        ({"joint_high": [2.8, 1.7, 2.8, -0.0698, 2.8, float("nan"), 2.8]}, "joint_high"),
        ({"joint_low": [-2.9] * 6}, "has 6 numbers; it needs 7"),
        ({"joint_low": [-166, -101, -166, -176, -166, -1, -166]}, "look like degrees"),
        ({"joint_margin_rad": 2.0}, "leaves nothing"),
        ({"uncertainty": 0.0}, "above 0"),
        ({"uncertainty": -1.0}, "above 0"),
        ({"observation_age_s": "soon"}, "must be a number"),
        ({"vetoes_in_a_row": 2.5}, "a whole number"),
        ({"joint_velocity": [0.0] * 7}, "above 0"),
        ({"longest_step_s": 0.1}, "shorter than a step"),
        ({"joint_names": ["a"] * 7}, "all different"),
        ({"action_low": [0.01] + [-0.05] * 6}, "standing still"),
        ({"workspace_hight": [1, 1, 1]}, "did you mean workspace_high"),
    ],
)
def test_limits_that_make_no_sense_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match="guard limits") as refused:
        Limits.from_mapping(values(**changes))
    assert words in str(refused.value)


def test_a_missing_limit_is_named() -> None:
    incomplete = values()
    del incomplete["joint_velocity"]
    with pytest.raises(ValueError, match="joint_velocity is missing"):
        Limits.from_mapping(incomplete)


def test_files_that_are_no_limits(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no limits file"):
        Limits.load(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n- 2\n")
    with pytest.raises(ValueError, match="key: value"):
        Limits.load(tmp_path / "list.yaml")
    (tmp_path / "torn.yaml").write_text(DEFAULT_FILE.read_text()[:900] + "\n  [")
    with pytest.raises(ValueError, match=r"torn\.yaml"):
        Limits.load(tmp_path / "torn.yaml")
