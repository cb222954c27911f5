"""GSA in training, in one node of the graph: gradients, a second derivative, whose turn it is."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import foveate
from foveate.functional._global_self_training import global_self_training
from foveate.nn import GlobalSelfAttention2d
from tests.comparison import TOLERANCE, relative_error
from tests.kernels.test_cpu import BUILT
from tests.nn.global_self_loops import reference

pytestmark = [
    pytest.mark.skipif(not BUILT, reason="no kernels were compiled"),
    pytest.mark.filterwarnings("ignore:a map is larger"),
]


def made(stride: int = 2, dtype: torch.dtype = torch.float64, batch: int = 2) -> tuple[GlobalSelfAttention2d, Tensor]:
    torch.manual_seed(0)
    module = GlobalSelfAttention2d(5, 9, num_heads=3, dim_key=6, feat_size=(4, 11), stride=stride, dtype=dtype)
    return module, torch.randn(batch, 5, 7, 11, dtype=dtype, requires_grad=True)


def nodes(x: Tensor) -> set[str]:
    found, todo = set(), [x.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in found:
            found.add(node)
            todo += [following for following, _ in node.next_functions]
    return {type(node).__name__ for node in found}


def gradients(module: nn.Module, x: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(module(x).square().mean(), [x, *module.parameters()]))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("stride", "batch"), [(1, 2), (2, 2), (2, 37)])  # some images, and many
def test_its_gradients_are_those_of_plain_operators(stride, batch, dtype, layout):
    module, x = made(stride, dtype, batch)
    x = x.detach().contiguous(memory_format=layout).requires_grad_()
    assert "_TrainingBackward" in nodes(module(x))
    got = [module(x), *gradients(module, x)]
    with foveate.plain_operators():
        wide = copy.deepcopy(module).double()
        assert "_TrainingBackward" not in nodes(wide(x.double()))
        wanted = [wide(x.double()), *gradients(wide, x.detach().double().requires_grad_())]
    for a, b in zip(got, wanted, strict=True):
        assert relative_error(a, b) <= 4 * TOLERANCE[dtype]


@pytest.mark.parametrize("batch", [3, 37])
def test_what_is_saved_may_come_back_in_another_layout(batch):
    module, x = made(batch=batch)
    wanted = gradients(module, x)
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: saved.contiguous().clone(), lambda kept: kept):
        got = gradients(module, x)
    assert all(relative_error(a, b) <= 1e-12 for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize("batch", [3, 37])
def test_any_number_of_threads_gives_the_same_bits(batch):
    torch.manual_seed(1)
    projection = torch.randn(batch, 3 * 24, 7, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    inputs = [projection, *(torch.randn(size, 8, requires_grad=True) for size in (13, 9))]
    inputs += [torch.randn(24, requires_grad=True) for _ in range(2)]
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            windows, affine = (inputs[1], inputs[2]), (inputs[3], inputs[4])
            made = global_self_training(projection, windows, affine, None, 1e-5, (24, 24, 24), 3)
            found.append([*made, *torch.autograd.grad(made[0].square().sum(), inputs)])
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


@pytest.mark.slow
def test_it_is_differentiated_twice():
    module, x = made()
    x = x.detach()[..., :5].clone().requires_grad_()  # columns are longer than their table still
    module.eval()  # the statistics of a batch of noise are nothing to look at
    assert torch.autograd.gradgradcheck(module, (x,), atol=1e-6)
    (first,) = torch.autograd.grad(module(x).square().sum(), x, create_graph=True)
    got = torch.autograd.grad(first.square().sum(), [x, *module.parameters()])
    with foveate.plain_operators():
        (first,) = torch.autograd.grad(module(x).square().sum(), x, create_graph=True)
        wanted = torch.autograd.grad(first.square().sum(), [x, *module.parameters()])
    for a, b in zip(got, wanted, strict=True):
        assert relative_error(a, b) <= 1e-9


@pytest.mark.parametrize("frozen", [False, True])
def test_second_derivatives_of_the_tables_alone(frozen):
    module, x = made()
    module.qkv.requires_grad_(not frozen)

    def twice() -> list[Tensor]:
        (first,) = torch.autograd.grad(module(x.detach()).square().sum(), module.rel_height, create_graph=True)
        return list(torch.autograd.grad(first.square().sum(), [module.rel_height, module.rel_width]))

    got = twice()
    with foveate.plain_operators():
        wanted = twice()
    assert all(relative_error(a, b) <= 1e-9 for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize("frozen", [False, True])
def test_a_batch_of_gradients_at_once(frozen):
    module, x = made()
    module.qkv.requires_grad_(not frozen)
    x = x.detach() if frozen else x
    out, inputs = module(x), [y for y in (x, *module.parameters()) if y.requires_grad]
    cotangents = torch.randn(3, *out.shape, dtype=out.dtype)
    together = torch.autograd.grad(out, inputs, cotangents, is_grads_batched=True, retain_graph=True)
    for index, cotangent in enumerate(cotangents):
        alone = torch.autograd.grad(out, inputs, cotangent, retain_graph=True)
        assert all(relative_error(a[index], b) < 1e-12 for a, b in zip(together, alone, strict=True))


@pytest.mark.parametrize("frozen", ["qkv.weight", "rel_height", "rel_width", "norm.weight", "norm.bias"])
def test_what_is_frozen_gets_no_gradient_and_changes_no_other(frozen):
    module, x = made()
    wanted = dict(zip([name for name, _ in module.named_parameters()], gradients(module, x)[1:], strict=True))
    module.get_parameter(frozen).requires_grad_(False)
    module(x.detach()).square().mean().backward()
    for name, parameter in module.named_parameters():
        assert (parameter.grad is None) == (name == frozen)
        assert name == frozen or torch.equal(parameter.grad, wanted[name])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("channels", "heads", "key"), [(9, 3, 6), (16, 2, 16), (10, 1, 10), (24, 8, 8)])
def test_values_and_gradients_are_those_of_loops(channels: int, heads: int, key: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"num_heads": heads, "dim_key": key, "feat_size": (4, 7), "dtype": dtype}
    module = GlobalSelfAttention2d(5, channels, **sizes)
    nn.init.normal_(module.norm.weight)
    nn.init.normal_(module.norm.bias)
    wide = copy.deepcopy(module).double()
    for batch in (2, 33):  # some images, and many
        x = 3 + torch.randn(batch, 5, 5, 7, dtype=dtype).requires_grad_()
        other = x.detach().double().requires_grad_()
        direction = torch.randn(batch, channels, 5, 7, dtype=dtype)
        got, wanted = module(x), reference(wide, other)
        found = torch.autograd.grad(got, [x, *module.parameters()], direction)
        right = torch.autograd.grad(wanted, [other, *wide.parameters()], direction.double())
        assert "_TrainingBackward" in nodes(got)
        for a, b in zip([got, *found], [wanted, *right], strict=True):
            assert relative_error(a, b) <= 4 * TOLERANCE[dtype]


def test_what_memory_a_training_step_takes() -> None:
    module = GlobalSelfAttention2d(64, feat_size=56)
    x = torch.randn(2, 64, 56, 56).contiguous(memory_format=torch.channels_last).requires_grad_()
    for _ in range(2):  # the second time without what is allocated once
        with torch.profiler.profile(profile_memory=True) as profiled:
            module(x).sum().backward()
        x.grad = None
        module.zero_grad()
    held = peak = 0
    for event in sorted(profiled.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    assert peak <= 8.2 * x.nbytes  # projection and its gradient, three each; column pass; output; gradients of both


def test_a_normalisation_of_any_kind_is_called():
    module, x = made()
    module.norm = nn.Sequential(nn.GroupNorm(3, 9, dtype=torch.float64), nn.ReLU(inplace=True), nn.Identity())
    got = [module(x), *gradients(module, x)]
    with foveate.plain_operators():
        wanted = [module(x), *gradients(module, x)]
    for a, b in zip(got, wanted, strict=True):
        assert relative_error(a, b) <= 1e-12

    class Half(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.bfloat16().contiguous()

    module.norm = Half()
    half = module(x)
    assert half.dtype == torch.float64
    module.norm = nn.Identity()
    assert 1e-6 < relative_error(half, module(x)) < 2e-2


@pytest.mark.slow
def test_others_who_look_see_operators():
    module, x = made()
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        module(x)
    assert {"foveate.axial_pass", "foveate.content"} <= {str(op) for op in counter.get_flop_counts()["Global"]}
    _, tangents = torch.func.jvp(module.eval(), (x,), (torch.ones_like(x),))
    assert tangents.abs().sum() > 0
    scripted = torch.jit.trace(module, (x,))
    assert relative_error(scripted(2 * x), module(2 * x)) <= 1e-12


@pytest.mark.parametrize("fused", [True, None])
def test_gradients_whose_sign_is_still_to_be_changed(fused: bool | None) -> None:
    def gradient(fused: bool | None) -> Tensor:
        torch.manual_seed(0)
        module = GlobalSelfAttention2d(8, feat_size=(5, 7), num_heads=2, fused=fused, dtype=torch.float64)
        x = torch.randn(2, 8, 5, 7, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
        y = module(x)
        y.backward(torch._neg_view(torch.randn_like(y)))  # as from the imaginary part of a conjugate
        assert x.grad is not None
        return x.grad

    torch.testing.assert_close(gradient(fused), gradient(False))


@pytest.mark.parametrize("training", [True, False])
def test_tangents_that_come_with_the_gradient_alone(training: bool) -> None:
    def tangent(fused: bool | None) -> Tensor:
        torch.manual_seed(0)
        module = GlobalSelfAttention2d(8, feat_size=(5, 7), num_heads=2, fused=fused, dtype=torch.float64)
        x = torch.randn(2, 8, 5, 7, dtype=torch.float64, requires_grad=True)
        weight, direction = torch.randn(2, 1, 8, 1, 1, dtype=torch.float64)
        with torch.autograd.forward_ad.dual_level():
            head = torch.autograd.forward_ad.make_dual(weight, direction)
            loss = F.conv2d(module.train(training)(x), head).square().sum()
            (gradient,) = torch.autograd.grad(loss, x)
            found = torch.autograd.forward_ad.unpack_dual(gradient).tangent
        assert found is not None
        return found

    torch.testing.assert_close(tangent(None), tangent(False))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("size", [(7, 11), (1, 1)])
def test_what_follows_may_work_in_place(layout: torch.memory_format, size: tuple[int, int]) -> None:
    module, _ = made(stride=1)
    x = torch.randn(2, 5, *size, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    found = [torch.autograd.grad(relu(module(x)).square().sum(), x)[0] for relu in (F.relu, F.relu_)]
    assert torch.equal(*found)
