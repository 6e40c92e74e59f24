"""`premotor adapt`: from recorded episodes to a brain that plans.

Encoder, action-conditioned predictor and heads learn in one loop from windows of a LeRobotDataset. The encoder starts
from scratch or from a pretrained one (`encoder=DIR`), or looks with frozen eyes (`encoder=vjepa2:DIR_OR_HUB_ID`).
"""

from __future__ import annotations

import platform
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from worldmodel import beginnings, checkpoint, cost, findings, logs, measures, processes, vjepa2_eyes
from worldmodel.colours import recoloured_windows
from worldmodel.corpus import fit_to_data
from worldmodel.data import Episodes, Windows
from worldmodel.fetch import digest
from worldmodel.interface import TABLETOP, ActionSpace
from worldmodel.losses import LossWeights, adaptation_losses
from worldmodel.networks import (
    Architecture,
    Networks,
    architecture_to_dict,
    count_parameters,
)
from worldmodel.reading import learn_to_read
from worldmodel.refine import refine
from worldmodel.settings import AdaptSettings, settings_from_config, weights_from_config
from worldmodel.timed import Keeping
from worldmodel.trainer import Schedule, Trainer
from worldmodel.vjepa2_eyes import FrozenEyes

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Evaluations that a card repeats; all of them are in history.jsonl.
LAST_ROWS = 3


def settle(networks: Networks, episodes: Episodes, training: Tensor, steps: int, device: torch.device) -> None:
    """Measure the batch norm's statistics afresh, on windows of so many steps, for the weights as they are."""
    norm = networks.encoder.norm
    norm.reset_running_stats()
    kept, norm.momentum = norm.momentum, None
    generator = torch.Generator().manual_seed(1)
    networks.train()
    with torch.no_grad():
        for _ in range(10):
            windows = episodes.draw(training, 64, steps, 5, generator)
            found = None if windows.found is None else windows.found.flatten(0, 1).to(device)
            networks.encoder(windows.pictures.flatten(0, 1).to(device), found)
    norm.momentum = kept


