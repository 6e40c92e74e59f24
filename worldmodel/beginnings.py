"""What a run begins as: whose encoder, whose weights, whose eyes, whose reader."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from worldmodel import checkpoint, processes, vjepa2_eyes
from worldmodel.data import Episodes
from worldmodel.networks import Architecture, Networks, ResidualMLP, architecture_from_dict
from worldmodel.vjepa2_eyes import FrozenEyes

if TYPE_CHECKING:
    from worldmodel.settings import AdaptSettings

# Transitions by which it is found out what a guessed motion means.
TRANSLATED = 4096
# How far apart the modes of a prior begin that had one, in actions of [-1, 1].
BRANCH_SPREAD = 0.1


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


def start_from(networks: Networks, encoder: str, episodes: Episodes, training: Tensor, device: torch.device) -> None:
    """Take over a pretrained encoder and the decoder that shows what it sees; one of other sizes is refused.

    An encoder from video comes with a predictor and a sense of distance that know guessed actions and no arm. Where the
    sizes are alike they are taken over too, what is really done being translated into what would be guessed.
    """
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
    pretrained.to(device).eval()
    if pretrained.motion is not None and _alike(networks, pretrained):
        translation, explained = _translation(pretrained, episodes, training, device)
        _take_over(networks, pretrained, translation)
        processes.say(
            f"The predictor from video is taken over: {100 * explained:.0f} % of the motions that it guesses are explained "
            "by what was done."
        )


def _alike(networks: Networks, pretrained: Networks) -> bool:
    sizes = ("state_size", "predictor_width", "predictor_depth", "head_width", "distance_bins")
    own, theirs = networks.architecture, pretrained.architecture
    return all(getattr(own, size) == getattr(theirs, size) for size in sizes)


@torch.no_grad()
def _translation(
    pretrained: Networks, episodes: Episodes, training: Tensor, device: torch.device
) -> tuple[Tensor, float]:
    """What is done as what is guessed: (A + 1, A'), the last row a constant; and the share of the guesses it explains."""
    assert pretrained.motion is not None
    index = episodes.frames_of(training)
    last = torch.repeat_interleave(episodes.starts + episodes.lengths - 1, episodes.lengths)
    index = index[index < last[index]]
    some = index[torch.randint(len(index), (TRANSLATED,), generator=torch.Generator().manual_seed(2))]
    before, after = (
        torch.cat([pretrained.encoder(episodes.frames(part).to(device)).float() for part in at.split(512)])
        for at in (some, some + 1)
    )
    guessed = pretrained.motion(before, after).cpu().double()
    done = torch.cat([episodes.actions[some], torch.ones(len(some), 1)], 1).double()
    gram = done.T @ done + 1e-3 * len(some) * torch.eye(done.shape[1], dtype=torch.float64)
    translation = torch.linalg.solve(gram, done.T @ guessed)
    left = (guessed - done @ translation).var(0).sum() / guessed.var(0).sum()
    return translation.float(), float(1 - left)


@torch.no_grad()
def _take_over(networks: Networks, pretrained: Networks, translation: Tensor) -> None:
    """Predictor, doubt and steps to the goal, fed with real actions (*, A) and an arm's state that video did not have."""
    features, state = networks.architecture.features, networks.architecture.state_size
    for own, theirs in (
        (networks.predictor, pretrained.predictor),
        (networks.doubt, pretrained.doubt),
        (networks.steps_to_goal, pretrained.steps_to_goal),
    ):
        kept = {name: value for name, value in theirs.state_dict().items() if not name.startswith("enter.")}
        own.load_state_dict(kept, strict=False)
        weight, bias = theirs.enter.weight.clone(), theirs.enter.bias.clone()
        seen, acted = weight[:, :features], weight[:, features + pretrained.architecture.state_size :]
        if own is not networks.steps_to_goal:
            matrix = translation.to(weight.device)
            bias = bias + acted @ matrix[-1]
            acted = acted @ matrix[:-1].T
        own.enter.weight.zero_()  # the arm's state, and the goal's, were not known from video
        own.enter.weight[:, :features] = seen
        own.enter.weight[:, features + state :][:, : acted.shape[1]] = acted
        own.enter.bias.copy_(bias)
    # Where the arm goes is not known yet: at first it stays.
    outcome = networks.predictor.leave[-1]
    assert isinstance(outcome, nn.Linear)
    outcome.weight[features:].zero_()
    outcome.bias[features:].zero_()


def grown(architecture: Architecture, start: str) -> Architecture:
    """The same sizes with what the checkpoint one goes on from has grown: a reader, modes of its prior, heads that are told
    the goal's state, a pace."""
    theirs = architecture_from_dict(dict(checkpoint.read_card(checkpoint.locate(start))["architecture"]))
    return replace(
        architecture,
        reader=theirs.reader,
        proposal_modes=max(architecture.proposal_modes, theirs.proposal_modes),
        goal_state=architecture.goal_state or theirs.goal_state,
        pace=architecture.pace or theirs.pace,
    )


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
    before, card = checkpoint.load_networks(checkpoint.locate(start))
    if checkpoint.watched_only(card):
        raise ValueError(f"{start} learned from video alone; begin with its encoder: encoder={start}")
    mine, theirs = (asdict(each.architecture) for each in (networks, before))
    for size, value in theirs.items():
        # The same eyes may lie elsewhere, one way to go on may become several, and heads may be told more.
        grows = (size == "proposal_modes" and value == 1) or (size in ("goal_state", "pace") and not value)
        if size != "eyes" and mine[size] != value and not grows:
            raise ValueError(
                f"{start} has {size}={value}, here it is {mine[size]}; set architecture.{size} alike or start afresh"
            )
    if mine["proposal_modes"] != theirs["proposal_modes"]:
        _branch(before, mine["proposal_modes"])
    if mine["goal_state"] != theirs["goal_state"]:
        state_size = before.architecture.state_size
        _tell_more(before.steps_to_goal, state_size)
        _tell_more(before.proposal, state_size, last=int(theirs["pace"]))  # the pace stays the last that it hears
    if mine["pace"] != theirs["pace"]:
        _tell_more(before.proposal, 1)
    networks.load_state_dict(before.state_dict())


@torch.no_grad()
def _tell_more(head: ResidualMLP, more: int, last: int = 0) -> None:
    """Let a head hear so many more numbers, before the `last` ones, and make nothing of them yet."""
    enter = head.enter
    head.enter = nn.Linear(enter.in_features + more, enter.out_features)
    first, rest = enter.weight.split([enter.in_features - last, last], 1)
    head.enter.weight.copy_(torch.cat([first, enter.weight.new_zeros(enter.out_features, more), rest], 1))
    head.enter.bias.copy_(enter.bias)


@torch.no_grad()
def _branch(networks: Networks, modes: int) -> None:
    """Let every mode of the prior begin as the one there is, nearly: what is quite alike would stay alike."""
    leave = networks.proposal.leave[-1]
    assert isinstance(leave, nn.Linear)
    generator = torch.Generator().manual_seed(3)
    branched = nn.Linear(leave.in_features, modes * leave.out_features + modes)
    steps = networks.architecture.proposal_steps * networks.architecture.action_size
    apart = torch.zeros(modes, leave.out_features)
    apart[:, :steps] = BRANCH_SPREAD * torch.randn(modes, steps, generator=generator)
    branched.weight.copy_(torch.cat([leave.weight.repeat(modes, 1), leave.weight.new_zeros(modes, leave.in_features)]))
    branched.bias.copy_(torch.cat([(leave.bias + apart).flatten(), leave.bias.new_zeros(modes)]))
    networks.proposal.leave[-1] = branched
