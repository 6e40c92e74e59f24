"""What searches came to, for people: paired differences, a table, a page and a picture for each kind of problem."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from planners.benchmark.report import write_whole
from planners.benchmark.stats import Resampling, median, percentile_99
from planners.benchmark.tables import Column, Table

# What our others are compared with, problem by problem.
BASELINE = "cem"
_OURS = ("#1f6f8b", "#c4553b", "#7a5195", "#5b8c3a", "#8a8f98", "#d18f2a")
_PEERS = (
    "#444444", "#b08bbb", "#7fb6c9", "#e09a86", "#9cc184", "#e3bd78", "#777777", "#c7a0a0", "#6f8fb0", "#a8a857", "#d98cb3",
)  # fmt: skip
_MARKERS = "sD^vP<X>h*p"
_COLUMNS = ("planner", "futures", "cost over rest (95 %)", f"minus {BASELINE}'s, paired", "ms (p99)")
_COLUMNS_WITH_PEERS = (*_COLUMNS[:3], "minus best peer's, paired", "ms", "max |a|")


def figures(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each search of one kind of problem came to.

    The cost over that of doing nothing, and what it is less than plain CEM's, problem by problem; where there are peers,
    also less than the best of them at that budget, which is the one with the lowest mean on these very problems.
    """
    shares = [np.array(row["costs"]) / np.array(row["rest"]) for row in rows]
    plain = {row["futures"]: share for row, share in zip(rows, shares, strict=True) if row["planner"] == BASELINE}
    best: dict[int, tuple[str, np.ndarray]] = {}
    for row, share in zip(rows, shares, strict=True):
        if "peer" in row and (row["futures"] not in best or share.mean() < best[row["futures"]][1].mean()):
            best[row["futures"]] = row["planner"], share
    out = []
    for row, share in zip(rows, shares, strict=True):
        resampling = Resampling(len(share))

        def mean(of: np.ndarray, resampling: Resampling = resampling) -> dict[str, float]:
            return asdict(resampling.estimate(lambda w: float(w @ of / w.sum())))

        one = {
            **{key: row[key] for key in ("problems", "planner", "futures", "imagined")},
            "cost_over_rest": mean(share),
            "cost": float(np.mean(row["costs"])),
            "ms_median": median(row["ms"]),
            "ms_p99": percentile_99(row["ms"]),
            **{key: row[key] for key in ("peer", "unsound", "largest_action") if key in row},
        }
        base = plain.get(row["futures"])
        if base is not None and row["planner"] != BASELINE:
            one[f"minus_{BASELINE}"] = mean(share - base)
        if row["futures"] in best:
            name, of_best = best[row["futures"]]
            one["best_peer"] = name
            if "peer" not in row:
                one["minus_best_peer"] = mean(share - of_best)
        out.append(one)
    return out


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The rows of one kind of problem."""
    return _table(f"{len(rows[0]['costs'])} problems of kind {rows[0]['problems']}", figures(rows))


def write(folder: Path, rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> list[Path]:
    """`planners.json`, `planners.md` and a picture for every kind of problem."""
    kinds = list(dict.fromkeys(row["problems"] for row in rows))
    by_kind = {kind: [row for row in rows if row["problems"] == kind] for kind in kinds}
    of_kind = {kind: figures(by_kind[kind]) for kind in kinds}
    written = [folder / "planners.json", folder / "planners.md"]
    record = {**about, "figures": [one for kind in kinds for one in of_kind[kind]]}
    write_whole(written[0], (json.dumps(record, indent=1, default=str) + "\n").encode())
    page = [
        "# The search alone",
        f"{about['count']} problems of each kind from seed {about['seed']}, one at a time. Cost of the plan that came back, "
        "judged in float32, over that of doing nothing; mean and 95 % interval over problems (bootstrap). A gradient counts "
        "as two futures.",
        f"```bash\n{about['command']}\n```",
    ]
    for kind in kinds:
        page += [f"## {kind}", _table(kind, of_kind[kind]).markdown()]
        page += [f"![cost](planners-{kind}.png)", *_peers_said(of_kind[kind])]
        written.append(_draw(of_kind[kind], folder / f"planners-{kind}.png"))
    write_whole(written[1], ("\n\n".join(page) + "\n").encode())
    return written


def _table(title: str, found: Sequence[Mapping[str, Any]]) -> Table:
    """The figures of searches, a row each."""
    with_peers = any("peer" in one for one in found)
    lines = []
    for one in found:
        line = [one["planner"], f"{one['imagined']:.0f}", _said(one["cost_over_rest"])]
        apart = one.get("minus_best_peer" if with_peers else f"minus_{BASELINE}")
        is_best = with_peers and one["planner"] == one.get("best_peer")
        line.append(_said(apart) if apart else "best peer" if is_best else "")
        line.append(f"{one['ms_median']:.0f}" if with_peers else f"{one['ms_median']:.0f} ({one['ms_p99']:.0f})")
        if with_peers:
            line.append(f"{one['largest_action']:.2f}" if "largest_action" in one else "")
        lines.append(tuple(line))
    heads = _COLUMNS_WITH_PEERS if with_peers else _COLUMNS
    # The widest line fits 80 columns; the largest action is on the page.
    columns = [
        Column(head, "left" if number == 0 else "right", "whole", drawn=number < len(_COLUMNS))
        for number, head in enumerate(heads)
    ]
    return Table(title, columns, lines)


def _said(estimate: Mapping[str, float]) -> str:
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def _peers_said(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader should know of other people's planners: how they were set, what was made of their plans."""
    peers = {one["planner"]: one["peer"] for one in found if "peer" in one}
    if not peers:
        return []
    never = [name for name, peer in peers.items() if not peer["tuned"]]
    most = max(one["futures"] for one in found)
    ranked = sorted((one["cost_over_rest"]["value"], one["planner"]) for one in found if one["futures"] == most)
    lines = [
        f"At {most} futures, the lowest first: {', '.join(f'{name} {value:.3f}' for value, name in ranked)}.",
        "The best peer is the one with the lowest mean at that budget on these very problems. Plans are clipped to [-1, 1] "
        "before they are judged; max |a| is the largest number before.",
    ]
    if never:
        lines.append(f"Not tuned, but at the first of their settings: {', '.join(never)}.")
    if lost := {one["planner"]: one["unsound"] for one in found if one.get("unsound")}:
        said = ", ".join(f"{name} {count}" for name, count in lost.items())
        lines.append(f"Plans with NaN or infinity, judged as doing nothing (at the last budget with any): {said}.")
    heads = ["| peer | library | settings | |", "| --- | --- | --- | --- |"]
    rows = [
        f"| {name} | {peer['library']} {peer['version']} | "
        f"{', '.join(f'{key} {value}' for key, value in peer['settings'].items())} | {peer.get('note', '')} |"
        for name, peer in peers.items()
    ]
    return [*lines, "\n".join([*heads, *rows])]


