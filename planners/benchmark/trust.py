"""`premotor bench suite=model`: is the model to be trusted? Five questions, asked of held-out episodes.

Does it know when it is wrong, how fast does it drift, is the impossible surprising, do actions matter, does the object
matter. Any brain behind the interface is asked; what one does not offer is said so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import torch

import envs
from planners.benchmark import trust_plots
from planners.benchmark.brains import make_model, weights_digest
from planners.benchmark.report import write_whole
from planners.benchmark.stats import Resampling
from planners.benchmark.suite import SUITES
from planners.benchmark.tables import Column, Table
from planners.benchmark.trust_actions import ACTIONS, judge_actions
from planners.benchmark.trust_episodes import Held, hold_out
from planners.benchmark.trust_events import SURPRISE, judge_surprise
from planners.benchmark.trust_figures import Answer, Figure, Seen, encode
from planners.benchmark.trust_object import OBJECT, judge_object
from planners.benchmark.trust_rollouts import DRIFT, REACH, UNCERTAINTY, judge_drift, judge_uncertainty, roll_out
from worldmodel.interface import WorldModel

assert envs  # importing it registers the worlds

QUESTIONS = {
    UNCERTAINTY: "Does it know when it is wrong?",
    DRIFT: "How fast does it drift?",
    SURPRISE: "Is the impossible surprising?",
    ACTIONS: "Do actions matter?",
    OBJECT: "Does the object matter?",
}
_LEAST_STEPS, _LEAST_EPISODES = REACH + 2, 2


def judge(
    model: WorldModel, episodes: Sequence[Held], seed: int = 0, on_answer: Callable[[str], None] | None = None
) -> dict[str, Answer]:
    """The answers to all questions, by question.

    Args:
        model: any brain.
        episodes: held out, all of one length.
        seed: of what is drawn: alternatives, and episodes for the intervals.
        on_answer: told which question was answered.
    """
    resampling = Resampling(len(episodes), seed=seed)
    seen = Seen.by(model, episodes)
    rollouts = roll_out(model, seen)
    asked: dict[str, Callable[[], Answer]] = {
        UNCERTAINTY: lambda: judge_uncertainty(rollouts, resampling),
        DRIFT: lambda: judge_drift(rollouts, resampling),
        SURPRISE: lambda: judge_surprise(model, seen, resampling),
        ACTIONS: lambda: judge_actions(model, seen, resampling, seed),
        OBJECT: lambda: judge_object(model, seen, resampling),
    }
    answers = {}
    for question, ask in asked.items():
        answers[question] = ask()
        if on_answer is not None:
            on_answer(question)
    return answers


def run(words: Mapping[str, Any], models: Sequence[Mapping[str, Any]], folder: Path, about: Mapping[str, Any]) -> int:
    """Hold episodes out, judge each model on them, write `model.json`, `model.md` and pictures, print the table.

    Args:
        words: the benchmark's settings.
        models: the configs of the brains.
        folder: for all that is written; held-out episodes stay there, so that the same command goes on.
        about: command and versions, for the record.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    _check(words)
    torch.set_num_threads(int(words["threads"]))
    console = Console()
    first, episodes, steps = int(words["seed"]), int(words["episodes"]), int(words["steps"])
    world = {key: words[key] for key in ("simulator", "cameras", "image_size", "variation", "task")}
    brains = [make_model(config, str(words["task"]), int(words["threads"])) for config in models]
    env: Any = gymnasium.make(SUITES["tabletop"], disable_env_checker=True, **world, with_goal=False).unwrapped
    results = []
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console,
        transient=True,
    ) as progress:  # fmt: skip
        _check_eyes(brains, env, first)
        bar = progress.add_task("held-out episodes", total=episodes)
        held = hold_out(
            env, world, range(first, first + episodes), steps, folder / "episodes", lambda: progress.advance(bar)
        )
        env.close()
        bar = progress.add_task("questions", total=len(brains) * len(QUESTIONS))
        for config, model in zip(models, brains, strict=True):
            answers = judge(model, held, on_answer=lambda _: progress.advance(bar))
            results.append(_result(config, answers))
    facts = {**about, "world": world, "seed": first, "episodes": episodes, "steps": steps}
    written = [_write(folder, facts, results)]
    for config, result in zip(models, results, strict=True):
        written += trust_plots.draw(result["curves"], folder, _label(config), str(config["name"]))
    written.append(_write_page(folder, facts, results, written[1:]))
    for question, title in QUESTIONS.items():
        console.print(_table(title, _lines(results, question), [result["model"] for result in results]).drawn())
    console.print(f"{folder}: {', '.join(path.name for path in written)}")
    return 0


# -- the door ----------------------------------------------------------------------------------------------------------


