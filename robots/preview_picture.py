"""A plan as one picture, for those without a viewer: from three sides, its curves, its margins, the verdict."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robots.limits import Limits
from robots.preview import Checked, Course, Shape, colour_of

# So many lines of words fit beside the curves; the recording has them all.
MOST_LINES = 18


def write_png(path: Path, check: Checked, course: Course, limits: Limits, shape: Shape, told: Sequence[str]) -> Path:
    """The plan from above, from the side and from the front, its curves, its margins."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 9.5), dpi=100, facecolor="#fbfbf9", layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(3, 3, height_ratios=[5, 3, 3])
    edges = shape.ends(course.joints[[0, -1]], np.asarray(check.gripper)[[0, -1]])
    for column, (across, up, name) in enumerate(
        ((0, 1, "from above"), (0, 2, "from the side"), (1, 2, "from the front"))
    ):
        _draw_view(figure.add_subplot(grid[0, column]), course, limits, shape, edges, (across, up), name)
    for place, (name, share) in zip(((1, 0), (1, 1), (2, 0), (2, 1)), course.shares.items(), strict=True):
        _draw_shares(
            figure.add_subplot(grid[place]), course, share, name, limits.joint_names, legend=name == "position"
        )
    panel = figure.add_subplot(grid[1:, 2])
    panel.axis("off")
    colour = "#14806e" if check.ok else "#c44040"
    panel.text(0.0, 1.0, _folded([told[0]], 52), va="top", fontsize=13, color=colour, weight="bold")
    below = 0.92 - 0.05 * _folded([told[0]], 52).count("\n")
    more = len(told) - 1 - MOST_LINES
    shown = [*told[1 : MOST_LINES + 1], *([f"... and {more} more in preview.rrd"] if more > 0 else [])]
    panel.text(0.0, below, _folded(shown, 62), va="top", fontsize=9.5, color="#1c1e24", linespacing=1.45)
    unfinished = path.with_name(f".{path.stem}.unfinished.png")
    figure.savefig(unfinished)
    os.replace(unfinished, path)
    return path


def _draw_view(
    axes: Any, course: Course, limits: Limits, shape: Shape, edges: np.ndarray, which: tuple[int, int], name: str
) -> None:
    across, up = which
    low, high = limits.workspace_low, limits.workspace_high
    box = [(low[across], low[up]), (high[across], low[up]), (high[across], high[up]), (low[across], high[up])]
    axes.fill(*zip(*box, strict=True), facecolor="#8c929e22", edgecolor="#8c929e", linewidth=1.2)
    for ends, colour, label in ((edges[0], "#26c6b0", "arm now"), (edges[1], "#ffb02e", "arm at the end")):
        for number, (pair, radius) in enumerate(zip(ends, shape.radii, strict=True)):
            outline = _stadium(pair[:, [across, up]], float(radius))
            axes.fill(*outline.T, facecolor=colour, alpha=0.22, linewidth=0, label=label if not number else None)
            axes.plot(*outline.T, color=colour, linewidth=0.5, alpha=0.8)
    axes.set_aspect("equal", adjustable="datalim")
    axes.plot(course.tool[:, across], course.tool[:, up], color="#b06f00", linewidth=1.6, label="tool", zorder=3)
    axes.plot(course.stops[:, across], course.stops[:, up], "o", color="#b06f00", markersize=3.5, zorder=3)
    axes.plot(*course.tool[0, [across, up]], "o", color="#0d7f70", markersize=6, zorder=4)
    axes.set_title(name, fontsize=10)
    axes.set_xlabel(f"{'xyz'[across]} (m)", fontsize=8)
    axes.set_ylabel(f"{'xyz'[up]} (m)", fontsize=8)
    axes.tick_params(labelsize=7)
    if which == (0, 1):
        axes.legend(fontsize=7, loc="upper left")


def _draw_shares(
    axes: Any, course: Course, share: np.ndarray, name: str, joint_names: Sequence[str], *, legend: bool
) -> None:
    for index, joint in enumerate(joint_names):
        colour = [value / 255 for value in colour_of(index, len(joint_names))]
        axes.plot(course.time_s, 100 * share[:, index], linewidth=1.0, color=colour, label=joint)
    axes.axhline(100.0, color="#c44040", linewidth=1.5)
    axes.set_ylim(0.0, max(110.0, 105.0 * float(share.max())))
    axes.set_xlim(course.time_s[0], course.time_s[-1])
    what = "of the way to its margin" if name == "position" else "of what is allowed"
    axes.set_title(f"{name}, % {what}; at most {100 * share.max():.0f}", fontsize=9)
    axes.set_xlabel("s", fontsize=8)
    axes.tick_params(labelsize=7)
    if legend:
        axes.legend(fontsize=6, ncols=2, loc="upper right")


def _stadium(ends: np.ndarray, radius: float) -> np.ndarray:
    """The outline (n, 2) of a capsule seen from the front, its axis (2, 2) in the picture's plane."""
    along = ends[1] - ends[0]
    angle = math.atan2(along[1], along[0])
    half = np.linspace(-math.pi / 2, math.pi / 2, 16)
    caps = [
        centre + radius * np.stack([np.cos(turn + half), np.sin(turn + half)], 1)
        for centre, turn in ((ends[1], angle), (ends[0], angle + math.pi))
    ]
    outline = np.concatenate(caps)
    return np.concatenate([outline, outline[:1]])


def _folded(lines: Sequence[str], width: int) -> str:
    return "\n".join(part for line in lines for part in textwrap.wrap(line, width, subsequent_indent="   "))
