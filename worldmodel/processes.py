"""Several processes that learn as one: who this one is, and what all of them agree on.

`torchrun --nproc-per-node 2 -m premotor adapt ...`, or any launcher that sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR
and MASTER_PORT, as `accelerate launch` does. Every process draws its own windows, gradients are averaged by torch's
DistributedDataParallel or, where the weights are spread, by FSDP2 (NCCL between GPUs, gloo between CPUs), and the first
process alone evaluates, writes and prints. A process started by itself is a team of one: nothing is wrapped, nothing is sent.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.parallel import DistributedDataParallel

# How long a process waits for the others: the first may read a large dataset, or evaluate, meanwhile.
PATIENCE = timedelta(hours=6)
# Seeds of processes lie so far apart that those of neighbouring runs do not meet.
SEED_STEP = 1_000_003


class Team:
    """The processes of one training.

    Attributes:
        rank: which of them this is; the first is 0.
        size: how many there are.
        device: where this one computes.
        is_alone: whether this one does something that the others do not (see `alone`).
    """

    def __init__(self, device: torch.device, rank: int = 0, size: int = 1) -> None:
        self.device, self.rank, self.size = device, rank, size
        self.is_alone = False
        # What is agreed on is small and on the CPU, whatever the device.
        talk = dist.new_group(backend="gloo", timeout=PATIENCE) if size > 1 else None
        self._talk = talk if isinstance(talk, dist.ProcessGroup) else None

    @property
    def first(self) -> bool:
        """Whether this process evaluates, writes and prints."""
        return self.rank == 0

    def seed(self, seed: int) -> int:
        """This process's own seed; the first keeps the one that was said."""
        return seed + SEED_STEP * self.rank

    # -- learning together -----------------------------------------------------------------------------------------

    def share_norms(self, module: nn.Module) -> None:
        """Let the module's batch norms measure the rows of all processes (in place; names of weights stay)."""
        if self.size == 1:
            return
        for parent in list(module.modules()):
            for name, child in parent.named_children():
                if type(child) is nn.BatchNorm1d:
                    setattr(parent, name, SharedNorm(child, self))

    def wrap(self, module: nn.Module) -> nn.Module:
        """A module whose backward pass leaves in every process the gradient of the mean loss of all.

        Weights begin as the first process has them. Buffers need not be sent: `SharedNorm` keeps them alike.
        """
        if self.size == 1:
            return module
        # A static graph lets parts without a loss (a reader, which learns later) stay without a gradient.
        return DistributedDataParallel(module, broadcast_buffers=False, gradient_as_bucket_view=True, static_graph=True)

    # -- agreeing --------------------------------------------------------------------------------------------------

    def agree(self, stop: bool, seconds: float) -> tuple[bool, float]:
        """Whether any process was asked to stop, and the time by the first one's clock."""
        if self.size == 1:
            return stop, seconds
        said = torch.tensor([float(stop), seconds if self.first else 0.0], dtype=torch.float64)
        dist.all_reduce(said, dist.ReduceOp.MAX, group=self._talk)
        return bool(said[0]), float(said[1])

    def gather(self, value: Tensor) -> Tensor:
        """(...) of each process -> (size, ...) of all, on the CPU."""
        if self.size == 1:
            return value[None]
        values = [torch.empty_like(value) for _ in range(self.size)]
        dist.all_gather(values, value.contiguous(), group=self._talk)
        return torch.stack(values)

    def from_first(self, value: Any) -> Any:
        """What the first process holds; the others wait for it."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self._talk)
        return box[0]

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier(group=self._talk)

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first process does it before the others: what it leaves on disk, they find."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The first process does something by itself: batch norms do not ask the others."""
        self.is_alone = True
        try:
            yield
        finally:
            self.is_alone = False

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Say in a sentence that another process is gone."""
        try:
            yield
        except RuntimeError as error:
            if self.size > 1 and _is_of_the_connection(error):
                raise RuntimeError(
                    f"one of the {self.size} processes ended, so this one (number {self.rank}) does too; what was saved "
                    "last is kept, and the same command goes on from there"
                ) from None
            raise

    def leave(self) -> None:
        """All part; from here on each is by itself."""
        if self.size > 1:
            self.wait()
            dist.destroy_process_group()
            self.is_alone = True


def join(device: torch.device) -> Team:
    """The team this process was started in, on its own share of the devices."""
    size = _number("WORLD_SIZE", 1)
    if size == 1:
        return Team(device)
    rank, here = _number("RANK"), _number("LOCAL_RANK")
    if device.type == "cuda":
        if device.index is not None:
            raise ValueError(f"device={device} is one GPU for {size} processes; say device=cuda, each takes its own")
        if here >= (count := torch.cuda.device_count()):
            raise ValueError(f"there are {count} GPUs here and more processes; say --nproc-per-node {count}")
        device = torch.device("cuda", here)
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", timeout=PATIENCE, device_id=device)
    elif device.type == "cpu":
        dist.init_process_group("gloo", timeout=PATIENCE)
    else:
        raise ValueError(f"device={device.type} learns in one process only; start without torchrun, or say device=cpu")
    return Team(device, rank, size)


def speaks() -> bool:
    """Whether this process prints for all, also before they meet and after they have parted."""
    return _number("WORLD_SIZE", 1) == 1 or _number("RANK") == 0


def say(words: str) -> None:
    """Print, once for all processes."""
    if speaks():
        print(words)


def _number(name: str, otherwise: int | None = None) -> int:
    said = os.environ.get(name)
    if said is None and otherwise is not None:
        return otherwise
    if said is None or not said.isdecimal():
        raise ValueError(
            f"WORLD_SIZE is set but {name} is {said}; start with torchrun --nproc-per-node N -m premotor ..., "
            "or unset WORLD_SIZE"
        )
    return int(said)


def _is_of_the_connection(error: RuntimeError) -> bool:
    said = str(error).lower()
    return isinstance(error, dist.DistError) or any(word in said for word in ("gloo", "nccl", "closed by peer"))


class SharedNorm(nn.BatchNorm1d):
    """Batch norm (N, D) -> (N, D) whose statistics are those of all processes' rows; equal N everywhere.

    torch's SyncBatchNorm does this between GPUs only; here it is also what CPUs do. In evaluation, and while the first
    process is alone, it is the plain batch norm.
    """

    def __init__(self, norm: nn.BatchNorm1d, team: Team) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self.to(norm.get_buffer("running_mean")).load_state_dict(norm.state_dict())
        self.team = team

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.team.is_alone:
            return super().forward(input)
        # In two passes, as a difference of large squares is inexact. all_reduce knows its own gradient.
        mean = all_reduce(input.mean(0)) / self.team.size
        variance = all_reduce((input - mean).square().mean(0)) / self.team.size
        rows = len(input) * self.team.size
        with torch.no_grad():
            self.get_buffer("num_batches_tracked").add_(1)
            keep = self.momentum if self.momentum is not None else 1 / float(self.get_buffer("num_batches_tracked"))
            self.get_buffer("running_mean").lerp_(mean.detach(), keep)
            self.get_buffer("running_var").lerp_(variance.detach() * rows / max(1, rows - 1), keep)
        normal = (input - mean) * torch.rsqrt(variance + self.eps)
        return normal * self.weight + self.bias if self.affine else normal
