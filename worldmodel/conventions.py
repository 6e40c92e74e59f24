"""What recorded actions mean, decided from how the state answers them, and stated.

An arm goes towards an absolute target in proportion to what is missing, s' - s = k (a - s); it does a change whatever
its state is, s' - s = k a. So the change of the state is regressed on action and state together: the state's share tells
the two apart, the action's size a change from a velocity or degrees from radians, and the step at which the fit is best
whether the recording is shifted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rich.table import Table

# Steps by which an action may have been recorded too late (-) or be answered late (+).
SHIFTS = (0, 1, -1, 2, -2)
# From which share of the state's otherwise unexplained change on an action is said to cause it, and from how many
# moments on anything is said.
KNOWN_FIT = 0.25
ENOUGH = 24
MOST = 20_000
# How much of a change the state itself must account for, next to the action, for the action to be a target.
TARGET_SHARE = 0.2
DECLARED = (
    ("velocity", r"(^|[_.])(d?vel(ocity)?|speed|twist|omega)([_.]|$)"),
    ("change", r"^d(x|y|z|roll|pitch|yaw|r[xyz]|gripper)$|(^|[_.])(delta|rel(ative)?|change|diff)([_.]|$)"),
    ("absolute", r"(^|[_.])(pos|position|target|goal|abs(olute)?|qpos)([_.]|$)"),
)
SCALES = {"degrees for radians": 180 / math.pi, "radians for degrees": math.pi / 180, "mm for m": 1e3, "m for mm": 1e-3}


@dataclass(frozen=True)
class Convention:
    """What one number of the action means.

    Attributes:
        action: its name.
        relation: absolute (a target), change (a step's), velocity (change x rate), constant or unknown.
        state: the name of the state's number it moves, None where unknown.
        fit: share of that number's change, as far as the state alone does not tell it, that the action explains.
        scale: action per unit of the state's target or change (per second for a velocity); 1 in the same units.
        shift: steps after (before, if negative) the action at which the state answers it best.
        unit: guessed from name and range.
        declared: the relation that the name says, if it says one.
        low, high: the recorded range, in the action's own unit.
    """

    action: str
    relation: str
    state: str | None
    fit: float
    scale: float
    shift: int
    unit: str
    declared: str | None
    low: float
    high: float

    @property
    def join(self) -> str:
        """How the actions of several frames become one: what was found, else what is declared, says so."""
        meant = self.declared if self.relation == "unknown" else self.relation
        return {"change": "sum", "velocity": "mean"}.get(meant or "", "last")


@dataclass(frozen=True)
class Conventions:
    """What the actions of a dataset mean.

    Attributes:
        dimensions: one for each number of the action.
        explained: mean share of the state's change (beyond what the state alone tells) that all actions explain
            together; None with too few moments.
        frame: in which the actions are said to be, or "not stated".
        rate_hz: of the recording.
    """

    dimensions: tuple[Convention, ...]
    explained: float | None
    frame: str
    rate_hz: float

    @property
    def joins(self) -> tuple[str, ...]:
        """sum, mean or last for each number: how the actions of skipped frames count."""
        return tuple(each.join for each in self.dimensions)

    def warnings(self) -> list[str]:
        """A sentence for everything that contradicts itself."""
        return [*_contradictions(self.dimensions), *_shifts(self.dimensions), *_nothing(self)]

    def to_dict(self) -> dict[str, Any]:
        """For a checkpoint's card."""
        return {
            "frame": self.frame,
            "rate_hz": self.rate_hz,
            "explained": self.explained,
            "actions": [asdict(each) for each in self.dimensions],
            "warnings": self.warnings(),
        }

    def table(self) -> Table:
        """For people."""
        from rich.table import Table

        told = "too few moments to tell" if self.explained is None else f"{100 * self.explained:.0f} %"
        table = Table(
            title=f"What the actions mean (frame: {self.frame}; {self.rate_hz:g} Hz; explain {told} of the changes)",
            title_justify="left",
        )
        for column in ("action", "is", "of the state's", "fit", "scale", "answered after", "unit", "range"):
            table.add_column(column, justify="right" if column in ("fit", "scale") else "left")
        for each in self.dimensions:
            known = each.state is not None
            table.add_row(
                each.action, each.relation, each.state or "-", f"{each.fit:.2f}" if known else "-",
                f"{each.scale:.3g}" if known else "-", f"{each.shift:+d} steps" if known and each.shift else "-",
                each.unit, f"{each.low:.4g} .. {each.high:.4g}",
            )  # fmt: skip
        return table


def examine(
    states: np.ndarray,
    actions: np.ndarray,
    lengths: np.ndarray,
    *,
    action_names: Sequence[str],
    state_names: Sequence[str],
    rate_hz: float,
    frame: str | None = None,
) -> Conventions:
    """Decide what each number of an action means.

    Args:
        states: (frames, P), the episodes one after the other.
        actions: (frames, A); the action of a frame is done between it and the next.
        lengths: (episodes,) frames of each.
        action_names, state_names: A and P of them.
        rate_hz: frames a second.
        frame: in which the actions are said to be.
    """
    low, high = actions.min(0), actions.max(0)
    states, actions = states.astype(np.float64), actions.astype(np.float64)
    shifts, moments = _moments(lengths)
    fits = [_pairs(states, actions, moments, shift) for shift in shifts] if len(moments) >= ENOUGH else []
    # An action of the same name, or at the same place, as a number of the state is first asked whether it moves that.
    alike = _alike(action_names, state_names)
    found = []
    for i, name in enumerate(action_names):
        declared = next((kind for kind, words in DECLARED if re.search(words, name.lower())), None)
        span = float(low[i]), float(high[i])
        if is_constant(*span):
            found.append(Convention(name, "constant", None, 0.0, 0.0, 0, _unit(name, None, span), declared, *span))
            continue
        best = _best([fit[0][i] for fit in fits], shifts, alike[i])
        if best is None:
            found.append(Convention(name, "unknown", None, 0.0, 0.0, 0, _unit(name, None, span), declared, *span))
            continue
        j, at = best
        fit, by_action, by_state, share = (part[i, j] for part in fits[at])
        relation, scale = _relation(float(by_action), float(by_state), float(share), float(fit), rate_hz, declared)
        seen = (float(states[:, j].min()), float(states[:, j].max()))
        unit = _unit(name, state_names[j], tuple(scale * edge for edge in seen) if relation == "absolute" else seen)
        found.append(
            Convention(name, relation, state_names[j], float(fit), scale, shifts[at], unit, declared, *span)
        )  # fmt: skip
    explained = _explained(states, actions, moments) if len(moments) >= ENOUGH else None
    return Conventions(tuple(found), explained, frame or "not stated", rate_hz)


def is_constant(low: float, high: float) -> bool:
    """Whether a number with this range never really changes."""
    return high - low <= 1e-6 * max(1.0, abs(low), abs(high))


# -- regressions -------------------------------------------------------------------------------------------------------


def _moments(lengths: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
    """Which shifts can be compared, and the frames that have a next one under all of them."""
    for shifts in (SHIFTS, SHIFTS[:1]):
        before, after = -min(shifts), max(shifts) + 1
        starts = np.cumsum(lengths) - lengths
        rows = [
            np.arange(start + before, start + length - after) for start, length in zip(starts, lengths, strict=True)
        ]
        moments = np.concatenate(rows) if rows else np.zeros(0, np.int64)
        if len(moments) >= ENOUGH:
            break
    return shifts, moments[:: max(1, len(moments) // MOST)]


def _pairs(
    states: np.ndarray, actions: np.ndarray, moments: np.ndarray, shift: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Change of s_j on (a_i, s_j), for every i and j.

    Returns:
        (A, P) each: what a_i explains of the change that s_j alone does not, both slopes, and how much s_j counts
        next to a_i.
    """
    at = moments + shift
    s, a, y = states[at], actions[moments], states[at + 1] - states[at]
    s, a, y = (part - part.mean(0) for part in (s, a, y))
    ss, sa, sy = (np.maximum(part.std(0), 1e-300) for part in (s, a, y))
    n = len(moments)
    ya = (a.T @ y) / n / sa[:, None] / sy[None]
    as_ = (a.T @ s) / n / sa[:, None] / ss[None]
    ys = ((s * y).mean(0) / ss / sy)[None]
    # Numbers that do not move, and an action that is its state (nothing can be told apart then), explain nothing.
    apart = 1 - as_**2
    valid = (apart > 1e-10) & (1 - ys**2 > 1e-10) & (sy > 1e-9 * np.maximum(1.0, ss))[None] & (sa > 1e-12)[:, None]
    apart = np.where(valid, apart, 1.0)
    numerator = ya - ys * as_
    partial = np.where(valid, numerator**2 / (apart * np.where(valid, 1 - ys**2, 1.0)), 0.0)
    standard_a, standard_s = numerator / apart, (ys - ya * as_) / apart
    share = np.where(np.abs(standard_a) > 1e-12, -standard_s / np.maximum(np.abs(standard_a), 1e-12), 0.0)
    return np.clip(partial, 0, 1), standard_a * sy / sa[:, None], standard_s * sy / ss, share


def _best(fits: list[np.ndarray], shifts: Sequence[int], alike: int | None) -> tuple[int, int] | None:
    """Which number of the state (P of them) an action moves and under which shift; None where no fit says so."""
    if not fits:
        return None
    over_shifts = np.max(fits, 0)
    j = int(over_shifts.argmax())
    if alike is not None and over_shifts[alike] > over_shifts[j] - 0.1:
        j = alike
    if over_shifts[j] < KNOWN_FIT:
        return None
    each = np.array([fit[j] for fit in fits])
    at = int(each.argmax())
    # Another step than its own must leave at most half as much unexplained.
    better = each[at] - each[0] > 0.02 and 1 - each[at] < 0.5 * (1 - each[0])
    return (j, at) if better or each[0] < KNOWN_FIT else (j, 0)


def _relation(
    by_action: float, by_state: float, share: float, fit: float, rate_hz: float, declared: str | None
) -> tuple[str, float]:
    """What an action is and its scale, from the slopes of the change on action and state."""
    if share > TARGET_SHARE:
        return "absolute", -by_state / by_action
    scale = 1 / by_action
    from_change, from_velocity = abs(math.log(abs(scale))), abs(math.log(abs(scale) / rate_hz))
    relation = "velocity" if from_velocity < from_change else "change"
    # An arm that does half of what it is told looks like one told twice as much: the name is believed unless the size
    # is plainly the other's.
    if declared in ("change", "velocity") and not (fit > 0.8 and min(from_change, from_velocity) < math.log(1.3)):
        relation = declared
    return relation, scale / rate_hz if relation == "velocity" else scale


def _explained(states: np.ndarray, actions: np.ndarray, moments: np.ndarray) -> float | None:
    """Mean over the state's moving numbers: what all actions explain of the change that the state alone does not."""
    moments = moments[:: max(1, len(moments) // MOST)]
    s, y = states[moments], states[moments + 1] - states[moments]
    s, a, y = (part - part.mean(0) for part in (s, actions[moments], y))
    moving = y.std(0) > 1e-9 * np.maximum(1.0, s.std(0))
    free = len(moments) - s.shape[1] - a.shape[1] - 1
    if not moving.any() or free < ENOUGH:
        return None
    s, a = (part / np.maximum(part.std(0), 1e-12) for part in (s, a))
    y = y[:, moving]

    def left(x: np.ndarray) -> np.ndarray:
        # Directions without any spread (an action that is its state) are no directions.
        return ((y - x @ (np.linalg.pinv(x, rcond=1e-5) @ y)) ** 2).sum(0) / (len(x) - x.shape[1] - 1)

    alone, both = left(s), left(np.concatenate([s, a], 1))
    return float(np.clip(1 - both / np.maximum(alone, 1e-300), 0, 1).mean())


# -- names and units ---------------------------------------------------------------------------------------------------


def _alike(actions: Sequence[str], states: Sequence[str]) -> list[int | None]:
    """For each action the state's number of the same name, else that of the same place where there are as many."""

    def plain(name: str) -> str:
        words = r"^d(?=(x|y|z|roll|pitch|yaw|r[xyz]|gripper)$)|delta|target|action|state|pos(ition)?|[_.\s]"
        return re.sub(words, "", name.lower())

    named = {plain(name): place for place, name in enumerate(states)}
    same = len(actions) == len(states)
    return [named.get(plain(name), place if same else None) for place, name in enumerate(actions)]


def _unit(name: str, state: str | None, span: tuple[float, ...]) -> str:
    """Guessed from the names and the range of the state (of the action where no state belongs to it)."""
    words, most = f"{name} {state or ''}".lower(), max(map(abs, span))
    if re.search(r"grip|finger|closed|jaw", words):
        return "0 to 1" if most <= 1.05 else ("0 to 100" if most <= 105 else "unknown")
    if re.search(r"roll|pitch|yaw|rot|angle|joint|shoulder|elbow|wrist|waist|pan|lift|flex|\br[xyz]\b|motor", words):
        return "degrees (or percent)" if most > 2.1 * math.pi else "radians"
    if re.search(r"(^|[ _.])d?[xyz]($|[ _.])|(^|[ _.])(delta_[xyz]|ee|eef|tool|tcp)", words):
        return "mm" if most > 5 else "m"
    return "unknown"


def _contradictions(dimensions: Sequence[Convention]) -> list[str]:
    said = {"absolute": "absolute targets", "change": "changes", "velocity": "velocities"}
    groups: dict[tuple[str, str], list[Convention]] = {}
    for each in dimensions:
        if each.declared and each.relation in said and each.declared != each.relation and each.fit > 0.5:
            groups.setdefault((each.declared, each.relation), []).append(each)
    return [
        f"the names say that {', '.join(each.action for each in group)} are {said[declared]}; the data say "
        f"{said[found]} of {', '.join(str(each.state) for each in group)} (fit {min(e.fit for e in group):.2f}): "
        "what counts is the data"
        for (declared, found), group in groups.items()
    ] + [
        f"action {each.action} is {words} ({each.scale:.4g} of it for 1 of {each.state}): the two are in other units"
        for each in dimensions
        for words, scale in SCALES.items()
        if each.relation == "absolute" and abs(each.scale / scale - 1) < 0.1
    ]


def _shifts(dimensions: Sequence[Convention]) -> list[str]:
    sentences = []
    for shift in sorted({each.shift for each in dimensions if each.state is not None and each.shift}):
        names = ", ".join(each.action for each in dimensions if each.state is not None and each.shift == shift)
        steps = f"{abs(shift)} step{'s' if abs(shift) > 1 else ''}"
        if shift < 0:
            sentences.append(
                f"the state answers {names} {steps} before the action: the recording is misaligned (an action belongs to "
                "the frame it is sent at, not to the one it led to)"
            )
        else:
            sentences.append(f"the state answers {names} {steps} late: the recording is misaligned, or the arm slow")
    return sentences


def _nothing(conventions: Conventions) -> list[str]:
    if conventions.explained is None or conventions.explained >= 0.05:
        return []
    return [
        f"the actions explain {100 * conventions.explained:.1f} % of how the state changes: are they this robot's, and "
        "does observation.state hold what they move?"
    ]
