"""Training for so long: it ends when the time is over, and its learning rate with it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from worldmodel import timed


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)


def test_the_rate_warms_up_and_ends_with_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr(timed.time, "monotonic", lambda: 0.1 * next(clock))
    chosen = optimizer()
    rates = [chosen.param_groups[0]["lr"] for _ in timed.timed_steps("test", 1.0, chosen, 0.5)]
    assert len(rates) == 599  # a look at the clock every 0.1 s, the first of them the beginning
    assert rates[0] == pytest.approx(0.5 / timed.WARM_UP_STEPS, rel=0.01)
    assert max(rates) == pytest.approx(0.5, rel=0.1)
    assert rates.index(max(rates)) == timed.WARM_UP_STEPS - 1
    assert rates[-1] == pytest.approx(0.005, rel=0.05)


def test_no_time_is_no_step() -> None:
    assert list(timed.timed_steps("test", 0.0, optimizer(), 1.0)) == []


def test_a_killed_loop_goes_on_where_it_was_saved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr(timed.time, "monotonic", lambda: float(next(clock)))  # a second a step
    keeping = timed.Keeping(tmp_path / "stage", {"seed": 1, "data": ["d"]})

    def steps(killed_after: int | None, minutes: float) -> tuple[list[int], torch.nn.Linear]:
        keeping.begin()
        module = torch.nn.Linear(2, 1)
        learner = torch.optim.AdamW(module.parameters())
        made = []
        kept = keeping.loop("test", module, torch.Generator().manual_seed(0))
        for step in timed.timed_steps("test", minutes, learner, 0.5, kept):
            learner.zero_grad()
            module(torch.ones(1, 2)).sum().backward()
            learner.step()
            made.append(step)
            if len(made) == killed_after:
                break  # nothing is saved on the way out, as when killed
        return made, module

    first, _ = steps(150, 5.0)
    assert first == list(range(150))
    second, module = steps(None, 5.0)
    assert 60 <= second[0] < 150  # from the last save, not from the beginning and not from the end
    assert second[-1] - second[0] < 300 - second[0] + 1
    third, same = steps(None, 5.0)
    assert third == []
    assert same.weight.equal(module.weight)
    other = timed.Keeping(tmp_path / "stage", {"seed": 2, "data": ["d"]})
    with pytest.raises(ValueError, match="part of a run with seed=1, now it is 2"):
        other.begin()
    assert (tmp_path / "stage" / "test.pt").exists()
    other.end()
    assert not (tmp_path / "stage").exists()


def test_a_damaged_save_is_named(tmp_path: Path) -> None:
    keeping = timed.Keeping(tmp_path / "stage", {"seed": 1, "data": ["d"]})
    keeping.begin()
    (tmp_path / "stage" / "test.pt").write_bytes(b"half a fi")
    kept = keeping.loop("test", torch.nn.Linear(1, 1), torch.Generator())
    with pytest.raises(ValueError, match="is damaged"):
        list(timed.timed_steps("test", 1.0, optimizer(), 1.0, kept))
