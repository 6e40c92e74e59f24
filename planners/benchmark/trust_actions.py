"""Do actions matter: another action from the same moment must give another future, and the true one the nearest.

A brain that copies, or that has learned what usually comes next, can predict well and is of no use to a planner.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from planners.benchmark.stats import Resampling, ratio
from planners.benchmark.trust_figures import Answer, Figure, Seen, apart, figure, imagine
from worldmodel.interface import WorldModel

ACTIONS = "action"
HORIZON = 5
ALTERNATIVES = 16
# Every so many steps a moment to start from.
_STRIDE = 5
# Where a dimension's actions add up to less than this (of full steps), turning them round asks nothing.
_MOVES = 0.5
_LEAST = 10
# Inferring one action without a gradient: the best of random ones, thrice, each time nearer to the best.
_SAMPLES, _ROUNDS, _BEST, _FIRST_STD = 64, 3, 8, 0.7


def judge_actions(model: WorldModel, seen: Seen, resampling: Resampling, seed: int = 0) -> Answer:
    """How far other actions lead, how often the true ones lead nearest to what happened, what can be read off a step."""
    count, steps = seen.actions.shape[:2]
    starts = range(0, steps - HORIZON + 1, _STRIDE)
    rng = np.random.default_rng(seed)
    names = model.action_space.names
    spread, change, right, turned_right, moves = [], [], [], [], []
    for start in starts:
        true = seen.actions[:, start : start + HORIZON]
        others = _others(seen.actions, rng)
        turned = true[:, None].expand(-1, len(names), -1, -1).clone()
        for dimension in range(len(names)):
            turned[:, dimension, :, dimension] *= -1
        fixed = torch.stack([true, -true, torch.zeros_like(true)], 1)
        futures = imagine(model, seen.latents[:, start], torch.cat([fixed, others, turned], 1))[:, :, -1]
        now, then = seen.latents[:, start], seen.latents[:, start + HORIZON]
        led = apart(model, futures, futures[:, 0])
        spread.append(np.stack([led[:, 1], led[:, 2], led[:, 3 : 3 + ALTERNATIVES].mean(1)], 1))
        change.append(apart(model, now, then))
        missed = apart(model, futures, then)
        right.append(_first_and_rank(missed[:, 0], missed[:, 3 : 3 + ALTERNATIVES]))
        rivals = missed[:, 3 + ALTERNATIVES :]
        turned_right.append((missed[:, :1] < rivals) + 0.5 * (missed[:, :1] == rivals))
        moves.append((true.sum(1).abs() >= _MOVES).cpu().numpy())
    answer = Answer()
    n = count * len(starts)
    changed = np.stack(change).sum(0)
    led_apart = np.stack(spread).sum(0)  # (E, 3)
    for column, words in enumerate(("turned round", "of nothing at all", "of other episodes, mean")):
        estimate = resampling.estimate(lambda w, c=column: ratio(w @ led_apart[:, c], w @ changed))
        name = f"futures of actions {words}: apart from the true actions' future, over the true change"
        answer.figures.append(figure(ACTIONS, name, estimate, n, better=""))
    first, rank = np.stack(right).mean(0).T
    chance = 1 / (ALTERNATIVES + 1)
    estimate = resampling.estimate(lambda w: ratio(100 * (w @ first), w.sum()))
    name = f"true actions lead nearest among {ALTERNATIVES} of other episodes, {HORIZON} steps"
    answer.figures.append(figure(ACTIONS, name, estimate, n, unit=" %", against=100 * chance))
    estimate = resampling.estimate(lambda w: ratio(w @ rank, w.sum()))
    middle = 1 + ALTERNATIVES / 2
    name = f"their mean rank of {ALTERNATIVES + 1}"
    answer.figures.append(figure(ACTIONS, name, estimate, n, against=middle, better="lower"))
    won, asked = np.stack(turned_right), np.stack(moves)  # (starts, E, A)
    answer.curves = {"names": list(names), "turned": []}
    for dimension, name in enumerate(names):
        top, bottom = (won * asked)[..., dimension].sum(0), asked[..., dimension].sum(0)
        words = f"nearer than with {name} turned round"
        if bottom.sum() < _LEAST:
            line = Figure(ACTIONS, words, None, n=int(bottom.sum()), note="too few moments with such actions")
            answer.figures.append(line)
            answer.curves["turned"].append([None, None, None])
            continue
        estimate = resampling.estimate(lambda w, a=top, b=bottom: ratio(100 * (w @ a), w @ b))
        line = figure(ACTIONS, words, estimate, int(bottom.sum()), unit=" %", against=50.0)
        answer.figures.append(line)
        answer.curves["turned"].append([line.value, line.low, line.high])
    _infer(model, seen, starts, resampling, seed, answer)
    return answer


def _others(actions: Tensor, rng: np.random.Generator) -> Tensor:
    """Alternatives (E, N, H, A): what another episode did at some moment."""
    count, steps = actions.shape[:2]
    whose = (np.arange(count)[:, None] + rng.integers(1, count, (count, ALTERNATIVES))) % count
    when = rng.integers(0, steps - HORIZON + 1, (count, ALTERNATIVES))
    index = torch.from_numpy(when[..., None] + np.arange(HORIZON)).to(actions.device)
    return actions[torch.from_numpy(whose).to(actions.device)[..., None], index]


def _first_and_rank(true: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(E,), (E, N) -> (E, 2): the chance of being first and the mean rank, equals in any order."""
    nearer, level = (others < true[:, None]).sum(1), (others == true[:, None]).sum(1)
    return np.stack([np.where(nearer == 0, 1.0 / (1 + level), 0.0), 1 + nearer + level / 2], 1)


