"""What ours are compared with before they are timed: it must be right itself, and find what is wrong."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

from foveate import functional as FA
from foveate.nn import ExpAttConv2d, GlobalSelfAttention2d, PositionwiseAttention2d, RectangularAttention2d
from studies.bench.correctness import against_eager, against_reference, relative_error
from studies.bench.dense import DenseExplicit, FactoredExplicit, SoftmaxAttention2d
from studies.bench.references import (
    explicit_conv_reference,
    explicit_reference,
    gate_reference,
    global_self_reference,
    network_reference,
)
from studies.bench.subject import Reference, prepared

DTYPE = torch.float32
CHANNELS = 6
MODULES: list[tuple[nn.Module, Reference]] = [
    *((FactoredExplicit(kernel), explicit_reference(kernel)) for kernel in FA.KERNELS),
    (ExpAttConv2d(CHANNELS, 11, value_ratio=0.3), explicit_conv_reference()),
    (GlobalSelfAttention2d(CHANNELS, 9, num_heads=3, dim_key=6, feat_size=(7, 5)), global_self_reference()),
    (RectangularAttention2d(CHANNELS), gate_reference()),
    (PositionwiseAttention2d(CHANNELS), gate_reference()),
]


@pytest.mark.parametrize(("module", "reference"), MODULES, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(("height", "width"), [(11, 7), (3, 29)])
def test_ours_agree(module: nn.Module, reference: Reference, height: int, width: int) -> None:
    """At 11×7, GSA's table of 7 rows and 5 columns is too small: offsets outside it must not attend in either."""
    module = prepared(lambda: module, 3).train()
    x = torch.randn(4, CHANNELS, height, width).contiguous(memory_format=torch.channels_last)
    check = against_reference(module, module, x, reference, dtype=DTYPE, gradients=True)
    assert check.passed
    assert len(check.errors) == 2
    assert max(check.errors) < 2e-5
    assert module.training


@pytest.mark.parametrize(
    ("name", "size"), [("gsa_resnet_tiny", 40), ("expatt_resnet_tiny", 33), ("cram_resnet_tiny", 32)]
)
def test_networks_of_ours_agree(name: str, size: int) -> None:
    network = prepared(lambda: timm.create_model(name, num_classes=7), 0)
    x = torch.randn(3, 3, size, size)
    check = against_reference(network, network, x, network_reference(), dtype=DTYPE, gradients=False)
    assert check.passed
    assert len(check.errors) == 1


@pytest.mark.parametrize("stages", ["layer2", "layer4"])
def test_a_network_whose_attention_is_wrong_is_found(stages: str) -> None:
    network = prepared(lambda: timm.create_model("gsa_resnet_tiny", num_classes=7), 0)
    run = prepared(lambda: timm.create_model("gsa_resnet_tiny", num_classes=7), 0)
    for module in run.get_submodule(stages).modules():
        if isinstance(module, GlobalSelfAttention2d):
            module.rel_height.data = module.rel_height.data.flip(0)
    x = torch.randn(3, 3, 32, 32)
    assert not against_reference(run, network, x, network_reference(), dtype=DTYPE, gradients=False).passed


class WrongGradient(torch.autograd.Function):
    """The identity, with a gradient that is a per mille too large."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return 1.001 * grad


class Changed(nn.Module):
    """A module whose output passes through a function."""

    def __init__(self, module: nn.Module, function: object) -> None:
        super().__init__()
        self.module, self.function = module, function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.module(x))


def last_image_shifted(out: Tensor) -> Tensor:
    return torch.cat([out[:-1], out[-1:].roll(1, -1)])


def wrong_gradient(out: Tensor) -> Tensor:
    return WrongGradient.apply(out)


def not_a_number(out: Tensor) -> Tensor:
    return out * float("nan")


@pytest.mark.parametrize("number", range(len(MODULES)))
@pytest.mark.parametrize("change", [last_image_shifted, not_a_number, lambda out: 1.001 * out, wrong_gradient])
def test_what_is_wrong_is_found(number: int, change: object) -> None:
    module, reference = MODULES[number]
    module = prepared(lambda: module, 3)
    x = torch.randn(5, CHANNELS, 7, 13)
    wrong = Changed(module, change)
    assert not against_reference(wrong, module, x, reference, dtype=DTYPE, gradients=True).passed
    assert not against_eager(wrong, module, x, dtype=DTYPE, gradients=True).passed
    forward = against_reference(wrong, module, x, reference, dtype=DTYPE, gradients=False)
    assert forward.passed == (change is wrong_gradient)


@pytest.mark.parametrize("through", ["matmul", "sdpa"])
def test_the_dense_routes_give_the_gaussian(through: str) -> None:
    x = torch.randn(2, 5, 7, 11).contiguous(memory_format=torch.channels_last)
    ours, dense = FactoredExplicit("gaussian"), DenseExplicit(through)
    assert relative_error(dense(x), ours(x)) < 1e-5


def test_softmax_attention_is_what_it_says() -> None:
    module, x = SoftmaxAttention2d(6, num_heads=2).double(), torch.randn(2, 6, 3, 5, dtype=torch.float64)
    query, key, value = (part.unflatten(1, (2, 3)).flatten(3) for part in module.qkv(x).chunk(3, 1))  # B, 2, 3, N
    weights = (torch.einsum("bhdi,bhdj->bhij", query, key) / 3**0.5).softmax(-1)
    wanted = torch.einsum("bhij,bhdj->bhdi", weights, value).reshape(2, 6, 3, 5)
    assert relative_error(module(x), wanted) < 1e-12
