"""The scene probe: can this brain, looking through this camera, tell what an arm just did?

On a few recorded transitions every brain is asked which action explains what was seen. If the true one is among the
best, plans made here mean something. If all are off by one turn about the vertical, the camera stands further round
than the brain is used to, and turning its actions back mends it. If neither, planning here is guessing.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from worldmodel.interface import Observation, WorldModel
from worldmodel.turned import Turned

GO, CALIBRATE, NO_GO = "go", "calibrate", "no-go"
LEAST_TRANSITIONS = 8
# Motions shorter than this, in the horizontal, say nothing about directions.
LEAST_MOTION_M = 0.01
# The arm's displacement: what candidates differ in and what is inferred.
_MOVED = 3
_REFINEMENTS = 3
_ELITE_SHARE = 0.05
_RESAMPLES = 2000
# How often the turn is fitted anew, and what is too little to do so again.
_TURNS, _STILL_RAD = 5, math.radians(1.0)


@dataclass(frozen=True)
class Transitions:
    """N moments, what was done, and what came of it.

    Attributes:
        before, after: observations with leading axis N, in LeRobot names.
        actions: (N, A) physical, as executed.
    """

    before: Observation
    after: Observation
    actions: np.ndarray

    def __len__(self) -> int:
        return len(self.actions)


@dataclass(frozen=True)
class Thresholds:
    """What divides go, calibrate and no-go.

    Attributes:
        rank: the true action's median rank among random ones, as a share of them, 0 the best.
        cosine: between inferred and true horizontal motion, in the mean.
        angle_deg: how far inferred motion may be turned against true motion.
    """

    rank: float = 0.15
    cosine: float = 0.7
    angle_deg: float = 12.0


@dataclass(frozen=True)
class Probe:
    """What was found.

    Attributes:
        transitions: how many were asked about.
        rank, rank_turned: of the true action among random ones, median share of them with less energy: 0 the best, 0.5
            chance; as it is, and with the brain turned.
        margin: how far the true action's energy lies below the random ones' median, in units of the least energy's:
            1 as good as any, 0 no better than chance, less is worse.
        cosine, cosine_turned: mean between inferred and true horizontal motion, likewise.
        angle_deg: the turn W* from inferred to true motion, counterclockwise from above; `angle_interval_deg` 95 %.
        stretch: length of true over inferred motion, turned.
        condition: of the least-squares map between them; near 1 it is a turn and nothing else.
        error_m: mean distance between inferred and true displacement, turned.
        verdict: `go`, `calibrate` or `no-go`; `reason` a sentence.
        inferred, inferred_turned, true: (N, 3), m.
    """

    transitions: int
    rank: float
    rank_turned: float
    margin: float
    cosine: float
    cosine_turned: float
    angle_deg: float
    angle_interval_deg: tuple[float, float]
    stretch: float
    condition: float
    error_m: float
    verdict: str
    reason: str
    inferred: np.ndarray
    inferred_turned: np.ndarray
    true: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in asdict(self).items()
        }


def probe(
    model: WorldModel,
    transitions: Transitions,
    *,
    candidates: int = 256,
    seed: int = 0,
    thresholds: Thresholds | None = None,
) -> Probe:
    """Ask the brain about every transition.

    Args:
        model: its actions begin with a displacement dx, dy, dz in metres.
        transitions: at least LEAST_TRANSITIONS that move horizontally.
        candidates: random displacements that each true one competes with.
        seed: of the candidates.
        thresholds: of the verdict.

    Raises:
        ValueError: too few transitions, or an action space without a displacement.
    """
    names = model.action_space.names
    if names[:_MOVED] != ("dx", "dy", "dz"):
        raise ValueError(
            f"{model.name} acts in ({', '.join(names)}); the probe wants actions that begin with dx, dy, dz"
        )
    if transitions.actions.ndim != 2 or transitions.actions.shape[1] != len(names):
        raise ValueError(f"the transitions' actions are {transitions.actions.shape}; they should be (N, {len(names)})")
    moved = np.linalg.norm(transitions.actions[:, :2], axis=1) >= LEAST_MOTION_M
    if moved.sum() < LEAST_TRANSITIONS:
        raise ValueError(
            f"{int(moved.sum())} of {len(transitions)} transitions move the arm by {100 * LEAST_MOTION_M:g} cm or more in "
            f"the horizontal; the probe wants at least {LEAST_TRANSITIONS}: record some motion in all directions"
        )
    rows = np.flatnonzero(moved)
    moving = Transitions(
        {key: np.asarray(value)[rows] for key, value in transitions.before.items()},
        {key: np.asarray(value)[rows] for key, value in transitions.after.items()},
        transitions.actions[rows],
    )
    asked = _ask(model, moving, candidates, seed)
    true = moving.actions[:, :_MOVED].astype(np.float64)
    # The arm's pose turns with its motion: turned back a first time, the brain sees more clearly how far it is.
    angle, turned = turn_between(asked.inferred, true), asked
    for _ in range(_TURNS):
        turned = _ask(Turned(model, angle), moving, candidates, seed)
        residual = turn_between(turned.inferred, true)
        if abs(residual) < _STILL_RAD:
            break
        angle = _wrapped(angle + residual)
    return _judged(asked, turned, angle, true, seed, thresholds or Thresholds())


class _Asked(NamedTuple):
    """What a brain says of N transitions: the true action's rank and margin, and the displacement it infers (N, 3), m."""

    rank: float
    margin: float
    inferred: np.ndarray


