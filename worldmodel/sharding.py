"""Weights spread over the processes (FSDP2): each holds a share of every matrix, of its gradient and of its moments.

For predictors that one device has no room to train: what learning needs besides the weights in use (gradients, two
moments, averages) is held once in all instead of once in every process. What is saved and exported is whole, as if nothing
had been spread.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from worldmodel.networks import ResidualMLP


def spread(learner: nn.Module, module: nn.Module, device: torch.device) -> None:
    """Spread a module's weights over all processes, in place; they begin as the first process has them.

    Args:
        learner: whose forward pass uses the module.
        module: predictor and heads are gathered each when it is used, the rest at the beginning of a pass. A predictor is
            used several times in one, so what was gathered stays until the way back.
        device: this process's.
    """
    module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # other layouts cannot be cut up
    for value in module.state_dict().values():
        dist.broadcast(value, src=0)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for part in module.children():
        if isinstance(part, ResidualMLP):
            fully_shard(part, mesh=mesh, reshard_after_forward=False)
    fully_shard(learner, mesh=mesh)


def whole(tree: Any, *, keep: bool = True) -> Any:
    """The same with every spread tensor gathered, on the CPU; all processes have to come, who does not `keep` gets None."""
    if isinstance(tree, DTensor):
        gathered = tree.full_tensor()
        return gathered.cpu() if keep else None
    if isinstance(tree, dict):
        return {name: whole(value, keep=keep) for name, value in tree.items()}
    if isinstance(tree, list):
        return [whole(value, keep=keep) for value in tree]
    return tree


def shared(values: dict[str, Tensor], like: dict[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors spread as their namesakes are."""
    return {name: _spread_as(value, like[name]) for name, value in values.items()}


def shared_moments(saved: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's whole state, spread as its parameters are."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {
        index: {name: _spread_as(value, parameters[index]) for name, value in entries.items()}
        for index, entries in saved["state"].items()
    }
    return {**saved, "state": state}


def _spread_as(value: Tensor, like: Tensor) -> Tensor:
    """Numbers that belong to a tensor as a whole, such as how many steps it took, stay whole."""
    if isinstance(like, DTensor) and value.shape == like.shape:
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value
