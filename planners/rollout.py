"""The record of an episode: at every step what was seen, imagined, chosen and done, and why.

On disk a rollout is a folder: `rollout.json` (what it is about), `steps.parquet` (one row of numbers per step, for
people) and `arrays.safetensors` (pictures, plans, latents). It appears whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from planners.observation import IMAGES
from planners.plan import Plan
from worldmodel.interface import WorldModel

FORMAT = "premotor rollout 1"
# How an event begins that says the world was satisfied: good news, unlike the others.
ARRIVED = "the goal is reached"
Arrays = dict[str, np.ndarray]


class RolloutError(ValueError):
    """A rollout that cannot be read."""


@dataclass(frozen=True)
class PlanRecord:
    """One environment's plan, as numpy. H steps, A action, K elites, I iterations.

    Attributes:
        actions: (H, A) in physical units.
        elites: (K, H, A) in physical units, best first; `elite_costs` (K,).
        cost: of the plan; `terms` are its parts.
        cost_per_iteration: (I,).
        imagined: (H, *L) latents.
        frames: (H, h, w, 3) uint8, the latents as pictures, or None.
        uncertainty: (H,) or None.
        futures, discarded: how many were imagined, how many were not finite.
        plan_ms: wall time of the search.
        stopped: why it ended.
        held: whether it is to hold.
        branch: the gripper's schedule that it follows, in words; None where none were searched.
    """

    actions: np.ndarray
    elites: np.ndarray
    elite_costs: np.ndarray
    cost: float
    terms: dict[str, float]
    cost_per_iteration: np.ndarray
    imagined: np.ndarray
    frames: np.ndarray | None
    uncertainty: np.ndarray | None
    futures: int
    discarded: int
    plan_ms: float
    stopped: str
    held: bool
    branch: str | None = None

    @classmethod
    def of(cls, plan: Plan, model: WorldModel, environment: int = 0, *, frames: bool = True) -> PlanRecord:
        """One environment's part of a plan; the brain paints its imagination where it can."""
        b = environment
        pictures = model.decode(plan.imagined[b : b + 1]) if frames else None
        return cls(
            actions=_numpy(model.action_space.to_physical(plan.actions[b])),
            elites=_numpy(model.action_space.to_physical(plan.elites[b])),
            elite_costs=_numpy(plan.elite_costs[b]),
            cost=float(plan.cost[b]),
            terms={name: float(value[b]) for name, value in plan.terms.items()},
            cost_per_iteration=_numpy(plan.cost_per_iteration[b]),
            imagined=_numpy(plan.imagined[b]),
            frames=None if pictures is None else _numpy(pictures[0]),
            uncertainty=None if plan.uncertainty is None else _numpy(plan.uncertainty[b]),
            futures=plan.futures,
            discarded=plan.discarded,
            plan_ms=plan.plan_ms,
            stopped=plan.stopped,
            held=bool(plan.held[b]),
            branch=None if plan.branch is None else plan.branch[b],
        )


@dataclass(frozen=True)
class StepRecord:
    """One step.

    Attributes:
        time_s: since the rollout began.
        observation: what was seen before acting, in LeRobot names.
        action: (A,) physical, what the agent chose.
        executed: (A,) physical, what was carried out by measurement; NaN where nobody measured.
        act_ms: wall time from observation to action, encoding included.
        plan: the plan behind the action; None when there was no search.
        judged: the world's own numbers after the step, for example `goal_distance_m`.
        events: what happened, in words.
        picture: (h, w, 3) uint8 for people, larger than what the brain sees; None where nobody took one.
    """

    time_s: float
    observation: Arrays
    action: np.ndarray
    executed: np.ndarray
    act_ms: float
    plan: PlanRecord | None = None
    judged: dict[str, float] = field(default_factory=dict)
    events: tuple[str, ...] = ()
    picture: np.ndarray | None = None


