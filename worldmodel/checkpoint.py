"""A trained model on disk: weights in safetensors, and a card that says what they are and were made from.

Nothing is pickled. A card that does not fit its weights, or weights that do not fit this code, are refused by name.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from worldmodel import checkpoint_files, vjepa2_eyes, vjepa2_model
from worldmodel.checkpoint_files import CARD, TRAINING, WEIGHTS
from worldmodel.interface import ActionSpace, WorldModel
from worldmodel.native import NativeModel
from worldmodel.networks import TRAINING_HEADS, Networks, architecture_from_dict, architecture_to_dict

FORMAT = "premotor native 1"
# What `load` reads: the native model's checkpoints and converted ones.
FORMATS = (FORMAT, vjepa2_model.FORMAT)
# Frozen eyes that lie in a checkpoint's own folder are found there, should their place be gone.
EYES = "eyes"
SHIPPED = Path(__file__).parent / "checkpoints"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used, said in one sentence."""


def resolve_device(device: str) -> torch.device:
    """`auto` takes CUDA, then MPS, then the CPU."""
    if device != "auto":
        try:
            chosen = torch.device(device)
            torch.empty(0, device=chosen)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"device={device} is not here ({str(error).splitlines()[0]}); say device=auto") from None
        return chosen
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def shipped_models() -> list[str]:
    """Names that `load` knows."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{CARD}"))


def save(
    folder: Path, networks: Networks, action_space: ActionSpace, card: Mapping[str, Any], *, half: bool = True
) -> None:
    """Write a checkpoint folder; bf16 unless `half` is off (statistics stay float32)."""
    tensors = {}
    for name, value in networks.state_dict().items():
        shrink = half and value.dtype == torch.float32 and value.ndim > 1
        tensors[name] = (value.to(torch.bfloat16) if shrink else value).contiguous().cpu()
    full = {
        "format": FORMAT,
        "architecture": architecture_to_dict(networks.architecture),
        "action_space": action_space.to_dict(),
        **card,
    }
    training = {name: tensors.pop(name) for name in list(tensors) if name.startswith(TRAINING_HEADS)}
    checkpoint_files.write(folder, tensors, full, training)


def read_card(folder: Path, formats: tuple[str, ...] = (FORMAT,)) -> dict[str, Any]:
    """A checkpoint's card, checked to be one of these kinds."""
    path = folder / CARD
    if not path.exists():
        raise CheckpointError(f"{folder} is no premotor checkpoint: {CARD} is missing")
    try:
        card = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path} is damaged ({error.msg} at line {error.lineno})") from None
    except UnicodeDecodeError:
        raise CheckpointError(f"{path} is damaged (it is no text)") from None
    if not isinstance(card, dict) or card.get("format") not in formats:
        found = card.get("format") if isinstance(card, dict) else type(card).__name__
        known = " or ".join(map(repr, formats))
        raise CheckpointError(f"{path} is a foreign card (format {found!r}); {known} is read here")
    return card


