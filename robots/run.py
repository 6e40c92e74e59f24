"""`premotor run`: an arm executes what was rehearsed, watched by the guard, and every movement is on record.

Preflight first, one line a check; then the loop; then hold, park and release, whatever ended it. The exit code says
how it ended: 0 done, 3 refused in preflight, 4 vetoed, 5 stopped by the operator, 6 fault.
"""

from __future__ import annotations

import contextlib
import difflib
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from rich.console import Console

from planners import MPC, Rollout
from planners.background import Background
from planners.progress import Rule
from planners.waypoints import Route
from robots import preflight, readying, report
from robots.arm import Reading, find
from robots.brain import Brain, goal_hash, output_folder, plain
from robots.consent import Answer
from robots.episodes import EpisodeRecorder
from robots.exits import Exit
from robots.hashes import software
from robots.keys import Keys
from robots.limits import Limits
from robots.loop import Proposal, Step, drive
from robots.operator import Operator
from robots.plancheck import PlanCheck
from robots.recorder import Recorder
from robots.remote import RemoteStation
from robots.shadow import ByHand, Scripted, Shadow
from robots.simulated import SimulatedArm
from robots.wanted import region_outcome

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
    with Operator() as operator, Keys() as keys:
        try:
            return int(_run(cfg, folder, operator, keys, say))
        except KeyboardInterrupt:
            say("\nstopped by the operator; nothing moved")
            return int(Exit.STOPPED)


def _run(cfg: DictConfig, folder: Path, operator: Operator, keys: Keys, say: Callable[[str], None]) -> Exit:
    _check_shadow(cfg)
    if cfg.shadow == "hand":
        cfg.dry_run = True  # what a person moves is left as it is: nothing is sent, and no servo switched on
    dry = bool(cfg.dry_run)
    if isinstance(cfg.ahead, bool) or not isinstance(cfg.ahead, int) or cfg.ahead < 0:
        raise ValueError(f"ahead={cfg.ahead} is no number of steps; 0 lets the arm rest while a plan is searched")
    if cfg.steps is not None and (not isinstance(cfg.steps, int) or isinstance(cfg.steps, bool) or cfg.steps < 1):
        raise ValueError(f"steps={cfg.steps} is no number of steps; give a whole number from 1, or null for the task's")
    say(f"premotor run, {'dry run: nothing will be sent' if dry else 'live'}; record in {folder}\n")
    checks = preflight.Preflight(say, operator.interruptible)
    checks.check("disk", lambda: preflight.disk(folder))
    limits = checks.check("limits", lambda: readying.limits(cfg))
    brain = checks.check("model", lambda: readying.brain(cfg, limits))
    side = checks.check("arm", lambda: readying.connect(cfg, folder))
    agent: MPC | None = None
    checked: PlanCheck | None = None
    dataset: EpisodeRecorder | None = None
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
                brain = checks.check("scene probe", lambda: readying.probe(cfg, side, unturned)) or unturned
            if cfg.record:
                dataset = checks.check("dataset", lambda: readying.dataset(cfg, brain))
            hand = checks.check("operator", lambda: readying.hand(cfg, side, operator, keys, say))
            found = checks.check("goal", lambda: readying.goal(cfg, side, brain))
            way: tuple[Route, Rule] | None = None
            if cfg.subgoals is not None and (cfg.subgoals.get("pictures") or cfg.subgoals.get("data")):
                way = checks.check("sub-goals", lambda: readying.way(cfg, side, brain))
            if found is not None and checks.passed:
                goal, goal_seen = found
                rehearsal = checks.check("rehearsal", lambda: readying.rehearse(cfg, side, brain, goal, way))
                if rehearsal is not None:
                    agent = rehearsal.agent
                if rehearsal is not None and hand is not None:
                    asks = hand.approver.mode != "always" and not dry
                    checked = checks.check("plan check", lambda: readying.plan_check(side, rehearsal, asks=asks))
                    if checked is not None and (cfg.preview or (cfg.preview is None and asks)):
                        what = f"{cfg.env.task if side.scene is not None else 'the first plan'}"
                        checks.check("preview", lambda: readying.draw(side, checked, limits, folder, what))
        if operator.stop_requested:
            say("\nstopped by the operator before anything moved")
            return Exit.STOPPED
        if side is None or brain is None or limits is None or agent is None or not checks.passed:
            say(f"\nrefused: {checks.failed[0] if checks.failed else 'a check is missing'}; nothing moved")
            return Exit.REFUSED
        say("")
        assert hand is not None
        return _drive(cfg, side, brain, limits, agent, goal_seen, folder, operator, hand, checked, dataset, say)
    finally:
        if dataset is not None:
            dataset.close()
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
    hand: readying.Hand,
    checked: PlanCheck | None,
    dataset: EpisodeRecorder | None,
    say: Callable[[str], None],
) -> Exit:
    """The loop, and what is written after it."""
    scene = side.scene
    steps = int(cfg.steps) if cfg.steps is not None else REAL_STEPS if scene is None else scene.budget_steps
    about = {
        "task": scene.task if scene is not None else "picture", "simulator": str(cfg.robot.name),
        "seed": int(cfg.seed), "command": "run", "dry_run": bool(cfg.dry_run), **brain.about(),
    }  # fmt: skip
    # A simulator judges by its scene's goal; of another it knows nothing.
    recorder = Recorder(side, agent, about, goal, judged=str(cfg.goal) == "scene")
    header = {
        **about, "arm": side.about.name, "identity": side.about.identity, "calibration_hash": side.about.calibration_hash,
        "limits_hash": limits.hash, "goal_hash": goal_hash(agent.goal), **readying.listed(agent),
        "versions": report.versions(), "software_hash": software(), "config": plain(cfg),
    }  # fmt: skip
    if checked is not None:
        header["plan_check"] = {"ok": checked.ok, "sentences": checked.sentences, "margins": checked.margins}
    if hand.consent.about and hand.approver.mode != "always":
        say(hand.consent.about)
    with contextlib.ExitStack() as open_until_the_end:
        open_until_the_end.callback(hand.consent.close)
        shadow = _shadow(cfg, limits)
        if shadow is not None:
            open_until_the_end.callback(shadow.close)

        def propose(reading: Reading) -> Proposal:
            proposal = _propose(agent, reading)
            return proposal if shadow is None else shadow.instead(reading, proposal)

        def ask(reading: Reading, proposal: Proposal) -> Answer:
            what = f"step of {_moves(proposal.action)} {proposal.note}".strip()
            return hand.approver.ask(
                f"approve this {'plan: ' + what if hand.approver.mode == 'plan' else 'task'}", "this"
            )

        def on_step(step: Step) -> None:
            if shadow is not None:
                shadow.let_pass()
            recorder(step)
            if shadow is not None:
                shadow.compare(recorder.rollout.steps[-1].executed)

        ending = drive(
            side,
            propose,
            operator,
            steps=steps,
            limits=replace(limits, vetoes_in_a_row=sys.maxsize) if isinstance(shadow, ByHand) else limits,
            header=header,
            consent=hand.consent,
            ask=None if hand.approver.mode == "always" or bool(cfg.dry_run) else ask,
            dry_run=bool(cfg.dry_run),
            say=say,
            on_step=on_step,
        )
        unwritten = _keep(dataset, recorder.rollout, say) if dataset is not None and recorder.rollout.steps else []
        if shadow is not None:
            recorder.rollout.outcome |= {"agreement": shadow.agreement.to_dict()}
            say(f"shadow: {shadow.agreement.sentence()}")
    rollout = recorder.rollout
    rollout.outcome |= region_outcome(agent.goal, rollout.final.get("observation.state"))
    unwritten += report.write(folder, rollout, ending)
    report.tell(folder, rollout, ending, say)
    for words in unwritten:
        say(words)
    return Exit.FAULT if unwritten and ending.code is Exit.DONE else ending.code


