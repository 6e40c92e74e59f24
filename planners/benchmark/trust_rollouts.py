"""Does the brain know when it is wrong, and how fast does it drift: rollouts of true actions against what came of them.

Error is the feature distance between a predicted latent and the encoding of what was really seen. At a fixed horizon a
rank correlation says whether doubt tells hard futures from easy ones; over all horizons it also counts that both grow
along a future, which any counter of steps would do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from planners.benchmark.stats import Estimate, Resampling, ratio, spearman
from planners.benchmark.trust_figures import Answer, Seen, apart, figure, imagine, not_offered
from planners.observation import IMAGES
from worldmodel.interface import WorldModel

REACH = 20
FIXED = (1, 5, 10)
DRIFT_AT = (1, 5, 10, 20)
# The horizon whose errors set the scale, as the native brain is calibrated, and the share of them below it.
_SCALE_AT, _SCALE_SHARE = 5, 0.95
# Every so many starts are decoded: pictures cost more than all the rest.
_DECODED_STRIDE = 4
_BAR = 0.5
_DECILES = 10
UNCERTAINTY, DRIFT = "uncertainty", "drift"


@dataclass(frozen=True)
class Rollouts:
    """Rollouts of true actions from every start (S of them) of every episode; NaN beyond the episode's end.

    Attributes:
        error: of the prediction after h + 1 steps, (E, S, H).
        doubt: the brain's uncertainty there, or None.
        copied: error of what was seen at the start, kept.
        straight: error of going on as from the moment before the start (NaN at start 0).
        pixels, pixels_copied, pixels_own: mean absolute error (0 to 255) of the decoded prediction, of the start's
            picture kept, and of the true future's own latent decoded; or None without a decoder.
        why_no_pixels: in words.
    """

    error: np.ndarray
    doubt: np.ndarray | None
    copied: np.ndarray
    straight: np.ndarray
    pixels: np.ndarray | None
    pixels_copied: np.ndarray
    pixels_own: np.ndarray
    why_no_pixels: str = ""


def roll_out(model: WorldModel, seen: Seen) -> Rollouts:
    """Imagine every start's future with the actions that were really taken."""
    count, steps = len(seen.episodes), seen.steps
    shape = (count, steps, min(REACH, steps))
    error, doubt, copied, straight = (np.full(shape, np.nan) for _ in range(4))
    pixels, pixels_copied, pixels_own = (np.full(shape, np.nan) for _ in range(3))
    pictures, why = _pictures(model, seen)
    doubts = True
    for start in range(steps):
        reach = min(shape[2], steps - start)
        futures = imagine(model, seen.latents[:, start], seen.actions[:, None, start : start + reach])[:, 0]
        with torch.inference_mode():
            said = model.uncertainty(futures)
            doubts = doubts and said is not None
            if said is not None:
                doubt[:, start, :reach] = said.double().cpu().numpy()
        now = seen.latents[:, start]
        for h in range(reach):
            then = seen.latents[:, start + h + 1]
            error[:, start, h] = apart(model, futures[:, h], then)
            copied[:, start, h] = apart(model, now, then)
            if start > 0:
                # The one place that reckons with latents, which are opaque elsewhere: the baseline is asked for.
                further = now + (h + 1) * (now - seen.latents[:, start - 1])
                straight[:, start, h] = apart(model, further, then)
        if pictures is not None and start in _drift_starts(steps)[::_DECODED_STRIDE]:
            later = pictures[:, start + 1 : start + reach + 1]
            own = _decode(model, seen.latents[:, start + 1 : start + reach + 1])
            pixels[:, start, :reach] = _pixels(_decode(model, futures), later)
            pixels_own[:, start, :reach] = _pixels(own, later)
            pixels_copied[:, start, :reach] = _pixels(pictures[:, start, None], later)
    return Rollouts(
        error, doubt if doubts else None, copied, straight, None if pictures is None else pixels, pixels_copied,
        pixels_own, why,
    )  # fmt: skip


def _drift_starts(steps: int) -> range:
    """The starts with the whole reach after them and a moment before: the same at every horizon."""
    return range(1, steps - REACH + 1)


