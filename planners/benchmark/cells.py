"""What is measured: a cell is one model with one planner on one task, and a table is made of cells."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from planners.benchmark.stats import median, percentile_99, wilson


@dataclass(frozen=True)
class Cell:
    """Everything that decides an episode but its seed.

    Attributes:
        suite, task, simulator: the world.
        world: further settings of the world: cameras, image size, variation.
        model, planner, objective, budget: as their configs say.
        weights: digest of the brain's weights.
        subgoals: how sub-goals are found; None heads straight for the goal.
        ahead: steps a plan is begun before it is carried out; 0 lets the world wait.
        foresee: whether such a plan begins where the brain expects to be then.
    """

    suite: str
    task: str
    simulator: str
    world: Mapping[str, Any]
    model: Mapping[str, Any]
    planner: Mapping[str, Any]
    objective: Mapping[str, Any]
    budget: Mapping[str, Any]
    weights: str = ""
    subgoals: Mapping[str, Any] | None = None
    ahead: int = 0
    foresee: bool = True

    @property
    def key(self) -> str:
        """A name for exactly this cell."""
        words = {key: value for key, value in asdict(self).items() if key != "model"}
        if self.subgoals is None:
            del words["subgoals"]  # a cell without them is the same cell as before there were any
        if not self.ahead:
            del words["ahead"], words["foresee"]  # and so is one whose world waits
        words["model"] = {key: value for key, value in self.model.items() if key != "device"}
        return hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def label(self) -> str:
        """A name for people, and for folders."""
        model = str(self.model["name"]).replace("/", "_").replace(":", "_")
        return f"{self.task}-{self.simulator}-{model}-{self.planner['name']}-{self.key[:6]}"


def summary(cell: Cell, rows: Sequence[Mapping[str, Any]], seed: int, about: Mapping[str, Any]) -> dict[str, Any]:
    """A cell of `results.json` from its episodes' rows; starts that were solved already are left out."""
    counted = [row for row in rows if not row["solved_at_start"]]
    successes = sum(bool(row["success"]) for row in counted)
    low, high = wilson(successes, len(counted))
    act_ms = [value for row in counted for value in row["act_ms"]]
    return {
        "suite": cell.suite,
        "task": cell.task,
        "simulator": cell.simulator,
        "model": str(cell.model["name"]),
        "planner": str(cell.planner["name"]),
        "seed": seed,
        "episodes": len(counted),
        "successes": successes,
        "rate": successes / len(counted) if counted else 0.0,
        "low": low,
        "high": high,
        "final_distance_cm_median": median([row["final_distance_cm"] for row in counted]),
        "start_distance_cm_median": median([row["start_distance_cm"] for row in counted]),
        "plan_ms_median": median(act_ms),
        "plan_ms_p99": percentile_99(act_ms),
        "futures_per_plan": median([row["futures_per_plan"] for row in counted]),
        "budget_steps": int(median([row["steps"] for row in counted])),
        "solved_at_start": len(rows) - len(counted),
        "holds": sum(row["holds"] for row in counted),
        "discarded_futures": sum(row["discarded"] for row in counted),
        "episode_s_median": median([row["seconds"] for row in counted]),
        "budget": dict(cell.budget),
        "objective": dict(cell.objective),
        "planner_settings": dict(cell.planner),
        "model_settings": dict(cell.model),
        "world": dict(cell.world),
        "weights": cell.weights,
        **({} if cell.subgoals is None else {"subgoals": dict(cell.subgoals)}),
        **({} if not cell.ahead else {"ahead": cell.ahead, "foresee": cell.foresee}),
        "key": cell.key,
        **about,
    }
