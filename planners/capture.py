"""A piece of a search as one thing: traced once, then compiled, or recorded as a CUDA graph and replayed.

An accelerator does a small operation in a few microseconds, and Python needs longer than that to ask for it: a search of
a small brain then waits for Python most of the time. What is captured is asked for at once. That holds for one set of
shapes, and costs a warm-up each time the shapes are new; a captured piece must therefore be a pure function of tensors
that never looks at what they hold. Whatever else it uses, a brain's weights say, is used where it lies: weights that are
changed in place are heard, weights that are replaced are not.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

# none: operation by operation; compile: fused by a compiler, on any device; graph: recorded by CUDA; both.
CAPTURES = ("none", "compile", "graph", "both")
# Runs before CUDA records: libraries fetch their memory and choose their kernels.
_RUNS_BEFORE = 3

Flat = Callable[..., list[Tensor]]


class Shape(NamedTuple):
    """How a tree of tensors was laid flat: its form, and which of its leaves are None."""

    form: pytree.TreeSpec
    empty: tuple[bool, ...]


def lay_flat(tree: Any) -> tuple[list[Tensor], Shape]:
    """The tensors of a tree, and what is needed to put it together again.

    Each is laid out plainly in memory: how it lay there would be a part of what is captured.
    """
    leaves, form = pytree.tree_flatten(tree)
    tensors = [leaf for leaf in leaves if leaf is not None]
    foreign = next((leaf for leaf in tensors if not isinstance(leaf, Tensor)), None)
    if foreign is not None:
        raise TypeError(f"only trees of tensors can be captured; here is a {type(foreign).__name__}")
    return [one.contiguous() for one in tensors], Shape(form, tuple(leaf is None for leaf in leaves))


def put_together(tensors: Sequence[Tensor], shape: Shape) -> Any:
    """The tree again."""
    left = iter(tensors)
    return pytree.tree_unflatten([None if empty else next(left) for empty in shape.empty], shape.form)


class Captures:
    """What has been captured, each for the shapes that it was captured for; of those used longest ago some are forgotten.

    Args:
        most: how many are kept at least; a search that needs more makes room for them.
    """

    def __init__(self, most: int = 16) -> None:
        self._most = most
        # With each, the function it was made of: as long as that is there, nothing that it uses can pass on its name.
        self._kept: OrderedDict[Hashable, tuple[Callable[..., Any], Callable[..., Any]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def make_room(self, most: int) -> None:
        """Keep so many at least: with fewer than one search asks for, each would be forgotten before it is asked for again."""
        self._most = max(self._most, most)

    def call(
        self,
        how: str,
        what: Hashable,
        function: Callable[..., Any],
        inputs: tuple[Any, ...],
        clock: Callable[[], float] = time.perf_counter,
    ) -> tuple[Any, float]:
        """The function's answer, and the seconds that capturing it took: 0 where that was done before.

        Args:
            how: one of `CAPTURES`.
            what: names the function and all that it uses beside its inputs; it must be the same for the same name.
            function: trees of tensors -> a tree of tensors; pure.
            inputs: the trees.
            clock: seconds.
        """
        flat, shape = lay_flat(inputs)
        key = (how, what, shape, *((tuple(one.shape), one.dtype, one.device) for one in flat))
        took = 0.0
        if key not in self._kept:
            began = clock()
            self._kept[key] = capture(how, function, inputs), function
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
            took = clock() - began
        self._kept.move_to_end(key)
        return self._kept[key][0](*inputs), took


def capture(how: str, function: Callable[..., Any], inputs: tuple[Any, ...]) -> Callable[..., Any]:
    """A function of trees of tensors, captured for inputs of these shapes; it has run when this returns.

    Raises:
        ValueError: it cannot be traced, because it looks at values, or leaves torch; or the device has no CUDA graphs.
    """
    check_capture(how)
    if how == "none":
        return function
    flat, expected = lay_flat(inputs)
    device = flat[0].device
    if how in ("graph", "both") and device.type != "cuda":
        raise ValueError(f"capture={how} records a CUDA graph, and this is on {device}; say capture=compile or none")
    traced, answer = trace(function, inputs)
    run: Flat = _compiled(traced, flat) if how in ("compile", "both") else traced
    if how in ("graph", "both"):
        run = _recorded(run, flat)

    def replay(*trees: Any) -> Any:
        given, shape = lay_flat(trees)
        if shape != expected:
            raise ValueError("what was captured takes other inputs")
        return put_together(run(*given), answer)

    return replay


def check_capture(how: str) -> None:
    """Refuse a word that means nothing."""
    if how not in CAPTURES:
        raise ValueError(f"capture is {how!r}; it is {', '.join(CAPTURES[:-1])} or {CAPTURES[-1]}")


def trace(function: Callable[..., Any], inputs: tuple[Any, ...]) -> tuple[Flat, Shape]:
    """The operations of a function of trees, on flat lists of tensors; and the shape of the tree that it answers.

    It is traced on tensors that hold nothing: to look into one is an error, wherever it happens.
    """
    flat, expected = lay_flat(inputs)
    answers: list[Shape] = []

    def on_lists(*given: Tensor) -> list[Tensor]:
        answer, shape = lay_flat(function(*put_together(given, expected)))
        answers.append(shape)
        return answer

    try:
        traced = make_fx(on_lists, tracing_mode="fake", _allow_non_fake_inputs=True)(*flat)
    except ValueError:
        raise  # a sentence of ours, or a brain's, about something else
    except Exception as error:  # what a brain does that is no tensor operation may raise anything
        raise ValueError(
            "this search cannot be captured, because something in it looks at values or leaves torch "
            f"({type(error).__name__}: {_first_line(error)}); say capture=none"
        ) from error
    return traced, answers[-1]


def _compiled(traced: Flat, flat: list[Tensor]) -> Flat:
    """Fused by a compiler; it has run once."""
    fused = torch.compile(traced, fullgraph=True, dynamic=False)
    try:
        fused(*flat)
    except Exception as error:  # a compiler that is not there, or of the wrong kind, says so in many ways
        raise ValueError(
            f"capture=compile failed ({type(error).__name__}: {_first_line(error)}); it needs a C++ compiler, on a GPU "
            "Triton as well; or say capture=none"
        ) from error
    return fused


def _recorded(run: Flat, flat: list[Tensor]) -> Flat:
    """Recorded by CUDA; it has run."""
    try:
        return _Recorded(run, flat)
    except Exception as error:  # CUDA refuses to record many things, and may have no memory left
        raise ValueError(
            f"capture=graph failed ({type(error).__name__}: {_first_line(error)}); say capture=compile or none"
        ) from error


class _Recorded:
    """Recorded by CUDA: inputs are copied to where they lay then, everything is asked for at once, answers copied out.

    Args:
        run: tensors -> tensors, on one CUDA device.
        flat: tensors of the shapes that it will be called with.
    """

    def __init__(self, run: Flat, flat: list[Tensor]) -> None:
        device = flat[0].device
        self._run = run  # what it was traced with lies there, and is read at every replay
        self._inputs = [one.clone() for one in flat]
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(device):
            beside = torch.cuda.Stream(device)
            beside.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(beside):
                for _ in range(_RUNS_BEFORE):
                    run(*self._inputs)
            torch.cuda.current_stream(device).wait_stream(beside)
            with torch.cuda.graph(self._graph, stream=beside):
                self._answers = run(*self._inputs)

    def __call__(self, *given: Tensor) -> list[Tensor]:
        for own, one in zip(self._inputs, given, strict=True):
            own.copy_(one)
        self._graph.replay()
        return [one.clone() for one in self._answers]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no more is said"])[0]
