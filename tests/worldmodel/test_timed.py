"""Training for so long: it ends when the time is over, and its learning rate with it."""

from __future__ import annotations

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
