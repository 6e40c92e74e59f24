"""A benchmark's tables: the same cells in a terminal and on a page."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from planners.benchmark.tables import Column, Table

SAID = Table(
    "How fast", [Column("planner", "left"), Column("ms", paint="[green]{}[/]".format), Column("more", drawn=False)],
    [("cem", "12", "a"), ("gradient", "3 [2, 4]", "b")],
)  # fmt: skip


def test_a_page_shows_all_and_no_paint() -> None:
    assert SAID.markdown().splitlines() == [
        "| planner | ms | more |", "| --- | --- | --- |", "| cem | 12 | a |", "| gradient | 3 [2, 4] | b |",
    ]  # fmt: skip


def test_a_terminal_shows_what_it_has_room_for() -> None:
    console = Console(width=40, record=True, force_terminal=True, color_system="standard", file=io.StringIO())
    console.print(SAID.drawn())
    assert "\x1b[32m" in console.export_text(styles=True, clear=False)
    lines = [line.strip() for line in console.export_text().splitlines() if line.strip()]
    assert lines[0] == "How fast"
    assert [line.split() for line in lines[1:2] + lines[3:]] == [
        ["planner", "ms"], ["cem", "12"], ["gradient", "3", "[2,", "4]"],
    ]  # fmt: skip


def test_a_row_with_too_few_cells_is_no_row() -> None:
    with pytest.raises(ValueError, match="shorter"):
        Table.plain("", ("a", "b"), [("1",)]).drawn()
