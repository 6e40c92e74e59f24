"""Play policies: seeded, scripted from the simulator's truth, noisy on purpose.

A world model learns from what happens, so play must make things happen: approach, push, grasp, carry, put down, miss,
and wander. Every policy is a generator of physical actions (7,) over a `Hand`, the few readings a script needs; both
simulators offer them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import Any, Protocol

import numpy as np

from envs.panda import tool_rpy
from envs.tabletop import ACTION_HIGH, ACTION_LOW, OBJECT_HIGH, OBJECT_LOW, WORKSPACE_HIGH, WORKSPACE_LOW, Scene

Actions = Generator[np.ndarray, None, None]
Grasp = Callable[..., Actions]
POLICIES = ("random", "reach", "push", "mend", "pick", "regrasp", "mixed")
TRAVEL_HEIGHT_M = 0.105
FINGERTIP_HEIGHT_M = 0.022
# Half the hand's thickness along its own x, and half the closed fingers' width along its y.
FINGER_HALF_M = 0.012
# What is held is so near the tool, and keeps the fingers from closing so far.
HELD_WITHIN_M = 0.035
CLOSED_ON_NOTHING = 0.8


class Hand(Protocol):
    """What a script reads of a world."""

    scene: Scene

    def tool_position(self) -> np.ndarray: ...
    def tool_rotation(self) -> np.ndarray: ...
    def gripper(self) -> np.ndarray: ...
    def object_pose(self) -> np.ndarray: ...


def toward(hand: Hand, position: np.ndarray, yaw: float, closedness: float, speed: float = 1.0) -> np.ndarray:
    """One action (7,) towards a tool pose pointing down, at a share of full speed."""
    rpy = tool_rpy(hand.tool_rotation())
    turn = np.array([math.pi, 0.0, yaw]) - rpy
    turn = (turn + math.pi) % (2 * math.pi) - math.pi
    delta = position - hand.tool_position()
    # Slow all axes alike, so that the path stays straight.
    excess = np.max(np.abs(delta) / (speed * ACTION_HIGH[:3]))
    delta = delta / max(1.0, float(excess))
    return np.concatenate([delta, turn * 0.8, [closedness - float(hand.gripper())]]).astype(np.float32)


def _near(hand: Hand, position: np.ndarray, tolerance: float) -> bool:
    return bool(np.linalg.norm(hand.tool_position() - position) < tolerance)


def go(hand: Hand, position: np.ndarray, yaw: float, closedness: float, *, speed: float = 1.0, patience: int = 12,
       tolerance: float = 0.012) -> Actions:  # fmt: skip
    """Straight to a pose; gives up after `patience` steps."""
    for _ in range(patience):
        if _near(hand, position, tolerance):
            return
        yield toward(hand, position, yaw, closedness, speed)


def over(hand: Hand, xy: np.ndarray, yaw: float, closedness: float, speed: float = 1.0) -> Actions:
    """To a place over the table without touching the object on the way: up first where the way is not clear."""
    here = hand.tool_position()
    thing = hand.object_pose()[:2]
    way = xy - here[:2]
    share = np.clip(np.dot(thing - here[:2], way) / max(float(np.dot(way, way)), 1e-9), 0.0, 1.0)
    clearance = np.linalg.norm(here[:2] + share * way - thing)
    if here[2] < TRAVEL_HEIGHT_M - 0.02 and clearance < 0.09:
        yield from go(hand, np.array([*here[:2], TRAVEL_HEIGHT_M]), yaw, closedness, speed=speed, patience=4)
    height = max(TRAVEL_HEIGHT_M, 0.0) if clearance < 0.09 else max(here[2], FINGERTIP_HEIGHT_M)
    yield from go(hand, np.array([*xy, min(height, 0.14)]), yaw, closedness, speed=speed, tolerance=0.02)


def reach(hand: Hand, position: np.ndarray, yaw: float, closedness: float, speed: float = 1.0) -> Actions:
    """To a pose, around the object."""
    way_low = min(float(hand.tool_position()[2]), float(position[2])) < TRAVEL_HEIGHT_M
    if way_low:
        yield from over(hand, position[:2], yaw, closedness, speed)
    yield from go(hand, position, yaw, closedness, speed=speed, patience=20, tolerance=0.006)


def push(hand: Hand, target_xy: np.ndarray, *, closedness: float = 1.0, yaw: float = 0.0, speed: float = 0.8,
         height: float = FINGERTIP_HEIGHT_M, offset: float = 0.0) -> Actions:  # fmt: skip
    """Go behind the object, down, and push it towards a place on the table.

    `offset` (m) shifts the contact sideways, so that play also sees objects turn and slip off.
    """
    thing = hand.object_pose()[:2]
    way = target_xy - thing
    distance = float(np.linalg.norm(way))
    if distance < 0.01:
        return
    direction = way / distance
    side = np.array([-direction[1], direction[0]])
    radius = float(np.linalg.norm(hand.scene.object_half[:2])) + FINGER_HALF_M + 0.018
    behind = thing - direction * radius + side * offset
    behind = np.clip(behind, WORKSPACE_LOW[:2], WORKSPACE_HIGH[:2])
    yield from over(hand, behind, yaw, closedness, speed=1.0)
    yield from go(hand, np.array([*behind, height]), yaw, closedness, patience=5, tolerance=0.015)
    for _ in range(16):
        thing = hand.object_pose()[:2]
        left = float(np.dot(target_xy - thing, direction))
        if left < 0.006:
            return
        tool = hand.tool_position()[:2]
        if float(np.dot(tool - thing, direction)) > 0.0:  # slipped past it
            return
        # Steer so that the contact stays behind the object as seen from the target.
        aim = (target_xy - thing) / max(float(np.linalg.norm(target_xy - thing)), 1e-6)
        gap = float(np.dot(thing - tool, direction))
        lateral = np.dot(thing + side * offset - tool, side) * side
        advance = min(left + max(gap - radius + 0.018, 0.0), speed * float(ACTION_HIGH[0]))
        next_xy = tool + aim * max(advance, 0.008) + 0.7 * lateral
        yield toward(hand, np.array([*next_xy, height]), yaw, closedness)


def push_and_mend(hand: Hand, target_xy: np.ndarray, rng: np.random.Generator, *, speed: float = 0.8,
                  height: float = FINGERTIP_HEIGHT_M, tries: int = 3) -> Actions:  # fmt: skip
    """Push somewhere near a place, find the object not there, go round and put it right; sometimes let go and touch again.

    Other play seldom shows the arm near where it will end and the object a few centimetres off, or the object in its place
    and the arm on its way back to it. Pushes that stall do so there.
    """
    way = target_xy - hand.object_pose()[:2]
    aim = way / max(float(np.linalg.norm(way)), 1e-6)
    side = np.array([-aim[1], aim[0]])
    amiss = target_xy + aim * rng.normal(0.0, 0.03) + side * rng.normal(0.0, 0.035)
    yield from push(hand, amiss, speed=speed, height=height, offset=rng.normal(0.0, 0.01))
    for _ in range(tries):
        if np.linalg.norm(target_xy - hand.object_pose()[:2]) < 0.012:
            break
        yield from push(hand, target_xy, speed=min(speed, 0.6), height=height)
    if rng.random() < 0.35:
        touching, thing = hand.tool_position().copy(), hand.object_pose()[:2]
        back = touching[:2] - thing
        beside = touching + np.array([*(0.04 * back / max(float(np.linalg.norm(back)), 1e-6)), rng.uniform(0.0, 0.06)])
        away = beside + [*rng.uniform(-0.08, 0.08, 2), rng.uniform(0.0, 0.08)]
        yield from go(hand, beside, 0.0, 1.0, speed=speed, patience=3)
        if clear_of(away, hand.object_pose()[:2]):
            yield from go(hand, away, 0.0, 1.0, speed=speed, patience=3)
            yield from go(hand, beside, 0.0, 1.0, speed=speed, patience=4)
        yield from go(hand, touching, 0.0, 1.0, speed=0.6, patience=5, tolerance=0.005)


def clear_of(tool: np.ndarray, thing_xy: np.ndarray) -> bool:
    """Whether a tool at (3,) would not touch a thing at (2,)."""
    return bool(np.linalg.norm(tool[:2] - thing_xy) > 0.05 or tool[2] > TRAVEL_HEIGHT_M)


def grasp_yaw(hand: Hand) -> float:
    """The hand's yaw (rad, within a quarter turn of 0) at which the fingers close on the object's narrow side."""
    w, x, y, z = hand.object_pose()[3:]
    yaw = math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    if hand.scene.object_kind == "cylinder":
        return 0.0
    narrow_across_x = hand.scene.object_half[0] < hand.scene.object_half[1] - 1e-3
    quarter = math.pi if narrow_across_x else math.pi / 2
    # The fingers close along the hand's y; turn them onto the narrow side when there is one.
    wanted = yaw + (math.pi / 2 if narrow_across_x else 0.0)
    wanted = (wanted + quarter / 2) % quarter - quarter / 2
    return float(np.clip(wanted, -1.15, 1.15))


def grasp_point(hand: Hand) -> np.ndarray:
    """Where (3,) the fingers should close: the object's middle, or an ell's long bar."""
    pose = hand.object_pose()
    center = np.zeros(3)
    if hand.scene.object_kind == "ell":
        half, middle = hand.scene.object_parts()[0][1:]
        # Off the corner, where the other bar leaves room for a finger.
        center = np.array(middle) + [half[0] * 0.45, 0.0, 0.0]
    w, z = pose[3], pose[6]
    yaw = 2 * math.atan2(z, w)
    turned = np.array([math.cos(yaw) * center[0] - math.sin(yaw) * center[1],
                       math.sin(yaw) * center[0] + math.cos(yaw) * center[1], 0.0])  # fmt: skip
    return pose[:3] + turned


def close_on(hand: Hand, yaw: float, speed: float, patience: int) -> Actions:
    """Over the object, down, and shut the fingers."""
    yield from over(hand, grasp_point(hand)[:2], yaw, 0.0)
    point = grasp_point(hand)
    low = max(float(point[2]) - 0.004, float(WORKSPACE_LOW[2]))
    yield from go(hand, np.array([*point[:2], low]), yaw, 0.0, speed=speed, patience=patience, tolerance=0.007)
    here = hand.tool_position()
    for _ in range(3):
        yield toward(hand, np.array([*here[:2], low]), yaw, 1.0)


def lift(hand: Hand, position: np.ndarray, *, speed: float = 0.9) -> Actions:
    """Grasp the object and hold it with the tool at a position."""
    yaw = grasp_yaw(hand)
    yield from close_on(hand, yaw, speed, patience=6)
    yield from go(hand, np.array([*hand.tool_position()[:2], max(float(position[2]), 0.09)]), yaw, 1.0, speed=speed)
    yield from go(hand, position, yaw, 1.0, speed=speed, patience=14, tolerance=0.008)


def holds(hand: Hand) -> bool:
    """Whether something is between the fingers and it is the object."""
    near = float(np.linalg.norm(hand.object_pose()[:3] - hand.tool_position())) < HELD_WITHIN_M
    return near and float(hand.gripper()) < CLOSED_ON_NOTHING


def lift_again(hand: Hand, position: np.ndarray, *, speed: float = 0.9, tries: int = 4) -> Actions:
    """As `lift`, but what was missed or lost is let go of and grasped again."""
    for _ in range(tries):
        yaw = grasp_yaw(hand)
        yield from close_on(hand, yaw, speed, patience=8)
        clear = np.array([*hand.tool_position()[:2], max(float(position[2]), 0.09)])
        for place, patience in ((clear, 12), (position, 14)):
            steps = go(hand, place, yaw, 1.0, speed=speed, patience=patience, tolerance=0.008)
            while holds(hand) and (action := next(steps, None)) is not None:
                yield action
        if holds(hand):
            return
        # Let go before the next try, a little above, so that closing does not start where it just failed.
        for _ in range(2):
            yield toward(hand, hand.tool_position() + [0.0, 0.0, 0.03], yaw, 0.0)


def pick_place(hand: Hand, target_xy: np.ndarray, *, speed: float = 0.9, grasp: Grasp | None = None) -> Actions:
    """Grasp, carry over, set down, let go and rise."""
    yield from (grasp or lift)(hand, np.array([*target_xy, 0.12]), speed=speed)
    yaw = float(tool_rpy(hand.tool_rotation())[2])
    down = float(hand.scene.object_half[2]) + 0.002
    yield from go(hand, np.array([*target_xy, down]), yaw, 1.0, speed=0.8, patience=6, tolerance=0.008)
    for _ in range(2):
        yield toward(hand, np.array([*target_xy, down]), yaw, 0.0)
    yield from go(hand, np.array([*target_xy, 0.11]), yaw, 0.0, speed=0.8, patience=4)


def wander(hand: Hand, rng: np.random.Generator, steps: int) -> Actions:
    """Smooth random motion in all seven dimensions, with a mild pull back to the middle of the workspace."""
    drift = rng.normal(0.0, 0.6, 7)
    memory = rng.uniform(0.5, 0.9)
    middle = (WORKSPACE_LOW + WORKSPACE_HIGH) / 2
    low = rng.random() < 0.6
    for _ in range(steps):
        drift = memory * drift + math.sqrt(1 - memory**2) * rng.normal(0.0, 0.7, 7)
        action = np.clip(drift, -1, 1) * ACTION_HIGH
        pull = (middle - hand.tool_position()) / (WORKSPACE_HIGH - WORKSPACE_LOW)
        if low:  # most of what is worth learning happens near the table
            pull[2] = (0.04 - hand.tool_position()[2]) / 0.12
        action[:3] += 0.5 * pull * ACTION_HIGH[:3]
        rpy = tool_rpy(hand.tool_rotation())
        action[3:6] = 0.4 * action[3:6] - 0.3 * (rpy - np.array([math.pi, 0.0, 0.0]))
        yield action.astype(np.float32)


def _random_place(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(OBJECT_LOW - 0.02, OBJECT_HIGH + 0.02)


def push_target(hand: Hand, rng: np.random.Generator, shortest: float = 0.05, longest: float = 0.18) -> np.ndarray:
    """A place (2,) on the table some way from the object, inside the region objects live in."""
    thing = hand.object_pose()[:2]
    for _ in range(30):
        angle, length = rng.uniform(-math.pi, math.pi), rng.uniform(shortest, longest)
        target = thing + length * np.array([math.cos(angle), math.sin(angle)])
        if np.all(target > OBJECT_LOW - 0.02) and np.all(target < OBJECT_HIGH + 0.02):
            return target
    return (OBJECT_LOW + OBJECT_HIGH) / 2


def _play(hand: Hand, name: str, rng: np.random.Generator) -> Actions:
    """An endless sequence of short scripts of one kind (or of all kinds)."""
    grasp = lift_again if name == "regrasp" else lift
    while True:
        kind = (
            str(rng.choice(["random", "reach", "push", "pick"], p=[0.1, 0.15, 0.57, 0.18])) if name == "mixed" else name
        )
        speed = rng.uniform(0.55, 1.0)
        yaw = rng.normal(0.0, 0.15)
        if kind == "random":
            yield from wander(hand, rng, int(rng.integers(6, 16)))
        elif kind == "reach":
            low, high = WORKSPACE_LOW + [0.02, 0.02, 0.0], WORKSPACE_HIGH - [0.04, 0.04, 0.05]
            yield from reach(hand, rng.uniform(low, high), yaw, float(rng.random() < 0.5), speed)
        elif kind == "push":
            yield from push(
                hand,
                push_target(hand, rng),
                closedness=1.0 if rng.random() < 0.8 else float(rng.uniform(0.3, 1.0)),
                yaw=yaw,
                speed=speed,
                height=rng.uniform(0.018, 0.035),
                offset=rng.normal(0.0, 0.007),
            )
            if rng.random() < 0.4:
                back = hand.tool_position() + [*rng.uniform(-0.05, 0.05, 2), rng.uniform(0.0, 0.09)]
                yield from go(hand, back, yaw, 1.0, patience=2)
        elif kind == "mend":
            yield from push_and_mend(
                hand, push_target(hand, rng, 0.03, 0.12), rng, speed=speed, height=rng.uniform(0.018, 0.03)
            )
        elif rng.random() < 0.5:
            target = _random_place(rng)
            yield from grasp(hand, np.array([*target, rng.uniform(0.08, 0.2)]), speed=speed)
            if rng.random() < 0.5:
                yield from go(hand, np.array([*_random_place(rng), 0.04]), yaw, 1.0, patience=6)
        else:
            yield from pick_place(hand, _random_place(rng), speed=speed, grasp=grasp)
        # A script that has nothing to do (already there) must not spin without acting.
        yield toward(hand, hand.tool_position(), 0.0, float(hand.gripper()))


def make_policy(name: str, env: Any, rng: np.random.Generator) -> Callable[[], np.ndarray]:
    """A policy over a tabletop environment: a callable that gives the next physical action (7,), within bounds.

    Args:
        name: `random` (smooth), `reach`, `push`, `mend` (`push` that goes amiss and is put right), `pick`, `regrasp` (`pick`
            that tries again; all scripted and noisy) or `mixed`.
        env: the environment, wrapped or not.
        rng: decides everything; the same generator state and world give the same actions.
    """
    if name not in POLICIES:
        raise ValueError(f"no play policy is called {name!r}; known are {', '.join(POLICIES)}")
    script = _play(env.unwrapped.world, name, rng)
    noise_scale = float(rng.choice([0.05, 0.15, 0.35], p=[0.4, 0.4, 0.2]))
    noise = np.zeros(7)

    def act() -> np.ndarray:
        nonlocal noise
        noise = 0.6 * noise + 0.8 * rng.normal(0.0, noise_scale, 7)
        shaken = next(script) + noise * ACTION_HIGH * np.array([1, 1, 0.7, 0.3, 0.3, 0.5, 0.3])
        return np.clip(shaken, ACTION_LOW, ACTION_HIGH).astype(np.float32)

    return act
