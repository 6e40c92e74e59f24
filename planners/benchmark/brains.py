"""Any brain by the words a config uses: a shipped or trained one, or the true simulator."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import worldmodel
from worldmodel.interface import ActionSpace, WorldModel
from worldmodel.turned import Turned

SIMULATORS = ("simulator", "simulator_latent")


def make_model(config: Mapping[str, Any], task: str, threads: int = 1, space: ActionSpace | None = None) -> WorldModel:
    """A brain from {name: word, device: ..., precision: ..., turn_deg: ..., judge: ...}.

    Args:
        config: `name` is a shipped model, a path, `hf:owner/name`, `simulator` (true dynamics, true distance) or
            `simulator_latent` (true dynamics, seen and judged by the brain called `judge`). `turn_deg` turns
            a brain to a camera that was moved (`worldmodel.turned`).
        task: whose distance the simulator measures.
        threads: of the simulator.
        space: what an action means here; the tabletop's where nothing is said. A brain made for others is refused.
    """
    name, device = str(config["name"]), str(config.get("device") or "auto")
    space = space or ActionSpace.tabletop()
    if name not in SIMULATORS:
        model = worldmodel.load(name, device, space, precision=str(config.get("precision") or "auto"))
        turn = math.radians(float(config.get("turn_deg") or 0.0))
        return Turned(model, turn) if turn else model
    if name == "simulator":
        from envs.simulator_model import SimulatorModel

        return SimulatorModel(task, space, threads=threads)
    from envs.judged_simulator import JudgedSimulator

    # Beside a simulator, whose latents live there.
    judge = worldmodel.load(str(config.get("judge") or "tabletop"), "cpu", space)
    size = getattr(getattr(judge, "architecture", None), "image_size", 64)
    return JudgedSimulator(task, space, judge, threads=threads, image_size=size)


def weights_digest(config: Mapping[str, Any]) -> str:
    """A name for exactly these weights: results of one checkpoint must not be taken for another's."""
    name = str(config["name"])
    if name == "simulator":
        return ""
    from worldmodel.checkpoint import is_place, locate

    if is_place(name):
        return name
    folder = locate(str(config.get("judge") or "tabletop") if name == "simulator_latent" else name)
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
