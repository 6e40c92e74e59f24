"""Training learns, resumes exactly, does not collapse, and says when it cannot."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.worldmodel.conftest import SMALL, without_times
from tests.worldmodel.test_data import rewrite_column
from worldmodel import findings
from worldmodel.adapt import adapt
from worldmodel.beginnings import go_on_from, start_from
from worldmodel.checkpoint import load, load_networks, save
from worldmodel.data import Episodes
from worldmodel.interface import TABLETOP
from worldmodel.losses import LossWeights, adaptation_losses, contrast_loss, proposal_loss, readout_loss, spread_loss
from worldmodel.native import NativeModel
from worldmodel.networks import Networks
from worldmodel.pretrain import BLIND
from worldmodel.refine import refine
from worldmodel.settings import AdaptSettings
from worldmodel.trainer import Schedule


def train(data: Path, out: Path, steps: int, *, total: int | None = None, resume: bool = True, **extra):
    schedule = Schedule(steps=total or steps, warmup_steps=10, evaluate_every=steps, save_every=steps)
    settings = AdaptSettings(
        data=(str(data),), out=str(out), windows_per_batch=16, window_steps=3, goal_reach=8, held_out=0.2, **extra
    )
    return adapt(settings, schedule, SMALL, bf16=False, resume=resume)


def test_it_learns_and_what_it_writes_loads(tiny_dataset, tmp_path) -> None:
    history = train(tiny_dataset, tmp_path / "run", 60, total=180)
    assert history[-1]["contrast"] < history[0]["contrast"]
    assert history[-1]["readout"] < history[0]["readout"]
    assert history[-1]["rank"] > 3
    assert load_networks(tmp_path / "run")[0].architecture == SMALL
    assert (tmp_path / "run/curves.png").stat().st_size > 10_000
    card = json.loads((tmp_path / "run/card.json").read_text())
    assert card["data"][0]["fingerprint"]
    assert card["measured"]["step"] == 180


@pytest.mark.parametrize("prefetch", [False, True])
def test_a_run_cut_in_two_is_bit_for_bit_the_run_in_one(tiny_dataset, tmp_path, monkeypatch, prefetch) -> None:
    whole = train(tiny_dataset, tmp_path / "whole", 6, total=12, prefetch=prefetch)
    import worldmodel.trainer as trainer

    advance = trainer.Trainer._advance

    def interrupted(self) -> None:
        if self.step == 9:  # after the save at step 6, before the end
            raise KeyboardInterrupt
        advance(self)

    monkeypatch.setattr(trainer.Trainer, "_advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_dataset, tmp_path / "cut", 6, total=12, prefetch=prefetch)
    monkeypatch.undo()
    resumed = train(tiny_dataset, tmp_path / "cut", 6, total=12, prefetch=prefetch)
    assert without_times(whole) == without_times(resumed)
    for name in ("whole", "cut"):
        card = json.loads((tmp_path / name / "card.json").read_text())
        assert 0 < card["cost"]["loader_share"] < 1
        assert card["cost"] | {"steps": 12, "processes": 1, "frames": 12 * 16 * 6} == card["cost"]
        assert [row["step"] for row in card["curves"]["last"]] == [6, 12]


def test_a_save_of_before_batches_were_drawn_ahead_goes_on(tiny_dataset, tmp_path) -> None:
    """Such a save holds one generator and says nothing of processes; nothing else about it differs."""
    whole = train(tiny_dataset, tmp_path / "run", 6, total=6)
    path = tmp_path / "run/state.pt"
    state = torch.load(path, weights_only=True)
    state["generator"] = state.pop("generators")[0, 0]
    for name in ("shape", "processes", "prefetch", "compile"):
        del state["recipe"][name]
    del state["position"]["waited"]
    torch.save(state, path)
    assert without_times(train(tiny_dataset, tmp_path / "run", 6, total=6)) == without_times(whole)
    with pytest.raises(ValueError, match="was trained with prefetch=False, now it is True"):
        train(tiny_dataset, tmp_path / "run", 6, total=6, prefetch=True)


def test_a_constant_schedule_warms_up_and_stays() -> None:
    schedule = Schedule(steps=100, warmup_steps=10, learning_rate=0.5, shape="constant")
    rates = [schedule.rate(step / 100, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.05)
    assert rates[:10] == sorted(rates[:10])
    assert set(rates[9:]) == {0.5}
    with pytest.raises(ValueError, match="schedule=linear is not known; known are cosine, constant"):
        Schedule(shape="linear")


def test_video_alone_trains_an_encoder_that_adaptation_starts_from(tiny_dataset, tmp_path) -> None:
    settings = AdaptSettings(
        data=(str(tiny_dataset),), out=str(tmp_path / "video"), windows_per_batch=8, window_steps=3, goal_reach=8,
        held_out=0.2, video_only=True,
    )  # fmt: skip
    adapt(settings, Schedule(steps=4, evaluate_every=4, save_every=4), SMALL, weights=LossWeights(**BLIND), bf16=False)
    pretrained = load_networks(tmp_path / "video")[0].encoder.state_dict()
    history = train(tiny_dataset, tmp_path / "run", 1, encoder=str(tmp_path / "video"))
    started = load_networks(tmp_path / "run")[0].encoder.state_dict()
    assert history
    change = (started["join.weight"] - pretrained["join.weight"]).abs().max()
    assert change < 0.05  # one careful step away, not a fresh start
    with pytest.raises(ValueError, match="learned from video alone; begin with its encoder"):
        train(tiny_dataset, tmp_path / "on", 1, start=str(tmp_path / "video"))


def test_video_alone_learns_from_no_action_and_no_state(tiny_dataset, tmp_path) -> None:
    """The same video with other actions and a broken state gives the same encoder, bit for bit."""
    other = tmp_path / "other"
    shutil.copytree(tiny_dataset, other)
    rewrite_column(other, "action", lambda values: -0.5 * values)
    rewrite_column(other, "observation.state", lambda values: values + np.nan)
    encoders, probed = [], []
    for data in (tiny_dataset, other):
        out = tmp_path / f"of-{data.name}"
        settings = AdaptSettings(
            data=(str(data),), out=str(out), windows_per_batch=8, window_steps=3, held_out=0.2, video_only=True
        )
        schedule = Schedule(steps=3, evaluate_every=3, save_every=3)
        history = adapt(settings, schedule, SMALL, weights=LossWeights(**BLIND), bf16=False)
        encoders.append(load_networks(out)[0].encoder.state_dict())
        probed.append("probe_tool_cm" in history[-1])
    assert probed == [True, False]  # where the arm is, is measured by where it is known
    for name, value in encoders[0].items():
        assert value.equal(encoders[1][name]), name


def test_refinement_leaves_the_encoder_alone_and_needs_few_episodes(tiny_dataset, tmp_path) -> None:
    train(tiny_dataset, tmp_path / "plain", 3)
    train(tiny_dataset, tmp_path / "refined", 3, refine_minutes=0.01)
    plain, refined = (load_networks(tmp_path / name)[0] for name in ("plain", "refined"))
    for name, value in plain.encoder.state_dict().items():
        assert value.equal(refined.encoder.state_dict()[name]), name
    assert not plain.steps_to_goal.enter.weight.equal(refined.steps_to_goal.enter.weight)
    # The same command again finds it done.
    train(tiny_dataset, tmp_path / "refined", 3, refine_minutes=0.01)
    again, card = load_networks(tmp_path / "refined")
    assert card["refined_minutes"] == 0.01
    assert again.steps_to_goal.enter.weight.equal(refined.steps_to_goal.enter.weight)


def killed_in_refinement(data: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ended after predictor and distance were refined, before the proposals were."""

    def killed(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("worldmodel.refine._learn_to_propose", killed)
        with pytest.raises(KeyboardInterrupt):
            train(data, out, 3, refine_minutes=0.02)


def test_a_killed_refinement_goes_on(tiny_dataset, tmp_path, monkeypatch) -> None:
    out = tmp_path / "run"
    killed_in_refinement(tiny_dataset, out, monkeypatch)
    assert load_networks(out)[1]["refined_minutes"] == 0.0
    learned = torch.load(out / "refinement" / "refine.pt", weights_only=True)["module"]
    looked = []
    with monkeypatch.context() as patched:
        patched.setattr("worldmodel.refine.encoded", lambda *args: looked.append(args))
        with pytest.raises(ValueError, match=r"part of a run with proposing_share=0\.35, now it is 0\.5"):
            train(tiny_dataset, out, 3, refine_minutes=0.02, proposing_share=0.5)
        train(tiny_dataset, out, 3, refine_minutes=0.02)
    assert not looked
    refined, card = load_networks(out)
    assert card["refined_minutes"] == 0.02
    for part, learned_since in ((refined.steps_to_goal, False), (refined.proposal, True)):
        name = "steps_to_goal" if part is refined.steps_to_goal else "proposal"
        moved = (part.enter.weight - learned[f"{name}.enter.weight"]).abs().max()
        assert (moved > 1e-3) == learned_since  # files round to half precision
    assert not (out / "refinement").exists()


def test_to_begin_anew_forgets_what_a_killed_refinement_left(tiny_dataset, tmp_path, monkeypatch) -> None:
    out = tmp_path / "run"
    killed_in_refinement(tiny_dataset, out, monkeypatch)
    looked = []
    whole = findings.encoded

    def counted(*args: Any) -> Tensor:
        looked.append(args)
        return whole(*args)

    monkeypatch.setattr("worldmodel.refine.encoded", counted)
    train(tiny_dataset, out, 3, refine_minutes=0.02, resume=False)
    assert looked
    assert not (out / "refinement").exists()


def test_too_few_scenes_keep_their_colours_in_refinement(tiny_dataset, tmp_path, capsys) -> None:
    train(tiny_dataset, tmp_path / "run", 3)
    networks, _ = load_networks(tmp_path / "run")
    episodes = Episodes([tiny_dataset], SMALL.cameras, TABLETOP)
    every, here = torch.arange(len(episodes)), torch.device("cpu")
    refine(networks, episodes, every, minutes=0.001, seed=0, device=here, hue_jitter=1.0)
    assert "too few to refine under other colours" in " ".join(capsys.readouterr().out.split())


def test_refinement_may_be_the_proposals_alone(tiny_dataset, tmp_path) -> None:
    train(tiny_dataset, tmp_path / "run", 3)
    before, _ = load_networks(tmp_path / "run")
    after, _ = load_networks(tmp_path / "run")
    episodes = Episodes([tiny_dataset], SMALL.cameras, TABLETOP)
    every, here = torch.arange(len(episodes)), torch.device("cpu")
    refine(after, episodes, every, minutes=0.02, seed=0, device=here, readout=False, proposing_share=1.0)
    assert after.steps_to_goal.enter.weight.equal(before.steps_to_goal.enter.weight)
    assert not after.proposal.enter.weight.equal(before.proposal.enter.weight)
    with pytest.raises(ValueError, match="a share of refinement's time"):
        train(tiny_dataset, tmp_path / "no", 1, proposing_share=1.5)


def test_a_lower_rate_refines_less(tiny_dataset, tmp_path) -> None:
    train(tiny_dataset, tmp_path / "run", 3)
    before, _ = load_networks(tmp_path / "run")
    episodes = Episodes([tiny_dataset], SMALL.cameras, TABLETOP)
    every, here = torch.arange(len(episodes)), torch.device("cpu")
    moved = {}
    for rate in (1e-3, 1e-6):
        after, _ = load_networks(tmp_path / "run")
        refine(after, episodes, every, minutes=0.02, seed=0, device=here, learning_rate=rate)
        moved[rate] = [
            (getattr(after, part).enter.weight - getattr(before, part).enter.weight).abs().mean().item()
            for part in ("predictor", "steps_to_goal", "proposal", "readout")
        ]
    assert all(0 < little < 0.1 * much for little, much in zip(moved[1e-6], moved[1e-3], strict=True))
    with pytest.raises(ValueError, match=r"refine_rate is 0\.0; it is a learning rate, above 0"):
        train(tiny_dataset, tmp_path / "no", 1, refine_rate=0.0)


def test_refined_proposals_fit_what_was_done(tiny_dataset, tmp_path) -> None:
    train(tiny_dataset, tmp_path / "run", 3)
    networks, _ = load_networks(tmp_path / "run")
    episodes = Episodes([tiny_dataset], SMALL.cameras, TABLETOP)
    every = torch.arange(len(episodes))
    at = episodes.choose(every, 64, 3, 8, torch.Generator().manual_seed(0), group=1)

    def unlikely() -> float:
        with torch.no_grad():
            z = networks.encoder.eval()(episodes.frames(at.window[:, 0])).float()
            goal = networks.encoder(episodes.frames(at.goal)).float()
            p = networks.normalise_state(episodes.states[at.window[:, 0]])
            onward = torch.arange(SMALL.proposal_steps)
            taken = episodes.actions[torch.minimum(at.window[:, :1] + onward, at.last[:, None] - 1)]
            aim = networks.aim(goal, networks.normalise_state(episodes.states[at.goal]))
            return float(proposal_loss(networks, z, p, aim, at.goal_steps, taken, at.goal_steps[:, None] > onward))

    before = unlikely()
    refine(networks, episodes, every, minutes=0.03, seed=0, device=torch.device("cpu"), bf16=False, readout=False)
    assert unlikely() < before


def test_spreading_wants_several_processes_and_no_compiler(tiny_dataset, tmp_path) -> None:
    with pytest.raises(ValueError, match="start with torchrun"):
        train(tiny_dataset, tmp_path / "alone", 1, sharded=True)
    with pytest.raises(ValueError, match="do not go together"):
        train(tiny_dataset, tmp_path / "both", 1, sharded=True, compile=True)


def test_a_prior_of_several_modes_keeps_two_ways_apart() -> None:
    torch.manual_seed(0)
    networks = Networks(replace(SMALL, proposal_modes=3))
    z, p = torch.zeros(64, 24), torch.zeros(64, 7)
    side = (torch.arange(64) % 4 == 0).float() * 1.6 - 0.8  # a quarter of those who stood here went up, the others down
    actions = side[:, None, None].expand(64, 3, 7)
    learn = torch.optim.Adam(networks.proposal.parameters(), 3e-3)
    for _ in range(150):
        learn.zero_grad()
        proposal_loss(
            networks, z, p, networks.aim(z, p), torch.ones(64), actions, torch.ones(64, 3, dtype=torch.bool)
        ).backward()
        learn.step()
    model = NativeModel(networks, TABLETOP)
    latent = torch.zeros(1, 24 + 7 + 1)
    drawn = model.propose(latent, latent, 400, torch.Generator().manual_seed(0))[0]
    first = [model.propose(latent, latent, 1, torch.Generator().manual_seed(seed))[0, 0] for seed in range(20)]
    assert all((one.abs() - 0.8).abs().max() < 0.1 for one in first)
    assert {bool(one.mean() > 0) for one in first} == {True, False}
    assert ((drawn.mean((1, 2)).abs() - 0.8).abs() < 0.15).float().mean() > 0.99
    assert 0.15 < (drawn[1:].mean((1, 2)) > 0).float().mean() < 0.35


def test_one_way_to_go_on_may_become_several(tiny_dataset, tmp_path) -> None:
    train(tiny_dataset, tmp_path / "one", 3)
    one, _ = load_networks(tmp_path / "one")
    branched = Networks(replace(one.architecture, proposal_modes=4))
    go_on_from(branched, str(tmp_path / "one"))
    latent, goal = torch.randn(2, 24 + 7 + 1, generator=torch.Generator().manual_seed(1))[:, None]
    before, after = (NativeModel(networks, TABLETOP).propose(latent, goal, 1)[0, 0] for networks in (one, branched))
    assert 0 < (before - after).abs().max() < 0.5
    save(tmp_path / "four", branched, TABLETOP, {"training": {}, "data": []})
    again, _ = load_networks(tmp_path / "four")
    assert again.architecture.proposal_modes == 4
    train(tiny_dataset, tmp_path / "onward", 1, start=str(tmp_path / "four"))  # keeps its modes without being told
    assert load_networks(tmp_path / "onward")[0].architecture.proposal_modes == 4
    with pytest.raises(ValueError, match="proposal_modes=4, here it is 1"):
        go_on_from(Networks(one.architecture), str(tmp_path / "four"))


def test_heads_are_told_where_the_arm_of_a_goal_is() -> None:
    """Two goals whose pictures look the same, the arm of one farther off: along a camera's depth that is so."""
    torch.manual_seed(0)
    z, p = torch.zeros(256, 24), torch.zeros(256, 7)
    there = torch.zeros(256, 7)
    there[:, 0] = torch.linspace(-1, 1, 256)
    actions = there[:, None].expand(-1, 3, -1).clone()  # what was done: so far, in that direction
    unlikely = {}
    for told in (False, True):
        networks = Networks(replace(SMALL, goal_state=told))
        learn = torch.optim.Adam(networks.proposal.parameters(), 3e-3)
        for _ in range(100):
            learn.zero_grad()
            aim, all_of_it = networks.aim(z, there), torch.ones(256, 3, dtype=torch.bool)
            loss = proposal_loss(networks, z, p, aim, torch.ones(256), actions, all_of_it)
            loss.backward()
            learn.step()
        unlikely[told] = float(loss.detach())
        model = NativeModel(networks, TABLETOP)
        latent, goal = torch.zeros(2, 1, 24 + 7 + 1)
        far = goal.clone()
        far[:, 24] = 0.8
        same = model.distance(latent, goal).equal(model.distance(latent, far))
        assert same == (not told)
    assert unlikely[True] < unlikely[False] - 0.2
    assert float(model.propose(latent, far, 1)[0, 0, 0, 0]) > float(model.propose(latent, goal, 1)[0, 0, 0, 0]) + 0.4


def test_a_prior_with_a_pace_hurries_when_asked_to() -> None:
    torch.manual_seed(0)
    networks = Networks(replace(SMALL, pace=True))
    z, p = torch.zeros(256, 24), torch.zeros(256, 7)
    steps = 1 + torch.arange(256) % 16
    actions = (0.8 / steps)[:, None, None].expand(-1, 3, 7)  # the same way, in so many steps
    learn = torch.optim.Adam(networks.proposal.parameters(), 3e-3)
    for _ in range(150):
        learn.zero_grad()
        every = torch.ones(256, 3, dtype=torch.bool)
        proposal_loss(networks, z, p, networks.aim(z, p), steps, actions, every).backward()
        learn.step()
    model = NativeModel(networks, TABLETOP)
    latent = torch.zeros(1, 24 + 7 + 1)
    moved = []
    for bin_ in (2, 10):  # what steps to the goal are said to be likely
        last = networks.steps_to_goal.leave[-1]
        assert isinstance(last, torch.nn.Linear)
        last.weight.zero_()
        last.bias.fill_(-20.0)
        last.bias[bin_] = 0.0
        moved.append(float(model.propose(latent, latent, 1)[0, 0].mean()))
    assert moved[0] == pytest.approx(0.4, abs=0.1)
    assert moved[1] == pytest.approx(0.08, abs=0.05)


def test_heads_that_were_not_told_of_the_goals_arm_may_hear_of_it_later(tiny_dataset, tmp_path) -> None:
    deaf = Networks(replace(SMALL, goal_state=False))
    save(tmp_path / "deaf", deaf, TABLETOP, {"training": {}, "data": []})
    assert "goal_state" not in json.loads((tmp_path / "deaf/card.json").read_text())["architecture"]
    deaf, _ = load_networks(tmp_path / "deaf")
    told = Networks(replace(SMALL, pace=True))
    go_on_from(told, str(tmp_path / "deaf"))
    latent, goal = torch.randn(2, 1, 24 + 7 + 1, generator=torch.Generator().manual_seed(1))
    before, after = (NativeModel(networks, TABLETOP) for networks in (deaf, told))
    assert after.distance(latent, goal).allclose(before.distance(latent, goal), atol=1e-4)
    assert after.propose(latent, goal, 1).allclose(before.propose(latent, goal, 1), atol=1e-4)
    hasty = Networks(replace(SMALL, goal_state=False, pace=True))
    save(tmp_path / "hasty", hasty, TABLETOP, {"training": {}, "data": []})
    hasty, _ = load_networks(tmp_path / "hasty")
    both = Networks(replace(SMALL, pace=True))
    go_on_from(both, str(tmp_path / "hasty"))
    before, after = (NativeModel(networks, TABLETOP) for networks in (hasty, both))
    assert after.propose(latent, goal, 1).allclose(before.propose(latent, goal, 1), atol=1e-4)
    train(tiny_dataset, tmp_path / "onward", 2, start=str(tmp_path / "deaf"))
    learned, _ = load_networks(tmp_path / "onward")
    assert learned.architecture.goal_state
    assert learned.steps_to_goal.enter.weight[:, -7:].abs().max() > 0
    with pytest.raises(ValueError, match="goal_state=True, here it is False"):
        go_on_from(Networks(replace(SMALL, goal_state=False)), str(tmp_path / "onward"))


def test_an_action_that_nobody_recorded_is_guessed(tiny_dataset) -> None:
    episodes = Episodes([tiny_dataset], SMALL.cameras, TABLETOP, video_only=True, state_size=SMALL.state_size)
    windows = episodes.draw(
        torch.arange(len(episodes)), 8, 3, 8, torch.Generator().manual_seed(0), twins_by_state=False
    )
    torch.manual_seed(0)
    networks = Networks(replace(SMALL, guesses=True))
    assert networks.motion is not None
    losses = adaptation_losses(networks, windows, torch.Generator().manual_seed(0), guess_actions=True)
    losses["rollout"].backward()
    # The prediction's error teaches what lies between two frames; blanked actions teach it nothing.
    guess = networks.motion.view.weight.grad
    assert guess is not None
    assert guess.abs().max() > 0
    networks.zero_grad(set_to_none=True)
    adaptation_losses(networks, windows, torch.Generator().manual_seed(0))["rollout"].backward()
    assert networks.motion.view.weight.grad is None
    with pytest.raises(ValueError, match="guess no actions"):
        adaptation_losses(Networks(SMALL), windows, torch.Generator(), guess_actions=True)


def test_what_video_taught_of_motion_is_translated_into_actions(tiny_dataset, tmp_path) -> None:
    """Where features show what was done, a predictor from video predicts real actions before it has learned from any."""
    video = tmp_path / "video"
    settings = AdaptSettings(
        data=(str(tiny_dataset),), out=str(video), windows_per_batch=16, window_steps=3, goal_reach=8, held_out=0.2,
        video_only=True,
    )  # fmt: skip
    schedule = Schedule(steps=150, warmup_steps=10, evaluate_every=150, save_every=150)
    adapt(settings, schedule, SMALL, weights=LossWeights(**BLIND, spread=50.0), bf16=False)
    episodes = Episodes([tiny_dataset], SMALL.cameras, TABLETOP)
    every = torch.arange(len(episodes))
    at = episodes.choose(every, 64, 3, 8, torch.Generator().manual_seed(0), group=1)

    def error(networks: Networks, actions: torch.Tensor) -> float:
        with torch.no_grad():
            z, after = (networks.encoder.eval()(episodes.frames(at.window[:, step])).float() for step in (0, 1))
            p = networks.normalise_state(episodes.states[at.window[:, 0]])
            return float((networks.step(z, p, actions)[0] - after).square().mean() / (z - after).square().mean())

    torch.manual_seed(0)
    fresh, taken = Networks(SMALL), Networks(SMALL)
    start_from(taken, str(video), episodes, every, torch.device("cpu"))
    fresh.encoder.load_state_dict(taken.encoder.state_dict())
    done = episodes.actions[at.window[:, 0]]
    assert error(taken, done) < min(0.7 * error(fresh, done), error(taken, torch.zeros_like(done)))
    with torch.no_grad():  # where the arm goes is not known from video
        moved = taken.step(torch.randn(4, SMALL.features), torch.ones(4, SMALL.state_size), done[:4])[1]
    assert moved.equal(torch.ones(4, SMALL.state_size))


def test_no_steps_at_all_refine_what_was_there(tiny_dataset, tmp_path) -> None:
    train(tiny_dataset, tmp_path / "first", 3)
    schedule = Schedule(steps=0)
    settings = AdaptSettings(
        data=(str(tiny_dataset),), out=str(tmp_path / "second"), start=str(tmp_path / "first"), held_out=0.2,
        refine_minutes=0.01,
    )  # fmt: skip
    history = adapt(settings, schedule, SMALL, bf16=False)
    assert history[-1]["step"] == 0
    first, second = (load_networks(tmp_path / name)[0] for name in ("first", "second"))
    for name, value in first.encoder.state_dict().items():
        assert value.equal(second.encoder.state_dict()[name]), name
    for part in ("steps_to_goal", "readout"):
        before, after = (getattr(networks, part).enter.weight for networks in (first, second))
        assert not before.equal(after), part


def test_a_reader_of_its_own_changes_nothing_but_what_is_read(tiny_dataset, tmp_path, observation) -> None:
    train(tiny_dataset, tmp_path / "plain", 3)
    settings = AdaptSettings(
        data=(str(tiny_dataset),), out=str(tmp_path / "reading"), start=str(tmp_path / "plain"), held_out=0.2,
        reading_minutes=0.02,
    )  # fmt: skip
    adapt(settings, Schedule(steps=0), SMALL, bf16=False)
    plain, reading = (load_networks(tmp_path / name)[0] for name in ("plain", "reading"))
    for name, value in plain.state_dict().items():
        if name not in ("readout_trust", "doubt_scale"):
            assert value.equal(reading.state_dict()[name]), name
    pictures = {"observation.images.front": observation["observation.images.front"]}
    before, after = (load(tmp_path / name, "cpu").encode(pictures) for name in ("plain", "reading"))
    assert before[:, :24].equal(after[:, :24])
    assert not before[:, 24:-1].allclose(after[:, 24:-1])
    # The same command again finds it done; what goes on from it keeps the reader.
    adapt(settings, Schedule(steps=0), SMALL, bf16=False)
    again, card = load_networks(tmp_path / "reading")
    assert card["reading_minutes"] == 0.02
    assert again.reader.squeeze.weight.equal(reading.reader.squeeze.weight)
    onward = replace(settings, out=str(tmp_path / "onward"), start=str(tmp_path / "reading"), reading_minutes=0.0)
    adapt(onward, Schedule(steps=2), SMALL, bf16=False)
    kept, _ = load_networks(tmp_path / "onward")
    assert kept.reader.squeeze.weight.equal(reading.reader.squeeze.weight)


def test_a_reader_begins_as_encoder_and_readout_read() -> None:
    torch.manual_seed(0)
    networks = Networks(SMALL).eval()
    pictures = torch.randint(0, 255, (64, 1, 32, 32, 3), dtype=torch.uint8)
    networks.encoder.train()(pictures)  # statistics of its own
    networks.eval()
    as_features_tell = networks.read_state(pictures, networks.encoder(pictures))
    for width in (64, 24):  # there are 24 features: no narrower squeeze is exact
        networks.grow_reader(width).begin_as(networks)
        assert networks.read_state(pictures, networks.encoder(pictures)).allclose(as_features_tell, atol=1e-4)


def test_a_reader_s_beginning_must_fit(tiny_dataset, tmp_path) -> None:
    train(tiny_dataset, tmp_path / "plain", 3)
    settings = AdaptSettings(
        data=(str(tiny_dataset),), out=str(tmp_path / "out"), start=str(tmp_path / "plain"), held_out=0.2,
        reading_minutes=0.02, reader="tabletop",
    )  # fmt: skip
    with pytest.raises(ValueError, match="the reader's beginning tabletop has image_size=64, here it is 32"):
        adapt(settings, Schedule(steps=0), SMALL, bf16=False)


def test_other_settings_do_not_resume_a_run(tiny_dataset, tmp_path) -> None:
    train(tiny_dataset, tmp_path / "run", 2)
    with pytest.raises(ValueError, match="was trained with steps=2"):
        train(tiny_dataset, tmp_path / "run", 3)


def test_a_damaged_state_is_refused(tiny_dataset, tmp_path) -> None:
    train(tiny_dataset, tmp_path / "run", 2)
    state = tmp_path / "run/state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged"):
        train(tiny_dataset, tmp_path / "run", 2)