def _check(words: Mapping[str, Any]) -> None:
    """Refuse what cannot be judged before anything is made."""
    if not isinstance(words["task"], str):
        raise ValueError(f"suite=model plays in one world; task is {words['task']}, give one")
    if words.get("planners") is not None:
        raise ValueError("suite=model judges the model alone, no planner; leave out planners=")
    if int(words["episodes"]) < _LEAST_EPISODES:
        raise ValueError(
            f"episodes is {words['episodes']}; intervals over episodes need at least {_LEAST_EPISODES}, good ones 40"
        )
    if int(words["steps"]) < _LEAST_STEPS:
        raise ValueError(
            f"steps is {words['steps']}; futures are compared {REACH} steps ahead, so an episode needs at least "
            f"{_LEAST_STEPS}"
        )
    if int(words["seed"]) < 0:
        raise ValueError(f"seed is {words['seed']}; it must not be negative")


def _check_eyes(brains: Sequence[WorldModel], env: Any, seed: int) -> None:
    """Every brain must be able to see this world: cameras and size of the pictures."""
    observation, _ = env.reset(seed=seed)
    frames = {**observation, "simulator.state": env.save_state()}
    for model in brains:
        encode(model, {key: value[None] for key, value in frames.items()})


def _label(config: Mapping[str, Any]) -> str:
    """A model's name, for files."""
    return str(config["name"]).strip("/").replace("/", "_").replace(":", "_")


# -- what is written and shown -----------------------------------------------------------------------------------------


def _result(config: Mapping[str, Any], answers: Mapping[str, Answer]) -> dict[str, Any]:
    return {
        "model": str(config["name"]),
        "model_settings": dict(config),
        "weights": weights_digest(config),
        "figures": [one.to_dict() for answer in answers.values() for one in answer.figures],
        "curves": {question: answer.curves for question, answer in answers.items()},
    }


def _write(folder: Path, facts: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> Path:
    """`model.json`: every figure and every curve."""
    path = folder / "model.json"
    text = json.dumps({**facts, "models": list(results)}, indent=1, allow_nan=False, default=str)
    write_whole(path, (text + "\n").encode())
    return path


def _lines(results: Sequence[Mapping[str, Any]], question: str) -> list[tuple[str, list[Figure | None]]]:
    """The lines of a question: (name, each model's figure)."""
    known = [
        {row["name"]: Figure(**{k: v for k, v in row.items() if k != "verdict"}) for row in result["figures"]
         if row["question"] == question}
        for result in results
    ]  # fmt: skip
    names = dict.fromkeys(name for one in known for name in one)
    return [(name, [one.get(name) for one in known]) for name in names]


def _said(one: Figure | None) -> str:
    """A value with its interval, for people."""
    if one is None or one.value is None:
        return ""
    value, low, high = ("more" if end is None else _number(end, one.unit) for end in (one.value, one.low, one.high))
    return f"{value}{one.unit} [{low}, {high}]"


def _number(value: float, unit: str) -> str:
    digits = 0 if unit == " %" else 1 if unit else 3 if abs(value) < 0.0995 else 2
    return f"{value:.{digits}f}"


def _held_against(one: Figure | None) -> str:
    if one is None or one.against is None:
        return ""
    sign = "at least" if one.better == "higher" else "at most"
    return f"bar: {sign} {one.against:g}" if one.bar else _number(one.against, one.unit) + one.unit


def _table(title: str, lines: Sequence[tuple[str, list[Figure | None]]], models: Sequence[str]) -> Table:
    """One question's figures; several models side by side."""
    columns = [Column("figure", "left", "folded"), Column("n"), Column("against")]
    for model in models:
        columns += [Column(f"{model} (95 %)"), Column("verdict", "left", paint=_coloured)]
    rows = []
    for name, figures in lines:
        there = next(one for one in figures if one is not None)
        cells = [text for one in figures for text in (_said(one), "" if one is None else one.verdict)]
        rows.append([name, str(there.n or ""), _held_against(there), *cells])
    return Table(title, columns, rows)


def _coloured(verdict: str) -> str:
    return f"[{_COLOURS.get(verdict.split(',')[0], 'dim')}]{verdict}[/]" if verdict else ""


_COLOURS = {"met": "green", "better": "green", "missed": "red", "worse": "red"}


def _write_page(
    folder: Path, facts: Mapping[str, Any], results: Sequence[Mapping[str, Any]], pictures: Sequence[Path]
) -> Path:
    """`model.md`: the same for a reader, with the pictures."""
    models = [result["model"] for result in results]
    seeds = f"{facts['seed']} to {facts['seed'] + facts['episodes'] - 1}"
    world = facts["world"]
    page = [
        f"# Can {' and '.join(models)} be trusted?",
        f"{facts['episodes']} episodes of {facts['steps']} steps of mixed play, seeds {seeds}, {world['simulator']}, "
        f"variation {world['variation']}. 95 % intervals over episodes (bootstrap).",
        f"```bash\n{facts['command']}\n```",
    ]
    for question, title in QUESTIONS.items():
        page.append(f"## {title}\n\n{_table(title, _lines(results, question), models).markdown()}")
        page += [f"![{title}]({path.name})" for path in pictures if path.stem.endswith(f"-{question}")]
    path = folder / "model.md"
    write_whole(path, ("\n\n".join(page) + "\n").encode())
    return path
