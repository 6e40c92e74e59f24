"""`premotor pretrain`: an encoder from video alone.

The same loop and losses as adaptation, on windows whose actions and states are blanked: predict the next features,
do not collapse, tell moments of one episode apart, judge how many frames lie between two of them. What comes out is a
checkpoint that `premotor adapt encoder=DIR` starts from.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from worldmodel import checkpoint, processes
from worldmodel.adapt import adapt
from worldmodel.corpus import sizes_for_video
from worldmodel.settings import settings_from_config, weights_from_config

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Terms that need an action or a state have nothing to learn from here.
BLIND = {"state": 0.0, "readout": 0.0, "inverse": 0.0, "proposal": 0.0}


def main(cfg: DictConfig) -> int:
    """`premotor pretrain`."""
    import sys

    settings, schedule, sizes = settings_from_config(
        cfg, video_only=True, rate_hz=float(cfg.rate_hz), episode_frames=int(cfg.episode_frames)
    )
    history = adapt(
        settings,
        schedule,
        sizes_for_video(sizes, settings.data),
        weights=replace(weights_from_config(cfg), **BLIND),
        device=checkpoint.resolve_device(str(cfg.device)),
        command="premotor " + " ".join(sys.argv[1:]),
        resume=bool(cfg.resume),
        bf16=bool(cfg.bf16),
    )
    last = history[-1]
    processes.say(f"{settings.out}: {int(last['step'])} steps in {last['minutes']:.1f} minutes, actions never read.")
    processes.say(f"Next: premotor adapt encoder={settings.out} data=...")
    return 0
