"""Two processes learn as one: same weights, own windows, averaged gradients; one that dies takes nobody hostage."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.worldmodel.conftest import SMALL, without_times
from tests.worldmodel.forked import Forked
from worldmodel import checkpoint, processes
from worldmodel.adapt import adapt
from worldmodel.checkpoint import load_networks
from worldmodel.interface import TABLETOP
from worldmodel.networks import Networks, architecture_to_dict

ROOT = Path(__file__).parents[2]
STEPS, EVERY, DIES, STOPS = 12, 4, 6, 9
UNSAID = ("cameras", "action_size", "distance_bins", "reader")
WORDS = [
    *(f"architecture.{name}={value}" for name, value in architecture_to_dict(SMALL).items() if name not in UNSAID),
    f"steps={STEPS}", f"evaluate_every={EVERY}", "batch=4", "window_steps=3", "device=cpu", "bf16=false",
]  # fmt: skip

# `premotor adapt`, watched: every process leaves its weights beside the run; process 1 is ended or asked to stop there.
WATCHED = """
import os, signal, sys
import torch
import premotor
from worldmodel.trainer import Trainer

folder, step, number, *words = sys.argv[1:]
rank = int(os.environ["RANK"])
advance, save = Trainer._advance, Trainer.save

def watched_advance(self):
    if rank == 1 and self.step == int(step):
        os.kill(os.getpid(), int(number))
    advance(self)

def watched_save(self):
    save(self)
    if not self.sharded:
        torch.save([self.module.state_dict(), self.averages], f"{folder}/weights-{rank}.pt")

Trainer._advance, Trainer.save = watched_advance, watched_save
sys.exit(premotor.main(["adapt", *words]))
"""


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def by_torchrun(script: Path, *words: str) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*launcher, str(script), *words], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=250,
        check=False,
    )  # fmt: skip


def by_hand(script: Path, said: Path, *words: str) -> list[tuple[int, str, str]]:
    """As another launcher starts them, with nobody who ends one when the other has died: (code, stdout, stderr) of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    team = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    running = [Forked(script, words, said / str(rank), RANK=str(rank), LOCAL_RANK=str(rank), **team) for rank in (0, 1)]
    try:
        return [process.wait() for process in running]
    finally:
        for process in running:
            process.end()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The watched command, and a checkpoint to go on from, with a reader: a part that training gives no gradient."""
    folder = tmp_path_factory.mktemp("team")
    (folder / "watched.py").write_text(WATCHED)
    torch.manual_seed(0)
    networks = Networks(SMALL)
    networks.grow_reader(8)
    checkpoint.save(folder / "start", networks, TABLETOP, {"training": {}, "data": []}, half=False)
    return folder


def rows(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]


def position(out: Path) -> int:
    return torch.load(out / "state.pt", weights_only=True)["position"]["step"]


@pytest.fixture(scope="module")
def whole(place: Path, tiny_dataset: Path) -> Path:
    """A run of two processes from beginning to end, with half a second of refinement by the first."""
    out = place / "whole"
    done = by_torchrun(
        place / "watched.py",
        str(place),
        "-1",
        "9",
        f"data={tiny_dataset}",
        f"out={out}",
        f"start={place / 'start'}",
        "refine_minutes=0.008",
        *WORDS,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"{STEPS} steps in") == 1  # one of them speaks
    return out


def test_two_processes_hold_the_same_weights_and_write_one_checkpoint(whole: Path) -> None:
    (mine, my_averages), (theirs, their_averages) = (
        torch.load(whole.parent / f"weights-{rank}.pt", weights_only=True) for rank in (0, 1)
    )
    for name, value in mine.items():
        assert value.equal(theirs[name]), name
        assert my_averages[name].equal(their_averages[name]), name
    networks, card = load_networks(whole)
    assert networks.architecture == replace(SMALL, reader=8)
    started, _ = load_networks(whole.parent / "start")
    for name, value in started.named_parameters():
        assert mine[name].equal(value) == name.startswith("reader."), name  # the reader learns later, all others did
    assert card["refined_minutes"] == 0.008
    assert card["cost"]["processes"] == 2
    assert card["cost"]["frames"] == 2 * STEPS * 4 * 6
    assert [row["step"] for row in rows(whole)] == [4, 8, 12]


def test_each_process_draws_its_own_windows(whole: Path) -> None:
    generators = torch.load(whole / "state.pt", weights_only=True)["generators"]
    assert len(generators) == 2
    assert not generators[0].equal(generators[1])


@pytest.mark.slow
def test_one_that_dies_ends_the_other_and_the_run_goes_on_with_the_same_curve(
    whole: Path, place: Path, tiny_dataset: Path
) -> None:
    """Killed with nobody watching, then asked to stop, then left in peace: the curve is that of the run in one."""
    out = place / "cut"
    words = [f"data={tiny_dataset}", f"out={out}", f"start={place / 'start'}", *WORDS]
    script = place / "watched.py"
    (first, _, sentence), (second, *_) = by_hand(script, place / "said-dying", str(place), str(DIES), "9", *words)
    assert second == -9
    assert first == 1
    assert "premotor: one of the 2 processes ended, so this one (number 0) does too; what was saved last" in sentence
    assert position(out) == EVERY
    (first, said, errors), (second, *_) = by_hand(script, place / "said-stopping", str(place), str(STOPS), "15", *words)
    assert first == second == 130, errors  # both, though one was asked
    assert f"Going on from step {EVERY} of" in said
    assert position(out) == STOPS + 1
    for code, _, errors in by_hand(script, place / "said-in-peace", str(place), "-1", "9", *words):
        assert code == 0, errors
    assert without_times(rows(out)) == without_times(rows(whole))


@pytest.mark.slow
def test_spread_weights_learn_the_same_and_go_on(whole: Path, place: Path, tiny_dataset: Path) -> None:
    """FSDP2 instead of DDP: the same weights but for rounding, saved whole; asked to stop, it goes on with the same curve."""
    out, cut = place / "spread", place / "spread-cut"
    words = [f"data={tiny_dataset}", f"start={place / 'start'}", "sharded=true", "checkpointing=true", *WORDS]
    done = by_torchrun(place / "watched.py", str(place), "-1", "9", f"out={out}", "refine_minutes=0.008", *words)
    assert done.returncode == 0, done.stderr
    spread, together = (torch.load(folder / "state.pt", weights_only=True) for folder in (out, whole))
    start = load_networks(place / "start")[0].state_dict()
    for name, value in together["averages"].items():
        learned, apart = (value - start[name]).abs(), (spread["averages"][name] - value).abs()
        if name.startswith(("encoder.join", "predictor.", "proposal.", "steps_to_goal.")) and value.ndim == 2:
            assert apart.mean() < 0.02 * learned.mean(), name
    assert load_networks(out)[1]["refined_minutes"] == 0.008
    (first, _, errors), (second, *_) = by_hand(
        place / "watched.py", place / "said-spread", str(place), str(STOPS), "15", f"out={cut}", *words
    )
    assert first == second == 130, errors
    done = by_torchrun(place / "watched.py", str(place), "-1", "9", f"out={cut}", *words)
    assert done.returncode == 0, done.stderr
    assert f"Going on from step {STOPS + 1} of" in done.stdout
    assert without_times(rows(cut)) == without_times(rows(out))


def test_another_number_of_processes_does_not_go_on(whole: Path, tiny_dataset: Path) -> None:
    from premotor import compose
    from worldmodel.corpus import fit_to_data
    from worldmodel.settings import settings_from_config

    start = whole.parent / "start"
    cfg = compose("adapt", [f"data={tiny_dataset}", f"out={whole}", f"start={start}", *WORDS])
    settings, schedule, sizes = settings_from_config(cfg, start=str(start))
    architecture, _ = fit_to_data(
        sizes, settings.data, action_space=str(cfg.action_space), stride=settings.stride, start=settings.start
    )
    with pytest.raises(ValueError, match="was trained with processes=2, now it is 1"):
        adapt(settings, schedule, architecture, bf16=False)


# -- what averaging means, exactly -------------------------------------------------------------------------------------

AVERAGED = """
import sys
import torch
from tests.worldmodel.test_processes import little, rows_of
from worldmodel import processes

