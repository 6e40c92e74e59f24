"""Pictures of a model's judgement: reliability, drift, surprise, actions, object; one PNG a question."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from planners.benchmark.trust_actions import ACTIONS
from planners.benchmark.trust_events import EVENTS, SURPRISE
from planners.benchmark.trust_object import MOVED, OBJECT, STILL, TOLD_APART
from planners.benchmark.trust_rollouts import DRIFT, UNCERTAINTY

Curves = Mapping[str, Any]
_OURS, _OTHER, _THIRD, _QUIET = "#1f6f8b", "#c4553b", "#8a8f98", "#b9bec6"


def draw(curves: Mapping[str, Curves], folder: Path, label: str, title: str) -> list[Path]:
    """`<label>-<question>.png` for every question that has curves.

    Args:
        curves: of each question, as the judges give them.
        folder: where the pictures go.
        label: of the files.
        title: over each picture.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plots = {
        UNCERTAINTY: ("reliability", _reliability), DRIFT: ("steps", _drift), SURPRISE: ("ordinary", _surprise),
        ACTIONS: ("names", _actions), OBJECT: ("far", _object),
    }  # fmt: skip
    written = []
    for question, (needed, plot) in plots.items():
        if needed not in curves[question]:
            continue
        with plt.rc_context({"axes.spines.top": False, "axes.spines.right": False, "font.size": 10}):
            figure = plot(curves[question])
            figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
            figure.tight_layout()
            path = folder / f"{label}-{question}.png"
            unfinished = path.with_name(f".{path.stem}.unfinished.png")
            figure.savefig(unfinished, dpi=110)
            plt.close(figure)
        os.replace(unfinished, path)
        written.append(path)
    return written


def _panels(count: int, width: float = 4.4, height: float = 4.0) -> tuple[Any, Any]:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, count, figsize=(width * count, height), squeeze=False)
    return figure, axes[0]


def _line(axis: Any, x: Sequence[float], band: Sequence[Sequence[float]], colour: str, label: str) -> None:
    """A line (value, low, high) with its band."""
    value, low, high = np.array(band, dtype=np.float64).T
    axis.plot(x, value, color=colour, label=label, marker="o", markersize=3)
    axis.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)


def _reliability(curves: Curves) -> Any:
    figure, axes = _panels(len(curves["reliability"]), 3.6, 3.9)
    for axis, (horizon, tenths) in zip(axes, curves["reliability"].items(), strict=True):
        doubt, error, low, high = np.maximum(np.array(tenths).T, 1e-6)
        axis.plot([1e-6, 1e3], [1e-6, 1e3], color=_QUIET, linestyle="--", linewidth=1, label="as foretold")
        axis.vlines(doubt, low, high, color=_OURS, alpha=0.3, linewidth=4, label="10 to 90 % of the errors")
        axis.plot(doubt, error, color=_OURS, marker="o", markersize=4, label="mean error")
        span = [min(doubt.min(), low.min()) / 1.5, max(doubt.max(), high.max()) * 1.5]
        axis.set(xscale="log", yscale="log", xlim=span, ylim=span, xlabel="uncertainty, tenths of the futures")
        steps = "step" if horizon == "1" else "steps"
        axis.set_title("all horizons" if horizon == "all" else f"{horizon} {steps} ahead", fontsize=10)
    axes[0].set_ylabel("error, in units of the scale")
    axes[0].legend(frameon=False, fontsize=8, loc="upper left")
    return figure


def _drift(curves: Curves) -> Any:
    figure, axes = _panels(2 if "pixels" in curves else 1, 5.6)
    steps = curves["steps"]
    _line(axes[0], steps, curves["error"], _OURS, "model")
    _line(axes[0], steps, curves["copied"], _OTHER, "copying the last")
    _line(axes[0], steps, curves["straight"], _THIRD, "going straight on")
    axes[0].set(yscale="log", xlabel="steps ahead", ylabel="latent error (copying, at the last step = 1)")
    if "pixels" in curves:
        _line(axes[1], steps, curves["pixels"], _OURS, "model, decoded")
        _line(axes[1], steps, curves["pixels_copied"], _OTHER, "copying the last picture")
        _line(axes[1], steps, curves["pixels_own"], _THIRD, "what was seen, decoded")
        axes[1].set(xlabel="steps ahead", ylabel="mean absolute pixel error (of 255)")
        axes[1].set_ylim(bottom=0)
    for axis in axes:
        axis.set_xticks([1, *range(5, len(steps) + 1, 5)])
        axis.legend(frameon=False, fontsize=9)
    return figure


