"""Attention that is switched off: what is left, by the limits of the equations; and where the gradient goes."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

import foveate
from foveate.explain.usage import attention_off, gradient_shares, parts_of
from foveate.nn import PositionwiseAttention2d, RectangularAttention2d
from tests.comparison import relative_error

IMAGES = torch.randn(3, 3, 23, 29, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([1, 4, 9])


def network(name: str, **kwargs: object) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=10, **kwargs).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return model


@pytest.mark.parametrize("name", ["cram_resnet_tiny", "positionwise_resnet_tiny"])
def test_without_its_gate_a_network_is_the_one_that_it_was_inserted_in(name: str) -> None:
    model = network(name)
    plain = timm.create_model("conv_resnet_tiny", num_classes=10).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if ".attention." not in k})
    assert relative_error(model(IMAGES), plain(IMAGES)) > 1e-3
    with attention_off(model):
        assert torch.equal(model(IMAGES), plain(IMAGES))


def test_explicit_attention_is_left_with_a_radius_of_zero() -> None:
    model = network("expatt_resnet_tiny")
    narrow = copy.deepcopy(model)
    with torch.no_grad():
        for module in narrow.modules():
            if isinstance(module, foveate.nn.ExplicitAttention2d):
                module.log_radius.fill_(-20)
    assert relative_error(model(IMAGES), narrow(IMAGES)) > 1e-4
    with attention_off(model):
        assert relative_error(model(IMAGES), narrow(IMAGES)) < 1e-6


def test_augmented_attention_is_left_with_each_position_alone() -> None:
    """Where there is but one position, and where all are alike, that changes nothing; elsewhere it does."""
    torch.manual_seed(0)
    module = foveate.nn.AttentionAugmentedConv2d(5, 44, num_heads=2, feat_size=7).eval()
    one = torch.randn(2, 5, 1, 1)
    inputs = (one, one.expand(-1, -1, 4, 5), IMAGES[:, :1].expand(-1, 5, -1, -1))
    with attention_off(module):
        off = [module(x) for x in inputs]
    on = [module(x) for x in inputs]
    assert relative_error(off[0], on[0]) < 1e-6
    assert relative_error(off[1], on[1]) < 1e-6
    assert torch.equal(off[2][:, : -module.dim_value], on[2][:, : -module.dim_value])
    assert relative_error(off[2][:, -module.dim_value :], on[2][:, -module.dim_value :]) > 0.1


def test_global_self_attention_loses_the_part_that_is_named() -> None:
    model = network("gsa_resnet_tiny")
    assert parts_of(model) == ["content", "positional"]
    for part, other in (("content", "positional"), ("positional", "content")):
        left = network("gsa_resnet_tiny", part=other)
        state = {}
        for key, value in left.state_dict().items():
            held = model.state_dict()[key]
            if held.shape != value.shape:  # the projection, of which the keys are not there
                keys = (held.shape[0] - value.shape[0],)
                values = held.shape[0] - 2 * keys[0]
                held = torch.cat([held[: keys[0]], held[-values:]])
            state[key] = held
        left.load_state_dict(state)
        with attention_off(model, part):
            assert relative_error(model(IMAGES), left(IMAGES)) < 1e-6
        assert parts_of(left) == []


@pytest.mark.parametrize("name", ["cram_resnet_tiny", "gsa_resnet_tiny", "expatt_resnet_tiny", "aa_resnet_tiny"])
def test_the_network_is_left_as_it_was(name: str) -> None:
    model = network(name)
    before, logits = [dict(vars(module)) for module in model.modules()], model(IMAGES)
    with pytest.raises(RuntimeError, match="on the way"), attention_off(model, parts_of(model)[0]):
        raise RuntimeError("on the way")
    gradient_shares(model, IMAGES, LABELS)
    assert [dict(vars(module)) for module in model.modules()] == before
    assert torch.equal(model(IMAGES), logits)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_is_not_there_cannot_be_switched_off() -> None:
    with (
        pytest.raises(ValueError, match="part must be one of content, positional; got 'attention'"),
        attention_off(network("gsa_resnet_tiny")),
    ):
        pass
    assert parts_of(network("conv_resnet_tiny")) == []


@pytest.mark.parametrize("attention", [RectangularAttention2d, PositionwiseAttention2d])
def test_shares_of_the_gradient_are_those_of_the_sums_written_out(attention: type[nn.Module]) -> None:
    torch.manual_seed(1)
    model = foveate.insert(timm.create_model("conv_resnet_tiny", num_classes=10), attention, at=-2).eval()
    (found,) = gradient_shares(model, IMAGES, LABELS).values()
    nn.functional.cross_entropy(model(IMAGES), LABELS).backward()
    squares = {name: float(p.grad.double().square().sum()) for name, p in model.named_parameters()}
    own = sum(square for name, square in squares.items() if ".attention." in name)
    assert found == pytest.approx(own / sum(squares.values()), rel=1e-6)
    assert found > 0


def test_the_radius_alone_is_the_map_of_explicit_attention() -> None:
    model = network("expatt_resnet_tiny")
    shares = gradient_shares(model, IMAGES, LABELS)
    nn.functional.cross_entropy(model(IMAGES), LABELS).backward()
    total = sum(float(p.grad.double().square().sum()) for p in model.parameters())
    assert len(shares) == 3
    for name, share in shares.items():
        assert share == pytest.approx(float(model.get_submodule(name).log_radius.grad.square()) / total, rel=1e-5)


def test_queries_keys_and_tables_are_the_map_of_global_self_attention() -> None:
    model = network("gsa_resnet_tiny")
    shares = gradient_shares(model, IMAGES, LABELS)
    nn.functional.cross_entropy(model(IMAGES), LABELS).backward()
    total = sum(float(p.grad.double().square().sum()) for p in model.parameters())
    for name, share in shares.items():
        module = model.get_submodule(name)
        gradients = [module.qkv.weight.grad[: 2 * module.dim_key], module.rel_height.grad, module.rel_width.grad]
        assert share == pytest.approx(sum(float(g.double().square().sum()) for g in gradients) / total, rel=1e-5)


def test_a_frozen_network_has_the_shares_of_a_free_one() -> None:
    model = network("expatt_resnet_tiny")
    wanted = gradient_shares(model, IMAGES, LABELS)
    model.requires_grad_(False)
    assert gradient_shares(model, IMAGES, LABELS) == wanted
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_gradients_are_had_in_inference_mode_too() -> None:
    network = timm.create_model("gsa_resnet_tiny", num_classes=3)
    images, labels = torch.randn(2, 3, 32, 32), torch.tensor([0, 2])
    wanted = gradient_shares(network, images, labels)
    with torch.inference_mode():
        assert gradient_shares(network, images.clone(), labels.clone()) == wanted


def test_frozen_parameters_of_a_subclass_stay_frozen() -> None:
    class Parameter(nn.Parameter):
        pass

    network = timm.create_model("expatt_resnet_tiny", num_classes=10)
    network.fc.weight = Parameter(network.fc.weight.detach())
    network.register_parameter("count", nn.Parameter(torch.arange(3), requires_grad=False))
    network.requires_grad_(False)
    images, labels = torch.randn(2, 3, 32, 32), torch.tensor([3, 7])
    assert all(0 <= share <= 1 for share in gradient_shares(network, images, labels).values())
    assert not any(parameter.requires_grad for parameter in network.parameters())
