"""Refinement on stored features: with the encoder frozen, predictor and heads learn many times faster than from pixels.

It also teaches the steps-to-goal head what windows of single episodes cannot: that a tool in the right place with the
object in the wrong one is far from the goal. Such pairs come from other episodes of the same scene.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodel import processes
from worldmodel.colours import CHANGED_SHARE, Recolouring, draw_recolouring, recoloured
from worldmodel.data import ENOUGH_SCENES, DatasetError, Episodes
from worldmodel.findings import encoded
from worldmodel.losses import noisy, noisy_aim, noisy_pace, proposal_loss, readout_loss
from worldmodel.networks import Networks
from worldmodel.reading import learn_from_frames
from worldmodel.timed import Keeping, timed_steps

PARTS = ("predictor", "steps_to_goal", "proposal", "doubt", "readout")
STRANGER_SHARE = 0.35
LEARNING_RATE = 1e-3
NOISE = 0.1
# Beside an error of the features: planning weighs the arm's own pose heavily.
STATE_WEIGHT = 1.0
# Parts of the time belong to one head alone, in large batches of single frames: proposals grow as sure as they can,
# and the readout as exact.
PROPOSING_SHARE = 0.35
PROPOSING_BATCH = 1024
# To lift, carry and set down again takes longer than windows look ahead.
PROPOSING_REACH = 44
READING_SHARE = 0.2
READING_BATCH = 1024
BATCH = 192
STEPS = 6
REACH = 28
ENCODING_BATCH = 1024


def encode_all(
    networks: Networks,
    episodes: Episodes,
    device: torch.device,
    bf16: bool,
    colours: Recolouring | None = None,
    keeping: Keeping | None = None,
) -> Tensor:
    """Features (frames, D) of every frame, float16, each scene recoloured as its row of `colours` says.

    With `keeping` they lie in a file of its folder, and looking goes on where a killed process ended.
    """
    from rich.progress import track

    networks.eval()
    scene = torch.repeat_interleave(episodes.scenes, episodes.lengths)

    def look(index: Tensor) -> Tensor:
        if colours is None:
            return encoded(networks.encoder, episodes, index, device)
        at, counts = scene[index].unique_consecutive(return_counts=True)
        of_scenes = zip(episodes.frames(index).split(counts.tolist()), at.split(1), strict=True)
        pictures = torch.cat([recoloured(part[None], colours.of(one))[0] for part, one in of_scenes])
        return networks.encoder(pictures.to(device))

    shape = (len(scene), networks.architecture.features)
    file = None if keeping is None else keeping.rows("features", shape)
    features = torch.empty(shape, dtype=torch.float16) if file is None else torch.from_numpy(file.rows)
    starts = range(0 if file is None else file.done, len(scene), ENCODING_BATCH)
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        for first in track(starts, description="look at all", transient=True):
            index = torch.arange(first, min(first + ENCODING_BATCH, len(scene)))
            found = look(index).to(torch.float16).cpu()
            if not torch.isfinite(found).all():
                raise DatasetError(
                    f"features of frames {first} to {int(index[-1])} hold NaN or infinity; is the encoder sound?"
                )
            features[index] = found
            if file is not None:
                file.reach(int(index[-1]) + 1)
    return features


def refine(
    networks: Networks,
    episodes: Episodes,
    training: Tensor,
    *,
    minutes: float,
    seed: int,
    device: torch.device,
    bf16: bool = True,
    readout: bool = True,
    colour_jitter: float = 0.0,
    hue_jitter: float = 0.0,
    proposing_share: float = PROPOSING_SHARE,
    learning_rate: float = LEARNING_RATE,
    keeping: Keeping | None = None,
) -> None:
    """Train predictor, steps-to-goal, proposals and doubt on stored features.

    With colours to vary, most scenes are looked at under others than theirs, the same ones all the time. With `keeping`
    a killed refinement goes on where it was.
    With `readout` the last part of the time is the readout's; without, a reader of its own will do its work. Of the rest,
    `proposing_share` is the proposals' alone. What has learned long and is to learn a little from little data keeps what it
    knows only at a lower `learning_rate`.
    """
    training = training[episodes.lengths[training] > STEPS]
    if len(training) < 2:
        raise DatasetError(f"refinement needs 2 training episodes of more than {STEPS} steps; say refine_minutes=0")
    colours = None
    scenes = int(episodes.scenes.max()) + 1
    if (colour_jitter > 0 or hue_jitter > 0) and scenes < ENOUGH_SCENES:
        processes.say(
            f"The data tells of {scenes} scene(s): too few to refine under other colours, each one under its own."
        )
    elif colour_jitter > 0 or hue_jitter > 0:
        chance = torch.Generator().manual_seed(seed)
        colours = draw_recolouring(scenes, chance, colour_jitter, hue_jitter, CHANGED_SHARE)
    features = encode_all(networks, episodes, device, bf16, colours, keeping)
    states = networks.normalise_state(episodes.states.to(device)).cpu()
    parts = nn.ModuleDict({name: getattr(networks, name) for name in PARTS})
    parameters = list(parts.parameters())
    optimizer = torch.optim.AdamW(parameters, learning_rate, weight_decay=1e-4)
    generator = torch.Generator().manual_seed(seed + 1)
    a = networks.architecture
    networks.eval()
    reading = minutes * (READING_SHARE if readout else 0.0)
    proposing = (minutes - reading) * proposing_share
    kept = None if keeping is None else keeping.loop("refine", parts, generator)
    for _ in timed_steps("refine", minutes - reading - proposing, optimizer, learning_rate, kept):
        at = episodes.choose(training, BATCH, STEPS, REACH, generator, group=1)
        z, p = features[at.window].to(device).float(), states[at.window].to(device)
        actions = episodes.actions[at.window[:, :-1]].to(device)
        goal, twin = (torch.cat([features[of].float(), states[of]], -1).to(device) for of in (at.goal, at.twin))
        steps = at.goal_steps.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            zh, ph, u = z[:, 0], p[:, 0], z.new_zeros(BATCH, 1)
            loss = z.new_zeros(())
            rolled_z, rolled_p = [], []
            for h in range(STEPS):
                u = u + F.softplus(networks.doubt(zh.detach(), ph.detach(), actions[:, h]))
                zh, ph = networks.step(zh, ph, actions[:, h])
                error = (zh - z[:, h + 1]).square().mean(-1)
                loss = loss + (error.mean() + STATE_WEIGHT * (ph - p[:, h + 1]).square().mean()) / STEPS
                doubt = torch.log(u[:, 0] + 1e-4) - torch.log(error.detach() + 1e-4)
                loss = loss + 0.05 * doubt.square().mean() / STEPS
                rolled_z.append(zh.detach())
                rolled_p.append(ph.detach())

            loss = loss + 0.5 * readout_loss(networks.readout(z).flatten(0, 1), p.flatten(0, 1))

            remaining = steps[:, None] - torch.arange(STEPS + 1, device=device)
            sources = torch.cat([z, torch.stack(rolled_z, 1)], 1)
            where = torch.cat([p, torch.stack(rolled_p, 1)], 1)
            label = torch.cat([remaining, remaining[:, 1:]], 1)
            strange = (torch.rand(label.shape, generator=generator) < STRANGER_SHARE).to(device)
            wanted = torch.where(strange[..., None], twin[:, None], goal[:, None])
            valid = strange | (label >= 0)
            label = torch.where(strange, a.distance_bins - 1, label.clamp(0, a.distance_bins - 2))
            aim = noisy_aim(networks, wanted, NOISE, generator)
            logits = networks.steps_to_goal(noisy(sources, NOISE, generator), where, aim)
            loss = loss + F.cross_entropy(logits[valid], label[valid])

            taken = actions[:, : a.proposal_steps]
            before = steps[:, None] > torch.arange(taken.shape[1], device=device)
            aim = noisy_aim(networks, goal, NOISE, generator)
            paces = noisy_pace(steps, generator)
            loss = loss + proposal_loss(networks, noisy(z[:, 0], NOISE, generator), p[:, 0], aim, paces, taken, before)

        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 3.0)
        optimizer.step()
    _learn_to_propose(
        networks, episodes, training, features, states,
        minutes=proposing, generator=generator, learning_rate=learning_rate, device=device, bf16=bf16, keeping=keeping,
    )  # fmt: skip
    if readout:
        learn_from_frames(
            lambda at: readout_loss(networks.readout(features[at].to(device).float()), states[at].to(device)),
            networks.readout, episodes.frames_of(training), title="readout", batch=READING_BATCH, weight_decay=1e-4,
            minutes=reading, generator=generator, learning_rate=learning_rate, keeping=keeping,
        )  # fmt: skip


def _learn_to_propose(
    networks: Networks,
    episodes: Episodes,
    training: Tensor,
    features: Tensor,
    states: Tensor,
    *,
    minutes: float,
    generator: torch.Generator,
    learning_rate: float,
    device: torch.device,
    bf16: bool,
    keeping: Keeping | None,
) -> None:
    """The proposal head alone: from any moment, what was done on the way to any later one.

    Rare things, such as closing the fingers at the right moment, need far more moments than windows of several steps
    come by.
    """
    index = episodes.frames_of(training)
    last = torch.repeat_interleave(episodes.starts + episodes.lengths - 1, episodes.lengths)
    onward = torch.arange(networks.architecture.proposal_steps)

    def loss(now: Tensor) -> Tensor:
        ahead = 1 + (torch.rand(len(now), generator=generator) * PROPOSING_REACH).long()
        goal = torch.minimum(now + ahead, last[now])
        taken = episodes.actions[torch.minimum(now[:, None] + onward, last[now][:, None] - 1)].to(device)
        before = ((goal - now)[:, None] > onward).to(device)
        z, p = features[now].float().to(device), states[now].to(device)
        wanted = torch.cat([features[goal].float(), states[goal]], -1).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            aim = noisy_aim(networks, wanted, NOISE, generator)
            paces = noisy_pace((goal - now).to(device), generator)
            return proposal_loss(networks, noisy(z, NOISE, generator), p, aim, paces, taken, before)

    learn_from_frames(
        loss, networks.proposal, index[index < last[index]], title="proposals", batch=PROPOSING_BATCH,
        weight_decay=1e-3, minutes=minutes, generator=generator, learning_rate=learning_rate, keeping=keeping,
    )  # fmt: skip
