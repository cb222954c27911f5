"""Derivatives of every kind, through the fused operators and through plain ones: the same numbers."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor, nn

import foveate
from foveate import functional as FA
from foveate.nn import (
    AttentionAugmentedConv2d,
    ExpAttConv2d,
    ExplicitAttention2d,
    GlobalSelfAttention2d,
    PositionwiseAttention2d,
    RectangularAttention2d,
)
from tests.comparison import relative_error

FUSED = [None, False]
OURS = {"foveate.axial_pass.default", "foveate.content.default"}


def pass_inputs() -> list[Tensor]:
    torch.manual_seed(0)
    sizes = [(1, 2, 3, 5, 3), (1, 2, 3, 5, 2), (9, 3)]
    return [torch.randn(size, dtype=torch.float64, requires_grad=True) for size in sizes]


@pytest.mark.slow
@pytest.mark.parametrize("fused", FUSED)
@pytest.mark.parametrize("axis", [0, 1])
def test_second_derivatives_of_the_axial_pass(axis: int, fused: bool | None) -> None:
    assert torch.autograd.gradgradcheck(
        lambda q, v, r: FA.axial_positional_attention(q, v, r, axis, fused=fused), pass_inputs()
    )


@pytest.mark.slow
@pytest.mark.parametrize("fused", FUSED)
def test_second_derivatives_of_content_attention(fused: bool | None) -> None:
    query, value, _ = pass_inputs()
    key = torch.randn_like(query, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda q, k, v: FA.content_attention(q, k, v, fused=fused), [query, key, value])
    frozen = key.detach()  # nothing is asked of it
    assert torch.autograd.gradgradcheck(lambda q, v: FA.content_attention(q, frozen, v, fused=fused), [query, value])


MODULES = {
    "explicit": lambda **dd: ExplicitAttention2d(2, 2, stride=2, **dd),
    "explicit-cauchy": lambda **dd: ExplicitAttention2d(2, 2, kernel="cauchy", **dd),
    "expatt-conv": lambda **dd: ExpAttConv2d(2, 4, value_ratio=0.5, **dd),
    "global-self": lambda **dd: GlobalSelfAttention2d(2, num_heads=1, feat_size=2, **dd).eval(),
    "rectangular": lambda **dd: RectangularAttention2d(2, hidden=2, **dd),
    "positionwise": lambda **dd: PositionwiseAttention2d(2, hidden=2, **dd),
    "augmented": lambda **dd: AttentionAugmentedConv2d(2, 4, num_heads=1, value_ratio=0.5, min_dim_key=1, **dd),
}


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
def test_second_derivatives_of_every_module(make) -> None:
    torch.manual_seed(1)
    module = make(dtype=torch.float64)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) / 3)
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(module, x)


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
def test_forward_mode_agrees_with_reverse_mode(make) -> None:
    module = make(dtype=torch.float64)
    x, tangent = torch.randn(2, 1, 2, 3, 4, dtype=torch.float64)
    _, forward = torch.func.jvp(lambda x: module(x).square().sum(), (x,), (tangent,))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, tangent)
        other = torch.autograd.forward_ad.unpack_dual(module(dual).square().sum()).tangent
    (gradient,) = torch.autograd.grad(module(x.requires_grad_()).square().sum(), x)
    for found in (forward, other):
        assert torch.allclose(found, (gradient * tangent).sum(), rtol=1e-10)
    assert abs(forward) > 1e-6
    columns, rows = (
        torch.autograd.functional.jacobian(module, x.detach(), vectorize=True, strategy=strategy)
        for strategy in ("forward-mode", "reverse-mode")
    )
    assert relative_error(columns, rows) < 1e-10


def test_a_batch_of_gradients_at_once() -> None:
    query, value, table = pass_inputs()
    out = FA.axial_positional_attention(query, value, table, 0)
    out = FA.content_attention(query, query.sin(), out)
    cotangents = torch.randn(3, *out.shape, dtype=out.dtype)
    together = torch.autograd.grad(out, [query, value, table], cotangents, is_grads_batched=True, retain_graph=True)
    for index, cotangent in enumerate(cotangents):
        alone = torch.autograd.grad(out, [query, value, table], cotangent, retain_graph=True)
        assert all(relative_error(a[index], b) < 1e-12 for a, b in zip(together, alone, strict=True))


class Recorder(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes the operators of this library that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.called: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.called |= {str(func)} & OURS
        return func(*args, **(kwargs or {}))


def operators_of(module: nn.Module, x: Tensor) -> set[str]:
    with Recorder() as recorder:  # with gradients: without, one operator does it all
        module(x)
    return recorder.called


def test_plain_operators_as_context_and_decorator() -> None:
    module = GlobalSelfAttention2d(4, num_heads=2, feat_size=5).eval()
    x = torch.randn(2, 4, 5, 7)
    fused = module(x)
    assert operators_of(module, x) == OURS
    with foveate.plain_operators():
        assert operators_of(module, x) == set()
        with foveate.plain_operators():
            assert relative_error(module(x), fused) < 1e-6
        assert operators_of(module, x) == set()  # leaving the inner one does not leave the outer one
        found: list[set[str]] = []
        thread = threading.Thread(target=lambda: found.append(operators_of(module, x)))
        thread.start()
        thread.join()
        assert found == [OURS]  # the choice is of the thread that made it
    assert foveate.plain_operators()(operators_of)(module, x) == set()
    with pytest.raises(RuntimeError), foveate.plain_operators():
        raise RuntimeError
    assert operators_of(module, x) == OURS


def test_fused_within_plain_operators_is_a_contradiction() -> None:
    query, value, table = pass_inputs()
    with foveate.plain_operators():
        with pytest.raises(ValueError, match="fused=True"):
            FA.content_attention(query, query, value, fused=True)
        with pytest.raises(ValueError, match="fused=True"):
            FA.axial_positional_attention(query, value, table, 0, fused=True)