def adapt(
    settings: AdaptSettings,
    schedule: Schedule,
    architecture: Architecture,
    action_space: ActionSpace = TABLETOP,
    *,
    device: torch.device | None = None,
    weights: LossWeights | None = None,
    command: str = "",
    resume: bool = True,
    bf16: bool = True,
) -> list[dict[str, float]]:
    """Train and write a checkpoint into `settings.out`; returns the history of evaluations.

    Started by torchrun, all its processes do so together (`worldmodel.processes`); the first one writes.
    """
    logs.check(settings.log)
    team = processes.join(device or torch.device("cpu"))
    device = team.device
    if settings.sharded and team.size == 1:
        raise ValueError(
            "sharded=true spreads the weights over several processes; start with torchrun --nproc-per-node N -m premotor ..."
        )
    weights = weights or LossWeights()
    out = Path(settings.out)
    if action_space.size != architecture.action_size:
        raise ValueError(
            f"the data has actions of {action_space.size} numbers, the model takes {architecture.action_size}; set "
            "architecture.action_size="
        )
    architecture = replace(
        architecture,
        guesses=settings.video_only,
        goal_state=architecture.goal_state and not settings.video_only,
        pace=architecture.pace and not settings.video_only,
    )
    eyes = beginnings.frozen_eyes(settings, architecture)
    if eyes is not None:
        architecture = replace(architecture, eyes=eyes.name)
    with team.in_turn():  # the first decodes the videos, the others find them decoded
        episodes = Episodes(
            settings.data, architecture.cameras, action_space,
            video_only=settings.video_only, state_size=architecture.state_size, image_size=architecture.image_size,
            stride=settings.stride, rate_hz=settings.rate_hz, episode_frames=settings.episode_frames,
            first=settings.episodes,
        )  # fmt: skip
    for remark in episodes.remarks:
        processes.say(remark[0].upper() + remark[1:] + ".")
    if episodes.states.shape[1] != architecture.state_size:
        raise ValueError(
            f"the data's observation.state has {episodes.states.shape[1]} numbers, the model takes "
            f"{architecture.state_size}; set architecture.state_size="
        )
    if settings.start is not None:
        architecture = beginnings.grown(architecture, settings.start)
    training, held_out = episodes.split(settings.held_out, settings.seed)
    measures.check_long_enough(episodes, training, held_out)
    torch.manual_seed(settings.seed)
    networks = Networks(architecture, eyes).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if settings.encoder is not None and not vjepa2_eyes.are_meant(settings.encoder):
        beginnings.start_from(networks, settings.encoder, episodes, training, device)
    if settings.start is None:
        _fit_statistics(networks, episodes, training)
    else:
        beginnings.go_on_from(networks, settings.start)

    stores = eyes is not None and _stores(settings)
    if eyes is not None:
        _say_how_they_look(eyes, architecture, stores)
        if stores:
            with team.in_turn():  # the first looks, the others find what it found
                findings.remember(episodes, eyes, device, bf16=bf16)
        if settings.start is None and (settings.encoder is None or vjepa2_eyes.are_meant(settings.encoder)):
            findings.get_used_to(networks.encoder, episodes, training, device, bf16=bf16)

    done = {"refined_minutes": 0.0, "reading_minutes": 0.0}  # of what is exported

    shown = None
    if settings.sharded and team.first:
        with torch.random.fork_rng(devices=[]):
            shown = Networks(architecture, eyes).to(device)
    compiled = settings.compile
    if compiled and (why := cost.can_compile(device)):
        processes.say(f"compile=true was said, but nothing compiles here ({why}); going on without.")
        compiled = False
    cost.spare(networks, compiled=compiled, checkpointing=settings.checkpointing)
    prefetch = device.type != "cpu" if settings.prefetch is None else settings.prefetch
    frames = settings.window_steps + 3  # a window's, its goal's and its twin's

    def draw(generator: torch.Generator) -> Windows:
        windows = episodes.draw(
            training, settings.windows_per_batch, settings.window_steps, settings.goal_reach, generator,
            twins_by_state=not settings.video_only,
        )  # fmt: skip
        windows = recoloured_windows(windows, generator, settings.colour_jitter, settings.hue_jitter)
        return blind(windows) if settings.video_only else windows

    def losses(module: nn.Module, windows: Windows, generator: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(module, Networks)
        return adaptation_losses(module, windows, generator, guess_actions=settings.video_only)

    def evaluate(module: nn.Module) -> dict[str, float]:
        assert isinstance(module, Networks)
        return measures.evaluate(module, episodes, training, held_out, device)

    def export(module: nn.Module, history: list[dict[str, float]]) -> None:
        assert isinstance(module, Networks)
        card = _card(settings, schedule, weights, episodes, history, module, command, device)
        card |= {
            "cost": cost.spent(history, settings.windows_per_batch * frames, team.size, device),
            "curves": {"all": "history.jsonl, curves.png", "last": history[-LAST_ROWS:]},
        }
        checkpoint.save(out, module, action_space, card | done)

    trainer = Trainer(
        networks,
        draw,
        losses,
        {name: float(value) for name, value in asdict(weights).items()},
        schedule,
        evaluate=evaluate,
        export=export,
        settle=lambda module: settle(module, episodes, training, settings.window_steps, device),  # type: ignore[arg-type]
        out=out,
        seed=settings.seed,
        bf16=bf16,
        team=team,
        prefetch=prefetch,
        slower={"encoder.": settings.encoder_rate},
        sharded=settings.sharded,
        shown=shown,
        log=lambda step: logs.start(settings.log, out, step, asdict(settings) | asdict(schedule)),
        recipe={
            "windows_per_batch": settings.windows_per_batch,
            "window_steps": settings.window_steps,
            "goal_reach": settings.goal_reach,
            "held_out": settings.held_out,
            "colour_jitter": settings.colour_jitter,
            **({"hue_jitter": settings.hue_jitter} if settings.hue_jitter else {}),
            **({"encoder_rate": settings.encoder_rate} if settings.encoder_rate != 1 else {}),
            "video_only": settings.video_only,
            "start": settings.start,
            "encoder": settings.encoder,
            "compile": compiled,
            "data": episodes.fingerprints,
            "architecture": architecture_to_dict(architecture),
            **({} if eyes is None else {"store_findings": stores}),
            **({} if action_space == TABLETOP else {"action_space": action_space.to_dict()}),
        },
    )
    out.mkdir(parents=True, exist_ok=True)
    need = (
        f"batch={settings.windows_per_batch} windows of {frames} pictures of {architecture.image_size} px on {device}"
    )
    with team.watched(), cost.memory_said(need, trainer.saved_step):
        if resume and trainer.resume():
            processes.say(f"Going on from step {trainer.step} of {out}.")
        history = trainer.run()
        team.leave()
    if not team.first:
        return history
    finished, card = checkpoint.load_networks(out)
    finished.to(device)

    def refinement(keeping: Keeping) -> None:
        refine(
            finished, episodes, training, minutes=settings.refine_minutes, seed=settings.seed, device=device,
            bf16=bf16, readout=settings.reading_minutes == 0.0 and finished.reader is None,
            colour_jitter=settings.colour_jitter, hue_jitter=settings.hue_jitter,
            proposing_share=settings.proposing_share, learning_rate=settings.refine_rate, keeping=keeping,
        )  # fmt: skip

    def reading(keeping: Keeping) -> None:
        begin = beginnings.reads_first(settings.reader, finished)
        learn_to_read(
            finished, begin, episodes, training,
            minutes=settings.reading_minutes, seed=settings.seed, device=device, bf16=bf16, keeping=keeping,
        )  # fmt: skip

    common = {"data": episodes.fingerprints, "seed": settings.seed, "bf16": bf16}
    stages = (
        (
            "refine_minutes",
            "refined_minutes",
            refinement,
            ("proposing_share", "refine_rate", "colour_jitter", "hue_jitter"),
        ),
        ("reading_minutes", "reading_minutes", reading, ("reader",)),
    )
    for setting, noted, stage, depends_on in stages:
        before, minutes = float(card.get(noted, 0.0)), getattr(settings, setting)
        if before not in (0.0, minutes):
            raise ValueError(f"{out} had {setting}={before:g} already; say so again or choose another out=")
        done[noted] = before
        recipe = {"weights": digest(out / checkpoint.WEIGHTS), **common}
        recipe |= {name: getattr(settings, name) for name in ("refine_minutes", "reading_minutes", *depends_on)}
        keeping = Keeping(out / stage.__name__, recipe)
        if not resume:
            keeping.end()
        if minutes > before:
            keeping.begin()
            stage(keeping)
            finished.eval()
            with torch.no_grad():
                history[-1] |= measures.evaluate(finished, episodes, training, held_out, device)
            done[noted] = minutes
            export(finished, history)
        keeping.end()
    measures.draw_curves(history, out / "curves.png")
    return history


def _stores(settings: AdaptSettings) -> bool:
    """Whether what frozen eyes find is kept: not while colours change from batch to batch."""
    if settings.store_findings is not None:
        return settings.store_findings
    return settings.colour_jitter <= 0 and settings.hue_jitter <= 0


def _say_how_they_look(eyes: FrozenEyes, architecture: Architecture, stores: bool) -> None:
    size = architecture.image_size
    if size < eyes.size.crop:
        processes.say(
            f"The frozen eyes look at {eyes.size.crop} px, the data's pictures come at {size} px; "
            f"architecture.image_size={eyes.size.crop} shows them more, where more was recorded."
        )
    if not stores:
        processes.say("The frozen eyes look in every step; without colour_jitter and hue_jitter they would look once.")


def blind(windows: Windows) -> Windows:
    """The same windows with nothing but their pictures: actions and states are zero."""
    return replace(
        windows,
        states=torch.zeros_like(windows.states),
        actions=torch.zeros_like(windows.actions),
        later_actions=torch.zeros_like(windows.later_actions),
        goal_states=torch.zeros_like(windows.goal_states),
        twin_states=torch.zeros_like(windows.twin_states),
    )


def _fit_statistics(networks: Networks, episodes: Episodes, training: Tensor) -> None:
    """Mean and spread of the state over the training episodes; a number that hardly moves is not blown up."""
    states = episodes.states[episodes.frames_of(training)]
    networks.get_buffer("state_mean").copy_(states.mean(0))
    networks.get_buffer("state_std").copy_(states.std(0).clamp(min=0.02))


def _card(
    settings: AdaptSettings,
    schedule: Schedule,
    weights: LossWeights,
    episodes: Episodes,
    history: list[dict[str, float]],
    networks: Networks,
    command: str,
    device: torch.device,
) -> dict[str, Any]:
    return {
        "name": settings.name,
        "licence": "Apache-2.0",
        "parameters": count_parameters(networks),
        "training": {
            "command": command,
            "settings": asdict(settings),
            "schedule": asdict(schedule),
            "loss_weights": asdict(weights),
            "device": str(device),
            "torch": torch.__version__,
            "python": platform.python_version(),
            **({} if settings.start is None else {"before": _training_of(settings.start)}),
        },
        "data": [
            {"fingerprint": fingerprint, "recipe": recipe}
            for fingerprint, recipe in zip(episodes.fingerprints, episodes.recipes, strict=True)
        ],
        "remarks": episodes.remarks,
        **({} if episodes.conventions is None else {"conventions": episodes.conventions.to_dict()}),
        "measured": history[-1] if history else {},
    }


def _training_of(start: str) -> dict[str, Any]:
    """How the checkpoint one goes on from was trained, and on what."""
    card = checkpoint.read_card(checkpoint.locate(start))
    return {**card["training"], "data": card["data"], "refined_minutes": card.get("refined_minutes", 0.0)}


def main(cfg: DictConfig) -> int:
    """`premotor adapt`."""
    import sys

    settings, schedule, sizes = settings_from_config(
        cfg, encoder=None if cfg.encoder is None else str(cfg.encoder), refine_minutes=float(cfg.refine_minutes),
        reading_minutes=float(cfg.reading_minutes), reader=None if cfg.reader is None else str(cfg.reader),
        start=None if cfg.start is None else str(cfg.start), stride=int(cfg.stride),
        store_findings=None if cfg.store_findings is None else bool(cfg.store_findings),
        encoder_rate=float(cfg.encoder_rate), proposing_share=float(cfg.proposing_share),
        refine_rate=float(cfg.refine_rate),
        episodes=None if cfg.episodes is None else int(cfg.episodes),
    )  # fmt: skip
    architecture, action_space = fit_to_data(
        sizes, settings.data, action_space=str(cfg.action_space), stride=settings.stride, start=settings.start
    )
    history = adapt(
        settings,
        schedule,
        architecture,
        action_space,
        weights=weights_from_config(cfg),
        device=checkpoint.resolve_device(str(cfg.device)),
        command="premotor " + " ".join(sys.argv[1:]),
        resume=bool(cfg.resume),
        bf16=bool(cfg.bf16),
    )
    last = history[-1]
    processes.say(f"{settings.out}: {int(last['step'])} steps in {last['minutes']:.1f} minutes; curves in curves.png.")
    return 0