def _draw(found: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Cost against futures and against milliseconds, a line for each planner: ours solid, other people's dashed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter

    is_peer = {one["planner"]: "peer" in one for one in found}
    ours = zip((name for name in is_peer if not is_peer[name]), itertools.cycle(_OURS))
    peers = zip((name for name in is_peer if is_peer[name]), itertools.cycle(_PEERS), itertools.cycle(_MARKERS))
    looks = {name: {"color": colour, "marker": "o", "markersize": 4} for name, colour in ours}
    for name, colour, marker in peers:
        dashed = {"linestyle": "--", "linewidth": 1.1, "markerfacecolor": "white"}
        looks[name] = {"color": colour, "marker": marker, "markersize": 4, **dashed}
    beside = any(is_peer.values())
    with plt.rc_context({"axes.spines.top": False, "axes.spines.right": False, "font.size": 10}):
        figure, axes = plt.subplots(1, 2, figsize=(11.6 if beside else 9.6, 4.4 if beside else 4.0), sharey=True)
        for planner, look in looks.items():
            own = [one for one in found if one["planner"] == planner]
            value, low, high = (
                np.array([max(one["cost_over_rest"][end], 1e-6) for one in own]) for end in ("value", "low", "high")
            )
            for axis, what in zip(axes, ("imagined", "ms_median"), strict=True):
                axis.plot([one[what] for one in own], value, label=planner, zorder=2 if is_peer[planner] else 3, **look)
                # So many bands would hide each other; the peers' intervals are in the table.
                if not is_peer[planner]:
                    axis.fill_between(
                        [one[what] for one in own], low, high, color=look["color"], alpha=0.15, linewidth=0
                    )
        for axis, name in zip(axes, ("futures imagined", "milliseconds, median"), strict=True):
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.set_xlabel(name)
            axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_formatter(NullFormatter())
        axes[0].set_ylabel("cost over doing nothing")
        if beside:
            axes[1].legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
        else:
            axes[0].legend(frameon=False)
        figure.tight_layout()
        unfinished = path.with_name(f".{path.stem}.unfinished.png")
        figure.savefig(unfinished, dpi=130)
        plt.close(figure)
    os.replace(unfinished, path)
    return path
