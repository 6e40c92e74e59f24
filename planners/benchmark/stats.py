"""How sure one can be of a rate, a rank correlation or a difference, and what a typical and a bad case cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Z_95 = 1.959963984540054


def wilson(successes: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """The Wilson score interval of a proportion: (low, high) in [0, 1]; 95 % by default.

    >>> tuple(round(bound, 4) for bound in wilson(8, 10))
    (0.4902, 0.9433)
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes of {trials} trials cannot be")
    if trials == 0:
        return 0.0, 1.0
    rate = successes / trials
    scale = 1.0 + z * z / trials
    centre = (rate + z * z / (2 * trials)) / scale
    half = z / scale * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    # At the ends of the scale the interval is closed, whatever rounding says.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return low, high


def median(values: Sequence[float]) -> float:
    """The middle; 0 of nothing."""
    return float(np.median(values)) if len(values) else 0.0


def percentile_99(values: Sequence[float]) -> float:
    """What one in a hundred exceeds; 0 of nothing."""
    return float(np.percentile(values, 99)) if len(values) else 0.0


# -- figures over episodes ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


class Resampling:
    """The bootstrap over episodes: steps of one episode are alike, so that whole episodes are drawn, not steps.

    Args:
        episodes: how many there are, at least 2.
        resamples: how many times as many are drawn from them with repetition.
        seed: of the draws.
    """

    def __init__(self, episodes: int, resamples: int = 1000, seed: int = 0) -> None:
        if episodes < 2:
            raise ValueError(f"{episodes} episodes; an interval over episodes needs at least 2")
        shares = np.full(episodes, 1.0 / episodes)
        self.weights = np.random.default_rng(seed).multinomial(episodes, shares, size=resamples).astype(np.float64)

    def estimate(self, statistic: Callable[[np.ndarray], float]) -> Estimate:
        """A statistic of the episodes' weights (E,): of all once, and what it varies by when they are drawn anew.

        A draw that has nothing to measure (NaN) is left out.

        >>> Resampling(3).estimate(lambda weights: float(weights @ [2.0, 2.0, 2.0] / weights.sum())).high
        2.0
        """
        value = float(statistic(np.ones(self.weights.shape[1])))
        drawn = np.array([statistic(weights) for weights in self.weights])
        drawn = drawn[~np.isnan(drawn)]
        if not len(drawn):
            return Estimate(value, value, value)
        low, high = np.quantile(drawn, (0.025, 0.975), method="nearest")
        return Estimate(value, float(low), float(high))

    def mean_bands(self, values: np.ndarray) -> list[list[float]]:
        """Of each column of (E, H): the episodes' mean and the ends of its interval."""
        drawn = self.weights @ values / self.weights.sum(1, keepdims=True)
        low, high = np.quantile(drawn, (0.025, 0.975), axis=0, method="nearest")
        return np.stack([values.mean(0), low, high], 1).tolist()


def spearman(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], float]:
    """Rank correlation of x and y (N,) as a function of the pairs' weights (N,); equal values share their mean rank.

    Where one of the two never changes there is nothing to rank, and the answer is 0.

    >>> spearman(np.array([1.0, 2, 3]), np.array([10.0, 100, 1000]))(np.ones(3))
    1.0
    """
    (x_places, x_groups), (y_places, y_groups) = _grouped(x), _grouped(y)

    def correlation(weights: np.ndarray) -> float:
        total = weights.sum()
        if total == 0:
            return math.nan
        a, b = _ranks(x_places, x_groups, weights), _ranks(y_places, y_groups, weights)
        a, b = a - weights @ a / total, b - weights @ b / total
        spread = math.sqrt(float(weights @ a**2) * float(weights @ b**2))
        return float(np.clip(weights @ (a * b) / spread, -1.0, 1.0)) if spread > 1e-9 * total else 0.0

    return correlation


def auroc(cases: np.ndarray, controls: np.ndarray) -> Callable[[np.ndarray, np.ndarray], float]:
    """How often a case's score exceeds a control's (a tie counts half), as a function of both sides' weights.

    >>> auroc(np.array([2.0, 3.0]), np.array([1.0, 2.0]))(np.ones(2), np.ones(2))
    0.875
    """
    places, groups = _grouped(np.concatenate([cases, controls]))
    of_cases, of_controls = places[: len(cases)], places[len(cases) :]

    def area(weights: np.ndarray, control_weights: np.ndarray) -> float:
        pairs = weights.sum() * control_weights.sum()
        if pairs == 0:
            return math.nan
        there = np.bincount(of_controls, control_weights, groups)
        below = np.cumsum(there) - 0.5 * there
        return float(weights @ below[of_cases] / pairs)

    return area


def ratio(top: float, bottom: float) -> float:
    """A weighted sum over another; NaN of nothing.

    >>> ratio(1.0, 4.0)
    0.25
    """
    return float(top / bottom) if bottom else math.nan


def _grouped(values: np.ndarray) -> tuple[np.ndarray, int]:
    """The place (N,) of each value among the different ones in order, and how many those are."""
    if np.isnan(values).any():
        raise ValueError("what is not a number has no rank")
    different, places = np.unique(values, return_inverse=True)
    return places, len(different)


def _ranks(places: np.ndarray, groups: int, weights: np.ndarray) -> np.ndarray:
    """Mean ranks (N,) when value n is there weights[n] times."""
    there = np.bincount(places, weights, groups)
    return (np.cumsum(there) - 0.5 * there)[places]
