"""What a person may say of a LeRobot arm besides its driver's own settings: poses, signs, kinematics; wrong ones refused."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from robots.body import Body
from robots.kinematics import Kinematics

# Kinematics of types this house has a model of.
KNOWN_KINEMATICS = {
    "so100_follower": "robots.kinematics:so101",
    "so101_follower": "robots.kinematics:so101",
}

# Bodies likewise. The SO-100's printed parts are shaped otherwise, though its joints are the SO-101's.
KNOWN_BODIES = {"so101_follower": "robots.body:so101_body"}


def vector(name: str, said: Sequence[float] | None, count: int, default: float) -> np.ndarray:
    """(J,) numbers, or the default for every joint."""
    if said is None:
        return np.full(count, default)
    found = np.array([float(value) for value in said])
    if found.shape != (count,) or not np.isfinite(found).all():
        raise ValueError(f"{name} is {list(said)}; this arm has {count} joints, and needs a finite number for each")
    return found


def poses(
    kind: str, park: Sequence[float] | None, home: Sequence[float] | None, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Park and home pose (J,), rad; the SO-101's own where it is one and nothing is said."""
    if park is None and kind in KNOWN_KINEMATICS:
        from envs import so101

        park, home = so101.PARK_JOINTS.tolist(), so101.HOME_JOINTS.tolist() if home is None else home
    if park is None:
        raise ValueError(f"robot type {kind} needs park=[...]: {count} joint angles, rad, from which it may be let go")
    parked = vector("park", park, count, 0.0)
    return parked, parked.copy() if home is None else vector("home", home, count, 0.0)


def body_at(place: str) -> Body:
    """The body that `module:function` makes."""
    module, _, function = place.partition(":")
    return cast(Body, getattr(importlib.import_module(module), function)())


def kinematics_of(kind: str, said: str | Mapping[str, Any] | None, count: int) -> Kinematics:
    """Kinematics as a setting names them; the type's own where nothing is said."""
    said = KNOWN_KINEMATICS.get(kind) if said is None else said
    if said is None:
        raise ValueError(
            f"robot type {kind} needs kinematics: module:function, or {{model: PATH of an MJCF or URDF, site: NAME, "
            "joints: [NAME, ...]}}"
        )
    if isinstance(said, str):
        module, _, function = said.partition(":")
        try:
            found = getattr(importlib.import_module(module), function)()
        except (ImportError, AttributeError, ValueError, TypeError) as error:
            raise ValueError(f"kinematics={said} cannot be made: {error}") from error
    else:
        from robots.mujoco_kinematics import MujocoKinematics

        missing = {"model", "site", "joints"} ^ set(said)
        if missing:
            raise ValueError(f"kinematics takes model, site and joints; {sorted(missing)[0]} is missing or too much")
        found = MujocoKinematics(str(said["model"]), list(said["joints"]), str(said["site"]))
    if len(found.lower) != count:
        raise ValueError(
            f"kinematics has {len(found.lower)} joints, robot type {kind} has {count}; which are the arm's?"
        )
    return cast(Kinematics, found)
