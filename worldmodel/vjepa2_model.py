"""V-JEPA 2-AC as a brain: a frozen video encoder, an action-conditioned predictor, poses integrated along the way.

Latent (B, HW + 1, D): the tokens of one picture, layer-normed, and a row that carries the arm's pose in its first
numbers. Futures are imagined as the published planner does it: every predicted step joins the context of the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from worldmodel.interface import TABLETOP, ActionSpace, Observation
from worldmodel.vjepa2 import ActionPredictor, Encoder, load_action_predictor, load_encoder

FORMAT = "premotor vjepa2 1"
POSE = 7
# What the encoder was shown in training: ImageNet's mean and spread.
_MEAN, _SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VJepa2Model:
    """The brain behind the interface of `WorldModel`.

    Args:
        encoder, predictor: as loaded; moved to `device`, frozen.
        action_space: bounds within which a planner searches. The predictor takes physical actions, not normalised.
        name: what people call it.
        precision: `float32`, `bfloat16`, or `auto` (bfloat16 on CUDA).
        camera: whose picture is seen.
        futures_at_once: futures imagined together; more of them thrash a GPU's memory and are slower.
    """

    latent_ndim = 2

    def __init__(
        self,
        encoder: Encoder,
        predictor: ActionPredictor,
        action_space: ActionSpace = TABLETOP,
        *,
        name: str = "vjepa2",
        device: str | torch.device = "cpu",
        precision: str = "auto",
        camera: str = "front",
        futures_at_once: int = 200,
    ) -> None:
        if encoder.size.embed_dim != predictor.size.embed_dim:
            raise ValueError(
                f"the encoder's tokens have {encoder.size.embed_dim} numbers, the predictor takes "
                f"{predictor.size.embed_dim}; they belong to different models"
            )
        if encoder.size.grid != predictor.size.grid:
            raise ValueError(f"the encoder sees {encoder.size.grid} patches, the predictor {predictor.size.grid}")
        if action_space.size != predictor.size.action_embed_dim or action_space.size != POSE:
            raise ValueError(f"V-JEPA 2-AC takes actions of {POSE} numbers; the action space has {action_space.size}")
        if precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"precision is {precision!r}; known are auto, float32, bfloat16")
        if futures_at_once < 1:
            raise ValueError(f"futures_at_once is {futures_at_once}; it must be at least 1")
        self.name, self.action_space, self.device = name, action_space, torch.device(device)
        self.futures_at_once = futures_at_once
        half = precision == "bfloat16" or (precision == "auto" and self.device.type == "cuda")
        self.dtype = torch.bfloat16 if half else torch.float32
        self.encoder = encoder.to(self.device, self.dtype).eval().requires_grad_(False)
        self.predictor = predictor.to(self.device, self.dtype).eval().requires_grad_(False)
        self._bounds = action_space.bounds(torch.zeros((), device=self.device))
        self.picture_key = f"observation.images.{camera}"
        self.required_keys = (self.picture_key, "observation.state")

    # -- the interface ---------------------------------------------------------------------------------------------

    def encode(self, observation: Observation) -> Tensor:
        """Observation with leading axis B -> (B, HW + 1, D) float32; a goal may come without a state."""
        with torch.no_grad():
            tokens = self._see(self._picture(observation))
            row = tokens.new_zeros(len(tokens), 1, tokens.shape[-1])
            if "observation.state" in observation:
                row[:, 0, :POSE] = self._state(observation["observation.state"], len(tokens))
            return torch.cat([tokens, row], 1)

    def predict(self, latent: Tensor, actions: Tensor) -> Tensor:
        """(B, HW + 1, D), actions (B, S, H, 7) in [-1, 1] -> (B, S, H, HW + 1, D)."""
        batch, samples, horizon, size = actions.shape
        if latent.shape[0] != batch:
            raise ValueError(f"{latent.shape[0]} latents but actions for {batch} environments")
        if size != self.action_space.size:
            raise ValueError(f"{self.name} takes actions of {self.action_space.size} numbers; got {size}")
        if horizon > self.predictor.size.longest:
            raise ValueError(f"{self.name} looks at most {self.predictor.size.longest} steps ahead; got {horizon}")
        physical = self.action_space.to_physical(actions.to(self.device), self._bounds).flatten(0, 1)
        owner = torch.arange(batch, device=self.device).repeat_interleave(samples)
        futures = [
            self._imagine(latent[rows], physical[chunk])
            for rows, chunk in zip(
                owner.split(self.futures_at_once),
                torch.arange(len(owner), device=self.device).split(self.futures_at_once),
                strict=True,
            )
        ]
        return torch.cat(futures).unflatten(0, (batch, samples))

    def distance(self, latents: Tensor, goal: Tensor) -> Tensor:
        """Mean absolute difference of tokens, as published: (B, *X, HW + 1, D), (B, HW + 1, D) -> (B, *X)."""
        return (latents[..., :-1, :] - self._like(goal, latents)[..., :-1, :]).abs().mean((-2, -1))

    def feature_distance(self, latents: Tensor, goal: Tensor) -> Tensor:
        """Mean squared difference of tokens: (B, *X, HW + 1, D), (B, HW + 1, D) -> (B, *X)."""
        return (latents[..., :-1, :] - self._like(goal, latents)[..., :-1, :]).square().mean((-2, -1))

    def state_distance(self, latents: Tensor, goal: Tensor) -> None:
        """Nothing reads a goal's pose off its picture here."""

    def features(self, latents: Tensor) -> Tensor:
        """All tokens of a picture in one row: (B, *X, HW + 1, D) -> (B, *X, HW * D)."""
        return latents[..., :-1, :].flatten(-2)

    def state(self, latents: Tensor) -> Tensor:
        """The pose as the actions integrate to it: (B, *X, HW + 1, D) -> (B, *X, 7)."""
        return self.pose(latents)

    def state_scale(self) -> Tensor:
        """The most that one action changes of it, (7,): the published weights do not say how states vary."""
        return torch.tensor(self.action_space.high, device=self.device)

    def propose(self, latent: Tensor, goal: Tensor, n: int, generator: torch.Generator | None = None) -> None:
        """There is no learned prior."""

    def uncertainty(self, latents: Tensor) -> None:
        """The published weights do not say what they do not know."""

    def decode(self, latents: Tensor) -> None:
        """No decoder is published."""

    def pose(self, latents: Tensor) -> Tensor:
        """The arm's pose along a future: (*X, HW + 1, D) -> (*X, 7), m, rad, closedness."""
        return latents[..., -1, :POSE]

    # -- inside ----------------------------------------------------------------------------------------------------

    def _imagine(self, latent: Tensor, actions: Tensor) -> Tensor:
        """Latents (N, HW + 1, D), physical actions (N, H, 7) -> (N, H, HW + 1, D)."""
        tokens, poses = [latent[:, :-1]], [self.pose(latent)]
        for h in range(actions.shape[1]):
            context = torch.cat(tokens, 1).to(self.dtype)
            so_far = actions[:, : h + 1].to(self.dtype)
            out = self.predictor(context, so_far, torch.stack(poses, 1).to(self.dtype))
            last = out[:, -latent.shape[1] + 1 :].float()
            tokens.append(F.layer_norm(last, last.shape[-1:]))
            poses.append(integrate_pose(poses[-1], actions[:, h]))
        row = latent.new_zeros(len(latent), actions.shape[1], 1, latent.shape[-1])
        row[..., 0, :POSE] = torch.stack(poses[1:], 1)
        return torch.cat([torch.stack(tokens[1:], 1), row], 2)

    def _see(self, pictures: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 -> tokens (B, HW, D): the middle square, resized, shown as often as a token has frames."""
        side = min(pictures.shape[1:3])
        top, left = (pictures.shape[1] - side) // 2, (pictures.shape[2] - side) // 2
        x = pictures[:, top : top + side, left : left + side].permute(0, 3, 1, 2).float() / 255
        x = (x - x.new_tensor(_MEAN)[:, None, None]) / x.new_tensor(_SPREAD)[:, None, None]
        rows, columns = self.encoder.size.grid
        patch = self.encoder.size.patch_size
        x = F.interpolate(x, (rows * patch, columns * patch), mode="bilinear", align_corners=False)
        video = x[:, :, None].repeat(1, 1, self.encoder.size.tubelet_size, 1, 1).to(self.dtype)
        tokens = self.encoder(video).float()
        return F.layer_norm(tokens, tokens.shape[-1:])

    @staticmethod
    def _like(goal: Tensor, latents: Tensor) -> Tensor:
        """(B, HW + 1, D) -> broadcast to (B, *X, HW + 1, D)."""
        return goal.reshape(len(goal), *[1] * (latents.ndim - 3), *goal.shape[1:])

    def _picture(self, observation: Observation) -> Tensor:
        if self.picture_key not in observation:
            seen = [key for key in observation if key.startswith("observation.images.")]
            raise ValueError(
                f"{self.name} needs {self.picture_key}; the observation has {', '.join(seen) or 'no pictures'}"
            )
        picture = torch.as_tensor(observation[self.picture_key])
        if picture.dtype != torch.uint8 or picture.ndim != 4 or picture.shape[-1] != 3:
            raise ValueError(
                f"{self.picture_key} should be uint8 (B, H, W, 3); got {str(picture.dtype).removeprefix('torch.')} "
                f"{tuple(picture.shape)}"
            )
        return picture.to(self.device)

    def _state(self, state: Any, batch: int) -> Tensor:
        state = torch.as_tensor(state).to(torch.float32)
        if tuple(state.shape) != (batch, POSE):
            raise ValueError(f"observation.state should be {(batch, POSE)}; got {tuple(state.shape)}")
        if not torch.isfinite(state).all():
            where = int((~torch.isfinite(state)).nonzero()[0, 1])
            raise ValueError(f"observation.state has NaN or infinity in dimension {where}")
        return state.to(self.device)


# -- poses ---------------------------------------------------------------------------------------------------------


def integrate_pose(pose: Tensor, action: Tensor) -> Tensor:
    """The pose (N, 7) after an action (N, 7): positions add, R' = dR R, closedness stays within 0 and 1."""
    turned = rotation_to_rpy(rpy_to_rotation(action[:, 3:6]) @ rpy_to_rotation(pose[:, 3:6]))
    closed = (pose[:, 6:] + action[:, 6:]).clamp(0.0, 1.0)
    return torch.cat([pose[:, :3] + action[:, :3], turned, closed], 1)


def rpy_to_rotation(rpy: Tensor) -> Tensor:
    """Extrinsic xyz Euler angles (N, 3), rad -> matrices (N, 3, 3)."""
    (cr, cp, cy), (sr, sp, sy) = rpy.cos().unbind(-1), rpy.sin().unbind(-1)
    rows = [
        cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr,
        sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr,
        -sp, cp * sr, cp * cr,
    ]  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def rotation_to_rpy(rotation: Tensor) -> Tensor:
    """Matrices (N, 3, 3) -> extrinsic xyz Euler angles (N, 3), rad; at a pitch of 90 degrees all roll goes to yaw."""
    r = rotation
    level = torch.hypot(r[:, 0, 0], r[:, 1, 0])
    locked = level < 1e-6
    roll = torch.where(locked, 0.0, torch.atan2(r[:, 2, 1], r[:, 2, 2]))
    pitch = torch.atan2(-r[:, 2, 0], level)
    yaw = torch.where(locked, torch.atan2(-r[:, 0, 1], r[:, 1, 1]), torch.atan2(r[:, 1, 0], r[:, 0, 0]))
    return torch.stack([roll, pitch, yaw], -1)


# -- files ---------------------------------------------------------------------------------------------------------


def load_folder(
    folder: Path, card: Mapping[str, Any], device: torch.device, precision: str, action_space: ActionSpace
) -> VJepa2Model:
    """A converted checkpoint, by its card."""
    path = folder / "model.safetensors"
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is missing, truncated or damaged ({error})") from None
    parts: dict[str, dict[str, Tensor]] = {"encoder": {}, "predictor": {}}
    for key, value in tensors.items():
        kind, _, rest = key.partition(".")
        if kind not in parts:
            raise ValueError(f"{path} also holds {key}, which is of no part of V-JEPA 2")
        parts[kind][rest] = value
    try:
        sizes = {kind: {**card["sizes"][kind]} for kind in parts}
        for size in sizes.values():
            size["img_size"] = size["img_size"] if isinstance(size["img_size"], int) else tuple(size["img_size"])
        encoder = load_encoder(parts["encoder"], **sizes["encoder"])
        predictor = load_action_predictor(parts["predictor"], **sizes["predictor"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder}: the card does not fit the weights ({error})") from None
    name = str(card.get("name", folder.name))
    return VJepa2Model(encoder, predictor, action_space, name=name, device=device, precision=precision)