def _pixels(shown: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Mean absolute error of pictures (E, H, ...): (E, H)."""
    return np.abs(shown - true).mean((2, 3, 4))


def _decode(model: WorldModel, latents: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        shown = model.decode(latents)
    assert shown is not None
    return shown.cpu().numpy().astype(np.int16)


def _pictures(model: WorldModel, seen: Seen) -> tuple[np.ndarray | None, str]:
    """The true frames (E, T + 1, H, W, 3) int16 of the camera the brain decodes to, or None and why."""
    with torch.inference_mode():
        shown = model.decode(seen.latents[:1, 0])
    if shown is None:
        return None, "the model decodes nothing"
    observations = seen.episodes[0].observations
    cameras = [key for key in (*model.required_keys, *observations) if key.startswith(IMAGES)]
    frames = np.stack([held.observations[cameras[0]] for held in seen.episodes]).astype(np.int16)
    if frames.shape[2:] != tuple(shown.shape[1:]):
        return None, f"it decodes {shown.shape[1]} px pictures, the world shows {frames.shape[2]} px"
    return frames, ""


# -- does it know when it is wrong -------------------------------------------------------------------------------------


def judge_uncertainty(rollouts: Rollouts, resampling: Resampling) -> Answer:
    """Rank correlation of doubt and error, coverage of the calibrated scale, reliability by decile of doubt."""
    if rollouts.doubt is None:
        return Answer([not_offered(UNCERTAINTY, "Spearman with the error", "the model says no uncertainty")])
    error, doubt = rollouts.error, rollouts.doubt
    answer = Answer()
    for h in FIXED:
        if h <= error.shape[2]:
            one = slice(h - 1, h)
            estimate, n = _correlation(doubt[..., one], error[..., one], resampling)
            name = f"Spearman with the error, {h} step{'s' if h > 1 else ''} ahead"
            answer.figures.append(figure(UNCERTAINTY, name, estimate, n, against=_BAR, bar=True))
    estimate, n = _correlation(doubt, error, resampling)
    name = f"Spearman with the error, horizons 1 to {error.shape[2]} together"
    answer.figures.append(figure(UNCERTAINTY, name, estimate, n, against=_BAR, bar=True))
    horizons = np.broadcast_to(np.arange(1.0, error.shape[2] + 1), error.shape)
    estimate, n = _correlation(horizons, error, resampling)
    answer.figures.append(
        figure(UNCERTAINTY, "the same of a counter of steps", estimate, n, better="", note="what growth alone gives")
    )
    scale = _scale(error)
    answer.figures += _coverage(error, doubt, scale, resampling)
    answer.curves = {"scale": [float(value) for value in scale[:2]], "reliability": _reliability(error, doubt, scale)}
    return answer


def _correlation(x: np.ndarray, y: np.ndarray, resampling: Resampling) -> tuple[Estimate, int]:
    """Spearman over all pairs that exist, interval over episodes (the first axis)."""
    there = ~np.isnan(y)
    episode = np.nonzero(there)[0]
    of = spearman(x[there], y[there])
    return resampling.estimate(lambda weights: of(weights[episode])), int(there.sum())


def _scale(error: np.ndarray) -> np.ndarray:
    """The scale (E,) on which a doubt of 1 is an error of 1, for each episode from the others of the other parity.

    The interface says what 1 means, the error at the calibrated quantile of held-out data, but not how much that is: it
    is measured anew, on one half of the episodes for the other.
    """
    h = min(_SCALE_AT, error.shape[2]) - 1
    half = np.arange(len(error)) % 2
    quantiles = [float(np.nanquantile(error[half != part, :, h], _SCALE_SHARE)) for part in (0, 1)]
    return np.maximum(np.where(half == 0, quantiles[0], quantiles[1]), np.finfo(np.float64).tiny)


def _coverage(error: np.ndarray, doubt: np.ndarray, scale: np.ndarray, resampling: Resampling) -> list:
    there = ~np.isnan(error)
    scaled, below = error / scale[:, None, None], doubt <= 1.0
    held = there & (scaled <= 1.0)

    def share(of: np.ndarray, among: np.ndarray) -> tuple[Estimate, int]:
        top, bottom = (of & among).sum((1, 2)), among.sum((1, 2))
        return resampling.estimate(lambda w: ratio(w @ top, w @ bottom)), int(bottom.sum())

    rows = []
    for name, of, among in (
        ("errors within the scale where uncertainty <= 1", held, there & below),
        ("errors within the scale where uncertainty > 1", held, there & ~below),
        ("futures whose uncertainty is <= 1", below, there),
    ):
        estimate, n = share(of, among)
        rows.append(figure(UNCERTAINTY, name, _times(estimate, 100), n, unit=" %", better=""))
    told, came = np.where(there, doubt, 0.0).sum((1, 2)), np.where(there, scaled, 0.0).sum((1, 2))
    estimate = resampling.estimate(lambda w: ratio(w @ told, w @ came))
    rows.append(
        figure(UNCERTAINTY, "mean uncertainty over mean error, 1 is right", estimate, int(there.sum()), better="")
    )
    return rows


def _reliability(error: np.ndarray, doubt: np.ndarray, scale: np.ndarray) -> dict[str, list[list[float]]]:
    """By horizon: for each tenth of the futures in order of doubt (mean doubt, mean error, its 10 and 90 % quantiles)."""
    scaled = error / scale[:, None, None]
    curves = {}
    for label, part in [(str(h), slice(h - 1, h)) for h in FIXED if h <= error.shape[2]] + [("all", slice(None))]:
        there = ~np.isnan(error[..., part])
        x, y = doubt[..., part][there], scaled[..., part][there]
        tenths = np.array_split(np.argsort(x, kind="stable"), _DECILES)
        curves[label] = [
            [float(x[i].mean()), float(y[i].mean()), *(float(q) for q in np.quantile(y[i], (0.1, 0.9)))] for i in tenths
        ]
    return curves


# -- how fast does it drift --------------------------------------------------------------------------------------------


def judge_drift(rollouts: Rollouts, resampling: Resampling) -> Answer:
    """Error along the future over that of copying and of going straight on, from the same starts at every horizon."""
    starts = slice(1, rollouts.error.shape[1] - REACH + 1)
    n = len(rollouts.error) * len(range(rollouts.error.shape[1])[starts])
    error, copied, straight = (
        values[:, starts].mean(1) for values in (rollouts.error, rollouts.copied, rollouts.straight)
    )
    answer = Answer(curves={"steps": list(range(1, error.shape[1] + 1))})
    pairs = {"copying the last latent": (error, copied), "going straight on": (error, straight)}
    if rollouts.pixels is not None:
        shown, kept, own = (
            values[:, starts][:, ::_DECODED_STRIDE].mean(1)
            for values in (rollouts.pixels, rollouts.pixels_copied, rollouts.pixels_own)
        )
        pairs["copying the last picture, in pixels"] = (shown, kept)
        answer.curves |= {
            "pixels": resampling.mean_bands(shown), "pixels_copied": resampling.mean_bands(kept),
            "pixels_own": resampling.mean_bands(own),
        }  # fmt: skip
    for baseline, (ours, theirs) in pairs.items():
        for h in DRIFT_AT:
            a, b = ours[:, h - 1], theirs[:, h - 1]
            estimate = resampling.estimate(lambda w, a=a, b=b: ratio(w @ a, w @ b))
            name = f"error over that of {baseline}, {h} step{'s' if h > 1 else ''}"
            answer.figures.append(figure(DRIFT, name, estimate, n, against=1.0, better="lower"))
    if rollouts.pixels is None:
        answer.figures.append(not_offered(DRIFT, "decoded error", rollouts.why_no_pixels))
    else:
        for h in DRIFT_AT:
            estimate = resampling.estimate(lambda w, a=shown[:, h - 1]: ratio(w @ a, w.sum()))
            name = f"decoded error, {h} step{'s' if h > 1 else ''}"
            answer.figures.append(figure(DRIFT, name, estimate, n, unit=" of 255", better=""))
        estimate = resampling.estimate(lambda w: ratio(w @ own[:, 0], w.sum()))
        answer.figures.append(
            figure(
                DRIFT,
                "decoded error of what was seen",
                estimate,
                n,
                unit=" of 255",
                better="",
                note="the decoder's own",
            )
        )
    last = copied[:, -1].mean()
    unit = last if last > 0 else 1.0  # so that brains of different features share an axis
    answer.curves |= {
        "error": resampling.mean_bands(error / unit), "copied": resampling.mean_bands(copied / unit),
        "straight": resampling.mean_bands(straight / unit),
    }  # fmt: skip
    return answer


def _times(estimate: Estimate, factor: float) -> Estimate:
    return Estimate(estimate.value * factor, estimate.low * factor, estimate.high * factor)
