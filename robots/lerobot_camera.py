"""Pictures of LeRobot cameras, with the time at which each was last a new one.

LeRobot gives the newest picture again and again, without a word about its age. A camera that hangs, and one that sends the
same picture on and on, both show here as a stamp that stands still.
"""

from __future__ import annotations

import time
import zlib
from typing import Any

import cv2
import numpy as np

from robots.arm import ArmError

# The guard judges the age of pictures; only one that is as old as this is not handed on at all.
OLDEST_MS = 10_000


class Pictures:
    """Looks at cameras, remembering what each showed last.

    Args:
        size: side of the pictures handed on, px: the middle square, resized; None hands on what the camera gives.
    """

    def __init__(self, size: int | None = None) -> None:
        self.size = size
        self._last: dict[str, tuple[int, float]] = {}

    def look(self, name: str, camera: Any, seen: np.ndarray | None = None) -> tuple[np.ndarray, float]:
        """A camera's newest picture (H, W, 3) uint8, and when, on the monotonic clock, it was new.

        Args:
            name: of the camera.
            camera: a connected LeRobot camera.
            seen: its picture, where the driver gave one along with the joints.
        """
        try:
            picture = camera.read_latest(max_age_ms=OLDEST_MS) if seen is None else seen
        except (TimeoutError, RuntimeError, OSError) as error:
            raise ArmError(f"camera {name} gives no picture: {' '.join(str(error).split())}") from error
        now = time.monotonic()
        taken = getattr(camera, "latest_timestamp", None)  # LeRobot's own cameras stamp with perf_counter
        stamp = now if taken is None else min(now, now - (time.perf_counter() - float(taken)))
        content = zlib.crc32(np.ascontiguousarray(picture))
        before = self._last.get(name)
        if before is not None and before[0] == content:
            stamp = before[1]
        self._last[name] = (content, stamp)
        return cut(np.asarray(picture), self.size), stamp


def cut(picture: np.ndarray, size: int | None) -> np.ndarray:
    """The middle square of a picture (H, W, 3), resized to (size, size, 3); None leaves it as it is."""
    if size is None:
        return picture
    side = min(picture.shape[:2])
    top, left = ((length - side) // 2 for length in picture.shape[:2])
    square = picture[top : top + side, left : left + side]
    if side == size:
        return np.ascontiguousarray(square)
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA)
