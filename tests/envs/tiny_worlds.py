"""Tiny Gymnasium worlds that tests play in: a bright square that an action moves over a dark field."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

PLACE = Box(-1.0, 1.0, (2,), np.float64)
PICTURE = Box(0, 255, (24, 32, 3), np.uint8)


class Dot(gymnasium.Env[Any, Any]):
    """The square, at `place` (2,) in [-1, 1].

    Args:
        shows: what is observed: `flat`, `goal` (a goal dict), `picture`, `channels` (a picture, channels first),
            `two` (two pictures and a place), `nothing` (a choice, no numbers).
        ends_after: the episode is over after so many steps.
        early: so are the first episodes that have an even seed, after two.
        broken_after: then an observation holds NaN.
        careless: resets do not follow the seed.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self, render_mode: str | None = None, shows: str = "flat", ends_after: int = 1000, early: bool = False,
        broken_after: int = 1000, careless: bool = False,
    ) -> None:  # fmt: skip
        self.render_mode = render_mode
        self.shows, self.ends_after, self.early = shows, ends_after, early
        self.broken_after, self.careless = broken_after, careless
        self.action_space = Box(np.array([-1.0, 0.5], np.float32), np.array([1.0, 1.5], np.float32))
        self.observation_space = {
            "flat": PLACE,
            "goal": Dict(observation=PLACE, achieved_goal=PLACE, desired_goal=PLACE),
            "picture": PICTURE,
            "channels": Box(0, 255, (3, 24, 32), np.uint8),
            "two": Dict({"pixels": Dict(top=PICTURE, side=PICTURE), "agent_pos": PLACE}),
            "nothing": Discrete(2),
        }[shows]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = (np.random.default_rng() if self.careless else self.np_random).uniform(-1, 1, 2)
        self.steps, self.limit = 0, 2 if self.early and seed is not None and seed % 2 == 0 else self.ends_after
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self.steps += 1
        self.place = np.clip(self.place + 0.1 * (action - [0.0, 1.0]), -1, 1)
        return self._observe(), 0.0, self.steps >= self.limit, False, {}

    def render(self) -> Any:
        return self._picture()

    def _picture(self) -> np.ndarray:
        picture = np.full((24, 32, 3), 40, np.uint8)
        x, y = (4 + (self.place + 1) / 2 * 18).astype(int)
        picture[max(0, y - 4) : y + 3, x : x + 6] = (230, 200, 40)
        return picture

    def _observe(self) -> Any:
        place = np.full(2, np.nan) if self.steps >= self.broken_after else self.place.copy()
        return {
            "flat": place,
            "goal": {"observation": place, "achieved_goal": 2 * place, "desired_goal": np.zeros(2)},
            "picture": self._picture(),
            "channels": self._picture().transpose(2, 0, 1),
            "two": {"pixels": {"top": self._picture(), "side": 255 - self._picture()}, "agent_pos": place},
            "nothing": 0,
        }[self.shows]


class Screen(Dot):
    """Shows itself in a window only."""

    metadata = {"render_modes": ["human"], "render_fps": 10}  # noqa: RUF012


class Old(Dot):
    """Knows no `render_mode`; its observation is the picture."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__(shows="picture")


class Timeless(Dot):
    """Says nothing of its rate."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012


class Acting(Dot):
    """Acts in another way."""

    def __init__(self, space: str = "free", **settings: Any) -> None:
        super().__init__(**settings)
        self.action_space = {
            "free": Box(-np.inf, np.inf, (2,), np.float32),
            "choice": Discrete(3),
            "whole": Box(0, 5, (2,), np.int64),
        }[space]


class Hungry(Dot):
    """Wants a package that nobody has."""

    def __init__(self, **settings: Any) -> None:
        import gymnasium_of_nobody  # noqa: F401  # pyright: ignore[reportMissingImports]

        super().__init__(**settings)


# Gymnasium's time limit is shorter than what tests ask for: it is lifted.
gymnasium.register("Dot-v0", entry_point=Dot, max_episode_steps=5)
for _kind in (Screen, Old, Timeless, Acting, Hungry):
    gymnasium.register(f"{_kind.__name__}-v0", entry_point=_kind)
