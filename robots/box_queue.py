"""A queue between the control loop and a file: the loop hands a line over and goes on, whatever the disk is doing.

One thread writes lines as they come, so that a killed process loses what was still in the queue and no more; another
puts them on the disk in batches, so that a slow disk delays neither loop nor lines. What does not fit is dropped,
pictures first, and the record says how much.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

# Pictures are refused once the writer is this many lines behind.
BEHIND_LINES = 500
RETRY_S = 0.1
# A word about what was dropped, at most this often.
NOTE_EVERY_S = 1.0


@dataclass(frozen=True)
class Dropped:
    """How much never reached the record."""

    lines: int = 0
    frames: int = 0


@dataclass(frozen=True)
class _Item:
    body: dict[str, Any]
    frame: bool = False
    written: threading.Event | None = None


class LineQueue:
    """Lines on their way to a file.

    Args:
        write: puts one line into the file; raises OSError and leaves no half of it behind.
        sync: puts the file on the disk.
        lines: how many may wait; a line beyond that is dropped.
        frames: how many of them may be pictures.
        sync_s: how long a written line may wait for the disk to be asked.
    """

    def __init__(
        self,
        write: Callable[[dict[str, Any]], None],
        sync: Callable[[], None],
        *,
        lines: int = 20_000,
        frames: int = 32,
        sync_s: float = 0.05,
    ) -> None:
        self._write, self._sync = write, sync
        self._most_lines, self._most_frames, self._sync_s = lines, frames, sync_s
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # among callers only: the writer never holds it
        self._frames_in = self._frames_out = 0
        self._dropped = self._noted = Dropped()
        self._noted_s = -NOTE_EVERY_S
        self._errors: dict[str, OSError] = {}  # of writing and of syncing, while they last
        self._told = False
        self._ending = threading.Event()
        self._synced = threading.Condition()
        self._lines_out = self._lines_synced = 0
        self._wanted_sync = False
        self._threads = [
            threading.Thread(target=run, name=f"black box {name}", daemon=True)
            for name, run in (("writer", self._write_all), ("sync", self._sync_all))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def dropped(self) -> Dropped:
        """What did not fit so far."""
        return self._dropped

    def offer(self, kind: str, values: dict[str, Any], *, frame: bool = False, must: bool = False) -> None:
        """Hand a line over; never waits for the disk.

        Args:
            kind: what the line is.
            values: what it says; nobody may change them afterwards.
            frame: whether it is a picture, which is dropped first.
            must: whether it is kept even when the queue is full.

        Raises:
            OSError: the disk refused an earlier line. Said once each time it begins; the lines wait and are tried again.
        """
        with self._lock:
            body = {"kind": kind, "monotonic_s": time.monotonic(), "wall_s": time.time(), **values}
            waiting = self._queue.qsize()
            if frame and (waiting > BEHIND_LINES or self._frames_in - self._frames_out >= self._most_frames):
                self._dropped = Dropped(self._dropped.lines, self._dropped.frames + 1)
            elif waiting >= self._most_lines and not must:
                self._dropped = Dropped(self._dropped.lines + 1, self._dropped.frames)
            else:
                self._note_drops(body["monotonic_s"], at_once=must)
                self._frames_in += frame
                self._queue.put(_Item(body, frame))
            if self._errors and not self._told:
                self._refuse()

    def flush(self, timeout_s: float) -> None:
        """Return when everything handed over so far is on the disk.

        Raises:
            OSError: the disk refuses, or (TimeoutError) did not answer in time.
        """
        began = time.monotonic()
        due = began + timeout_s
        written = threading.Event()
        self._queue.put(_Item({}, written=written))
        while not written.wait(min(0.01, timeout_s)):
            if self._errors and time.monotonic() > began + 3 * RETRY_S:  # it may just have been mended
                self._refuse()
            if time.monotonic() > due:
                raise TimeoutError(f"the disk has not taken the record within {timeout_s:g} s")
        with self._synced:
            wanted = self._lines_out
            self._wanted_sync = True
            self._synced.notify_all()
            if not self._synced.wait_for(lambda: self._lines_synced >= wanted, max(0.0, due - time.monotonic())):
                raise TimeoutError(f"the disk has not confirmed the record within {timeout_s:g} s")

    def stop(self, timeout_s: float = 1.0) -> bool:
        """End both threads; what still waits is given up. Whether they have ended."""
        self._ending.set()
        self._queue.put(None)
        with self._synced:
            self._synced.notify_all()
        due = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, due - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    # -- the caller's side -------------------------------------------------------------------------------------------

    def _note_drops(self, now: float, at_once: bool) -> None:
        """A line about what was dropped since the last such line; called with the lock held."""
        if self._dropped == self._noted or (now - self._noted_s < NOTE_EVERY_S and not at_once):
            return
        lost = {
            "lines": self._dropped.lines - self._noted.lines,
            "frames": self._dropped.frames - self._noted.frames,
        }
        stamps = {"monotonic_s": now, "wall_s": time.time()}
        self._queue.put(_Item({"kind": "dropped", **stamps, **lost, "why": "the disk was too slow"}))
        self._noted, self._noted_s = self._dropped, now

    def _refuse(self) -> NoReturn:
        self._told = True
        error = next(iter(self._errors.values()))
        raise OSError(error.errno, f"the record cannot be written: {error.strerror or error}")

    # -- the threads -------------------------------------------------------------------------------------------------

    def _write_all(self) -> None:
        while (item := self._queue.get()) is not None:
            body = item.body
            while body and not self._ending.is_set():
                try:
                    self._write(body)
                except OSError as error:
                    self._errors["write"] = error
                    self._ending.wait(RETRY_S)
                    continue
                except Exception as error:  # a value nobody can write down must not end the record
                    stamps = {name: body[name] for name in ("monotonic_s", "wall_s")}
                    body = {
                        "kind": "unwritable",
                        "was": str(body["kind"]),
                        **stamps,
                        "why": f"{type(error).__name__}: {error}",
                    }
                    continue
                self._mended("write")
                with self._synced:
                    self._lines_out += 1
                    if self._lines_out - self._lines_synced == 1:
                        self._synced.notify_all()
                break
            self._frames_out += item.frame
            if item.written is not None and not self._ending.is_set():
                item.written.set()
            if self._ending.is_set():
                return

    def _mended(self, what: str) -> None:
        if self._errors.pop(what, None) is not None and not self._errors:
            self._told = False

    def _sync_all(self) -> None:
        while not self._ending.is_set():
            with self._synced:
                self._synced.wait_for(lambda: self._ending.is_set() or self._lines_out > self._lines_synced)
                # A short wait gathers lines, so that one call to the disk serves many.
                self._synced.wait_for(lambda: self._ending.is_set() or self._wanted_sync, self._sync_s)
                self._wanted_sync = False
                upto = self._lines_out
            if self._ending.is_set():
                return
            try:
                self._sync()
            except OSError as error:
                self._errors["sync"] = error
                self._ending.wait(RETRY_S)
                continue
            self._mended("sync")
            with self._synced:
                self._lines_synced = upto
                self._synced.notify_all()