def _ask(model: WorldModel, transitions: Transitions, candidates: int, seed: int) -> _Asked:
    unit = model.action_space.to_unit(torch.as_tensor(transitions.actions)).clamp(-1.0, 1.0).to(model.device)
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        now, then = model.encode(transitions.before), model.encode(transitions.after)

        def energy(displacements: Tensor) -> Tensor:
            """(N, S, 3) in [-1, 1] -> (N, S): how badly each explains what was seen next."""
            actions = unit[:, None].repeat(1, displacements.shape[1], 1)
            actions[..., :_MOVED] = displacements
            return model.feature_distance(model.predict(now, actions[:, :, None])[:, :, 0], then).float()

        drawn = (2 * torch.rand(1, candidates, _MOVED, generator=generator) - 1).to(model.device)
        others = drawn.expand(len(unit), -1, -1)
        at_others, at_true = energy(others), energy(unit[:, None, :_MOVED])[:, 0]
        inferred = _least(energy, others, at_others, generator)
        least = torch.minimum(energy(inferred[:, None])[:, 0], at_true)
    middle = at_others.median(1).values
    actions = unit.clone()
    actions[:, :_MOVED] = inferred
    return _Asked(
        rank=float((at_others < at_true[:, None]).float().mean(1).median()),
        margin=float(((middle - at_true) / (middle - least).clamp(min=1e-9)).median()),
        inferred=model.action_space.to_physical(actions)[:, :_MOVED].double().cpu().numpy(),
    )


