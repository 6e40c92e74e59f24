"""`premotor plan`: look once, imagine, and show the plan; nothing moves."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from omegaconf import DictConfig
from PIL import Image
from rich.console import Console
from rich.table import Table
from safetensors.numpy import save_file

from planners import MPC, Goal, PlanRecord, Rollout, StepRecord, default_objective, landscape_plot
from planners.landscape import Landscape, check_view, futures_of, survey
from planners.recording import write_rrd
from robots import probing
from robots.arm import IMAGES
from robots.brain import Brain, output_folder, plain, scene_goal
from robots.loop import Exit
from robots.recorder import STATE, TRUTH
from robots.report import versions, write_json
from robots.simulated import SimulatedArm
from robots.viewer import called
from robots.wanted import make_goal

# A landscape that will take longer than this is announced before it is begun.
PATIENCE_S = 20.0
# Exit code where the scene probe says no: the one of a refusal.
NO_GO_CODE = int(Exit.REFUSED)


def main(cfg: DictConfig) -> int:
    """Plan from a seeded scene to its goal, or to a goal picture; print the plan and write it down.

    With `probe=true` the scene probe comes first, and a no-go ends it.
    """
    console = Console(highlight=False)
    words = plain(cfg)
    scene = words["env"]
    if words["landscape"] is not None:
        check_view(int(words["landscape"]["grid"]), float(words["landscape"]["span"]))
    brain = Brain.of(cfg, str(scene["task"]))
    folder = output_folder(cfg.out, "plan")
    if bool(cfg.probe):
        found = probing.examine(brain.model, cfg.probe_data, scene, int(cfg.seed))
        probing.write(found, folder)
        console.print(f"[bold]scene probe[/], {found.transitions} transitions")
        console.print(probing.table(found))
        if found.verdict == probing.CALIBRATE:
            console.print(f"To turn the brain to this camera: [bold]{probing.advice(found)}[/] (run: correct=true)")
        console.print(f"[cyan]{folder / 'probe.png'}[/], [cyan]probe.json[/]\n", soft_wrap=True)
        if found.verdict == probing.NO_GO:
            return NO_GO_CODE
    rollout, agent = _rehearse(words, brain)
    plan = rollout.steps[0].plan
    assert plan is not None
    landscape = _look_around(words["landscape"], agent, console)
    _write(folder, rollout, plan, landscape)
    console.print(_words(rollout, plan, brain), soft_wrap=True)
    console.print(_actions(plan, rollout.about["action_names"]))
    if landscape is not None:
        console.print(_valley(landscape), soft_wrap=True)
    around = "" if landscape is None else f"[cyan]{folder / 'landscape.png'}[/]  the cost around the first action\n"
    console.print(
        f"\n[cyan]{folder / 'plan.png'}[/]  the imagined frames and the search\n{around}"
        f"[cyan]{folder / 'plan.json'}[/], [cyan]plan.safetensors[/]  the plan\n"
        f"[cyan]{folder / 'rollout.rrd'}[/]  in 3D, for Rerun: [bold]{called('premotor')} review run={folder} open=true[/]",
        soft_wrap=True,
    )
    return 0


def _look_around(view: dict[str, Any] | None, agent: MPC, console: Console) -> Landscape | None:
    """The energy landscape around the plan that was found, where one is wanted."""
    if view is None:
        return None
    plan = agent.last_plan
    assert plan is not None
    assert agent.asked is not None
    needed = futures_of(agent.model.action_space.size, int(view["grid"]))
    seconds = needed * plan.plan_ms / 1000 / plan.futures
    if seconds > PATIENCE_S:
        console.print(
            f"[dim]The energy landscape takes {needed} futures, about {seconds:.0f} s with this brain; "
            "landscape.grid=7 is quicker, landscape=null leaves it out.[/]",
            soft_wrap=True,
        )
    # A planner without an objective of its own (a floor) reports its cost by the default one.
    objective = getattr(agent.planner, "objective", None) or default_objective()
    trusted = getattr(agent.planner, "trusted", None)
    return survey(
        agent.model, *agent.asked, objective, plan.actions[0],
        trusted=math.inf if trusted is None else trusted, **view,
    )  # fmt: skip


def _rehearse(words: dict[str, Any], brain: Brain) -> tuple[Rollout, MPC]:
    """One observation, one goal, one plan, as a rollout of one step that was never sent; and who planned."""
    from robots.arm import find

    scene, seed = words["env"], int(words["seed"])
    kind = find(str(scene["simulator"]))
    assert issubclass(kind, SimulatedArm)
    settings = {key: scene[key] for key in ("task", "cameras", "image_size", "variation")}
    with kind(seed=seed, **settings) as arm:
        arm.connect()
        reading = arm.observe()

        def scene_s() -> tuple[Goal, dict[str, np.ndarray], str]:
            seen = {**arm.goal, "picture": arm.goal_picture()}
            seen.pop("simulator.state")
            return scene_goal(arm.goal, brain.model), seen, "picture from the scene"

        goal, seen, _ = make_goal(words, reading.observation, scene_s)
        agent = brain.agent(goal, seed)
        began = time.perf_counter()
        action = agent.act(reading.observation)
        act_ms = 1000 * (time.perf_counter() - began)
        if agent.last_plan is None or agent.holds:
            why = agent.holds.get(0, "the observation cannot be used")
            around = "" if words["landscape"] is None else ", and so no energy landscape"
            raise RuntimeError(f"there is no plan{around}: {why}")
        _, distance = arm.judge()
        observation = {k: v for k, v in reading.observation.items() if k != "simulator.state"} | {TRUTH: arm.truth()}
        step = StepRecord(
            time_s=0.0,
            observation=observation,
            action=action,
            executed=np.full_like(action, np.nan),
            act_ms=act_ms,
            plan=PlanRecord.of(agent.last_plan, brain.model),
            events=("rehearsed only: nothing was sent", *agent.events()),
            picture=arm.picture(),
        )
    about = {
        "task": str(scene["task"]), "simulator": str(scene["simulator"]), "seed": seed, "command": "plan",
        "digest": agent.last_plan.digest(), **brain.about(),
    }  # fmt: skip
    outcome = {"start_distance_cm": 100 * distance} if str(words["goal"]) == "scene" else {}
    return Rollout(about, seen, [step], {}, outcome), agent


def tool_path(plan: PlanRecord, state: np.ndarray) -> np.ndarray:
    """Where the plan means the tool to go (H + 1, 3), m, from `observation.state` (7,)."""
    return state[:3] + np.concatenate([np.zeros((1, 3)), np.cumsum(plan.actions[:, :3], axis=0)])


def _words(rollout: Rollout, plan: PlanRecord, brain: Brain) -> str:
    about, state = rollout.about, rollout.steps[0].observation[STATE]
    way = 100 * tool_path(plan, state)
    length = float(np.linalg.norm(np.diff(way, axis=0), axis=1).sum())
    terms = " + ".join(f"{name} {value:.2f}" for name, value in plan.terms.items())
    doubt = "the model has no word on its own doubt"
    if plan.uncertainty is not None:
        doubt = f"doubt {plan.uncertainty.max():.2f} (1 = calibrated)"
    costs = " -> ".join(f"{cost:.2f}" for cost in plan.cost_per_iteration)
    schedule = "" if plan.branch is None else f"Of the gripper's schedules the best: {plan.branch}.\n"
    return (
        f"[bold]{about['task']}[/], {about['simulator']} scene {about['seed']}: {len(plan.actions)} steps "
        f"({len(plan.actions) / about['rate_hz']:.1f} s) ahead with {brain.model_name} and {brain.planner_name}\n"
        f"The tool is to go {length:.1f} cm, from ({way[0, 0]:.1f}, {way[0, 1]:.1f}, {way[0, 2]:.1f}) to "
        f"({way[-1, 0]:.1f}, {way[-1, 1]:.1f}, {way[-1, 2]:.1f}) cm.\n"
        f"Best cost after each iteration: {costs}; the plan's is {terms} = {plan.cost:.2f}; {doubt}.\n"
        f"{plan.futures} futures in {plan.plan_ms:.0f} ms; {plan.stopped}. Plan {about['digest']}.\n"
        f"{schedule}"
    )


def _actions(plan: PlanRecord, names: list[str]) -> Table:
    """The plan step by step, in centimetres and degrees."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("step", justify="right")
    for name in names:
        unit = "cm" if name in ("dx", "dy", "dz") else "" if name == "dgripper" else "deg"
        table.add_column(f"{name} {unit}".strip(), justify="right")
    if plan.uncertainty is not None:
        table.add_column("doubt", justify="right")
    scale = np.array([100.0] * 3 + [180 / np.pi] * 3 + [1.0])
    for index, row in enumerate(plan.actions * scale):
        doubt = [] if plan.uncertainty is None else [f"{plan.uncertainty[index]:.2f}"]
        table.add_row(str(index), *(f"{v:+.1f}" for v in row[:6]), f"{row[6]:+.2f}", *doubt)
    return table


