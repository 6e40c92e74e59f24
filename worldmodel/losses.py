"""What the native model learns from: every term in one place, each a number with a name.

Features must predict (rollout), must not collapse (SIGReg on their distribution), and must tell moments of one episode
apart (contrast): without the last, everything that never changes within an episode, such as colours, is so easy to
predict that it crowds out what moves. No label of the world's truth appears here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from worldmodel.data import GROUP, Windows
from worldmodel.networks import SKETCH, Networks


@dataclass(frozen=True)
class LossWeights:
    """How much each term counts."""

    rollout: float = 1.0
    state: float = 1.0
    contrast: float = 0.3
    spread: float = 5.0
    readout: float = 0.15
    inverse: float = 0.1
    distance: float = 1.0
    proposal: float = 1.0
    sketch: float = 1.0
    doubt: float = 0.1
    picture: float = 1.0


CONTRAST_TEMPERATURE = 0.05
LATENT_NOISE = 0.05
# In spreads of the state: what heads are told of a goal's arm pose is this inexact while they learn, for it will have been
# read off a picture.
GOAL_STATE_NOISE = 0.05
# In how many steps to be there is told the prior with this relative error.
PACE_NOISE = 0.2
SKETCH_NOISE = 0.5
# How much of an action guessed from video is noise: what keeps it from carrying the whole next frame.
GUESS_NOISE = 0.5
# Errors of the state, in its spreads, that are small enough.
READOUT_FLOOR = 0.003
# Weights of brightness and the two colour differences.
SKETCH_CHANNELS = (0.2, 0.5, 0.5)
# How much pairs that are far apart (twins, and moments of other episodes in the same scene) count beside pairs of one
# episode, and how many of them are twins.
FAR_SHARE = 0.35
TWIN_SHARE = 0.7


def spread_loss(features: Tensor, generator: torch.Generator, directions: int = 256) -> Tensor:
    """SIGReg: how far random one-dimensional projections of features (N, D) are from a standard normal.

    Epps-Pulley: the empirical characteristic function against that of the normal, on a grid, weighted towards 0.
    """
    axes = torch.randn(features.shape[1], directions, generator=generator).to(features.device)
    projected = features @ F.normalize(axes, dim=0)
    grid = torch.linspace(0.2, 4.0, 17, device=features.device)
    normal = torch.exp(-0.5 * grid**2)
    angle = projected[..., None] * grid
    error = (angle.cos().mean(0) - normal) ** 2 + angle.sin().mean(0) ** 2
    return (error * normal).mean()


def contrast_loss(predicted: Tensor, candidates: Tensor, positive: Tensor) -> Tensor:
    """Cross-entropy of picking the right moment: predicted (N, D), candidates (M, D), positive (N,) of M.

    Most other candidates of the same episode look alike in everything but what moved.
    """
    squared = torch.cdist(predicted, candidates) ** 2 / predicted.shape[1]
    return F.cross_entropy(-squared / CONTRAST_TEMPERATURE, positive)


def readout_loss(read: Tensor, states: Tensor) -> Tensor:
    """How badly states (N, P) are read: the mean over the numbers of the logarithm of their mean error.

    That is a likelihood with a spread of its own for every number, fitted to the batch. A plain mean of errors is all
    about numbers that a picture hardly shows (a small tilt), and lets those it shows well stay inexact.
    """
    return torch.log((read - states).abs().mean(0) + READOUT_FLOOR).mean()


def adaptation_losses(
    networks: Networks, windows: Windows, generator: torch.Generator, *, guess_actions: bool = False
) -> dict[str, Tensor]:
    """All terms on a batch of windows; pictures already on the networks' device.

    With `guess_actions` (video alone) each action is what `Motion` makes of the two frames it lies between, through a
    bottleneck as narrow as an action and noisy: without any action the next frame cannot be known, and what cannot be
    known would not be learned.
    """
    count, frames = windows.states.shape[:2]
    steps = frames - 1
    width = networks.architecture.features
    pictures = torch.cat([windows.pictures.flatten(0, 1), windows.goal_pictures, windows.twin_pictures])
    found = None
    if windows.found is not None and windows.goal_found is not None and windows.twin_found is not None:
        parts = (windows.found.flatten(0, 1), windows.goal_found, windows.twin_found)
        found = torch.cat([part.float() for part in parts])  # autocast joins no float16 where it computes in bfloat16
    encoded = networks.encoder(pictures, found).float()
    seen, goal, twin = encoded.split([count * frames, count, count])
    z = seen.view(count, frames, width)
    p = networks.normalise_state(windows.states)
    goal_p = networks.normalise_state(windows.goal_states)
    losses: dict[str, Tensor] = {}
    inferred = networks.inverse(z[:, :-1].flatten(0, 1), z[:, 1:].flatten(0, 1)).float()
    actions = windows.actions
    if guess_actions:
        if networks.motion is None:
            raise ValueError("these networks guess no actions; set architecture.guesses=true")
        noise = torch.randn(actions.shape, generator=generator).to(actions.device)
        actions = networks.motion(z[:, :-1], z[:, 1:]) + GUESS_NOISE * noise

    # Roll out from the first frame; every predicted step is compared with what was seen.
    rolled_z, rolled_p, doubts = [], [], []
    zh, ph, u = z[:, 0], p[:, 0], z.new_zeros(count, 1)
    for h in range(steps):
        u = u + F.softplus(networks.doubt(zh.detach(), ph.detach(), actions[:, h].detach()).float())
        zh, ph = networks.step(zh, ph, actions[:, h])
        rolled_z.append(zh)
        rolled_p.append(ph)
        doubts.append(u)
    future_z, future_p = torch.stack(rolled_z, 1).float(), torch.stack(rolled_p, 1).float()
    error = (future_z - z[:, 1:]).square().mean(-1)
    losses["rollout"] = error.mean()
    losses["state"] = (future_p - p[:, 1:]).square().mean()
    guess = torch.cat(doubts, 1)
    losses["doubt"] = (torch.log(guess + 1e-4) - torch.log(error.detach() + 1e-4)).square().mean()

    positive = (torch.arange(count)[:, None] * frames + 1 + torch.arange(steps)).flatten().to(encoded.device)
    losses["contrast"] = contrast_loss(future_z.flatten(0, 1), encoded, positive)
    losses["spread"] = spread_loss(encoded, generator)
    states = torch.cat([p.flatten(0, 1), goal_p])
    losses["readout"] = readout_loss(networks.readout(encoded[: len(states)]).float(), states)
    losses["inverse"] = F.mse_loss(inferred, windows.actions.flatten(0, 1))

    twin_p = networks.normalise_state(windows.twin_states)
    wanted, other = torch.cat([goal, goal_p], -1), torch.cat([twin, twin_p], -1)
    losses["distance"] = _distance_loss(networks, windows, z, p, future_z, future_p, wanted, other, generator)
    losses["proposal"] = _proposal_loss(networks, windows, z, p, wanted, generator)
    losses["sketch"] = _sketch_loss(networks, encoded, pictures, generator)

    # For people: a few frames a batch are enough, and their gradient ends at the features.
    few = slice(0, count * frames, max(1, frames))
    shown = networks.decoder(encoded[few].detach()).float()
    target = windows.pictures.flatten(0, 1)[few].permute(0, 1, 4, 2, 3).flatten(1, 2).float() / 255
    losses["picture"] = F.mse_loss(shown, target)
    return losses


def noisy(x: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """x with normal noise of that spread."""
    return x + noise * torch.randn(x.shape, generator=generator).to(x.device)


def noisy_pace(steps: Tensor, generator: torch.Generator) -> Tensor:
    """Steps (*) to a goal, as inexact as they will be guessed."""
    guess = torch.exp(PACE_NOISE * torch.randn(steps.shape, generator=generator)).to(steps.device)
    return steps.clamp(min=1).float() * guess


def noisy_aim(networks: Networks, goal: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """A goal (*, D + P) as heads are told of it (*, G): features with that noise, proprioception as inexact as a picture
    tells it."""
    z, p = goal.split([networks.architecture.features, networks.architecture.state_size], -1)
    return networks.aim(noisy(z, noise, generator), noisy(p, GOAL_STATE_NOISE, generator))


def _distance_loss(
    networks: Networks,
    windows: Windows,
    z: Tensor,
    p: Tensor,
    future_z: Tensor,
    future_p: Tensor,
    goal: Tensor,
    twin: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Classify how many steps lie between a moment and a later one of its episode; the last bin is for another episode.

    goal and twin are (N, D + P).

    Moments are both seen and predicted, because planning asks about predicted ones; those do not teach the encoder.
    What is far looks the same and mostly has the arm where it should be, so that only the other things tell.
    """
    count, frames = z.shape[:2]
    offset = torch.arange(frames, device=z.device)
    remaining = windows.goal_steps.to(z.device)[:, None] - offset
    sources = torch.cat([z, future_z.detach()], 1)
    states = torch.cat([p, future_p.detach()], 1)
    steps = torch.cat([remaining, remaining[:, 1:]], 1)
    bins = networks.architecture.distance_bins

    shape = steps.shape
    neighbour = torch.arange(count) // GROUP * GROUP + torch.randint(GROUP, (count,), generator=generator)
    neighbour = neighbour.clamp(max=count - 1).to(z.device)
    other = torch.where((neighbour != torch.arange(count, device=z.device))[:, None], goal[neighbour], twin)
    is_twin = (torch.rand(shape, generator=generator) < TWIN_SHARE).to(z.device)
    far = torch.where(is_twin[..., None], twin[:, None], other[:, None])
    goals = torch.stack([goal[:, None].expand_as(far), far])
    label = torch.stack([steps.clamp(0, bins - 2), torch.full_like(steps, bins - 1)])
    weight = torch.stack([(steps >= 0).float(), torch.full(shape, FAR_SHARE, device=z.device)])
    logits = networks.steps_to_goal(
        noisy(sources.expand(2, *sources.shape), LATENT_NOISE, generator),
        states.expand(2, *states.shape),
        noisy_aim(networks, goals, LATENT_NOISE, generator),
    ).float()
    loss = F.cross_entropy(logits.flatten(0, 2), label.flatten(), reduction="none")
    return (loss * weight.flatten()).sum() / weight.sum()


