"""How fast the tabletop is here: pictures with and without the fast path, a policy step, both together.

`python -m envs.measure` prints what docs/results.md shows. Rates are of one process; the median of several rounds, the
ways taken in turn, because a shared machine is noisy.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from envs.mujoco_world import MujocoWorld
from envs.tabletop import ACTION_HIGH, Scene, Variation


def rates(size: int = 96, count: int = 200, rounds: int = 5) -> dict[str, float]:
    """Events a second: `picture`, `picture, fine`, `step` (physics and inverse kinematics), `step and picture`.

    Args:
        size: side of the `front` picture, px.
        count: events a round.
        rounds: how often each way is timed.
    """
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (count, 7)) * ACTION_HIGH * [1, 1, 1, 0.2, 0.2, 0.5, 0.5]
    worlds = {"plain": MujocoWorld(), "fine": MujocoWorld(fine_pictures=True)}
    for world in worlds.values():
        world.apply_scene(Scene.draw(Variation(), np.random.default_rng(1)))
        world.place_arm(np.array([0.45, 0.1, 0.15]), np.array([np.pi, 0.0, 0.0]), 1.0)

    def picture(world: MujocoWorld) -> Callable[[np.ndarray], object]:
        return lambda _: world.render("front", size)

    def both(action: np.ndarray) -> object:
        worlds["plain"].step(action)
        return worlds["plain"].render("front", size)

    ways: dict[str, Callable[[np.ndarray], object]] = {
        "picture": picture(worlds["plain"]),
        "picture, fine": picture(worlds["fine"]),
        "step": worlds["plain"].step,
        "step and picture": both,
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            way(actions[0])
            began = time.perf_counter()
            for action in actions:
                way(action)
            took[name].append((time.perf_counter() - began) / count)
    for world in worlds.values():
        world.close()
    return {name: 1.0 / statistics.median(seconds) for name, seconds in took.items()}


if __name__ == "__main__":
    for pixels in (64, 96):
        for name, rate in rates(pixels).items():
            print(f"{pixels} px  {name:18s} {rate:7.0f} /s   {1000 / rate:.2f} ms")
