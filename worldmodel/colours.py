"""Other light and other colours, of whole scenes at a time: what a brain should not mind.

Were companions of a scene recoloured apart, colour would tell them apart, and nobody would look where things are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from worldmodel.data import GROUP, Windows

# How many scenes are recoloured; the others stay as they are, as most rooms do.
CHANGED_SHARE = 0.7


@dataclass(frozen=True)
class Recolouring:
    """What becomes of an RGB pixel of 0..255 in each of N rows of pictures: pixel @ turn + offset.

    Attributes:
        turn: (N, 3, 3).
        offset: (N, 1).
    """

    turn: Tensor
    offset: Tensor

    def of(self, rows: Tensor) -> Recolouring:
        """That of rows (M,)."""
        return Recolouring(self.turn[rows], self.offset[rows])


def draw_recolouring(
    count: int, generator: torch.Generator, light: float, hue: float = 0.0, share: float = 1.0
) -> Recolouring:
    """`count` recolourings.

    Args:
        count: N.
        generator: decides.
        light: how much brightness and contrast vary; 0 leaves them.
        hue: how far colours turn about grey, as a share of half the circle: with 1 red may become any colour.
        share: how many change anything.
    """
    gain = 1 + light * (2 * torch.rand(count, 1, 1, generator=generator) - 1)
    offset = 255 * light * (torch.rand(count, 1, generator=generator) - 0.5)
    turn = gain * _about_grey(hue * math.pi * (2 * torch.rand(count, generator=generator) - 1))
    if share < 1:
        kept = torch.rand(count, generator=generator) >= share
        turn[kept], offset[kept] = torch.eye(3), 0.0
    return Recolouring(turn, offset)


def recoloured(pictures: Tensor, recolouring: Recolouring) -> Tensor:
    """Pictures (N, ..., 3) uint8, all of row n in the same way."""
    # Many pixels in one row of the product: a matrix of three columns multiplies slowly.
    pixels = pictures[0].numel() // 3
    together = math.gcd(pixels, 16)
    unchanged = torch.eye(3)
    rows = []
    with torch.autocast(pictures.device.type, enabled=False):  # 255 shades do not fit bfloat16
        for row, by, at in zip(pictures, recolouring.turn, recolouring.offset, strict=True):
            if by.equal(unchanged) and not at:
                rows.append(row)
                continue
            flat = row.reshape(-1, 3 * together).float()
            changed = torch.addmm(at.expand(3 * together), flat, torch.block_diag(*[by] * together))
            rows.append(changed.round_().clamp_(0, 255).to(torch.uint8).view_as(row))
    return torch.stack(rows)


def recoloured_windows(windows: Windows, generator: torch.Generator, light: float, hue: float) -> Windows:
    """The same windows under other light: one change for all windows of a scene, their goals and their twins."""
    if light <= 0 and hue <= 0:
        return windows
    pictures, goals, twins = windows.pictures, windows.goal_pictures, windows.twin_pictures
    together = torch.cat([pictures, goals[:, None], twins[:, None]], 1)
    scenes = -(-len(together) // GROUP)
    drawn = draw_recolouring(scenes, generator, light, hue, CHANGED_SHARE)
    changed = recoloured(together, drawn.of(torch.arange(len(together)) // GROUP))
    return replace(windows, pictures=changed[:, :-2], goal_pictures=changed[:, -2], twin_pictures=changed[:, -1])


def _about_grey(angle: Tensor) -> Tensor:
    """Rotations (N, 3, 3) of RGB about the grey axis by angles (N,), rad."""
    cos, sin = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
    across = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    return cos * torch.eye(3) + (1 - cos) / 3 + sin * across