def _proposal_loss(
    networks: Networks, windows: Windows, z: Tensor, p: Tensor, goal: Tensor, generator: torch.Generator
) -> Tensor:
    """Likelihood, from every frame of the window, of the actions that led to the goal, up to the goal."""
    frames, steps = z.shape[1], networks.architecture.proposal_steps
    at = torch.arange(frames, device=z.device)[:, None] + torch.arange(steps, device=z.device)
    before = windows.goal_steps.to(z.device)[:, None, None] > at
    aim = noisy_aim(networks, goal[:, None].expand(-1, frames, -1), LATENT_NOISE, generator)
    steps = noisy_pace(windows.goal_steps.to(z.device)[:, None] - at[:, 0], generator)
    return proposal_loss(
        networks, noisy(z, LATENT_NOISE, generator), p, aim, steps, windows.later_actions[:, at], before
    )


def proposal_loss(
    networks: Networks, z: Tensor, p: Tensor, aim: Tensor, steps: Tensor, actions: Tensor, before: Tensor
) -> Tensor:
    """Negative log-likelihood of what was done on the way to a goal.

    Args:
        networks: whose proposal head answers.
        z, p, aim: (*, D), (*, P), (*, G) features, proprioception, the goal as `Networks.aim` tells it.
        steps: (*) how many it took.
        actions: (*, K, A) in [-1, 1], what was done next.
        before: (*, K) whether that was before the goal.
    """
    proposed = networks.proposed(z, p, aim, steps)
    unlikely = 0.5 * ((actions.unsqueeze(-3) - proposed.mean) * torch.exp(-proposed.log_std)) ** 2 + proposed.log_std
    of_mode = (unlikely * before[..., None, :, None]).sum((-2, -1))
    return -torch.logsumexp(proposed.log_weight - of_mode, -1).sum() / (before.sum() * actions.shape[-1]).clamp(min=1)


def _sketch_loss(networks: Networks, encoded: Tensor, pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Draw the coarse colour map from noisy features.

    The noise decides: only what stands well above it can be drawn, so a small object must take real room in the
    features. Brightness is dominated by table and arm; the two colour differences, each scaled to unit spread, are not.
    """
    small = pictures[:, 0].permute(0, 3, 1, 2).float() / 255
    small = F.adaptive_avg_pool2d(small, SKETCH)
    red, green, blue = small.unbind(1)
    grey = (red + green + blue) / 3
    maps = torch.stack([grey, red - grey, blue - grey], 1).flatten(2)
    maps = maps - maps.mean((0, 2), keepdim=True)
    maps = maps / maps.std((0, 2), keepdim=True).clamp(min=1e-3)
    noisy = encoded + SKETCH_NOISE * torch.randn(encoded.shape, generator=generator).to(encoded.device)
    drawn = networks.sketch(noisy).float().unflatten(1, (3, SKETCH**2))
    error = (drawn - maps).square().mean((0, 2))
    return (error * error.new_tensor(SKETCH_CHANNELS)).sum()
