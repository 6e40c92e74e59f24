"""V-JEPA 2: the published arithmetic, the brain around it, and what becomes of files that are something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from planners import CEM, MPC, Budget, Goal
from planners.objectives import LearnedDistance, Objective
from worldmodel import load
from worldmodel.interface import TABLETOP, WorldModel
from worldmodel.vjepa2 import ActionPredictor, Encoder, load_action_predictor, load_encoder
from worldmodel.vjepa2_convert import convert
from worldmodel.vjepa2_model import VJepa2Model, integrate_pose, rotation_to_rpy, rpy_to_rotation

PICTURES: dict[str, Any] = {"img_size": (32, 48), "patch_size": 16, "num_frames": 8, "tubelet_size": 2}
PREDICTOR: dict[str, Any] = {**PICTURES, "embed_dim": 24, "predictor_embed_dim": 64, "depth": 2, "num_heads": 2}
ENCODER: dict[str, Any] = {**PICTURES, "embed_dim": 44, "depth": 2, "num_heads": 2}


def noise(*shape: int, phase: int) -> torch.Tensor:
    """Numbers in [-0.5, 0.5] that are the same on every machine and in every version."""
    count = torch.arange(1, torch.Size(shape).numel() + 1, dtype=torch.float64)
    x = torch.sin(12.9898 * count + 78.233 * phase) * 43758.5453
    return (x - x.floor() - 0.5).view(shape).float()


def shapes(kind: str, size: dict[str, Any], ratio: float) -> dict[str, tuple[int, ...]]:
    """The published names and shapes of weights."""
    stack, dim = (
        ("blocks", size["embed_dim"]) if kind == "encoder" else ("predictor_blocks", size["predictor_embed_dim"])
    )
    hidden, tokens, patch = int(dim * ratio), size["embed_dim"], size["patch_size"]
    named: dict[str, tuple[int, ...]] = {}
    for number in range(size["depth"]):
        for name, shape in {
            "norm1.weight": (dim,), "norm1.bias": (dim,), "norm2.weight": (dim,), "norm2.bias": (dim,),
            "attn.qkv.weight": (3 * dim, dim), "attn.qkv.bias": (3 * dim,),
            "attn.proj.weight": (dim, dim), "attn.proj.bias": (dim,),
            "mlp.fc1.weight": (hidden, dim), "mlp.fc1.bias": (hidden,),
            "mlp.fc2.weight": (dim, hidden), "mlp.fc2.bias": (dim,),
        }.items():  # fmt: skip
            named[f"{stack}.{number}.{name}"] = shape
    if kind == "encoder":
        kernel = (dim, 3, size["tubelet_size"], patch, patch)
        return named | {"patch_embed.proj.weight": kernel, "patch_embed.proj.bias": (dim,),
                        "norm.weight": (dim,), "norm.bias": (dim,)}  # fmt: skip
    linear = {"predictor_embed": (dim, tokens), "action_encoder": (dim, 7), "state_encoder": (dim, 7),
              "extrinsics_encoder": (dim, 6), "predictor_proj": (tokens, dim)}  # fmt: skip
    for name, shape in linear.items():
        named |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return named | {"predictor_norm.weight": (dim,), "predictor_norm.bias": (dim,)}


def weights(kind: str, size: dict[str, Any], ratio: float = 4.0) -> dict[str, torch.Tensor]:
    """A state dict of the published form, full of noise."""
    named = sorted(shapes(kind, size, ratio).items())
    return {name: noise(*shape, phase=number) for number, (name, shape) in enumerate(named)}


# -- the arithmetic ------------------------------------------------------------------------------------------------


def test_the_predictor_answers_as_published() -> None:
    """The numbers were made by the published code (MIT) with these very weights and inputs."""
    predictor = load_action_predictor(weights("predictor", PREDICTOR), **PREDICTOR)
    with torch.no_grad():
        out = predictor(2 * noise(2, 18, 24, phase=100), noise(2, 3, 7, phase=101), noise(2, 3, 7, phase=102))
    published = [
        [1.50513, -0.31411, -2.00013, 1.11497],
        [1.72869, -0.29163, -2.50237, 0.84248],
        [1.92677, -0.4513, -2.20913, 1.03391],
        [1.22906, -0.47775, -1.73948, 0.85137],
    ]
    assert torch.allclose(out[1, ::5, ::7], torch.tensor(published), atol=1e-4)
    assert out.abs().mean().item() == pytest.approx(0.8374440670013428, abs=1e-5)


def test_the_encoder_answers_as_published() -> None:
    """As above; a position code left over in the file is ignored."""
    state = {**weights("encoder", ENCODER, 48 / 11), "pos_embed": torch.zeros(1, 5, 44)}
    encoder = load_encoder({f"module.backbone.{name}": value for name, value in state.items()}, **ENCODER)
    with torch.no_grad():
        out = encoder(2 * noise(1, 3, 4, 32, 48, phase=103))
    published = [
        [0.06733, -0.1666, -0.122, 0.03691],
        [0.06943, 0.05364, -0.40529, 0.06017],
        [0.06529, -0.12229, -0.2017, 0.12845],
    ]
    assert torch.allclose(out[0, ::4, ::13], torch.tensor(published), atol=1e-4)
    assert out.abs().mean().item() == pytest.approx(0.3346533477306366, abs=1e-5)


def test_a_step_depends_on_nothing_that_comes_later() -> None:
    predictor = load_action_predictor(weights("predictor", PREDICTOR), **PREDICTOR)
    x, a, s = noise(1, 24, 24, phase=1), noise(1, 4, 7, phase=2), noise(1, 4, 7, phase=3)
    with torch.no_grad():
        whole, part = predictor(x, a, s), predictor(x[:, :12], a[:, :2], s[:, :2])
    assert torch.allclose(whole[:, :12], part, atol=1e-5)
    changed = a.clone()
    changed[:, 1] += 1.0
    with torch.no_grad():
        other = predictor(x, changed, s)
    assert torch.allclose(other[:, :6], whole[:, :6], atol=1e-6)
    assert not torch.allclose(other[:, 6:12], whole[:, 6:12], atol=1e-3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("predictor_norm.bias"), r"lacks predictor_norm\.bias"),
        (lambda w: w.update(surprise=torch.zeros(1)), "also holds surprise"),
        (lambda w: w.update({"action_encoder.weight": torch.zeros(64, 6)}), r"action_encoder\.weight of \(64, 6\)"),
    ],
)
def test_weights_of_another_form_are_named(change: Any, said: str) -> None:
    state = weights("predictor", PREDICTOR)
    change(state)
    with pytest.raises(ValueError, match=said):
        load_action_predictor(state, **PREDICTOR)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"embed_dims": 24}, "did you mean embed_dim"),
        ({"use_rope": False}, "use_rope=False is not supported"),
        ({"depth": 3}, r"lacks predictor_blocks\.2"),
    ],
)
def test_settings_that_cannot_be_are_refused(setting: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load_action_predictor(weights("predictor", PREDICTOR), **{**PREDICTOR, **setting})


def test_inputs_of_the_wrong_shape_are_refused() -> None:
    predictor = load_action_predictor(weights("predictor", PREDICTOR), **PREDICTOR)
    with pytest.raises(ValueError, match="7 tokens are not 1 to 4 steps of 2 x 3 patches"):
        predictor(torch.zeros(1, 7, 24), torch.zeros(1, 1, 7), torch.zeros(1, 1, 7))
    with pytest.raises(ValueError, match=r"states should be \(1, 1, 7\)"):
        predictor(torch.zeros(1, 6, 24), torch.zeros(1, 1, 7), torch.zeros(1, 1, 6))
    encoder = load_encoder(weights("encoder", ENCODER), **ENCODER)
    with pytest.raises(ValueError, match=r"takes \(B, 3, T, H, W\)"):
        encoder(torch.zeros(1, 3, 32, 48))


# -- poses ---------------------------------------------------------------------------------------------------------

angles = st.lists(st.floats(-3.1, 3.1), min_size=3, max_size=3)


@settings(max_examples=60, deadline=None)
@given(angles, angles)
def test_turning_is_a_product_of_rotations(first: list[float], second: list[float]) -> None:
    pose, action = torch.zeros(1, 7, dtype=torch.float64), torch.zeros(1, 7, dtype=torch.float64)
    pose[0, 3:6], action[0, 3:6] = torch.tensor(first), torch.tensor(second)
    after = rpy_to_rotation(integrate_pose(pose, action)[:, 3:6])
    assert torch.allclose(after, rpy_to_rotation(action[:, 3:6]) @ rpy_to_rotation(pose[:, 3:6]), atol=1e-5)
    assert torch.allclose(after @ after.mT, torch.eye(3, dtype=torch.float64), atol=1e-6)


def test_angles_mean_what_the_house_says() -> None:
    """Extrinsic xyz, R = Rz Ry Rx, as the tabletop measures it; at a pitch of 90 degrees too."""
    rpy = torch.tensor([[0.3, -0.7, 1.9], [3.1, 0.2, -2.0], [0.4, np.pi / 2, 0.1]], dtype=torch.float64)
    for row, turned in zip(rpy, rpy_to_rotation(rpy), strict=True):
        (cr, cp, cy), (sr, sp, sy) = row.cos(), row.sin()
        x = torch.tensor([[1, 0, 0], [0, cr, -sr], [0, sr, cr]], dtype=torch.float64)
        y = torch.tensor([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]], dtype=torch.float64)
        z = torch.tensor([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]], dtype=torch.float64)
        assert torch.allclose(turned, z @ y @ x, atol=1e-12)
    assert torch.allclose(rpy_to_rotation(rotation_to_rpy(rpy_to_rotation(rpy))), rpy_to_rotation(rpy), atol=1e-6)


def test_closedness_stays_between_open_and_closed() -> None:
    pose = torch.tensor([[0.4, 0, 0.2, 0, 0, 0, 0.8]])
    assert integrate_pose(pose, torch.tensor([[0.01, 0, 0, 0, 0, 0, 0.5]]))[0, 6] == 1.0
    assert integrate_pose(pose, torch.tensor([[0.01, 0, 0, 0, 0, 0, 0.5]]))[0, 0] == pytest.approx(0.41)


# -- the brain -----------------------------------------------------------------------------------------------------

SQUARE: dict[str, Any] = {"img_size": 32, "patch_size": 16, "num_frames": 12, "tubelet_size": 2}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the published form, with an optimiser beside the weights, and prefixes before their names."""
    path = tmp_path_factory.mktemp("published") / "ac.pt"
    encoder = weights("encoder", {**SQUARE, "embed_dim": 24, "depth": 2, "num_heads": 2}, 48 / 11)
    predictor = weights("predictor", {**SQUARE, "embed_dim": 24, "predictor_embed_dim": 32, "depth": 2, "num_heads": 2})
    content = {
        "encoder": {f"module.backbone.{name}": value for name, value in encoder.items()},
        "predictor": {f"module.{name}": value for name, value in predictor.items()},
        "opt": {"state": {0: torch.zeros(3)}}, "epoch": 315, "loss": 0.48,
    }  # fmt: skip
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def folder(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("converted") / "small"
    convert(published, out, img_size=32, num_frames=12, heads=(2, 2), name="small")
    return out


@pytest.fixture(scope="module")
def model(folder: Path) -> VJepa2Model:
    made = load(folder, device="cpu")
    assert isinstance(made, VJepa2Model)
    return made


def observation(batch: int = 1, *, state: bool = True) -> dict[str, torch.Tensor]:
    pictures = ((noise(batch, 40, 60, 3, phase=7) + 0.5) * 255).to(torch.uint8)
    seen = {"observation.images.front": pictures}
    return seen | ({"observation.state": noise(batch, 7, phase=8)} if state else {})


def test_it_is_a_world_model(model: VJepa2Model) -> None:
    assert isinstance(model, WorldModel)
    latent = model.encode(observation(2))
    assert latent.shape == (2, 5, 24)
    assert torch.allclose(latent[:, :-1].mean(-1), torch.zeros(2, 4), atol=1e-5)
    assert torch.allclose(model.pose(latent), noise(2, 7, phase=8))
    futures = model.predict(latent, noise(2, 3, 4, 7, phase=9))
    assert futures.shape == (2, 3, 4, 5, 24)
    assert model.distance(futures, latent).shape == (2, 3, 4)
    assert torch.equal(model.distance(latent[:, None], latent), torch.zeros(2, 1))
    # Its published cost is the L1 of what it shows.
    shown, wanted = model.features(futures), model.features(latent)[:, None, None]
    torch.testing.assert_close((shown - wanted).abs().mean(-1), model.distance(futures, latent))
    assert torch.equal(model.state(futures), model.pose(futures))
    assert model.state_scale().shape == (7,)


def test_futures_do_not_depend_on_how_many_are_imagined_together(model: VJepa2Model) -> None:
    latent, actions = model.encode(observation(2)), noise(2, 5, 3, 7, phase=9)
    together = model.predict(latent, actions)
    model.futures_at_once, kept = 2, model.futures_at_once
    try:
        assert torch.allclose(model.predict(latent, actions), together, atol=1e-5)
    finally:
        model.futures_at_once = kept
    alone = model.predict(latent[1:], actions[1:, 2:3])
    assert torch.allclose(alone[0, 0], together[1, 2], atol=1e-5)


def test_a_future_is_the_predictor_s_with_its_own_steps_as_context(model: VJepa2Model) -> None:
    latent, actions = model.encode(observation()), noise(1, 1, 2, 7, phase=9)
    futures = model.predict(latent, actions)[0, 0]
    physical = TABLETOP.to_physical(actions)[0]
    pose = model.pose(latent)
    with torch.no_grad():
        one = model.predictor(latent[:, :-1], physical[:, :1], pose[:, None])
        one = torch.nn.functional.layer_norm(one, (24,))
        moved = integrate_pose(pose, physical[:, 0])
        both = model.predictor(torch.cat([latent[:, :-1], one], 1), physical, torch.stack([pose, moved], 1))
    assert torch.allclose(futures[0, :-1], one[0], atol=1e-5)
    assert torch.allclose(futures[1, :-1], torch.nn.functional.layer_norm(both[0, 4:], (24,)), atol=1e-5)
    assert torch.allclose(model.pose(futures)[0], moved[0], atol=1e-6)


def test_it_plans(model: VJepa2Model) -> None:
    picture = observation()["observation.images.front"][0].numpy()
    planner = CEM(horizon=2, elites=4, proposal_share=0.0, objective=Objective(go=LearnedDistance()))
    agent = MPC(model, planner, Goal.image(picture), Budget(samples=12, iterations=2))
    action = agent.act({"observation.images.front": picture, "observation.state": np.zeros(7, np.float32)})
    assert action.shape == (7,)
    assert np.all(np.abs(action) <= np.array(TABLETOP.high) + 1e-6)
    plan = agent.last_plan
    assert plan is not None
    assert plan.cost_per_iteration[0, -1] <= plan.cost_per_iteration[0, 0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"observation.images.front": None}, "needs observation.images.front"),
        ({"observation.images.front": torch.zeros(1, 40, 60, 3)}, "should be uint8"),
        ({"observation.state": torch.zeros(1, 6)}, r"should be \(1, 7\)"),
        ({"observation.state": torch.tensor([[0, 0, float("nan"), 0, 0, 0, 0]])}, "NaN or infinity in dimension 2"),
    ],
)
def test_what_cannot_be_seen_is_refused(model: VJepa2Model, change: dict[str, Any], said: str) -> None:
    seen = {key: value for key, value in {**observation(), **change}.items() if value is not None}
    with pytest.raises(ValueError, match=said):
        model.encode(seen)


