"""Results on disk and on the screen: `results.json`, `episodes.parquet`, pictures, a table."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from planners.benchmark.cells import Cell
from planners.benchmark.tables import Column, Table
from planners.rollout import Rollout


def write_results(folder: Path, results: Sequence[dict[str, Any]]) -> Path:
    """`results.json`: a list of cells, whole or not at all."""
    path = folder / "results.json"
    write_whole(path, (json.dumps(list(results), indent=2, allow_nan=False) + "\n").encode())
    return path


def read_results(folder: Path) -> list[dict[str, Any]]:
    """The cells of an earlier run into the same folder; none if there was none."""
    path = folder / "results.json"
    if not path.is_file():
        return []
    try:
        results = json.loads(path.read_text())
        if not isinstance(results, list) or not all("key" in cell for cell in results):
            raise ValueError("it is no list of cells")
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}); move it away or choose another out") from None
    return results


def write_episodes(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """`episodes.parquet`: one row per episode of every cell."""
    path = folder / "episodes.parquet"
    names = list(dict.fromkeys(name for row in rows for name in row))
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), buffer)
    write_whole(path, buffer.getvalue().to_pybytes())
    return path


def write_pictures(folder: Path, cells: Sequence[Cell]) -> list[Path]:
    """For every cell with kept rollouts a Rerun recording, a film and a contact sheet."""
    from planners.pictures import contact_sheet, film, write_mp4
    from planners.recording import write_rrd

    written = []
    for cell in cells:
        kept = folder / "rollouts" / cell.label
        rollouts = [Rollout.load(path) for path in sorted(kept.glob("*")) if (path / "rollout.json").is_file()]
        if not rollouts:
            continue
        title = f"{cell.task}, {cell.simulator}: {cell.model['name']} with {cell.planner['name']}"
        written += [
            write_rrd(rollouts, kept / "rollouts.rrd"),
            write_mp4([frame for rollout in rollouts for frame in film(rollout)], kept / "film.mp4"),
            contact_sheet(rollouts, kept / "contact-sheet.png", title=title),
        ]
    return written


def table(results: Sequence[dict[str, Any]]) -> Table:
    """The results for people: a row for every cell."""
    words = [Column(head, "left", "folded") for head in ("world", "model, planner")]
    numbers = [
        Column("success (95 %)", long="whole", paint=_with_bold_start),
        *(Column(head, long="whole") for head in ("end cm (start)", "ms (p99)", "futures")),
    ]
    rows = [
        (
            f"{cell['task']}, {cell['simulator']}",
            f"{cell['model']}, {cell['planner']}{', sub-goals' if cell.get('subgoals') else ''}{_ahead(cell)}",
            f"{cell['successes']}/{cell['episodes']} {100 * cell['rate']:.0f} % "
            f"({100 * cell['low']:.0f}-{100 * cell['high']:.0f})",
            f"{cell['final_distance_cm_median']:.1f} ({cell['start_distance_cm_median']:.1f})",
            f"{cell['plan_ms_median']:.0f} ({cell['plan_ms_p99']:.0f})",
            f"{cell['futures_per_plan']:.0f}",
        )
        for cell in results
    ]
    return Table("premotor bench", [*words, *numbers], rows)


def _with_bold_start(cell: str) -> str:
    first, _, rest = cell.partition(" ")
    return f"[bold]{first}[/] {rest}"


def _ahead(cell: dict[str, Any]) -> str:
    if not cell.get("ahead"):
        return ""
    return f", {cell['ahead']} ahead" if cell["foresee"] else f", {cell['ahead']} ahead, unforeseen"


def write_whole(path: Path, content: bytes) -> None:
    """Write beside and rename: whoever reads sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    os.chmod(name, 0o644)
    os.replace(name, path)