def _valley(landscape: Landscape) -> str:
    """What the landscape tells: how steep it is in every dimension, and whether the search left something lying."""

    def told(k: int, value: float, sign: str) -> str:
        scale, unit = landscape_plot.unit_of(landscape.names[k])
        return f"{landscape.names[k]} {scale * value:{sign}.2g}{f' {unit}' if unit in ('cm', 'deg') else ''}"

    rises = landscape.rises
    known = [int(k) for k in np.argsort(-np.abs(rises)) if np.isfinite(rises[k])]
    words = [
        f"\nThe landscape around the first action ({landscape.futures} futures, {landscape.ms:.0f} ms). What a tenth of its "
        "bound costs, each number changed alone and to the worse side:"
    ]
    if known:
        words[0] += " " + ", ".join(f"{told(k, landscape.nudges[k], '')} [bold]{rises[k]:+.2f}[/]" for k in known) + "."
        steep, flat = landscape.names[known[0]], landscape.names[known[-1]]
        words.append(f"The plan hangs most on {steep}, least on {flat}.")
    else:
        words[0] += " unknown, no such future was finite."
    lowest, action = landscape.lowest
    moved = [k for k in range(len(action)) if action[k] != landscape.chosen[k]]
    if moved:
        where = " and ".join(told(k, action[k], "+") for k in moved)
        words.append(
            f"A cheaper first action lies on it: {where} would cost {landscape.cost - lowest:.2f} less. "
            "The search did not come there, or was not let."
        )
    else:
        words.append("No first action on it is cheaper than the chosen one.")
    lost = int(np.isnan(landscape.values).sum())
    if lost:
        words.append(f"{lost} of {landscape.values.size} futures on it were not finite, or not trusted.")
    return "\n".join(words)


