"""Any Gymnasium world with a Box action and pictures, in the house's words: pictures, state, truth, a rate.

What cannot be collected in is refused in one sentence when the world is opened, before anything is written.
"""

from __future__ import annotations

import functools
import operator
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from PIL import Image

from envs.exploring import resting
from envs.making import make
from envs.tabletop import IMAGE_SIZES

# Near this many frames a second with repeat=auto: the tabletop's rate.
AUTO_HZ = 5.0
# How far a dataset's rate, a whole number, may be from the true one.
ROUNDING = 0.1
# More numbers than this are no state, but an array of another kind (a depth map, a stack of frames).
MOST_NUMBERS = 1024
TRUTH, GOAL = ("achieved_goal", "environment_state", "observation.environment_state"), "desired_goal"
STATES = ("observation", "observation.state", "state")
# Fewer facets to a ball or a cylinder: slices, stacks, quads. At these picture sizes nobody sees it.
_ROUNDNESS = 16, 8, 4

# The least share of a picture's side that may be kept, and the largest picture that MuJoCo is asked for, px.
LEAST_CROP = 0.1
LARGEST_DRAWN = 1024

Path = tuple[str, ...]


@dataclass(frozen=True)
class Seen:
    """One moment: camera -> picture (S, S, 3) uint8, the state (P,) and the truth (n,) float32."""

    pictures: Mapping[str, np.ndarray]
    state: np.ndarray
    truth: np.ndarray


