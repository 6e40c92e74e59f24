"""Shadowing: somebody else drives, the planner only proposes, and how far the two agree is counted.

The driver is a script in a simulator, a recorded episode, or a person who moves a back-drivable arm by hand. Nothing a
planner proposes here is ever sent.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from planners.benchmark.stats import wilson
from robots.arm import IMAGES, Reading
from robots.loop import Proposal
from robots.recorder import executed as change

STATE, WORLD = "observation.state", "simulator.state"
# Shorter movements than this have no direction worth comparing.
STILL_M = 0.002


# -- counting ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """One step of both.

    Attributes:
        distance_m: between the proposed and the done translation.
        cosine: of the angle between them; None where one of them stood still.
        gripper: difference of the changes of closedness, absolute.
        turn_rad: the largest difference about one axis.
        agree: whether all are within the tolerance.
    """

    distance_m: float
    cosine: float | None
    gripper: float
    turn_rad: float
    agree: bool


@dataclass
class Agreement:
    """Pairs of what was proposed and what was done, and what they come to.

    Attributes:
        position_m: translations this near agree.
        gripper: changes of closedness this near agree.
        turn_rad: turns this near agree, about every axis.
        pairs: what was added.
        skipped: steps whose proposal or measurement was not finite; they agree with nothing and are counted apart.
    """

    position_m: float = 0.02
    gripper: float = 0.3
    turn_rad: float = 0.2
    pairs: list[Pair] = field(default_factory=list)
    skipped: int = 0

    def __post_init__(self) -> None:
        for name in ("position_m", "gripper", "turn_rad"):
            if not getattr(self, name) > 0:
                raise ValueError(f"agreement within {name}={getattr(self, name)} cannot be; it must be above 0")

    def add(self, proposed: np.ndarray, executed: np.ndarray) -> Pair | None:
        """Add a step: both (7,) physical end-effector actions. None when one of them is not finite.

        >>> near = Agreement().add(np.array([0.03, 0, 0, 0, 0, 0, 0]), np.array([0.02, 0, 0, 0, 0, 0, 0]))
        >>> near.agree, round(near.cosine, 3), round(near.distance_m, 3)
        (True, 1.0, 0.01)
        """
        one, other = (np.asarray(action, dtype=np.float64) for action in (proposed, executed))
        if one.shape != (7,) or other.shape != (7,):
            raise ValueError(f"agreement compares actions of 7 numbers; got shapes {one.shape} and {other.shape}")
        if not (np.isfinite(one).all() and np.isfinite(other).all()):
            self.skipped += 1
            return None
        distance = float(np.linalg.norm(one[:3] - other[:3]))
        lengths = float(np.linalg.norm(one[:3])), float(np.linalg.norm(other[:3]))
        cosine = None if min(lengths) < STILL_M else float(np.dot(one[:3], other[:3]) / (lengths[0] * lengths[1]))
        turn = float(np.abs((one[3:6] - other[3:6] + math.pi) % (2 * math.pi) - math.pi).max())
        gripper = abs(float(one[6] - other[6]))
        agree = distance <= self.position_m and gripper <= self.gripper and turn <= self.turn_rad
        self.pairs.append(Pair(distance, cosine, gripper, turn, agree))
        return self.pairs[-1]

    def to_dict(self) -> dict[str, Any]:
        """Numbers for the record."""
        agreed = sum(pair.agree for pair in self.pairs)
        cosines = [pair.cosine for pair in self.pairs if pair.cosine is not None]
        low, high = wilson(agreed, len(self.pairs))
        return {
            "steps": len(self.pairs), "skipped": self.skipped, "agreed": agreed,
            "share": agreed / len(self.pairs) if self.pairs else None, "share_low": low, "share_high": high,
            "within_m": self.position_m, "within_gripper": self.gripper, "within_rad": self.turn_rad,
            "distance_m_median": _median([pair.distance_m for pair in self.pairs]),
            "cosine_median": _median(cosines), "moving_steps": len(cosines),
            "gripper_median": _median([pair.gripper for pair in self.pairs]),
            "turn_rad_median": _median([pair.turn_rad for pair in self.pairs]),
        }  # fmt: skip

    def sentence(self) -> str:
        """The agreement in one line."""
        unjudged = f"; {self.skipped} steps had no finite numbers" if self.skipped else ""
        if not self.pairs:
            return f"no step to compare{unjudged}"
        n = self.to_dict()
        direction = (
            f"direction {math.degrees(math.acos(np.clip(n['cosine_median'], -1, 1))):.0f} degrees off in the median of "
            f"{n['moving_steps']} steps in which both moved"
            if n["moving_steps"]
            else "in no step did both move"
        )
        return (
            f"agreed in {n['agreed']} of {n['steps']} steps, {100 * n['share']:.0f} % (95 % interval "
            f"{100 * n['share_low']:.0f} to {100 * n['share_high']:.0f}, were the steps independent): within "
            f"{100 * self.position_m:g} cm, {self.turn_rad:g} rad and {self.gripper:g} of the gripper; median "
            f"{100 * n['distance_m_median']:.1f} cm apart, {direction}{unjudged}"
        )


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None


# -- who drives --------------------------------------------------------------------------------------------------------


class Driver(Protocol):
    """Who acts in the planner's place.

    Attributes:
        about: who it is, in words.
    """

    about: str

    def act(self, reading: Reading) -> np.ndarray | None:
        """The action (7,) to execute from here through the guard; None once it has nothing more to do."""
        ...


class Scripted:
    """A play policy that knows the simulator's truth: it plays in a copy of the world, put where the arm's world is.

    The copy is why the arm itself may live in another process.

    Args:
        simulator, scene: how the arm's world was made: its simulator and its other settings (task, variation, ...).
        seed: of that world, and of the script's choices and noise.
        policy: a name of `envs.play.POLICIES`; None takes the one of the task.
    """

    def __init__(self, simulator: str, scene: Mapping[str, Any], seed: int, policy: str | None = None) -> None:
        import gymnasium

        import envs
        from envs.play import make_policy

        assert envs  # importing it registers the tabletop with Gymnasium
        task = str(scene.get("task", "push"))
        name = policy or {"push": "push", "reach": "reach"}.get(task, "pick")
        self.about = f"scripted play, {name}, seed {seed}"
        self._env: Any = gymnasium.make(
            "premotor/Tabletop-v0", disable_env_checker=True, simulator=simulator, with_goal=False, **scene
        ).unwrapped
        self._env.reset(seed=seed)
        self._next = make_policy(name, self._env, np.random.default_rng(seed))

    def act(self, reading: Reading) -> np.ndarray | None:
        """The script's next action from where the arm's world is now."""
        state = reading.observation.get(WORLD)
        if state is None:
            raise ValueError("a scripted driver needs a simulated arm: it acts by the simulator's own state")
        self._env.restore_state(state)
        return self._next()

    def close(self) -> None:
        """Free the copy."""
        self._env.close()


class Shadow:
    """In the planner's place somebody else drives; what the planner proposed is kept and compared with what came of it.

    Args:
        driver: who drives.
        agreement: counts.
    """

    def __init__(self, driver: Scripted, agreement: Agreement | None = None) -> None:
        self.driver, self.agreement = driver, agreement or Agreement()
        self._proposed: np.ndarray | None = None

    def instead(self, reading: Reading, proposal: Proposal) -> Proposal:
        """The driver's action, with the planner's in its note."""
        self._proposed = np.asarray(proposal.action, dtype=np.float64)
        done = self.driver.act(reading)
        return _not_sent(np.zeros(7, np.float32) if done is None else np.asarray(done, dtype=np.float32), proposal)

    def let_pass(self) -> None:
        """A step that was driven is over when it is over."""

    def compare(self, executed: np.ndarray) -> None:
        """What came of the step (7,), by measurement."""
        assert self._proposed is not None
        self.agreement.add(self._proposed, executed)

    def close(self) -> None:
        """Free the driver."""
        self.driver.close()


class ByHand:
    """Nothing is driven: a person moves the arm, which is limp or gives way, and the planner looks on.

    Args:
        period_s: a step's length. A planner that takes longer makes the step longer, and what was done in it is scaled back.
        agreement: counts.
        clock, sleep: seconds; the clock is that of the readings.
    """

    def __init__(
        self,
        period_s: float,
        agreement: Agreement | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.agreement = agreement or Agreement()
        self._period_s, self._clock, self._sleep = period_s, clock, sleep
        self._proposed: np.ndarray | None = None
        self._since_s, self._share = 0.0, 1.0

    def instead(self, reading: Reading, proposal: Proposal) -> Proposal:
        """Nothing, with the planner's action in its note."""
        self._proposed, self._since_s = np.asarray(proposal.action, dtype=np.float64), reading.monotonic_s
        return _not_sent(np.zeros(7, np.float32), proposal)

    def let_pass(self) -> None:
        """Wait until the step is over; to be called before one looks at what came of it."""
        self._sleep(max(0.0, self._period_s - (self._clock() - self._since_s)))
        self._share = self._period_s / max(self._clock() - self._since_s, self._period_s)

    def compare(self, executed: np.ndarray) -> None:
        """What the person did in the step (7,), by measurement."""
        assert self._proposed is not None
        self.agreement.add(self._proposed, np.asarray(executed, dtype=np.float64) * self._share)

    def close(self) -> None:
        """Nothing is open."""


