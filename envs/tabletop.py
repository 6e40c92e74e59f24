"""The tabletop, described once: table, workspace, cameras, objects, action, and what may vary between episodes.

Nothing here knows a simulator. `mujoco_world` and `pybullet_world` build what this module describes, so that a
brain trained in one can be judged in the other. Lengths are metres, angles radians, the frame is the arm's base.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# -- time ------------------------------------------------------------------------------------------------------------
POLICY_HZ = 5.0
PHYSICS_STEP_S = 0.004
SUBSTEPS = round(1.0 / (POLICY_HZ * PHYSICS_STEP_S))

# -- action: change of end-effector pose and of gripper closedness over one policy step ------------------------------
ACTION_NAMES = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "dgripper")
ACTION_HIGH = np.array([0.05, 0.05, 0.05, 0.25, 0.25, 0.25, 0.5], dtype=np.float32)
ACTION_LOW = -ACTION_HIGH
STATE_NAMES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
JOINT_NAMES = tuple(f"panda_joint{i}" for i in range(1, 8))

# -- space -----------------------------------------------------------------------------------------------------------
# Where the point between the finger tips may be sent. The floor keeps the tips, 7 mm below it, off the table.
WORKSPACE_LOW = np.array([0.32, -0.26, 0.017])
WORKSPACE_HIGH = np.array([0.66, 0.26, 0.32])
# How far the tool may be turned away from pointing straight down.
TILT_LIMIT_RAD = 0.5
YAW_LIMIT_RAD = 1.2
# Where objects are put down at the start of an episode and where goals may ask for them.
OBJECT_LOW = np.array([0.40, -0.17])
OBJECT_HIGH = np.array([0.60, 0.17])
TABLE_CENTER = np.array([0.50, 0.0])
TABLE_HALF = np.array([0.35, 0.50])
# A joint configuration over the middle of the table with the tool pointing down; the search for others starts here.
HOME_JOINTS = np.array([0.0, -0.15, 0.0, -2.30, 0.0, 2.15, 0.785398])
FINGER_TRAVEL_M = 0.04


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: where it stands, what it looks at, vertical field of view in degrees."""

    position: tuple[float, float, float]
    target: tuple[float, float, float]
    fov_deg: float

    def axes(self) -> np.ndarray:
        """Rotation matrix (3, 3) whose columns are the image's right, up and backward directions in the base frame."""
        backward = np.asarray(self.position, dtype=np.float64) - np.asarray(self.target, dtype=np.float64)
        backward /= np.linalg.norm(backward)
        right = np.cross([0.0, 0.0, 1.0], backward)
        right /= np.linalg.norm(right)
        return np.stack([right, np.cross(backward, right), backward], axis=1)


FRONT_TARGET = (0.48, 0.0, 0.085)
FRONT_DISTANCE = 0.95
FRONT_AZIMUTH_DEG = 58.0
FRONT_ELEVATION_DEG = 38.0
FRONT_FOV_DEG = 34.0
# The wrist camera rides on the hand, looking along the fingers: position and target in the hand's frame.
WRIST = Camera(position=(0.07, 0.0, 0.02), target=(0.0, 0.0, 0.14), fov_deg=70.0)
CAMERAS = ("front", "wrist")
IMAGE_SIZES = (64, 256)

OBJECT_KINDS = ("box", "cylinder", "ell")
TABLE_TEXTURES = ("plain", "checker", "gradient", "speckle")
# How often a texture repeats over the table, each way.
TEXTURE_REPEATS = {"plain": 2, "checker": 2, "gradient": 1, "speckle": 2}
# Colours far enough from the table's and the arm's to be told apart: RGB in 0..1.
PALETTE = (
    (0.85, 0.12, 0.10),
    (0.10, 0.45, 0.85),
    (0.10, 0.65, 0.25),
    (0.95, 0.70, 0.05),
    (0.55, 0.15, 0.70),
    (0.95, 0.40, 0.10),
)

Range = tuple[float, float]
# What the two simulators can do justice to: sizes beyond it leave the compiled bounding volumes, masses the solver.
FACTOR_LIMITS: dict[str, Range] = {
    "object_half_size": (0.01, 0.045),
    "object_stretch": (1.0, 2.0),
    "object_x": (0.3, 0.7),
    "object_y": (-0.3, 0.3),
    "object_mass": (0.01, 1.0),
    "object_friction": (0.05, 3.0),
    "table_brightness": (0.0, 1.0),
    "light_strength": (0.0, 2.0),
    "camera_elevation_deg": (-25.0, 40.0),
    "camera_distance": (0.6, 2.0),
}