# -- reading an action off a step --------------------------------------------------------------------------------------


def _infer(model: WorldModel, seen: Seen, starts: range, resampling: Resampling, seed: int, answer: Answer) -> None:
    """Find the action whose imagined step lies nearest to what happened; compare it with the true one."""
    chosen = starts[::2]
    true = np.stack([seen.actions[:, start].clamp(-1, 1).cpu().numpy() for start in chosen], 1).astype(np.float64)
    guess = np.stack([_nearest_action(model, seen, start, seed) for start in chosen], 1)
    n = true.shape[0] * true.shape[1]
    lengths = np.linalg.norm(true, axis=-1) * np.linalg.norm(guess, axis=-1)
    cosine = ((true * guess).sum(-1) / np.maximum(lengths, 1e-9)).mean(1)
    estimate = resampling.estimate(lambda w: ratio(w @ cosine, w.sum()))
    name = "cosine of the action inferred from one step with the true one"
    answer.figures.append(figure(ACTIONS, name, estimate, n, against=0.0))
    answer.curves["inferred"] = []
    for dimension, word in enumerate(model.action_space.names):
        estimate = resampling.estimate(lambda w, d=dimension: _pearson(true[..., d], guess[..., d], w))
        line = figure(ACTIONS, f"correlation of inferred and true {word}", estimate, n, against=0.0)
        answer.figures.append(line)
        answer.curves["inferred"].append([line.value, line.low, line.high])


def _nearest_action(model: WorldModel, seen: Seen, start: int, seed: int) -> np.ndarray:
    """(E, A): by cross-entropy on the feature distance to what came next; no gradient is asked of the brain."""
    now, then = seen.latents[:, start], seen.latents[:, start + 1]
    count, size = seen.actions.shape[0], seen.actions.shape[2]
    rng = np.random.default_rng([seed, start])
    mean, std = np.zeros((count, 1, size)), np.full((count, 1, size), _FIRST_STD)
    for _ in range(_ROUNDS):
        tried = np.clip(mean + std * rng.standard_normal((count, _SAMPLES, size)), -1.0, 1.0)
        actions = torch.from_numpy(tried).to(seen.actions)
        missed = apart(model, imagine(model, now, actions[:, :, None])[:, :, 0], then)
        best = np.take_along_axis(tried, np.argsort(missed, axis=1, kind="stable")[:, :_BEST, None], 1)
        mean, std = best.mean(1, keepdims=True), best.std(1, keepdims=True) + 0.02
    return mean[:, 0]


def _pearson(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> float:
    """Correlation of (E, M) and (E, M) with episodes weighted (E,); 0 where one of them never changes."""
    w = np.broadcast_to(weights[:, None], x.shape)
    x, y = x - (w * x).sum() / w.sum(), y - (w * y).sum() / w.sum()
    spread = float(np.sqrt((w * x**2).sum() * (w * y**2).sum()))
    return float((w * x * y).sum() / spread) if spread > 1e-9 else 0.0
