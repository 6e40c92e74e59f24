"""A brain that knows the truth is trusted, one that ignores actions or only counts steps is found out, by real episodes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

import envs
from planners.benchmark.stats import Resampling
from planners.benchmark.trust import judge
from planners.benchmark.trust_episodes import DISPLACEMENTS_CM, Held, hold_out, play
from planners.benchmark.trust_figures import Answer, Figure
from planners.benchmark.trust_rollouts import Rollouts, judge_uncertainty
from premotor import main as front_door
from worldmodel.interface import TABLETOP, Observation

assert envs
STEPS = 22
SMALL = ("suite=model", "episodes=2", f"steps={STEPS}", "seed=500", "launcher=single", "threads=1")
FRONT = "observation.images.front"


class PixelBrain:
    """A coarse picture as the latent, and the future as the present: it copies, whatever one does."""

    name = "pixels"
    action_space = TABLETOP
    device = torch.device("cpu")
    required_keys = (FRONT,)
    latent_ndim = 1

    def encode(self, observation: Observation) -> Tensor:
        pictures = torch.as_tensor(observation[FRONT]).to(torch.float32).permute(0, 3, 1, 2) / 255
        coarse = torch.nn.functional.avg_pool2d(pictures, 4).flatten(1)
        return torch.cat([coarse, coarse.new_zeros(len(coarse), 1)], 1)  # the last number counts steps

    def predict(self, latent: Tensor, actions: Tensor) -> Tensor:
        futures = latent[:, None, None].repeat(1, *actions.shape[1:3], 1)
        futures[..., -1] += torch.arange(1.0, actions.shape[2] + 1)
        return futures

    def distance(self, latents: Tensor, goal: Tensor) -> Tensor:
        return self.feature_distance(latents, goal)

    def feature_distance(self, latents: Tensor, goal: Tensor) -> Tensor:
        wanted = goal.reshape(len(goal), *[1] * (latents.ndim - 2), -1)
        return (latents - wanted)[..., :-1].square().mean(-1)

    def state_distance(self, latents: Tensor, goal: Tensor) -> Tensor | None:
        return None

    def propose(self, latent: Tensor, goal: Tensor, n: int, generator: Any = None) -> Tensor | None:
        return None

    def uncertainty(self, latents: Tensor) -> Tensor | None:
        return latents[..., -1]

    def decode(self, latents: Tensor) -> Tensor | None:
        return None


@pytest.fixture(scope="module")
def world() -> Any:
    made = gymnasium.make("premotor/Tabletop-v0", task="push", with_goal=False, disable_env_checker=True)
    yield made.unwrapped
    made.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("held")


@pytest.fixture(scope="module")
def episodes(world: Any, folder: Path) -> list[Held]:
    return hold_out(world, {"task": "push"}, range(500, 504), STEPS, folder)


def named(answers: dict[str, Answer], words: str) -> Figure:
    """The one figure whose name begins so."""
    (found,) = [one for answer in answers.values() for one in answer.figures if one.name.startswith(words)]
    return found


def test_what_never_happened_is_made_as_it_is_told(world: Any, episodes: list[Held]) -> None:
    assert sum(len(held.moments) for held in episodes) >= 3
    for held in episodes:
        for row, step in enumerate(held.moments):
            for distance, state in zip(DISPLACEMENTS_CM, held.displaced["simulator.state"][row], strict=True):
                world.restore_state(state)
                away = world.world.object_pose()[:3] - held.poses[step, :3]
                assert 100 * np.linalg.norm(away) == pytest.approx(distance, abs=0.01)
                np.testing.assert_allclose(
                    world.observe()["observation.state"], held.observations["observation.state"][step], atol=1e-5
                )
        for row, step in enumerate(held.event_steps):
            true = held.observations[FRONT][step + 1].astype(int)
            for seen in held.events.values():
                changed = np.abs(seen[FRONT][row] - true).max(-1) > 12
                assert 0 < changed.sum() < 0.1 * changed.size


def test_an_episode_is_its_seed_s_and_a_damaged_file_is_played_anew(
    world: Any, episodes: list[Held], folder: Path
) -> None:
    (kept,) = folder.glob("*/500.npz")
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2])
    (again,) = hold_out(world, {"task": "push"}, [500], STEPS, folder)
    first, second = episodes[0].to_arrays(), again.to_arrays()
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[key], second[key]) for key in first)


def test_pybullet_makes_the_same_events() -> None:
    made = gymnasium.make("premotor/Tabletop-v0", simulator="pybullet", with_goal=False, disable_env_checker=True)
    held = play(made.unwrapped, 500, 4)
    made.close()
    assert len(held.event_steps) > 0
    for seen in held.events.values():
        assert (
            np.abs(seen[FRONT] - held.observations[FRONT][held.event_steps + 1].astype(int)).max((1, 2, 3)) > 12
        ).all()


def test_a_brain_that_ignores_actions_and_counts_steps_is_found_out(episodes: list[Held]) -> None:
    answers = judge(PixelBrain(), episodes)
    for h in ("1 step", "5 steps", "10 steps"):
        alone = named(answers, f"Spearman with the error, {h} ahead")
        assert (alone.value, alone.verdict) == (0.0, "missed")
        assert named(answers, f"error over that of copying the last latent, {h}").verdict == "no different"
    together = named(answers, "Spearman with the error, horizons")
    assert together.value == pytest.approx(named(answers, "the same of a counter").value)
    assert together.value > 0.2
    assert named(answers, "futures of actions turned round").value == 0.0
    first = named(answers, "true actions lead nearest")
    assert (first.value, first.verdict) == (pytest.approx(100 / 17), "no different")
    assert named(answers, "nearer than with dx turned round").verdict == "no different"
    assert named(answers, "decoded error").verdict == "not offered: the model decodes nothing"
    # Its eyes are not at fault.
    assert named(answers, "AUROC, object 4 cm away against holding still").verdict == "better"
    assert named(answers, "AUROC, the object vanishes: error over uncertainty").value is not None
    # Who foresees no change errs by all of it, every time.
    assert named(answers, "AUROC, the object vanishes: error over change").value == 0.5


def rollouts(error: np.ndarray, doubt: np.ndarray) -> Rollouts:
    """Rollouts of which only error and doubt (E, S, H) are asked."""
    return Rollouts(error, doubt, error, error, None, error, error)


def test_doubt_that_knows_and_doubt_that_does_not() -> None:
    rng = np.random.default_rng(0)
    error = rng.gamma(2.0, size=(40, 20, 10))
    error[:, 15:, 5:] = np.nan
    resampling = Resampling(40)
    knows = judge_uncertainty(rollouts(error, 3 * np.nan_to_num(error)), resampling)
    assert [one.verdict for one in knows.figures[:4]] == ["met"] * 4
    assert [one.value for one in knows.figures[:4]] == [pytest.approx(1.0)] * 4
    guesses = judge_uncertainty(rollouts(error, rng.gamma(2.0, size=error.shape)), resampling)
    assert [one.verdict for one in guesses.figures[:4]] == ["missed"] * 4
    # Errors of one distribution: 95 % lie below its 95 % quantile, whatever a doubt of chance says.
    covered = guesses.figures[5]
    assert covered.name.startswith("errors within the scale where uncertainty <= 1")
    assert covered.value == pytest.approx(95.0, abs=1.5)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the command judged the shipped model and the true simulator side by side."""
    out = tmp_path_factory.mktemp("judged")
    assert front_door(["bench", *SMALL, f"out={out}", "models=[tabletop,simulator]"]) == 0
    shutil.copy(out / "model.json", out / "both.json")
    return out


