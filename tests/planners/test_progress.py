"""The switching core: forward only, never past the goal, deaf to NaN, and patient for exactly as long as it says."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planners.progress import Move, Progress, Rule, decide

ANY = st.floats(allow_nan=True, allow_infinity=True)
RULES = st.builds(
    Rule,
    arrived=st.floats(0.1, 5), patience=st.integers(1, 5), nearer=st.floats(0, 2), cheaper=st.floats(0, 0.5),
    replans=st.integers(0, 2),
)  # fmt: skip


def moves(distances: list[float], rule: Rule, last: int = 1, costs: list[float] | None = None) -> list[Move]:
    progress, made = Progress(last), []
    for index, distance in enumerate(distances):
        move, progress = decide(progress, distance, costs[index] if costs else math.nan, rule)
        made.append(move)
    return made


@settings(deadline=None)
@given(st.integers(0, 4), st.lists(st.tuples(ANY, ANY), max_size=40), RULES)
def test_it_never_goes_back_and_never_past_the_goal(last: int, seen: list[tuple[float, float]], rule: Rule) -> None:
    progress = Progress(last)
    for distance, cost in seen:
        move, after = decide(progress, distance, cost, rule)
        assert after.last == last
        assert 0 <= after.at <= last
        assert after.at - progress.at == (1 if move in (Move.ARRIVED, Move.PASSED) else 0)
        if after.at != progress.at:
            assert after == Progress(last, progress.at + 1)
        progress = after


@settings(deadline=None)
@given(st.integers(0, 3), st.lists(ANY, max_size=20), st.sampled_from([math.nan, math.inf, -math.inf]), ANY, RULES)
def test_what_is_no_distance_decides_nothing(
    last: int, before: list[float], distance: float, cost: float, rule: Rule
) -> None:
    progress = Progress(last)
    for value in before:
        progress = decide(progress, value, math.nan, rule)[1]
    assert decide(progress, distance, cost, rule) == (Move.STAY, progress)


@settings(deadline=None)
@given(st.lists(ANY, max_size=30), RULES)
def test_every_wait_for_a_sub_goal_ends(distances: list[float], rule: Rule) -> None:
    """However the distance behaves before, an aim that no longer comes nearer is left after a known number of plans."""
    progress = Progress(1)
    for value in distances:
        progress = decide(progress, value, math.nan, rule)[1]
    still = [100.0] * ((rule.patience + 1) * (rule.replans + 1) + rule.patience)
    for value in still:
        progress = decide(progress, value, math.nan, rule)[1]
    assert progress.at == 1


def test_arriving() -> None:
    rule = Rule(arrived=2.0)
    assert moves([5.0, 2.1, 2.0, 9.0], rule, last=2) == [Move.STAY, Move.STAY, Move.ARRIVED, Move.STAY]
    # At the goal there is nowhere to go on to, and nothing to be stuck at.
    assert set(moves([1.0] * 20, rule, last=0)) == {Move.STAY}


def test_a_stall_is_planned_afresh_and_then_passed_over() -> None:
    rule = Rule(patience=3, nearer=0.5, replans=1)
    # One plan to compare with and three without progress; then as many again.
    assert moves([6.0, 5.9, 6.2, 5.6], rule) == [Move.STAY] * 3 + [Move.REPLAN]
    assert moves([6.0] * 8, rule) == [*[Move.STAY] * 3, Move.REPLAN, *[Move.STAY] * 3, Move.PASSED]
    assert moves([6.0] * 4, Rule(patience=3, replans=0))[-1] is Move.PASSED
    # The goal itself is sought afresh again and again.
    assert [m for m in moves([6.0] * 12, rule, last=0) if m is not Move.STAY] == [Move.REPLAN] * 3


def test_what_comes_nearer_is_not_stuck() -> None:
    rule = Rule(patience=3, nearer=0.5)
    assert set(moves([20 - 0.2 * n for n in range(40)], rule)) == {Move.STAY}
    # Far away a learned distance may be flat: a falling cost is progress as well.
    flat = [40.0] * 20
    assert set(moves(flat, rule, costs=[100 * 0.9**n for n in range(20)])) == {Move.STAY}
    assert Move.REPLAN in moves(flat, rule, costs=[100.0] * 20)
    assert Move.REPLAN in moves(flat, rule, costs=[0.0] * 20)


@pytest.mark.parametrize(
    "words",
    [{"arrived": 0.0}, {"arrived": math.nan}, {"patience": 0}, {"nearer": -1.0}, {"cheaper": 1.0}, {"replans": -1}],
)
def test_a_rule_that_means_nothing_is_refused(words: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(words))} is"):
        Rule(**words)  # type: ignore[arg-type]