class AnyWorld:
    """A Gymnasium world as collection needs it.

    Args:
        env_id: as Gymnasium names it, or `package.module:Id`.
        kwargs: the world's own arguments.
        camera: what its picture is called; several pictures in an observation keep their own names.
        image_size: side of the square pictures, px.
        rate_hz: the world's steps a second; None: what it says itself.
        repeat: so many of the world's steps an action is held; `auto`: so that there are about 5 frames a second.
        crop: the part of a picture that is kept, left, top, right, bottom as shares of its sides.
        fine_pictures: keep shadows, reflections and smoothing where MuJoCo draws; several times slower.

    Attributes:
        spec_id: the id with its version.
        cameras, state_names, truth_names, action_names: of what is seen and done; truth may have no numbers.
        low, high: (A,) bounds of an action, physical.
        repeat: steps an action is held.
        fps: actions, and frames, a second.
        remarks: sentences on what was decided that one might not expect.
    """

    def __init__(
        self,
        env_id: str,
        kwargs: Mapping[str, Any] | None = None,
        camera: str = "front",
        image_size: int = 64,
        rate_hz: float | None = None,
        repeat: int | str | None = None,
        crop: Sequence[float] | None = None,
        fine_pictures: bool = False,
    ) -> None:
        _check_words(camera, image_size, rate_hz, repeat, crop)
        self.remarks: list[str] = []
        self.image_size = image_size
        self.crop = None if crop is None else tuple(map(float, crop))
        self.env, self.spec_id = make(env_id, dict(kwargs or {}))
        try:
            self.low, self.high, self._shape = _bounds(env_id, self.env.action_space)
            self.resting = resting(self.low, self.high)
            self._read_observation(camera)
            left, top, right, bottom = self.crop or (0.0, 0.0, 1.0, 1.0)
            drawn = min(LARGEST_DRAWN, round(2 * image_size / min(right - left, bottom - top)))
            self.mujoco_model = _quicken(self.env.unwrapped, drawn, fine_pictures)
            self.action_names = self._names("action_names", _actuators(self.mujoco_model), "a", len(self.low))
            self.repeat, self.fps = self._rate(rate_hz, repeat)
        except BaseException:
            self.env.close()
            raise

    def reset(self, seed: int) -> Seen:
        """The first moment of the episode that the seed decides."""
        observation, _ = self.env.reset(seed=seed)
        return self._seen(observation)

    def step(self, action: np.ndarray) -> tuple[Seen, bool]:
        """Hold an action (A,) for `repeat` steps; what is seen then, and whether the world ended its episode."""
        space = self.env.action_space
        action = np.asarray(action, space.dtype).reshape(self._shape)
        observation, ended = None, False
        for _ in range(self.repeat):
            observation, _, terminated, truncated, _ = self.env.step(action)
            if ended := bool(terminated or truncated):
                break
        return self._seen(observation), ended

    def close(self) -> None:
        """Free its resources."""
        self.env.close()

    # -- what is seen --------------------------------------------------------------------------------------------------

    def _read_observation(self, camera: str) -> None:
        """Which parts of an observation are pictures, state and truth."""
        parts = dict(_leaves(self.env.observation_space))
        self._pictures = _cameras({path: space for path, space in parts.items() if _is_picture(space)}, camera)
        if not self._pictures and self.env.render_mode != "rgb_array":
            modes = ", ".join(map(str, self.env.metadata.get("render_modes") or [])) or "nothing"
            raise ValueError(
                f"{self.spec_id} shows no pictures: it renders {modes}, and its observation holds none; what is "
                "collected needs render_mode=rgb_array or a picture in the observation"
            )
        self.cameras = tuple(self._pictures) or (camera,)
        vectors = {path: space for path, space in parts.items() if path not in self._pictures.values()}
        large = [path for path, space in vectors.items() if int(np.prod(space.shape)) > MOST_NUMBERS]
        self.remarks += [
            f"{'.'.join(path) or 'the observation'} is neither picture nor state: left out" for path in large
        ]
        vectors = {path: space for path, space in vectors.items() if path not in large}
        self._truth = [path for path in vectors if _any(path, TRUTH)]
        others = [path for path in vectors if not _any(path, TRUTH) and GOAL not in path]
        self._state = [path for path in others if _any(path, STATES)] or others
        sizes = {path: int(np.prod(space.shape)) for path, space in vectors.items()}
        plain = [f"s{number}" for number in range(sum(sizes[path] for path in self._state))]
        named = plain if len(self._state) == 1 else _numbered(self._state, sizes)
        if not self._state:
            self.remarks.append("its observation holds no state: observation.state is one number that is always 0")
        self.state_names = self._names("state_names", named or ["nothing"], "s", len(named or ["nothing"]))
        self.truth_names = tuple(_numbered(self._truth, sizes))

    def _seen(self, observation: Any) -> Seen:
        raw = {camera: functools.reduce(operator.getitem, path, observation) for camera, path in self._pictures.items()}
        if not raw:
            raw = {self.cameras[0]: self.env.render()}
        return Seen(
            pictures={camera: fit(self._picture(each), self.image_size) for camera, each in raw.items()},
            state=self._vector(observation, self._state, "state", len(self.state_names)),
            truth=self._vector(observation, self._truth, "environment_state", len(self.truth_names)),
        )

    def _picture(self, raw: Any) -> np.ndarray:
        """Whatever a world calls a picture, as (H, W, 3) uint8."""
        picture = np.asarray(raw)
        if picture.ndim not in (2, 3):
            raise ValueError(f"{self.spec_id} shows no picture: it gave {type(raw).__name__} of shape {picture.shape}")
        if picture.ndim == 2:
            picture = picture[..., None]
        if picture.shape[-1] not in (1, 3, 4):
            picture = np.moveaxis(picture, 0, -1)
        if picture.dtype != np.uint8:
            if not np.isfinite(picture).all():
                raise ValueError(f"{self.spec_id}: a picture holds NaN or infinity")
            picture = (255 * np.clip(picture, 0, 1)).round().astype(np.uint8)
        if self.crop is not None:
            height, width = picture.shape[:2]
            left, top, right, bottom = (round(a * b) for a, b in zip(self.crop, (width, height) * 2, strict=True))
            picture = picture[top:bottom, left:right]
        return np.repeat(picture, 3, -1) if picture.shape[-1] == 1 else picture[..., :3]

    def _vector(self, observation: Any, paths: Sequence[Path], name: str, size: int) -> np.ndarray:
        parts = [np.ravel(functools.reduce(operator.getitem, path, observation)) for path in paths]
        vector = np.concatenate(parts).astype(np.float32) if parts else np.zeros(size, np.float32)
        if len(vector) != size:
            raise ValueError(f"{self.spec_id}: observation.{name} has {len(vector)} numbers; its space promises {size}")
        if not np.isfinite(vector).all():
            place = int(np.argmin(np.isfinite(vector)))
            raise ValueError(
                f"{self.spec_id} breaks down: observation.{name} holds {vector[place]} (number {place}); choose another "
                "seed= or a smaller env.repeat="
            )
        return vector

    # -- names and rate ------------------------------------------------------------------------------------------------

    def _names(self, key: str, found: Sequence[str] | None, letter: str, size: int) -> tuple[str, ...]:
        """What the world's metadata calls its numbers, else what was found, else letters with numbers."""
        for names in (self.env.metadata.get(key), found):
            if names is not None and len(names) == len(set(names)) == size and all(names):
                return tuple(map(str, names))
        return tuple(f"{letter}{number}" for number in range(size))

    def _rate(self, said: float | None, repeat: int | str | None) -> tuple[int, int]:
        """Steps an action is held, and frames a second."""
        shown, step_s = self.env.metadata.get("render_fps"), getattr(self.env.unwrapped, "dt", None)
        shown = float(shown) if isinstance(shown, int | float) and shown > 0 else None
        stepped = 1 / float(step_s) if isinstance(step_s, int | float | np.floating) and step_s > 0 else None
        rate = said or shown or stepped
        if rate is None:
            raise ValueError(f"{self.spec_id} does not say how many steps a second it makes; say env.rate_hz=...")
        if said is None and shown and stepped and abs(shown / stepped - 1) > ROUNDING:
            self.remarks.append(
                f"it shows {shown:g} frames a second, though its dt is {1 / stepped:g} s ({stepped:g} steps a second): "
                f"{shown:g} is taken; env.rate_hz= decides otherwise"
            )
        held = max(1, round(rate / AUTO_HZ)) if repeat == "auto" else int(repeat or 1)
        fps = round(rate / held)
        if fps < 1 or abs(fps / (rate / held) - 1) > ROUNDING:
            raise ValueError(
                f"{rate:g} steps a second, {held} to an action, make {rate / held:.3g} frames a second; a dataset has a "
                "whole number of them: choose another env.repeat= (or auto, about 5 Hz)"
            )
        if abs(fps - rate / held) > 1e-3:
            self.remarks.append(f"its {rate / held:.3g} frames a second are written as {fps}, a whole number")
        return held, fps


