"""What only a simulation can say of its scene: the goal, whether it is reached, pictures for people."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Scene(Protocol):
    """A simulated arm's surroundings; for choosing goals and for reports. A planner never sees the judgement."""

    @property
    def task(self) -> str:
        """What is to be done, in a word."""
        ...

    @property
    def goal(self) -> dict[str, np.ndarray]:
        """The scene's goal: an observation of a state the simulator was really in."""
        ...

    @property
    def budget_steps(self) -> int:
        """Policy steps the task gives."""
        ...

    def judge(self) -> tuple[bool, float]:
        """The simulator's own word: whether the task is done, and the distance to the goal in metres."""
        ...

    def truth(self) -> np.ndarray:
        """The object's position and quaternion wxyz (7,)."""
        ...

    def picture(self, size: int = 256) -> np.ndarray:
        """The front camera for people, (size, size, 3) uint8."""
        ...

    def goal_picture(self, size: int = 256) -> np.ndarray:
        """The goal as the front camera would see it, (size, size, 3) uint8; the world is put back."""
        ...
