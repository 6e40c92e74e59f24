"""Cameras of an arm whose driver has none: LeRobot's, by type, read without waiting and stamped with when they saw."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import pkgutil
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from robots.arm import IMAGES, ArmError, Measured, Reading
from robots.kinematics import Kinematics
from robots.pose import tool_state

# A frame older than this is no frame; LeRobot's own bound.
LATEST_MS = 500
# LeRobot's network camera closes its socket under the thread that reads it when that has not ended within two seconds, and
# libzmq ends the whole process for it. A thread that waits no longer than this for a picture ends in time.
WAITS_MS = 1500


class Cameras:
    """Some LeRobot cameras, or none.

    Args:
        settings: name -> LeRobot's settings of that camera, `type` among them, such as
            `{front: {type: opencv, index_or_path: 0, width: 640, height: 480, fps: 30}}`.

    Raises:
        ValueError: a type or a setting that LeRobot does not know.
    """

    def __init__(self, settings: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._cameras = {name: _make(name, dict(values)) for name, values in (settings or {}).items()}

    def connect(self) -> None:
        """Open them all, or none."""
        for name, camera in self._cameras.items():
            try:
                camera.connect()
            except Exception as error:  # every camera has errors of its own
                self.disconnect()
                raise ArmError(f"camera {name} cannot be opened: {_first(error)}") from error

    def observe(self, kinematics: Kinematics, measure: Callable[[], Measured]) -> Reading:
        """Cameras, then joints and tool pose: what an arm with these cameras observes."""
        frames, taken = self.read()
        measured = measure()
        frames["observation.state"] = tool_state(kinematics, measured.joints, measured.gripper)
        frames["observation.joints"] = measured.joints.astype(np.float32)
        return Reading(frames, measured.monotonic_s, time.time(), taken)

    def read(self) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """The newest frames by LeRobot's names, (H, W, 3) uint8 each, and when each was taken (monotonic s).

        Raises:
            ArmError: a camera has no frame of the last half second.
        """
        frames, taken = {}, {}
        for name, camera in self._cameras.items():
            try:
                frames[f"{IMAGES}{name}"] = np.asarray(camera.read_latest(max_age_ms=LATEST_MS))
            except Exception as error:
                raise ArmError(f"camera {name} gives no frame: {_first(error)}") from error
            # LeRobot stamps with perf_counter, which on Linux is the monotonic clock.
            ahead = time.monotonic() - time.perf_counter()
            stamp = getattr(camera, "latest_timestamp", None)
            if stamp is not None:
                taken[name] = float(stamp) + ahead
        return frames, taken

    def disconnect(self) -> None:
        """Close them all, whatever one of them says."""
        for camera in self._cameras.values():
            with contextlib.suppress(Exception):
                camera.disconnect()


def end_in_time(camera: Any) -> Any:
    """The same LeRobot camera, not yet connected; disconnecting it while it is silent ends no process."""
    waits = getattr(camera, "timeout_ms", None)
    if isinstance(waits, int | float) and waits > WAITS_MS:
        camera.timeout_ms = WAITS_MS
    return camera


def _make(name: str, values: dict[str, Any]) -> Any:
    try:
        import draccus
        import lerobot.cameras
        from lerobot.cameras import CameraConfig
        from lerobot.cameras.utils import make_cameras_from_configs
    except ImportError as error:
        raise ValueError(f"camera {name} needs LeRobot, which is not installed: pip install lerobot==0.6.1") from error
    for package in pkgutil.iter_modules(lerobot.cameras.__path__, "lerobot.cameras."):
        if package.ispkg:
            with contextlib.suppress(ImportError):  # a camera whose SDK is not installed is not there
                importlib.import_module(package.name)
    kind, known = values.get("type"), CameraConfig.get_known_choices()
    if kind not in known:
        near = difflib.get_close_matches(str(kind), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
        raise ValueError(f"camera {name} has type {kind!r}; {hint}")
    try:
        return end_in_time(make_cameras_from_configs({name: draccus.decode(CameraConfig, values)})[name])
    except Exception as error:  # draccus and the cameras have many
        raise ValueError(f"camera {name}: {_first(error)}") from error


def _first(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