team = processes.join(torch.device("cpu"))
module = little()
if not team.first:
    torch.nn.init.zeros_(module[0].weight)  # the first one's weights count
team.share_norms(module)
learner = team.wrap(module)
mine = rows_of()[team.rank :: team.size]
learner(mine).square().mul(torch.arange(1.0, 4)).mean().backward()
state = {name: value.clone() for name, value in module.state_dict().items()}
with team.alone():
    apart = module(mine)
assert team.agree(team.rank == 1, 3.0 + team.rank) == (True, 3.0)
assert team.gather(torch.tensor([team.rank])).tolist() == [[0], [1]]
assert team.from_first(team.rank) == 0
with team.in_turn():
    print("in", flush=True)
torch.save([[p.grad for p in module.parameters()], state, apart.detach()], f"{sys.argv[1]}/{team.rank}.pt")
team.leave()
"""


def little() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.SiLU(), nn.Linear(8, 3)).double()


def rows_of() -> torch.Tensor:
    return torch.randn(12, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_two_halves_give_the_gradient_and_the_statistics_of_the_whole(tmp_path: Path) -> None:
    (tmp_path / "averaged.py").write_text(AVERAGED)
    for code, _, errors in by_hand(tmp_path / "averaged.py", tmp_path / "said", str(tmp_path)):
        assert code == 0, errors
    module = little()
    module(rows_of()).square().mul(torch.arange(1.0, 4)).mean().backward()
    expected = module.state_dict()
    for rank in (0, 1):
        gradients, state, apart = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for gradient, parameter in zip(gradients, module.parameters(), strict=True):
            torch.testing.assert_close(gradient, parameter.grad)
        assert state.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(state[name], value)
        # By itself, a process measures its own rows only.
        torch.testing.assert_close(apart, little()(rows_of()[rank::2]))


@pytest.mark.parametrize(
    ("said", "device", "words"),
    [
        ({"WORLD_SIZE": "2"}, "cpu", "WORLD_SIZE is set but RANK is None; start with torchrun"),
        ({"WORLD_SIZE": "two"}, "cpu", "WORLD_SIZE is set but WORLD_SIZE is two"),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}, "mps", "device=mps learns in one process only"),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}, "cuda:1", "device=cuda:1 is one GPU for 2 processes"),
        ({"WORLD_SIZE": "9999", "RANK": "0", "LOCAL_RANK": "9998"}, "cuda", "GPUs here and more processes"),
    ],
)
def test_a_team_that_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch, said, device: str, words: str) -> None:
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=words):
        processes.join(torch.device(device))


def test_a_process_by_itself_is_a_team_of_one() -> None:
    team = processes.join(torch.device("cpu"))
    module = little()
    assert team.wrap(module) is module
    team.share_norms(module)
    assert type(module[1]) is nn.BatchNorm1d
    assert team.first
    assert team.seed(5) == 5
    assert team.agree(True, 2.0) == (True, 2.0)
