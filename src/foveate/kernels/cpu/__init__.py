"""GSA on a CPU in C++: compiled when the package is installed, and left out where there is no compiler for it.

There is a library for each instruction set that is worth one; the best that the processor has is taken, or that of
``ATEN_CPU_CAPABILITY`` (``avx512``, ``avx2``, ``default``), as PyTorch's own kernels do. They compute in float32 and
float64; half precision is widened on the way in. All functions take tensors ``(B, heads, H, W, channels)`` of any
strides; what they return has the dtype of its input and memory in the order ``(B, H, W, heads, channels)``.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foveate.kernels.sizes import check_axial, check_content

__all__ = [
    "INSTRUCTION_SETS",
    "axial_backward",
    "axial_forward",
    "content_backward",
    "content_forward",
    "global_self",
    "library",
    "training",
    "training_backward",
]

INSTRUCTION_SETS = {"AVX512": "_avx512", "AVX2": "_avx2", "DEFAULT": "_any"}
"""What `torch.backends.cpu.get_cpu_capability` says, best first, and the library that was compiled for it."""


@functools.cache
def library(instruction_set: str | None = None) -> ctypes.CDLL | None:
    """Load the kernels for an instruction set, by default the best that the processor has; None without any."""
    for name in _runnable() if instruction_set is None else [instruction_set]:
        with contextlib.suppress(OSError):  # not compiled, or for libraries that are not here
            found = ctypes.CDLL(str(Path(__file__).with_name(f"{INSTRUCTION_SETS[name]}.so")))
            if not is_stale(found):
                return found
    return None


def is_stale(library: ctypes.CDLL) -> bool:
    """Tell whether it was compiled from other sources than those beside it, as after an update of a clone."""
    sources = [path for pattern in ("*.cpp", "*.h") for path in sorted(Path(__file__).parent.glob(pattern))]
    if not sources:  # of a wheel, which has none
        return False
    try:
        of_library = library.foveate_sources
    except AttributeError:  # by hand, or before it was noted
        return not hasattr(library, "global_self_training_float64")
    of_library.restype = ctypes.c_char_p
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    return bool(of_library().decode() != digest)


def found() -> str | None:
    """Return the instruction set of the kernels that `library` loads by default; None without any."""
    return next((name for name in _runnable() if library(name) is not None), None)


def _runnable() -> list[str]:
    """Return the instruction sets of the processor, best first."""
    sets, capability = list(INSTRUCTION_SETS), torch.backends.cpu.get_cpu_capability()
    return sets[sets.index(capability) :] if capability in sets else sets[-1:]


def axial_forward(query: Tensor, value: Tensor, window: Tensor, axis: int) -> Tensor:
    """Compute `foveate.functional._axial.axial_pass`."""
    check_axial(query, value, window, axis)
    q, v, out = _ready(query), _ready(value), _result(value)
    _Lines(q, v, axis).call("axial_forward", q, v, _flat(window), out)
    return out.to(value.dtype)


def axial_backward(
    grad: Tensor, query: Tensor, value: Tensor, window: Tensor, axis: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute its gradients with respect to query, value and window."""
    check_axial(query, value, window, axis, grad)
    g, q, v, r = _ready(grad), _ready(query), _ready(value), _flat(window)
    of_query, of_value, of_window = _result(query), _result(value), torch.empty_like(r)
    _Lines(q, v, axis).call("axial_backward", g, q, v, r, of_query, of_value, of_window)
    return of_query.to(query.dtype), of_value.to(value.dtype), of_window.view(window.shape).to(window.dtype)


