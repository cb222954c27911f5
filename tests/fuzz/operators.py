"""The operators of GSA called directly: with tensors of every kind of strides, and with tensors that do not fit.

What fits is compared with sums in float64; what does not must be refused with a `ValueError` or `RuntimeError`, by the
kernels, by the operators without them, and by the fake ones. The same trials run once more in a process in which the
C++ is compiled with AddressSanitizer, which ends at the first access beyond a tensor.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from foveate import functional as FA
from foveate.kernels import cpu
from tests.comparison import TOLERANCE, relative_error
from tests.fuzz.outcome import Outcome, progress

SANITIZED_FROM = 50
"""Trials from which on they are repeated under AddressSanitizer."""
SOURCES = Path(cpu.__file__).parent
DTYPES = (torch.float32, torch.float64)


def run(trials: int, seed: int) -> Outcome:
    """Make ``trials`` calls that fit, each of them also made unfit in every way."""
    outcome = Outcome(trials=trials)
    for index in progress(range(trials), "operators"):
        _trial(random.Random(f"{seed}-operators-{index}"), outcome)
    if trials >= SANITIZED_FROM:
        _sanitized(trials, seed, outcome)
    return outcome


def _trial(rng: random.Random, outcome: Outcome) -> None:
    dtype, axis = rng.choice(DTYPES), rng.randrange(2)
    images, heads, height, width, d, c = (rng.choice(sides) for sides in ((1, 2, 3), (1, 2, 5), *[range(1, 20)] * 4))
    sizes = (images, heads, height, width)
    torch.manual_seed(rng.randrange(2**31))
    query, key, value, grad = (_strided(rng, (*sizes, channels), dtype) for channels in (d, d, c, c))
    window = _strided(rng, (2 * sizes[2 + axis] - 1, d), dtype)
    sums = torch.ops.foveate.content(query, key, value, False)[1:]
    calls: dict[str, tuple[Callable, list]] = {
        "axial_pass": (torch.ops.foveate.axial_pass, [query, value, window, axis]),
        "axial_pass_backward": (torch.ops.foveate.axial_pass_backward, [grad, query, value, window, axis]),
        "content": (torch.ops.foveate.content, [query, key, value]),
        "content_backward": (torch.ops.foveate.content_backward, [grad, query, key, value, *sums]),
    }
    _at_once(rng, query, key, value, outcome)
    fused = (True, False) if cpu.library() is not None else (False,)
    for name, (operator, arguments) in calls.items():
        label = f"{name} {sizes} d={d} c={c} axis={axis} {dtype}"
        wanted = _reference(name, arguments)
        for choice in fused:
            for got, right in zip(_list(operator(*arguments, choice)), wanted, strict=False):
                error = relative_error(got, right)
                # A softmax over few positions makes gradients that are differences of nearly equal numbers.
                outcome.check(error <= 100 * TOLERANCE[dtype], f"{label} fused={choice} is off by {error:.1e}")
                outcome.count("results compared")
        for unfit, what in _unfit(rng, arguments):
            for choice in (*fused, "fake"):
                outcome.check(_refused(operator, unfit, choice), f"{label}: not refused with {what}, {choice}")
                outcome.count("calls that do not fit")
        for empty in _empty(arguments):
            with contextlib.suppress(ValueError, RuntimeError):  # either is well; only memory is not to be touched
                operator(*empty, None)
            outcome.count("calls with empty tensors")


def _at_once(rng: random.Random, query: Tensor, key: Tensor, value: Tensor, outcome: Outcome) -> None:
    """Compare the operator for all of GSA at inference with its parts, also with sizes that do not fit."""
    dtype, stride, channels = value.dtype, rng.randrange(1, 4), value.shape[1] * value.shape[4]
    projection = torch.cat([x.permute(0, 1, 4, 2, 3).flatten(1, 2) for x in (query, key, value)], 1)
    windows = [torch.randn(2 * side - 1, query.shape[4], dtype=dtype) for side in query.shape[2:4]]
    norm = [_strided(rng, (channels,), dtype) for _ in range(4)]
    norm[1] = norm[1].square() + 0.1
    numbers = (1e-5, query.shape[1], query.shape[1] * query.shape[4], stride)
    arguments = [projection, *windows, *norm]
    if cpu.library() is not None:
        wide = [x.double() for x in (query, key, value, *windows)]
        hidden = torch.ops.foveate.axial_pass(wide[0], wide[2], wide[3], 0, False).permute(0, 1, 4, 2, 3).flatten(1, 2)
        mean, variance, weight, bias = (x.double() for x in norm)
        hidden = torch.nn.functional.batch_norm(hidden, mean, variance, weight, bias)
        hidden = hidden.unflatten(1, (query.shape[1], -1)).permute(0, 1, 3, 4, 2)
        rows = torch.ops.foveate.axial_pass(wide[0], hidden, wide[4], 1, False)
        whole = rows + torch.ops.foveate.content(*wide[:3], False)[0]
        whole = whole.permute(0, 1, 4, 2, 3).flatten(1, 2)
        wanted = torch.nn.functional.avg_pool2d(whole, stride, ceil_mode=True, count_include_pad=False)
        error = relative_error(torch.ops.foveate.global_self(*arguments, *numbers), wanted)
        label = f"global_self {tuple(value.shape)} d={query.shape[4]} {stride=} {dtype}"
        outcome.check(error <= 100 * TOLERANCE[dtype], f"{label} is off by {error:.1e}")
        outcome.count("results compared")
    for index, x in enumerate(arguments):
        for unfit in (x.narrow(0, 0, x.shape[0] - 1) if index else x[:, :-1], x.unsqueeze(0), x.to("meta")):
            changed = [*arguments[:index], unfit, *arguments[index + 1 :]]
            outcome.check(_refused_with(changed, numbers), f"global_self: not refused, argument {index}")
            outcome.count("calls that do not fit")


def _refused_with(arguments: list, numbers: tuple) -> bool:
    try:
        torch.ops.foveate.global_self(*arguments, *numbers)
    except (ValueError, RuntimeError, NotImplementedError):
        return True
    return False


def _strided(rng: random.Random, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return a tensor whose memory is ordered, spaced, shared or repeated in some way."""
    order = rng.sample(range(len(shape)), len(shape))
    kind = rng.choice(("dense", "spaced", "expanded", "overlapping", "offset"))
    if kind == "overlapping":
        strides = [rng.randrange(1, 4) for _ in shape]
        length = 1 + sum(stride * (size - 1) for stride, size in zip(strides, shape, strict=True))
        return torch.randn(length, dtype=dtype).as_strided(shape, strides)
    stored = [shape[dim] for dim in order]
    if kind == "spaced":
        x = torch.randn([2 * size for size in stored], dtype=dtype)[tuple(slice(None, None, 2) for _ in stored)]
    elif kind == "expanded":
        alone = rng.randrange(len(stored))
        x = torch.randn([1 if dim == alone else size for dim, size in enumerate(stored)], dtype=dtype).expand(stored)
    elif kind == "offset":
        x = torch.randn([size + 1 for size in stored], dtype=dtype)[tuple(slice(1, None) for _ in stored)]
    else:
        x = torch.randn(stored, dtype=dtype)
    return x.permute([order.index(dim) for dim in range(len(shape))])


