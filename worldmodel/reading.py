"""A reader of its own: the arm's pose, read off a goal picture more exactly than the features tell it.

It begins as the reader of this checkpoint or of another one, or as its encoder and readout (at random where this one looks
with frozen eyes: a reader always has convolutions), and learns from single frames alone. Nothing else changes: predictor,
distance and proposals see the features they were trained on.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from worldmodel.data import Episodes
from worldmodel.losses import readout_loss
from worldmodel.networks import Networks
from worldmodel.timed import Keeping, timed_steps

READER_WIDTH = 96
BATCH = 512
LEARNING_RATE = 1e-3


def learn_to_read(
    networks: Networks,
    begin: Networks | None,
    episodes: Episodes,
    training: Tensor,
    *,
    minutes: float,
    seed: int,
    device: torch.device,
    bf16: bool = True,
    keeping: Keeping | None = None,
) -> None:
    """Give `networks` a reader that begins as `begin` reads (None: with random weights), and train it.

    Where `begin` has such a reader it goes on learning; otherwise encoder and readout are what it begins as.
    """
    known = None if begin is None or begin.architecture.reader != READER_WIDTH else begin.reader
    with torch.random.fork_rng(devices=[]):  # a beginning at random is the same in a run that was resumed
        torch.manual_seed(seed + 2)
        reader = networks.grow_reader(READER_WIDTH)
    if known is not None:
        reader.load_state_dict(known.state_dict())
    elif begin is not None:
        reader.begin_as(begin)
    reader.to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]

    states = networks.normalise_state(episodes.states.to(device)).cpu()

    def loss(at: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            read = reader(episodes.frames(at).to(device)).float()
        return readout_loss(read, states[at].to(device))

    learn_from_frames(
        loss, reader, episodes.frames_of(training), title="reader", batch=BATCH, weight_decay=1e-3, minutes=minutes,
        generator=torch.Generator().manual_seed(seed + 2), keeping=keeping,
    )  # fmt: skip
    reader.eval()


def learn_from_frames(
    loss: Callable[[Tensor], Tensor],
    module: nn.Module,
    index: Tensor,
    *,
    title: str,
    batch: int,
    weight_decay: float,
    minutes: float,
    generator: torch.Generator,
    learning_rate: float = LEARNING_RATE,
    keeping: Keeping | None = None,
) -> None:
    """Train a module on single frames.

    Args:
        loss: frame indices (N,) -> what is wrong with the module's answers there, a number.
        module: what learns.
        index: the frames to learn from.
        title: for the progress bar.
        batch: frames a step.
        weight_decay: of the optimiser.
        minutes: how long.
        generator: draws the frames.
        learning_rate: its peak.
        keeping: where it is written down how far it is.
    """
    optimizer = torch.optim.AdamW(module.parameters(), learning_rate, weight_decay=weight_decay)
    kept = None if keeping is None else keeping.loop(title, module, generator)
    for _ in timed_steps(title, minutes, optimizer, learning_rate, kept):
        wrong = loss(index[torch.randint(len(index), (batch,), generator=generator)])
        optimizer.zero_grad(set_to_none=True)
        wrong.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
