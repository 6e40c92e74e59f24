"""What the native model is made of: eyes, predictor, heads, and the sizes they have.

The latent of `NativeModel` is features z of the picture (D), proprioception p (P) and accumulated doubt; here are the
networks over z and p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodel.vjepa2_eyes import FrozenEyes, open_eyes

# Side of the coarse colour map that features are made to draw.
SKETCH = 16
READOUT_WIDTH, READOUT_DEPTH = 256, 3
# Heads that shape the features and answer nothing afterwards: only training needs them.
TRAINING_HEADS = ("inverse.", "sketch.", "motion.")


@dataclass(frozen=True)
class Architecture:
    """Sizes of the native model; saved with the weights.

    `proposal_modes` is how many different things to do next the prior weighs against each other. `goal_state`: steps to the
    goal and prior are told the goal's proprioception too, and not only what its picture shows. `pace`: the prior is told in
    how many steps to be there. `reader` is the width of
    a reader of its own, 0 without one. `eyes` names frozen eyes (`worldmodel.vjepa2_eyes`) that look instead of
    convolutions of its own; empty without. `guesses`: made from video, it guesses actions (`Motion`).
    """

    cameras: tuple[str, ...] = ("front",)
    image_size: int = 64
    state_size: int = 7
    action_size: int = 7
    features: int = 256
    keypoints: int = 48
    predictor_width: int = 512
    predictor_depth: int = 4
    head_width: int = 512
    distance_bins: int = 32
    proposal_steps: int = 5
    proposal_modes: int = 1
    goal_state: bool = False
    pace: bool = False
    reader: int = 0
    eyes: str = ""
    guesses: bool = False

    def __post_init__(self) -> None:
        if self.image_size % 16:
            raise ValueError(f"image_size is {self.image_size}; the native encoder wants a multiple of 16")
        if self.proposal_modes < 1:
            raise ValueError(f"proposal_modes is {self.proposal_modes}; the prior needs at least 1")


def _grid(size: int) -> Tensor:
    """Pixel coordinates (2, size, size) in [-1, 1]."""
    line = torch.linspace(-1, 1, size)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y])


class Eyes(nn.Module):
    """Pictures (N, C, H, W, 3) uint8 -> what convolutions find in them (N, F), float32.

    Two views of one small convolution: *where* things are (the expected position of every keypoint map) and *what* is
    there (a coarse map).
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = architecture
        channels = 4 * (3 * len(a.cameras) + 2)
        self.fine = nn.ModuleList([nn.Conv2d(channels, 32, 3, 1, 1), nn.Conv2d(32, 64, 3, 2, 1)])
        self.keypoints = nn.Conv2d(64, a.keypoints, 1)
        self.coarse = nn.ModuleList([nn.Conv2d(64, 96, 3, 2, 1), nn.Conv2d(96, 128, 3, 2, 1)])
        self.found = 128 * (a.image_size // 16) ** 2 + 3 * a.keypoints
        pixels = F.pixel_unshuffle(_grid(a.image_size)[None], 2).permute(0, 2, 3, 1).contiguous()
        self.register_buffer("pixels", pixels, persistent=False)
        self.register_buffer("places", _grid(a.image_size // 4).flatten(1).T.contiguous(), persistent=False)

    def look(self, pictures: Tensor) -> Tensor:
        """What is found, before anything is made of it."""
        pixels, places = self.get_buffer("pixels"), self.get_buffer("places")
        x = torch.cat([_folded(pictures).to(pixels.dtype) / 127.5 - 1, pixels.expand(len(pictures), -1, -1, -1)], -1)
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        x = x.permute(0, 3, 1, 2)  # in memory the channels stay last
        for layer in self.fine:
            x = F.relu(layer(x))
        maps = self.keypoints(x).flatten(2)
        for layer in self.coarse:
            x = F.relu(layer(x))
        with torch.autocast(x.device.type, enabled=False):
            where, peak = _Whereabouts.apply(maps.to(places.dtype), places)
            return torch.cat([x.flatten(1).to(places.dtype), 2 * where.flatten(1), 0.1 * peak], 1)


def _folded(pictures: Tensor) -> Tensor:
    """(N, C, H, W, 3) -> (N, H / 2, W / 2, 12 C): each 2 x 2 pixels become channels, in the order of pixel_unshuffle.

    On bytes, before they become numbers: a quarter of the memory to move.
    """
    n, cameras, height, width, _ = pictures.shape
    cells = pictures.view(n, cameras, height // 2, 2, width // 2, 2, 3)
    return cells.permute(0, 2, 4, 1, 6, 3, 5).reshape(n, height // 2, width // 2, -1)


class _Whereabouts(torch.autograd.Function):
    """Maps (N, K, cells), places (cells, 2) -> expected places (N, K, 2) and heights (N, K), the maps' logsumexp.

    Softmax, logsumexp and their gradients by themselves pass over the maps a dozen times: a seventh of a training step.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        share = maps.softmax(-1)
        top, at = maps.max(-1)
        peak = top - share.gather(-1, at[..., None])[..., 0].log()
        where = share @ places
        ctx.save_for_backward(share, places, where)
        return where, peak

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        share, places, where = ctx.saved_tensors
        of_where, of_peak = gradients
        slope = of_where @ places.T
        slope -= ((of_where * where).sum(-1) - of_peak)[..., None]
        return slope.mul_(share), None


class Encoder(Eyes):
    """Pictures (N, C, H, W, 3) uint8 -> features (N, D).

    The batch norm at the end, with the losses, keeps the features from collapsing.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        self._join(architecture)

    def _join(self, architecture: Architecture) -> None:
        self.join = nn.Linear(self.found, architecture.features)
        self.norm = nn.BatchNorm1d(architecture.features, affine=False)

    def forward(self, pictures: Tensor, found: Tensor | None = None) -> Tensor:
        """`found` (N, F) is what looking found in these pictures before, if that was kept."""
        found = self.look(pictures) if found is None else found
        joined = self.join(found.to(self.join.weight.dtype))
        with torch.autocast(joined.device.type, enabled=False):
            return self.norm(joined.float())


class BorrowedEncoder(Encoder):
    """Pictures (N, C, H, W, 3) uint8 -> features (N, D) by frozen eyes: only how it joins what they find is its own.

    Most of what they find is the same in all pictures of a scene. That mean is taken away first: in bfloat16 the little
    that changes would be rounded with it.
    """

    def __init__(self, architecture: Architecture, eyes: FrozenEyes) -> None:
        nn.Module.__init__(self)  # without convolutions
        self.eyes = eyes
        self.found = len(architecture.cameras) * eyes.size.found
        self._join(architecture)
        self.register_buffer("usual", torch.zeros(self.found))
        self.register_buffer("change", torch.ones(1))

    def look(self, pictures: Tensor) -> Tensor:
        return self.eyes.look(pictures)

    def forward(self, pictures: Tensor, found: Tensor | None = None) -> Tensor:
        found = self.look(pictures) if found is None else found
        return super().forward(pictures, (found.float() - self.get_buffer("usual")) / self.get_buffer("change"))

    def get_used_to(self, found: Tensor) -> None:
        """Measure what is usual, and how much changes, in findings (N, F)."""
        self.get_buffer("usual").copy_(found.float().mean(0))
        self.get_buffer("change").copy_(found.float().std(0).square().mean().sqrt().clamp(min=1e-3))


class Reader(Eyes):
    """Pictures (N, C, H, W, 3) uint8 -> the arm's normalised state (N, P), by eyes that serve nothing else.

    Features have to hold everything that planning needs; how exactly they tell the arm's pose competes with how exactly
    they tell the object's. A reader of its own reads it more exactly and takes nothing from them.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        self.squeeze = nn.Linear(self.found, architecture.reader, bias=False)
        self.answer = ResidualMLP(architecture.reader, architecture.state_size, READOUT_WIDTH, READOUT_DEPTH)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.answer(self.squeeze(self.look(pictures)))

    def begin_as(self, networks: Networks) -> None:
        """Read as these networks' encoder and readout do, as exactly as the narrower squeeze lets it.

        Between the eyes and the readout's first non-linearity everything is linear: one matrix, of which the largest
        singular directions are kept.
        """
        encoder, readout = networks.encoder, networks.readout
        eyes = {name: value for name, value in encoder.state_dict().items() if not name.startswith(("join.", "norm."))}
        self.load_state_dict(eyes, strict=False)
        head = {name: value for name, value in readout.state_dict().items() if not name.startswith("enter.")}
        self.answer.load_state_dict(head, strict=False)
        mean, variance = encoder.norm.get_buffer("running_mean"), encoder.norm.get_buffer("running_var")
        spread = (variance + encoder.norm.eps).sqrt()
        with torch.no_grad():
            u, s, v = torch.linalg.svd(
                readout.enter.weight @ (encoder.join.weight / spread[:, None]), full_matrices=False
            )
            kept = min(len(s), self.squeeze.out_features)
            scale = s[:kept].sqrt()
            self.squeeze.weight.zero_()
            self.squeeze.weight[:kept] = v[:kept] * scale[:, None]
            self.answer.enter.weight.zero_()
            self.answer.enter.weight[:, :kept] = u[:, :kept] * scale
            offset = readout.enter.weight @ ((encoder.join.bias - mean) / spread)
            self.answer.enter.bias.copy_(readout.enter.bias + offset)


class ResidualMLP(nn.Module):
    """Concatenated inputs -> float32 output through pre-normed residual blocks, computed in the weights' own type."""

    def __init__(self, inputs: int, outputs: int, width: int, depth: int) -> None:
        super().__init__()
        self.enter = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(depth - 1)
        )
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, outputs))

    def forward(self, *inputs: Tensor) -> Tensor:
        x = F.silu(self.enter(torch.cat(inputs, -1).to(self.enter.weight.dtype)))
        for block in self.blocks:
            x = x + block(x)
        return self.leave(x).float()


class Motion(nn.Module):
    """What was done between two moments of a video (*, D), guessed: numbers (*, A) of unit spread.

    A network may write any code for the next frame into an action that it guesses, one that has nothing to do with what an
    arm does. A linear view of how features changed cannot: what moves alike has to change the features alike.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.view = nn.Linear(architecture.features, architecture.action_size, bias=False)
        self.norm = nn.BatchNorm1d(architecture.action_size, affine=False)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        change = (after - before).float()
        with torch.autocast(change.device.type, enabled=False):
            seen = self.norm(self.view(change.reshape(-1, change.shape[-1])))
        return torch.tanh(seen).view(*change.shape[:-1], -1)


class Decoder(nn.Module):
    """Features (N, D) -> pictures (N, 3 C, H, W) in [0, 1]; for people only, it never shapes the features."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.small = architecture.image_size // 16
        self.enter = nn.Linear(architecture.features, 96 * self.small**2)
        steps = [(96, 64), (64, 48), (48, 32), (32, 3 * len(architecture.cameras))]
        self.steps = nn.ModuleList(nn.ConvTranspose2d(i, o, 4, 2, 1) for i, o in steps)

    def forward(self, features: Tensor) -> Tensor:
        x = F.relu(self.enter(features)).unflatten(1, (96, self.small, self.small))
        for layer in self.steps[:-1]:
            x = F.relu(layer(x))
        return torch.sigmoid(self.steps[-1](x))


class Proposed(NamedTuple):
    """What might be done next: M Gaussians over K actions of A numbers.

    One Gaussian between two ways round an object would lead through it, and one between waiting and closing the fingers
    would half close them.
    """

    log_weight: Tensor  # (*, M), how likely each is
    mean: Tensor  # (*, M, K, A)
    log_std: Tensor  # (*, M, K, A)


class Networks(nn.Module):
    """All trained parts: encoder, predictor, heads, decoder, and what is measured about data.

    Args:
        architecture: the sizes.
        eyes: those that the architecture names, where they are open already.
    """

    def __init__(self, architecture: Architecture, eyes: FrozenEyes | None = None) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.encoder = BorrowedEncoder(a, eyes or open_eyes(a.eyes)) if a.eyes else Encoder(a)
        body = a.features + a.state_size
        self.predictor = ResidualMLP(body + a.action_size, body, a.predictor_width, a.predictor_depth)
        self.readout = ResidualMLP(a.features, a.state_size, READOUT_WIDTH, READOUT_DEPTH)
        self.reader = Reader(a) if a.reader else None
        self.motion = Motion(a) if a.guesses else None
        self.inverse = ResidualMLP(2 * a.features, a.action_size, 256, 2)
        pair = body + a.features + (a.state_size if a.goal_state else 0)
        self.steps_to_goal = ResidualMLP(pair, a.distance_bins, a.head_width, 3)
        weights = a.proposal_modes if a.proposal_modes > 1 else 0  # one mode needs no weight
        moves = 2 * a.proposal_steps * a.action_size
        self.proposal = ResidualMLP(pair + int(a.pace), a.proposal_modes * moves + weights, a.head_width, 3)
        self.doubt = ResidualMLP(body + a.action_size, 1, 128, 2)
        # A coarse colour map of the first camera (SKETCH x SKETCH, brightness and two colour differences): a pretext
        # that makes what is small and coloured weigh as much as what is large and grey.
        self.sketch = ResidualMLP(a.features, 3 * SKETCH**2, 512, 2)
        self.decoder = Decoder(a)
        self.register_buffer("state_mean", torch.zeros(a.state_size))
        self.register_buffer("state_std", torch.ones(a.state_size))
        # The squared feature error that 95 % of held-out predictions stay under: what uncertainty 1 means.
        self.register_buffer("doubt_scale", torch.ones(1))
        # How well each number of the state is read off a held-out picture: 1 perfectly, 0 no better than its mean.
        self.register_buffer("readout_trust", torch.ones(a.state_size))

    def step(self, z: Tensor, p: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """One step ahead: features (..., D), proprioception (..., P), action (..., A)."""
        change = self.predictor(z, p, action)
        return z + change[..., : z.shape[-1]], p + change[..., z.shape[-1] :]

    def aim(self, z: Tensor, p: Tensor) -> Tensor:
        """What steps to the goal and prior are told of a goal with features (*, D) and proprioception (*, P): (*, G)."""
        return torch.cat([z, p], -1) if self.architecture.goal_state else z

    def proposed(self, z: Tensor, p: Tensor, aim: Tensor, steps: Tensor) -> Proposed:
        """What the prior proposes: features (*, D), proprioception (*, P), the goal as `aim` tells it (*, G), and in how
        many steps (*) to be there, which only a prior with a pace heeds."""
        a = self.architecture
        told = (aim, torch.log(steps.clamp(min=1.0))[..., None]) if a.pace else (aim,)
        answer = self.proposal(z, p, *told).float()
        moves = 2 * a.proposal_steps * a.action_size
        mean, log_std = answer[..., : a.proposal_modes * moves].unflatten(-1, (a.proposal_modes, moves)).chunk(2, -1)
        if a.proposal_modes > 1:
            log_weight = answer[..., -a.proposal_modes :].log_softmax(-1)
        else:
            log_weight = torch.zeros_like(mean[..., 0])
        shape = (a.proposal_steps, a.action_size)
        return Proposed(log_weight, mean.unflatten(-1, shape), log_std.clamp(-3.0, 1.0).unflatten(-1, shape))

    def read_state(self, pictures: Tensor, z: Tensor) -> Tensor:
        """The arm's normalised state (N, P) off pictures (N, C, H, W, 3) whose features are z (N, D)."""
        return self.readout(z) if self.reader is None else self.reader(pictures)

    def grow_reader(self, width: int) -> Reader:
        """A reader of its own, in place of the one there is; its weights are random."""
        self.architecture = replace(self.architecture, reader=width)
        self.reader = Reader(self.architecture).to(self.get_buffer("state_mean").device)
        return self.reader

    def normalise_state(self, state: Tensor) -> Tensor:
        """Physical state (..., P) -> zero mean, unit variance."""
        return (state - self.get_buffer("state_mean")) / self.get_buffer("state_std")

    def physical_state(self, normalised: Tensor) -> Tensor:
        """The inverse of `normalise_state`: (..., P) in physical units."""
        return self.get_buffer("state_mean") + normalised * self.get_buffer("state_std")


def architecture_to_dict(architecture: Architecture) -> dict[str, Any]:
    """For a checkpoint's card."""
    values = {**asdict(architecture), "cameras": list(architecture.cameras)}
    for later in (
        "eyes",
        "guesses",
        "proposal_modes",
        "goal_state",
        "pace",
    ):  # cards are as they were before these came
        if values[later] == Architecture.__dataclass_fields__[later].default:
            del values[later]
    return values


def architecture_from_dict(values: dict[str, object]) -> Architecture:
    """The inverse; unknown or missing sizes are named."""
    known = Architecture.__dataclass_fields__
    foreign = [name for name in values if name not in known]
    if foreign:
        raise ValueError(f"the card's architecture has {foreign[0]!r}, which this version does not know")
    cameras = values.get("cameras", ("front",))
    assert isinstance(cameras, Sequence)
    return Architecture(**(values | {"cameras": tuple(cameras)}))  # type: ignore[arg-type]


def count_parameters(networks: nn.Module) -> int:
    """How many numbers were trained."""
    return sum(parameter.numel() for parameter in networks.parameters())
