"""GSA on a CPU in C++: compiled when the package is installed, and left out where there is no compiler for it.

There is a library for each instruction set that is worth one; the best that the processor has is taken, or that of
``ATEN_CPU_CAPABILITY`` (``avx512``, ``avx2``, ``default``), as PyTorch's own kernels do. float32 and float64. All
functions take tensors ``(B, heads, H, W, channels)`` of any strides; what they return has memory in the order
``(B, H, W, heads, channels)``.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from typing import Any

import torch
from torch import Tensor

__all__ = ["INSTRUCTION_SETS", "axial_backward", "axial_forward", "content_backward", "content_forward", "library"]

INSTRUCTION_SETS = {"AVX512": "_avx512", "AVX2": "_avx2", "DEFAULT": "_any"}
"""What `torch.backends.cpu.get_cpu_capability` says, best first, and the library that was compiled for it."""


@functools.cache
def library(instruction_set: str | None = None) -> ctypes.CDLL | None:
    """Load the kernels for an instruction set, by default the best that the processor has; None without any."""
    sets = list(INSTRUCTION_SETS)
    if instruction_set is None:
        capability = torch.backends.cpu.get_cpu_capability()
        sets = sets[sets.index(capability) :] if capability in sets else sets[-1:]
    else:
        sets = [instruction_set]
    for name in sets:
        spec = importlib.util.find_spec(f"{__name__}.{INSTRUCTION_SETS[name]}")
        if spec is not None and spec.origin is not None:
            return ctypes.CDLL(spec.origin)
    return None


def axial_forward(query: Tensor, value: Tensor, window: Tensor, axis: int) -> Tensor:
    """Compute `foveate.functional._axial.axial_pass`."""
    query, value, out = _dense(query), _dense(value), _like(value)
    lines = _Lines(query, value, axis)
    lines.call("axial_forward", query, value, _flat(window), out)
    return out


def axial_backward(
    grad: Tensor, query: Tensor, value: Tensor, window: Tensor, axis: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute its gradients with respect to query, value and window."""
    grad, query, value = _dense(grad), _dense(query), _dense(value)
    grads = _like(query), _like(value), torch.empty_like(window, memory_format=torch.contiguous_format)
    lines = _Lines(query, value, axis)
    lines.call("axial_backward", grad, query, value, _flat(window), *grads[:2], _flat(grads[2]))
    return grads


def content_forward(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute `foveate.functional._content.content`: the output, and what its backward pass starts from."""
    query, key, value, out = _dense(query), _dense(key), _dense(value), _like(value)
    batch, heads, *_, dim = query.shape
    context = value.new_empty(batch, heads, dim, value.shape[-1])
    peak = value.new_empty(batch, heads, dim)
    saved = context, peak, torch.empty_like(peak)
    _Lines(query, value, axis=1).call("content_forward", query, key, value, out, *map(_flat, saved))
    return out, *saved


def content_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, context: Tensor, peak: Tensor, total: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute its gradients with respect to query, key and value."""
    grad, query, key, value = _dense(grad), _dense(query), _dense(key), _dense(value)
    grads = _like(query), _like(key), _like(value)
    saved = map(_flat, (context, peak, total))
    _Lines(query, value, axis=1).call("content_backward", grad, query, key, value, *saved, *grads)
    return grads


class _Lines:
    """How the kernels are told of tensors: a pointer, and strides of images, heads, lines and pixels of a line."""

    def __init__(self, query: Tensor, value: Tensor, axis: int) -> None:
        self.order = (0, 1, 3 - axis, 2 + axis)
        self.dtype = str(query.dtype).removeprefix("torch.")
        sizes = (*(query.shape[dim] for dim in self.order), query.shape[-1], value.shape[-1])
        self.sizes = (ctypes.c_int64 * 6)(*sizes)

    def call(self, name: str, *tensors: Tensor) -> None:
        """Call a kernel with tensors of five dimensions (with their strides) and one (without)."""
        arguments: list[Any] = []
        for tensor in tensors:
            arguments.append(ctypes.c_void_p(tensor.data_ptr()))
            if tensor.ndim == 5:
                arguments.append((ctypes.c_int64 * 4)(*(tensor.stride(dim) for dim in self.order)))
        getattr(library(), f"{name}_{self.dtype}")(*arguments, self.sizes, torch.get_num_threads())


def _dense(x: Tensor) -> Tensor:
    """Return ``x`` with its channels next to one another."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else _like(x).copy_(x)


def _flat(x: Tensor) -> Tensor:
    return x.contiguous().view(-1)


def _like(x: Tensor) -> Tensor:
    batch, heads, height, width, channels = x.shape
    return x.new_empty(batch, height, width, heads, channels).permute(0, 3, 1, 2, 4)
