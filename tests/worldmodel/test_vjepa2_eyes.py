"""Frozen eyes find what the published code finds, never change, and are named, found again or refused by a checkpoint.

The encoder is V-JEPA 2 as the package transformers builds it, tiny and with random weights.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file

from planners import CEM, Budget
from tests.worldmodel.conftest import SMALL, without_times
from worldmodel import checkpoint, findings, load, vjepa2_eyes
from worldmodel.adapt import adapt
from worldmodel.checkpoint import CheckpointError, load_networks
from worldmodel.data import Episodes
from worldmodel.interface import TABLETOP
from worldmodel.networks import Networks
from worldmodel.settings import AdaptSettings
from worldmodel.trainer import Schedule
from worldmodel.vjepa2_eyes import EyesError, FrozenEyes, open_eyes

ROOT = Path(__file__).parents[2]
CROP, PATCH, HIDDEN = 48, 8, 16


def make(folder: Path, seed: int = 0, **sizes: Any) -> Path:
    """A tiny published encoder with random weights."""
    config = transformers.VJEPA2Config(
        crop_size=CROP, patch_size=PATCH, frames_per_clip=4, hidden_size=HIDDEN, num_hidden_layers=2,
        num_attention_heads=2, pred_hidden_size=12, pred_num_attention_heads=2, pred_num_hidden_layers=1,
        initializer_range=0.2, **sizes,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformers.VJEPA2Model(config).save_pretrained(folder)
    return folder


def train(data: Path, out: Path, **extra: Any) -> list[dict[str, float]]:
    settings = AdaptSettings(
        data=(str(data),), out=str(out), windows_per_batch=4, window_steps=3, goal_reach=8, held_out=0.2, **extra
    )
    return adapt(settings, Schedule(steps=4, warmup_steps=2, evaluate_every=2, save_every=2), SMALL, bf16=False)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("published") / "vjepa2-tiny")


@pytest.fixture(scope="module")
def data(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where nobody has looked yet."""
    place = tmp_path_factory.mktemp("seen") / "tiny"
    shutil.copytree(tiny_dataset, place, ignore=shutil.ignore_patterns(".decoded"))
    return place


