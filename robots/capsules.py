"""Capsules that cover what a link is made of: a few round, fat pieces in which every corner of its shape lies.

A capsule (all points within a radius of a line) is the shape whose distances are exact and cheap. A long or bent link
is cut into slabs along its length, each with a capsule of its own, where that makes the whole markedly leaner.
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
# One more piece must save this share of the volume to be worth its comparisons.
WORTH = 0.2
# A radius a little above the least that holds the points may let the ends be shorter.
FATTER = (1.0, 1.02, 1.05, 1.1, 1.2, 1.35)
TILTS = 16
RING = 16


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


def cover(points: np.ndarray, edges: np.ndarray) -> list[Capsule]:
    """Capsules that hold a shape of corners (N, 3) and edges (E, 2); as few as make a lean cover."""
    main = _directions(points)[0]
    best = [_around(points)]
    for pieces in range(2, MOST_PIECES + 1):
        cut = [_around(slab) for slab in _slabs(points, edges, main, pieces)]
        if sum(c.volume for c in cut) < (1 - WORTH) * sum(c.volume for c in best):
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
        edges = np.unique(
            np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1), axis=0
        )
    elif kind in (mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_ELLIPSOID):
        points = np.array(list(itertools.product((-1.0, 1.0), repeat=3))) * size
        edges = np.array(list(itertools.combinations(range(8), 2)))
    elif kind == mujoco.mjtGeom.mjGEOM_CYLINDER:
        angles = np.arange(RING) * 2 * math.pi / RING
        ring = np.stack([np.cos(angles), np.sin(angles)], axis=1) * size[0] / math.cos(math.pi / RING)
        points = np.concatenate([np.c_[ring, np.full(RING, z)] for z in (-size[1], size[1])])
        edges = np.array(list(itertools.combinations(range(2 * RING), 2)))
    else:
        raise ValueError(
            f"a link has a shape of type {kind.name}; capsules cover meshes, boxes, cylinders and the like"
        )
    return cover(points @ turn.T + origin, edges)


def _slabs(points: np.ndarray, edges: np.ndarray, axis: np.ndarray, pieces: int) -> list[np.ndarray]:
    """The corners of a shape cut into slabs of equal thickness across an axis; cuts have corners of their own."""
    height = points @ axis
    cuts = np.linspace(height.min(), height.max(), pieces + 1)[1:-1]
    bounds = [-math.inf, *cuts, math.inf]
    first, second = height[edges[:, 0]], height[edges[:, 1]]
    crossings = []
    for cut in cuts:
        across = (first - cut) * (second - cut) < 0
        share = ((cut - first[across]) / (second[across] - first[across]))[:, None]
        crossings.append(points[edges[across, 0]] * (1 - share) + points[edges[across, 1]] * share)
    slabs = []
    for index, (low, high) in enumerate(itertools.pairwise(bounds)):
        inside = points[(height >= low) & (height <= high)]
        slabs.append(np.concatenate([inside, *crossings[max(0, index - 1) : index + 1]]))
    return slabs


def _directions(points: np.ndarray) -> np.ndarray:
    """Axes (K, 3) worth trying, the longest extent first."""
    _, _, principal = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    tilts = np.random.default_rng(0).normal(size=(TILTS, 3))
    return np.concatenate([principal, np.eye(3), tilts / np.linalg.norm(tilts, axis=1, keepdims=True)])


def _around(points: np.ndarray) -> Capsule:
    """The leanest capsule found around points (N, 3)."""
    found = [capsule for axis in _directions(points) for capsule in _along(points, axis)]
    return min(found, key=lambda capsule: capsule.volume)


def _along(points: np.ndarray, axis: np.ndarray) -> list[Capsule]:
    """Capsules around points whose segment has a given direction."""
    flat = points - np.outer(points @ axis, axis)
    middle = _middle(flat)
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
    for step in range(1, 60):
        furthest = points[np.linalg.norm(points - center, axis=1).argmax()]
        center = center + (furthest - center) / (step + 1.0) if step > 20 else center + (furthest - center) * 0.05
    return center
