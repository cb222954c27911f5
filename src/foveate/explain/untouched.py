"""A network that is looked into and left exactly as it was found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from foveate._networks import evaluating

__all__ = ["frozen", "untouched"]


@contextmanager
def untouched(model: nn.Module, images: Tensor) -> Iterator[None]:
    """Put ``model`` in evaluation mode for the duration; then undo all that a pass can change.

    The mode of each module, the buffers, and the states of PyTorch's random generators, on the CPU and on the device of
    ``images``, are afterwards what they were; also when what is done meanwhile fails. Hooks are their owners' to
    remove; for gradients see `frozen`.
    """
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    devices = [images.device] if images.device.type == "cuda" else []
    with evaluating(model), torch.random.fork_rng(devices):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, before in buffers:
                    if not torch.equal(buffer, before):
                        buffer.copy_(before)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Let the parameters of ``model`` take no gradient for the duration.

    Afterwards ``requires_grad`` and ``grad``, the very tensors, are what they were.
    """
    parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    try:
        for parameter, _, _ in parameters:
            parameter.requires_grad_(False)
            parameter.grad = None
        yield
    finally:
        for parameter, requires_grad, grad in parameters:
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad
