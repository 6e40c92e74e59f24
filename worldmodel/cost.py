"""What training costs, in memory and time: how to spend less, what to lower when memory is short, what was spent."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from worldmodel.networks import Networks


def spare(networks: Networks, *, compiled: bool, checkpointing: bool) -> None:
    """Make a step of training cheaper; evaluation stays as it was.

    Args:
        networks: whose eyes (and, compiled, predictor and heads) are changed in place; names of weights stay. Frozen
            eyes stay as they are: they have no backward pass, and mostly look but once.
        compiled: by torch.compile; numbers change in their last digits.
        checkpointing: forget what the eyes' convolutions found and compute it again for the backward pass: memory for
            time, and the same numbers.
    """
    eager = networks.encoder.look
    look: Callable[[Tensor], Tensor] = eager
    if compiled:
        look = torch.compile(eager)
        for part in (networks.predictor, networks.steps_to_goal, networks.proposal):
            # Evaluation comes with other shapes: it is not worth compiling for.
            part.forward = _while_training(torch.compile(part.forward), part.forward)  # type: ignore[method-assign]
    if checkpointing:
        look = partial(checkpoint, look, use_reentrant=False, preserve_rng_state=False)  # type: ignore[assignment]
    if (compiled or checkpointing) and not networks.architecture.eyes:
        networks.encoder.look = _while_training(look, eager)  # type: ignore[method-assign]


def _while_training(learning: Callable[..., Tensor], otherwise: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def either(*inputs: Tensor) -> Tensor:
        return (learning if torch.is_grad_enabled() else otherwise)(*inputs)

    return either


def can_compile(device: torch.device) -> str | None:
    """Why torch.compile does not work here, or None if it does; a small function is really compiled."""
    try:
        torch.compile(lambda x: torch.relu(x * 2 + 1).sum())(torch.ones(64, device=device))
    except Exception as error:  # whatever a compiler, or the search for one, comes to grief over
        return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return None


@contextmanager
def memory_said(settings: str, saved: Callable[[], int | None]) -> Iterator[None]:
    """Where memory is short, say what to lower: in one sentence, with what now stands.

    Args:
        settings: what decides the need, as one would type it.
        saved: the step of the last save, if there is one.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_of_memory(error):
            raise
        kept = saved()
        after = "nothing was saved yet" if kept is None else f"what was saved at step {kept} is kept"
        raise RuntimeError(
            f"memory ran out with {settings}; say checkpointing=true (the same run goes on), or lower batch=, "
            f"window_steps= or architecture.image_size= (data of that size) in another out=; {after}"
        ) from None


def _is_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    said = str(error)  # torch's CPU allocator has no exception of its own
    return "DefaultCPUAllocator" in said or "can't allocate memory" in said


def spent(
    history: list[dict[str, float]], frames_per_batch: int, processes: int, device: torch.device
) -> dict[str, Any]:
    """What a run cost, for its card.

    Args:
        history: of evaluations.
        frames_per_batch: pictures that each process encodes in a step.
        processes: how many.
        device: of the first.
    """
    last: Mapping[str, float] = history[-1] if history else {}
    steps, minutes = int(last.get("step", 0)), float(last.get("minutes", 0.0))
    frames = steps * frames_per_batch * processes
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "minutes": round(minutes, 3),
        "steps": steps,
        "processes": processes,
        "device": f"{device.type} ({name}), {torch.get_num_threads()} threads",
        "frames": frames,
        "frames_per_second": round(frames / (60 * minutes), 1) if minutes else 0.0,
        "loader_share": round(float(last.get("loader_share", 0.0)), 4),
    }