def _write(folder: Path, rollout: Rollout, plan: PlanRecord, landscape: Landscape | None) -> None:
    arrays = {
        name: np.ascontiguousarray(value)
        for name in ("actions", "elites", "elite_costs", "cost_per_iteration", "imagined", "frames", "uncertainty")
        if (value := getattr(plan, name)) is not None
    }
    picture = None
    if landscape is not None:
        named = {"axes": landscape.axes, "values": landscape.values, "nudged": landscape.nudged}
        arrays |= {f"landscape.{name}": np.ascontiguousarray(value) for name, value in named.items()}
        about, elites = rollout.about, plan.elites[np.isfinite(plan.elite_costs), 0]
        title = f"Energy landscape around the first action: {about['task']}, {about['model']}, {about['planner']}"
        with Image.open(landscape_plot.draw(landscape, folder / "landscape.png", elites, title)) as drawn:
            picture = np.asarray(drawn.convert("RGB"))
    save_file(arrays, folder / "plan.safetensors")
    numbers = {
        **rollout.about, "actions": plan.actions.tolist(), "cost": plan.cost, "terms": plan.terms,
        "cost_per_iteration": plan.cost_per_iteration.tolist(), "futures": plan.futures, "discarded": plan.discarded,
        "uncertainty": None if plan.uncertainty is None else plan.uncertainty.tolist(), "plan_ms": plan.plan_ms,
        "stopped": plan.stopped, **({} if plan.branch is None else {"branch": plan.branch}),
        "landscape": None if landscape is None else _numbers(landscape), "versions": versions(),
    }  # fmt: skip
    (folder / "plan.safetensors").chmod(0o644)
    rollout.save(folder / "rollout")
    write_rrd(rollout, folder / "rollout.rrd", landscape=picture)
    draw(rollout, plan, folder / "plan.png")
    write_json(folder / "plan.json", numbers)


def _numbers(landscape: Landscape) -> dict[str, Any]:
    """What of a landscape fits on a page, physical units; null where unknown."""
    lowest, action = landscape.lowest
    rises = {
        name: float(rise) if np.isfinite(rise) else None
        for name, rise in zip(landscape.names, landscape.rises, strict=True)
    }
    return {
        "cost": landscape.cost, "tenth": landscape.nudges.tolist(), "rise_by_a_tenth": rises, "lowest_cost": lowest,
        "lowest_first_action": action.tolist(), "futures": landscape.futures, "ms": landscape.ms,
    }  # fmt: skip