def _reference(name: str, arguments: list) -> list[Tensor]:
    """Return what the operator computes, by maps in float64; of the backward ones by automatic differentiation."""
    wide = [x.double() if isinstance(x, Tensor) else x for x in arguments]
    if name.startswith("axial"):
        inputs, axis = wide[-4:-1], wide[-1]
        weigh = "bhyxk,bhkxc->bhyxc" if axis == 0 else "bhyxk,bhykc->bhyxc"
        inputs = [x.clone().requires_grad_() for x in inputs]
        out = torch.einsum(weigh, FA.axial_positional_map(inputs[0], inputs[2], axis), inputs[1])
    else:
        inputs = wide[1:4] if name == "content_backward" else wide
        inputs = [x.clone().requires_grad_() for x in inputs]
        weights = FA.content_attention_map(inputs[0], inputs[1])
        out = (weights @ inputs[2].flatten(2, 3)).view(inputs[2].shape)
    return list(torch.autograd.grad(out, inputs, wide[0])) if name.endswith("backward") else [out.detach()]


def _list(result: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)


def _unfit(rng: random.Random, arguments: list) -> Iterator[tuple[list, str]]:
    """Yield the arguments with one of them made wrong, and what was done to it."""
    for index, x in enumerate(arguments):
        if not isinstance(x, Tensor):
            for axis in (-1, 2, 7):
                yield [*arguments[:index], axis, *arguments[index + 1 :]], f"axis {axis}"
            continue
        changes: dict[str, Tensor] = {
            "one dimension less": x.select(rng.randrange(x.ndim), 0),
            "one dimension more": x.unsqueeze(rng.randrange(x.ndim + 1)),
            "no dimension": x.flatten()[0],
            "another dtype": x.to(DTYPES[1 - DTYPES.index(x.dtype)]),
            "integers": x.to(torch.int64),
            "complex numbers": x.to(torch.complex64),
            "another device": x.to("meta"),
            "another layout": x.contiguous().to_sparse(),
        }
        for dim in range(x.ndim):
            longer = torch.cat([x, x.narrow(dim, 0, 1)], dim)
            changes[f"dimension {dim} longer"] = longer
            changes[f"dimension {dim} shorter"] = x.narrow(dim, 0, x.shape[dim] - 1)
        for what, changed in changes.items():
            # Values and queries alone may have other channels; then what is wrong is another argument, where there is.
            alone = x.ndim == 5 and what.startswith("dimension 4") and _free(arguments, index)
            if not alone:
                yield [*arguments[:index], changed, *arguments[index + 1 :]], f"argument {index}: {what}"


