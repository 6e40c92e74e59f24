"""Is the impossible surprising: how far what is seen next lies from what was foreseen, in ordinary steps and in events.

Surprise is the error of a one-step prediction, by itself, over the uncertainty that was foretold, and over the change
that is seen. Its AUROC is how often an event's step is more surprising than an ordinary one.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from planners.benchmark.stats import Resampling, auroc
from planners.benchmark.trust_episodes import COLOUR, TELEPORT, VANISH, Arrays
from planners.benchmark.trust_figures import Answer, Figure, Seen, apart, encode, figure, imagine, not_offered
from planners.observation import IMAGES
from worldmodel.interface import WorldModel

SURPRISE = "surprise"
FROZEN, BACKWARDS = "frozen", "backwards"
EVENTS = {
    TELEPORT: "the object leaps 5 to 14 cm",
    VANISH: "the object vanishes",
    COLOUR: "the object changes colour",
    FROZEN: "the picture stands still while the arm moves",
    BACKWARDS: "what is seen runs backwards",
}
RAW, DOUBTED, CHANGED = "error", "error over uncertainty", "error over change"
# A step in which the tool moves so far is one in which a frozen or reversed picture can be noticed.
_MOVES_M = 0.015
_TINY = 1e-12


def judge_surprise(model: WorldModel, seen: Seen, resampling: Resampling) -> Answer:
    """AUROC of every event's steps against all ordinary steps, for each kind of surprise."""
    answer = Answer()
    count, steps = seen.actions.shape[:2]
    before = seen.latents[:, :-1].flatten(0, 1)
    after = seen.latents[:, 1:].flatten(0, 1)
    actions = seen.actions.flatten(0, 1)
    ordinary = _surprise(model, before, actions, after)
    owner = np.repeat(np.arange(count), steps)
    answer.curves = {"kinds": list(ordinary), "ordinary": {kind: _sample(values) for kind, values in ordinary.items()}}
    for event, words in EVENTS.items():
        where = _where(seen, event)
        then = _seen_instead(model, seen, event, where)
        if then is None:
            answer.figures.append(not_offered(SURPRISE, words, "the model looks at no picture"))
            continue
        if not len(where):
            answer.figures.append(Figure(SURPRISE, words, None, note="no such step in these episodes"))
            continue
        start = [(episode, step + (event == BACKWARDS)) for episode, step in where]
        latents = _at(seen.latents, start)
        surprise = _surprise(model, latents, _at(seen.actions, where), then)
        whose = np.array([episode for episode, _ in where])
        for kind, values in surprise.items():
            area = auroc(values, ordinary[kind])
            estimate = resampling.estimate(lambda w, area=area, whose=whose: area(w[whose], w[owner]))
            name = f"AUROC, {words}: {kind}"
            answer.figures.append(figure(SURPRISE, name, estimate, len(where), against=0.5))
        answer.curves[event] = {kind: _sample(values) for kind, values in surprise.items()}
    return answer


def _surprise(model: WorldModel, before: Tensor, actions: Tensor, after: Tensor) -> dict[str, np.ndarray]:
    """Each kind of surprise (N,) at what is seen (N, *L) after actions (N, A) in latents (N, *L)."""
    future = imagine(model, before, actions[:, None, None])[:, 0, 0]
    error = apart(model, future, after)
    kinds = {RAW: error}
    with torch.inference_mode():
        doubt = model.uncertainty(future)
    if doubt is not None:
        kinds[DOUBTED] = error / np.maximum(doubt.double().cpu().numpy(), _TINY)
    kinds[CHANGED] = error / np.maximum(apart(model, before, after), _TINY)
    return kinds


def _where(seen: Seen, event: str) -> list[tuple[int, int]]:
    """The (episode, step) pairs of an event: untouched moments, or, for what concerns the arm, steps in which it moves."""
    pairs = []
    for index, held in enumerate(seen.episodes):
        if event in held.events:
            steps = held.event_steps
        else:
            tool = held.observations["observation.state"][:, :3]
            steps = np.flatnonzero(np.linalg.norm(np.diff(tool, axis=0), axis=1) > _MOVES_M)
        pairs += [(index, int(step)) for step in steps]
    return pairs


def _seen_instead(model: WorldModel, seen: Seen, event: str, where: list[tuple[int, int]]) -> Tensor | None:
    """What the brain sees after each of these steps (N, *L); None of an event it has no eyes for."""
    if event == BACKWARDS:
        return _at(seen.latents, where)
    if event == FROZEN and not any(key.startswith(IMAGES) for key in model.required_keys):
        return None
    if not where:
        return seen.latents[:0, 0]
    frames: dict[str, list[np.ndarray]] = {key: [] for key in model.required_keys}
    for index, held in enumerate(seen.episodes):
        steps = [step for episode, step in where if episode == index]
        for key, values in frames.items():
            if event == FROZEN:
                late = 0 if key.startswith(IMAGES) else 1
                values.append(held.observations[key][np.array(steps, np.int64) + late])
            else:
                values.append(held.events[event][key])
    return encode(model, _joined(frames))


def _joined(frames: dict[str, list[np.ndarray]]) -> Arrays:
    return {key: np.concatenate(values) for key, values in frames.items()}


def _at(values: Tensor, where: list[tuple[int, int]]) -> Tensor:
    """(E, T, ...) at (episode, step) pairs -> (N, ...)."""
    episodes, steps = (torch.tensor([pair[axis] for pair in where], dtype=torch.long) for axis in (0, 1))
    return values[episodes.to(values.device), steps.to(values.device)]


def _sample(values: np.ndarray) -> list[float]:
    """At most 101 quantiles: enough to draw a distribution by."""
    return [float(value) for value in np.quantile(values, np.linspace(0, 1, min(101, len(values))))]
