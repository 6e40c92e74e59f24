"""A landscape as one picture: a triangle of slices on one colour scale, and how steep it is in every dimension."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from planners.landscape import Landscape

_AMBER, _INK, _QUIET, _UNSOUND = "#ffa21f", "#1c1e24", "#6e7480", "#c9c9c9"
_COLOURS = "YlGnBu_r"  # dark is cheap, so that the amber mark stands out where a plan should lie
_LEVELS = 9


def unit_of(name: str) -> tuple[float, str]:
    """What to multiply an action's number by for people, and what it is then called.

    >>> unit_of("dx")
    (100.0, 'cm')
    """
    if name in ("dx", "dy", "dz"):
        return 100.0, "cm"
    if name in ("droll", "dpitch", "dyaw"):
        return 180.0 / np.pi, "deg"
    return 1.0, "closedness" if name == "dgripper" else ""


def draw(landscape: Landscape, path: str | Path, elites: np.ndarray | None = None, title: str = "") -> Path:
    """Write the picture as a PNG; it appears whole or not at all.

    Args:
        landscape: what to show.
        path: the file.
        elites: (K, A) in physical units, first actions of the best futures of the search: the elite cloud.
        title: over the picture.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    count = len(landscape.names) - 1
    columns, corner = max(count, 2), max(count // 2, 1)
    side = min(3.4, 12.0 / columns)
    with plt.rc_context({"font.size": 9, "axes.edgecolor": _QUIET, "axes.linewidth": 0.6}):
        figure = plt.figure(figsize=(side * columns + 0.6, side * count + 1.0))
        width, height = figure.get_size_inches()
        grid = figure.add_gridspec(
            count, columns, left=0.72 / width, right=1 - 0.12 / width, top=1 - 0.48 / height, bottom=0.55 / height,
            wspace=0.08, hspace=0.08,
        )  # fmt: skip
        shown = _Scale.of(landscape)
        mesh = None
        for (i, j), values in zip(landscape.pairs, landscape.values, strict=True):
            axis = figure.add_subplot(grid[j - 1, i])
            mesh = _slice(axis, landscape, (i, j), values, elites, shown)
            # Only the triangle's outer edges carry words; a slice shares its axes with its row and its column.
            axis.tick_params(labelsize=7, length=2, labelbottom=j == count, labelleft=i == 0)
            if j == count:
                axis.set_xlabel(_label(landscape.names[i]))
            if i == 0:
                axis.set_ylabel(_label(landscape.names[j]))
        # Above the triangle's diagonal there is room.
        aside = figure.add_subfigure(grid[:corner, columns - corner :])
        aside.set_facecolor("none")
        _aside(aside, landscape, mesh, shown, elites is not None)
        figure.text(0.12 / width, 1 - 0.3 / height, title, fontsize=11, fontweight="bold", color=_INK)
        unfinished = path.with_name(f".{path.stem}.unfinished.png")
        figure.savefig(unfinished, dpi=110)
        plt.close(figure)
    os.replace(unfinished, path)
    return path


class _Scale:
    """One colour scale for all slices: from the cheapest cell to the dearest."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high
        # Closer together near the floor, where it matters.
        self.levels = low + (high - low) * np.linspace(0.0, 1.0, _LEVELS + 2)[1:-1] ** 1.7 if high > low else None

    @classmethod
    def of(cls, landscape: Landscape) -> _Scale:
        costs = landscape.values[np.isfinite(landscape.values)]
        costs = np.append(costs, landscape.cost) if np.isfinite(landscape.cost) else costs
        return cls(float(costs.min()), float(costs.max())) if len(costs) else cls(0.0, 0.0)

    @property
    def norm(self) -> Any:
        """Finer near the floor, like the levels."""
        from matplotlib.colors import PowerNorm

        return PowerNorm(1 / 1.7, self.low, self.high if self.high > self.low else self.low + 1.0)


def _slice(
    axis: Any,
    landscape: Landscape,
    pair: tuple[int, int],
    values: np.ndarray,
    elites: np.ndarray | None,
    scale: _Scale,
) -> Any:
    """One heat map (G, G), its first dimension to the right; returns what a colour bar needs."""
    (i, right, _), (j, up, _) = ((k, *unit_of(landscape.names[k])) for k in pair)
    x, y, heat = right * landscape.axes[i], up * landscape.axes[j], np.ma.masked_invalid(values.T)
    axis.set_facecolor(_UNSOUND)
    mesh = axis.pcolormesh(x, y, heat, shading="nearest", cmap=_COLOURS, norm=scale.norm, rasterized=True)
    # A contour needs a level between two of the slice's own costs.
    if scale.levels is not None and heat.count() and np.any((scale.levels > heat.min()) & (scale.levels < heat.max())):
        axis.contour(x, y, heat, levels=scale.levels, colors="white", linewidths=0.6, alpha=0.75)
    axis.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    if elites is not None:
        axis.plot(right * elites[:, i], up * elites[:, j], "o", color="#fff3dc", markeredgecolor=_INK,
                  markeredgewidth=0.4, markersize=3.2)  # fmt: skip
    axis.plot(right * landscape.chosen[i], up * landscape.chosen[j], "*", color=_AMBER, markeredgecolor=_INK,
              markeredgewidth=0.7, markersize=13, clip_on=False, zorder=5)  # fmt: skip
    return mesh


def _aside(figure: Any, landscape: Landscape, mesh: Any, scale: _Scale, cloud: bool) -> None:
    """Beside the slices: the colour scale, what the marks mean, and what a tenth of each dimension costs."""
    bar = figure.add_axes((0.24, 0.86, 0.68, 0.05))
    figure.colorbar(mesh, cax=bar, orientation="horizontal")
    bar.tick_params(labelsize=8)
    bar.set_title("cost of the plan with another first action", fontsize=10, loc="left")
    bar.plot([landscape.cost], [0.5], "*", transform=bar.get_xaxis_transform(), color=_AMBER, markeredgecolor=_INK,
             markeredgewidth=0.7, markersize=13, clip_on=False)  # fmt: skip
    marks = [("*", _AMBER, 11, "chosen")] + [("o", "#fff3dc", 4, "elites of the search")] * cloud
    marks += [("s", _UNSOUND, 8, "unsound")] * bool(np.isnan(landscape.values).any())
    for mark, colour, size, words in marks:
        bar.plot([], [], mark, color=colour, markeredgecolor=_INK, markeredgewidth=0.5, markersize=size, label=words)
    bar.legend(frameon=False, fontsize=8, ncols=3, loc="upper left", bbox_to_anchor=(-0.03, -1.3), handletextpad=0.2,
               columnspacing=1.2)  # fmt: skip
    steep = figure.add_axes((0.24, 0.08, 0.68, 0.52))
    rises = np.nan_to_num(landscape.rises)
    steep.barh(range(len(rises)), rises, color=np.where(rises > 0, "#2f6f9f", "#e8c48a"), height=0.62)
    steep.axvline(0.0, color=_QUIET, linewidth=0.8)
    steep.set_yticks(range(len(rises)), [_nudge_label(landscape, k) for k in range(len(rises))])
    steep.invert_yaxis()
    steep.margins(x=0.22)
    for place, rise in enumerate(landscape.rises):
        words = f" {rise:+.2f} " if np.isfinite(rise) else " unknown "
        steep.text(rises[place], place, words, va="center", ha="left" if rises[place] >= 0 else "right", fontsize=8)
    steep.spines[["top", "right", "left"]].set_visible(False)
    steep.tick_params(labelsize=8, length=0)
    steep.set_title("what a tenth of a bound costs, to the worse side", fontsize=10, loc="left")


def _label(name: str) -> str:
    unit = unit_of(name)[1]
    return f"{name} ({unit})" if unit else name


def _nudge_label(landscape: Landscape, k: int) -> str:
    scale, unit = unit_of(landscape.names[k])
    return f"{landscape.names[k]} ±{scale * landscape.nudges[k]:.2g}{f' {unit}' if unit in ('cm', 'deg') else ''}"
