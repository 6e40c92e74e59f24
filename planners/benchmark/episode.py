"""One judged episode: a fixed number of steps, success decided at the end, never a start that is already solved."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import gymnasium
import numpy as np

from planners.goal import Goal
from planners.mpc import MPC
from planners.observation import IMAGES
from planners.rollout import ARRIVED, PlanRecord, Rollout, StepRecord

TRUTH = "observation.environment_state"
SIMULATOR = "simulator.state"
_PICTURE_SIZE = 256


@dataclass(frozen=True)
class EpisodeResult:
    """What one episode came to.

    Attributes:
        seed: of the world and of the agent's noise.
        solved_at_start: a start that needed nothing; it counts for nothing.
        success: the world's word after the last step.
        start_distance_cm, final_distance_cm: to the goal, of what the task judges.
        steps: taken; always the task's budget.
        act_ms: wall time of every step's decision, from observation to action.
        futures_per_plan: median over the steps.
        discarded: futures that were not finite.
        holds: steps at which the agent could not decide and held.
        seconds: the whole episode took.
    """

    seed: int
    solved_at_start: bool
    success: bool
    start_distance_cm: float
    final_distance_cm: float
    steps: int
    act_ms: tuple[float, ...]
    futures_per_plan: float
    discarded: int
    holds: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """For a line of JSON or a row of a table."""
        return asdict(self) | {"act_ms": list(self.act_ms)}


def visible_goal(goal: Mapping[str, np.ndarray], keys: tuple[str, ...]) -> Goal:
    """What a brain may know of the goal: the pictures it looks at, and for the simulator its state; no more."""
    missing = [key for key in keys if key.startswith(IMAGES) and key not in goal]
    if missing:
        seen = ", ".join(key for key in goal if key.startswith(IMAGES)) or "no picture"
        raise ValueError(f"the model needs {missing[0]}, the world shows {seen}; set cameras=")
    shown = {key: goal[key] for key in keys if key in goal and (key.startswith(IMAGES) or key == SIMULATOR)}
    return Goal.from_observation(shown)


def run_episode(
    make_agent: Callable[[Goal, int], MPC],
    env: gymnasium.Env[Any, Any],
    seed: int,
    *,
    about: Mapping[str, Any] | None = None,
    record: bool = False,
    keys: tuple[str, ...] = (),
) -> tuple[EpisodeResult, Rollout | None]:
    """Run one episode.

    Args:
        make_agent: (goal, seed) -> the agent that is to act.
        env: a tabletop, or what offers as much.
        seed: of everything.
        about: added to the rollout's own words.
        record: whether to keep the rollout, with pictures for people; it changes nothing about the episode.
        keys: the observation keys the brain requires of a goal.

    Returns:
        The result, and the rollout where one was asked for.
    """
    began = time.perf_counter()
    world: Any = env.unwrapped
    observation, info = env.reset(seed=seed)
    start_cm = 100 * float(info["goal_distance_m"])
    if info["success"]:
        return EpisodeResult(seed, True, False, start_cm, start_cm, 0, (), 0.0, 0, 0, time.perf_counter() - began), None
    agent = make_agent(visible_goal(info["goal"], keys), seed)
    rollout = None
    if record:
        space = agent.model.action_space
        words = {"seed": seed, "model": agent.model.name, "planner": type(agent.planner).__name__}
        words |= {"action_names": list(space.names), "action_high": list(space.high), "rate_hz": space.rate_hz}
        rollout = Rollout({**words, **(about or {})}, _goal_for_people(world, info["goal"]))
    act_ms: list[float] = []
    futures: list[int] = []
    discarded = holds = 0
    steps = int(world.task.budget_steps)
    for step in range(steps):
        if SIMULATOR in agent.model.required_keys:
            observation = {**observation, SIMULATOR: world.save_state()}
        asked = time.perf_counter()
        action = agent.act(observation)
        act_ms.append(1000 * (time.perf_counter() - asked))
        plan = agent.last_plan
        if plan is not None:
            futures.append(plan.futures)
            discarded += plan.discarded
        holds += bool(agent.holds)
        seen = {**observation, TRUTH: info[TRUTH]}
        picture = world.render(size=_PICTURE_SIZE) if rollout is not None else None
        was_there = bool(info["success"])
        observation, _, _, _, info = env.step(action)
        if rollout is not None:
            rollout.steps.append(
                StepRecord(
                    time_s=step / agent.model.action_space.rate_hz,
                    observation=seen,
                    action=action,
                    executed=np.asarray(info["action.executed"]),
                    act_ms=act_ms[-1],
                    plan=None if plan is None else PlanRecord.of(plan, agent.model),
                    judged={"goal_distance_m": info["goal_distance_m"], "success": float(info["success"])},
                    events=(*agent.events(), *_turn(was_there, info)),
                    picture=picture,
                )
            )
    final_cm = 100 * float(info["goal_distance_m"])
    if rollout is not None:
        rollout.final = {**observation, TRUTH: info[TRUTH], "picture": world.render(size=_PICTURE_SIZE)}
        rollout.outcome = {
            "success": bool(info["success"]), "start_distance_cm": start_cm, "final_distance_cm": final_cm,
        }  # fmt: skip
    result = EpisodeResult(
        seed=seed,
        solved_at_start=False,
        success=bool(info["success"]),
        start_distance_cm=start_cm,
        final_distance_cm=final_cm,
        steps=steps,
        act_ms=tuple(act_ms),
        futures_per_plan=float(np.median(futures)) if futures else 0.0,
        discarded=discarded,
        holds=holds,
        seconds=time.perf_counter() - began,
    )
    return result, rollout


def _turn(was_there: bool, info: Mapping[str, Any]) -> tuple[str, ...]:
    """Arriving and leaving, in words."""
    if bool(info["success"]) == was_there:
        return ()
    words = "left the goal again" if was_there else ARRIVED
    return (f"{words}, {100 * info['goal_distance_m']:.1f} cm",)


def _goal_for_people(world: Any, goal: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The goal's observation with a larger picture, taken in the goal's own state; the world is put back."""
    now = world.save_state()
    world.restore_state(goal[SIMULATOR])
    picture = world.render(size=_PICTURE_SIZE)
    world.restore_state(now)
    return {**{key: value for key, value in goal.items() if key != SIMULATOR}, "picture": picture}
