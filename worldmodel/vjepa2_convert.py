"""From published V-JEPA 2 torch files to one slim checkpoint: encoder and predictor in bfloat16, no optimiser."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worldmodel import checkpoint_files
from worldmodel.interface import TABLETOP
from worldmodel.vjepa2 import Size, load_action_predictor, load_encoder, stripped
from worldmodel.vjepa2_model import FORMAT

# Heads of the published transformers by their width; weights do not tell.
_HEADS = {1024: 16, 1280: 16, 1408: 22, 1664: 26}


def convert(
    source: Path,
    out: Path,
    *,
    predictor: Path | None = None,
    img_size: int = 256,
    num_frames: int = 64,
    heads: tuple[int, int] | None = None,
    name: str = "vjepa2-ac",
    licence: str = "see the weights' publisher",
) -> dict[str, Any]:
    """Published torch files -> a checkpoint folder that `worldmodel.load` reads; returns its card.

    Args:
        source: a file with `encoder` and `predictor`, such as the published `vjepa2-ac-vitg.pt`.
        out: the folder to write.
        predictor: take the predictor from this file instead.
        img_size, num_frames: what the weights were trained on; the rest is read off them.
        heads: of encoder and predictor; the published ones are known by their width.
        name, licence: for the card.
    """
    parts = {"encoder": _part(source, "encoder"), "predictor": _part(predictor or source, "predictor")}
    of_encoder, of_predictor = heads or (None, None)
    seeing = _encoder_size(parts["encoder"], img_size, num_frames, of_encoder)
    sizes = {"encoder": seeing, "predictor": _predictor_size(parts["predictor"], seeing, of_predictor)}
    loaded = {
        "encoder": load_encoder(parts["encoder"], **asdict(sizes["encoder"])),
        "predictor": load_action_predictor(parts["predictor"], **asdict(sizes["predictor"])),
    }
    tensors = {
        f"{kind}.{key}": value.to(torch.bfloat16).contiguous()
        for kind, module in loaded.items()
        for key, value in module.state_dict().items()
    }
    for key, value in tensors.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"{source}: {key} holds NaN or infinity; nothing was written")
    card = {
        "format": FORMAT, "name": name, "licence": licence,
        "parameters": sum(value.numel() for value in tensors.values()),
        "source": [source.name, *([] if predictor is None else [predictor.name])],
        "sizes": {kind: asdict(size) for kind, size in sizes.items()},
        "action_space": TABLETOP.to_dict(),
    }  # fmt: skip
    checkpoint_files.write(out, tensors, card)
    return card


def _part(path: Path, kind: str) -> dict[str, Tensor]:
    """One part of a published torch file; nothing in it is executed."""
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} is no torch file of weights alone: {reason}") from None
    if not isinstance(content, dict) or not isinstance(content.get(kind), dict):
        there = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path} has no part {kind!r}; it has {there}")
    return stripped({str(key): value for key, value in content[kind].items() if isinstance(value, Tensor)})


def _encoder_size(weights: Mapping[str, Tensor], img_size: int, num_frames: int, heads: int | None) -> Size:
    """The sizes that an encoder's weights tell."""
    kernel = _first(weights, "encoder", "patch_embed.proj.weight")
    tubelet, patch = (kernel.shape[2], kernel.shape[3]) if kernel.ndim == 5 else (1, kernel.shape[2])
    width = kernel.shape[0]
    return Size(
        img_size=img_size, num_frames=num_frames, patch_size=patch, tubelet_size=tubelet, embed_dim=width,
        depth=_depth(weights, "blocks"), num_heads=_heads(width, heads),
    )  # fmt: skip


def _predictor_size(weights: Mapping[str, Tensor], encoder: Size, heads: int | None) -> Size:
    """The sizes that a predictor's weights tell; patches and frames are the encoder's."""
    width, tokens = _first(weights, "action-conditioned predictor", "predictor_embed.weight").shape
    return replace(
        encoder, embed_dim=tokens, predictor_embed_dim=width, depth=_depth(weights, "predictor_blocks"),
        num_heads=_heads(width, heads),
        action_embed_dim=_first(weights, "action-conditioned predictor", "action_encoder.weight").shape[1],
    )  # fmt: skip


def _first(weights: Mapping[str, Tensor], what: str, name: str) -> Tensor:
    if name not in weights:
        raise ValueError(f"this is no V-JEPA 2 {what}: it lacks {name}")
    return weights[name]


def _depth(weights: Mapping[str, Tensor], stack: str) -> int:
    return len({key.split(".")[1] for key in weights if key.startswith(f"{stack}.")})


def _heads(width: int, said: int | None) -> int:
    """As said, or as published for this width."""
    if said is None and width not in _HEADS:
        known = ", ".join(map(str, _HEADS))
        raise ValueError(
            f"{width} numbers wide is none of the published sizes ({known}); say heads=[ENCODER,PREDICTOR]"
        )
    count = _HEADS[width] if said is None else said
    if count < 1 or width % count:
        raise ValueError(f"{count} heads do not divide {width} numbers")
    return count
