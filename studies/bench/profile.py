"""Where the time of a call goes, operator by operator."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.profiler import profile

__all__ = ["operator_seconds"]

COMPILED = "## Call CompiledFxGraph"


def operator_seconds(call: Callable[[], Any], device: torch.device, *, repetitions: int = 3) -> dict[str, float]:
    """Return the seconds of one call that PyTorch's profiler counts for each operator itself, the longest first.

    What an operator calls is counted for what it calls. All kernels that `torch.compile` generated go by the name
    ``compiled``. On CUDA it is time on the device.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it complains on stderr where there is no GPU
    on_cuda = device.type == "cuda"
    with profile(use_device="cuda" if on_cuda else None) as recorded:
        for _ in range(repetitions):
            call()
        if on_cuda:
            torch.cuda.synchronize(device)
    seconds: dict[str, float] = {}
    for event in recorded.key_averages():
        spent = event.self_device_time_total if on_cuda else event.self_cpu_time_total
        name = "compiled" if event.key.startswith(COMPILED) else event.key
        seconds[name] = seconds.get(name, 0.0) + spent / 1e6 / repetitions
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))
