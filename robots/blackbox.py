"""The black box: one line of JSON an event, each line sealed to the one before.

Written at once, a line is on disk before the next thing happens; `queued`, it is handed over in microseconds and on
disk within a tenth of a second, so that a loop never waits for a disk. A process killed at any moment leaves at most
one broken line at the end. The seals tell a record that was cut short from one that was altered; `repair` drops a
broken tail and says so in the record itself.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from robots.box_queue import Dropped, LineQueue

FORMAT = "premotor-blackbox-1"
# The longer side of a picture in the record, px; whole pictures go into the dataset.
FRAME_PX = 256
_FIRST_SEAL = "0" * 16


class BlackBox:
    """An append-only record; `with BlackBox(path) as box: box.write("step", requested=..., sent=...)`.

    Args:
        path: a file that is not there yet.
        queued: whether `write` only hands lines over, for loops that keep time.
        header: what the first line says; `robots.hashes.of` names everything that decides a run.

    Raises:
        FileExistsError: when the file is there already; a record is never written over or continued.
    """

    def __init__(self, path: str | Path, *, queued: bool = False, **header: Any) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "xb", buffering=0)  # noqa: SIM115 - closed in close()
        self._seal = _FIRST_SEAL
        self._lines = 0
        self._bytes = 0
        self._queue: LineQueue | None = None
        self.write("header", format=FORMAT, **header)
        if queued:
            self._queue = LineQueue(self._put, self._sync)

    @property
    def dropped(self) -> Dropped:
        """What was not recorded because the disk was too slow; the record says so itself."""
        return self._queue.dropped if self._queue is not None else Dropped()

    def write(self, kind: str, **values: Any) -> None:
        """Add a line; arrays become lists, numbers that are not finite become words.

        At once, the line is on disk when this returns. Queued, it returns within a millisecond and the line follows.

        Raises:
            OSError: the line (queued: an earlier one) could not be written; the record ends before it.
        """
        self._add(kind, values)

    def write_frame(self, camera: str, picture: np.ndarray, **values: Any) -> None:
        """Add a small copy of a picture (H, W, 3) uint8; when the disk is slow, pictures are what is dropped first."""
        self._add("frame", {"camera": camera, "picture": np.array(picture), **values}, frame=True)

    def commit(self, kind: str, *, timeout_s: float = 2.0, **values: Any) -> None:
        """Add a line that must be on disk before anything else happens: an approval, an ending.

        Raises:
            OSError: it is not (TimeoutError where the disk did not answer in time).
        """
        self._add(kind, values, must=True)
        self.flush(timeout_s)

    def flush(self, timeout_s: float = 2.0) -> None:
        """Return when every line so far is on disk, or raise an OSError."""
        if self._queue is not None:
            self._queue.flush(timeout_s)

    def close(self, *, timeout_s: float = 10.0, **values: Any) -> None:
        """Add the end line, which `verify` looks for. Safe to call twice."""
        if self._file.closed:
            return
        try:
            self.commit("end", timeout_s=timeout_s, **values)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close without an end line: the record is what is on disk. Safe to call twice."""
        # A thread that hangs in the disk keeps the file; closing it under its hands could write into another.
        if self._queue is None or self._queue.stop():
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.close(error=f"{type(error).__name__}: {error}")

    # -- inside ------------------------------------------------------------------------------------------------------

    def _add(self, kind: str, values: dict[str, Any], *, frame: bool = False, must: bool = False) -> None:
        if self._queue is not None:
            self._queue.offer(kind, _snapshot(values), frame=frame, must=must)
            return
        self._put({"kind": kind, "monotonic_s": time.monotonic(), "wall_s": time.time(), **values})
        self._sync()

    def _put(self, values: dict[str, Any]) -> None:
        """One line into the file, whole or not at all."""
        if isinstance(picture := values.get("picture"), np.ndarray):
            values = {**values, "picture": _jpeg(picture)}
        body = _plain({"line": self._lines, **values})
        line = _sealed(body, self._seal)
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[self._file.write(rest) or 0 :]
        except OSError:
            self._take_back()
            raise
        self._seal = _seal_of(body, self._seal)
        self._lines += 1
        self._bytes += len(line)

    def _sync(self) -> None:
        os.fsync(self._file.fileno())

    def _take_back(self) -> None:
        with contextlib.suppress(OSError):
            os.ftruncate(self._file.fileno(), self._bytes)
            self._file.seek(self._bytes)


