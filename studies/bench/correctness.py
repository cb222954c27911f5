"""Whether what is about to be timed computes what it should, at the very shape at which it is timed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foveate.models.inspection import evaluating
from studies.bench.subject import Reference
from studies.bench.workload import autocast

__all__ = ["GRADIENT_TOLERANCE", "TOLERANCE", "Check", "against_eager", "against_reference", "relative_error"]

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
"""The largest relative L2 error of an output with which a time is published."""
GRADIENT_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 1e-1}
"""That of a gradient: in bfloat16, a ReLU on the brink lets another gradient through."""


@dataclass(frozen=True)
class Check:
    """How far a result is from what it was compared with: relative L2 errors."""

    against: str
    errors: tuple[float, ...]
    """Of the output; where gradients were compared, then the largest of those of the input and every parameter."""
    passed: bool
    """Whether all is within the tolerances; a NaN is not."""


def relative_error(got: Tensor, wanted: Tensor, least: float = 0.0) -> float:
    """Return ‖got − wanted‖ / max(‖wanted‖, least); where that is nothing, ‖got − wanted‖."""
    got, wanted = got.cpu().double(), wanted.cpu().double()  # there are devices without float64
    size = max(wanted.norm().item(), least)
    return (got - wanted).norm().item() / (size or 1.0)


def against_reference(
    run: nn.Module, module: nn.Module, x: Tensor, reference: Reference, *, dtype: torch.dtype, gradients: bool
) -> Check:
    """Compare ``run`` with the reference of ``module``, in evaluation mode.

    Args:
        run: ``module`` itself, or what a compiler has made of it.
        module: Holds the parameters.
        x: The input, in the dtype that is timed.
        reference: Computes what is wanted.
        dtype: Float32, or what autocast computes in.
        gradients: Compare the gradients too, for a cotangent drawn at random where the reference computes.
    """
    exact = copy.deepcopy(module).cpu().double()
    with evaluating(exact), evaluating(module):
        wanted = _results(lambda x: reference.compute(exact, x), exact, x.cpu().double(), dtype if gradients else None)
        with autocast(x, dtype):
            got = _results(lambda x: reference.pick(run(x)), module, x, dtype if gradients else None)
    return _check(reference.words, got, wanted, dtype)


def against_eager(run: nn.Module, module: nn.Module, x: Tensor, *, dtype: torch.dtype, gradients: bool) -> Check:
    """Compare ``run``, what a compiler has made of ``module``, with ``module``; as `against_reference`."""
    with evaluating(module), autocast(x, dtype):
        wanted = _results(module, module, x, dtype if gradients else None)
        got = _results(run, module, x, dtype if gradients else None)
    return _check("itself, not compiled", got, wanted, dtype)


def _results(run: Callable[[Tensor], Tensor], module: nn.Module, x: Tensor, dtype: torch.dtype | None) -> list[Tensor]:
    """Return the output and, for a cotangent with the precision of ``dtype``, the gradients of input and parameters."""
    if dtype is None:
        with torch.inference_mode():  # as it is timed, so that a compiler has to compile once
            return [run(x)]
    x = x.detach().requires_grad_()
    output = run(x)
    generator = torch.Generator().manual_seed(0)
    cotangent = torch.randn(output.shape, generator=generator).to(dtype).to(output)
    inputs = [x, *module.parameters()]
    return [output.detach(), *torch.autograd.grad(output, inputs, cotangent, allow_unused=True, materialize_grads=True)]


def _check(against: str, got: Sequence[Tensor], wanted: Sequence[Tensor], dtype: torch.dtype) -> Check:
    errors, tolerances = [relative_error(got[0], wanted[0])], [TOLERANCE[dtype]]
    if len(wanted) > 1:
        # A gradient that cancels has no relative error of its own: it is taken relative to at least what a gradient of
        # as many typical entries would measure.
        squares = sum(tensor.cpu().double().square().sum().item() for tensor in wanted[1:])
        typical = (squares / sum(tensor.numel() for tensor in wanted[1:])) ** 0.5
        gradients = [relative_error(a, b, typical * b.numel() ** 0.5) for a, b in zip(got[1:], wanted[1:], strict=True)]
        errors.append(torch.tensor(gradients, dtype=torch.float64).max().item())  # a NaN among them stays
        tolerances.append(GRADIENT_TOLERANCE[dtype])
    passed = all(error <= tolerance for error, tolerance in zip(errors, tolerances, strict=True))
    return Check(against, tuple(errors), passed)
