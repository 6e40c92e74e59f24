"""How long a whole plan takes, run in this way and that, beside the least that its arithmetic could take.

The least is what its matrix products alone would take if the device did them as fast as it does one large product. All
else a plan does, and all that keeps its products from being large, is what there is to win.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from planners.plan import Budget
from planners.planner import SamplingPlanner
from worldmodel.interface import WorldModel

# Attention as a CPU does it, which the registry of products does not know.
_ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu}
# A plan or two before anything is counted.
_WARM_UP = 2
# Side of the large product, and how often it is tried; the fastest time counts.
_SIDE = {"cuda": 8192, "cpu": 1024}
_TRIES = 10


@dataclass(frozen=True)
class Whole:
    """A plan's time.

    Attributes:
        planner, capture: which, and how it was run.
        environments: planned for at once.
        warm_up_s: what capturing cost, once.
        median_ms, p99_ms: of the plans.
        floor_ms: the least that its products could take.
    """

    planner: str
    capture: str
    environments: int
    warm_up_s: float
    median_ms: float
    p99_ms: float
    floor_ms: float

    @property
    def share(self) -> float:
        """How much of the time is arithmetic that nothing can save."""
        return self.floor_ms / self.median_ms


def whole(
    name: str,
    planner: SamplingPlanner,
    budget: Budget,
    rounds: int,
    model: WorldModel,
    starts: Tensor,
    goals: Tensor,
    fastest: Callable[[torch.dtype], float],
    wait: Callable[[], None],
) -> Whole:
    """Time a planner's whole plans, after those that do not count.

    Args:
        name: what it is called.
        planner: with its capture.
        budget, model: of a plan.
        rounds: how many plans are timed.
        starts, goals: (B, *L) both.
        fastest: products per second, twice the multiplications, that the device does of a type of number.
        wait: until the device has done what it was asked.
    """
    plain = replace(planner, capture="none")
    asked = products(lambda: plain.plan(model, starts, goals, budget))
    floor_s = sum(count / fastest(dtype) for dtype, count in asked.items())
    warm_up_s, times = 0.0, []
    for number in range(_WARM_UP + rounds):
        wait()
        began = time.perf_counter()
        plan = planner.plan(model, starts, goals, budget)
        wait()
        if number < _WARM_UP:
            warm_up_s += plan.warm_up_ms / 1000
        else:
            times.append(1000 * (time.perf_counter() - began))
    how = planner.capture if plan.captured else "none"
    return Whole(
        name, how, len(starts), warm_up_s, float(np.median(times)),
        float(np.percentile(times, 99)), 1000 * floor_s,
    )  # fmt: skip


class _Products(TorchDispatchMode):
    """Counts what products cost, twice their multiplications, by the type of their numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[torch.dtype] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.has_kernel_for_dispatch_key(torch.DispatchKey.CompositeImplicitAutograd):
            # Where nobody asks for slopes these arrive whole; what they are made of is counted.
            with self:
                taken_apart = func.decompose(*args, **kwargs)
            if taken_apart is not NotImplemented:
                return taken_apart
        answer = func(*args, **kwargs)
        first = next((one for one in args if isinstance(one, Tensor)), None)
        if first is not None and func._overloadpacket in _ATTENTION:
            query, key, value = args[:3]
            self.counts[first.dtype] += 2 * query.numel() * key.shape[-2]
            self.counts[first.dtype] += 2 * math.prod(query.shape[:-1]) * value.shape[-2] * value.shape[-1]
        elif first is not None and func._overloadpacket in flop_registry:
            count = flop_registry[func._overloadpacket](*args, **kwargs, out_val=answer)
            self.counts[first.dtype] += int(count)
        return answer


def products(action: Callable[[], object]) -> dict[torch.dtype, int]:
    """What the matrix products of an action cost, twice their multiplications, by the type of their numbers.

    >>> products(lambda: torch.zeros(2, 3) @ torch.zeros(3, 5))
    {torch.float32: 60}
    """
    with _Products() as seen:
        action()
    return dict(seen.counts)


def fastest_product(dtype: torch.dtype, device: torch.device) -> float:
    """Products per second, twice the multiplications, of one large product on a device: the fastest of some."""
    side = _SIDE.get(device.type, _SIDE["cpu"])
    factor = torch.ones(side, side, dtype=dtype, device=device)
    times = []
    for _ in range(_TRIES):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        began = time.perf_counter()
        torch.mm(factor, factor)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return 2.0 * side**3 / min(times)
