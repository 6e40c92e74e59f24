"""`premotor models`: which brains are shipped, and what a card says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from worldmodel import checkpoint

if TYPE_CHECKING:
    from omegaconf import DictConfig

ACTIONS = ("list", "show")


def list_models() -> None:
    """A table of the shipped checkpoints."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Shipped models", title_justify="left")
    for column in ("name", "parameters", "MB", "pictures", "tool probe cm", "object probe cm", "licence"):
        table.add_column(column, justify="left" if column in ("name", "licence", "pictures") else "right")
    for name in checkpoint.shipped_models():
        folder = checkpoint.SHIPPED / name
        card = checkpoint.read_card(folder)
        measured, shape = card.get("measured", {}), card["architecture"]
        size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
        table.add_row(
            name,
            f"{card.get('parameters', 0) / 1e6:.2f} M",
            f"{size:.1f}",
            f"{'+'.join(shape['cameras'])} {shape['image_size']} px",
            f"{measured.get('probe_tool_cm', float('nan')):.2f}",
            f"{measured.get('probe_object_cm', float('nan')):.2f}",
            str(card.get("licence", "-")),
        )
    Console().print(table)


def show_model(name: str) -> None:
    """A checkpoint's card, after checking that its weights load."""
    from rich.console import Console

    folder: Path = checkpoint.locate(name)
    _, card = checkpoint.load_networks(folder)
    Console().print_json(data=card)


def main(cfg: DictConfig) -> int:
    """`premotor models action=list|show name=...`."""
    action = str(cfg.action)
    if action not in ACTIONS:
        raise ValueError(f"models has no action {action!r}; known are {', '.join(ACTIONS)}")
    if action == "list":
        list_models()
    else:
        show_model(str(cfg.name))
    return 0