@pytest.fixture(scope="module")
def brain(encoder: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A native brain that learned with these eyes."""
    out = tmp_path_factory.mktemp("brain") / "run"
    train(data, out, encoder=f"vjepa2:{encoder}")
    return out


@pytest.fixture
def pictures() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 255, (5, 2, 32, 32, 3), dtype=torch.uint8, generator=generator)


# -- looking -----------------------------------------------------------------------------------------------------------


def test_looking_is_the_published_model_on_its_own_pictures(encoder: Path, pictures: torch.Tensor) -> None:
    eyes = open_eyes(f"vjepa2:{encoder}")
    found = eyes.look(pictures)
    assert found.shape == (5, 2 * 16 * HIDDEN)
    assert not found.requires_grad
    model = transformers.VJEPA2Model.from_pretrained(encoder).eval()
    processor = transformers.VJEPA2VideoProcessor(crop_size=CROP)
    cells = [slice(i * 6 // 4, -(-(i + 1) * 6 // 4)) for i in range(4)]  # 6 patches in 4 cells: they overlap
    for row in range(2):
        for camera in range(2):
            still = pictures[row, camera].permute(2, 0, 1)[None].repeat(2, 1, 1, 1)
            video = processor([still], return_tensors="pt")["pixel_values_videos"]
            # The processor resizes in whole bytes: no pixel is off by more than one.
            mine = vjepa2_eyes.prepared(pictures[row, camera][None], CROP)
            off = (video[0, 0] - mine[0]).abs() * 255 * torch.tensor(vjepa2_eyes.SPREAD)[:, None, None]
            assert off.max() < 1.01
            with torch.no_grad():
                tokens = model(pixel_values_videos=mine[:, None].repeat(1, 2, 1, 1, 1), skip_predictor=True)[0]
            grid = F.layer_norm(tokens, (HIDDEN,)).view(6, 6, HIDDEN)
            wanted = torch.stack([grid[y, x].mean((0, 1)) for y in cells for x in cells]).flatten()
            got = found[row].view(2, -1)[camera]
            assert got.allclose(wanted, atol=1e-5)


def test_what_is_found_in_a_picture_does_not_depend_on_its_neighbours(encoder: Path, pictures: torch.Tensor) -> None:
    eyes = open_eyes(f"vjepa2:{encoder}")
    together = eyes.look(pictures.repeat(8, 1, 1, 1, 1))  # more than look at once
    for row in range(5):
        assert together[row].allclose(eyes.look(pictures[row][None])[0], atol=1e-5)
        assert together[row].allclose(together[row + 35], atol=1e-5)


# -- learning ----------------------------------------------------------------------------------------------------------


def test_a_brain_with_frozen_eyes_plans_and_its_eyes_never_changed(brain: Path, encoder: Path, observation) -> None:
    model = load(brain, "cpu")
    eyes = model.networks.encoder.eyes
    for name, value in transformers.VJEPA2Model.from_pretrained(encoder).encoder.state_dict().items():
        assert value.equal(eyes.model.encoder.state_dict()[name]), name
    learned = load_file(brain / checkpoint.WEIGHTS)
    assert sorted(name for name in learned if name.startswith("encoder.")) == [
        "encoder.change", "encoder.join.bias", "encoder.join.weight", "encoder.norm.num_batches_tracked",
        "encoder.norm.running_mean", "encoder.norm.running_var", "encoder.usual",
    ]  # fmt: skip
    assert learned["encoder.join.weight"].shape == (SMALL.features, 16 * HIDDEN)
    state = torch.load(brain / "state.pt", weights_only=True)
    assert {name for name in state["module"] if name.startswith("encoder.")} == {
        name for name in learned if name.startswith("encoder.")
    }
    assert sum(len(group["params"]) for group in state["optimizer"]["param_groups"]) == len(
        list(model.networks.parameters())
    )

    latent = model.encode(observation)
    one = model.encode({key: value[1:] for key, value in observation.items()})
    assert latent[1:].allclose(one, atol=1e-5)
    assert model.predict(latent, torch.zeros(2, 3, 4, 7)).shape == (2, 3, 4, latent.shape[-1])
    assert model.decode(latent).shape == (2, 32, 32, 3)
    goal = model.encode({"observation.images.front": observation["observation.images.front"]})
    plan = CEM(horizon=3).plan(model, latent, goal, Budget(8, 1))
    assert plan.actions.shape == (2, 3, 7)
    assert plan.actions.isfinite().all()


def test_the_card_names_the_eyes_and_their_digest(brain: Path, encoder: Path, capsys) -> None:
    from worldmodel.models import show_model

    show_model(str(brain))
    eyes = json.loads(capsys.readouterr().out)["architecture"]["eyes"]
    assert eyes == open_eyes(f"vjepa2:{encoder}").name
    assert eyes.startswith(f"vjepa2:{encoder.resolve()}@")
    assert "eyes" not in checkpoint.read_card(checkpoint.locate("tabletop"))["architecture"]


def test_looking_once_and_looking_in_every_step_teach_the_same(
    brain: Path, encoder: Path, data: Path, tmp_path
) -> None:
    """Up to the rounding of what is kept; asking for less memory changes nothing."""
    stored = [json.loads(line) for line in (brain / "history.jsonl").read_text().splitlines()]
    eyes = f"vjepa2:{encoder}"
    looked = train(data, tmp_path / "looked", encoder=eyes, store_findings=False, checkpointing=True)
    for name in ("rollout", "contrast", "sketch", "readout"):
        assert looked[-1][name] == pytest.approx(stored[-1][name], rel=1e-2), name
    with pytest.raises(ValueError, match="was trained with store_findings=False, now it is True"):
        train(data, tmp_path / "looked", encoder=eyes)


def test_a_run_cut_in_two_is_the_run_in_one(brain: Path, encoder: Path, data: Path, tmp_path, monkeypatch) -> None:
    import worldmodel.trainer as trainer

    advance = trainer.Trainer._advance

    def interrupted(self) -> None:
        if self.step == 3:  # after the save at step 2
            raise KeyboardInterrupt
        advance(self)

    monkeypatch.setattr(trainer.Trainer, "_advance", interrupted)
    # What was found is on disk: nobody looks again.
    monkeypatch.setattr(FrozenEyes, "look", lambda *_: pytest.fail("looked again"))
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "cut", encoder=f"vjepa2:{encoder}")
    monkeypatch.setattr(trainer.Trainer, "_advance", advance)
    resumed = train(data, tmp_path / "cut", encoder=f"vjepa2:{encoder}")
    whole = [json.loads(line) for line in (brain / "history.jsonl").read_text().splitlines()]
    assert without_times(resumed) == without_times(whole)


def test_going_on_refining_and_reading(brain: Path, encoder: Path, data: Path, tmp_path, observation) -> None:
    """start= brings its eyes along; refinement uses what was kept; a reader has convolutions and begins at random."""
    # Colours that vary cannot be looked up: the eyes look in every step.
    out = tmp_path / "onward"
    settings = AdaptSettings(
        data=(str(data),), out=str(out), start=str(brain), windows_per_batch=4, window_steps=3, goal_reach=8,
        held_out=0.2, colour_jitter=0.2, refine_minutes=0.005, reading_minutes=0.005,
    )  # fmt: skip
    adapt(settings, Schedule(steps=1, evaluate_every=1, save_every=1), SMALL, bf16=False)
    networks, card = load_networks(out)
    assert networks.architecture.eyes == load_networks(brain)[0].architecture.eyes
    assert networks.reader is not None
    assert card["reading_minutes"] == card["refined_minutes"] == 0.005
    load(out, "cpu").encode({"observation.images.front": observation["observation.images.front"]})
    with pytest.raises(ValueError, match=r"reader's beginning .* looks with frozen eyes"):
        adapt(
            replace(settings, start=str(out), out=str(tmp_path / "x"), reader=str(brain), refine_minutes=0.0),
            Schedule(steps=0), SMALL, bf16=False,
        )  # fmt: skip


def test_one_brain_has_one_kind_of_eyes(brain: Path, encoder: Path, data: Path, tmp_path) -> None:
    torch.manual_seed(0)
    checkpoint.save(tmp_path / "native", Networks(SMALL), TABLETOP, {"training": {}, "data": []})
    eyes, native, out = f"vjepa2:{encoder}", str(tmp_path / "native"), tmp_path / "out"
    with pytest.raises(ValueError, match=r"encoder looks with vjepa2:.*, start=.* with convolutions of its own"):
        train(data, out, encoder=eyes, start=native)
    with pytest.raises(ValueError, match=r"encoder=.* looks with convolutions of its own, start=.* with vjepa2:"):
        train(data, out, encoder=native, start=str(brain))
    with pytest.raises(ValueError, match=r"encoder looks with vjepa2:.*other, start=.* with vjepa2:.*tiny@"):
        train(data, out, encoder=f"vjepa2:{make(tmp_path / 'other', seed=1)}", start=str(brain))
    with pytest.raises(ValueError, match="store_findings=true keeps"):
        train(data, out, encoder=eyes, store_findings=True, hue_jitter=0.5)
    assert not out.exists()


# -- what is kept of looking -------------------------------------------------------------------------------------------


@pytest.fixture
def looking(encoder: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch) -> tuple[Path, list[int]]:
    """A dataset nobody looked at, in small chunks that are saved at once; how many pictures were looked at."""
    place = tmp_path / "fresh"
    shutil.copytree(tiny_dataset, place, ignore=shutil.ignore_patterns(".decoded"))
    seen: list[int] = []
    look = FrozenEyes.look

    def counted(self: FrozenEyes, pictures: torch.Tensor) -> torch.Tensor:
        seen.append(len(pictures))
        if sum(seen) > 60 and -1 not in seen:
            seen.append(-1)
            raise KeyboardInterrupt
        return look(self, pictures)

    monkeypatch.setattr(findings, "CHUNK", 20)
    monkeypatch.setattr(findings, "SAVE_S", -1.0)
    monkeypatch.setattr(FrozenEyes, "look", counted)
    return place, seen


def test_looking_that_was_stopped_goes_on(looking, encoder: Path) -> None:
    place, seen = looking
    cpu, eyes = torch.device("cpu"), open_eyes(f"vjepa2:{encoder}")
    episodes = Episodes([place], SMALL.cameras, TABLETOP)
    frames = torch.arange(8 * 14)
    with pytest.raises(KeyboardInterrupt):
        findings.remember(episodes, eyes, cpu, bf16=False)
    (left,) = (place / ".decoded").glob("*.part")
    assert left.name.split(".")[-3] == "60"
    # As a process that was killed leaves it; one of another size is of no use.
    left.rename(left.with_name(left.name.replace(f".{os.getpid()}.", ".999999999.")))
    del seen[:-1]
    findings.remember(episodes, eyes, cpu, bf16=False)
    assert sum(seen) + 1 == len(frames) - 60
    assert not list((place / ".decoded").glob("*.part"))
    found = episodes.findings(frames)
    assert found is not None
    assert found.dtype == torch.float16
    assert found.float().allclose(eyes.look(episodes.frames(frames)), atol=1e-2)
    del seen[1:]
    findings.remember(episodes, eyes, cpu, bf16=False)
    assert len(seen) == 1  # it is all there
    findings.remember(episodes, open_eyes(f"vjepa2:{make(place.parent / 'other', seed=1)}"), cpu, bf16=False)
    assert not episodes.findings(frames[:1]).equal(found[:1])  # other eyes, another file


def test_no_room_for_what_is_found_is_said(looking, encoder: Path, monkeypatch) -> None:
    place, _ = looking
    episodes = Episodes([place], SMALL.cameras, TABLETOP)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))  # type: ignore[attr-defined]
    with pytest.raises(
        ValueError, match=r"takes 0\.0 GB in .* 0\.0 GB are free: make room, or say store_findings=false"
    ):
        findings.remember(episodes, open_eyes(f"vjepa2:{encoder}"), torch.device("cpu"), bf16=False)


def test_what_is_always_there_is_taken_away(brain: Path, data: Path) -> None:
    """The encoder joins what changes: centred, and one in size on the average."""
    encoder = load_networks(brain)[0].encoder
    episodes = Episodes([data], SMALL.cameras, TABLETOP)
    found = encoder.look(episodes.frames(torch.arange(8 * 14)))
    assert found.mean(0).abs().mean() > 5 * (found.mean(0) - encoder.usual).abs().mean()
    assert float(found.std(0).square().mean().sqrt() / encoder.change) == pytest.approx(1, rel=0.2)


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_a_checkpoint_wants_its_own_eyes(brain: Path, encoder: Path, tmp_path) -> None:
    """Moved or exchanged, the place is named; in the checkpoint's own folder they are found."""
    mine, place = tmp_path / "mine", tmp_path / "published"
    shutil.copytree(brain, mine)
    card = json.loads((mine / "card.json").read_text())
    name = card["architecture"]["eyes"]
    card["architecture"]["eyes"] = f"vjepa2:{place}@{vjepa2_eyes.digest_in(name)}"
    (mine / "card.json").write_text(json.dumps(card))
    with pytest.raises(
        CheckpointError, match=rf"no eyes at {place}: no such folder .*, or put its files into {mine}/eyes"
    ):
        load(mine, "cpu")
    for sizes in ({"seed": 1}, {"hidden_size": 32}):
        sizes = dict(sizes)
        shutil.rmtree(place, ignore_errors=True)
        if "hidden_size" in sizes:
            config = transformers.VJEPA2Config.from_pretrained(encoder)
            config.hidden_size = 32
            transformers.VJEPA2Model(config).save_pretrained(place)
        else:
            make(place, **sizes)
        with pytest.raises(CheckpointError, match=r"are others than this brain learned with \(digest .*, it wants"):
            load(mine, "cpu")
    shutil.copytree(encoder, mine / "eyes")
    assert load(mine, "cpu").networks.architecture.eyes == card["architecture"]["eyes"]


def change(folder: Path, **said: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **said}))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda place: change(place, model_type="vit"), "model of type 'vit'; vjepa2 is looked with here"),
        (lambda place: change(place, crop_size=50), "crop_size=50 is no multiple of patch_size=8"),
        (lambda place: change(place, patch_size=[8, 8]), r"says patch_size=\[8, 8\]; it is a number"),
        (lambda place: change(place, in_chans=4), "says in_chans=4; pictures have 3"),
        (lambda place: change(place, num_hidden_layers=3), r"weights in .* lack encoder\.layer\.2\."),
        (lambda place: change(place, mlp_ratio=2.0), r"have encoder\.layer\.0\.mlp\.\S+ of another shape"),
        (lambda place: change(place, num_attention_heads=3), r"cannot be loaded \(.*not a multiple"),
        (lambda place: (place / "config.json").write_text("{"), "config.json is damaged"),
        (lambda place: (place / "config.json").unlink(), "holds no eyes: config.json is missing"),
        (lambda place: (place / "model.safetensors").unlink(), "has a config.json but no model.safetensors"),
        (lambda place: (place / "model.safetensors").write_bytes(b"\x10" * 999), "cannot be loaded"),
    ],
)
def test_eyes_that_cannot_be_are_refused(encoder: Path, tmp_path: Path, spoil, words: str) -> None:
    place = tmp_path / "eyes"
    shutil.copytree(encoder, place)
    spoil(place)
    with pytest.raises(EyesError, match=words):
        open_eyes(f"vjepa2:{place}")