def test_parts_of_different_models_do_not_join() -> None:
    encoder = load_encoder(weights("encoder", ENCODER, 48 / 11), **ENCODER)
    predictor = load_action_predictor(weights("predictor", PREDICTOR), **PREDICTOR)
    assert isinstance(encoder, Encoder)
    assert isinstance(predictor, ActionPredictor)
    with pytest.raises(ValueError, match="the encoder's tokens have 44 numbers, the predictor takes 24"):
        VJepa2Model(encoder, predictor)


# -- files ---------------------------------------------------------------------------------------------------------


def test_a_converted_file_is_slim_and_says_where_it_comes_from(published: Path, folder: Path) -> None:
    card = json.loads((folder / "card.json").read_text())
    assert card["source"] == ["ac.pt"]
    assert card["sizes"]["predictor"]["predictor_embed_dim"] == 32
    assert (folder / "model.safetensors").stat().st_size < 0.6 * published.stat().st_size
    assert not list(folder.glob(".*"))


def test_another_predictor_can_take_the_place_of_the_file_s_own(published: Path, tmp_path: Path) -> None:
    other = {name: 0.5 * value for name, value in torch.load(published, weights_only=True)["predictor"].items()}
    torch.save({"predictor": other}, tmp_path / "fixed.pt")
    convert(published, tmp_path / "out", predictor=tmp_path / "fixed.pt", img_size=32, num_frames=12, heads=(2, 2))
    mixed = load(tmp_path / "out", device="cpu")
    assert isinstance(mixed, VJepa2Model)
    halved = 0.5 * noise(32, 7, phase=1)  # action_encoder.weight, by the order of names
    assert torch.allclose(mixed.predictor.action_encoder.weight, halved, atol=2e-3)


class Malice:
    """What a pickle may do."""

    def __reduce__(self) -> Any:
        return (print, ("executed",))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"encoder": Malice()}, "no torch file of weights alone"),
        ({"model": {}}, "has no part 'encoder'; it has model"),
        ({"encoder": {"a": torch.zeros(1)}, "predictor": {}}, "lacks patch_embed"),
    ],
)
def test_files_that_are_something_else_are_refused(
    content: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=said):
        convert(tmp_path / "x.pt", tmp_path / "out")
    assert "executed" not in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_a_truncated_file_is_refused(published: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(published.read_bytes()[:2000])
    with pytest.raises(ValueError, match="no torch file of weights alone"):
        convert(tmp_path / "x.pt", tmp_path / "out")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "card.json").write_text((folder / "card.json").read_text())
    (broken / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-10])
    with pytest.raises(ValueError, match="truncated or damaged"):
        load(broken, device="cpu")


def test_unknown_widths_ask_for_their_heads(published: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="say heads="):
        convert(published, tmp_path / "out", img_size=32)
    with pytest.raises(ValueError, match="5 heads do not divide 24"):
        convert(published, tmp_path / "out", img_size=32, heads=(5, 2))
