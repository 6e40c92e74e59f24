"""Buttons from the kernel: the real parser on the bytes a device would send, through a pipe in its place."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robots.evdev import CODES, EV_KEY, EV_SYN, SYN_DROPPED, Button, code_of, devices

NATIVE = "llHHi"


def event(kind: int, code: int, value: int) -> bytes:
    return struct.pack(NATIVE, 1_700_000_000, 123_456, kind, code, value)


def key(name: str, value: int) -> bytes:
    return event(EV_KEY, CODES[name], value) + event(EV_SYN, 0, 0)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[tuple[Path, list[int]]]:
    """A FIFO in the place of /dev/input/event0, and the end a test writes to once somebody reads."""
    path, ends = tmp_path / "event0", []
    os.mkfifo(path)
    yield path, ends
    for end in ends:
        os.close(end)


def plug(device: tuple[Path, list[int]], button: str | None = None) -> tuple[Button, int]:
    path, ends = device
    opened = Button(path, button)
    ends.append(os.open(path, os.O_WRONLY))
    return opened, ends[-1]


def test_a_button_is_held_from_press_to_release(device: tuple[Path, list[int]]) -> None:
    button, wire = plug(device, "BTN_TR")
    assert not button.held()
    os.write(wire, key("BTN_TR", 1))
    assert button.held()
    os.write(wire, key("BTN_TR", 2))
    assert button.held()
    os.write(wire, key("BTN_TR", 0))
    assert not button.held()
    button.close()
    button.close()


def test_a_press_nobody_saw_does_not_count(device: tuple[Path, list[int]]) -> None:
    """A key that repeats was pressed before we looked: it must be pressed anew."""
    button, wire = plug(device, "KEY_SPACE")
    os.write(wire, key("KEY_SPACE", 2))
    assert not button.held()


def test_other_buttons_and_lost_events(device: tuple[Path, list[int]]) -> None:
    button, wire = plug(device, "KEY_B")
    os.write(wire, key("KEY_A", 1))
    assert not button.held()
    os.write(wire, key("KEY_B", 1))
    assert button.held()
    os.write(wire, event(EV_SYN, SYN_DROPPED, 0))  # the kernel's buffer ran over
    assert not button.held()


def test_any_button_of_a_pedal(device: tuple[Path, list[int]]) -> None:
    button, wire = plug(device)
    os.write(wire, key("KEY_A", 1) + key("KEY_B", 1) + key("KEY_A", 0))
    assert button.held()
    os.write(wire, key("KEY_B", 0))
    assert not button.held()


def test_a_device_that_is_pulled_out_releases(device: tuple[Path, list[int]]) -> None:
    button, wire = plug(device)
    os.write(wire, key("KEY_A", 1))
    assert button.held()
    os.close(device[1].pop())
    assert not button.held()
    assert "is gone" in button.lost
    assert not button.held()


def test_bytes_may_come_in_pieces(device: tuple[Path, list[int]]) -> None:
    button, wire = plug(device)
    data = key("KEY_A", 1)
    seen = []
    for index in range(0, len(data), 5):
        os.write(wire, data[index : index + 5])
        seen.append(button.held())
    assert seen == sorted(seen)
    assert seen[-1]


@given(st.lists(st.tuples(st.sampled_from(["KEY_A", "KEY_B"]), st.sampled_from([0, 1, 2])), max_size=30))
def test_a_button_is_what_its_last_press_or_release_said(story: list[tuple[str, int]]) -> None:
    read, write = os.pipe()
    os.set_blocking(read, False)
    button = Button(f"/dev/fd/{read}", "KEY_A")
    try:
        for name, value in story:
            os.write(write, key(name, value))
        own = [value for name, value in story if name == "KEY_A" and value != 2]
        assert button.held() == (bool(own) and own[-1] == 1)
    finally:
        button.close()
        os.close(read)
        os.close(write)


def test_wrong_devices_and_buttons_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is the device plugged in"):
        Button(tmp_path / "event9")
    with pytest.raises(ValueError, match="no button is called 'BTN_FIRE'"):
        code_of("BTN_FIRE")
    assert code_of("304") == CODES["BTN_SOUTH"]


def test_devices_are_listed_by_the_name_that_lasts(tmp_path: Path) -> None:
    inputs, names = tmp_path / "input", tmp_path / "class"
    (inputs / "by-id").mkdir(parents=True)
    for number, name in ((2, "Pedal"), (10, None)):
        (inputs / f"event{number}").touch()
        if name:
            (names / f"event{number}" / "device").mkdir(parents=True)
            (names / f"event{number}" / "device" / "name").write_text(f"{name}\n")
    (inputs / "by-id" / "usb-pedal-event-kbd").symlink_to("../event2")
    first, second = devices(inputs, names)
    assert (first.path.name, first.name) == ("usb-pedal-event-kbd", "Pedal")
    assert (second.path.name, second.name) == ("event10", "unnamed")
