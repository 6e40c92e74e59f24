"""The tasks: how long one has, what counts as done, and how a goal comes about.

A goal is never drawn, it is *reached*: a script steps the simulator from the episode's start to a real state, which
is photographed and remembered; then the world is put back to the start.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from envs import play
from envs.tabletop import ACTION_HIGH, ACTION_LOW, WORKSPACE_HIGH, WORKSPACE_LOW

LIFT_HEIGHT_M = 0.05


@dataclass(frozen=True)
class Task:
    """One thing to achieve.

    Attributes:
        name: the word a config uses.
        subject: whose place is judged, the `tool` or the `object`.
        tolerance_m: how near to the goal counts as done.
        budget_steps: policy steps one has.
        apart_m: (least, most) distance between start and goal.
        about: one line for people.
    """

    name: str
    subject: str
    tolerance_m: float
    budget_steps: int
    apart_m: tuple[float, float]
    about: str

    def distance(self, state: np.ndarray, thing: np.ndarray, goal: Mapping[str, np.ndarray]) -> float:
        """Metres between the subject now and in the goal, from observation.state (7,) and the object's pose (7,)."""
        if self.subject == "tool":
            return float(np.linalg.norm(state[:3] - goal["observation.state"][:3]))
        return float(np.linalg.norm(thing[:3] - goal["observation.environment_state"][:3]))

    def success(
        self, state: np.ndarray, thing: np.ndarray, goal: Mapping[str, np.ndarray], resting_height: float
    ) -> bool:
        """Whether the task is done in this state."""
        if self.distance(state, thing, goal) > self.tolerance_m:
            return False
        if self.name == "lift":
            return bool(thing[2] - resting_height >= LIFT_HEIGHT_M)
        if self.name == "pick_place":
            return bool(abs(thing[2] - resting_height) < 0.01)
        return True


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("reach", "tool", 0.02, 15, (0.08, 0.40), "bring the tool to where the goal image shows it"),
        Task("push", "object", 0.03, 30, (0.05, 0.20), "push the object to where the goal image shows it"),
        Task("lift", "object", 0.03, 30, (0.055, 0.40), "hold the object where the goal image shows it, in the air"),
        Task("pick_place", "object", 0.04, 45, (0.08, 0.40), "set the object down where the goal image shows it"),
    )
}


def get_task(name: str) -> Task:
    """A task by its name."""
    if name not in TASKS:
        raise ValueError(f"no task is called {name!r}; known are {', '.join(TASKS)}")
    return TASKS[name]


def clear(tool: np.ndarray, object_xy: np.ndarray) -> bool:
    """Whether a tool at (3,) leaves room for an object at (2,): beside it, or above it."""
    return bool(np.linalg.norm(tool[:2] - object_xy) > 0.09 or tool[2] > 0.11)


def start_pose(task: Task, object_xy: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """Where the arm starts: tool position (3,), rpy (3,), closedness; clear of the object."""
    position = np.array([0.45, 0.0, 0.15])
    for _ in range(100):
        position = rng.uniform([0.36, -0.20, 0.03], [0.60, 0.20, 0.22])
        if clear(position, object_xy):
            break
    closed = {"push": 1.0, "lift": 0.0, "pick_place": 0.0}.get(task.name, float(rng.random() < 0.5))
    return position, np.array([math.pi, 0.0, 0.0]), closed


def goal_script(task: Task, hand: play.Hand, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Physical actions (7,) that lead from the start to a state worth being a goal."""
    if task.name == "reach":
        target = rng.uniform(WORKSPACE_LOW + [0.03, 0.04, 0.01], WORKSPACE_HIGH - [0.06, 0.04, 0.09])
        script = play.reach(hand, target, 0.0, float(hand.gripper()))
    elif task.name == "push":
        script = play.push(hand, play.push_target(hand, rng, 0.06, 0.17), speed=0.7)
    elif task.name == "lift":
        place = rng.uniform([0.40, -0.15, 0.10], [0.58, 0.15, 0.19])
        script = play.lift(hand, place)
    else:
        script = play.pick_place(hand, play.push_target(hand, rng, 0.09, 0.22))
    for action in script:
        yield np.clip(action, ACTION_LOW, ACTION_HIGH)