def _least(energy: Any, population: Tensor, energies: Tensor, generator: torch.Generator) -> Tensor:
    """(N, 3): where the energy is least, by a few refinements around the best of a population (N, S, 3)."""
    keep = max(2, int(_ELITE_SHARE * population.shape[1]))
    mean = population[:, 0]
    for _ in range(_REFINEMENTS):
        best = energies.topk(keep, largest=False).indices
        elites = population.gather(1, best[..., None].expand(-1, -1, population.shape[-1]))
        mean, spread = elites.mean(1), elites.std(1).clamp(min=0.02)
        noise = torch.randn(1, population.shape[1] // 2, population.shape[-1], generator=generator).to(mean.device)
        population = (mean[:, None] + spread[:, None] * noise).clamp(-1.0, 1.0)
        energies = energy(population)
    best = energies.topk(keep, largest=False).indices
    return population.gather(1, best[..., None].expand(-1, -1, population.shape[-1])).mean(1)


def turn_between(inferred: np.ndarray, true: np.ndarray) -> float:
    """The angle (rad) of the rotation that brings horizontal motions (N, 2 or more) nearest to others."""
    dot = float((inferred[:, :2] * true[:, :2]).sum())
    cross = float((inferred[:, 0] * true[:, 1] - inferred[:, 1] * true[:, 0]).sum())
    return math.atan2(cross, dot)


def _judged(asked: _Asked, turned: _Asked, angle: float, true: np.ndarray, seed: int, limits: Thresholds) -> Probe:
    rng = np.random.default_rng(seed)
    again = rng.integers(len(true), size=(_RESAMPLES, len(true)))
    # How uncertain the angle is: what is left of it, over transitions drawn again.
    spread = [turn_between(turned.inferred[rows], true[rows]) for rows in again]
    low, high = (math.degrees(angle + float(np.quantile(spread, q))) for q in (0.025, 0.975))
    weights, *_ = np.linalg.lstsq(asked.inferred[:, :2], true[:, :2], rcond=None)
    values = np.linalg.svd(weights, compute_uv=False)
    flat = turned.inferred[:, :2]
    cosine, cosine_turned = _cosine(asked.inferred, true), _cosine(turned.inferred, true)
    degrees = math.degrees(angle)
    verdict, reason = _verdict(turned.rank, cosine, cosine_turned, degrees, (low, high), limits)
    return Probe(
        transitions=len(true), rank=asked.rank, rank_turned=turned.rank, margin=asked.margin, cosine=cosine,
        cosine_turned=cosine_turned, angle_deg=degrees, angle_interval_deg=(low, high),
        stretch=float((flat * true[:, :2]).sum() / max(float((flat * flat).sum()), 1e-12)),
        condition=float(values[0] / max(float(values[-1]), 1e-9)),
        error_m=float(np.linalg.norm(turned.inferred - true, axis=1).mean()),
        verdict=verdict, reason=reason, inferred=asked.inferred, inferred_turned=turned.inferred, true=true,
    )  # fmt: skip


def _verdict(
    rank: float, cosine: float, cosine_turned: float, angle: float, interval: tuple[float, float], limits: Thresholds
) -> tuple[str, str]:
    if cosine_turned < limits.cosine:
        return NO_GO, (
            f"inferred and true motion agree badly (cosine {cosine:.2f}, {cosine_turned:.2f} at the best turn; "
            f"{limits.cosine:g} is wanted): the brain does not understand this view. Bring camera, light and crop nearer "
            "to what it was trained on, or adapt it to recordings from here"
        )
    if abs(angle) > limits.angle_deg:
        return CALIBRATE, (
            f"the brain sees motion turned by {angle:.0f} degrees ({interval[0]:.0f} to {interval[1]:.0f}); turned back "
            f"its cosine is {cosine_turned:.2f} instead of {cosine:.2f}"
        )
    if rank > limits.rank:
        return NO_GO, (
            f"the true action ranks behind {100 * rank:.0f} % of random ones ({100 * limits.rank:g} % at most is wanted): "
            "directions are right, distances are not. Adapt the brain to recordings from here"
        )
    return GO, (
        f"the true action ranks in the best {100 * max(rank, 0.01):.0f} % of random ones, and motion is seen where it is "
        f"(cosine {cosine:.2f}, turned by {angle:+.0f} degrees)"
    )


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over horizontal motions (N, 2 or more)."""
    a, b = a[:, :2], b[:, :2]
    length = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(1) / np.maximum(length, 1e-9)).mean())


def _wrapped(angle: float) -> float:
    return (angle + math.pi) % (2 * math.pi) - math.pi
