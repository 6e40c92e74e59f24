"""Capsules that cover what a link is made of: a few round, fat pieces in which every corner of its shape lies.

A capsule (all points within a radius of a line) is the shape whose distances are exact and cheap. A bent link gets several,
where that makes the whole markedly leaner; every triangle of its surface lies in one of them.
"""

# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false
# (mujoco is a binary module whose functions and enums no stub describes)

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import mujoco
import numpy as np

MOST_PIECES = 3
# A capsule of so many times the volume of the box around a shape is lean enough.
LEAN = 1.4
# One more piece must save this share of the volume to be worth its comparisons.
WORTH = 0.2
# A radius a little above the least that holds the points may let the ends be shorter.
FATTER = (1.0, 1.02, 1.05, 1.1, 1.2, 1.35)
TILTS = 16
MOST_STRIPS = 4
RING = 16
# Triangles are divided until they are at most this share of the whole, and joined to pieces in so many rounds.
LARGEST_SHARE, ROUNDS = 0.2, 8


@dataclass(frozen=True)
class Capsule:
    """All points within `radius` of the segment from `start` to `end` (3,), metres, in the frame of its link."""

    start: np.ndarray
    end: np.ndarray
    radius: float

    @property
    def half(self) -> float:
        """Half the length of the segment."""
        return float(np.linalg.norm(self.end - self.start)) / 2

    @property
    def volume(self) -> float:
        """m^3."""
        return math.pi * self.radius**2 * (2 * self.half + 4 / 3 * self.radius)

    def outside(self, points: np.ndarray) -> np.ndarray:
        """How far points (N, 3) are outside, negative inside."""
        along = self.end - self.start
        square = float(along @ along)
        share = np.clip((points - self.start) @ along / square, 0.0, 1.0) if square > 0 else np.zeros(len(points))
        return np.linalg.norm(points - self.start - share[:, None] * along, axis=1) - self.radius


def cover(corners: np.ndarray) -> list[Capsule]:
    """Capsules that hold a surface of triangles, corners (T, 3, 3); as few as make a lean cover."""
    corners = _divided(corners)
    best = [_around(corners.reshape(-1, 3), TILTS)]
    points = corners.reshape(-1, 3)
    if best[0].volume < LEAN * float(np.ptp(points @ _directions(points, 0)[:3].T, axis=0).prod()):
        return best
    for pieces in range(2, MOST_PIECES + 1):
        cut = _pieces(corners, pieces)
        if sum(c.volume for c in cut) < (1 - WORTH) ** (pieces - len(best)) * sum(c.volume for c in best):
            best = cut
    return best


def cover_geom(model: mujoco.MjModel, geom: int) -> list[Capsule]:
    """Capsules that hold one shape of a model, in the frame of its body."""
    kind, size = mujoco.mjtGeom(model.geom_type[geom]), model.geom_size[geom]
    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, model.geom_quat[geom])
    turn, origin = rotation.reshape(3, 3), model.geom_pos[geom]
    if kind in (mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtGeom.mjGEOM_SPHERE):
        axis = turn[:, 2] * (size[1] if kind == mujoco.mjtGeom.mjGEOM_CAPSULE else 0.0)
        return [Capsule(origin - axis, origin + axis, float(size[0]))]
    if kind == mujoco.mjtGeom.mjGEOM_MESH:
        mesh = int(model.geom_dataid[geom])
        first, count = int(model.mesh_vertadr[mesh]), int(model.mesh_vertnum[mesh])
        points = model.mesh_vert[first : first + count].astype(np.float64)
        faces = model.mesh_face[model.mesh_faceadr[mesh] : model.mesh_faceadr[mesh] + model.mesh_facenum[mesh]]
    elif kind == mujoco.mjtGeom.mjGEOM_BOX:
        return [Capsule(turn @ c.start + origin, turn @ c.end + origin, c.radius) for c in _strips(size)]
    elif kind == mujoco.mjtGeom.mjGEOM_ELLIPSOID:
        points = np.array(list(itertools.product((-1.0, 1.0), repeat=3))) * size
        faces = np.array(list(itertools.combinations(range(8), 3)))  # more than its twelve, none outside
    elif kind == mujoco.mjtGeom.mjGEOM_CYLINDER:
        angles = np.arange(RING) * 2 * math.pi / RING
        ring = np.stack([np.cos(angles), np.sin(angles)], axis=1) * size[0] / math.cos(math.pi / RING)
        points = np.concatenate([np.c_[ring, np.full(RING, z)] for z in (-size[1], size[1])])
        around = np.arange(RING)
        after, other = (around + 1) % RING, around + RING
        lids = [np.stack([around[1:-1] * 0, around[1:-1], after[1:-1]], axis=1) + side for side in (0, RING)]
        faces = np.concatenate([*lids, np.c_[around, after, other], np.c_[after, other, after + RING]])
    else:
        raise ValueError(
            f"a link has a shape of type {kind.name}; capsules cover meshes, boxes, cylinders and the like"
        )
    return cover((points @ turn.T + origin)[faces])


