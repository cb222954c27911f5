"""Operators that every tool knows, in place of fused ones.

The fused operators of GSA are opaque to FLOP counters, converters and `torch.func`. PyTorch's own operators are
understood by all of these, and take more time and the memory of the scores.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

__all__ = ["any_size", "differentiable_gradients", "plain_operators", "uses_plain_operators"]

_CHOSEN: ContextVar[bool] = ContextVar("plain_operators", default=False)


@contextlib.contextmanager
def plain_operators() -> Iterator[None]:
    """Compute with operators that every tool knows, in place of fused ones; a context manager and a decorator.

    For FLOP counters and other tools that do not know the operators of this library. `torch.jit.trace`,
    `torch.onnx.export`, `torch.export`, the transforms of `torch.func` and forward-mode differentiation take them by
    themselves. They hold the scores of the axial passes (``heads·N·n`` numbers a pass), which the fused operators
    compute in parts. The choice is that of the thread, or the asynchronous task, that makes it.

    A module or function with ``fused=True`` raises a `ValueError` within: that demands the opposite.

    Examples:
        >>> module, x = foveate.nn.GlobalSelfAttention2d(8, feat_size=4).eval(), torch.randn(1, 8, 4, 4)
        >>> with foveate.plain_operators():
        ...     plain = module(x)
        >>> torch.allclose(plain, module(x), atol=1e-5)
        True
    """
    token = _CHOSEN.set(True)
    try:
        yield
    finally:
        _CHOSEN.reset(token)


def uses_plain_operators(*tensors: Tensor, fused: bool | None = None) -> bool:
    """Tell whether a result of ``tensors`` must be computed by PyTorch's own operators.

    Raises:
        ValueError: ``fused`` is true within `plain_operators`.
    """
    if _CHOSEN.get():
        if fused:
            raise ValueError("fused=True within foveate.plain_operators(); leave fused at None, or leave the context")
        return True
    if torch.compiler.is_exporting() or torch.jit.is_tracing() or torch._C._are_functorch_transforms_active():
        return True
    if torch.compiler.is_compiling():
        return False
    # A custom operator would drop the tangent in silence.
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)


def any_size() -> bool:
    """Tell whether a graph for maps of every size is being made: compiled or traced."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def differentiable_gradients(
    function: Callable[..., Tensor | tuple[Tensor, ...]],
    inputs: tuple[Tensor, ...],
    wanted: tuple[bool, ...],
    grad: Tensor | tuple[Tensor, ...],
) -> tuple[Tensor | None, ...]:
    """Return the gradients of ``function(*inputs)``, of which ``grad`` is given, as differentiable functions of both.

    ``function`` is made of differentiable operators. Gradients of inputs that are not ``wanted`` are None.
    """
    with torch.enable_grad():
        inputs = tuple(x.view_as(x) if needed else x for x, needed in zip(inputs, wanted, strict=True))
        leaves = [x for x, needed in zip(inputs, wanted, strict=True) if needed]
        results, grads = function(*inputs), grad
        if isinstance(results, tuple):  # of which some may depend on what is not wanted alone
            pairs = [pair for pair in zip(results, grad, strict=True) if pair[0].requires_grad]
            results, grads = tuple(result for result, _ in pairs), tuple(one for _, one in pairs)
        found = iter(torch.autograd.grad(results, leaves, grads, create_graph=True))
    return tuple(next(found) if needed else None for needed in wanted)