@dataclass(frozen=True)
class Variation:
    """What changes from episode to episode: each factor a range (low, high) or a tuple of choices.

    Fix a factor by making its range a point or its tuple a single choice; sweep it by making one `Variation` a value.
    The defaults (`standard`) vary the object in every way and the light a little; `wide` varies everything.
    """

    object_kind: tuple[str, ...] = ("box", "cylinder", "ell")
    object_color: tuple[tuple[float, float, float], ...] = PALETTE
    object_half_size: Range = (0.021, 0.027)
    object_stretch: Range = (1.0, 1.5)
    object_yaw: Range = (-math.pi / 2, math.pi / 2)
    object_x: Range = (float(OBJECT_LOW[0]), float(OBJECT_HIGH[0]))
    object_y: Range = (float(OBJECT_LOW[1]), float(OBJECT_HIGH[1]))
    object_mass: Range = (0.06, 0.15)
    object_friction: Range = (0.6, 1.0)
    table_texture: tuple[str, ...] = ("plain",)
    table_brightness: Range = (0.45, 0.55)
    light_azimuth_deg: Range = (30.0, 90.0)
    light_strength: Range = (0.6, 0.7)
    camera_azimuth_deg: Range = (0.0, 0.0)
    camera_elevation_deg: Range = (0.0, 0.0)
    camera_distance: Range = (1.0, 1.0)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            value = tuple(tuple(v) if isinstance(v, list) else v for v in value)
            object.__setattr__(self, field.name, value)
            if not value:
                raise ValueError(f"variation.{field.name} is empty; give a range (low, high) or a tuple of choices")
            numeric = field.type == "Range"
            sound = not numeric or bool(np.isfinite(np.asarray(value, dtype=np.float64)).all())
            if numeric and (len(value) != 2 or not sound or value[0] > value[1]):
                raise ValueError(f"variation.{field.name} is {value}; a range is (low, high) with low <= high")
            least, most = FACTOR_LIMITS.get(field.name, (-math.inf, math.inf))
            bounds = np.asarray(value, dtype=np.float64) if numeric else np.zeros(0)
            if (bounds < least).any() or (bounds > most).any():
                raise ValueError(f"variation.{field.name} is {value}; it may be {least:g} to {most:g}")
        for name, allowed in (("object_kind", OBJECT_KINDS), ("table_texture", TABLE_TEXTURES)):
            foreign = [choice for choice in getattr(self, name) if choice not in allowed]
            if foreign:
                raise ValueError(f"variation.{name} has {foreign[0]!r}; known are {', '.join(allowed)}")

    @classmethod
    def named(cls, name: str) -> Variation:
        """`standard` (the defaults), `fixed` (one red cube, only its place varies) or `wide` (table, light, camera too)."""
        if name == "standard":
            return cls()
        if name == "fixed":
            return cls(
                object_kind=("box",),
                object_color=(PALETTE[0],),
                object_half_size=(0.024, 0.024),
                object_stretch=(1.0, 1.0),
                object_yaw=(0.0, 0.0),
                object_mass=(0.1, 0.1),
                object_friction=(0.8, 0.8),
                table_texture=("plain",),
                table_brightness=(0.5, 0.5),
                light_azimuth_deg=(60.0, 60.0),
                light_strength=(0.65, 0.65),
            )
        if name == "wide":
            return cls(
                table_texture=TABLE_TEXTURES,
                table_brightness=(0.35, 0.65),
                light_azimuth_deg=(-180.0, 180.0),
                light_strength=(0.5, 0.8),
                camera_azimuth_deg=(-20.0, 20.0),
                camera_elevation_deg=(-8.0, 8.0),
                camera_distance=(0.9, 1.15),
            )
        raise ValueError(f"no variation is called {name!r}; known are standard, fixed, wide")

    @classmethod
    def of(cls, spec: Variation | str | Mapping[str, Any] | None) -> Variation:
        """A variation from itself, a name, or a mapping {base: name, factor: value, ...}."""
        if spec is None:
            return cls()
        if isinstance(spec, Variation):
            return spec
        if isinstance(spec, str):
            return cls.named(spec)
        values = dict(spec)
        base = cls.named(str(values.pop("base", "standard")))
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                import difflib

                near = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
                raise ValueError(f"variation has no factor {name!r}{hint}")
        for name, value in values.items():
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise ValueError(f"variation.{name} is {value!r}; give a list: a range [low,high], or choices")
        return dataclasses.replace(base, **{name: tuple(value) for name, value in values.items()})