def _strips(size: np.ndarray) -> list[Capsule]:
    """A box of half sides (3,) in strips along its longest side, as many as make each about as wide as the box is thick."""
    thin, wide, long = (int(axis) for axis in np.argsort(size))
    count = min(MOST_STRIPS, math.ceil(size[wide] / size[thin] - 1e-6))
    strips = []
    for number in range(count):
        half, middle = size.astype(np.float64), np.zeros(3)
        half[wide] /= count
        middle[wide] = (2 * number + 1) * half[wide] - size[wide]
        corners = np.array(list(itertools.product((-1.0, 1.0), repeat=3))) * half + middle
        strips.append(min(_along(corners, np.eye(3)[long]), key=lambda capsule: capsule.volume))
    return strips


def _divided(corners: np.ndarray) -> np.ndarray:
    """Triangles (T, 3, 3) halved across their longest side until they are small against the whole."""
    most = LARGEST_SHARE * float(np.ptp(corners.reshape(-1, 3), axis=0).max())
    done = []
    while len(corners):
        sides = np.linalg.norm(corners - np.roll(corners, -1, axis=1), axis=2)
        large = sides.max(axis=1) > most
        done.append(corners[~large])
        # Turned so that the longest side comes first.
        order = (sides[large].argmax(axis=1)[:, None] + np.arange(3)) % 3
        turned = np.take_along_axis(corners[large], order[..., None], axis=1)
        middle = (turned[:, 0] + turned[:, 1]) / 2
        corners = np.concatenate(
            [np.stack([turned[:, 0], middle, turned[:, 2]], 1), np.stack([middle, turned[:, 1], turned[:, 2]], 1)]
        )
    return np.concatenate(done)


def _pieces(corners: np.ndarray, pieces: int) -> list[Capsule]:
    """A capsule around each of some groups of triangles: each triangle joins the capsule it sticks out of the least."""
    heights = corners.mean(axis=1) @ _directions(corners.reshape(-1, 3), 0)[0]
    group = np.searchsorted(np.quantile(heights, np.arange(1, pieces) / pieces), heights)
    best: list[Capsule] = []
    for round_ in range(ROUNDS):
        members = [corners[group == g].reshape(-1, 3) for g in range(pieces)]
        if any(not len(m) for m in members):
            break
        capsules = [_around(m, TILTS if round_ == ROUNDS - 1 else 0) for m in members]
        if not best or sum(c.volume for c in capsules) < sum(c.volume for c in best):
            best = capsules
        out = [c.outside(corners.reshape(-1, 3)).reshape(-1, 3).max(axis=1) / c.radius for c in capsules]
        group = np.argmin(out, axis=0)
    return best


def _directions(points: np.ndarray, tilts: int) -> np.ndarray:
    """Axes (K, 3) worth trying, the longest extent first."""
    _, _, principal = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    more = np.random.default_rng(0).normal(size=(tilts, 3))
    return np.concatenate([principal, np.eye(3), more / np.linalg.norm(more, axis=1, keepdims=True)])


def _around(points: np.ndarray, tilts: int) -> Capsule:
    """The leanest capsule found around points (N, 3)."""
    points = np.unique(points, axis=0)
    found = [capsule for axis in _directions(points, tilts) for capsule in _along(points, axis)]
    return min(found, key=lambda capsule: capsule.volume)


def _along(points: np.ndarray, axis: np.ndarray) -> list[Capsule]:
    """Capsules around points whose segment has a given direction."""
    flat = points - np.outer(points @ axis, axis)
    middle = _middle(flat)
    middle = middle - axis * (middle @ axis)  # a box's middle need not lie in the plane
    away = np.linalg.norm(flat - middle, axis=1)
    height = points @ axis
    capsules = []
    for factor in FATTER:
        radius = float(away.max()) * factor + 1e-9
        cap = np.sqrt(np.maximum(radius**2 - away**2, 0.0))
        low, high = float((height + cap).min()), float((height - cap).max())
        if low > high:  # a ball: short enough that both caps would overlap
            center = middle + axis * (low + high) / 2
            capsules.append(Capsule(center, center, float(np.linalg.norm(points - center, axis=1).max()) + 1e-9))
        else:
            capsules.append(Capsule(middle + axis * low, middle + axis * high, radius))
    return capsules


def _middle(points: np.ndarray) -> np.ndarray:
    """Near the centre of the smallest ball around points (N, 3): step towards the furthest, ever less."""
    center = (points.min(axis=0) + points.max(axis=0)) / 2
    for step in range(1, 41):
        furthest = points[np.linalg.norm(points - center, axis=1).argmax()]
        center = center + (furthest - center) / (step + 1.0) if step > 20 else center + (furthest - center) * 0.05
    return center