@dataclass
class Rollout:
    """An episode.

    Attributes:
        about: what a reader must know, as JSON: task, model, planner, seed, `action_names`, `rate_hz`, ...
        goal: the goal's observation; a `picture` in it (or in `final`) is for people. Further pictures of it are under
            `2/...` and so on, bounds of the arm's state under `region.low` and `region.high` (`Goal.record`).
        steps: the record, in order.
        final: what was seen after the last step.
        outcome: how it ended, as JSON: success, distances.
    """

    about: dict[str, Any]
    goal: Arrays
    steps: list[StepRecord] = field(default_factory=list)
    final: Arrays = field(default_factory=dict)
    outcome: dict[str, Any] = field(default_factory=dict)

    @property
    def goal_pictures(self) -> list[np.ndarray]:
        """All pictures of the goal as one camera sees it: several where it was given so, none for a region alone."""
        own = [key for key in self.goal if key.startswith(IMAGES)]
        camera = f"{IMAGES}front" if f"{IMAGES}front" in own or not own else own[0]
        first = self.goal.get("picture", self.goal.get(camera))
        others = {key.partition("/")[0]: value for key, value in self.goal.items() if key.partition("/")[2] == camera}
        return [*([] if first is None else [first]), *(others[number] for number in sorted(others, key=int))]

    def save(self, folder: str | Path) -> Path:
        """Write to a folder, replacing a rollout that is there; nothing half-written is ever seen."""
        folder = Path(folder)
        if folder.exists() and not (folder / "rollout.json").is_file():
            raise RolloutError(f"{folder} exists and holds no rollout; choose another folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            save_file(self._to_arrays(), fresh / "arrays.safetensors")
            pq.write_table(self._to_table(), fresh / "steps.parquet")
            about = {"format": FORMAT, "steps": len(self.steps), "about": self.about, "outcome": self.outcome}
            (fresh / "rollout.json").write_text(json.dumps(about, indent=2) + "\n")
            fresh.chmod(0o755)
            if folder.exists():
                old = fresh.with_name(fresh.name + ".old")
                os.replace(folder, old)
                os.replace(fresh, folder)
                shutil.rmtree(old)
            else:
                os.replace(fresh, folder)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Rollout:
        """Read what `save` wrote."""
        folder = Path(folder)
        if not (folder / "rollout.json").is_file():
            raise FileNotFoundError(f"{folder} is no rollout: it has no rollout.json")
        try:
            head = json.loads((folder / "rollout.json").read_text())
            if head.get("format") != FORMAT:
                raise RolloutError(f"{folder} has format {head.get('format')!r}; this version reads {FORMAT!r}")
            rows = pq.read_table(folder / "steps.parquet").to_pylist()
            arrays = load_file(folder / "arrays.safetensors")
            if len(rows) != head["steps"]:
                raise RolloutError(f"{folder} should have {head['steps']} steps; steps.parquet has {len(rows)}")
            steps = [_step_from(row, _under(arrays, f"steps/{index:05d}/")) for index, row in enumerate(rows)]
            return cls(head["about"], _under(arrays, "goal/"), steps, _under(arrays, "final/"), head["outcome"])
        except RolloutError:
            raise
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException, SafetensorError) as error:
            raise RolloutError(
                f"the rollout {folder} cannot be read ({type(error).__name__}: {error}); it was cut short or changed: "
                "record it again"
            ) from None

    def _to_arrays(self) -> Arrays:
        arrays = {f"goal/{key}": value for key, value in self.goal.items()}
        arrays |= {f"final/{key}": value for key, value in self.final.items()}
        for index, step in enumerate(self.steps):
            at = f"steps/{index:05d}/"
            arrays |= {f"{at}observation/{key}": value for key, value in step.observation.items()}
            arrays |= {f"{at}action": step.action, f"{at}executed": step.executed}
            arrays |= {} if step.picture is None else {f"{at}picture": step.picture}
            if step.plan is not None:
                values = {name: getattr(step.plan, name) for name in _PLAN_ARRAYS}
                arrays |= {f"{at}plan/{name}": value for name, value in values.items() if value is not None}
        return {key: np.ascontiguousarray(value) for key, value in arrays.items()}

    def _to_table(self) -> pa.Table:
        """One row per step; terms and judgements become columns of their own."""
        rows = []
        for index, step in enumerate(self.steps):
            row: dict[str, Any] = {
                "step": index,
                "time_s": float(step.time_s),
                "action": step.action.tolist(),
                "executed": step.executed.tolist(),
                "act_ms": float(step.act_ms),
                "events": list(step.events),
            }
            row |= {f"judged.{name}": float(value) for name, value in step.judged.items()}
            if step.plan is not None:
                row |= {name: getattr(step.plan, name) for name in _PLAN_NUMBERS}
                row |= {f"term.{name}": value for name, value in step.plan.terms.items()}
                row |= {} if step.plan.branch is None else {"branch": step.plan.branch}
            rows.append(row)
        names = list(dict.fromkeys(["step", *(name for row in rows for name in row)]))
        return pa.table({name: [row.get(name) for row in rows] for name in names})


_PLAN_ARRAYS = ("actions", "elites", "elite_costs", "cost_per_iteration", "imagined", "frames", "uncertainty")
_PLAN_NUMBERS = ("cost", "futures", "discarded", "plan_ms", "stopped", "held")
assert {f.name for f in fields(PlanRecord)} == {*_PLAN_ARRAYS, *_PLAN_NUMBERS, "terms", "branch"}


def _step_from(row: Mapping[str, Any], arrays: Arrays) -> StepRecord:
    """A step from its row and its arrays."""
    plan = None
    if row.get("stopped") is not None:
        kept = _under(arrays, "plan/")
        plan = PlanRecord(
            **{name: kept.get(name) for name in ("frames", "uncertainty")},
            **{name: kept[name] for name in _PLAN_ARRAYS if name not in ("frames", "uncertainty")},
            **{name: row[name] for name in _PLAN_NUMBERS},
            terms=_named(row, "term."),
            branch=row.get("branch"),
        )
    return StepRecord(
        time_s=row["time_s"],
        observation=_under(arrays, "observation/"),
        action=arrays["action"],
        executed=arrays["executed"],
        act_ms=row["act_ms"],
        plan=plan,
        judged=_named(row, "judged."),
        events=tuple(row["events"]),
        picture=arrays.get("picture"),
    )


def _named(row: Mapping[str, Any], prefix: str) -> dict[str, float]:
    return {key.removeprefix(prefix): row[key] for key in row if key.startswith(prefix) and row[key] is not None}


def _under(arrays: Arrays, prefix: str) -> Arrays:
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
