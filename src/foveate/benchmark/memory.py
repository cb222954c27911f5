"""Memory that one training step needs, read from PyTorch's own allocator."""

from __future__ import annotations

import copy
import os

import torch
from torch import Tensor, nn
from torch.autograd.profiler import DeviceType, profile

__all__ = ["peak_step_memory"]


def peak_step_memory(model: nn.Module, batch: Tensor) -> int:
    """Return the peak of the bytes that one training step on ``batch`` adds to what was allocated before it.

    The step is a forward pass in training mode, the sum of the output as the loss, and the backward pass.
    Counted are activations, gradients of activations and of parameters, and buffers that PyTorch allocates
    for its operations; not the parameters, the batch, the state of an optimiser, nor what a library beneath
    PyTorch (oneDNN) allocates for itself. The figure is exact, and the same in every run on the same device.

    ``model`` must be on the device of ``batch``. A copy of it takes the step: weights, running statistics,
    gradients and modes of ``model`` stay as they are, and so does the state of the random number generators.

    Raises:
        ValueError: ``batch`` is on another device than ``model``, or on neither the CPU nor a CUDA device.
    """
    device = batch.device
    elsewhere = {p.device for p in model.parameters()} - {device}
    if elsewhere:
        raise ValueError(f"batch is on {device}, the model on {elsewhere.pop()}; move one of them with .to(device)")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"memory is measured on the cpu or a cuda device; got a batch on {device}")
    twin = copy.deepcopy(model).train()
    twin.zero_grad(set_to_none=True)
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_cuda else []), torch.enable_grad():
        return _cuda_peak(twin, batch) if on_cuda else _cpu_peak(twin, batch)


def _step(model: nn.Module, batch: Tensor) -> None:
    model(batch).sum().backward()


def _cpu_peak(model: nn.Module, batch: Tensor) -> int:
    """Return the maximum of the running sum over all allocations and releases of the step."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it complains on stderr where there is no GPU
    with profile(profile_memory=True) as recorded:
        _step(model, batch)
    assert recorded.kineto_results is not None  # set on leaving the context
    events = [event for event in recorded.kineto_results.events() if event.name() == "[memory]"]
    allocated = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.device_type() == DeviceType.CPU:
            allocated += event.nbytes()
            peak = max(peak, allocated)
    return peak


def _cuda_peak(model: nn.Module, batch: Tensor) -> int:
    """Return what the caching allocator reports, after a first step that leaves cuBLAS its workspace."""
    _step(model, batch)
    model.zero_grad(set_to_none=True)
    torch.cuda.synchronize(batch.device)
    torch.cuda.reset_peak_memory_stats(batch.device)
    before = torch.cuda.memory_allocated(batch.device)
    _step(model, batch)
    torch.cuda.synchronize(batch.device)
    return torch.cuda.max_memory_allocated(batch.device) - before
