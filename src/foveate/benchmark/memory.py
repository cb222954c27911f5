"""Peak memory of a computation, such as a training step, from PyTorch's own allocator."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.profiler import DeviceType, profile

__all__ = ["peak_memory", "peak_step_memory"]


def peak_step_memory(
    model: nn.Module, batch: Tensor, loss: Callable[[nn.Module, Tensor], Tensor] = lambda twin, batch: twin(batch).sum()
) -> int:
    """Return the peak of the bytes that one training step on ``batch`` adds to what was allocated before it.

    The step is a forward pass in training mode, the sum of the output or what ``loss`` returns, and the backward pass.
    Counted are activations, gradients of activations and of parameters, and buffers of PyTorch's operators; not the
    parameters, the batch, the state of an optimizer, nor what a library beneath PyTorch (oneDNN) allocates. The figure
    is exact and reproducible on the same device.

    ``model`` must be on the device of ``batch``, the CPU or a CUDA device. A copy takes the step: weights, running
    statistics, gradients and modes of ``model`` and the state of the random generators stay as they are.
    """
    device = batch.device
    elsewhere = {p.device for p in model.parameters()} - {device}
    if elsewhere:
        raise ValueError(f"batch is on {device}, the model on {elsewhere.pop()}; move one of them with .to(device)")
    twin = copy.deepcopy(model).train()
    twin.zero_grad(set_to_none=True)

    def step() -> None:
        loss(twin, batch).backward()
        twin.zero_grad(set_to_none=True)

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.enable_grad():
        return peak_memory(step, device)


def peak_memory(call: Callable[[], object], device: torch.device) -> int:
    """Return the peak of the bytes that ``call()`` adds to what was allocated before it, on the CPU or a CUDA device.

    Only PyTorch's allocator is counted. On CUDA the call is made twice: the first leaves cuBLAS its workspace.

    Raises:
        ValueError: It is another device.
    """
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"memory is measured on the cpu or a cuda device; got {device}")
    return _cuda_peak(call, device) if device.type == "cuda" else _cpu_peak(call)


def _cpu_peak(call: Callable[[], object]) -> int:
    """Return the maximum of the running sum over all allocations and releases of the call."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it complains on stderr where there is no GPU
    with profile(profile_memory=True) as recorded:
        call()
    assert recorded.kineto_results is not None  # set on leaving the context
    events = [event for event in recorded.kineto_results.events() if event.name() == "[memory]"]
    allocated = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.device_type() == DeviceType.CPU:
            allocated += event.nbytes()
            peak = max(peak, allocated)
    return peak


def _cuda_peak(call: Callable[[], object], device: torch.device) -> int:
    """Return the peak of the caching allocator."""
    call()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before
