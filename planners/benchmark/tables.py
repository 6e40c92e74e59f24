"""A titled table of a benchmark, drawn in a terminal or written on a page: the same cells for both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.table import Table as Drawn


@dataclass(frozen=True)
class Column:
    """A head, and how its cells stand in a terminal.

    Attributes:
        head: what the column is called.
        justify: numbers to the right, words to the left.
        long: what becomes of a cell wider than there is room for: broken between words, anywhere, or nowhere.
        paint: a cell -> the cell in rich's markup; a page shows none.
        drawn: whether a terminal has room for it at all; a page has.
    """

    head: str
    justify: Literal["left", "right"] = "right"
    long: Literal["wrapped", "folded", "whole"] = "wrapped"
    paint: Callable[[str], str] = str
    drawn: bool = True


@dataclass(frozen=True)
class Table:
    """Rows of cells under a title; each row has a cell for every column."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]

    @classmethod
    def plain(cls, title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
        """What the rows are about to the left, numbers to the right.

        >>> print(Table.plain("Speed", ("planner", "ms"), [("cem", "12")]).markdown())
        | planner | ms |
        | --- | --- |
        | cem | 12 |
        """
        first, *others = heads
        return cls(title, [Column(first, "left"), *map(Column, others)], rows)

    def drawn(self) -> Drawn:
        """For a terminal."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table as Drawn

        look = {"title_justify": "left", "title_style": "bold", "box": SIMPLE_HEAD, "padding": (0, 1, 0, 0)}
        table = Drawn(title=self.title, **look)
        for column in self.columns:
            if column.drawn:
                overflow = "fold" if column.long == "folded" else "ellipsis"
                table.add_column(column.head, justify=column.justify, overflow=overflow, no_wrap=column.long == "whole")
        for row in self.rows:
            cells = zip(self.columns, row, strict=True)
            table.add_row(*(column.paint(cell) for column, cell in cells if column.drawn))
        return table

    def markdown(self) -> str:
        """For a page, without the title."""
        lines = [[column.head for column in self.columns], ["---"] * len(self.columns), *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