def test_weights_without_the_published_predictor_are_enough(encoder: Path, tmp_path: Path, pictures) -> None:
    """Nobody asks it. Loading draws no random number that a run would have drawn."""
    place = tmp_path / "eyes"
    shutil.copytree(encoder, place)
    tensors = load_file(place / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if name.startswith("encoder.")}
    save_file(kept, place / "model.safetensors", metadata={"format": "pt"})
    before = torch.get_rng_state()
    found = open_eyes(f"vjepa2:{place}").look(pictures)
    assert torch.get_rng_state().equal(before)
    assert found.equal(open_eyes(f"vjepa2:{encoder}").look(pictures))


def test_what_is_not_here_is_said_with_what_to_do(encoder: Path, monkeypatch) -> None:
    with pytest.raises(EyesError, match=r"fetch it once with `hf download facebook/vjepa2-nobody` \(V-JEPA 2 .* MIT"):
        open_eyes("vjepa2:facebook/vjepa2-nobody")
    with pytest.raises(EyesError, match="there are no eyes at nowhere: no such folder"):
        open_eyes("vjepa2:nowhere")
    with pytest.raises(EyesError, match="'dino:x' is neither"):
        open_eyes("dino:x")
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setattr(vjepa2_eyes, "_open", {})
    with pytest.raises(EyesError, match=r"install it with pip install 'premotor\[vjepa2\]'"):
        open_eyes(f"vjepa2:{encoder}")


