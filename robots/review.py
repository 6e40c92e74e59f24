"""`premotor review`: what was imagined, what happened, where they part, why a plan was chosen, in words and Rerun."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from planners import Rollout, RolloutError
from planners.rollout import StepRecord
from robots import blackbox, viewer
from robots.arm import IMAGES
from robots.box_words import describe_box

STATE = "observation.state"
KINDS = ("run", "demo", "plan")
DAMAGED = 1


def main(cfg: DictConfig) -> int:
    """Review the run the configuration names, or the latest one; 1 when `verify` finds damage that is not repaired."""
    console = Console(highlight=False)
    folder = find(cfg.run)
    console.print(f"[bold]{folder}[/], {time.strftime('%d %B %Y, %H:%M', time.localtime(folder.stat().st_mtime))}\n")
    sound = True
    if cfg.verify or cfg.repair:
        sound = _check(folder, bool(cfg.repair), console)
    for place in rollouts(folder):
        console.print(f"[bold cyan]{escape(place.name)}[/]")
        for line in _told(place):
            console.print(f"  {escape(line)}", soft_wrap=True)
        console.print()
    box = folder / "blackbox.jsonl"
    if box.is_file():
        console.print("[bold cyan]the arm's side[/] (black box)")
        for line in describe_box(blackbox.read(box), blackbox.verify(box)):
            console.print(f"  {escape(line)}", soft_wrap=True)
        console.print()
    recordings = [path for path in sorted(folder.glob("*.rrd")) if not path.name.endswith(".damaged.rrd")]
    recordings.sort(key=lambda path: path.name == "preview.rrd")  # what was done before what was planned
    if cfg.open:
        if not recordings:
            raise ValueError(f"{folder} has no recording to open; a run that was killed leaves only its black box")
        shown = viewer.open_recording(recordings[0])
        if not viewer.has_screen():
            console.print(f"Serving {recordings[0]} to this machine only; Ctrl-C ends it.")
            if shown.wait():
                raise RuntimeError(f"the viewer ended with exit status {shown.returncode}")
    elif recordings:
        console.print(f"In Rerun: [bold]{viewer.called('premotor')} review run={folder} open=true[/]", soft_wrap=True)
    return 0 if sound else DAMAGED


def find(given: object) -> Path:
    """The folder to review: the one given, else the latest of outputs/{run,demo,plan}."""
    if given:
        folder = Path(str(given))
        if not folder.is_dir():
            raise FileNotFoundError(f"no run at {folder}; leave run= away to review the latest")
        if not _is_run(folder):
            raise ValueError(f"{folder} holds no run: no black box, no rollout, no recording")
        return folder
    found = [folder for kind in KINDS for folder in Path("outputs", kind).glob("*") if _is_run(folder)]
    if not found:
        raise FileNotFoundError("nothing to review in outputs/run, outputs/demo or outputs/plan; try `premotor demo`")
    return max(found, key=lambda folder: folder.stat().st_mtime)


def rollouts(folder: Path) -> list[Path]:
    """Where the rollouts of a run lie."""
    places = [folder / "rollout", *sorted((folder / "rollouts").glob("*")), folder]
    return [place for place in places if (place / "rollout.json").is_file()]


def _told(place: Path) -> list[str]:
    try:
        return describe(Rollout.load(place))
    except RolloutError as error:
        return [str(error)]


def _is_run(folder: Path) -> bool:
    marks = ("blackbox.jsonl", "rollout.rrd", "rollout/rollout.json", "rollout.json")
    return folder.is_dir() and (any((folder / mark).is_file() for mark in marks) or (folder / "rollouts").is_dir())


# -- in words --------------------------------------------------------------------------------------------------------


def describe(rollout: Rollout) -> list[str]:
    """A rollout in sentences: the outcome, what was imagined, what happened, where they part, why."""
    lines = [_outcome(rollout)]
    planned = [step for step in rollout.steps if step.plan is not None and not step.plan.held]
    if planned:
        lines += [_imagined(rollout, planned)]
        lines += _parting(rollout)
        lines += [_why(rollout.steps.index(planned[0]), planned[0])]
        if len(planned) > 1:
            lines += [_why(rollout.steps.index(planned[-1]), planned[-1])]
        lines += _doubt(planned)
    lines += _events(rollout)
    return lines


def _outcome(rollout: Rollout) -> str:
    about, outcome = rollout.about, rollout.outcome
    words = f"{about.get('task', 'rollout')} in {about.get('simulator', 'an unnamed world')}, seed {about.get('seed')}"
    words += f", {about.get('model')} with {about.get('planner')}: {_count(len(rollout.steps), 'step')}"
    if "final_distance_cm" in outcome:
        verdict = "the goal is reached" if outcome["success"] else "the goal is not reached"
        words += f"; {verdict}, {outcome['final_distance_cm']:.1f} cm away at the end"
        words += f" and {outcome['start_distance_cm']:.1f} cm at the start"
    elif "start_distance_cm" in outcome:
        words += f"; the goal is {outcome['start_distance_cm']:.1f} cm away"
    if "in_region" in outcome:
        words += f"; the arm ends {'inside' if outcome['in_region'] else 'outside'} the region it was told"
    return words + "."


def _imagined(rollout: Rollout, planned: list[StepRecord]) -> str:
    """What the first plan meant to happen, and what its steps came to."""
    first = planned[0]
    index = rollout.steps.index(first)
    assert first.plan is not None
    horizon = len(first.plan.actions)
    move = 100 * first.plan.actions[:, :3].sum(0)
    seconds = horizon / float(rollout.about.get("rate_hz", 5.0))
    words = f"Imagined: the plan of step {index} moves the tool by {_vector(move)} cm in {seconds:.1f} s."
    before, after = first.observation.get(STATE), _state_at(rollout, index + horizon)
    if before is None or after is None:
        return words
    moved = 100 * (after[:3] - before[:3])
    return (
        f"{words} Happened: by then it had moved by {_vector(moved)} cm, with {horizon - 1} newer plans in between; "
        f"{np.linalg.norm(moved - move):.1f} cm from where the first plan saw it."
    )


def _parting(rollout: Rollout) -> list[str]:
    """The step at which the arm did least what was asked, and the one at which the picture was least as imagined."""
    lines = []
    gaps = [
        (float(np.linalg.norm(step.action[:3] - step.executed[:3])), index, step)
        for index, step in enumerate(rollout.steps)
        if np.isfinite(step.executed).all()
    ]
    if gaps:
        gap, index, step = max(gaps, key=lambda item: item[0])
        asked, did = (100 * float(np.linalg.norm(a[:3])) for a in (step.action, step.executed))
        lines.append(
            f"They part most in movement at step {index}: {asked:.1f} cm asked, {did:.1f} cm done, {100 * gap:.1f} cm "
            f"apart (median {100 * float(np.median([g for g, _, _ in gaps])):.1f} cm)."
        )
    surprises = list(_surprises(rollout))
    if surprises:
        worst, index = max(surprises)
        usual = float(np.median([value for value, _ in surprises]))
        lines.append(
            f"They part most in sight after step {index}: the picture differs from the imagined one by {worst:.1f} of "
            f"255 grey levels (median {usual:.1f})."
        )
    return lines


def _surprises(rollout: Rollout) -> list[tuple[float, int]]:
    """(mean absolute difference, step) between the frame imagined for the next moment and the one then seen."""
    found = []
    for index, step in enumerate(rollout.steps):
        seen = _picture_at(rollout, index + 1)
        if step.plan is None or step.plan.frames is None or seen is None or seen.shape != step.plan.frames[0].shape:
            continue
        difference = np.abs(seen.astype(np.float32) - step.plan.frames[0].astype(np.float32)).mean()
        found.append((float(difference), index))
    return found


def _why(index: int, step: StepRecord) -> str:
    """Why the plan of a step was chosen."""
    plan = step.plan
    assert plan is not None
    terms = " + ".join(f"{name} {value:.2f}" for name, value in plan.terms.items())
    costs = plan.cost_per_iteration
    finite = plan.elite_costs[np.isfinite(plan.elite_costs)]
    words = f"Why at step {index}: of {plan.futures} imagined futures it cost least, {plan.cost:.2f} ({terms})"
    if len(finite) > 1:
        words += f"; the next best {len(finite) - 1} cost up to {finite[-1]:.2f}"
    if len(costs) > 1:
        words += f"; searching brought the best cost from {costs[0]:.2f} to {costs[-1]:.2f}"
    return f"{words}; {plan.stopped}."


def _doubt(planned: list[StepRecord]) -> list[str]:
    doubts = [
        (float(step.plan.uncertainty.max()), number)
        for number, step in enumerate(planned)
        if step.plan is not None and step.plan.uncertainty is not None
    ]
    if not doubts:
        return []
    worst, number = max(doubts)
    usual = float(np.median([value for value, _ in doubts]))
    return [f"Doubt: {usual:.2f} in the median plan (1 = calibrated), most {worst:.2f}, in plan {number}."]


def _events(rollout: Rollout, most: int = 8) -> list[str]:
    told = [(index, event) for index, step in enumerate(rollout.steps) for event in step.events]
    lines = [f"Step {index}: {event}." for index, event in told[:most]]
    return [*lines, f"... and {len(told) - most} more events."] if len(told) > most else lines


def _state_at(rollout: Rollout, index: int) -> np.ndarray | None:
    if index < len(rollout.steps):
        return rollout.steps[index].observation.get(STATE)
    return rollout.final.get(STATE) if index == len(rollout.steps) else None


def _picture_at(rollout: Rollout, index: int) -> np.ndarray | None:
    seen = rollout.steps[index].observation if index < len(rollout.steps) else rollout.final
    return seen.get(f"{IMAGES}front")


def _vector(values: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:+.1f}" for value in values) + ")"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


# -- verify and repair -----------------------------------------------------------------------------------------------


def _check(folder: Path, repair: bool, console: Console) -> bool:
    """Look at every file of a run; with `repair`, mend what can be mended. Whether all is sound now."""
    sound = True

    def tell(good: bool, name: str, finding: str) -> None:
        console.print(f"{'[green]ok[/]' if good else '[red]no[/]'}  {name:16s} {escape(finding)}", soft_wrap=True)

    box = folder / "blackbox.jsonl"
    if box.is_file():
        found = blackbox.verify(box)
        if repair and not found.sound and found.lines:
            dropped = found.total_bytes - found.sound_bytes
            found = blackbox.repair(box)
            tell(found.sound, box.name, f"repaired: {dropped} broken bytes dropped, {found.lines} lines kept")
        else:
            tell(found.sound, box.name, found.sentence)
        sound &= found.sound
    for recording in sorted(folder.glob("*.rrd")):
        if recording.name.endswith(".damaged.rrd"):
            continue
        good, finding = viewer.verify(recording)
        if not good and repair:
            good, finding = viewer.repair(recording)
        tell(good, recording.name, finding)
        sound &= good
    for place in rollouts(folder):
        good, finding = _check_rollout(place)
        tell(good, place.name, finding)
        sound &= good
    console.print()
    return sound


def _check_rollout(place: Path) -> tuple[bool, str]:
    try:
        return True, f"whole, {_count(len(Rollout.load(place).steps), 'step')}"
    except RolloutError as error:
        return False, str(error)