def _keep(dataset: EpisodeRecorder, rollout: Rollout, say: Callable[[str], None]) -> list[str]:
    """The run as an episode of the dataset; what could not be written is returned, the arm is parked by now."""
    try:
        number = dataset.add_rollout(rollout)
    except Exception as error:
        return [f"the run could not be added to {dataset.root}: {error}"]
    rollout.outcome |= {"dataset": str(dataset.root), "episode": number}
    say(f"recorded: episode {number} of {dataset.root}")
    return []


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


def _check_shadow(cfg: DictConfig) -> None:
    """Refuse a shadow that this arm cannot have."""
    if cfg.shadow is None:
        return
    if cfg.shadow not in ("script", "hand"):
        near = difflib.get_close_matches(str(cfg.shadow), ("script", "hand"), n=1)
        raise ValueError(
            f"shadow={cfg.shadow} is nobody; {f'did you mean {near[0]}?' if near else 'say script or hand'}"
        )
    kind = find(str(cfg.robot.name))
    if cfg.shadow == "script" and not issubclass(kind, SimulatedArm):
        raise ValueError(f"shadow=script, robot={cfg.robot.name}: a script drives simulated arms only")
    if cfg.shadow == "hand" and cfg.record:
        raise ValueError(
            "shadow=hand with record=: a dataset keeps what was asked for, and of a hand nobody asked anything"
        )
    if cfg.shadow == "hand" and getattr(kind, "simulated", False):
        raise ValueError(f"shadow=hand, robot={cfg.robot.name}: nobody can take a simulated arm by the hand")


def _shadow(cfg: DictConfig, limits: Limits) -> Shadow | ByHand | None:
    """Who drives in the planner's place, where somebody does."""
    if cfg.shadow is None:
        return None
    if cfg.shadow == "hand":
        return ByHand(limits.period_s)
    scene = plain(cfg.env)
    settings = {key: scene[key] for key in ("task", "cameras", "image_size", "variation")}
    return Shadow(Scripted(str(cfg.robot.name), settings, int(cfg.seed)))


def _moves(action: np.ndarray) -> str:
    """An action in words."""
    return ", ".join(f"{name} {100 * action[i]:+.1f} cm" for i, name in enumerate(("dx", "dy", "dz")))
