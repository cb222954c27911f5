"""What is timed: a forward pass in inference, or a training step."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

__all__ = ["MODES", "Workload", "autocast", "least_traffic"]

MODES = ("forward", "step")

OPTIMISER_TRAFFIC = 5
"""Times that SGD with momentum moves each weight: gradient, momentum and weight are read, the last two written."""


class Workload:
    """Calling it does it once.

    - ``forward``: evaluation mode, ``torch.inference_mode``.
    - ``step``: training mode, forward, and backward from a random gradient of the output. A network then takes a step
      of SGD with momentum, with a learning rate of zero: the same work, and weights that stay where they are. Of a
      module, which stands in the middle of a network, the gradient of the input is computed in its place.

    Args:
        module: What runs; its mode is set once, here.
        x: The input.
        mode: One of `MODES`.
        dtype: float32, or what autocast computes in.
        network: Whether it is a whole network.
    """

    def __init__(self, module: nn.Module, x: Tensor, *, mode: str, dtype: torch.dtype, network: bool) -> None:
        self.module = module.train(mode == "step")
        self.x = x.detach().requires_grad_(mode == "step" and not network)
        self.mode, self.dtype = mode, dtype
        self.cotangent: Tensor | None = None
        self.optimiser: torch.optim.Optimizer | None = None
        if network:
            self.optimiser = torch.optim.SGD(module.parameters(), lr=0.0, momentum=0.9)

    def __call__(self) -> None:
        """Do it."""
        if self.mode == "forward":
            with torch.inference_mode(), autocast(self.x, self.dtype):
                self.module(self.x)
            return
        with autocast(self.x, self.dtype):
            output = self.module(self.x)
        if self.cotangent is None:
            self.cotangent = torch.randn_like(output)
        output.backward(self.cotangent)
        if self.optimiser is not None:
            self.optimiser.step()
        self.module.zero_grad(set_to_none=True)
        self.x.grad = None


def autocast(x: Tensor, dtype: torch.dtype) -> AbstractContextManager:
    """Return the context in which ``dtype`` is computed in on ``x``'s device."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(x.device.type, dtype)


def least_traffic(module: nn.Module, x: Tensor, output_bytes: int, *, mode: str, network: bool) -> int:
    """Return the bytes that cannot but be moved, whatever lies between the input and the output.

    Forward: input and weights are read, the output is written. Backward, besides: input, weights and the output's
    gradient are read again, and the gradients of weights and (of a module) input written. Then the optimiser's.
    """
    weights = sum(parameter.nbytes for parameter in module.parameters())
    if mode == "forward":
        return x.nbytes + output_bytes + weights
    if network:
        return 2 * x.nbytes + 2 * output_bytes + (3 + OPTIMISER_TRAFFIC) * weights
    return 3 * x.nbytes + 2 * output_bytes + 3 * weights