def test_the_command_judges_models_side_by_side_and_goes_on(judged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = json.loads((judged / "both.json").read_text())
    assert [one["model"] for one in both["models"]] == ["tabletop", "simulator"]
    assert (both["seed"], both["episodes"], both["steps"]) == (500, 2, STEPS)
    pictures = {path.name for path in judged.glob("*.png")}
    assert {f"tabletop-{q}.png" for q in ("uncertainty", "drift", "surprise", "action", "object")} <= pictures
    assert "simulator-uncertainty.png" not in pictures
    page = (judged / "model.md").read_text()
    assert "not offered: the model says no uncertainty" in page
    assert "| tabletop (95 %) | verdict | simulator (95 %) | verdict |" in page
    played = {path: path.stat().st_mtime_ns for path in judged.glob("episodes/*/*.npz")}
    assert len(played) == 2

    assert front_door(["bench", *SMALL, f"out={judged}", "model=tabletop"]) == 0
    said = capsys.readouterr().out
    assert "Does it know when it is wrong?" in said
    assert "Does the object matter?" in said
    assert played == {path: path.stat().st_mtime_ns for path in judged.glob("episodes/*/*.npz")}
    (alone,) = json.loads((judged / "model.json").read_text())["models"]
    assert alone["figures"] == both["models"][0]["figures"]


def test_the_true_simulator_is_trusted(judged: Path) -> None:
    rows = json.loads((judged / "both.json").read_text())["models"][1]["figures"]

    def row(words: str) -> dict[str, Any]:
        (found,) = [one for one in rows if one["name"].startswith(words)]
        return found

    for baseline in ("copying the last latent", "going straight on"):
        drift = row(f"error over that of {baseline}, 5 steps")
        assert drift["value"] < 0.01
        assert drift["verdict"] == "better"
    assert row("true actions lead nearest")["value"] == 100.0
    assert row("their mean rank")["value"] == 1.0
    assert row("AUROC, the object leaps 5 to 14 cm: error over change")["verdict"] == "better"
    assert row("the picture stands still")["verdict"] == "not offered: the model looks at no picture"
    assert row("Spearman of feature distance with the displacement, within")["value"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["suite=modle"], "no suite is called 'modle'; did you mean model?"),
        (["suite=model", "episodes=1"], "episodes is 1; intervals over episodes need at least 2"),
        (["suite=model", "steps=21"], "steps is 21; futures are compared 20 steps ahead"),
        (["suite=model", "task=[push,reach]"], "suite=model plays in one world; task is"),
        (["suite=model", "planners=[cem]"], "judges the model alone, no planner"),
        (["suite=model", "seed=-1"], "seed is -1"),
        (
            ["suite=model", "cameras=[wrist]"],
            "needs observation.images.front, the world shows observation.images.wrist",
        ),
        (["suite=model", "image_size=96"], r"should be (B, 64, 64, 3); got (1, 96, 96, 3)"),
        (["suite=model", "model=simulator", "simulator=pybullet"], "simulator.state should be"),
        (["suite=model", "models=[tabletopp]"], "model has no choice 'tabletopp'; did you mean tabletop?"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    assert front_door(["bench", *words, f"out={tmp_path / 'out'}"]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