def content_forward(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute `foveate.functional._content.content`: the output, and what its backward pass starts from."""
    check_content(query, key, value)
    q, k, v, out = _ready(query), _ready(key), _ready(value), _result(value)
    sums = _sums(q, v)
    _Lines(q, v, axis=1).call("content_forward", q, k, v, out, *map(_flat, sums))
    return out.to(value.dtype), *sums


def content_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, context: Tensor, peak: Tensor, total: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute its gradients with respect to query, key and value."""
    check_content(query, key, value, context, peak, total, grad=grad)
    g, q, k, v = _ready(grad), _ready(query), _ready(key), _ready(value)
    grads = _result(query), _result(key), _result(value)
    _Lines(q, v, axis=1).call("content_backward", g, q, k, v, *map(_flat, (context, peak, total)), *grads)
    return grads[0].to(query.dtype), grads[1].to(key.dtype), grads[2].to(value.dtype)


def training(
    out: Tensor,
    heads: tuple[Tensor, ...],
    windows: tuple[Tensor, Tensor],
    affine: tuple[Tensor | None, Tensor | None],
    statistics: tuple[Tensor, Tensor] | None,
    epsilon: float,
) -> tuple[Tensor, ...]:
    """Write `foveate.functional._global_self_training.global_self_training` to ``out``, all sizes and dtypes fitting.

    ``heads`` are queries, keys and values, ``affine`` the weight and bias of the normalization, ``statistics`` its mean
    and variance, None for those of the batch.

    Returns:
        What `training_backward` starts from: mean, variance, column pass ``(B, H, W, heads, c)``, and the context,
        peaks and totals of the content attention.
    """
    query, value = heads[0], heads[2]
    hidden = _result(value)
    mean, variance = statistics or value.new_empty(2, value.shape[1] * value.shape[-1]).unbind()
    sums = _sums(query, value)
    small = (*windows, *affine, mean, variance)
    options = (ctypes.c_double(epsilon), int(statistics is None))
    call = _Lines(query, value, axis=1).call
    call("global_self_training", *heads, *map(_maybe_flat, small), out, hidden, *map(_flat, sums), options=options)
    return mean, variance, hidden.permute(0, 2, 3, 1, 4), *sums


def training_backward(
    grads: tuple[Tensor, ...],
    grad: Tensor,
    heads: tuple[Tensor, ...],
    windows: tuple[Tensor, Tensor],
    affine: tuple[Tensor | None, Tensor | None],
    made: tuple[Tensor, ...],
    epsilon: float,
    of_batch: bool,
) -> tuple[Tensor, ...]:
    """Write the gradients of queries, keys and values to ``grads``; return those of windows, weight and bias.

    ``made`` is what `training` returned, ``of_batch`` whether its statistics are those of the batch.
    """
    query, key, value = map(_ready, heads)  # hooks on what is saved may have changed their layout
    mean, variance, hidden, *sums = made
    small = (*windows, *affine, mean, variance, hidden, *sums)
    # The gradients of the keys come last: until then there is room for another map of that size.
    work = grads[1] if key.shape == value.shape else _result(value)
    found = [x.new_empty(size) for x, size in zip(windows, map(Tensor.numel, windows), strict=True)]
    found += [torch.empty_like(mean), torch.empty_like(mean)]
    options = (ctypes.c_double(epsilon), int(of_batch))
    tensors = (_ready(grad), query, key, value, *map(_maybe_flat, small), *grads, work, *found)
    _Lines(query, value, axis=1).call("global_self_training_backward", *tensors, options=options)
    return (*(x.view(window.shape) for x, window in zip(found, windows, strict=False)), *found[2:])


def global_self(
    projection: Tensor,
    windows: tuple[Tensor, Tensor],
    norm: tuple[Tensor, Tensor, Tensor | None, Tensor | None, float],
    num_heads: int,
    dim_key: int,
    stride: int,
    out: Tensor,
) -> Tensor:
    """Compute `foveate.functional._global_self.global_self_inference` into ``out``, whose sizes fit.

    ``projection`` and ``out`` are in channels_last, all others contiguous, all in its dtype.
    """
    batch, _, height, width = projection.shape
    *statistics, epsilon = norm
    tensors = (projection, *windows, *statistics, out)
    stride = min(stride, max(height, width))  # one beyond the map does the same
    sizes = (batch, num_heads, height, width, dim_key // num_heads, out.shape[1] // num_heads, stride)
    pointers = (ctypes.c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in tensors)
    kernel = getattr(library(), f"global_self_{str(projection.dtype).removeprefix('torch.')}")
    kernel(*pointers, (ctypes.c_int64 * 7)(*sizes), ctypes.c_double(epsilon), torch.get_num_threads())
    return out


class _Lines:
    """How the kernels are told of tensors: a pointer, and strides of images, heads, lines and pixels of a line."""

    def __init__(self, query: Tensor, value: Tensor, axis: int) -> None:
        self.order = (0, 1, 3 - axis, 2 + axis)
        self.dtype = str(query.dtype).removeprefix("torch.")
        sizes = (*(query.shape[dim] for dim in self.order), query.shape[-1], value.shape[-1])
        self.sizes = (ctypes.c_int64 * 6)(*sizes)

    def call(self, name: str, *tensors: Tensor | None, options: tuple[Any, ...] = ()) -> None:
        """Call a kernel with tensors of five dimensions (with their strides) and one (without), checked before."""
        arguments: list[Any] = []
        for tensor in tensors:
            arguments.append(ctypes.c_void_p(None if tensor is None else tensor.data_ptr()))
            if tensor is not None and tensor.ndim == 5:
                arguments.append((ctypes.c_int64 * 4)(*(tensor.stride(dim) for dim in self.order)))
        getattr(library(), f"{name}_{self.dtype}")(*arguments, self.sizes, torch.get_num_threads(), *options)


def _sums(query: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return memory for what the backward pass of content attention starts from."""
    context = value.new_empty(*query.shape[:2], query.shape[-1], value.shape[-1])
    return context, torch.empty_like(context[..., 0]), torch.empty_like(context[..., 0])


def _ready(x: Tensor) -> Tensor:
    """Return ``x`` in a dtype of the kernels, its channels next to one another."""
    x = _wide(x)  # first: of strides that overlap it makes others
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else _result(x).copy_(x)


def _wide(x: Tensor) -> Tensor:
    x = x.resolve_neg()  # gradients of complex numbers come with their signs still to be changed
    return x if x.dtype == torch.float64 else x.float()


def _flat(x: Tensor) -> Tensor:
    return _wide(x).contiguous().view(-1)


def _maybe_flat(x: Tensor | None) -> Tensor | None:
    return None if x is None else _flat(x)


def _result(x: Tensor) -> Tensor:
    batch, heads, height, width, channels = x.shape
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return x.new_empty(batch, height, width, heads, channels, dtype=dtype).permute(0, 3, 1, 2, 4)
