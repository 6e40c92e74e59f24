"""Feetech bus servos on a pseudo-terminal: registers and packets, so that an unmodified driver finds six STS3215.

`Servo` is 256 bytes and what writing to them does; `Wire` is the bus with its faults; `Port` is the pseudo-terminal that
carries it. What moves the servos stands behind the registers (`body.py`) and is not known here.
"""

from __future__ import annotations

import contextlib
import os
import pty
import random
import select
import threading
import time
import tty
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from robots.priority import go_first

# Registers of the STS3215, as LeRobot's table names them.
FIRMWARE, MODEL, IDENT, MIN_LIMIT, MAX_LIMIT, HOMING = 0, 3, 5, 9, 11, 31
TORQUE, GOAL, GOAL_VELOCITY, TORQUE_LIMIT, LOCK = 40, 42, 46, 48, 55
POSITION, VELOCITY, LOAD, VOLTAGE, TEMPERATURE, STATUS, MOVING, CURRENT = 56, 58, 60, 62, 63, 65, 66, 69
STS3215, RESOLUTION = 777, 4096
# Sign-magnitude bit of the registers that have a sign.
SIGN_BIT = {GOAL: 15, GOAL_VELOCITY: 15, POSITION: 15, VELOCITY: 15, LOAD: 10, HOMING: 11, CURRENT: 15}
READ_ONLY = frozenset([*range(5), *range(56, 71)])
PING, READ, WRITE, SYNC_READ, SYNC_WRITE, BROADCAST = 1, 2, 3, 0x82, 0x83, 0xFE
HEADER = b"\xff\xff"
# How often to look whether somebody opened the port.
UNUSED_S = 0.005
# Bits of the status byte with which a servo answers every request.
ERROR_BITS = {"voltage": 1, "angle": 2, "overheat": 4, "overcurrent": 8, "overload": 32}


class Servo:
    """One servo's memory.

    Args:
        ident: its id on the bus.
        lower, upper: position limits in ticks, kept in its EEPROM; it drives to no goal beyond them.
        homing: homing offset in ticks.
        position: where it stands, ticks.

    Attributes:
        dead: it answers nothing and hears nothing.
        error: its status byte.
        energises: a goal that is written switches torque on, as a user saw real ones do (lerobot issue 3585).
        fixed: registers that show a fixed value, whatever is reported: {address: value}.
    """

    def __init__(self, ident: int, lower: int, upper: int, homing: int, position: int) -> None:
        self.ident = ident
        self.memory = bytearray(256)
        self.dead = False
        self.error = 0
        self.energises = False
        self.fixed: dict[int, int] = {}
        self.memory[FIRMWARE : FIRMWARE + 2] = bytes([3, 10])
        self.memory[IDENT] = ident
        self.memory[LOCK] = 1
        self.put(MODEL, STS3215)
        self.put(MIN_LIMIT, lower)
        self.put(MAX_LIMIT, upper)
        self.put(HOMING, homing)
        self.put(TORQUE_LIMIT, 1000)
        self.put(POSITION, position)
        self.put(GOAL, position)
        self.memory[VOLTAGE], self.memory[TEMPERATURE] = 120, 32

    def put(self, address: int, value: int) -> None:
        """Set a two-byte register; signed ones take negative values."""
        if value < 0:
            value = -value | 1 << SIGN_BIT[address]
        self.memory[address : address + 2] = value.to_bytes(2, "little")

    def get(self, address: int) -> int:
        """A two-byte register."""
        value = int.from_bytes(self.memory[address : address + 2], "little")
        bit = SIGN_BIT.get(address)
        if bit is not None and value >> bit & 1:
            return -(value & (1 << bit) - 1)
        return value

    @property
    def torque(self) -> bool:
        """Whether it holds."""
        return bool(self.memory[TORQUE])

    @property
    def aim(self) -> int:
        """Where it drives to, ticks: its goal, inside its own limits."""
        return min(max(self.get(GOAL), self.get(MIN_LIMIT)), self.get(MAX_LIMIT))

    def write(self, address: int, data: bytes) -> None:
        """What a WRITE does."""
        for at, value in enumerate(data, start=address):
            if at < 256 and at not in READ_ONLY:
                self.memory[at] = value
        if self.energises and address <= GOAL < address + len(data):
            self.memory[TORQUE] = 1

    def read(self, address: int, count: int) -> bytes:
        """What a READ answers."""
        shown = bytearray(self.memory)
        for at, value in self.fixed.items():
            shown[at] = value
        return bytes(shown[address : address + count])


@dataclass(frozen=True)
class Packet:
    """An instruction: to whom, what, with which bytes."""

    ident: int
    instruction: int
    body: bytes