@dataclass(frozen=True)
class Scene:
    """One episode's draw from a `Variation`: everything about the world that does not move."""

    object_kind: str
    object_color: tuple[float, float, float]
    object_half: tuple[float, float, float]
    object_position: tuple[float, float]
    object_yaw: float
    object_mass: float
    object_friction: float
    table_texture: str
    table_brightness: float
    light_azimuth_deg: float
    light_strength: float
    camera_azimuth_deg: float
    camera_elevation_deg: float
    camera_distance: float

    @classmethod
    def draw(cls, variation: Variation, rng: np.random.Generator) -> Scene:
        """A scene from the variation; the same generator state gives the same scene."""

        def uniform(bounds: Range) -> float:
            return float(rng.uniform(*bounds))

        def choose(options: tuple[Any, ...]) -> Any:
            return options[int(rng.integers(len(options)))]

        kind = choose(variation.object_kind)
        half = uniform(variation.object_half_size)
        stretch = uniform(variation.object_stretch)
        # A cylinder has one radius; a box may be longer one way; an ell is two bars of the box's half width.
        halves = {
            "box": (half, min(half * stretch, 0.038), half),
            "cylinder": (half, half, half),
            "ell": (half * 1.5, half * 1.5, half * 0.9),
        }[kind]
        return cls(
            object_kind=kind,
            object_color=tuple(float(c) for c in choose(variation.object_color)),  # type: ignore[arg-type]
            object_half=halves,
            object_position=(uniform(variation.object_x), uniform(variation.object_y)),
            object_yaw=uniform(variation.object_yaw),
            object_mass=uniform(variation.object_mass),
            object_friction=uniform(variation.object_friction),
            table_texture=choose(variation.table_texture),
            table_brightness=uniform(variation.table_brightness),
            light_azimuth_deg=uniform(variation.light_azimuth_deg),
            light_strength=uniform(variation.light_strength),
            camera_azimuth_deg=uniform(variation.camera_azimuth_deg),
            camera_elevation_deg=uniform(variation.camera_elevation_deg),
            camera_distance=uniform(variation.camera_distance),
        )

    def front_camera(self) -> Camera:
        """The fixed camera of this scene."""
        azimuth = math.radians(FRONT_AZIMUTH_DEG + self.camera_azimuth_deg)
        elevation = math.radians(FRONT_ELEVATION_DEG + self.camera_elevation_deg)
        distance = FRONT_DISTANCE * self.camera_distance
        offset = np.array(
            [math.cos(azimuth) * math.cos(elevation), math.sin(azimuth) * math.cos(elevation), math.sin(elevation)]
        )
        position = np.asarray(FRONT_TARGET) + distance * offset
        return Camera(position=tuple(position), target=FRONT_TARGET, fov_deg=FRONT_FOV_DEG)  # type: ignore[arg-type]

    def object_parts(self) -> list[tuple[str, tuple[float, float, float], tuple[float, float, float]]]:
        """The object's shapes as (primitive, half sizes, centre in the object's frame); its origin is its footprint's
        middle at half its height."""
        x, y, z = self.object_half
        if self.object_kind == "ell":
            bar = x * 0.45
            return [
                ("box", (x, bar, z), (0.0, -(y - bar), 0.0)),
                ("box", (bar, y - bar, z), (-(x - bar), bar, 0.0)),
            ]
        return [(self.object_kind, (x, y, z), (0.0, 0.0, 0.0))]

    def to_vector(self) -> np.ndarray:
        """The scene as float64 numbers, so that a saved simulator state is complete in itself."""
        return np.array(
            [
                OBJECT_KINDS.index(self.object_kind),
                *self.object_color,
                *self.object_half,
                *self.object_position,
                self.object_yaw,
                self.object_mass,
                self.object_friction,
                TABLE_TEXTURES.index(self.table_texture),
                self.table_brightness,
                self.light_azimuth_deg,
                self.light_strength,
                self.camera_azimuth_deg,
                self.camera_elevation_deg,
                self.camera_distance,
            ],
            dtype=np.float64,
        )

    @classmethod
    def from_vector(cls, vector: np.ndarray) -> Scene:
        """The inverse of `to_vector`."""
        v = [float(value) for value in vector]
        return cls(
            object_kind=OBJECT_KINDS[int(v[0])],
            object_color=(v[1], v[2], v[3]),
            object_half=(v[4], v[5], v[6]),
            object_position=(v[7], v[8]),
            object_yaw=v[9],
            object_mass=v[10],
            object_friction=v[11],
            table_texture=TABLE_TEXTURES[int(v[12])],
            table_brightness=v[13],
            light_azimuth_deg=v[14],
            light_strength=v[15],
            camera_azimuth_deg=v[16],
            camera_elevation_deg=v[17],
            camera_distance=v[18],
        )


SCENE_SIZE = 19


def table_picture(name: str, size: int = 128) -> np.ndarray:
    """One repeat of a table texture (size, size, 3) uint8, the same at every call; a scene's brightness tints it."""
    grid = np.arange(size)
    if name == "plain":
        picture = np.full((size, size), 210.0)
    elif name == "checker":
        picture = np.where(((grid[:, None] // 16) + (grid[None, :] // 16)) % 2 == 0, 225.0, 170.0)
    elif name == "gradient":
        picture = np.broadcast_to(np.linspace(160, 240, size), (size, size))
    else:
        coarse = np.random.default_rng(7).standard_normal((size // 2, size // 2)).repeat(2, 0).repeat(2, 1)
        picture = np.clip(205 + 28 * coarse, 0, 255)
    return np.repeat(picture[..., None], 3, axis=2).astype(np.uint8)
