"""The wire between the planner's process and the arm's: whole messages, JSON with arrays beside it, never pickle.

A message is a mapping of words, numbers, lists and arrays. Sending never waits for a reader that has stopped reading: what
cannot be handed over is kept for a sender of its own, and too much of it closes the link.
"""

from __future__ import annotations

import contextlib
import json
import math
import queue
import select
import socket
import struct
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

_SIZES = struct.Struct("!II")
# Longer is no message of ours but noise; shorter than four uncompressed full-HD pictures is none.
LONGEST_HEADER, LONGEST_BODY = 1 << 22, 1 << 26
WAITING = 64
# Kinds of numbers an array may have; everything else is refused on both ends.
KINDS = ("|u1", "|b1", "<i4", "<i8", "<f4", "<f8")


class LinkClosed(ConnectionError):
    """The other end is gone, or does not read any more."""


class Link:
    """One end of a connected stream socket; any thread may send, one receives."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._socket.setblocking(True)
        self._buffer = bytearray()
        self._waiting: queue.Queue[bytes | None] = queue.Queue(WAITING)
        self._broken = ""
        self._sender = threading.Thread(target=self._send_all, name="premotor-link", daemon=True)
        self._sender.start()

    @classmethod
    def pair(cls) -> tuple[socket.socket, socket.socket]:
        """Two connected sockets, for two processes."""
        return socket.socketpair()

    def send(self, message: Mapping[str, Any]) -> None:
        """Hand a message over to be sent; returns at once.

        Raises:
            LinkClosed: the other end is gone or has not read for a long time.
            TypeError: something in it is neither a word, a number, a list, a mapping nor an array of numbers.
        """
        data = encode(message)
        if self._broken:
            raise LinkClosed(self._broken)
        try:
            self._waiting.put_nowait(data)
        except queue.Full:
            self._break(f"the other end has left {WAITING} messages unread")
            raise LinkClosed(self._broken) from None

    def offer(self, message: Mapping[str, Any]) -> bool:
        """Send what is worth saying only while the other end reads; False, and nothing is kept, when something waits.

        Raises:
            LinkClosed: the other end is gone.
        """
        if not self._broken and not self._waiting.empty():
            return False
        self.send(message)
        return True

    def receive(self, timeout_s: float | None = None) -> dict[str, Any] | None:
        """The next whole message; None when there is none within the time (None waits for ever).

        Raises:
            LinkClosed: the other end is gone, or sends what is no message.
        """
        due = None if timeout_s is None else time.monotonic() + timeout_s
        while (message := self._whole()) is None:
            left = None if due is None else max(0.0, due - time.monotonic())
            try:
                ready, _, _ = select.select([self._socket], [], [], left)
                if not ready:
                    return None
                data = self._socket.recv(1 << 18)
            except (OSError, ValueError) as error:  # ValueError: closed under our feet, its number is -1
                raise LinkClosed(self._broken or f"the link is closed ({error})") from None
            if not data:
                raise LinkClosed(self._broken or "the other end is gone")
            self._buffer += data
        return message

    def fileno(self) -> int:
        """For `select`."""
        return self._socket.fileno()

    def close(self) -> None:
        """Send what waits, a second at most, and close."""
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)
        if threading.current_thread() is not self._sender:
            self._sender.join(1.0)
        self._break("the link was closed")

    # -- inside ------------------------------------------------------------------------------------------------------

    def _whole(self) -> dict[str, Any] | None:
        if len(self._buffer) < _SIZES.size:
            return None
        header, body = _SIZES.unpack_from(self._buffer)
        if header > LONGEST_HEADER or body > LONGEST_BODY:
            raise LinkClosed(f"a message of {header} + {body} bytes is none of ours")
        end = _SIZES.size + header + body
        if len(self._buffer) < end:
            return None
        data = bytes(self._buffer[:end])
        del self._buffer[:end]
        return decode(data)

    def _send_all(self) -> None:
        while (data := self._waiting.get()) is not None:
            try:
                self._socket.sendall(data)
            except OSError as error:
                # What it said last can still be read; so the socket stays open on our side.
                self._broken = self._broken or f"the other end is gone ({error})"
                return

    def _break(self, why: str) -> None:
        self._broken = self._broken or why
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._socket.close()


def encode(message: Mapping[str, Any]) -> bytes:
    """A message as bytes: two lengths, JSON, arrays end to end."""
    arrays: list[np.ndarray] = []
    header = json.dumps([_flat(message, arrays), [[a.dtype.str, list(a.shape)] for a in arrays]]).encode()
    body = b"".join(array.tobytes() for array in arrays)
    if len(header) > LONGEST_HEADER or len(body) > LONGEST_BODY:
        raise TypeError(f"a message of {len(header)} + {len(body)} bytes is too long")
    return _SIZES.pack(len(header), len(body)) + header + body


def decode(data: bytes) -> dict[str, Any]:
    """The message of `encode`d bytes.

    Raises:
        LinkClosed: these bytes are none.
    """
    try:
        size, _ = _SIZES.unpack_from(data)
        start = _SIZES.size + size
        plain, described = json.loads(data[_SIZES.size : start])
        arrays = []
        for kind, shape in described:
            if kind not in KINDS or any(not isinstance(n, int) or n < 0 for n in shape):
                raise ValueError(f"an array of {kind} {shape}")
            count = math.prod(shape)
            array = np.frombuffer(data, np.dtype(kind), count, start).reshape(shape).copy()
            arrays.append(array)
            start += array.nbytes
        message = _full(plain, arrays)
        if start != len(data) or not isinstance(message, dict):
            raise ValueError("its lengths do not fit")
        return message
    except (ValueError, TypeError, IndexError, KeyError, RecursionError, struct.error) as error:
        raise LinkClosed(f"what came is no message of ours: {error}") from None


_ARRAY = "\x00array"


def _flat(value: Any, arrays: list[np.ndarray]) -> Any:
    if isinstance(value, np.ndarray):
        array = np.ascontiguousarray(value)
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        if array.dtype.str not in KINDS:
            raise TypeError(f"an array of {array.dtype} cannot be sent")
        arrays.append(array.reshape(np.shape(value)))
        return {_ARRAY: len(arrays) - 1}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): _flat(item, arrays) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_flat(item, arrays) for item in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"{type(value).__name__} cannot be sent")


def _full(value: Any, arrays: list[np.ndarray]) -> Any:
    if isinstance(value, dict):
        if set(value) == {_ARRAY}:
            index = value[_ARRAY]
            if not isinstance(index, int) or isinstance(index, bool) or index < 0:
                raise ValueError(f"array {index}")
            return arrays[index]
        return {key: _full(item, arrays) for key, item in value.items()}
    if isinstance(value, list):
        return [_full(item, arrays) for item in value]
    return value