def fit(picture: np.ndarray, size: int) -> np.ndarray:
    """The middle square of a picture (H, W, 3) uint8 as (size, size, 3), just as a brain cuts and resizes its own.

    It stands here again because worlds import nothing of the brain's; a test holds the two together.
    """
    height, width = picture.shape[:2]
    if height == width == size:
        return picture
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    filter_ = Image.Resampling.BOX if side >= size else Image.Resampling.BILINEAR
    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.array(image.resize((size, size), filter_, box=(left, top, left + side, top + side)))


# -- reading a world ---------------------------------------------------------------------------------------------------


def _check_words(camera: str, image_size: Any, rate_hz: Any, repeat: Any, crop: Any) -> None:
    """Refuse settings that make no sense in any world."""
    if not re.fullmatch(r"\w+", camera):
        raise ValueError(f"env.camera is {camera!r}; a camera's name has letters, digits and _")
    if not isinstance(image_size, int) or not IMAGE_SIZES[0] <= image_size <= IMAGE_SIZES[1] or image_size % 2:
        raise ValueError(
            f"image_size is {image_size}; it may be {IMAGE_SIZES[0]} to {IMAGE_SIZES[1]} px, an even number (films)"
        )
    if rate_hz is not None and (not isinstance(rate_hz, int | float) or not 0 < rate_hz < 1e5):
        raise ValueError(f"env.rate_hz is {rate_hz}; it is the world's steps a second, a number above 0")
    if repeat not in (None, "auto") and (not isinstance(repeat, int) or isinstance(repeat, bool) or repeat < 1):
        raise ValueError(f"env.repeat is {repeat}; it is a whole number from 1 up, or auto (about 5 actions a second)")
    if crop is not None:
        shares = list(crop) if isinstance(crop, Sequence) and not isinstance(crop, str) else []
        inside = len(shares) == 4 and all(isinstance(share, int | float) and 0 <= share <= 1 for share in shares)
        if not inside or min(shares[2] - shares[0], shares[3] - shares[1]) < LEAST_CROP:
            raise ValueError(
                f"env.crop is {crop}; it is [left,top,right,bottom], shares of a picture's sides from 0 to 1, at least "
                f"{LEAST_CROP:g} apart"
            )


