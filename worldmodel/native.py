"""The native brain: pixels and proprioception to one vector, futures by a residual MLP, small heads for planning.

Latent vector (D + P + 1): features z of the picture (D), normalised proprioception p (P), and u, the uncertainty
accumulated along a prediction (0 where something was seen). A goal that comes without the arm's state gets it read off
its picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodel.interface import ActionSpace, Observation

# Side of the coarse colour map that features are made to draw.
SKETCH = 16


@dataclass(frozen=True)
class Architecture:
    """Sizes of the native model; saved with the weights."""

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

    def __post_init__(self) -> None:
        if self.image_size % 16:
            raise ValueError(f"image_size is {self.image_size}; the native encoder wants a multiple of 16")


def _grid(size: int) -> Tensor:
    """Pixel coordinates (2, size, size) in [-1, 1]."""
    line = torch.linspace(-1, 1, size)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y])


class Encoder(nn.Module):
    """Pictures (N, C, H, W, 3) uint8 -> features (N, D).

    Two views of one small convolution: *where* things are (the expected position of every keypoint map) and *what* is
    there (a coarse map). The batch norm at the end, with the losses, keeps the features from collapsing.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = architecture
        channels = 4 * (3 * len(a.cameras) + 2)
        self.fine = nn.ModuleList([nn.Conv2d(channels, 32, 3, 1, 1), nn.Conv2d(32, 64, 3, 2, 1)])
        self.keypoints = nn.Conv2d(64, a.keypoints, 1)
        self.coarse = nn.ModuleList([nn.Conv2d(64, 96, 3, 2, 1), nn.Conv2d(96, 128, 3, 2, 1)])
        self.join = nn.Linear(128 * (a.image_size // 16) ** 2 + 3 * a.keypoints, a.features)
        self.norm = nn.BatchNorm1d(a.features, affine=False)
        self.register_buffer("pixels", _grid(a.image_size)[None], persistent=False)
        self.register_buffer("places", _grid(a.image_size // 4).flatten(1).T.contiguous(), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        pixels, places = self.get_buffer("pixels"), self.get_buffer("places")
        x = pictures.permute(0, 1, 4, 2, 3).flatten(1, 2).to(pixels.dtype) / 127.5 - 1
        x = F.pixel_unshuffle(torch.cat([x, pixels.expand(len(x), -1, -1, -1)], 1), 2)
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        x = x.contiguous(memory_format=torch.channels_last)
        for layer in self.fine:
            x = F.relu(layer(x))
        maps = self.keypoints(x).flatten(2)
        for layer in self.coarse:
            x = F.relu(layer(x))
        with torch.autocast(x.device.type, enabled=False):
            maps = maps.to(places.dtype)
            where = (maps.softmax(-1) @ places).flatten(1)
            peak = torch.logsumexp(maps, -1)
            flat = torch.cat([x.flatten(1).to(places.dtype), 2 * where, 0.1 * peak], 1)
        joined = self.join(flat)
        with torch.autocast(x.device.type, enabled=False):
            return self.norm(joined.to(places.dtype))


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


class Networks(nn.Module):
    """All trained parts: encoder, predictor, heads, decoder, and what is measured about data."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.encoder = Encoder(a)
        body = a.features + a.state_size
        self.predictor = ResidualMLP(body + a.action_size, body, a.predictor_width, a.predictor_depth)
        self.readout = ResidualMLP(a.features, a.state_size, 256, 3)
        self.inverse = ResidualMLP(2 * a.features, a.action_size, 256, 2)
        pair = body + a.features
        self.steps_to_goal = ResidualMLP(pair, a.distance_bins, a.head_width, 3)
        self.proposal = ResidualMLP(pair, 2 * a.proposal_steps * a.action_size, a.head_width, 3)
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

    def normalise_state(self, state: Tensor) -> Tensor:
        """Physical state (..., P) -> zero mean, unit variance."""
        return (state - self.get_buffer("state_mean")) / self.get_buffer("state_std")


class NativeModel:
    """The native brain behind the interface of `WorldModel`.

    Args:
        networks: the trained parts; moved to `device` and set to evaluation.
        action_space: what its actions mean.
        name: what people call it.
        precision: `float32`, or `bfloat16` for what planning asks most (predictor, distance, doubt): on hardware that
            multiplies it, half the time; latents stay float32. `auto` takes it where the hardware does.
    """

    latent_ndim = 1
    far_steps = 40.0

    def __init__(
        self,
        networks: Networks,
        action_space: ActionSpace,
        *,
        name: str = "native",
        device: str | torch.device = "cpu",
        precision: str = "float32",
    ) -> None:
        if action_space.size != networks.architecture.action_size:
            raise ValueError(
                f"the weights take actions of {networks.architecture.action_size} numbers, the action space has "
                f"{action_space.size}"
            )
        self.name = name
        self.action_space = action_space
        self.device = torch.device(device)
        self.networks = networks.to(self.device).eval().requires_grad_(False)
        if planning_type(precision, self.device) == torch.bfloat16:
            for part in (networks.predictor, networks.steps_to_goal, networks.doubt):
                part.bfloat16()
        self.architecture = networks.architecture
        self.picture_keys = tuple(f"observation.images.{camera}" for camera in self.architecture.cameras)
        self.required_keys = (*self.picture_keys, "observation.state")
        self._features = self.architecture.features
        bins = torch.arange(self.architecture.distance_bins, dtype=torch.float32, device=self.device)
        bins[-1] = self.far_steps
        self._bins = bins

    # -- the interface ---------------------------------------------------------------------------------------------

    def encode(self, observation: Observation) -> Tensor:
        """Observation with leading axis B -> latent (B, D + P + 1)."""
        with torch.no_grad():
            z = self.networks.encoder(self._pictures(observation))
            if "observation.state" in observation:
                p = self.networks.normalise_state(self._state(observation["observation.state"], len(z)))
            else:
                p = self.networks.readout(z)
            return torch.cat([z, p, z.new_zeros(len(z), 1)], -1)

    def predict(self, latent: Tensor, actions: Tensor) -> Tensor:
        """(B, L), actions (B, S, H, A) in [-1, 1] -> (B, S, H, L); differentiable in the actions."""
        batch, samples, horizon, _ = actions.shape
        if latent.shape[0] != batch:
            raise ValueError(f"{latent.shape[0]} latents but actions for {batch} environments")
        if actions.shape[-1] != self.action_space.size:
            raise ValueError(f"{self.name} takes actions of {self.action_space.size} numbers; got {actions.shape[-1]}")
        z, p, u = self._split(latent)
        z, p, u = (part[:, None].expand(-1, samples, -1).reshape(batch * samples, -1) for part in (z, p, u))
        flat = actions.reshape(batch * samples, horizon, -1)
        out = []
        for h in range(horizon):
            doubt = self.networks.doubt(z, p, flat[:, h])
            u = u + F.softplus(doubt)  # expected squared errors add up along the way
            z, p = self.networks.step(z, p, flat[:, h])
            out.append(torch.cat([z, p, u], -1))
        return torch.stack(out, 1).reshape(batch, samples, horizon, -1)

    def distance(self, latents: Tensor, goal: Tensor) -> Tensor:
        """Expected steps to the goal: (B, *X, L), (B, L) -> (B, *X)."""
        z, p, _ = self._split(latents)
        wanted = self._like(goal[:, : self._features], z)
        return self.networks.steps_to_goal(z, p, wanted).softmax(-1) @ self._bins

    def feature_distance(self, latents: Tensor, goal: Tensor) -> Tensor:
        """Mean squared difference of picture features: (B, *X, L), (B, L) -> (B, *X)."""
        z, _, _ = self._split(latents)
        return (z - self._like(goal[:, : self._features], z)).square().mean(-1)

    def state_distance(self, latents: Tensor, goal: Tensor) -> Tensor:
        """Mean squared difference of normalised proprioception, each number counting as far as a picture tells it:
        (B, *X, L), (B, L) -> (B, *X)."""
        _, p, _ = self._split(latents)
        wanted = self._like(goal[:, self._features : -1], p)
        return ((p - wanted).square() * self.networks.get_buffer("readout_trust")).mean(-1)

    def propose(self, latent: Tensor, goal: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
        """(B, n, K, A) drawn from the goal-conditioned inverse model; the first of the n is its mean."""
        z, p, _ = self._split(latent)
        mean, log_std = self.networks.proposal(z, p, goal[:, : self._features]).chunk(2, -1)
        shape = (len(z), 1, self.architecture.proposal_steps, self.architecture.action_size)
        mean, std = mean.reshape(shape), log_std.clamp(-3.0, 1.0).exp().reshape(shape)
        noise = torch.randn(len(z), n, *shape[2:], generator=generator, device=self.device)
        noise[:, 0] = 0.0
        return (mean + std * noise).clamp(-1.0, 1.0)

    def uncertainty(self, latents: Tensor) -> Tensor:
        """Predicted error accumulated along the future over its calibrated quantile: (B, *X, L) -> (B, *X)."""
        return latents[..., -1] / self.networks.get_buffer("doubt_scale")[0]

    def decode(self, latents: Tensor) -> Tensor:
        """(B, *X, L) -> pictures of the first camera, uint8 (B, *X, H, W, 3)."""
        with torch.no_grad():
            z = latents[..., : self._features]
            pictures = self.networks.decoder(z.reshape(-1, self._features))[:, :3]
        bytes_ = (pictures.permute(0, 2, 3, 1) * 255).round().to(torch.uint8)
        return bytes_.reshape(*latents.shape[:-1], *bytes_.shape[1:])

    # -- inside ----------------------------------------------------------------------------------------------------

    def _split(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        d = self._features
        if latents.shape[-1] != d + self.architecture.state_size + 1:
            raise ValueError(
                f"a latent of {self.name} has {d + self.architecture.state_size + 1} numbers; got {latents.shape[-1]}: "
                "was it made by another model?"
            )
        return latents[..., :d], latents[..., d:-1], latents[..., -1:]

    @staticmethod
    def _like(goal: Tensor, z: Tensor) -> Tensor:
        """(B, D) -> broadcast to z's (B, *X, D)."""
        return goal.reshape(len(goal), *([1] * (z.ndim - 2)), -1).expand_as(z)

    def _pictures(self, observation: Observation) -> Tensor:
        """The cameras' pictures stacked (B, C, H, W, 3) uint8, checked."""
        size = self.architecture.image_size
        stacked = []
        for key in self.picture_keys:
            if key not in observation:
                seen = [name for name in observation if name.startswith("observation.images.")]
                raise ValueError(f"{self.name} needs {key}; the observation has {', '.join(seen) or 'no pictures'}")
            picture = torch.as_tensor(observation[key])
            if picture.dtype != torch.uint8:
                raise ValueError(f"{key} should be uint8 (0 to 255); got {str(picture.dtype).removeprefix('torch.')}")
            if picture.ndim != 4 or picture.shape[1:] != (size, size, 3):
                raise ValueError(f"{key} should be (B, {size}, {size}, 3); got {tuple(picture.shape)}")
            stacked.append(picture)
        return torch.stack(stacked, 1).to(self.device)

    def _state(self, state: Tensor | np.ndarray, batch: int) -> Tensor:
        state = torch.as_tensor(state).to(torch.float32)
        expected = (batch, self.architecture.state_size)
        if tuple(state.shape) != expected:
            raise ValueError(f"observation.state should be {expected}; got {tuple(state.shape)}")
        if not torch.isfinite(state).all():
            where = int((~torch.isfinite(state)).nonzero()[0, 1])
            raise ValueError(f"observation.state has NaN or infinity in dimension {where}")
        return state.to(self.device)


def planning_type(precision: str, device: torch.device) -> torch.dtype:
    """The number type for planning: a word, or `auto` for what the device multiplies fastest."""
    types = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if precision == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
        fast = device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported() and _multiplies_bf16()
        return torch.bfloat16 if fast else torch.float32
    if precision not in types:
        raise ValueError(f"precision is {precision!r}; known are auto, {', '.join(types)}")
    return types[precision]


def _multiplies_bf16() -> bool:
    """Whether this processor has instructions for it; emulated, it would be slower than float32."""
    asked = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(ask is not None and ask() for ask in asked)


def architecture_to_dict(architecture: Architecture) -> dict[str, Any]:
    """For a checkpoint's card."""
    return {**asdict(architecture), "cameras": list(architecture.cameras)}


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
