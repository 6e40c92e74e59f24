"""What decides a run of `premotor pretrain` or `premotor adapt`, apart from data and sizes: said once, checked at the door."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from worldmodel.losses import LossWeights
from worldmodel.refine import LEARNING_RATE as REFINE_RATE
from worldmodel.refine import PROPOSING_SHARE
from worldmodel.trainer import Schedule

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True)
class AdaptSettings:
    """What decides a run, apart from its schedule.

    A batch is that of one process; `prefetch` unsaid is where the device is not the CPU. `store_findings` is about frozen
    eyes: unsaid, what they find is kept beside the data unless colours are shaken.
    """

    data: tuple[str, ...]
    out: str
    seed: int = 0
    windows_per_batch: int = 64
    window_steps: int = 5
    goal_reach: int = 28
    held_out: float = 0.03
    colour_jitter: float = 0.0
    hue_jitter: float = 0.0
    encoder: str | None = None
    start: str | None = None
    name: str = "native"
    video_only: bool = False
    refine_minutes: float = 0.0
    proposing_share: float = PROPOSING_SHARE
    refine_rate: float = REFINE_RATE
    reading_minutes: float = 0.0
    reader: str | None = None
    compile: bool = False
    checkpointing: bool = False
    store_findings: bool | None = None
    prefetch: bool | None = None
    log: str | None = None
    stride: int = 1
    rate_hz: float | None = None
    episode_frames: int = 64
    episodes: int | None = None
    encoder_rate: float = 1.0
    sharded: bool = False

    def __post_init__(self) -> None:
        for name, least in (("windows_per_batch", 2), ("window_steps", 1), ("goal_reach", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        for name in ("refine_minutes", "reading_minutes"):
            if not (getattr(self, name) >= 0 and math.isfinite(getattr(self, name))):
                raise ValueError(f"{name} is {getattr(self, name)}; it is a time, 0 or more")
        if self.store_findings and (self.colour_jitter > 0 or self.hue_jitter > 0):
            raise ValueError("store_findings=true keeps what is found in the pictures as they are; say colour_jitter=0")
        if self.sharded and self.compile:
            raise ValueError("sharded=true and compile=true do not go together; leave one of them out")
        if not 0 <= self.proposing_share <= 1:
            raise ValueError(f"proposing_share is {self.proposing_share}; it is a share of refinement's time, 0 to 1")
        if not (self.refine_rate > 0 and math.isfinite(self.refine_rate)):
            raise ValueError(f"refine_rate is {self.refine_rate}; it is a learning rate, above 0")
        if not 0 < self.encoder_rate <= 1:
            raise ValueError(
                f"encoder_rate is {self.encoder_rate}; it is a share of the learning rate, above 0 and at most 1 (an "
                "encoder that stays as it is: steps=0 refine_minutes=)"
            )


def settings_from_config(cfg: DictConfig, **extra: Any) -> tuple[AdaptSettings, Schedule, dict[str, Any]]:
    """What `premotor pretrain` and `premotor adapt` share of their configuration; the sizes as they are said."""
    from omegaconf import OmegaConf

    data = OmegaConf.to_container(cfg.data, resolve=True) if OmegaConf.is_config(cfg.data) else cfg.data
    roots = tuple(str(d) for d in data) if isinstance(data, list) else (str(data),)
    sizes = OmegaConf.to_container(cfg.architecture, resolve=True)
    assert isinstance(sizes, dict)
    if cfg.threads:
        torch.set_num_threads(int(cfg.threads))
    settings = AdaptSettings(
        data=roots,
        out=str(cfg.out),
        seed=int(cfg.seed),
        windows_per_batch=int(cfg.batch),
        window_steps=int(cfg.window_steps),
        name=str(cfg.name),
        colour_jitter=float(cfg.colour_jitter),
        hue_jitter=float(cfg.hue_jitter),
        compile=bool(cfg.compile),
        sharded=bool(cfg.sharded),
        checkpointing=bool(cfg.checkpointing),
        prefetch=None if cfg.prefetch is None else bool(cfg.prefetch),
        log=None if cfg.log is None else str(cfg.log),
        **extra,
    )
    schedule = Schedule(
        steps=int(cfg.steps),
        minutes=None if cfg.minutes is None else float(cfg.minutes),
        learning_rate=float(cfg.learning_rate),
        evaluate_every=int(cfg.evaluate_every),
        save_every=int(cfg.evaluate_every),
        shape=str(cfg.schedule),
    )
    return settings, schedule, {str(key): value for key, value in sizes.items()}


def weights_from_config(cfg: DictConfig) -> LossWeights:
    """How much each term counts, as `weights.TERM=` say."""
    return LossWeights(**{str(name): float(value) for name, value in cfg.weights.items()})