def _bounds(env_id: str, space: gymnasium.Space[Any]) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """An action's bounds (A,), float32, and the shape that the world wants it in."""
    if not isinstance(space, gymnasium.spaces.Box):
        raise ValueError(f"{env_id} acts in {type(space).__name__}; what is collected has actions in a Box")
    if not np.issubdtype(space.dtype, np.floating):
        raise ValueError(f"{env_id} acts in whole numbers ({space.dtype}); what is collected has actions of real ones")
    low, high = (np.ravel(bound).astype(np.float32) for bound in (space.low, space.high))
    # Bounds as large as a number can be are none either.
    free = ~(np.abs(low) < 1e30) | ~(np.abs(high) < 1e30)
    if free.any():
        raise ValueError(
            f"{env_id} has no bounds for action {int(free.argmax())}; what is collected has actions within bounds "
            "(gymnasium.wrappers.RescaleAction gives a world of yours some)"
        )
    return low, high, space.shape


def _leaves(space: gymnasium.Space[Any], path: Path = ()) -> list[tuple[Path, gymnasium.spaces.Box]]:
    """Every Box in a space, with the keys that lead to it; others (words, choices) are no state here."""
    if isinstance(space, gymnasium.spaces.Dict):
        return [leaf for key, inner in space.items() for leaf in _leaves(inner, (*path, key))]
    return [(path, space)] if isinstance(space, gymnasium.spaces.Box) else []


def _is_picture(space: gymnasium.spaces.Box) -> bool:
    shape = space.shape
    if space.dtype != np.uint8 and not (space.low.size and space.low.min() >= 0 and space.high.max() <= 1):
        return False
    if len(shape) == 3:
        return (shape[2] in (1, 3, 4) and min(shape[:2]) >= 8) or (shape[0] in (1, 3) and min(shape[1:]) >= 8)
    return len(shape) == 2 and space.dtype == np.uint8 and min(shape) >= 8


def _cameras(pictures: Mapping[Path, Any], camera: str) -> dict[str, Path]:
    """Camera -> where in an observation its picture is; goal pictures are none."""
    paths = [path for path in pictures if not _any(path, TRUTH) and GOAL not in path]
    if len(paths) == 1:
        return {camera: paths[0]}
    return {re.sub(r"\W", "_", ".".join(path).removeprefix("observation.images.")): path for path in paths}


def _any(path: Path, names: Sequence[str]) -> bool:
    return any(name in path for name in names)


def _numbered(paths: Sequence[Path], sizes: Mapping[Path, int]) -> list[str]:
    return [f"{'.'.join(path)}.{number}" for path in paths for number in range(sizes[path])]


# -- MuJoCo ------------------------------------------------------------------------------------------------------------


def _quicken(world: Any, drawn: int, fine_pictures: bool) -> Any:
    """Small pictures without shadows, reflections and multisampling where MuJoCo draws them; its model, or None.

    Drawing is nearly all that collecting costs: as Gymnasium sets it up (480 px, shadows), an action and its picture
    cost 40 times as much for Pusher, and 3 times for FetchPush, whose physics are slow. `drawn` px are twice what is
    wanted; averaging stands in for the multisampling.
    """
    mujoco = sys.modules.get("mujoco")
    model = getattr(world, "model", None)
    if mujoco is None or model is None or not isinstance(model, mujoco.MjModel):
        return None
    # Its renderer is made at the first picture, from what the model says then.
    renderer = getattr(world, "mujoco_renderer", None)
    if renderer is not None and hasattr(renderer, "width") and hasattr(renderer, "height"):
        renderer.width = renderer.height = drawn
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, drawn)
        model.vis.global_.offheight = max(model.vis.global_.offheight, drawn)
    if not fine_pictures:
        model.vis.quality.shadowsize = model.vis.quality.offsamples = 0
        model.vis.quality.numslices, model.vis.quality.numstacks, model.vis.quality.numquads = _ROUNDNESS
        model.light_castshadow[:] = 0
        model.mat_reflectance[:] = 0
    return model


def _actuators(model: Any) -> list[str] | None:
    """The names of a MuJoCo world's actuators."""
    return None if model is None else [model.actuator(number).name for number in range(model.nu)]