def locate(name: str) -> Path:
    """The folder of a shipped name, a path, or `hf:owner/name` (downloaded through the hub's own client)."""
    if name.startswith("hf:"):
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(name.removeprefix("hf:"), allow_patterns=[WEIGHTS, CARD, TRAINING]))
        except Exception as error:  # the hub's client has a dozen kinds, none of them with a sentence of one line
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise CheckpointError(f"{name} could not be fetched: {reason}") from None
    if (SHIPPED / name / CARD).exists():
        return SHIPPED / name
    folder = Path(name)
    if folder.is_dir():
        return folder
    import difflib

    near = difflib.get_close_matches(name, shipped_models(), n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    known = ", ".join(shipped_models()) or "none"
    raise CheckpointError(f"no model is called {name!r} and there is no such folder (shipped: {known}){hint}")


def load_networks(folder: Path, *, for_training: bool = True) -> tuple[Networks, dict[str, Any]]:
    """Weights and card of a checkpoint folder, checked against each other.

    Planning does not need the heads that only training needs; not `for_training`, they are left as they are made.
    """
    card = read_card(folder)
    path = folder / WEIGHTS
    if not path.exists():
        raise CheckpointError(f"{folder} has a card but no {WEIGHTS}")
    tensors = _read_tensors(path)
    alone = not any(name.startswith(TRAINING_HEADS) for name in tensors)  # all were in one file once
    if alone and for_training:
        if not (folder / TRAINING).exists():
            raise CheckpointError(f"{folder} has no {TRAINING}: it can plan, but not be trained on")
        tensors |= _read_tensors(folder / TRAINING)
    try:
        architecture = architecture_from_dict(dict(card["architecture"]))
        eyes = vjepa2_eyes.open_eyes(architecture.eyes, beside=folder / EYES) if architecture.eyes else None
        networks = Networks(architecture, eyes)
    except vjepa2_eyes.EyesError as error:
        raise CheckpointError(f"{folder}: {error}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / CARD}: the architecture does not fit this version ({error})") from None
    own = networks.state_dict()
    if alone and not for_training:
        own = {name: value for name, value in own.items() if not name.startswith(TRAINING_HEADS)}
    for name, value in own.items():
        if name not in tensors:
            raise CheckpointError(f"{path} lacks {name}: its card belongs to other weights")
        if tensors[name].shape != value.shape:
            raise CheckpointError(
                f"{path}: {name} is {tuple(tensors[name].shape)}, the card's architecture wants {tuple(value.shape)}"
            )
        if not torch.isfinite(tensors[name].float()).all():
            raise CheckpointError(f"{path}: {name} holds NaN or infinity; the checkpoint is damaged")
    foreign = sorted(set(tensors) - set(own))
    if foreign:
        raise CheckpointError(f"{path} also holds {foreign[0]}, which the card's architecture does not have")
    networks.load_state_dict({name: tensors[name].to(own[name].dtype) for name in own}, strict=False)
    return networks, card


def watched_only(card: Mapping[str, Any]) -> bool:
    """Whether a checkpoint is an encoder from video (`premotor pretrain`), that cannot plan."""
    return bool(card.get("training", {}).get("settings", {}).get("video_only"))


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is truncated or damaged ({error})") from None


def is_place(name: str) -> bool:
    """Whether a name is `package.module:Class` rather than a checkpoint."""
    module, colon, kind = name.partition(":")
    return bool(colon) and module != "hf" and kind.isidentifier() and all(map(str.isidentifier, module.split(".")))


def _own(name: str, device: torch.device) -> WorldModel:
    """A brain of somebody else's, made as `Class(device=...)`."""
    module_name, _, kind = name.partition(":")
    try:
        made = getattr(importlib.import_module(module_name), kind)(device=device)
    except (ImportError, AttributeError, TypeError) as error:
        raise CheckpointError(f"model {name}: {error}") from None
    if not isinstance(made, WorldModel):
        lacks = [part for part in dir(WorldModel) if not part.startswith("_") and not hasattr(made, part)]
        raise CheckpointError(f"model {name} is no world model: it lacks {', '.join(lacks)}")
    return made


def load(
    name: str | Path, device: str = "auto", action_space: ActionSpace | None = None, precision: str = "auto"
) -> WorldModel:
    """A model by shipped name, folder, `hf:owner/name`, or `package.module:Class` of one's own.

    Args:
        name: e.g. `tabletop`, `outputs/adapt/run1`, `hf:owner/model`, `my_brains:Mine`.
        device: `auto`, `cpu`, `cuda`, `mps`.
        action_space: what the caller's actions mean; a model made for others is refused.
        precision: of planning, see `NativeModel`.
    """
    if is_place(str(name)):
        own = _own(str(name), resolve_device(device))
        if action_space is not None:
            own.action_space.check_compatible(action_space)
        return own
    folder = locate(str(name))
    card = read_card(folder, FORMATS)
    try:
        space = ActionSpace.from_dict(card.get("action_space") or {})
    except ValueError as error:
        raise CheckpointError(f"{folder / CARD}: {error}") from None
    if action_space is not None:
        space.check_compatible(action_space)
    if card["format"] == vjepa2_model.FORMAT:
        try:
            return vjepa2_model.load_folder(folder, card, resolve_device(device), precision, space)
        except ValueError as error:
            raise CheckpointError(str(error)) from None
    if watched_only(card):
        raise CheckpointError(
            f"{folder} learned from video alone and knows no actions; adapt it first: premotor adapt encoder={name} data=..."
        )
    networks, card = load_networks(folder, for_training=False)
    name = str(card.get("name", folder.name))
    return NativeModel(networks, space, name=name, device=resolve_device(device), precision=precision)
