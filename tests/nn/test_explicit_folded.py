"""ExpAtt with folded convolutions: the numbers of its parts, and only where nobody would miss them."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import foveate
from foveate.nn import ExpAttConv2d, ExplicitAttention2d
from foveate.nn import _explicit_folded as folded
from tests.comparison import TOLERANCE, relative_error

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning")

JOINED, APART = (22, 24), (17, 48)
"""Channels in and out: in the first, the attended ones fit in the last block of the convolution's."""
RATIOS = {JOINED: 0.1, APART: 0.6}


def made(channels: tuple[int, int] = JOINED, dtype: torch.dtype = torch.float32, **options) -> ExpAttConv2d:
    torch.manual_seed(0)
    module = ExpAttConv2d(*channels, value_ratio=RATIOS[channels], **options)
    with torch.no_grad():
        module.attention.log_radius.add_(0.3)
    return module.to(dtype).eval()


def image(channels: int = JOINED[0], dtype: torch.dtype = torch.float32, batch: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, channels, 7, 13, dtype=torch.float64, generator=generator)
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


def folds(module: ExpAttConv2d, x: Tensor) -> bool:
    return folded.convolve_and_attend(module, ExplicitAttention2d, x) is not None


def parts(module: ExpAttConv2d, x: Tensor) -> Tensor:
    return torch.cat([module.conv(x), module.attention(x)], dim=1).detach()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"stride": 3}, {"dilation": 2}, {"kernel": "cone"}], ids=str)
@pytest.mark.parametrize("channels", [JOINED, APART], ids=str)
@torch.no_grad()
def test_it_computes_what_its_parts_compute(channels, options, dtype, layout, monkeypatch):
    module, x = made(channels, dtype, **options).to(memory_format=layout), image(channels[0], dtype)
    joined: list[Tensor] = []
    once = folded._in_one_convolution
    monkeypatch.setattr(folded, "_in_one_convolution", lambda *given: joined.append(out := once(*given)) or out)
    assert folds(module, x)
    assert bool(joined) == (channels == JOINED)
    got, wanted = module(x), parts(copy.deepcopy(module).double(), x.double())
    assert got.is_contiguous(memory_format=torch.channels_last)
    for channel in (slice(module.conv.out_channels), slice(module.conv.out_channels, None)):
        assert relative_error(got[:, channel], wanted[:, channel]) <= TOLERANCE[dtype]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"stride": 3, "kernel": "cauchy"}, {"dilation": 2}], ids=str)
def test_in_training_it_has_the_gradients_of_its_parts(options, dtype, layout):
    module = made(dtype=dtype, **options).to(memory_format=layout).train()
    x = image(dtype=dtype).contiguous(memory_format=layout).requires_grad_()
    got = folded.convolve_and_attend(module, ExplicitAttention2d, x)
    assert got is not None
    assert got.is_contiguous(memory_format=layout)
    cotangent = torch.randn_like(got)
    grads = torch.autograd.grad(got, [x, *module.parameters()], cotangent)
    twin, wide = copy.deepcopy(module).double(), x.detach().double().requires_grad_()
    wanted = torch.cat([twin.conv(wide), twin.attention(wide)], dim=1)
    wanted_grads = torch.autograd.grad(wanted, [wide, *twin.parameters()], cotangent.double())
    assert relative_error(got, wanted) <= TOLERANCE[dtype]
    for grad, other in zip(grads, wanted_grads, strict=True):
        # That of the radius is one number, a sum over all positions of which most cancels: in float32 digits are lost.
        slack = 10 if other.numel() == 1 and dtype == torch.float32 else 1
        assert relative_error(grad, other) <= TOLERANCE[dtype] * slack


