"""`premotor run`: an arm executes what was rehearsed, watched by the guard, and every movement is on record.

Preflight first, one line a check; then the loop; then hold, park and release, whatever ended it. The exit code says
how it ended: 0 done, 3 refused in preflight, 4 vetoed, 5 stopped by the operator, 6 fault.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from rich.console import Console

from planners import MPC, Goal, Rollout
from planners.background import Background
from planners.progress import Rule
from planners.recording import write_rrd
from planners.subgoals import Subgoals
from planners.waypoints import Finder, Route
from robots import preflight, probing
from robots.arm import Reading, find
from robots.brain import Brain, goal_hash, output_folder, picture_goal, plain, scene_goal
from robots.exits import Exit
from robots.limits import Limits
from robots.loop import Ending, Proposal, drive
from robots.operator import Operator
from robots.recorder import Recorder
from robots.remote import RemoteStation
from robots.simulated import SimulatedArm
from robots.station import Side
from robots.viewer import called
from robots.wanted import make_goal, region_outcome
from worldmodel.interface import ActionSpace

# Policy steps a real arm takes where nobody says how many.
REAL_STEPS = 30


def main(cfg: DictConfig) -> int:
    """Run what the configuration says; returns the exit code."""
    console = Console(highlight=False)

    def say(line: str) -> None:
        # A reader that went away (a closed terminal, `| head`) is no reason to leave an arm unparked.
        with contextlib.suppress(OSError):
            console.print(line, markup=False, soft_wrap=True)

    folder = output_folder(cfg.out, "run")
    with Operator() as operator:
        try:
            return int(_run(cfg, folder, operator, say))
        except KeyboardInterrupt:
            say("\nstopped by the operator; nothing moved")
            return int(Exit.STOPPED)


def _run(cfg: DictConfig, folder: Path, operator: Operator, say: Callable[[str], None]) -> Exit:
    dry = bool(cfg.dry_run)
    if isinstance(cfg.ahead, bool) or not isinstance(cfg.ahead, int) or cfg.ahead < 0:
        raise ValueError(f"ahead={cfg.ahead} is no number of steps; 0 lets the arm rest while a plan is searched")
    if cfg.steps is not None and (not isinstance(cfg.steps, int) or isinstance(cfg.steps, bool) or cfg.steps < 1):
        raise ValueError(f"steps={cfg.steps} is no number of steps; give a whole number from 1, or null for the task's")
    say(f"premotor run, {'dry run: nothing will be sent' if dry else 'live'}; record in {folder}\n")
    checks = preflight.Preflight(say, operator.interruptible)
    checks.check("disk", lambda: preflight.disk(folder))
    limits = checks.check("limits", lambda: _limits(cfg))
    brain = checks.check("model", lambda: _brain(cfg, limits))
    side = checks.check("arm", lambda: _connect(cfg, folder))
    agent: MPC | None = None
    try:
        goal_seen: dict[str, np.ndarray] = {}
        if side is not None and brain is not None and limits is not None:
            cameras = tuple(key for key in brain.model.required_keys if key.startswith("observation."))
            checks.check("observation", lambda: preflight.observation(side, cameras))
            checks.check("start pose", lambda: preflight.start_pose(side, limits))
            checks.check("guard", lambda: (None, f"watches {side.watches}"))
            if side.about.untested:
                say(f"    {'note':14s} {side.about.untested}")
            if not side.about.simulated:
                checks.check("rated stop", lambda: preflight.rated_stop(bool(cfg.rated_stop_confirmed)))
            if bool(cfg.probe):
                unturned = brain
                brain = checks.check("scene probe", lambda: _probe(cfg, side, unturned)) or unturned
            found = checks.check("goal", lambda: _goal(cfg, side, brain))
            way: tuple[Route, Rule] | None = None
            if cfg.subgoals is not None and (cfg.subgoals.get("pictures") or cfg.subgoals.get("data")):
                way = checks.check("sub-goals", lambda: _way(cfg, side, brain))
            if found is not None and checks.passed:
                goal, goal_seen = found
                agent = checks.check("rehearsal", lambda: _rehearse(cfg, side, brain, goal, way))
        if operator.stop_requested:
            say("\nstopped by the operator before anything moved")
            return Exit.STOPPED
        if side is None or brain is None or limits is None or agent is None or not checks.passed:
            say(f"\nrefused: {checks.failed[0] if checks.failed else 'a check is missing'}; nothing moved")
            return Exit.REFUSED
        say("")
        return _drive(cfg, side, brain, limits, agent, goal_seen, folder, operator, say)
    finally:
        if isinstance(agent, Background):
            agent.close()
        if side is not None:
            side.close()


def _drive(
    cfg: DictConfig,
    side: RemoteStation,
    brain: Brain,
    limits: Limits,
    agent: MPC,
    goal: dict[str, np.ndarray],
    folder: Path,
    operator: Operator,
    say: Callable[[str], None],
) -> Exit:
    """The loop, and what is written after it."""
    scene = side.scene
    steps = int(cfg.steps) if cfg.steps is not None else REAL_STEPS if scene is None else scene.budget_steps
    about = {
        "task": str(cfg.env.task) if scene is not None else "picture", "simulator": str(cfg.robot.name),
        "seed": int(cfg.seed), "command": "run", "dry_run": bool(cfg.dry_run), **brain.about(),
    }  # fmt: skip
    # A simulator judges by its scene's goal; of another it knows nothing.
    recorder = Recorder(side, agent, about, goal, judged=str(cfg.goal) == "scene")
    header = {
        **about, "arm": side.about.name, "identity": side.about.identity, "calibration_hash": side.about.calibration_hash,
        "limits_hash": limits.hash, "goal_hash": goal_hash(agent.goal), **_listed(agent), "versions": versions(),
        "config": plain(cfg),
    }  # fmt: skip
    ending = drive(
        side,
        lambda reading: _propose(agent, reading),
        operator,
        steps=steps,
        limits=limits,
        header=header,
        dry_run=bool(cfg.dry_run),
        say=say,
        on_step=recorder,
    )
    rollout = recorder.rollout
    rollout.outcome |= region_outcome(agent.goal, rollout.final.get("observation.state"))
    unwritten = _write(folder, rollout, ending)
    _tell(folder, rollout, ending, say)
    for words in unwritten:
        say(words)
    return Exit.FAULT if unwritten and ending.code is Exit.DONE else ending.code


def _propose(agent: MPC, reading: Reading) -> Proposal:
    """One decision, with what the guard and the record want to know of it."""
    began = time.perf_counter()
    action = agent.act(reading.observation)
    act_ms = 1000 * (time.perf_counter() - began)
    plan = agent.last_plan
    if plan is None:
        return Proposal(action, None, "none", "; ".join(agent.events()), act_ms)
    doubt = None if plan.uncertainty is None else float(plan.uncertainty[0].max())
    note = f"cost {float(plan.cost[0]):7.2f}  doubt {'-' if doubt is None else f'{doubt:.2f}'}  {act_ms:4.0f} ms"
    return Proposal(action, doubt, plan.digest(), "; ".join([note, *agent.events()]), act_ms)


# -- preflight checks that need the configuration --------------------------------------------------------------------


def _limits(cfg: DictConfig) -> tuple[Limits, str]:
    limits = Limits.from_mapping(plain(cfg.guard), "guard")
    return limits, f"{len(limits.joint_names)} joints, hash {limits.hash}"


def _brain(cfg: DictConfig, limits: Limits | None) -> tuple[Brain, str]:
    brain = Brain.of(cfg, str(cfg.env.task))
    space = brain.model.action_space
    if limits is not None:
        space.check_compatible(ActionSpace(limits.action_low, limits.action_high, space.names, 1 / limits.period_s))
    words = f"{brain.model_name} on {brain.model.device}, weights {brain.weights or 'none'}"
    return brain, f"{words}; {brain.planner_name}, {brain.budget.futures} futures a plan"


def _connect(cfg: DictConfig, folder: Path) -> tuple[RemoteStation, str]:
    """The arm, in a process of its own."""
    settings = {str(key): value for key, value in plain(cfg.robot).items() if key != "name"}
    kind = find(str(cfg.robot.name))
    scene = plain(cfg.env)
    if issubclass(kind, SimulatedArm):
        if scene.get("id") != "premotor/Tabletop-v0":
            raise ValueError(f"a simulated arm stands at the tabletop, not in {scene.get('id')}")
        if scene["simulator"] not in ("mujoco", kind.simulator):
            raise ValueError(
                f"env.simulator={scene['simulator']} but robot={cfg.robot.name}; say robot={scene['simulator']}"
            )
        settings |= {key: scene[key] for key in ("task", "cameras", "image_size", "variation")}
        settings["seed"] = int(cfg.seed)
    limits = plain(cfg.guard)
    side = RemoteStation(
        str(cfg.robot.name),
        settings,
        limits,
        folder / "blackbox.jsonl",
        dry_run=bool(cfg.dry_run),
        heartbeat_s=float(limits["heartbeat_s"]),
    )
    about = side.about
    return side, f"{about.name}, {len(about.joint_names)} joints at {about.rate_hz:g} Hz, in process {side.process.pid}"


def _goal(cfg: DictConfig, side: Side, brain: Brain) -> tuple[tuple[Goal, dict[str, np.ndarray]], str]:
    def scene() -> tuple[Goal, dict[str, np.ndarray], str]:
        if side.scene is None:
            raise ValueError(
                "goal=scene needs a simulated arm; give goal=PATH of a picture taken with the arm's camera"
            )
        wanted = side.scene.goal
        seen = {key: value for key, value in wanted.items() if key != "simulator.state"}
        _, distance = side.scene.judge()
        found = f"picture from scene {int(cfg.seed)}, {100 * distance:.1f} cm away (the planner sees the picture only)"
        return scene_goal(wanted, brain.model), {**seen, "picture": side.scene.goal_picture()}, found

    goal, seen, found = make_goal(plain(cfg), side.observe().observation, scene)
    return (goal, seen), found


def _way(cfg: DictConfig, side: Side, brain: Brain) -> tuple[tuple[Route, Rule], str]:
    """The sub-goals: the pictures of a list, or the ways through a recording."""
    subgoals = Subgoals.of(plain(cfg.subgoals))
    assert subgoals is not None
    seen = side.observe().observation
    if subgoals.pictures:
        missing = "no sub-goal picture at {path}; subgoals.pictures=[A,B,...] lists pictures in their order"
        goals = [picture_goal(path, seen, wanted_as=missing) for path in subgoals.pictures]
        return (goals, subgoals.rule), f"{len(goals)} of your own: {', '.join(subgoals.pictures)}"
    # Pictures are cut and resized to what this arm's cameras give, where they give squares.
    shapes = {np.shape(seen[key])[:2] for key in brain.model.required_keys if key.startswith("observation.images.")}
    sizes = {shape[0] for shape in shapes if shape[0] == shape[1]}
    graph = subgoals.graph(brain.model, brain.planner, sizes.pop() if len(sizes) == len(shapes) == 1 else None)
    return (graph, subgoals.rule), f"{len(graph)} frames of {subgoals.data}, {graph.edges} short ways between them"


def _listed(agent: MPC) -> dict[str, list[str]]:
    """The names of exactly these sub-goals, where somebody listed them."""
    if agent.route is None or isinstance(agent.route, Finder):
        return {}
    return {"subgoal_hashes": [goal_hash(goal) for goal in agent.route]}


def _probe(cfg: DictConfig, side: Side, brain: Brain) -> tuple[Brain, str]:
    """Whether the brain understands what it sees here; turned to the camera where it was asked to be."""
    if not any(key.startswith("observation.images.") for key in brain.model.required_keys):
        return brain, f"{brain.model_name} looks at no picture"
    found = probing.examine(
        brain.model, cfg.probe_data, plain(cfg.env) if side.scene is not None else None, int(cfg.seed)
    )
    if found.verdict == probing.CALIBRATE and bool(cfg.correct):
        return replace(brain, model=probing.corrected(brain.model, found)), f"{found.reason}; corrected"
    if found.verdict == probing.CALIBRATE:
        raise ValueError(f"{found.reason}: say correct=true to turn it back, or probe=false to go on as it is")
    if found.verdict != probing.GO:
        raise ValueError(f"{found.reason}; or say probe=false")
    return brain, found.reason


def _rehearse(cfg: DictConfig, side: Side, brain: Brain, goal: Goal, way: tuple[Route, Rule] | None) -> tuple[MPC, str]:
    """Plan once without sending: the goal fits the model, and the time a plan takes is known before anything moves."""
    route, rule = way or (None, None)
    agent = brain.agent(goal, int(cfg.seed), route, rule)
    observation = side.observe().observation
    agent.act(observation)  # the first search also warms up
    first = "".join(f"; {words}" for words in agent.events() if way is not None and not agent.holds)
    again = time.perf_counter()
    agent.act(observation)
    took = 1000 * (time.perf_counter() - again)
    if agent.holds:
        raise ValueError(f"the planner cannot plan from here: {agent.holds[0]}")
    agent.reset()
    step = 1000 / brain.model.action_space.rate_hz
    slow = f", slower than the {step:.0f} ms of a step: an arm in real time will wait for it" if took > step else ""
    said = f"a plan takes {took:.0f} ms{slow}; nothing was sent{first}"
    if not cfg.ahead:
        return agent, said
    delay = int(cfg.ahead)
    live = not side.about.lockstep
    if live and took > delay * step:
        raise ValueError(
            f"a plan takes {took:.0f} ms, and ahead={delay} gives it {delay * step:.0f} ms; "
            f"say ahead={math.ceil(took / step)}, or a smaller budget"
        )
    ahead = brain.agent_ahead(goal, int(cfg.seed), route, rule, delay=delay, foresee=bool(cfg.foresee), live=live)
    return (
        ahead,
        f"a plan takes {took:.0f} ms and is begun {delay * step:.0f} ms before it is needed; nothing was sent{first}",
    )


# -- afterwards ------------------------------------------------------------------------------------------------------


def _write(folder: Path, rollout: Rollout, ending: Ending) -> list[str]:
    """How it ended, the rollout and its recording; the black box is complete already. Returns what could not be written:
    the arm is parked by now, and a full disk must not hide how the run ended."""
    result = {
        "ended": ending.code.name.lower(), "exit_code": int(ending.code), "reason": ending.reason,
        "steps": ending.steps, "passed": ending.passed, "clamped": ending.clamped, "vetoed": ending.vetoed,
        "faults": list(ending.faults), "loop": ending.report.to_dict(), "stream": dict(ending.stream), **rollout.outcome,
    }  # fmt: skip
    rollout.outcome |= {"ended": result["ended"], "reason": ending.reason}
    writers: list[tuple[str, Callable[[], object]]] = [
        ("results.json", lambda: write_json(folder / "results.json", result))
    ]
    if rollout.steps:
        writers += [
            ("rollout", lambda: rollout.save(folder / "rollout")),
            ("rollout.rrd", lambda: write_rrd(rollout, folder / "rollout.rrd")),
        ]
    unwritten = []
    for name, write in writers:
        try:
            write()
        except Exception as error:
            unwritten.append(f"{folder / name} could not be written: {error}")
    return unwritten


def _tell(folder: Path, rollout: Rollout, ending: Ending, say: Callable[[str], None]) -> None:
    say(f"\nended: {ending.code.name.lower()} after {ending.steps} steps, exit code {int(ending.code)}")
    say(f"guard: {ending.passed} passed, {ending.clamped} clamped, {ending.vetoed} vetoed")
    say(f"loop: {ending.report.sentence()}")
    outcome = rollout.outcome
    if "final_distance_cm" in outcome:
        word = "reached" if outcome["success"] else "not reached"
        say(
            f"goal: {word}, {outcome['final_distance_cm']:.1f} cm away after {outcome['start_distance_cm']:.1f} cm at "
            "the start (the simulator's word)"
        )
    if "in_region" in outcome:
        away = ", ".join(f"{value:.3f}" for value in outcome["outside_region"])
        say("region: the arm is inside" if outcome["in_region"] else f"region: the arm is outside, by {away} (m, rad)")
    for fault in ending.faults:
        say(f"fault: {fault}")
    say(f"record: {folder / 'blackbox.jsonl'}" + (f", {folder / 'rollout.rrd'}" if rollout.steps else ""))
    say(f"next: {called('premotor')} review run={folder}")


def write_json(path: Path, value: Any) -> None:
    """A JSON file that appears whole or not at all."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(unfinished, path)


def versions() -> dict[str, str]:
    """Of what decides a run."""
    found = {}
    for name in ("premotor", "torch", "mujoco", "pybullet", "mink", "numpy", "rerun-sdk"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
