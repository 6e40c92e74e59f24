"""Batches drawn ahead: while one is learnt from, a thread draws the next.

What is drawn is decided by the generator alone, so a run is the same whether or not batches wait ready. A generator's
state counts with the batches that were taken, not with those drawn ahead: a resumed run draws them again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields, replace

import torch
from torch import Tensor

from worldmodel.data import Windows


class Loader:
    """Draws batches and brings them to the device.

    Args:
        draw: (generator) -> a batch on the CPU.
        generator: decides what is drawn; with `ahead` nobody else may use it.
        ahead: draw the next batch in a thread while this one is learnt from.
        device: where batches go; on their way to CUDA they are pinned, so that copying does not hold up the GPU.

    Attributes:
        waited: seconds that training waited for batches so far.
    """

    def __init__(
        self,
        draw: Callable[[torch.Generator], Windows],
        generator: torch.Generator,
        *,
        ahead: bool,
        device: torch.device,
    ) -> None:
        self.draw, self.generator, self.device = draw, generator, device
        self.waited = 0.0
        self._threads = ThreadPoolExecutor(1, "loader") if ahead else None
        self._next: Future[tuple[Windows, Tensor]] | None = None
        self._state = generator.get_state()

    def take(self) -> Windows:
        """The next batch, on the device."""
        began = time.monotonic()
        if self._threads is None:
            batch = self.draw(self.generator)
        else:
            batch, self._state = (self._next or self._threads.submit(self._draw)).result()
            self._next = self._threads.submit(self._draw)
        batch = _each(batch, lambda value: value.to(self.device, non_blocking=True))
        self.waited += time.monotonic() - began
        return batch

    def _draw(self) -> tuple[Windows, Tensor]:
        """A batch and the generator's state after it."""
        batch = self.draw(self.generator)
        if self.device.type == "cuda":
            batch = _each(batch, Tensor.pin_memory)
        return batch, self.generator.get_state()

    def state(self) -> Tensor:
        """The generator's state after the batches that were taken."""
        return self.generator.get_state() if self._threads is None else self._state

    def go_on_from(self, state: Tensor) -> None:
        """Draw on as after the batches that led to a state; what was drawn ahead is forgotten."""
        if self._next is not None:
            self._next.result()
            self._next = None
        self.generator.set_state(state)
        self._state = state

    def close(self) -> None:
        """Draw no more."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)


def _each(batch: Windows, change: Callable[[Tensor], Tensor]) -> Windows:
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return replace(batch, **{name: change(value) for name, value in values.items() if value is not None})
