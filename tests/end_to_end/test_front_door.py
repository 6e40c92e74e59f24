"""The front door: every command is found, every wrong word is answered in one sentence, every ending has its code."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import premotor
from premotor import BAD_INPUT, COMMANDS, FAILED, INTERRUPTED, Command, WordError, compose, main

ROOT = Path(premotor.__file__).parent


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("PREMOTOR_DEBUG", raising=False)


# -- help ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_every_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    shown = capsys.readouterr().out
    for command in COMMANDS.values():
        assert command.name in shown
        assert command.about in shown


def test_help_imports_no_room() -> None:
    probe = "import premotor, sys; premotor.main(['--help']); print(sorted({'torch', 'hydra', 'mujoco'} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: command.name)
def test_help_of_a_command_shows_groups_keys_and_an_example_that_works(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command.name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert command.example in shown
    cfg = compose(command.name, shlex.split(command.example)[2:])
    for name, group in premotor.groups(command.name).items():
        assert name in shown
        assert all(choice in shown for choice in group.choices)
        assert group.default in group.choices
    for key in cfg:
        assert str(key) in shown


def test_what_the_yaml_says_about_a_key_is_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    main(["collect", "--help"])
    assert "random | reach | push | mend | pick | regrasp | mixed" in capsys.readouterr().out


def test_console_script_and_module_are_the_same_door() -> None:
    script = Path(sys.executable).with_name("premotor")
    calls = ([str(script), "--version"], [sys.executable, "-m", "premotor", "--version"])
    first, second = (
        subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=True).stdout for call in calls
    )
    assert first == second


# -- words that are understood -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_choice_of_every_group_composes(command: str) -> None:
    """All groups at once, each with its first choice, its second, and so on: to compose takes long."""
    known = premotor.groups(command)
    for number in range(max((len(group.choices) for group in known.values()), default=0)):
        words = [f"{name}={group.choices[number % len(group.choices)]}" for name, group in known.items()]
        cfg = compose(command, words)
        assert all(name == "launcher" or name in cfg for name in known)


def test_the_forms_of_the_readme_are_understood() -> None:
    cfg = compose("collect", ["env=tabletop/lift", "episodes=7", "seed=3"])
    assert (cfg.env.task, cfg.episodes, cfg.seed) == ("lift", 7, 3)
    cfg = compose("plan", ["planner=icem", "budget.samples=200", "planner.colour=2.0"])
    assert (cfg.planner.name, cfg.budget.samples, cfg.planner.colour) == ("icem", 200, 2.0)
    cfg = compose("bench", shlex.split(
        "suite=tabletop task=push simulator=mujoco model=tabletop planner=cem episodes=100 seed=10000 out=DIR"
    ))  # fmt: skip
    assert (cfg.suite, cfg.task, cfg.simulator, cfg.model.name, cfg.out) == (
        "tabletop",
        "push",
        "mujoco",
        "tabletop",
        "DIR",
    )
    assert list(compose("bench", ["task=[reach,push]"]).task) == ["reach", "push"]


def test_launchers_set_processes_and_threads() -> None:
    assert [compose("bench", [f"launcher={name}"])[key] for name in ("single", "local") for key in ("workers", "threads")] == [
        1, 2, 2, 1,
    ]  # fmt: skip
    assert compose("bench", ["launcher=local", "workers=7"]).workers == 7


def test_a_checkpoint_folder_is_a_choice_of_model() -> None:
    assert compose("plan", ["model=outputs/adapt/mine"]).model.name == "outputs/adapt/mine"
    assert compose("plan", ["model=hf:owner/name"]).model.name == "hf:owner/name"


def test_one_factor_of_a_named_variation_is_set_by_itself() -> None:
    cfg = compose(
        "plan", ["env.variation=wide", "env.variation.light_strength=[0.5,0.6]", "env.variation.object_kind=[box]"]
    )
    assert dict(cfg.env.variation) == {"base": "wide", "light_strength": [0.5, 0.6], "object_kind": ["box"]}
    assert compose("bench", ["variation.object_yaw=[0,0]"]).variation.base == "standard"


def test_outputs_have_a_time_of_their_own_and_composing_writes_nothing(tmp_path: Path) -> None:
    assert "${" not in compose("bench", []).out
    assert list(tmp_path.iterdir()) == []


# -- words that are not --------------------------------------------------------------------------------------------------

WRONG = [
    ("collct", "there is no command 'collct'; did you mean collect?"),
    ("collect env=tabletop/pusj", "env has no choice 'tabletop/pusj'; did you mean tabletop/push?"),
    ("collect env=lift", "did you mean tabletop/lift?"),
    ("plan planner=cen", "did you mean cem?"),
    ("run robot=mujco", "did you mean mujoco?"),
    ("plan model=tabletpo", "model has no choice 'tabletpo'; did you mean tabletop?"),
    ("collect epsodes=3", "collect has no key 'epsodes'; did you mean episodes?"),
    ("plan budget.samlpes=3", "plan has no key 'budget.samlpes'; did you mean budget.samples?"),
    ("plan samples=3", "did you mean budget.samples?"),
    ("collect task=lift", "did you mean env.task?"),
    ("plan planner=icem planner.colr=1.0", "did you mean planner.colour?"),
    ("plan planner.wibble=1.0", "known are planner.name, planner.horizon"),
    ("collect planner=cem", "known are policy, episodes"),
    ("plan --seed 3", "'--seed' is no key=value; say seed=..."),
    ("plan seed", "'seed' is no key=value"),
    ("collect episodes=many", "episodes=many is not a whole number; its default is 200"),
    ("collect episodes=2.5", "episodes=2.5 is not a whole number"),
    ("collect episodes=null", "episodes=null is not a whole number"),
    ("collect episodes=true", "episodes=true is not a whole number"),
    ("adapt learning_rate=nan", "learning_rate=nan is not a number"),
    ("adapt resume=perhaps", "resume=perhaps is not true or false"),
    ("collect env.cameras=front", "env.cameras=front is not a list; its default is [front]"),
    ("collect out=a,b", "a list is written out=[a,b]"),
    ("collect out=(", "quote the value"),
    ("plan objective.uncertainty.weight=1", "set it whole, objective.uncertainty={weight: ...}"),
    ("plan seed.deep=1", "seed is 10000 and has no key 'deep'"),
]


@pytest.mark.parametrize(("line", "answer"), WRONG, ids=[line for line, _ in WRONG])
def test_a_wrong_word_gets_one_sentence(
    line: str, answer: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(line.split()) == BAD_INPUT
    said = capsys.readouterr()
    assert answer in said.err
    assert said.err.startswith("premotor: ")
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []


@given(st.text(max_size=20))
@settings(max_examples=60, deadline=None)
def test_no_word_breaks_the_door(word: str) -> None:
    try:
        compose("models", [word])
    except WordError as error:
        said = str(error)
    else:
        return
    assert said.startswith("models")


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_two_letters_exchanged_are_put_right(data: st.DataObject) -> None:
    keys = ("episodes", "steps_per_episode", "policy", "workers", "env.simulator", "env.image_size")
    key = data.draw(st.sampled_from(keys))
    place = data.draw(st.integers(0, len(key) - 2).filter(lambda i: key[i] != key[i + 1] and "." not in key[i : i + 2]))
    slip = key[:place] + key[place + 1] + key[place] + key[place + 2 :]
    with pytest.raises(WordError, match=f"did you mean {key}"):
        compose("collect", [f"{slip}=1"])


# -- endings -------------------------------------------------------------------------------------------------------------

ROOM = """
def sentence(cfg): raise ValueError("the goal is\\n  too far")
def missing(cfg): raise FileNotFoundError("no run at here")
def broken(cfg): raise RuntimeError("the arm went away")
def full(cfg): raise OSError(28, "No space left on device", "out")
def uninstalled(cfg): import a_package_nobody_has
def foreign(cfg): import json; json.loads("{")
def stopped(cfg): raise KeyboardInterrupt
def done(cfg): return 4 if cfg.action == "list" else 0
"""


@pytest.mark.parametrize(
    ("ending", "code", "said"),
    [
        ("sentence", BAD_INPUT, "premotor: the goal is too far"),
        ("missing", BAD_INPUT, "premotor: no run at here"),
        ("broken", FAILED, "premotor: the arm went away"),
        ("full", FAILED, "No space left on device"),
        ("uninstalled", FAILED, "No module named 'a_package_nobody_has'; `make setup` installs what is missing"),
        ("foreign", BAD_INPUT, "(PREMOTOR_DEBUG=1 shows where)"),
        ("stopped", INTERRUPTED, "Stopped by Ctrl-C"),
        ("done", 4, ""),
    ],
)
def test_endings_have_their_codes(
    ending: str,
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _another_room(tmp_path, monkeypatch, ending)
    assert main(["models"]) == code
    heard = capsys.readouterr().err
    assert said in heard
    assert heard.count("\n") == (1 if said else 0)


def test_debugging_shows_the_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _another_room(tmp_path, monkeypatch, "sentence")
    monkeypatch.setenv("PREMOTOR_DEBUG", "1")
    with pytest.raises(ValueError, match="too far"):
        main(["models"])


def _another_room(folder: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    (folder / "another_room.py").write_text(ROOM)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "another_room", raising=False)
    monkeypatch.setitem(COMMANDS, "models", Command("models", f"another_room:{function}", "", ""))


def test_ctrl_c_in_a_real_command_ends_it_with_a_sentence(tmp_path: Path) -> None:
    call = [sys.executable, "-m", "premotor", "collect", "episodes=100000", "workers=1", f"out={tmp_path / 'data'}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    # Whoever runs the tests in the background ignores SIGINT, and hands that on.
    process = subprocess.Popen(
        call, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        patience = time.monotonic() + 120
        while not any((tmp_path / "data").rglob("*.parquet")) and process.poll() is None:
            assert time.monotonic() < patience, "no episode was played within two minutes"
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == INTERRUPTED, said
    assert "Traceback" not in said


def test_a_reader_that_leaves_early_is_no_error() -> None:
    line = f"{shlex.quote(sys.executable)} -m premotor collect --help | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


# -- the doctor, for real ------------------------------------------------------------------------------------------------


def test_everything_the_main_job_needs_works_here(capfd: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor"])
    shown = capfd.readouterr().out
    assert code == 0, shown
    assert "frames/s" in shown
    assert "128 futures" in shown