@pytest.mark.slow
def test_in_training_it_can_be_differentiated_twice_and_checkpointed():
    module, x = made(dtype=torch.float64, stride=2).train(), image(dtype=torch.float64, batch=1)[..., :3, :3]
    assert torch.autograd.gradgradcheck(module, x.clone().requires_grad_(), gen_non_contig_grad_outputs=True)
    for reentrant in (True, False):
        plain, checkpointed = (x.clone().requires_grad_() for _ in range(2))
        wanted = module(plain)
        got = torch.utils.checkpoint.checkpoint(module, checkpointed, use_reentrant=reentrant)
        # PyTorch's matrix product rounds otherwise without gradients, as in the first pass of reentrant ones.
        assert relative_error(got, wanted) <= (TOLERANCE[torch.float64] if reentrant else 0)
        wanted.sum().backward()
        got.sum().backward()
        assert relative_error(checkpointed.grad, plain.grad) <= (TOLERANCE[torch.float64] if reentrant else 0)


def test_in_training_frozen_parts_have_no_gradient_and_hooks_see_theirs():
    module, x = made().train(), image()
    module.attention.requires_grad_(False)
    module(x).sum().backward()
    assert [name for name, p in module.named_parameters() if p.grad is not None] == ["conv.weight"]
    for name in ("attention", "attention.value", "attention.proj", "conv"):
        other, seen = made().train(), []
        other.get_submodule(name).register_full_backward_hook(lambda own, *_, seen=seen: seen.append(type(own)))
        other(image().requires_grad_()).sum().backward()
        assert len(seen) == 1


@torch.no_grad()
def test_a_stride_of_dilated_convolutions_is_not_joined():
    module, x = made(stride=2, dilation=2), image()
    assert folds(module, x)
    assert relative_error(module(x), parts(module, x)) <= TOLERANCE[torch.float32]


def test_it_is_taken_only_where_nobody_watches():
    module, x = made(), image()
    assert not folds(module, x)
    assert folds(copy.deepcopy(module).requires_grad_(False), x)
    assert not folds(copy.deepcopy(module).requires_grad_(False), x.clone().requires_grad_())
    with torch.no_grad():
        assert folds(module, x)
        assert not folds(module, x.contiguous())
        assert not folds(made(APART).train(), image(APART[0]))
        with foveate.plain_operators():
            assert not folds(module, x)
        with FlopCounterMode(display=False) as counter:
            module(x)
        with FlopCounterMode(display=False) as of_parts:
            parts(module, x)
        assert counter.get_total_flops() == of_parts.get_total_flops()
        assert relative_error(torch.func.vmap(module)(x[None])[0], parts(module, x)) <= TOLERANCE[torch.float32]


