"""The native brain: pixels and proprioception to one vector, futures by a residual MLP, small heads for planning.

Latent vector (D + P + 1): features z of the picture (D), normalised proprioception p (P), and u, the uncertainty
accumulated along a prediction (0 where something was seen). A goal that comes without the arm's state gets it read off
its picture.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from worldmodel.goal_reading import GoalReading
from worldmodel.interface import ActionSpace, Observation
from worldmodel.networks import Networks

# A prior with a pace is asked to be as quick as the quickest of so many that reached such goals.
QUICK = 0.3


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
            pictures = self._pictures(observation)
            z = self.networks.encoder(pictures)
            if "observation.state" in observation:
                p = self.networks.normalise_state(self._state(observation["observation.state"], len(z)))
            else:
                p = self.networks.read_state(pictures, z)
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
        return self.networks.steps_to_goal(z, p, self._like(self._aim(goal), z)).softmax(-1) @ self._bins

    def feature_distance(self, latents: Tensor, goal: Tensor) -> Tensor:
        """Mean squared difference of picture features: (B, *X, L), (B, L) -> (B, *X)."""
        z, _, _ = self._split(latents)
        # In one pass: a difference that is kept to be squared costs as much again.
        return F.mse_loss(z, self._like(goal[:, : self._features], z), reduction="none").mean(-1)

    def state_distance(self, latents: Tensor, goal: Tensor) -> Tensor:
        """Mean absolute difference of normalised proprioception, each number counting as far as a picture tells it:
        (B, *X, L), (B, L) -> (B, *X). Not squared: the last centimetres must still weigh something."""
        _, p, _ = self._split(latents)
        wanted = self._like(goal[:, self._features : -1], p)
        return ((p - wanted).abs() * self.networks.get_buffer("readout_trust")).mean(-1)

    def features(self, latents: Tensor) -> Tensor:
        """The picture's: (B, *X, L) -> (B, *X, D)."""
        return self._split(latents)[0]

    def state(self, latents: Tensor) -> Tensor:
        """Proprioception as it is measured: (B, *X, L) -> (B, *X, P)."""
        return self.networks.physical_state(self._split(latents)[1])

    def state_scale(self) -> Tensor:
        """How much the state varied in training, (P,)."""
        return self.networks.get_buffer("state_std")

    def propose(self, latent: Tensor, goal: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
        """(B, n, K, A) drawn from the goal-conditioned inverse model; the first of the n is the middle of its mode.

        Which mode that is, is drawn too: who always did what is likeliest would close the fingers on an object for ever,
        because most of those who held it closed were still closing.
        """
        z, p, _ = self._split(latent)
        aim = self._aim(goal)
        steps = self._pace(z, p, aim) if self.architecture.pace else z.new_ones(len(z))
        log_weight, mean, log_std = self.networks.proposed(z, p, aim, steps)
        noise = torch.randn(len(z), n, *mean.shape[2:], generator=generator, device=self.device)
        noise[:, 0] = 0.0
        if mean.shape[1] == 1:
            mode = torch.zeros(len(z), n, dtype=torch.long, device=self.device)
        else:
            mode = torch.multinomial(log_weight.exp(), n, replacement=True, generator=generator)
        row = torch.arange(len(z), device=self.device)[:, None]
        return (mean[row, mode] + log_std[row, mode].exp() * noise).clamp(-1.0, 1.0)

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

    def watch(self, goal: Tensor) -> GoalReading:
        """A goal (B, L) or (1, L) encoded from pictures alone: its arm's pose is read better the more is seen."""
        return GoalReading(self.networks, goal, self._pictures)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _split(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        d = self._features
        if latents.shape[-1] != d + self.architecture.state_size + 1:
            raise ValueError(
                f"a latent of {self.name} has {d + self.architecture.state_size + 1} numbers; got {latents.shape[-1]}: "
                "was it made by another model?"
            )
        return latents[..., :d], latents[..., d:-1], latents[..., -1:]

    def _pace(self, z: Tensor, p: Tensor, aim: Tensor) -> Tensor:
        """In how many steps the quick reach such a goal: (B,). What looks far counts: who only asked how far the arm has
        to go would be sent there without the object."""
        sooner = self.networks.steps_to_goal(z, p, aim).softmax(-1).cumsum(-1)
        return (sooner < QUICK).sum(-1).clamp(min=1).float()

    def _aim(self, goal: Tensor) -> Tensor:
        """(B, L) -> what the heads are told of it (B, G)."""
        z, p, _ = self._split(goal)
        return self.networks.aim(z, p)

    @staticmethod
    def _like(goal: Tensor, z: Tensor) -> Tensor:
        """(B, G) -> (B, *X, G) for z (B, *X, D)."""
        return goal.reshape(len(goal), *([1] * (z.ndim - 2)), -1).expand(*z.shape[:-1], -1)

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