class Packets:
    """From a stream of bytes to instructions; what is damaged is skipped."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, received: bytes) -> Iterator[Packet]:
        """The instructions that are complete now."""
        self._buffer += received
        while True:
            start = self._buffer.find(HEADER)
            if start < 0:
                del self._buffer[:-1]
                return
            del self._buffer[:start]
            if len(self._buffer) < 4:
                return
            end = 4 + self._buffer[3]
            if self._buffer[3] < 2 or self._buffer[2] == 0xFF:
                del self._buffer[:1]
                continue
            if len(self._buffer) < end:
                return
            content, check = bytes(self._buffer[2 : end - 1]), self._buffer[end - 1]
            if checksum(content) == check:
                del self._buffer[:end]
                yield Packet(content[0], content[2], content[3:])
            else:
                del self._buffer[:2]


def checksum(content: bytes) -> int:
    """The last byte of a packet whose bytes between header and checksum are `content`."""
    return ~sum(content) & 0xFF


def status(ident: int, error: int, data: bytes = b"") -> bytes:
    """A servo's answer."""
    content = bytes([ident, len(data) + 2, error]) + data
    return HEADER + content + bytes([checksum(content)])


class Wire:
    """The servos on one bus, and what can go wrong on it.

    Attributes:
        lock: to be held by whoever reads or changes servos.
        corrupt: so many of the next answers have a wrong byte.
        silent: nothing is heard and nothing answered.
        lost: share of answers that get lost.
        late_s: answers come so much later.
        requests: how many instructions were heard.
    """

    def __init__(self, servos: Sequence[Servo], seed: int = 0) -> None:
        self.servos = {servo.ident: servo for servo in servos}
        self.lock = threading.RLock()
        self.heal()
        self.requests = 0
        self._chance = random.Random(seed)

    def heal(self) -> None:
        """Everything works again."""
        self.corrupt, self.silent, self.lost, self.late_s = 0, False, 0.0, 0.0
        for servo in self.servos.values():
            servo.dead, servo.error, servo.energises, servo.fixed = False, 0, False, {}

    def answer(self, packet: Packet) -> bytes:
        """What the servos say to an instruction; empty where they say nothing."""
        with self.lock:
            if self.silent:
                return b""
            self.requests += 1
            return b"".join(self._damaged(answer) for answer in self._answers(packet))

    def _answers(self, packet: Packet) -> Iterator[bytes]:
        body, many = packet.body, packet.instruction in (SYNC_READ, SYNC_WRITE)
        if many and len(body) >= 2:
            address, count = body[0], body[1]
            if packet.instruction == SYNC_READ:
                for servo in self._alive(body[2:]):
                    yield status(servo.ident, servo.error, servo.read(address, count))
                return
            for at in range(2, len(body) - count, count + 1):
                for servo in self._alive(body[at : at + 1]):
                    servo.write(address, body[at + 1 : at + 1 + count])
            return
        everyone = packet.ident == BROADCAST
        for servo in self._alive(sorted(self.servos) if everyone else [packet.ident]):
            if packet.instruction == PING:
                yield status(servo.ident, servo.error)
            elif packet.instruction == WRITE and len(body) >= 2:
                servo.write(body[0], body[1:])
                if not everyone:
                    yield status(servo.ident, servo.error)
            elif packet.instruction == READ and len(body) == 2 and not everyone:
                yield status(servo.ident, servo.error, servo.read(body[0], body[1]))

    def _alive(self, idents: Sequence[int]) -> Iterator[Servo]:
        for ident in idents:
            servo = self.servos.get(ident)
            if servo is not None and not servo.dead:
                yield servo

    def _damaged(self, answer: bytes) -> bytes:
        if self.lost and self._chance.random() < self.lost:
            return b""
        if self.corrupt > 0:
            self.corrupt -= 1
            return answer[:-1] + bytes([answer[-1] ^ 0x55])
        return answer


class Port:
    """The pseudo-terminal under a bus; `name` is what a driver opens."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self._near, far = pty.openpty()
        tty.setraw(far)
        self.name = os.ttyname(far)
        os.close(far)
        self._running = True
        self._thread = threading.Thread(target=self._serve, name="servo bus", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        go_first(waits_busily=False)  # servos have processors of their own
        packets = Packets()
        while self._running:
            try:
                if not select.select([self._near], [], [], 0.1)[0]:
                    continue
                received = os.read(self._near, 4096)
            except OSError:
                time.sleep(UNUSED_S)  # nobody has the far end open
                continue
            for packet in packets.feed(received):
                answer = self.wire.answer(packet)
                if answer:
                    self._send(answer)

    def _send(self, answer: bytes) -> None:
        if self.wire.late_s > 0:
            time.sleep(self.wire.late_s)
        with contextlib.suppress(OSError):
            os.write(self._near, answer)

    def unplug(self) -> None:
        """The cable is pulled: whoever has the port open sees it hang up."""
        if not self._running:
            return
        self._running = False
        self._thread.join(timeout=1.0)
        os.close(self._near)
