"""The record: it comes back as it went, it appears whole or not at all, and a damaged one is one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from planners import CEM, MPC, Budget, Goal, PlanRecord, Rollout, RolloutError, StepRecord

Observe = Callable[..., dict[str, np.ndarray]]


def episode(point: Any, observe: Observe, steps: int = 4) -> Rollout:
    """A few steps, one of them blind."""
    goal = observe(0.6, -0.5, 0.2)
    agent = MPC(
        point(doubt=lambda latents: latents[..., 0].abs()), CEM(horizon=3), Goal.from_observation(goal), Budget(20, 2)
    )
    rollout = Rollout({"task": "point", "action_names": ["dx", "dy", "dgripper"], "rate_hz": 5.0}, goal)
    for index in range(steps):
        seen = observe(np.nan if index == 2 else 0.1 * index)
        action = agent.act(seen)
        plan = None if agent.last_plan is None else PlanRecord.of(agent.last_plan, agent.model)
        rollout.steps.append(
            StepRecord(
                time_s=0.2 * index,
                observation=seen,
                action=action,
                executed=action + 0.001,
                act_ms=1.5,
                plan=plan,
                judged={"goal_distance_m": 0.5 - 0.1 * index},
                events=agent.events(),
                picture=np.full((32, 32, 3), index, np.uint8) if index else None,
            )
        )
    rollout.final = observe(0.4)
    rollout.outcome = {"success": True, "final_distance_cm": 1.2, "start_distance_cm": 9.0}
    return rollout


def assert_equal(a: Any, b: Any) -> None:
    """Deeply, arrays included."""
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    elif hasattr(a, "__dataclass_fields__"):
        for field in fields(a):
            assert_equal(getattr(a, field.name), getattr(b, field.name))
    else:
        assert a == b


def by_key(rollout: Rollout) -> Rollout:
    """With arrays in the order of their names: a file does not keep another."""

    def sort(arrays: dict[str, Any]) -> dict[str, Any]:
        return dict(sorted(arrays.items()))

    steps = [StepRecord(**{**vars(step), "observation": sort(step.observation)}) for step in rollout.steps]
    return Rollout(rollout.about, sort(rollout.goal), steps, sort(rollout.final), rollout.outcome)


def test_it_comes_back_as_it_went(point: Any, observe: Observe, tmp_path: Path) -> None:
    rollout = episode(point, observe)
    back = Rollout.load(rollout.save(tmp_path / "one"))
    assert_equal(by_key(rollout), by_key(back))
    assert back.steps[2].plan is None
    assert back.steps[2].events[0].startswith("holding: observation.state has NaN")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one"]


def test_people_can_read_the_numbers(point: Any, observe: Observe, tmp_path: Path) -> None:
    folder = episode(point, observe).save(tmp_path / "one")
    table = pq.read_table(folder / "steps.parquet")
    assert {"step", "action", "executed", "cost", "term.learned", "judged.goal_distance_m", "plan_ms"} <= set(
        table.column_names
    )
    assert table.num_rows == 4
    assert json.loads((folder / "rollout.json").read_text())["about"]["task"] == "point"


def test_saving_again_replaces_and_leaves_no_litter(point: Any, observe: Observe, tmp_path: Path) -> None:
    episode(point, observe).save(tmp_path / "one")
    episode(point, observe, steps=2).save(tmp_path / "one")
    assert len(Rollout.load(tmp_path / "one").steps) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_save_that_fails_leaves_what_was_there(point: Any, observe: Observe, tmp_path: Path) -> None:
    episode(point, observe).save(tmp_path / "one")
    broken = episode(point, observe)
    broken.about["unwritable"] = torch.zeros(1)
    with pytest.raises(TypeError):
        broken.save(tmp_path / "one")
    assert len(Rollout.load(tmp_path / "one").steps) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_it_does_not_overwrite_what_is_not_its_own(point: Any, observe: Observe, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    with pytest.raises(RolloutError, match="precious exists and holds no rollout; choose another folder"):
        episode(point, observe).save(tmp_path / "precious")
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("name", ["rollout.json", "steps.parquet", "arrays.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.98])
def test_a_file_cut_short_is_one_sentence(
    point: Any, observe: Observe, tmp_path: Path, name: str, share: float
) -> None:
    folder = episode(point, observe).save(tmp_path / "one")
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(RolloutError, match=r"the rollout .*one cannot be read .* record it again"):
        Rollout.load(folder)


def test_what_is_no_rollout_says_so(point: Any, observe: Observe, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"is no rollout: it has no rollout.json"):
        Rollout.load(tmp_path)
    folder = episode(point, observe).save(tmp_path / "one")
    head = json.loads((folder / "rollout.json").read_text())
    (folder / "rollout.json").write_text(json.dumps({**head, "format": "something else"}))
    with pytest.raises(RolloutError, match="has format 'something else'"):
        Rollout.load(folder)
    (folder / "rollout.json").write_text(json.dumps({**head, "steps": 9}))
    with pytest.raises(RolloutError, match="should have 9 steps"):
        Rollout.load(folder)
