"""`premotor models`: which brains are shipped, what a card says, and published weights fetched and made into a brain."""

from __future__ import annotations

import difflib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from worldmodel import checkpoint
from worldmodel.fetch import PUBLISHED, digest, fetch

if TYPE_CHECKING:
    from omegaconf import DictConfig

ACTIONS = ("list", "show", "pull", "convert")


def list_models() -> None:
    """A table of the shipped checkpoints; linear probes say how exactly features tell where tool and object are."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Shipped models", title_justify="left", box=box.SIMPLE, pad_edge=False, collapse_padding=True)
    for column in ("name", "use", "weights", "MB", "pictures", "tool, object cm", "licence"):
        words = column in ("name", "use", "licence", "pictures")
        table.add_column(column, justify="left" if words else "right", no_wrap=True)
    for name in checkpoint.shipped_models():
        folder = checkpoint.SHIPPED / name
        card = checkpoint.read_card(folder)
        measured, shape = card.get("measured", {}), card["architecture"]
        size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
        table.add_row(
            name,
            "encoder" if checkpoint.watched_only(card) else "plan",
            f"{card.get('parameters', 0) / 1e6:.1f} M",
            f"{size:.0f}",
            f"{'+'.join(shape['cameras'])} {shape['image_size']}",
            f"{measured.get('probe_tool_cm', float('nan')):.1f}, {measured.get('probe_object_cm', float('nan')):.1f}",
            str(card.get("licence", "-")),
        )
    console = Console()
    console.print(table)
    others = Table(title="Published by others (action=pull name=...)", title_justify="left")
    for column in ("name", "licence", "what it is"):
        others.add_column(column)
    for name, published in PUBLISHED.items():
        others.add_row(name, published.licence, published.about)
    console.print(others)


def show_model(name: str) -> None:
    """A checkpoint's card, after checking that its weights load."""
    from rich.console import Console

    folder: Path = checkpoint.locate(name)
    card = checkpoint.read_card(folder, checkpoint.FORMATS)
    if checkpoint.watched_only(card):
        checkpoint.load_networks(folder)
    else:
        checkpoint.load(folder, device="cpu")
    Console().print_json(data=card)


def pull_model(name: str, folder: Path, accepted: bool) -> None:
    """Published weights, or a checkpoint of ours from the hub, into a folder."""
    if name.startswith("hf:"):
        there = checkpoint.locate(name)
        checkpoint.load(there, device="cpu")  # a foreign or damaged one is not kept
        out = folder / name.rsplit("/", 1)[-1]
        if out.exists():
            raise ValueError(f"{out} is there already; choose another out=")
        shutil.copytree(there, out)
        print(f"{out}: plan with model={out}")
        return
    if name not in PUBLISHED:
        near = difflib.get_close_matches(name, PUBLISHED, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"nothing called {name!r} is published; known are {', '.join(PUBLISHED)}, hf:owner/name{hint}")
    published = PUBLISHED[name]
    print(f"{name}: {published.about}. Licence: {published.licence}.")
    if not (published.free or accepted):
        raise ValueError(f"the licence of {name}, {published.licence}, allows no commercial use; say accept=true")
    place = fetch(published.url, folder, size=published.size)
    print(f"{place}: sha256 {digest(place)}")
    role = "predictor" if published.predictor_only else "source"
    other = "source=vjepa2-ac-vitg.pt " if published.predictor_only else ""
    print(f"Next: premotor models action=convert {other}{role}={place} licence={published.licence} out=...")


def convert_published(cfg: DictConfig) -> None:
    """Published V-JEPA 2-AC weights into a checkpoint."""
    from worldmodel.vjepa2_convert import convert

    if cfg.source is None:
        raise ValueError("say source=FILE, the published torch file (vjepa2-ac-vitg.pt, say)")
    out = Path(str(cfg.out))
    if (out / checkpoint.CARD).exists():
        raise ValueError(f"{out} holds a checkpoint already; choose another out=")
    heads = None if cfg.heads is None else tuple(int(count) for count in cfg.heads)
    if heads is not None and len(heads) != 2:
        raise ValueError(f"heads is {list(heads)}; it is two numbers, of the encoder and of the predictor")
    card = convert(
        Path(str(cfg.source)), out, predictor=None if cfg.predictor is None else Path(str(cfg.predictor)),
        img_size=int(cfg.img_size), heads=heads, licence=str(cfg.licence), name=out.name,
    )  # fmt: skip
    size = (out / checkpoint.WEIGHTS).stat().st_size / 1e6
    print(f"{out}: {card['parameters'] / 1e6:.1f} million parameters, {size:.0f} MB; plan with model={out}")


def main(cfg: DictConfig) -> int:
    """`premotor models action=list|show|pull|convert ...`."""
    action = str(cfg.action)
    if action not in ACTIONS:
        raise ValueError(f"models has no action {action!r}; known are {', '.join(ACTIONS)}")
    if action == "list":
        list_models()
    elif action == "show":
        show_model(str(cfg.name))
    elif action == "pull":
        pull_model(str(cfg.name), Path(str(cfg.out)), bool(cfg.accept))
    else:
        convert_published(cfg)
    return 0