@dataclass(frozen=True)
class Inspection:
    """What `verify` found.

    Attributes:
        sound: every line is whole and sealed to the one before.
        complete: and the last one is the end line.
        lines: sound lines from the top.
        sound_bytes: how many bytes they take.
        total_bytes: how many the file has.
        sentence: the finding in words.
    """

    sound: bool
    complete: bool
    lines: int
    sound_bytes: int
    total_bytes: int
    sentence: str


def read(path: str | Path) -> list[dict[str, Any]]:
    """The sound lines of a record, header first."""
    return [body for body, _, _ in _walk(_bytes(path))]


def verify(path: str | Path) -> Inspection:
    """Look at every line of a record."""
    data = _bytes(path)
    lines, size, last = 0, 0, ""
    for body, _, end in _walk(data):
        lines, size, last = lines + 1, end, str(body.get("kind"))
    sound = size == len(data) and lines > 0
    complete = sound and last == "end"
    if complete:
        sentence = f"complete: {lines} lines, every seal holds"
    elif sound:
        sentence = f"cut short: all {lines} lines are whole, but there is no end line; the run was killed"
    elif lines == 0:
        sentence = "not a black box: its first line is no sealed header"
    else:
        sentence = (
            f"broken after line {lines}: {len(data) - size} bytes at the end do not belong to a whole, sealed line; "
            "repair=true drops them"
        )
    return Inspection(sound, complete, lines, size, len(data), sentence)


def repair(path: str | Path) -> Inspection:
    """Drop what follows the last sound line, and say so in a line of its own; a sound record is left as it is."""
    path = Path(path)
    found = verify(path)
    if found.sound:
        return found
    if found.lines == 0:
        raise ValueError(f"{path} cannot be repaired: {found.sentence}")
    data = path.read_bytes()[: found.sound_bytes]
    seal = [seal for _, seal, _ in _walk(data)][-1]
    dropped = found.total_bytes - found.sound_bytes
    note = {"line": found.lines, "kind": "repaired", "wall_s": time.time(), "dropped_bytes": dropped}
    temporary = path.with_name(path.name + ".repairing")
    with open(temporary, "wb") as file:
        file.write(data + _sealed(note, seal))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    return verify(path)


def _bytes(path: str | Path) -> bytes:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no black box at {path}")
    return path.read_bytes()


def _walk(data: bytes) -> Iterator[tuple[dict[str, Any], str, int]]:
    """Sound lines from the top: (body, seal, offset of the line's end)."""
    seal, start = _FIRST_SEAL, 0
    while (end := data.find(b"\n", start)) >= 0:
        try:
            body = json.loads(data[start:end])
        except ValueError:
            return
        if not isinstance(body, dict):
            return
        claimed = body.pop("seal", None)
        seal = _seal_of(body, seal)
        if claimed != seal or (start == 0 and body.get("format") != FORMAT):
            return
        start = end + 1
        yield body, seal, start


def _sealed(body: dict[str, Any], seal: str) -> bytes:
    return json.dumps({**body, "seal": _seal_of(body, seal)}).encode() + b"\n"


def _seal_of(body: dict[str, Any], previous: str) -> str:
    return hashlib.sha256(previous.encode() + json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]


def _snapshot(value: Any) -> Any:
    """A value that its owner may go on changing; what is copied is cheap, the rest of the work is the writer's."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        return {key: _snapshot(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_snapshot(item) for item in value]
    return value


def _jpeg(picture: np.ndarray) -> str:
    """A picture (H, W, 3) uint8 as a small JPEG in base64."""
    from PIL import Image

    small, sink = Image.fromarray(picture), io.BytesIO()
    small.thumbnail((FRAME_PX, FRAME_PX))
    small.save(sink, "JPEG", quality=80)
    return base64.b64encode(sink.getvalue()).decode()


def _plain(value: Any) -> Any:
    """A value as JSON has it; what JSON has no word for becomes one."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return str(value)
