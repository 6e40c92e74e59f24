"""`premotor review` tells a run in words, finds damage, and mends what can be mended."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from robots import viewer
from tests.robots.conftest import Premotor

TRUSTING = "guard.uncertainty=1e9"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run, made once, for tests to copy."""
    return tmp_path_factory.mktemp("kept") / "run"


@pytest.fixture
def run(call: Premotor, kept: Path, tmp_path: Path) -> Path:
    if not kept.exists():
        assert call("run", TRUSTING, "steps=4", f"out={kept}") == 0
    folder = tmp_path / "outputs" / "run" / "one"
    shutil.copytree(kept, folder)
    return folder


def test_the_latest_run_is_told_in_words(call: Premotor, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("review") == 0
    said = capsys.readouterr().out
    for words in (
        "push in mujoco, seed 10000",
        "Imagined:",
        "Happened:",
        "They part most",
        "Why at step 0",
        "4 requests",
    ):
        assert words in said


def test_a_sound_run_verifies(call: Premotor, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("review", f"run={run}", "verify=true") == 0
    said = capsys.readouterr().out
    assert said.count("ok  ") == 3
    assert "every seal holds" in said


def test_damage_is_found_and_mended(call: Premotor, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    box, recording = run / "blackbox.jsonl", run / "rollout.rrd"
    box.write_bytes(box.read_bytes()[:-40])
    recording.write_bytes(recording.read_bytes()[:-3000])
    assert call("review", f"run={run}", "verify=true") == 1
    said = capsys.readouterr().out
    assert said.count("no  ") == 2
    assert call("review", f"run={run}", "repair=true") == 0
    said = capsys.readouterr().out
    assert "broken bytes dropped" in said
    assert "the damaged file is kept" in said
    assert viewer.verify(recording)[0]
    assert call("review", f"run={run}", "verify=true") == 0


def test_a_rollout_that_was_cut_is_said(call: Premotor, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays = run / "rollout" / "arrays.safetensors"
    arrays.write_bytes(arrays.read_bytes()[:1000])
    assert call("review", f"run={run}", "verify=true") == 1
    assert "cannot be read" in capsys.readouterr().out


def test_nothing_to_review(call: Premotor, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("review") == 2
    assert "nothing to review" in capsys.readouterr().err
    assert call("review", "run=nowhere") == 2
    assert "no run at nowhere" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert call("review", "run=empty") == 2
    assert "holds no run" in capsys.readouterr().err


def test_the_viewer_listens_on_this_machine_only() -> None:
    for web in (False, True):
        words = viewer.command(Path("a.rrd"), web=web)
        assert words[words.index("--bind") + 1] == "127.0.0.1"
    assert viewer.PROGRAM.is_file()
