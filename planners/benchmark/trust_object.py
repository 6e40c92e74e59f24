"""Does the object matter: the same moment with the object elsewhere must look other than the noise of looking again.

Two noises are held against it: a step of holding still (all that repeats should be the same), and an ordinary step in
which the arm moves and the object does not (harder: whoever sees mostly the arm confuses the two).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from planners.benchmark.episode import SIMULATOR
from planners.benchmark.stats import Resampling, auroc, spearman
from planners.benchmark.trust_episodes import DISPLACEMENTS_CM
from planners.benchmark.trust_figures import Answer, Figure, Seen, apart, encode, figure
from planners.observation import IMAGES
from worldmodel.interface import WorldModel

OBJECT = "object"
TOLD_APART = 0.9
STILL, MOVED = "holding still", "the arm's own motion"
_AT = (1.0, 2.0, 4.0, 10.0)


def judge_object(model: WorldModel, seen: Seen, resampling: Resampling) -> Answer:
    """How far the object must be moved to be told from noise, and whether the distance to a goal grows with it."""
    owner = np.concatenate([np.full(len(held.moments), index) for index, held in enumerate(seen.episodes)])
    if not len(owner):
        return Answer([Figure(OBJECT, "object elsewhere", None, note="no untouched moment in these episodes")])
    when = np.concatenate([held.moments for held in seen.episodes])
    device = seen.latents.device
    index = torch.from_numpy(owner).to(device)
    here = seen.latents[index, torch.from_numpy(when).to(device)]
    later = seen.latents[index, torch.from_numpy(when + 1).to(device)]
    frames = {
        key: np.concatenate([held.displaced[key] for held in seen.episodes]) for key in model.required_keys
    }  # (M, D, ...)
    away = encode(model, {key: value.reshape(-1, *value.shape[2:]) for key, value in frames.items()})
    away = away.reshape(len(owner), len(DISPLACEMENTS_CM), *away.shape[1:])
    settled = encode(
        model, {key: np.concatenate([held.settled[key] for held in seen.episodes]) for key in model.required_keys}
    )
    far = apart(model, away, here)  # (M, D)
    noises = {STILL: apart(model, settled, here), MOVED: apart(model, later, here)}
    answer = Answer(curves={"cm": list(DISPLACEMENTS_CM)})
    unit = max(float(np.median(noises[MOVED])), np.finfo(np.float64).tiny)
    answer.curves["far"] = _quartiles(far / unit)
    answer.curves["noise"] = {name: float(np.median(noise)) / unit for name, noise in noises.items()}
    for name, noise in noises.items():
        _tell_apart(far, noise, name, owner, resampling, answer)
    _growth(model, seen, here, away, far, owner, when, resampling, answer)
    return answer


def _tell_apart(
    far: np.ndarray, noise: np.ndarray, name: str, owner: np.ndarray, resampling: Resampling, answer: Answer
) -> None:
    areas = [auroc(column, noise) for column in far.T]
    estimates = [resampling.estimate(lambda w, a=area: a(w[owner], w[owner])) for area in areas]
    answer.curves[f"auroc, {name}"] = [[e.value, e.low, e.high] for e in estimates]
    for distance, estimate in zip(DISPLACEMENTS_CM, estimates, strict=True):
        if distance in _AT:
            words = f"AUROC, object {distance:g} cm away against {name}"
            # Below the arm's own motion is no fault by itself; below a picture of the same is.
            held = {"against": 0.5} if name == STILL else {"better": ""}
            answer.figures.append(figure(OBJECT, words, estimate, len(owner), **held))
    words = f"told from {name} (AUROC {TOLD_APART}) from"
    values = [estimate.value for estimate in estimates]
    threshold = _from_where(values)
    note = "" if threshold is not None else f"not within {DISPLACEMENTS_CM[-1]:g} cm"
    lows, highs = (_from_where([getattr(e, end) for e in estimates]) for end in ("high", "low"))
    answer.figures.append(Figure(OBJECT, words, threshold, lows, highs, len(owner), unit=" cm", better="", note=note))


def _from_where(areas: list[float]) -> float | None:
    """The least displacement (cm) from which on all are told apart."""
    found = None
    for distance, area in zip(reversed(DISPLACEMENTS_CM), reversed(areas), strict=True):
        if area < TOLD_APART:
            break
        found = distance
    return found


def _growth(
    model: WorldModel,
    seen: Seen,
    here: torch.Tensor,
    away: torch.Tensor,
    far: np.ndarray,
    owner: np.ndarray,
    when: np.ndarray,
    resampling: Resampling,
    answer: Answer,
) -> None:
    """Rank correlation of distance and displacement, over all moments together and within each."""
    # A goal is a picture (or, for the simulator, its state): the arm's pose at the goal is not told.
    keys = [key for key in model.required_keys if key.startswith(IMAGES) or key == SIMULATOR]
    moments = list(zip(owner, when, strict=True))
    goal = encode(
        model, {key: np.stack([seen.episodes[e].observations[key][t] for e, t in moments]) for key in keys}, keys
    )
    with torch.inference_mode():
        asked = torch.cat([here[:, None], away], 1)
        steps = model.distance(asked, goal).double().cpu().numpy()
    answer.curves["distance"] = _quartiles(steps)
    still = np.zeros((len(far), 1))
    for name, values in (("feature distance", np.concatenate([still, far], 1)), ("distance to the goal", steps)):
        placed = np.broadcast_to(np.array((0.0, *DISPLACEMENTS_CM)), values.shape)
        together = spearman(placed.ravel(), values.ravel())
        whose = np.repeat(owner, values.shape[1])
        estimate = resampling.estimate(lambda w, of=together, whose=whose: of(w[whose]))
        words = f"Spearman of {name} with the displacement, all moments together"
        answer.figures.append(figure(OBJECT, words, estimate, values.size, against=0.0))
        within = np.array([_alone(spearman(a, b), len(a)) for a, b in zip(placed, values, strict=True)])
        estimate = resampling.estimate(
            lambda w, v=within: float(w[owner] @ v / w[owner].sum()) if w[owner].any() else np.nan
        )
        words = f"Spearman of {name} with the displacement, within a moment"
        answer.figures.append(figure(OBJECT, words, estimate, len(owner), against=0.0))


def _alone(correlation: Callable[[np.ndarray], float], size: int) -> float:
    return correlation(np.ones(size))


def _quartiles(values: np.ndarray) -> list[list[float]]:
    """(M, D) -> for each displacement (median, quarter, three quarters)."""
    return [[float(q) for q in np.quantile(column, (0.5, 0.25, 0.75))] for column in values.T]
