"""V-JEPA 2's encoder and action-conditioned predictor: the published weights, key for key, and their arithmetic.

The published rotary embedding tiles its frequencies over the two halves of a vector where it turns neighbouring pairs;
the weights were trained with that, so it is kept. Sequence of the predictor, a time step after another: action, state,
(extrinsics,) patches; a token sees its own step and those before.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPS = 1e-6
# What wrappers put before the names of weights.
_WRAPPERS = ("module.", "backbone.", "_orig_mod.")


@dataclass(frozen=True)
class Size:
    """Sizes, in the words of the published constructors.

    Attributes:
        img_size: (height, width) of the pictures, px; one number for squares.
        patch_size: side of a patch, px.
        num_frames: the longest video; the predictor's longest context is num_frames // tubelet_size steps.
        tubelet_size: frames in one token.
        embed_dim: numbers in a token of the encoder.
        predictor_embed_dim: numbers in a token within the predictor.
        depth, num_heads: of the transformer that is loaded.
        action_embed_dim: numbers in an action and in a state.
        use_extrinsics: whether the predictor is told where the camera stands.
    """

    img_size: int | tuple[int, int] = (256, 256)
    patch_size: int = 16
    num_frames: int = 64
    tubelet_size: int = 2
    embed_dim: int = 1408
    predictor_embed_dim: int = 1024
    depth: int = 24
    num_heads: int = 16
    action_embed_dim: int = 7
    use_extrinsics: bool = False

    @property
    def grid(self) -> tuple[int, int]:
        """Patches along the height and the width."""
        height, width = (self.img_size,) * 2 if isinstance(self.img_size, int) else self.img_size
        return height // self.patch_size, width // self.patch_size

    @property
    def longest(self) -> int:
        """Time steps the predictor was made for."""
        return max(1, self.num_frames // self.tubelet_size)


# Settings of the published constructors that change nothing here, and the one value each may have (None for any).
_FIXED: Mapping[str, Any] = {
    "use_rope": True, "is_frame_causal": True, "qkv_bias": True, "use_sdpa": None, "use_activation_checkpointing": None,
    "uniform_power": None, "wide_silu": None, "use_silu": None, "use_SiLU": None, "wide_SiLU": None, "mlp_ratio": None,
    "handle_nonsquare_inputs": None, "init_std": None, "in_chans": 3, "out_layers": None, "norm_layer": None,
    "drop_rate": 0.0, "attn_drop_rate": 0.0, "drop_path_rate": None, "qk_scale": None,
}  # fmt: skip


def _size(config: Mapping[str, Any]) -> Size:
    """A config in the published words; what cannot be honoured is refused."""
    known = {field.name for field in fields(Size)}
    for name, value in config.items():
        if name in known:
            continue
        if name not in _FIXED:
            near = difflib.get_close_matches(name, [*known, *_FIXED], n=1)
            raise ValueError(f"V-JEPA 2 has no setting {name!r}{f'; did you mean {near[0]}?' if near else ''}")
        if _FIXED[name] is not None and value != _FIXED[name]:
            raise ValueError(f"{name}={value} is not supported; the published weights have {name}={_FIXED[name]}")
    return Size(**{name: value for name, value in config.items() if name in known})


# -- the transformer -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Turn:
    """The rotary embedding of N tokens: cosines and sines (N, head_dim)."""

    cosine: Tensor
    sine: Tensor

    @classmethod
    def of(cls, positions: Tensor, head_dim: int) -> Turn:
        """From positions (N, 3) in time, height and width; each turns a third of the vector, the rest stays."""
        part = 2 * ((head_dim // 3) // 2)
        speed = 10000.0 ** -(torch.arange(part // 2, device=positions.device) / max(part / 2, 1.0))
        angle = (positions.float()[:, :, None] * speed).repeat(1, 1, 2).flatten(1)
        angle = F.pad(angle, (0, head_dim - angle.shape[1]))
        return cls(angle.cos(), angle.sin())

    def __call__(self, x: Tensor) -> Tensor:
        """Queries or keys (B, heads, N, head_dim), turned."""
        first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
        quarter = torch.stack((-second, first), -1).flatten(-2)
        return x * self.cosine.to(x.dtype) + quarter * self.sine.to(x.dtype)


def patch_positions(steps: int, rows: int, columns: int, device: torch.device) -> Tensor:
    """(steps, rows * columns, 3): time, height and width of every patch."""
    axes = [torch.arange(count, device=device) for count in (steps, rows, columns)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(1, 2)


class Attention(nn.Module):
    """Self-attention with turned queries and keys."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, turn: Turn, visible: Tensor | None) -> Tensor:
        """(B, N, D) -> (B, N, D); `visible` (N, N) says who sees whom, None for all."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(turn(q), turn(k), v, attn_mask=visible)
        return self.proj(seen.transpose(1, 2).flatten(2))


class Feedforward(nn.Module):
    """GELU, or a gated SiLU where the weights have a third matrix."""

    def __init__(self, dim: int, hidden: int, gated: bool) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(dim, hidden) if gated else nn.Linear(hidden, dim)
        self.fc3 = nn.Linear(hidden, dim) if gated else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        if self.fc3 is not None:
            return self.fc3(F.silu(self.fc1(x)) * self.fc2(x))
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """A pre-normed transformer block."""

    def __init__(self, dim: int, heads: int, hidden: int, gated: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Feedforward(dim, hidden, gated)

    def forward(self, x: Tensor, turn: Turn, visible: Tensor | None) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        x = x + self.attn(self.norm1(x), turn, visible)
        return x + self.mlp(self.norm2(x))


class _Patches(nn.Module):
    """Holds the projection under its published name."""

    def __init__(self, size: Size, still: bool) -> None:
        super().__init__()
        side, step = size.patch_size, size.tubelet_size
        self.proj: nn.Module
        if still:
            self.proj = nn.Conv2d(3, size.embed_dim, side, side)
        else:
            self.proj = nn.Conv3d(3, size.embed_dim, (step, side, side), (step, side, side))


class Encoder(nn.Module):
    """Video (B, 3, T, H, W), normalised -> tokens (B, T/tubelet * H/patch * W/patch, D)."""

    def __init__(self, size: Size, hidden: int, *, gated: bool = False, still: bool = False) -> None:
        super().__init__()
        self.size = size
        self.patch_embed = _Patches(size, still)
        self.blocks = nn.ModuleList(Block(size.embed_dim, size.num_heads, hidden, gated) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.embed_dim, eps=NORM_EPS)

    def forward(self, video: Tensor) -> Tensor:
        """As the class says; a picture (B, 3, H, W) is a video of one step where the weights are for pictures."""
        axes = 4 if isinstance(self.patch_embed.proj, nn.Conv2d) else 5
        if video.ndim != axes or video.shape[1] != 3:
            wanted = "(B, 3, H, W)" if axes == 4 else "(B, 3, T, H, W)"
            raise ValueError(f"the V-JEPA 2 encoder takes {wanted}; got {tuple(video.shape)}")
        patches = self.patch_embed.proj(video)
        patches = patches[:, :, None] if axes == 4 else patches
        steps, rows, columns = patches.shape[2:]
        x = patches.flatten(2).transpose(1, 2)
        positions = patch_positions(steps, rows, columns, x.device).flatten(0, 1)
        turn = Turn.of(positions, self.size.embed_dim // self.size.num_heads)
        for block in self.blocks:
            x = block(x, turn, None)
        return self.norm(x)


class ActionPredictor(nn.Module):
    """The next step's tokens from tokens, actions and states, at every step of a context at once."""

    def __init__(self, size: Size, hidden: int, *, gated: bool = False) -> None:
        super().__init__()
        self.size = size
        dim = size.predictor_embed_dim
        self.predictor_embed = nn.Linear(size.embed_dim, dim)
        self.action_encoder = nn.Linear(size.action_embed_dim, dim)
        self.state_encoder = nn.Linear(size.action_embed_dim, dim)
        # In the published weights whether it is used or not.
        self.extrinsics_encoder = nn.Linear(size.action_embed_dim - 1, dim)
        self.predictor_blocks = nn.ModuleList(Block(dim, size.num_heads, hidden, gated) for _ in range(size.depth))
        self.predictor_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.predictor_proj = nn.Linear(dim, size.embed_dim)

    def forward(self, x: Tensor, actions: Tensor, states: Tensor, extrinsics: Tensor | None = None) -> Tensor:
        """Tokens (B, T*HW, D), actions (B, T, A), states (B, T, A), extrinsics (B, T, A-1) -> (B, T*HW, D).

        What stands at step t is the estimate of step t + 1.
        """
        rows, columns = self.size.grid
        steps, spare = divmod(x.shape[1], rows * columns)
        if spare or not 1 <= steps <= self.size.longest:
            raise ValueError(
                f"{x.shape[1]} tokens are not 1 to {self.size.longest} steps of {rows} x {columns} patches"
            )
        for name, given in (("actions", actions), ("states", states)):
            wanted = (len(x), steps, self.size.action_embed_dim)
            if tuple(given.shape) != wanted:
                raise ValueError(f"{name} should be {wanted}; got {tuple(given.shape)}")
        told = [self.action_encoder(actions), self.state_encoder(states)]
        if self.size.use_extrinsics:
            if extrinsics is None:
                raise ValueError("this predictor is told where the camera stands; give extrinsics (B, T, 6)")
            told.append(self.extrinsics_encoder(extrinsics))
        patches = self.predictor_embed(x).unflatten(1, (steps, rows * columns))
        y = torch.cat([torch.stack(told, 2), patches], 2)
        turn = Turn.of(self._positions(steps, len(told), x.device), y.shape[-1] // self.size.num_heads)
        visible = _sees_the_past(steps, y.shape[2], x.device) if steps > 1 else None
        y = y.flatten(1, 2)
        for block in self.predictor_blocks:
            y = block(y, turn, visible)
        y = y.unflatten(1, (steps, -1))[:, :, len(told) :].flatten(1, 2)
        return self.predictor_proj(self.predictor_norm(y))

    def _positions(self, steps: int, told: int, device: torch.device) -> Tensor:
        """(N, 3): what is told stands at its time and at no place; places are measured in rows of the grid."""
        rows, columns = self.size.grid
        patches = patch_positions(steps, rows, columns, device).float()
        patches = torch.cat([patches[..., :2], patches[..., 2:] * (rows / columns)], -1)
        beside = torch.zeros(steps, told, 3, device=device)
        beside[..., 0] = torch.arange(steps, device=device)[:, None]
        return torch.cat([beside, patches], 1).flatten(0, 1)


def _sees_the_past(steps: int, tokens: int, device: torch.device) -> Tensor:
    """(N, N) bool: a token of a step sees the tokens of that step and of those before."""
    time = torch.arange(steps, device=device).repeat_interleave(tokens)
    return time[:, None] >= time


# -- loading -------------------------------------------------------------------------------------------------------


def load_encoder(state_dict: Mapping[str, Tensor], **config: Any) -> Encoder:
    """The published encoder; `config` has the published constructor's names (see `Size`).

    A `pos_embed` is left over from another position code and ignored; every other key must fit.
    """
    weights = {name: value for name, value in stripped(state_dict).items() if name != "pos_embed"}
    size = _size({"depth": 40, "num_heads": 22, **config})
    hidden, gated = _feedforward(weights, "blocks.0.mlp.fc1.weight", "blocks.0.mlp.fc3.weight")
    projection = weights.get("patch_embed.proj.weight")
    still = projection is not None and projection.ndim == 4
    return _filled(lambda: Encoder(size, hidden, gated=gated, still=still), weights, "encoder")


def load_action_predictor(state_dict: Mapping[str, Tensor], **config: Any) -> ActionPredictor:
    """The published action-conditioned predictor; `config` has the published constructor's names (see `Size`)."""
    weights = stripped(state_dict)
    size = _size(config)
    hidden, gated = _feedforward(weights, "predictor_blocks.0.mlp.fc1.weight", "predictor_blocks.0.mlp.fc3.weight")
    return _filled(lambda: ActionPredictor(size, hidden, gated=gated), weights, "action-conditioned predictor")


def stripped(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under the names they have without what training wrapped around the module."""
    plain = {}
    for name, value in state_dict.items():
        for wrapper in _WRAPPERS:
            name = name.replace(wrapper, "")
        plain[name] = value
    return plain


def _feedforward(weights: Mapping[str, Tensor], first: str, third: str) -> tuple[int, bool]:
    """How wide the hidden layer is, and whether it is gated, as the weights say."""
    return (weights[first].shape[0] if first in weights else 1), third in weights


def _filled(make: Any, weights: Mapping[str, Tensor], what: str) -> Any:
    """The module with these weights in it, ready to answer; anything missing, left over or of another shape is named."""
    with torch.device("meta"):
        module = make()
    own = module.state_dict()
    problems: Iterable[str] = (
        [f"lacks {name}" for name in own if name not in weights]
        + [f"also holds {name}" for name in weights if name not in own]
        + [
            f"has {name} of {tuple(weights[name].shape)} where these settings want {tuple(value.shape)}"
            for name, value in own.items()
            if name in weights and weights[name].shape != value.shape
        ]
    )
    for problem in problems:
        raise ValueError(f"this is no V-JEPA 2 {what} of these sizes: it {problem}")
    module.load_state_dict(dict(weights), assign=True)
    return module.eval()
