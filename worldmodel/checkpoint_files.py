"""A checkpoint folder's two files, weights and card, each written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

WEIGHTS, CARD = "model.safetensors", "card.json"


def write(folder: Path, tensors: dict[str, Tensor], card: Mapping[str, Any]) -> None:
    """Both are complete before either takes its name."""
    folder.mkdir(parents=True, exist_ok=True)
    weights, text = (folder / f".{name}.{os.getpid()}.part" for name in (WEIGHTS, CARD))
    save_file(tensors, weights)
    text.write_text(json.dumps(card, indent=2) + "\n")
    os.replace(weights, folder / WEIGHTS)
    os.replace(text, folder / CARD)