def _free(arguments: list, index: int) -> bool:
    """Tell whether the channels of this argument are those of no other: values, where no gradient goes with them."""
    forward = len([x for x in arguments if isinstance(x, Tensor)]) == 3
    return forward and index == (1 if len(arguments) == 4 else 2)


def _empty(arguments: list) -> Iterator[list]:
    """Yield the arguments without images, heads, rows, columns or channels."""
    for dim in range(5):
        yield [x.narrow(dim, 0, 0) if isinstance(x, Tensor) and x.ndim == 5 else x for x in arguments]


def _refused(operator: Callable, arguments: list, how: bool | str) -> bool:
    try:
        if how == "fake":
            with FakeTensorMode() as mode:
                operator(*(mode.from_tensor(x) if isinstance(x, Tensor) else x for x in arguments), None)
        else:
            operator(*arguments, how)
    except (ValueError, RuntimeError, NotImplementedError):
        return True
    return False


def _sanitized(trials: int, seed: int, outcome: Outcome) -> None:
    """Run the trials in a process with the C++ compiled by g++ with AddressSanitizer."""
    compiler = shutil.which("g++")
    if compiler is None:
        outcome.notes.append("AddressSanitizer: no g++ here.")
        return
    with tempfile.TemporaryDirectory(prefix="foveate-asan-") as folder:
        library = Path(folder) / "kernels.so"
        sources = [str(path) for path in sorted(SOURCES.glob("*.cpp"))]
        flags = ["-std=c++17", "-O1", "-g", "-fopenmp", "-fsanitize=address", "-shared", "-fPIC", "-march=native"]
        subprocess.run([compiler, *flags, *sources, "-o", str(library)], check=True)
        # The C++ runtime as well: exceptions that it throws must be those that the sanitizer has seen.
        preloaded = [
            subprocess.run([compiler, f"-print-file-name={name}"], check=True, capture_output=True, text=True).stdout
            for name in ("libasan.so", "libstdc++.so.6")
        ]
        environment = {**os.environ, "LD_PRELOAD": " ".join(map(str.strip, preloaded)), "OMP_NUM_THREADS": "2"}
        environment["ASAN_OPTIONS"] = "detect_leaks=0"
        command = [sys.executable, "-m", "tests.fuzz.operators", str(library), str(trials), str(seed)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    outcome.check(done.returncode == 0, f"AddressSanitizer, exit code {done.returncode}: {done.stderr[:2000]}")
    outcome.count("trials under AddressSanitizer", trials)


def _within(library: str, trials: int, seed: int) -> None:
    """Make the trials with the kernels of ``library``."""
    loaded = ctypes.CDLL(library)
    outcome = Outcome(trials=trials)
    with mock.patch.object(cpu, "library", return_value=loaded):
        for index in range(trials):
            _trial(random.Random(f"{seed}-operators-{index}"), outcome)
    if outcome.failures:
        sys.exit("\n".join(outcome.failures))


if __name__ == "__main__":
    _within(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
