"""Networks of which each process holds a part (FSDP), and what is whole again in a checkpoint."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from foveate.training.module import TrainingModule
from foveate.training.recipe import Recipe

__all__ = ["check_sharding", "gathered", "load_optimizer", "load_weights", "shard"]


def check_sharding(recipe: Recipe) -> None:
    """Raise a `ValueError` that names what in ``recipe`` does not go with a network in parts, if there is something."""
    hindrances = {
        "equivariance": recipe.equivariance > 0,  # uses gates outside of the network's forward
        "compile": recipe.compile,
        "channels_last": recipe.channels_last,
        "precision=16-mixed": recipe.precision == "16-mixed",
    }
    if found := [name for name, there in hindrances.items() if there]:
        raise ValueError(f"strategy=fsdp does not go with {' and '.join(found)}; use strategy=ddp")


def shard(module: TrainingModule, mesh: DeviceMesh) -> TrainingModule:
    """Divide the network and its average among the processes of ``mesh``, block by block, and return ``module``.

    While the network runs, one block at a time is gathered; a block is what stands in an `nn.Sequential`.
    """
    for network in [module.model] if module.ema is None else [module.model, module.ema.module]:
        blocks = [block for stage in network.children() if isinstance(stage, nn.Sequential) for block in stage]
        for block in blocks:
            if any(True for _ in block.parameters()):
                fully_shard(block, mesh=mesh["data_parallel"])
        fully_shard(network, mesh=mesh["data_parallel"])
    if module.ema is not None:
        module.ema.foreach = False  # takes no tensors of two kinds, and buffers are whole
    return module


def gathered(state: Any) -> Any:
    """Return a state with every tensor whole; all processes have to call it."""
    if isinstance(state, DTensor):
        return state.full_tensor()
    if isinstance(state, dict):
        return {name: gathered(value) for name, value in state.items()}
    return [gathered(value) for value in state] if isinstance(state, list) else state


def load_weights(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Load a state that is whole into a module that may be in parts."""
    now = module.state_dict()
    module.load_state_dict({name: _parted(value, now[name]) if name in now else value for name, value in state.items()})


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load a state that is whole into an optimizer whose parameters may be in parts."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    parts = {
        number: {name: _parted(value, parameters[number]) for name, value in values.items()}
        for number, values in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": parts})


def _parted(value: Any, like: Tensor) -> Any:
    """Return this process's part of ``value``, if it is a tensor of the shape of ``like`` and that is in parts."""
    if not (isinstance(like, DTensor) and isinstance(value, Tensor) and value.shape == like.shape):
        return value
    # Every process has the whole, so that none has to send anything.
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