def _not_sent(action: np.ndarray, proposal: Proposal) -> Proposal:
    """What is driven, with what was only proposed in its note."""
    x, y, z = 100 * np.asarray(proposal.action[:3], dtype=np.float64)
    # The guard judges what is driven; the model's doubt is about what it only proposed.
    return Proposal(action, None, "shadow", f"proposed {x:+.1f} {y:+.1f} {z:+.1f} cm", proposal.act_ms)


# -- a recorded episode ------------------------------------------------------------------------------------------------


def recorded(root: str | Path, episode: int, cameras: tuple[str, ...], size: int | None = None) -> Iterator[Reading]:
    """The moments of one episode of a LeRobotDataset, as an arm would have shown them.

    Args:
        root: the dataset's folder.
        episode: which one, from 0.
        cameras: whose pictures.
        size: side of the pictures, px; None keeps the dataset's.
    """
    from worldmodel.dataset_files import open_recording
    from worldmodel.dataset_reading import read
    from worldmodel.interface import TABLETOP

    recording = open_recording(Path(root))
    if not 0 <= episode < len(recording.lengths):
        raise ValueError(f"{root} has episodes 0 to {len(recording.lengths) - 1}; there is no episode {episode}")
    start = int(recording.lengths[:episode].sum())
    states = recording.vector(STATE)
    if states.shape[1] != 7:
        raise ValueError(f"{root}: {STATE} has {states.shape[1]} numbers; shadowing reads a tool's pose of 7")
    joints = recording.vector("observation.joints") if "observation.joints" in recording.table.column_names else None
    # Only pictures are read here, whatever the dataset's actions mean.
    seen = read(recording, cameras, TABLETOP, blind_state_size=7, image_size=size)["pictures"]
    for row in range(start, start + int(recording.lengths[episode])):
        observation: dict[str, np.ndarray] = {STATE: states[row]}
        if joints is not None:
            observation["observation.joints"] = joints[row]
        for number, camera in enumerate(cameras):
            observation[f"{IMAGES}{camera}"] = np.array(seen[row][number])
        at = (row - start) / recording.fps
        yield Reading(observation, at, at)


def replay(
    root: str | Path,
    episode: int,
    propose: Callable[[Reading], np.ndarray],
    agreement: Agreement,
    cameras: tuple[str, ...] = ("front",),
    size: int | None = None,
) -> Agreement:
    """Ask the planner at every moment of a recorded episode, and compare with the movement that followed."""
    moments = recorded(root, episode, cameras, size)
    before = next(moments)
    for after in moments:
        agreement.add(propose(before), change(before.observation[STATE], after.observation[STATE]))
        before = after
    return agreement
