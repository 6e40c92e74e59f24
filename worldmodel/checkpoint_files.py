"""A checkpoint folder's files (weights, card, and what only training needs), each written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

WEIGHTS, CARD, TRAINING = "model.safetensors", "card.json", "training.safetensors"


def write(
    folder: Path, tensors: dict[str, Tensor], card: Mapping[str, Any], training: dict[str, Tensor] | None = None
) -> None:
    """All are complete before any takes its name."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {name: folder / f".{name}.{os.getpid()}.part" for name in (TRAINING, WEIGHTS, CARD)}
    if training is None:
        del parts[TRAINING]
    else:
        save_file(training, parts[TRAINING])
    save_file(tensors, parts[WEIGHTS])
    parts[CARD].write_text(json.dumps(card, indent=2) + "\n")
    for name, part in parts.items():
        os.replace(part, folder / name)