def draw(rollout: Rollout, plan: PlanRecord, path: Path) -> None:
    """Goal, now and the imagined frames over the search's cost and the tool's planned way."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import MaxNLocator

    step = rollout.steps[0]
    now = step.picture if step.picture is not None else step.observation[f"{IMAGES}front"]
    goals = rollout.goal_pictures
    named = [("goal", goal) if len(goals) == 1 else (f"goal {n}", goal) for n, goal in enumerate(goals, 1)]
    frames = [] if plan.frames is None else list(plan.frames)
    shown = [*named, ("now", now), *((f"imagined, {i + 1}", frame) for i, frame in enumerate(frames))]
    rows = -(-len(shown) // 7)
    columns = -(-len(shown) // rows)
    side = 12.0 / columns
    figure = plt.figure(figsize=(12.0, (side + 0.2) * rows + 2.8), layout="constrained")
    layout = figure.add_gridspec(2, 1, height_ratios=[(side + 0.2) * rows, 2.8])
    upper = figure.add_subfigure(layout[0])
    lower = figure.add_subfigure(layout[1])
    axes = upper.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, picture) in zip(axes.flat, shown, strict=False):
        if picture is not None:
            axis.imshow(picture, interpolation="bicubic")
        axis.set_title(name, fontsize=10, color="#333")
    left, middle, right = lower.subplots(1, 3)
    iterations = np.arange(1, len(plan.cost_per_iteration) + 1)
    left.plot(iterations, plan.cost_per_iteration, "o-", color="#d9901a")
    left.set(title="best cost after each iteration", xlabel="iteration", xticks=iterations)
    finite = plan.elite_costs[np.isfinite(plan.elite_costs)]
    middle.bar(np.arange(1, len(finite) + 1), finite, color="#e8c48a")
    middle.bar([1], finite[:1], color="#d9901a")
    middle.set(title="cost of the plan and of the next best", xlabel="rank")
    middle.xaxis.set_major_locator(MaxNLocator(integer=True))
    low = float(finite.min()) if len(finite) else 0.0
    spread = float(np.ptp(finite)) if len(finite) else 1.0
    middle.set_ylim(low - 0.5 * max(spread, 1e-3), float(finite.max(initial=low)) + 0.2 * max(spread, 1e-3))
    state = step.observation[STATE]
    for rank, elite in enumerate(plan.elites[np.isfinite(plan.elite_costs)]):
        way = 100 * (state[:2] + np.concatenate([np.zeros((1, 2)), np.cumsum(elite[:, :2], axis=0)]))
        right.plot(way[:, 1], way[:, 0], color="#e8c48a", linewidth=0.7, label="elites" if rank == 1 else None)
    way = 100 * tool_path(plan, state)
    right.plot(way[:, 1], way[:, 0], "o-", color="#d9901a", markersize=3, label="planned")
    right.plot(way[0, 1], way[0, 0], "s", color="#1f9e8f", label="now")
    truth, wanted = step.observation.get(TRUTH), rollout.goal.get(TRUTH)
    if truth is not None and wanted is not None:
        right.plot(100 * truth[1], 100 * truth[0], "o", color="#1f9e8f", markersize=9, alpha=0.5, label="object")
        right.plot(100 * wanted[1], 100 * wanted[0], "o", color="#8a5fd1", markersize=9, alpha=0.5, label="its goal")
    low, high = rollout.goal.get("region.low", np.empty(0)), rollout.goal.get("region.high", np.empty(0))
    if len(low) > 1 and np.isfinite([low[:2], high[:2]]).all():
        corner, width, height = (100 * low[1], 100 * low[0]), 100 * (high[1] - low[1]), 100 * (high[0] - low[0])
        right.add_patch(Rectangle(corner, width, height, color="#8a5fd1", alpha=0.25, label="region"))
    right.set(title="the tool's way from above", xlabel="y (cm)", ylabel="x (cm)")
    right.set_aspect("equal", adjustable="datalim")
    right.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    for axis in (left, middle, right):
        axis.title.set_size(10)
        axis.spines[["top", "right"]].set_visible(False)
    unfinished = path.with_name(f".{path.stem}.unfinished.png")
    figure.savefig(unfinished, dpi=110)
    plt.close(figure)
    unfinished.replace(path)