def test_spread_is_least_for_a_normal_cloud() -> None:
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(512, 16, generator=generator)
    collapsed = torch.ones(512, 1) * torch.randn(1, 16, generator=generator)
    on_a_line = torch.randn(512, 1, generator=generator).expand(-1, 16)

    def loss(features: torch.Tensor) -> float:
        return float(spread_loss(features, torch.Generator().manual_seed(1)))

    assert loss(normal) < 0.2 * loss(collapsed)
    assert loss(normal) < 0.5 * loss(on_a_line)


def test_contrast_knows_the_right_moment() -> None:
    candidates = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    right, wrong = torch.arange(5), torch.arange(5, 10)
    assert contrast_loss(candidates[:5], candidates, right) < 0.1 < contrast_loss(candidates[:5], candidates, wrong)


def test_every_number_of_the_state_is_read_as_eagerly_as_the_next() -> None:
    """Ten times worse in one number, none is heard less: halving any error is worth the same."""
    generator = torch.Generator().manual_seed(0)
    states = torch.zeros(64, 7)
    error = torch.randn(64, 7, generator=generator) * torch.tensor([0.1, 0.1, 0.1, 1.0, 1.0, 1.0, 10.0])
    worth = []
    for number in range(7):
        better = error.clone()
        better[:, number] /= 2
        worth.append(float(readout_loss(error, states) - readout_loss(better, states)))
    assert min(worth) > 0.9 * max(worth) > 0
    exact = torch.zeros(64, 7, requires_grad=True)
    readout_loss(exact, states).backward()
    assert exact.grad is not None
    assert torch.isfinite(exact.grad).all()