# -- the front door ----------------------------------------------------------------------------------------------------

WORDS = [
    "architecture.image_size=32", "architecture.features=24", "architecture.predictor_width=48",
    "architecture.head_width=48", "batch=4", "window_steps=3", "steps=2", "evaluate_every=2", "device=cpu",
]  # fmt: skip


def command(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=250, check=False
    )


def test_the_command_makes_a_brain_that_loads(encoder: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = command("-m", "premotor", "adapt", f"encoder=vjepa2:{encoder}", f"data={data}", f"out={out}", *WORDS)
    assert done.returncode == 0, done.stderr
    assert f"The frozen eyes look at {CROP} px, the data's pictures come at 32 px" in done.stdout
    assert load(out, "cpu").networks.architecture.eyes.startswith(f"vjepa2:{encoder.resolve()}@")


def test_the_package_is_not_imported_unless_asked_for() -> None:
    script = "import sys, worldmodel; worldmodel.load('tabletop', 'cpu'); sys.exit('transformers' in sys.modules)"
    assert command("-c", script).returncode == 0


@pytest.mark.slow
def test_two_processes_look_once_and_learn_together(encoder: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = [f"encoder=vjepa2:{encoder}", f"data={data}", f"out={out}", "store_findings=false", *WORDS]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "premotor", "adapt"]
    for more in ([], ["store_findings=true", f"out={out}2"]):
        done = command(*launcher, *words, *more)
        assert done.returncode == 0, done.stderr
    networks, card = load_networks(Path(f"{out}2"))
    assert networks.architecture.eyes
    assert card["cost"]["processes"] == 2
    assert np.isfinite(card["measured"]["rollout"])
