"""A camera in a process of its own: it draws the emulated scene and publishes pictures as LeRobot's `ZMQCamera` reads them.

Drawing would make the servos answer late, so it happens elsewhere; what it draws lies in memory both processes see.
"""

# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false
# (mujoco is a binary module whose functions and enums no stub describes)

from __future__ import annotations

import base64
import json
import multiprocessing
import time
from typing import Any

import numpy as np

NAME = "front"
# What the camera does: work, send the same picture on and on, send nothing.
WORKING, FROZEN, SILENT = 0, 1, 2
MODES = {"working": WORKING, "frozen": FROZEN, "silent": SILENT}
# A real sensor never gives the same picture twice; so many grey levels of noise are enough for that.
NOISE_LEVELS = 2
JPEG_QUALITY = 95


class Camera:
    """The camera's process, seen from the emulator.

    Attributes:
        port: where it publishes, on the loopback.
    """

    def __init__(self, positions: int, size: int, fps: float, seed: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._qpos = context.RawArray("d", positions)
        self._mode = context.RawValue("i", WORKING)
        ours, theirs = context.Pipe()
        self._process = context.Process(
            target=_publish, args=(theirs, self._qpos, self._mode, size, fps, seed), daemon=True, name="camera"
        )
        self._process.start()
        theirs.close()
        if not ours.poll(60.0):
            raise RuntimeError("the emulated camera did not start within a minute")
        self.port = int(ours.recv())

    def show(self, qpos: np.ndarray) -> None:
        """What the next picture shows."""
        self._qpos[:] = qpos

    def behave(self, mode: str) -> None:
        """`working`, `frozen` or `silent`."""
        if mode not in MODES:
            raise ValueError(f"a camera cannot be {mode!r}; known are {', '.join(MODES)}")
        self._mode.value = MODES[mode]

    def close(self) -> None:
        """Switch it off."""
        self._process.terminate()
        self._process.join(timeout=5.0)


class Drawing:
    """What the camera sees, drawn.

    Args:
        size: side of the pictures, px.
        seed: of the noise.
    """

    def __init__(self, size: int, seed: int) -> None:
        import mujoco

        import envs  # chooses the renderer
        from envs import so101

        assert envs
        self._model = so101.scene_model()
        self._data = mujoco.MjData(self._model)
        self._renderer = mujoco.Renderer(self._model, size, size)
        self._rng = np.random.default_rng(seed)

    def clean(self, qpos: np.ndarray) -> np.ndarray:
        """The scene at positions (n,), without noise, (size, size, 3) uint8."""
        import mujoco

        self._data.qpos[:] = qpos
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        self._renderer.update_scene(self._data, NAME)
        return self._renderer.render()

    def noisy(self, qpos: np.ndarray) -> np.ndarray:
        """The same with a sensor's noise."""
        picture = self.clean(qpos)
        noise = self._rng.integers(-NOISE_LEVELS, NOISE_LEVELS + 1, picture.shape)
        return np.clip(picture + noise, 0, 255).astype(np.uint8)

    def seen(self, qpos: np.ndarray) -> np.ndarray:
        """The same as a driver receives it: noisy, through JPEG."""
        import cv2

        return np.asarray(cv2.imdecode(np.frombuffer(jpeg(self.noisy(qpos)), np.uint8), cv2.IMREAD_COLOR))

    def close(self) -> None:
        """Free the renderer."""
        self._renderer.close()


def jpeg(picture: np.ndarray) -> bytes:
    """As it is published. LeRobot's reader swaps no colours: what is encoded as RGB comes out as RGB."""
    import cv2

    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


def _publish(answer: Any, qpos: Any, mode: Any, size: int, fps: float, seed: int) -> None:
    """The process: draw, publish, wait."""
    import cv2
    import zmq

    cv2.setNumThreads(1)
    drawing = Drawing(size, seed)
    socket = zmq.Context().socket(zmq.PUB)
    socket.setsockopt(zmq.SNDHWM, 2)
    answer.send(socket.bind_to_random_port("tcp://127.0.0.1"))
    parent = multiprocessing.parent_process()
    picture, due = np.zeros((size, size, 3), np.uint8), time.monotonic()
    while parent is None or parent.is_alive():
        if mode.value == WORKING:
            picture = drawing.noisy(np.frombuffer(qpos))
        if mode.value != SILENT:
            encoded = base64.b64encode(jpeg(picture)).decode()
            socket.send_string(json.dumps({"timestamps": {NAME: time.time()}, "images": {NAME: encoded}}))
        due = max(due + 1.0 / fps, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
