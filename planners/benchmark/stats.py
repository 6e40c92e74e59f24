"""How sure one can be of a rate, and what a typical and a bad case cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

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
