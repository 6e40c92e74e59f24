"""The black box survives being killed, tells cut from altered, and repairs the first."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from robots import blackbox
from robots.blackbox import BlackBox


def write(path: Path, lines: int = 3) -> Path:
    with BlackBox(path, model="m", limits="l") as box:
        for step in range(lines):
            box.write("step", step=step, requested=np.array([0.1, np.nan, np.inf]), ok=np.True_, none=None)
    return path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = write(tmp_path / "box.jsonl")
    lines = blackbox.read(path)
    assert [line["kind"] for line in lines] == ["header", "step", "step", "step", "end"]
    assert lines[0]["model"] == "m"
    assert lines[1]["requested"] == [0.1, "nan", "inf"]
    assert lines[1]["ok"] is True
    found = blackbox.verify(path)
    assert found.sound
    assert found.complete


def test_every_line_is_plain_json(tmp_path: Path) -> None:
    for line in write(tmp_path / "box.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


def test_a_line_that_does_not_fit_on_the_disk_leaves_no_half(tmp_path: Path) -> None:
    box = BlackBox(tmp_path / "box.jsonl")
    size = (tmp_path / "box.jsonl").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, hard))
        with pytest.raises(OSError, match="too large"):
            box.write("step", words="x" * 500)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    box.write("step", words="y")
    box.close()
    assert blackbox.verify(tmp_path / "box.jsonl").complete


def test_a_record_is_never_overwritten(tmp_path: Path) -> None:
    write(tmp_path / "box.jsonl")
    with pytest.raises(FileExistsError):
        BlackBox(tmp_path / "box.jsonl")


def test_an_error_that_ends_the_run_is_in_the_end_line(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), BlackBox(tmp_path / "box.jsonl"):
        raise RuntimeError("servo 3 is gone")
    assert "servo 3 is gone" in blackbox.read(tmp_path / "box.jsonl")[-1]["error"]


def test_every_truncation_is_detected_and_repaired(tmp_path: Path) -> None:
    data = write(tmp_path / "box.jsonl", lines=2).read_bytes()
    starts = [0] + [i + 1 for i, byte in enumerate(data) if byte == 10]
    for cut in sorted({*range(starts[1], len(data), 7), *starts[1:-1]}):
        torn = tmp_path / "torn.jsonl"
        torn.write_bytes(data[:cut])
        found = blackbox.verify(torn)
        assert not found.complete
        assert found.sound == (cut in starts)
        assert found.sound_bytes == max(start for start in starts if start <= cut)
        repaired = blackbox.repair(torn)
        assert repaired.sound
        kinds = [line["kind"] for line in blackbox.read(torn)]
        assert kinds[-1] == ("repaired" if cut not in starts else kinds[-1])


def test_an_altered_line_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "box.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"step": 1', b'"step": 7')
    path.write_bytes(b"".join(lines))
    found = blackbox.verify(path)
    assert not found.sound
    assert found.lines == 2
    assert "broken after line 2" in found.sentence


def test_a_foreign_file_is_no_black_box(tmp_path: Path) -> None:
    foreign = tmp_path / "notes.jsonl"
    foreign.write_bytes(b'{"hello": 1}\n\xff\xfe\n')
    assert "not a black box" in blackbox.verify(foreign).sentence
    before = foreign.read_bytes()
    with pytest.raises(ValueError, match="cannot be repaired"):
        blackbox.repair(foreign)
    assert foreign.read_bytes() == before
    with pytest.raises(FileNotFoundError, match="no black box at"):
        blackbox.verify(tmp_path / "none.jsonl")


def test_kill_minus_nine_loses_nothing_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "box.jsonl"
    script = (
        "import sys, itertools; from robots.blackbox import BlackBox\n"
        "box = BlackBox(sys.argv[1])\n"
        "for step in itertools.count():\n"
        "    box.write('step', step=step); print(step, flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    said = [child.stdout.readline() for _ in range(20)]
    time.sleep(0.05)
    os.kill(child.pid, signal.SIGKILL)
    said += child.stdout.readlines()
    child.wait()
    last = max(int(line) for line in said if line.endswith("\n"))
    blackbox.repair(path)
    assert max(line["step"] for line in blackbox.read(path) if line["kind"] == "step") >= last
    assert not blackbox.verify(path).complete
