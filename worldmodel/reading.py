"""A reader of its own: the arm's pose, read off a goal picture more exactly than the features tell it.

It begins as the encoder and readout of this checkpoint or of another one, and learns from single frames alone. Nothing
else changes: predictor, distance and proposals see the features they were trained on.
"""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodel.data import Episodes
from worldmodel.losses import readout_loss
from worldmodel.networks import Networks
from worldmodel.timed import timed_steps

READER_WIDTH = 96
BATCH = 512
LEARNING_RATE = 1e-3


def learn_to_read(
    networks: Networks,
    begin: Networks,
    episodes: Episodes,
    training: Tensor,
    *,
    minutes: float,
    seed: int,
    device: torch.device,
    bf16: bool = True,
) -> None:
    """Give `networks` a reader that begins as `begin` reads, and train it."""
    reader = networks.grow_reader(READER_WIDTH)
    reader.begin_as(begin)
    reader.to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(reader.parameters(), LEARNING_RATE, weight_decay=1e-3)
    generator = torch.Generator().manual_seed(seed + 2)
    index = episodes.frames_of(training)
    states = networks.normalise_state(episodes.states.to(device)).cpu()
    for _ in timed_steps("reader", minutes, optimizer, LEARNING_RATE):
        at = index[torch.randint(len(index), (BATCH,), generator=generator)]
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            read = reader(episodes.frames(at).to(device))
        loss = readout_loss(read.float(), states[at].to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
    reader.eval()
