"""The black box: one line of JSON an event, on disk before the next thing happens, each line sealed to the one before.

A process killed at any moment leaves at most one broken line at the end. The seals tell a record that was cut short
from one that was altered; `repair` drops a broken tail and says so in the record itself.
"""

from __future__ import annotations

import contextlib
import hashlib
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

FORMAT = "premotor-blackbox-1"
_FIRST_SEAL = "0" * 16


class BlackBox:
    """An append-only record; `with BlackBox(path) as box: box.write("step", requested=..., sent=...)`."""

    def __init__(self, path: str | Path, **header: Any) -> None:
        """Start a record with a header line.

        Raises:
            FileExistsError: when the file is there already; a record is never written over or continued.
        """
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "xb", buffering=0)  # noqa: SIM115 - closed in close()
        self._seal = _FIRST_SEAL
        self._lines = 0
        self._bytes = 0
        self.write("header", format=FORMAT, **header)

    def write(self, kind: str, **values: Any) -> None:
        """Add a line and put it on disk; arrays become lists, numbers that are not finite become words.

        Raises:
            OSError: the line could not be written; the record ends before it.
        """
        stamps = {"monotonic_s": time.monotonic(), "wall_s": time.time()}
        body = _plain({"line": self._lines, "kind": kind, **stamps, **values})
        line = _sealed(body, self._seal)
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[self._file.write(rest) or 0 :]
            os.fsync(self._file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file.fileno(), self._bytes)
                self._file.seek(self._bytes)
            raise
        self._seal = _seal_of(body, self._seal)
        self._lines += 1
        self._bytes += len(line)

    def close(self, **values: Any) -> None:
        """Add the end line, which `verify` looks for. Safe to call twice."""
        if not self._file.closed:
            try:
                self.write("end", **values)
            finally:
                self._file.close()

    def abandon(self) -> None:
        """Close without an end line: the record is what is on disk."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(**({} if error is None else {"error": f"{type(error).__name__}: {error}"}))


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
