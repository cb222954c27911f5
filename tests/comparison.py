"""Comparison of a module with its reference: values and every gradient, one table of tolerances."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
"""Largest relative L2 error of an output or a gradient against float64."""

SIDES = (1, 2, 3, 5, 7)
"""Primes, so that height and width rarely agree; small, because the references are loops."""


@dataclass(frozen=True)
class Case:
    """A module, what computes the same from its parameters, and an input."""

    module: nn.Module
    reference: Callable[[Tensor, dict[str, Tensor]], Tensor]
    x: Tensor
    label: str


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """Return ‖got − wanted‖ / ‖wanted‖; where nothing is wanted, ‖got‖."""
    difference = (got.double() - wanted.double()).norm().item()
    size = wanted.double().norm().item()
    return difference / size if size else difference


def errors(case: Case) -> dict[str, float]:
    """Return the relative error of the output and of the gradient of the input and of every parameter."""
    return compared(case, [lambda x, named: case.module(x)])[0]


def errors_beside_loops(case: Case) -> tuple[dict[str, float], dict[str, float]]:
    """Return what `errors` does, and the same of the loops themselves where they compute in the module's dtype."""
    buffers = dict(case.module.named_buffers())
    module, loops = compared(case, [lambda x, p: case.module(x), lambda x, p: case.reference(x, {**buffers, **p})])
    return module, loops


def compared(case: Case, functions: list[Callable[[Tensor, dict[str, Tensor]], Tensor]]) -> list[dict[str, float]]:
    """Return, of each function of the input and the parameters, the errors against the reference in float64."""
    x = case.x.clone(memory_format=torch.preserve_format) if case.x.is_contiguous() else case.x
    x = x.detach().requires_grad_()
    named = dict(case.module.named_parameters())
    outs = [function(x, named) for function in functions]
    wide = {name: p.detach().double().requires_grad_() for name, p in named.items()}
    buffers = {name: b.detach().double() for name, b in case.module.named_buffers()}
    wide_x = x.detach().double().requires_grad_()
    wanted = case.reference(wide_x, {**buffers, **wide})
    assert all(out.shape == wanted.shape for out in outs), case.label
    cotangent = torch.randn(wanted.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cotangent = cotangent.to(x.dtype)
    expected = torch.autograd.grad(
        wanted, [wide_x, *wide.values()], cotangent.double(), allow_unused=True, materialize_grads=True
    )
    # A sum that cancels, or a gradient that is zero by symmetry, has no relative error of its own: the error is
    # taken relative to at least what a gradient of as many typical entries would measure.
    typical = torch.cat([b.flatten() for b in expected]).square().mean().sqrt().item()
    found = []
    for out in outs:
        got = torch.autograd.grad(out, [x, *named.values()], cotangent, allow_unused=True, materialize_grads=True)
        one = {"output": relative_error(out.detach(), wanted.detach())}
        for name, a, b in zip(["input", *named], got, expected, strict=True):
            size = max(b.norm().item(), typical * b.numel() ** 0.5)
            one[f"gradient of {name}"] = (a.double() - b).norm().item() / size
        found.append(one)
    return found


def random_map(rng: random.Random, channels: int, dtype: torch.dtype) -> Tensor:
    """Draw a feature map of random batch, size and memory layout."""
    batch, height, width = rng.randint(1, 3), rng.choice(SIDES), rng.choice(SIDES)
    generator = torch.Generator().manual_seed(rng.getrandbits(40))
    layout = rng.choice(("contiguous", "channels_last", "sliced", "transposed"))
    if layout == "sliced":
        x = torch.randn(batch, 2 * channels, height, 2 * width, generator=generator, dtype=torch.float64)
        return x.to(dtype)[:, ::2, :, 1::2]
    x = torch.randn(batch, channels, height, width, generator=generator, dtype=torch.float64).to(dtype)
    if layout == "transposed":
        return x.mT.contiguous().mT
    return x.contiguous(memory_format=torch.channels_last) if layout == "channels_last" else x


def shaken(module: nn.Module, rng: random.Random, dtype: torch.dtype) -> nn.Module:
    """Give every parameter and running statistic a random value, so that zeros and ones hide nothing."""
    generator = torch.Generator().manual_seed(rng.getrandbits(40))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn(buffer.shape, generator=generator, dtype=buffer.dtype))
            elif name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator, dtype=buffer.dtype))
    return module.to(dtype)