def _surprise(curves: Curves) -> Any:
    kinds = curves["kinds"]
    figure, axes = _panels(len(kinds), 4.6, 3.8)
    rows = {"ordinary steps": curves["ordinary"]} | {
        words: curves[event] for event, words in EVENTS.items() if event in curves
    }
    for axis, kind in zip(axes, kinds, strict=True):
        usual = np.quantile(np.maximum(curves["ordinary"][kind], 1e-9), 0.95)
        axis.axvline(usual, color=_QUIET, linestyle="--", linewidth=1)
        for place, surprises in enumerate(rows.values()):
            # A picture that stands still did not change at all: error over change has no end, the axis has.
            values = np.clip(surprises[kind], 1e-4, 1e3)
            low, quarter, middle, three, high = np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95))
            colour = _THIRD if place == 0 else _OTHER
            axis.hlines(place, low, high, color=colour, linewidth=2, alpha=0.6)
            axis.hlines(place, quarter, three, color=colour, linewidth=8, alpha=0.6)
            axis.plot(middle, place, "o", color=colour, markersize=5)
        axis.set_yticks(range(len(rows)), list(rows) if axis is axes[0] else [""] * len(rows))
        axis.invert_yaxis()
        axis.set(xscale="log", xlabel=kind)
    axes[0].set_title("5, 25, 50, 75, 95 %; dashed: 95 % of ordinary steps lie left of it", fontsize=8, loc="left")
    return figure


def _actions(curves: Curves) -> Any:
    figure, axes = _panels(2, 5.4, 3.8)
    panels = (
        (axes[0], curves["turned"], 50.0, "true actions nearer than with this one turned round (%)"),
        (axes[1], curves["inferred"], 0.0, "correlation of inferred and true action, one step"),
    )
    for axis, rows, chance, words in panels:
        axis.axhline(chance, color=_QUIET, linestyle="--", linewidth=1)
        for place, (value, low, high) in enumerate(rows):
            if value is not None:
                axis.vlines(place, low, high, color=_OURS, linewidth=3, alpha=0.5)
                axis.plot(place, value, "o", color=_OURS)
        axis.set_xticks(range(len(rows)), curves["names"], rotation=30, fontsize=9)
        axis.set_title(words, fontsize=10, loc="left")
    axes[0].set_ylim(0, 105)
    axes[1].set_ylim(-1.05, 1.05)
    return figure


def _object(curves: Curves) -> Any:
    figure, axes = _panels(3, 4.6)
    cm = curves["cm"]
    _line(axes[0], cm, curves["far"], _OURS, "object elsewhere (median, quartiles)")
    for colour, (name, level) in zip((_THIRD, _OTHER), curves["noise"].items(), strict=True):
        axes[0].axhline(level, color=colour, linestyle="--", linewidth=1.2, label=f"{name} (median)")
    axes[0].set(yscale="log", xlabel="object moved by (cm)", ylabel="feature distance (arm's own motion = 1)")
    for colour, name in ((_THIRD, STILL), (_OTHER, MOVED)):
        _line(axes[1], cm, curves[f"auroc, {name}"], colour, f"against {name}")
    axes[1].axhline(TOLD_APART, color=_QUIET, linestyle="--", linewidth=1)
    axes[1].set(xlabel="object moved by (cm)", ylabel="AUROC", ylim=(-0.03, 1.03))
    _line(axes[2], [0.0, *cm], curves["distance"], _OURS, "median, quartiles")
    axes[2].set(xlabel="object moved by (cm)", ylabel="model's distance to the picture before")
    for axis in axes:
        axis.legend(frameon=False, fontsize=8)
    return figure
