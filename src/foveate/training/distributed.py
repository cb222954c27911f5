"""Distributed training: the processes that train one network together, as torchrun starts them."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ReduceOp

from foveate import _checks

__all__ = ["SINGLE_PROCESS", "Distributed", "Strategy", "check_single_process", "process_group"]

Strategy = Literal["auto", "ddp", "fsdp"]

TIMEOUT = timedelta(minutes=10)
"""After which a process that waits for another one gives up; one that has ended is noticed at once."""
PATIENCE = timedelta(days=1)
"""The same where the other one may download files."""


@dataclass(frozen=True)
class Distributed:
    """The processes that train one network together, seen from one of them; there may be this one only.

    Methods that communicate are collective: every process has to call them, at the same point of the training.

    Attributes:
        rank: Number of this process, from 0. Process 0 is the main process: it alone writes and prints.
        size: Number of processes.
        local_rank: Number of this process among those on its machine.
        local_size: Number of processes on this machine; the same on each.
        sharded: Whether weights, gradients and the state of the optimizer are divided among them (FSDP), rather than
            held by each (DDP).
        launched: Whether torchrun started them.
        restarts: How often torchrun has started those on this machine anew because one of them failed.
        store: What they tell one another while one of them does something long; None if there is one process only.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    sharded: bool = False
    launched: bool = False
    restarts: int = 0
    store: dist.Store | None = field(default=None, repr=False, compare=False)

    @property
    def is_main_process(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def seed(self, seed: int) -> int:
        """Return the seed of what each process draws for itself; ``seed`` itself in the main process."""
        if self.is_main_process:
            return seed
        return int(np.random.SeedSequence(seed, spawn_key=(self.rank,)).generate_state(1)[0])

    def sum(self, *values: float) -> list[float]:
        """Return the sum of each value over the processes."""
        return self._reduced(values, ReduceOp.SUM)

    def max(self, *values: float) -> list[float]:
        """Return the maximum of each value over the processes."""
        return self._reduced(values, ReduceOp.MAX)

    def _reduced(self, values: Sequence[float], operation: Any) -> list[float]:
        if self.size == 1:
            return list(values)
        numbers = torch.tensor(values, dtype=torch.float64)  # on the CPU, so that no GPU is waited for
        dist.all_reduce(numbers, operation)
        return numbers.tolist()

    def mean(self, tensor: Tensor) -> Tensor:
        """Return the mean of ``tensor``, of the same shape everywhere, over the processes."""
        if self.size > 1:
            dist.all_reduce(tensor)
            tensor /= self.size
        return tensor

    def gather(self, tensor: Tensor) -> Tensor:
        """Return the tensors of all processes, which may differ in length, concatenated in the order of the ranks."""
        if self.size == 1:
            return tensor
        from torchmetrics.utilities.distributed import gather_all_tensors

        return torch.cat(gather_all_tensors(tensor))

    def gather_texts(self, texts: Sequence[str]) -> list[str]:
        """Return the texts of all processes."""
        lines = self.gather(torch.tensor(list(f"{json.dumps(texts)}\n".encode()), dtype=torch.uint8))
        return [text for line in bytes(lines.tolist()).splitlines() for text in json.loads(line)]

    def average_statistics(self, network: nn.Module) -> None:
        """Replace the running statistics of normalization by their mean over the processes."""
        norms: list[Any] = [
            module
            for module in network.modules()
            if module.training and getattr(module, "running_mean", None) is not None
        ]
        if self.size > 1 and norms:
            statistics = [tensor for norm in norms for tensor in (norm.running_mean, norm.running_var)]
            means = self.mean(torch.cat([tensor.flatten() for tensor in statistics]))
            for tensor, mean in zip(statistics, means.split([len(tensor) for tensor in statistics]), strict=True):
                tensor.copy_(mean)

    @contextmanager
    def local_main_process_first(self) -> Iterator[None]:
        """Run the block in the first process of each machine before the others, and end it together.

        Each may take hours: it may download files, or look at all of them.
        """
        if self.store is None:
            yield
            return
        if self.local_rank:
            self.store.wait([f"done by {self.rank - self.local_rank}"], PATIENCE)
        try:
            yield
        finally:
            self.store.set(f"done by {self.rank}", "")
        self.store.wait([f"done by {rank}" for rank in range(self.size)], PATIENCE)


SINGLE_PROCESS = Distributed()
_groups = itertools.count()
"""Process groups that this process has been in, of several trainings in one program."""


@contextmanager
def process_group(strategy: Strategy, device: torch.device) -> Iterator[Distributed]:
    """Initialize the process group of torchrun's processes and destroy it at the end; without torchrun, do nothing.

    Tensors on the CPU are exchanged through gloo, those on GPUs through NCCL.

    Args:
        strategy: ddp, fsdp, or auto, which is ddp under torchrun.
        device: The kind of device to compute on; of several GPUs, each process gets its own.

    Raises:
        ValueError: The strategy needs several processes and torchrun has not started any, or there are fewer GPUs than
            processes on this machine.
        ConnectionError: Another process has ended, or could not be reached for 10 minutes, or for a day
            while files are opened.
    """
    distributed = _from_environment(_checks.one_of("strategy", strategy, get_args(Strategy)))
    if device.type == "cuda":
        if distributed.local_size > torch.cuda.device_count():
            raise ValueError(
                f"{distributed.local_size} processes on this machine, but PyTorch finds {torch.cuda.device_count()} "
                "CUDA device(s); start as many processes, or use device=cpu"
            )
        torch.cuda.set_device(distributed.local_rank)
    if distributed.size == 1:
        yield distributed
        return
    if device.type == "mps":
        raise ValueError("device=mps computes in one process; start it without torchrun, or use device=cpu")
    try:
        store = _connect("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", distributed)
        yield dataclasses.replace(distributed, store=store)
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error).lower():
            _leave(device)
            raise
        raise ConnectionError(
            f"process {distributed.rank} of {distributed.size} lost the others: one of them has ended, and says why, "
            "or could not be reached"
        ) from error
    except BaseException:
        _leave(device)
        raise
    dist.destroy_process_group()


def _leave(device: torch.device) -> None:
    """Leave the others after an error of one's own, so that another training can begin; NCCL would wait for them."""
    if device.type == "cpu" and dist.is_initialized():
        dist.destroy_process_group()


def check_single_process(command: str) -> None:
    """Raise a `ValueError` if torchrun has started other processes beside this one."""
    if _from_environment("auto").size > 1:
        raise ValueError(f"{command} runs in one process; start it without torchrun, or with --nproc_per_node=1")


def _connect(backend: str, distributed: Distributed) -> dist.Store:
    store, rank, size = next(dist.rendezvous("env://"))
    # torchrun keeps the store from one training to the next, and on one machine when it starts processes anew, with the
    # addresses of the old ones.
    one_machine = distributed.local_size == distributed.size
    store = dist.PrefixStore(f"start {distributed.restarts if one_machine else 0} {next(_groups)}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    return store


def _from_environment(strategy: Strategy) -> Distributed:
    if not dist.is_torchelastic_launched():
        if strategy != "auto":
            raise ValueError(
                f"strategy={strategy} is for several processes, and torchrun has started none; leave it out, or use "
                f"torchrun --nproc_per_node=2 -m foveate train … --strategy {strategy}"
            )
        return SINGLE_PROCESS
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT")
    rank, size, local_rank, local_size, restarts = (int(os.environ[name]) for name in names)
    return Distributed(
        rank, size, local_rank, local_size, sharded=strategy == "fsdp" and size > 1, launched=True, restarts=restarts
    )
