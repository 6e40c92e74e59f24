"""Getting ready to run: from the words of the configuration to checked parts, one preflight check each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from envs.tabletop import ACTION_NAMES
from planners import MPC, Goal
from planners.progress import Rule
from planners.subgoals import Subgoals
from planners.waypoints import Finder, Route
from robots import preview, probing
from robots.arm import IMAGES, find
from robots.brain import Brain, goal_hash, picture_goal, plain, scene_goal
from robots.consent import ANSWER_S, Approver, Consent, Unneeded, enable
from robots.episodes import EpisodeRecorder
from robots.keys import Keys
from robots.limits import Limits
from robots.operator import Operator
from robots.plancheck import PlanCheck
from robots.remote import RemoteStation
from robots.side import Side
from robots.simulated import SimulatedArm
from robots.wanted import make_goal
from worldmodel.interface import ActionSpace

# Margins worth a glance before a plan is approved; the picture has them all.
TOLD = (
    "tool_in_workspace_m", "links_in_box_m", "self_m", "obstacle_m", "joint_position_rad", "velocity_share",
)  # fmt: skip


@dataclass(frozen=True)
class Hand:
    """The person at the arm: who is asked, and what lets it move."""

    approver: Approver
    consent: Consent


@dataclass(frozen=True)
class Rehearsal:
    """What was planned before anything moves.

    Attributes:
        agent: begins anew from the seed: seeing the same, it plans the same.
        actions: (H, 7) physical, its first plan.
        doubt: the model's word on it, 1 = calibrated; None where it has none.
    """

    agent: MPC
    actions: np.ndarray
    doubt: float | None


def limits(cfg: DictConfig) -> tuple[Limits, str]:
    limits = Limits.from_mapping(plain(cfg.guard), "guard")
    return limits, f"{len(limits.joint_names)} joints, hash {limits.hash}"


def brain(cfg: DictConfig, limits: Limits | None) -> tuple[Brain, str]:
    space = None
    if limits is not None:
        space = ActionSpace(limits.action_low, limits.action_high, ACTION_NAMES, 1 / limits.period_s)
    brain = Brain.of(cfg, str(cfg.env.task), space)
    words = f"{brain.model_name} on {brain.model.device}, weights {brain.weights or 'none'}"
    return brain, f"{words}; {brain.planner_name}, {brain.budget.futures} futures a plan"


def connect(cfg: DictConfig, folder: Path) -> tuple[RemoteStation, str]:
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
    elif "seed" in settings and settings["seed"] is None:
        settings["seed"] = int(cfg.seed)
    limits = plain(cfg.guard)
    side = RemoteStation(
        str(cfg.robot.name),
        settings,
        limits,
        folder / "blackbox.jsonl",
        dry_run=bool(cfg.dry_run),
        heartbeat_s=float(limits["heartbeat_s"]),
        hold=str(cfg.hold) if _device(cfg) else None,
        button=cfg.button,
    )
    about = side.about
    return side, f"{about.name}, {len(about.joint_names)} joints at {about.rate_hz:g} Hz, in process {side.process.pid}"


def hand(
    cfg: DictConfig, side: RemoteStation, operator: Operator, keys: Keys, say: Callable[[str], None]
) -> tuple[Hand, str]:
    """Who is asked before anything moves, and what lets it move."""
    simulated = side.about.simulated or bool(cfg.dry_run)  # nothing real moves
    mode = str(cfg.approve or ("always" if simulated else "task"))
    if mode == "plan" and cfg.ahead:
        raise ValueError("approve=plan waits for an answer at every step, ahead plans while the arm moves; choose one")
    approver = Approver(
        mode, simulated=simulated, keys=keys, say=say, timeout_s=ANSWER_S, stopped=lambda: operator.stop_requested
    )
    # A device is watched where the arm is, at every tick; a terminal is here.
    source = Unneeded(side.held_by) if _device(cfg) else enable(cfg.hold, simulated=simulated, keys=keys)
    consent = Consent(source, keys)
    return Hand(approver, consent), f"approves {'nothing' if mode == 'always' else f'every {mode}'}; {consent.about}"


def _device(cfg: DictConfig) -> bool:
    return cfg.hold is not None and "/" in str(cfg.hold)


def goal(cfg: DictConfig, side: Side, brain: Brain) -> tuple[tuple[Goal, dict[str, np.ndarray]], str]:
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


def way(cfg: DictConfig, side: Side, brain: Brain) -> tuple[tuple[Route, Rule], str]:
    """The sub-goals: the pictures of a list, or the ways through a recording."""
    subgoals = Subgoals.of(plain(cfg.subgoals))
    assert subgoals is not None
    seen = side.observe().observation
    if subgoals.pictures:
        missing = "no sub-goal picture at {path}; subgoals.pictures=[A,B,...] lists pictures in their order"
        goals = [picture_goal(path, seen, wanted_as=missing) for path in subgoals.pictures]
        return (goals, subgoals.rule), f"{len(goals)} of your own: {', '.join(subgoals.pictures)}"
    # Pictures are cut and resized to what this arm's cameras give, where they give squares.
    shapes = {np.shape(seen[key])[:2] for key in brain.model.required_keys if key.startswith(IMAGES)}
    sizes = {shape[0] for shape in shapes if shape[0] == shape[1]}
    graph = subgoals.graph(brain.model, brain.planner, sizes.pop() if len(sizes) == len(shapes) == 1 else None)
    return (graph, subgoals.rule), f"{len(graph)} frames of {subgoals.data}, {graph.edges} short ways between them"


def listed(agent: MPC) -> dict[str, list[str]]:
    """The names of exactly these sub-goals, where somebody listed them."""
    if agent.route is None or isinstance(agent.route, Finder):
        return {}
    return {"subgoal_hashes": [goal_hash(goal) for goal in agent.route]}


def probe(cfg: DictConfig, side: Side, brain: Brain) -> tuple[Brain, str]:
    """Whether the brain understands what it sees here; turned to the camera where it was asked to be."""
    if not any(key.startswith(IMAGES) for key in brain.model.required_keys):
        return brain, f"{brain.model_name} looks at no picture"
    tabletop = issubclass(find(str(cfg.robot.name)), SimulatedArm)
    if cfg.probe_data is None and side.about.simulated and not tabletop:
        return brain, "not asked: nothing but the tabletop is simulated for it; probe_data=FOLDER asks a recording"
    found = probing.examine(brain.model, cfg.probe_data, plain(cfg.env) if tabletop else None, int(cfg.seed))
    if found.verdict == probing.CALIBRATE and bool(cfg.correct):
        return replace(brain, model=probing.corrected(brain.model, found)), f"{found.reason}; corrected"
    if found.verdict == probing.CALIBRATE:
        raise ValueError(f"{found.reason}: say correct=true to turn it back, or probe=false to go on as it is")
    if found.verdict != probing.GO:
        raise ValueError(f"{found.reason}; or say probe=false")
    return brain, found.reason


def dataset(cfg: DictConfig, brain: Brain) -> tuple[EpisodeRecorder, str]:
    """Where the run goes as an episode; opened before anything moves, so that a wrong folder is not found out after."""
    recorder = EpisodeRecorder(str(cfg.record), brain.model.action_space, str(cfg.robot.name))
    return recorder, f"{cfg.record}, {recorder.episodes} episodes so far"


def _capture(agent: MPC, observation: Mapping[str, object]) -> str:
    """Where the planner captures, capture now all that a search may ask for later: to the end, whatever the deadline, and
    begun both without a last plan and with one."""
    if getattr(agent.planner, "capture", "none") == "none":
        return ""
    budget = agent.budget
    agent.budget = replace(budget, deadline_ms=None)
    warm_up_ms = 0.0
    for _ in range(2):
        agent.act(observation)
        warm_up_ms += 0.0 if agent.last_plan is None else agent.last_plan.warm_up_ms
    agent.budget = budget
    agent.reset()
    return f"; captured in {warm_up_ms / 1000:.0f} s" if warm_up_ms else ""


def rehearse(
    cfg: DictConfig, side: Side, brain: Brain, goal: Goal, way: tuple[Route, Rule] | None
) -> tuple[Rehearsal, str]:
    """Plan once without sending: the goal fits the model, and the time a plan takes is known before anything moves."""
    route, rule = way or (None, None)
    agent = brain.agent(goal, int(cfg.seed), route, rule)
    observation = side.observe().observation
    captured = _capture(agent, observation)
    agent.act(observation)  # the first search also warms up
    if agent.holds or (found := agent.last_plan) is None:
        raise ValueError(f"the planner cannot plan from here: {agent.holds.get(0, 'it made no plan')}")
    space = brain.model.action_space
    actions = space.to_physical(found.actions[0]).double().cpu().numpy()
    doubt = None if found.uncertainty is None else float(found.uncertainty[0].max())
    first = "".join(f"; {words}" for words in agent.events() if way is not None and not agent.holds)
    again = time.perf_counter()
    agent.act(observation)
    took = 1000 * (time.perf_counter() - again)
    if agent.holds:
        raise ValueError(f"the planner cannot plan from here: {agent.holds[0]}")
    agent.reset()
    first = captured + first
    step = 1000 / brain.model.action_space.rate_hz
    slow = f", slower than the {step:.0f} ms of a step: an arm in real time will wait for it" if took > step else ""
    said = f"a plan takes {took:.0f} ms{slow}; nothing was sent{first}"
    most = 1000 * float(cfg.guard.planner_deadline_s)
    if took > most and not side.about.lockstep:
        raise ValueError(
            f"a plan takes {took:.0f} ms, and the arm pauses when it waits for {most:.0f} ms; take a smaller budget, or say "
            f"guard.planner_deadline_s={math.ceil(2 * took / 1000)}"
        )
    if not cfg.ahead:
        return Rehearsal(agent, actions, doubt), said
    delay = int(cfg.ahead)
    live = not side.about.lockstep
    if live and took > delay * step:
        raise ValueError(
            f"a plan takes {took:.0f} ms, and ahead={delay} gives it {delay * step:.0f} ms; "
            f"say ahead={math.ceil(took / step)}, or a smaller budget"
        )
    ahead = brain.agent_ahead(goal, int(cfg.seed), route, rule, delay=delay, foresee=bool(cfg.foresee), live=live)
    return (
        Rehearsal(ahead, actions, doubt),
        f"a plan takes {took:.0f} ms and is begun {delay * step:.0f} ms before it is needed; nothing was sent{first}",
    )


def plan_check(side: Side, found: Rehearsal, *, asks: bool) -> tuple[PlanCheck, str]:
    """The first plan, whole, as the guard sees it from where the arm is."""
    began = time.perf_counter()
    check = side.check(found.actions, found.doubt)
    took = 1000 * (time.perf_counter() - began)
    near = ", ".join(preview.margin(name, value) for name in TOLD if (value := check.margins.get(name)) is not None)
    said = f"{len(found.actions)} steps, {took:.0f} ms; {near or 'no margin is known'}"
    why = "; ".join(check.sentences)
    if check.ok:
        return check, f"{said}{f'; {why}' if why else ''}"
    if asks:
        raise ValueError(f"the plan is not put before anybody: {why}")
    return check, f"would be refused ({why}); nobody is asked, the guard judges every step; {said}"


def draw(side: RemoteStation, check: PlanCheck, limits: Limits, folder: Path, what: str) -> tuple[list[Path], str]:
    """The plan as a recording and a picture, in the run's folder."""
    if len(check.joints) < 2:
        return [], "nothing to draw: the plan was refused before its first step"
    figure = side.figure
    paths = preview.write(folder, check, limits, figure, figure, side.about.rate_hz, what)
    return paths, f"{paths[1]}, in Rerun {paths[0]}"
