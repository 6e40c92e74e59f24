"""From the steps of a control loop to a `Rollout`: what was asked, what the arm did by measurement, what was seen."""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.panda import rotation_from_rpy, tool_rpy
from planners import MPC, PlanRecord, Rollout, StepRecord
from planners.rollout import ARRIVED
from robots.arm import Reading
from robots.loop import Step
from robots.scene import Scene
from robots.side import Side

TRUTH = "observation.environment_state"
STATE = "observation.state"
PICTURE_SIZE = 256


class Recorder:
    """Collects a rollout while an arm is driven; call it with every step after it was sent.

    Args:
        side: of the arm that is driven.
        agent: whose last plan is behind the step.
        about: words for the rollout.
        goal: the goal's observation, for people.
        judged: whether it is the scene's own goal, so that a simulator knows how far it is.
    """

    def __init__(
        self, side: Side, agent: MPC, about: dict[str, Any], goal: dict[str, np.ndarray], *, judged: bool = True
    ) -> None:
        self._side, self._agent = side, agent
        self._picture, self._truth = _picture(side.scene), _truth(side.scene)
        self._was_there = False
        self.rollout = Rollout(about, goal)
        self._judge = side.scene if judged else None
        if self._judge is not None:
            self._was_there, distance = self._judge.judge()
            self.rollout.outcome = {"start_distance_cm": 100 * distance}

    def __call__(self, step: Step) -> None:
        """Look at what came of the step and keep both."""
        after = self._side.observe()
        plan = self._agent.last_plan
        judged: dict[str, float] = {}
        events = [*self._agent.events()]
        if step.verdict.outcome != "passed":
            events.append(f"guard {step.verdict.outcome}: {step.verdict.sentence}")
        if self._judge is not None:
            there, distance = self._judge.judge()
            judged = {"goal_distance_m": distance, "success": float(there)}
            self.rollout.outcome |= {"success": there, "final_distance_cm": 100 * distance}
            if there != self._was_there:
                events.append(f"{ARRIVED if there else 'left the goal again'}, {100 * distance:.1f} cm")
            self._was_there = there
        before = step.reading.observation
        self.rollout.steps.append(
            StepRecord(
                time_s=step.index / float(self.rollout.about["rate_hz"]),
                observation=_kept(step.reading) | self._truth,
                action=np.asarray(step.proposal.action, dtype=np.float32),
                executed=executed(before[STATE], after.observation[STATE]),
                act_ms=step.proposal.act_ms,
                plan=None if plan is None else PlanRecord.of(plan, self._agent.model),
                judged=judged,
                events=tuple(events),
                picture=self._picture,
            )
        )
        self._picture, self._truth = _picture(self._side.scene), _truth(self._side.scene)
        self.rollout.final = _kept(after) | self._truth
        if self._picture is not None:
            self.rollout.final["picture"] = self._picture


def executed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The action (7,) that leads from one `observation.state` (7,) to another."""
    turn = tool_rpy(rotation_from_rpy(after[3:6]) @ rotation_from_rpy(before[3:6]).T)
    turn = (turn + np.pi) % (2 * np.pi) - np.pi
    return np.concatenate([after[:3] - before[:3], turn, after[6:] - before[6:]]).astype(np.float32)


def _kept(reading: Reading) -> dict[str, np.ndarray]:
    return {key: value for key, value in reading.observation.items() if key != "simulator.state"}


def _picture(scene: Scene | None) -> np.ndarray | None:
    return None if scene is None else scene.picture(PICTURE_SIZE)


def _truth(scene: Scene | None) -> dict[str, np.ndarray]:
    return {} if scene is None else {TRUTH: scene.truth()}
