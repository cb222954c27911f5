"""Lightning's Fabric, set up for a precision, a device and the processes of a training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.fabric.strategies import DDPStrategy, ModelParallelStrategy, Strategy

from foveate.training.distributed import Distributed
from foveate.training.sharding import shard

__all__ = ["make_fabric"]


def make_fabric(
    precision: str, device: torch.device, distributed: Distributed, callbacks: Sequence[Any] = ()
) -> Fabric:
    """Return what computes in ``precision`` on ``device``, launched."""
    plugins: list[Any] = [] if precision == "32-true" else [_Autocast(precision, device.type)]  # type: ignore[arg-type]
    if distributed.size == 1:
        plugins.append(LightningEnvironment())  # else it would look for a cluster, and refuse many a SLURM job
    fabric = Fabric(
        accelerator="gpu" if device.type == "cuda" else device.type,
        devices=distributed.local_size,
        num_nodes=distributed.size // distributed.local_size,
        strategy=_strategy(distributed),
        callbacks=list(callbacks),
        plugins=plugins,
    )
    fabric.launch()
    return fabric


def _strategy(distributed: Distributed) -> Strategy | str:
    if distributed.sharded:
        return ModelParallelStrategy(shard, data_parallel_size=distributed.size, tensor_parallel_size=1)
    if distributed.size == 1:
        return "auto"
    # To find unused parameters keeps the buckets as they are after the first step; if they were built anew, sums over
    # more than two processes would be rounded otherwise in a run that was resumed.
    return DDPStrategy(broadcast_buffers=False, find_unused_parameters=True)


class _Autocast(MixedPrecision):
    """Leaves images and targets their 32 bits until an operation takes fewer; Fabric's own rounds them all."""

    def convert_input(self, data: Any) -> Any:
        return data
