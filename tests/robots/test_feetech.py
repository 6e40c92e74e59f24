"""The emulated bus speaks the servos' protocol: whole packets are answered, damaged ones are not, registers behave."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robots.emulated import feetech
from robots.emulated.feetech import Packet, Packets, Servo, Wire, checksum


def servos() -> list[Servo]:
    return [Servo(ident, 500, 3500, -7 * ident, 2000 + ident) for ident in (1, 2, 3)]


def sent(ident: int, instruction: int, body: bytes = b"") -> bytes:
    content = bytes([ident, len(body) + 2, instruction]) + body
    return feetech.HEADER + content + bytes([checksum(content)])


def heard(answer: bytes) -> list[tuple[int, int, bytes]]:
    """Status packets as (id, error, data)."""
    return [(p.ident, p.instruction, p.body) for p in Packets().feed(answer)]


packets = st.builds(
    Packet,
    ident=st.integers(0, 0xFE),
    instruction=st.sampled_from([feetech.PING, feetech.READ, feetech.WRITE, feetech.SYNC_READ, feetech.SYNC_WRITE]),
    body=st.binary(max_size=60),
)


@given(st.lists(packets, max_size=6), st.data())
def test_packets_survive_any_split(whole: list[Packet], data: st.DataObject) -> None:
    stream = b"".join(sent(p.ident, p.instruction, p.body) for p in whole)
    reader, found, at = Packets(), [], 0
    while at < len(stream):
        step = data.draw(st.integers(1, len(stream) - at))
        found += list(reader.feed(stream[at : at + step]))
        at += step
    assert found == whole


@given(st.binary(max_size=300))
def test_noise_brings_nothing_down(noise: bytes) -> None:
    wire = Wire(servos())
    for packet in Packets().feed(noise):
        wire.answer(packet)


def test_a_damaged_instruction_is_not_heard() -> None:
    whole = bytearray(sent(1, feetech.WRITE, bytes([feetech.TORQUE, 1])))
    whole[-2] ^= 1
    assert list(Packets().feed(bytes(whole))) == []


@given(st.integers(-4095, 4095))
def test_signed_registers_keep_their_sign(value: int) -> None:
    servo = servos()[0]
    servo.put(feetech.GOAL, value)
    assert servo.get(feetech.GOAL) == value


def test_reads_writes_and_groups() -> None:
    wire = Wire(servos())
    goal = (1234).to_bytes(2, "little")
    assert heard(wire.answer(Packet(2, feetech.PING, b""))) == [(2, 0, b"")]
    assert heard(wire.answer(Packet(2, feetech.WRITE, bytes([feetech.GOAL]) + goal))) == [(2, 0, b"")]
    assert heard(wire.answer(Packet(2, feetech.READ, bytes([feetech.GOAL, 2])))) == [(2, 0, goal)]
    assert wire.answer(Packet(9, feetech.PING, b"")) == b""
    group = wire.answer(Packet(feetech.BROADCAST, feetech.SYNC_READ, bytes([feetech.POSITION, 2, 3, 1])))
    assert [(ident, int.from_bytes(data, "little")) for ident, _, data in heard(group)] == [(3, 2003), (1, 2001)]
    body = bytes([feetech.GOAL, 2, 1, *goal, 3, *goal])
    assert wire.answer(Packet(feetech.BROADCAST, feetech.SYNC_WRITE, body)) == b""
    assert [servo.get(feetech.GOAL) for servo in wire.servos.values()] == [1234, 1234, 1234]


def test_what_is_measured_cannot_be_written() -> None:
    servo = servos()[0]
    servo.write(feetech.POSITION, bytes([9, 9, 9]))
    assert servo.get(feetech.POSITION) == 2001


def test_a_goal_beyond_the_limits_is_kept_and_not_driven_to() -> None:
    servo = servos()[0]
    servo.write(feetech.GOAL, (4000).to_bytes(2, "little"))
    assert (servo.get(feetech.GOAL), servo.aim) == (4000, 3500)


@pytest.mark.parametrize("energises", [False, True])
def test_whether_a_goal_switches_torque_on(energises: bool) -> None:
    servo = servos()[0]
    servo.energises = energises
    servo.write(feetech.GOAL, (2500).to_bytes(2, "little"))
    assert servo.torque is energises


def test_faults_of_the_wire() -> None:
    wire = Wire(servos())
    ask = Packet(feetech.BROADCAST, feetech.SYNC_READ, bytes([feetech.POSITION, 2, 1, 2, 3]))
    wire.corrupt = 2
    assert len(heard(wire.answer(ask))) == 1
    assert len(heard(wire.answer(ask))) == 3
    wire.servos[2].dead = True
    assert [ident for ident, _, _ in heard(wire.answer(ask))] == [1, 3]
    wire.servos[1].error = feetech.ERROR_BITS["overload"]
    assert heard(wire.answer(ask))[0][1] == 32
    wire.lost = 1.0
    assert wire.answer(ask) == b""
    wire.heal()
    wire.silent = True
    assert wire.answer(ask) == b""
    wire.heal()
    assert [error for _, error, _ in heard(wire.answer(ask))] == [0, 0, 0]
