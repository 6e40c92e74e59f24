"""What the guard holds a request against: one frozen record of numbers, read from a file that says their sources."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from robots.stream import MotionBounds

Vector = tuple[float, ...]
DEFAULT_FILE = Path(__file__).resolve().parent.parent / "configs" / "guard" / "default.yaml"


@dataclass(frozen=True)
class Limits:
    """Limits of one arm in one place. Lengths in metres, angles in radians, times in seconds.

    Attributes:
        period_s: duration of one policy step.
        action_low, action_high: (7,) bounds of one end-effector action.
        workspace_low, workspace_high: (3,) box the tool point must stay in, base frame.
        tool_rpy_low, tool_rpy_high: (3,) orientation the tool may take, roll in (0, 2 pi).
        link_low, link_high: (3,) box that no link may leave, base frame; a generous one.
        self_clearance_m: how near two links' capsules may come to each other.
        obstacle_clearance_m: how near a capsule may come to the table or a box; below 0 where capsules are fatter than
            what they cover, or touching is part of the work.
        condition_slow, condition_stop: the Jacobian's condition number from which a step is slowed, and where it ends.
        position_lead_m: how far the commanded tool may lead the measured one.
        gripper_lead: the same for closedness.
        joint_names: J names.
        joint_low, joint_high: (J,) positions.
        joint_margin_rad: how far inside them to stay.
        joint_velocity, joint_acceleration, joint_jerk: (J,) of whatever is sent, rad/s, rad/s^2, rad/s^3.
        gripper_velocity, gripper_acceleration, gripper_jerk: the same of closedness.
        longest_step_s: how far a step may be stretched in time to keep to them.
        tracking_error_rad: how far a measured joint may be from where it was sent.
        observation_age_s: how old the observation behind a request may be.
        state_age_s, camera_age_s: how old the newest joint reading and the newest picture may be.
        frozen_looks: so many looks in a row with the same picture mean a frozen camera.
        heartbeat_s: how long the planner's process may give no sign of life.
        planner_deadline_s: how long a plan may take.
        late_tick_s: how late a tick of a movement may be sent before the arm pauses.
        temperature_c: how warm a joint may be.
        load_share: how much of what it bears a joint may bear, 0 to 1.
        uncertainty: how far the model may mistrust its plan; 1 is its calibrated error on held-out data.
        vetoes_in_a_row: after so many the software stop latches.
    """

    period_s: float
    action_low: Vector
    action_high: Vector
    workspace_low: Vector
    workspace_high: Vector
    tool_rpy_low: Vector
    tool_rpy_high: Vector
    link_low: Vector
    link_high: Vector
    self_clearance_m: float
    obstacle_clearance_m: float
    condition_slow: float
    condition_stop: float
    position_lead_m: float
    gripper_lead: float
    joint_names: tuple[str, ...]
    joint_low: Vector
    joint_high: Vector
    joint_margin_rad: float
    joint_velocity: Vector
    joint_acceleration: Vector
    joint_jerk: Vector
    gripper_velocity: float
    gripper_acceleration: float
    gripper_jerk: float
    longest_step_s: float
    tracking_error_rad: float
    observation_age_s: float
    state_age_s: float
    camera_age_s: float
    frozen_looks: int
    heartbeat_s: float
    planner_deadline_s: float
    late_tick_s: float
    temperature_c: float
    load_share: float
    uncertainty: float
    vetoes_in_a_row: int

    def __post_init__(self) -> None:
        if not self.joint_names or len(set(self.joint_names)) != len(self.joint_names):
            raise ValueError(f"guard limits: joint_names {list(self.joint_names)} must be present and all different")
        joints = len(self.joint_names)
        sizes = {"action": 7, "workspace": 3, "tool_rpy": 3, "link": 3, "joint": joints}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "joint_names":
                continue
            size = sizes.get(field.name.rsplit("_", 1)[0]) if isinstance(value, tuple) else None
            if size is not None and len(value) != size:
                raise ValueError(f"guard limits: {field.name} has {len(value)} numbers; it needs {size}")
            if not np.isfinite(np.asarray(value, dtype=np.float64)).all():
                raise ValueError(f"guard limits: {field.name} is {value}; every limit is a finite number")
        for pair in ("action", "workspace", "tool_rpy", "link", "joint"):
            low, high = getattr(self, f"{pair}_low"), getattr(self, f"{pair}_high")
            for index, (least, most) in enumerate(zip(low, high, strict=True)):
                if least >= most:
                    raise ValueError(
                        f"guard limits: {pair}_low[{index}] is {least:g}, not below {pair}_high[{index}] {most:g}; "
                        "are the two swapped?"
                    )
                if pair == "joint" and max(abs(least), abs(most)) > 4 * math.pi:
                    raise ValueError(
                        f"guard limits: joint {self.joint_names[index]} reaches from {least:g} to {most:g}; "
                        "limits are radians, these look like degrees"
                    )
                if pair == "joint" and most - least <= 2 * self.joint_margin_rad:
                    raise ValueError(
                        f"guard limits: joint {self.joint_names[index]} has a range of {most - least:g} rad; "
                        f"joint_margin_rad {self.joint_margin_rad:g} leaves nothing of it"
                    )
        for index, (least, most) in enumerate(zip(self.action_low, self.action_high, strict=True)):
            if not least <= 0.0 <= most:
                raise ValueError(
                    f"guard limits: action {index} may go from {least:g} to {most:g}; standing still (0) must be in it"
                )
        positive = (
            "period_s", "tracking_error_rad", "observation_age_s", "uncertainty", "vetoes_in_a_row", "gripper_velocity",
            "gripper_acceleration", "gripper_jerk", "condition_slow", "state_age_s", "camera_age_s", "frozen_looks",
            "heartbeat_s", "planner_deadline_s", "late_tick_s", "temperature_c", "load_share",
        )  # fmt: skip
        for name in positive:
            if not getattr(self, name) > 0:
                raise ValueError(f"guard limits: {name} is {getattr(self, name)}; it must be above 0")
        for name in ("position_lead_m", "gripper_lead", "joint_margin_rad"):
            if getattr(self, name) < 0:
                raise ValueError(f"guard limits: {name} is {getattr(self, name)}; it must not be negative")
        if self.longest_step_s < self.period_s:
            raise ValueError(
                f"guard limits: longest_step_s is {self.longest_step_s:g}, shorter than a step ({self.period_s:g} s)"
            )
        if self.condition_slow >= self.condition_stop:
            raise ValueError(
                f"guard limits: condition_slow is {self.condition_slow:g}, not below condition_stop "
                f"{self.condition_stop:g}; a step is slowed before it is refused"
            )
        if self.load_share > 1:
            raise ValueError(f"guard limits: load_share is {self.load_share:g}; it is a share of 1, is it in percent?")
        for name in ("joint_velocity", "joint_acceleration", "joint_jerk"):
            if min(getattr(self, name)) <= 0:
                raise ValueError(f"guard limits: {name} is {getattr(self, name)}; every one must be above 0")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], where: str = "guard limits") -> Limits:
        """Limits from a mapping that has every key, and no other."""
        fields = {field.name: field for field in dataclasses.fields(cls)}
        for name in values:
            if name not in fields:
                near = difflib.get_close_matches(str(name), fields, n=1)
                raise ValueError(
                    f"{where}: no limit is called {name!r}" + (f"; did you mean {near[0]}?" if near else "")
                )
        missing = [name for name in fields if name not in values]
        if missing:
            raise ValueError(f"{where}: {missing[0]} is missing; the guard has no default limits of its own")
        return cls(**{name: _typed(name, str(fields[name].type), values[name], where) for name in fields})

    @classmethod
    def load(cls, path: str | Path = DEFAULT_FILE) -> Limits:
        """Limits from a YAML file."""
        from omegaconf import DictConfig, OmegaConf
        from omegaconf.errors import OmegaConfBaseException
        from yaml import YAMLError

        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no limits file at {path}; without limits no arm moves")
        try:
            loaded = OmegaConf.load(path)
        except (OmegaConfBaseException, YAMLError, OSError) as error:
            raise ValueError(f"limits file {path} cannot be read: {str(error).splitlines()[0]}") from error
        values = OmegaConf.to_container(loaded) if isinstance(loaded, DictConfig) else None
        if not values:
            raise ValueError(f"limits file {path} must hold one `key: value` line a limit")
        return cls.from_mapping(cast("Mapping[str, Any]", values), str(path))

    @property
    def bounds(self) -> MotionBounds:
        """What every tick keeps to."""
        return MotionBounds(
            self.joint_velocity, self.joint_acceleration, self.joint_jerk,
            self.gripper_velocity, self.gripper_acceleration, self.gripper_jerk,
        )  # fmt: skip

    @property
    def hash(self) -> str:
        """16 hex digits that change when any limit does."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _typed(name: str, kind: str, value: Any, where: str) -> Any:
    """One value as its field wants it, or a sentence."""
    try:
        if kind == "int":
            if isinstance(value, bool) or int(value) != value:
                raise TypeError
            return int(value)
        if kind == "float":
            if isinstance(value, bool):
                raise TypeError
            return float(value)
        if kind == "Vector":
            return tuple(float(v) for v in value)
        return tuple(str(v) for v in value)
    except (TypeError, ValueError) as error:
        wanted = {"int": "a whole number", "float": "a number", "Vector": "a list of numbers"}.get(
            kind, "a list of names"
        )
        raise ValueError(f"{where}: {name} is {value!r}; it must be {wanted}") from error
