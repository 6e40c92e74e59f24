"""Play in an episode's own scene, before its goal is asked for: what an arm may know that was let play there.

The object is the same one (kind, colour, size, mass, friction), and so are table, light and camera. Play begins where the
episode will begin, again and again, as a person puts things back; or anywhere, object and arm drawn anew. The goal it does
not know.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from envs.play import POLICIES, make_policy
from planners.observation import to_batch
from planners.subgoals import Subgoals
from worldmodel.interface import WorldModel

# How each task is played where nothing is said: a grasp that misses is tried again.
OWN_POLICY = {"reach": "reach", "push": "push", "lift": "regrasp", "pick_place": "regrasp"}
SIMULATOR = "simulator.state"
# Frames encoded at a time.
_CHUNK = 64
# Sets play's randomness apart from that of the episode with the same seed.
_PLAY = 0x9A7


def policy_of(subgoals: Subgoals, task: str) -> str:
    """The play policy for a task; an unknown one is refused."""
    policy = subgoals.policy or OWN_POLICY.get(task)
    if policy not in POLICIES:
        raise ValueError(f"subgoals.policy is {policy!r}; known are {', '.join(POLICIES)}")
    return policy


def played(
    world: gymnasium.Env[Any, Any],
    begun: gymnasium.Env[Any, Any],
    seed: int,
    subgoals: Subgoals,
    model: WorldModel,
) -> tuple[Tensor, Tensor]:
    """What a brain makes of play in the scene of an episode.

    Args:
        world: a tabletop without goals to play in, with the episode's cameras.
        begun: the episode's own, at its start; it is only looked at.
        seed: of the episode; it decides the play, whose first episodes are the same however many there are.
        subgoals: how much is played, and how.
        model: the brain.

    Returns:
        Latents (N, *L) on the model's device, N = play x (play_steps + 1), and the steps from each to the next (N,): 1, or
        infinite at an episode's end.
    """
    assert subgoals.play is not None
    table, start = _tabletop(world), _tabletop(begun)
    policy = policy_of(subgoals, table.task.name)
    frames: list[dict[str, Any]] = []
    for number in range(subgoals.play):
        rng = np.random.default_rng([seed, number, _PLAY])
        observation, _ = world.reset(seed=int(rng.integers(2**31)), options={"looks": start.world.scene})
        if subgoals.play_from == "start":
            table.restore_state(start.save_state())
            observation = table.observe()
        act = make_policy(policy, world, rng)
        for step in range(subgoals.play_steps + 1):
            if SIMULATOR in model.required_keys:
                observation = {**observation, SIMULATOR: table.save_state()}
            frames.append(observation)
            if step < subgoals.play_steps:
                observation, *_ = world.step(act())
    onward = torch.ones(len(frames))
    onward[subgoals.play_steps :: subgoals.play_steps + 1] = torch.inf
    with torch.no_grad():
        latents = torch.cat([
            model.encode({key: torch.from_numpy(value) for key, value in to_batch(part, model.required_keys).items()})
            for part in (frames[first : first + _CHUNK] for first in range(0, len(frames), _CHUNK))
        ])  # fmt: skip
    return latents, onward


def _tabletop(env: gymnasium.Env[Any, Any]) -> Any:
    return env.unwrapped
