"""What a run begins as: whose encoder, whose weights, whose eyes, whose reader."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from worldmodel import checkpoint, vjepa2_eyes
from worldmodel.networks import Architecture, Networks, architecture_from_dict, architecture_to_dict
from worldmodel.vjepa2_eyes import FrozenEyes

if TYPE_CHECKING:
    from worldmodel.adapt import AdaptSettings


def frozen_eyes(settings: AdaptSettings, architecture: Architecture) -> FrozenEyes | None:
    """The frozen eyes that encoder=, start= or the sizes name, if any do; they must all name the same."""
    named: list[tuple[str, str, Path | None]] = []  # who names them, what, and where they may also lie
    if vjepa2_eyes.are_meant(settings.encoder):
        named.append(("encoder", str(settings.encoder), None))
    elif architecture.eyes:
        named.append(("architecture.eyes", architecture.eyes, None))
    for key in ("encoder", "start"):
        said = getattr(settings, key)
        if said is not None and not vjepa2_eyes.are_meant(said):
            folder = checkpoint.locate(said)
            sizes = architecture_from_dict(dict(checkpoint.read_card(folder)["architecture"]))
            named.append((f"{key}={said}", sizes.eyes, folder / checkpoint.EYES))
    if not any(eyes for _, eyes, _ in named):
        return None
    who, first, beside = named[0]
    chosen = vjepa2_eyes.open_eyes(first, beside) if first else None
    for other, eyes, _ in named[1:]:
        if chosen is None or vjepa2_eyes.digest_in(eyes) != vjepa2_eyes.digest_in(chosen.name):
            raise ValueError(
                f"{who} looks with {first or 'convolutions of its own'}, {other} with "
                f"{eyes or 'convolutions of its own'}; a brain has one kind of eyes: leave one of the two out"
            )
    return chosen


def start_from(networks: Networks, encoder: str) -> None:
    """Take over a pretrained encoder, and the decoder that shows what it sees; one of other sizes is refused."""
    pretrained, _ = checkpoint.load_networks(checkpoint.locate(encoder))
    for size in ("cameras", "image_size", "features", "keypoints"):
        own, other = getattr(networks.architecture, size), getattr(pretrained.architecture, size)
        # An encoder does not know its cameras' names, only how many they are.
        if own != other and not (size == "cameras" and len(own) == len(other)):
            raise ValueError(
                f"the encoder {encoder} was trained with {size}={other}, here it is {own}; "
                f"set architecture.{size} alike or pretrain again"
            )
    networks.encoder.load_state_dict(pretrained.encoder.state_dict())
    networks.decoder.load_state_dict(pretrained.decoder.state_dict())


def with_its_reader(architecture: Architecture, start: str) -> Architecture:
    """The same sizes, with a reader if the checkpoint one goes on from has one: it is taken over as it is."""
    card = checkpoint.read_card(checkpoint.locate(start))
    return replace(architecture, reader=architecture_from_dict(dict(card["architecture"])).reader)


def reads_first(reader: str | None, networks: Networks) -> Networks | None:
    """Whose encoder and readout a new reader begins as: a checkpoint's, or these networks' own if they have their own
    eyes."""
    if reader is None:
        return None if networks.architecture.eyes else networks
    other, _ = checkpoint.load_networks(checkpoint.locate(reader))
    if other.architecture.eyes:
        raise ValueError(
            f"the reader's beginning {reader} looks with frozen eyes, a reader has convolutions of its own; leave reader= "
            "away, or choose another"
        )
    for size in ("cameras", "image_size", "state_size", "keypoints"):
        own, theirs = getattr(networks.architecture, size), getattr(other.architecture, size)
        if own != theirs:
            raise ValueError(f"the reader's beginning {reader} has {size}={theirs}, here it is {own}; choose another")
    for name in ("state_mean", "state_std"):
        if not torch.allclose(other.get_buffer(name), networks.get_buffer(name).cpu()):
            raise ValueError(
                f"the reader's beginning {reader} counts the state in other units ({name}); choose another"
            )
    return other.eval().to(networks.get_buffer("state_mean").device)


def go_on_from(networks: Networks, start: str) -> None:
    """Take over all weights of a checkpoint, and what it knows of its state's spread."""
    before, _ = checkpoint.load_networks(checkpoint.locate(start))
    mine, theirs = (architecture_to_dict(each.architecture) for each in (networks, before))
    for size, value in theirs.items():
        if size != "eyes" and mine[size] != value:  # the same eyes may lie elsewhere
            raise ValueError(
                f"{start} has {size}={value}, here it is {mine[size]}; set architecture.{size} alike or start afresh"
            )
    networks.load_state_dict(before.state_dict())