def doubled(module: ExpAttConv2d) -> None:
    class Doubled(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    other = Doubled(2, 2, 1, bias=False)
    other.load_state_dict(module.attention.proj.state_dict())
    module.attention.proj = other


def with_bias(module: ExpAttConv2d) -> None:
    module.attention.value.bias = nn.Parameter(torch.randn(2))


def patched(module: ExpAttConv2d) -> None:
    own = module.attention.forward
    module.attention.forward = lambda x: own(x) + 1


def parametrized(module: ExpAttConv2d) -> None:
    nn.utils.parametrizations.weight_norm(module.attention.value)


def hooked(name: str) -> Callable[[ExpAttConv2d], None]:
    return lambda module: module.get_submodule(name).register_forward_hook(lambda own, x, y: y + 1) and None


CHANGES = [doubled, with_bias, patched, parametrized, *map(hooked, ("attention", "attention.value", "attention.proj"))]


@pytest.mark.parametrize("change", CHANGES)
@torch.no_grad()
def test_whoever_watches_or_replaces_a_part_is_not_passed_by(change):
    module, x = made(), image()
    change(module)
    assert not folds(module, x)
    assert torch.equal(module(x), parts(module, x))


def with_bias_of_the_convolution(module: ExpAttConv2d) -> None:
    module.conv.bias = nn.Parameter(torch.randn(22))


@pytest.mark.parametrize("change", [hooked("conv"), with_bias_of_the_convolution])
@torch.no_grad()
def test_a_convolution_that_was_changed_is_called(change):
    module, x = made(), image()
    before = module(x)
    change(module)
    assert relative_error(module(x), parts(module, x)) <= TOLERANCE[torch.float32]
    assert relative_error(module(x), before) > 0.1


@torch.no_grad()
def test_hooks_of_all_modules_are_called():
    module, x = made(), image()
    seen = []
    handle = nn.modules.module.register_module_forward_hook(lambda own, *_: seen.append(type(own).__name__))
    try:
        module(x)
    finally:
        handle.remove()
    assert seen == ["Conv2d", "Conv2d", "Conv2d", "ExplicitAttention2d", "ExpAttConv2d"]


@pytest.mark.parametrize("channels", [JOINED, APART], ids=str)
@torch.no_grad()
def test_changed_weights_are_seen_however_they_were_changed(channels):
    module, x = made(channels), image(channels[0])
    for change in (lambda p: p.mul_(-2), lambda p: p.data.add_(0.1), lambda p: p.detach().numpy().fill(0.3)):
        for parameter in module.parameters():
            module(x)
            change(parameter)
            assert relative_error(module(x), parts(module, x)) <= TOLERANCE[torch.float32]


@pytest.mark.parametrize("channels", [JOINED, APART], ids=str)
@torch.no_grad()
def test_under_autocast_and_in_half_precision(channels):
    module, x = made(channels), image(channels[0])
    wanted = parts(copy.deepcopy(module).double(), x.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert folds(module, x)
        got = module(x)
        assert got.dtype == torch.bfloat16
    assert relative_error(got, wanted) < 1e-2
    half = copy.deepcopy(module).bfloat16()
    assert relative_error(half(x.bfloat16()), wanted) < 2e-2


@pytest.mark.slow
@pytest.mark.parametrize("channels", [JOINED, APART], ids=str)
@torch.no_grad()
def test_compiled_exported_and_traced(channels):
    module, x = made(channels), image(channels[0])
    wanted = parts(module, x)
    for dynamic in (False, True):
        torch.compiler.reset()
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=dynamic)
        assert relative_error(compiled(x), wanted) <= TOLERANCE[torch.float32]
        assert relative_error(compiled(x[:2, :, 1:]), parts(module, x[:2, :, 1:])) <= TOLERANCE[torch.float32]
    program = torch.export.export(module, (x,))
    assert [node.target for node in program.graph.nodes].count(torch.ops.aten.conv2d.default) == 3
    assert relative_error(program.module()(x), wanted) <= TOLERANCE[torch.float32]
    assert relative_error(torch.fx.symbolic_trace(module)(x), wanted) == 0
    assert relative_error(torch.jit.trace(module, x, check_trace=False)(x), wanted) <= TOLERANCE[torch.float32]


@torch.no_grad()
def test_nothing_new_is_saved():
    module, x = made(), image()
    names = list(module.state_dict())
    module(x)
    assert (
        list(module.state_dict())
        == names
        == ["conv.weight", "attention.log_radius"] + [f"attention.{name}.weight" for name in ("value", "proj")]
    )


def test_no_images_are_no_error():
    module = made().requires_grad_(False)
    assert module(image(batch=0)).shape == (0, 24, 7, 13)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_parts_of_any_kind_may_take_their_places(layout) -> None:
    class Mean(nn.Module):
        def forward(self, x):
            return x.mean(1, keepdim=True).expand(-1, 2, -1, -1)

    module, x = made(), image().contiguous(memory_format=layout)
    module.conv = nn.Sequential(nn.Conv2d(22, 22, 3, padding=1, groups=22), nn.Conv2d(22, 22, 1))
    for mode in (module.eval, module.train):
        whole = mode()(x)
        torch.testing.assert_close(whole, torch.cat([module.conv(x), module.attention(x)], 1), rtol=1e-4, atol=1e-5)
    module.attention = Mean()
    assert torch.equal(module(x)[:, 22:], Mean()(x))
    assert "22, 24, dim_value=2" in repr(module)
    other = foveate.nn.AttentionAugmentedConv2d(16, 40, num_heads=2, feat_size=4)
    other.conv = nn.Identity()
    assert "16, 40" in repr(other)
