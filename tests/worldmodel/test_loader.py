"""Batches drawn ahead are the batches that would have been drawn, also after a run was cut anywhere."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worldmodel.data import DatasetError, Episodes, Windows
from worldmodel.interface import TABLETOP
from worldmodel.loader import Loader

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def episodes(tiny_dataset) -> Episodes:
    return Episodes([tiny_dataset], ("front",), TABLETOP)


def loader(episodes: Episodes, *, ahead: bool, steps: int = 3) -> Loader:
    return Loader(
        lambda generator: episodes.draw(torch.arange(8), 4, steps, 5, generator),
        torch.Generator().manual_seed(7), ahead=ahead, device=CPU,
    )  # fmt: skip


def same(a: Windows, b: Windows) -> bool:
    pairs = [(getattr(a, field.name), getattr(b, field.name)) for field in fields(Windows)]
    return all(one is other is None or one.equal(other) for one, other in pairs)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.integers(0, 4), lost=st.integers(0, 3), after=st.integers(1, 3))
def test_a_loader_goes_on_from_what_was_taken(episodes: Episodes, before: int, lost: int, after: int) -> None:
    """`lost` batches were taken after the save, as by a run that was killed then."""
    plain = loader(episodes, ahead=False)
    wanted = [plain.take() for _ in range(before + after)]
    ahead = loader(episodes, ahead=True)
    assert all(same(ahead.take(), batch) for batch in wanted[:before])
    saved = ahead.state()
    for _ in range(lost):
        ahead.take()
    again = loader(episodes, ahead=True)
    for resumed in (again, ahead):  # in another process, or in the same one
        resumed.go_on_from(saved)
        assert all(same(resumed.take(), batch) for batch in wanted[before:])
        assert resumed.state().equal(plain.state())
        assert resumed.waited > 0
        resumed.close()


def test_what_the_thread_comes_to_grief_over_is_said(episodes: Episodes) -> None:
    for ahead in (False, True):
        with pytest.raises(DatasetError, match="no episode is longer than the window of 20 steps"):
            loader(episodes, ahead=ahead, steps=20).take()
