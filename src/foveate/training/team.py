"""The processes that train one network together, as torchrun starts them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.distributed import ReduceOp

from foveate import _checks

__all__ = ["ALONE", "Strategy", "Team", "check_alone", "joined"]

Strategy = Literal["auto", "ddp", "fsdp"]

TIMEOUT = timedelta(minutes=10)
"""After which a process that waits for another one gives up; one that has ended is noticed at once."""


@dataclass(frozen=True)
class Team:
    """The processes that train one network together, seen from one of them; of a process alone, a team of one.

    What is said of "all" is said of them: each has to call the method, at the same point of what all of them do.

    Attributes:
        rank: Number of this process, from 0. The one with 0 leads: it alone writes and prints.
        size: How many there are.
        local_rank: Number of this process among those on its machine.
        local_size: How many there are on this machine; on each the same.
        sharded: Whether weights, gradients and the state of the optimiser are divided among them (FSDP), rather than
            held by each (DDP).
        launched: Whether torchrun started them.
        restarts: How often torchrun has started those on this machine anew because one of them failed.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    sharded: bool = False
    launched: bool = False
    restarts: int = 0

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def seed(self, seed: int) -> int:
        """Return the seed of what each process has to draw for itself; ``seed`` itself for the one that leads."""
        if self.leads:
            return seed
        return int(np.random.SeedSequence(seed, spawn_key=(self.rank,)).generate_state(1)[0])

    def sum(self, *values: float) -> list[float]:
        """Return the sum over all of each value."""
        return self._reduced(values, ReduceOp.SUM)

    def max(self, *values: float) -> list[float]:
        """Return the largest of all for each value."""
        return self._reduced(values, ReduceOp.MAX)

    def _reduced(self, values: Sequence[float], operation: Any) -> list[float]:
        if self.size == 1:
            return list(values)
        numbers = torch.tensor(values, dtype=torch.float64)  # on the CPU, so that no GPU is waited for
        distributed.all_reduce(numbers, operation)
        return numbers.tolist()

    def mean(self, tensor: Tensor) -> Tensor:
        """Return the mean of ``tensor`` over all, each of the same shape."""
        if self.size > 1:
            distributed.all_reduce(tensor)
            tensor /= self.size
        return tensor

    def gather(self, tensor: Tensor) -> Tensor:
        """Return the tensors of all, which may differ in length, one after the other in the order of the ranks."""
        if self.size == 1:
            return tensor
        from torchmetrics.utilities.distributed import gather_all_tensors

        return torch.cat(gather_all_tensors(tensor))

    def gather_texts(self, texts: Sequence[str]) -> list[str]:
        """Return the texts of all."""
        lines = self.gather(torch.tensor(list(f"{json.dumps(texts)}\n".encode()), dtype=torch.uint8))
        return [text for line in bytes(lines.tolist()).splitlines() for text in json.loads(line)]

    def average_statistics(self, network: nn.Module) -> None:
        """Replace the running statistics of normalisation by their mean over all: what each has seen enters them."""
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
    def first_here_first(self) -> Iterator[None]:
        """Let the first process of each machine go through the block before the others: it may fetch files."""
        if self.local_rank:
            self.max(0)
        yield
        if not self.local_rank:
            self.max(0)


ALONE = Team()


@contextmanager
def joined(strategy: Strategy, device: torch.device) -> Iterator[Team]:
    """Join the processes that torchrun has started; without torchrun, be alone.

    They talk through gloo about numbers and tensors on the CPU, and through NCCL about tensors on GPUs.

    Args:
        strategy: ddp, fsdp, or auto, which is ddp under torchrun.
        device: The kind of device to compute on; of several GPUs, each process gets its own.

    Raises:
        ValueError: The strategy needs several processes and torchrun has not started any, or there are fewer GPUs than
            processes on this machine.
        ConnectionError: Another process has ended, or could not be reached for 10 minutes.
    """
    team = _from_environment(_checks.one_of("strategy", strategy, get_args(Strategy)))
    if device.type == "cuda":
        if team.local_size > torch.cuda.device_count():
            raise ValueError(
                f"{team.local_size} processes on this machine, but PyTorch finds {torch.cuda.device_count()} CUDA "
                "device(s); start as many processes, or use device=cpu"
            )
        torch.cuda.set_device(team.local_rank)
    if team.size == 1:
        yield team
        return
    if device.type == "mps":
        raise ValueError("device=mps computes in one process; start it without torchrun, or use device=cpu")
    try:
        _connect("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", team)
        yield team
    except RuntimeError as error:
        if not isinstance(error, distributed.DistError) and "gloo" not in str(error).lower():
            raise
        raise ConnectionError(
            f"process {team.rank} of {team.size} lost the others: one of them has ended, and says why, or could not be "
            f"reached for {TIMEOUT.total_seconds() / 60:.0f} minutes"
        ) from error
    distributed.destroy_process_group()  # not after an error: NCCL would wait for the others


def check_alone(command: str) -> None:
    """Raise a `ValueError` if torchrun has started other processes beside this one."""
    if _from_environment("auto").size > 1:
        raise ValueError(f"{command} runs in one process; start it without torchrun, or with --nproc_per_node=1")


def _connect(backend: str, team: Team) -> None:
    store, rank, size = next(distributed.rendezvous("env://"))
    if team.local_size == team.size:
        # On one machine torchrun may keep the store when it starts processes anew, with the addresses of the old ones.
        store = distributed.PrefixStore(f"start {team.restarts}", store)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)


def _from_environment(strategy: Strategy) -> Team:
    if not distributed.is_torchelastic_launched():
        if strategy != "auto":
            raise ValueError(
                f"strategy={strategy} is for several processes, and torchrun has started none; leave it out, or use "
                f"torchrun --nproc_per_node=2 -m foveate train … --strategy {strategy}"
            )
        return ALONE
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT")
    rank, size, local_rank, local_size, restarts = (int(os.environ[name]) for name in names)
    return Team(
        rank, size, local_rank, local_size, sharded=strategy == "fsdp" and size > 1, launched=True, restarts=restarts
    )
