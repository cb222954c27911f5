"""Networks taken apart, wrapped and replaced by other people's tools: their attention comes along, or it is an error.

Each case does something to a network with inserted attention. Then either the output and
the gradients are those of the attended network and the attention is in ``state_dict``, or an error was raised.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from timm.layers import convert_sync_batchnorm, freeze_batch_norm_2d
from timm.utils import freeze
from torch import nn
from torch.nn.utils import prune
from torchvision.models import resnet18
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection.backbone_utils import BackboneWithFPN

import foveate
from foveate.models.inspection import attention_modules
from foveate.nn import PositionwiseAttention2d, RectangularAttention2d
from tests.sweeps import in_turn

FAMILIES = [
    "resnet18",
    "resnext50_32x4d",
    "regnety_002",
    "efficientnet_lite0",
    "mobilenetv3_small_050",
    "convnext_atto",
    "densenet121",
    "vgg11_bn",
    "dla46_c",
    "hrnet_w18_small",
    "repvgg_a0",
    "ghostnet_050",
    "rexnet_100",
    "mobilenetv4_conv_small_050",
]
LIKE_OTHERS = (
    *("resnext50_32x4d", "regnety_002", "mobilenetv3_small_050", "dla46_c"),
    *("repvgg_a0", "ghostnet_050", "rexnet_100", "mobilenetv4_conv_small_050"),
)
"""Those that are built of the same blocks as another one, for operations that know nothing of the network."""
NARROWER = {"vgg11_bn": {"mlp_ratio": 1 / 32}}
"""Options by which the head of a network is no larger than the rest."""
GATES = {"cram": RectangularAttention2d, "positionwise": PositionwiseAttention2d}
IMAGE = torch.randn(2, 3, 32, 64, generator=torch.Generator().manual_seed(0))


def attended(name: str, gate: str, at: int | str = -2) -> nn.Module:
    """Return a network with attention that has learnt something, so that its absence shows."""
    torch.manual_seed(0)
    model = foveate.insert(timm.create_model(name, num_classes=7, **NARROWER.get(name, {})), GATES[gate], at=at).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in attention_modules(model).values():
            for parameter in module.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def children_in_a_row(model: nn.Module) -> nn.Module:
    return nn.Sequential(*model.children())


SURGERIES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "deepcopy": copy.deepcopy,
    "sync_batchnorm": convert_sync_batchnorm,
    "freeze_batch_norm": lambda model: freeze_batch_norm_2d(model),
    "torch_sync_batchnorm": nn.SyncBatchNorm.convert_sync_batchnorm,
    "double_and_back": lambda model: model.double().float(),
    "checkpointing": lambda model: model.set_grad_checkpointing(True) or model,
    "channels_last": lambda model: model.to(memory_format=torch.channels_last),
    "state_dict": lambda model: (model.load_state_dict(model.state_dict(), assign=True), model)[1],
}


OPERATED = [
    pytest.param(*one.values, marks=pytest.mark.exhaustive if one.values[0] in LIKE_OTHERS else one.marks)
    for one in in_turn(FAMILIES, GATES)
]


def gradient_of_attention(model: nn.Module) -> list[torch.Tensor]:
    parameters = [p.requires_grad_() for module in attention_modules(model).values() for p in module.parameters()]
    return list(torch.autograd.grad(model(IMAGE).square().mean(), parameters))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "gate"), OPERATED)
def test_attention_comes_along(name: str, gate: str) -> None:
    model = attended(name, gate)
    own = [f"{path}.{key}" for path, module in attention_modules(model).items() for key in module.state_dict()]
    with torch.no_grad():
        wanted = model(IMAGE)
    gradients = gradient_of_attention(model)
    for surgery, operate in SURGERIES.items():
        try:
            result = operate(copy.deepcopy(model))
        except AssertionError:  # VGG does not checkpoint, and says so
            continue
        if surgery != "torch_sync_batchnorm":  # its modules compute on a GPU only
            with torch.no_grad():
                assert torch.allclose(result(IMAGE), wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max())), surgery
            for found, gradient in zip(gradient_of_attention(result), gradients, strict=True):
                error = (found - gradient).abs().max()
                assert error <= 2e-3 * float(gradient.abs().max()) + 1e-9, surgery
        assert set(own) <= set(result.state_dict()), surgery


@pytest.mark.slow
@pytest.mark.parametrize(("name", "gate"), OPERATED)
def test_it_is_frozen_with_its_stage_and_replaced_like_any_module(name: str, gate: str) -> None:
    model = attended(name, gate)
    (first, *_), stage = attention_modules(model), model.feature_info[-2]["module"]
    around = stage if first.startswith(f"{stage}.") else first
    freeze(model, [around], include_bn_running_stats=False)
    assert not any(p.requires_grad for p in model.get_submodule(first).parameters())
    with torch.no_grad():
        wanted = model(IMAGE)
    path, _, last = first.rpartition(".")
    plain = timm.create_model(name, num_classes=7, **NARROWER.get(name, {})).eval()
    plain.load_state_dict({key: value for key, value in model.state_dict().items() if key in plain.state_dict()})
    for each in attention_modules(model):
        path, _, last = each.rpartition(".")
        setattr(model.get_submodule(path), last, nn.Identity())
    with torch.no_grad():
        assert torch.allclose(model(IMAGE), plain(IMAGE), rtol=1e-5, atol=1e-6)
        assert not torch.equal(model(IMAGE), wanted)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "gate"), in_turn(FAMILIES, GATES))
def test_networks_of_features_attend_or_refuse(name: str, gate: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, features_only=True)
    model = model.eval()
    with torch.no_grad():
        before = model(IMAGE)
    if name == "densenet121":  # its stage is called part by part
        with pytest.raises(ValueError, match="would not be computed"):
            foveate.insert(model, GATES[gate], at=-2)
        return
    foveate.insert(model, GATES[gate], at=-2)
    with torch.no_grad():
        after = model(IMAGE)
    differ = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert any(differ)
    assert attention_modules(model)
    assert any("attention" in key for key in model.state_dict())


@pytest.mark.parametrize("name", [f"{gate}_resnet_tiny" for gate in GATES])
def test_registered_networks_in_torchvisions_pyramid(name: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=7).eval()
    layers = {"layer2": "0", "layer3": "1", "layer4": "2"}
    backbone = BackboneWithFPN(model, layers, [96, 192, 384], 16).eval()
    assert sum("attention" in key for key in backbone.state_dict()) == len(
        [key for key in model.state_dict() if "attention" in key]
    )
    model.zero_grad()
    sum(x.square().mean() for x in backbone(IMAGE).values()).backward()
    assert all(p.grad is not None for m in attention_modules(backbone).values() for p in m.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("gate", GATES.values())
def test_torchvisions_network_taken_apart(gate: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = foveate.insert(resnet18(weights=None), gate, at="layer3").eval()
    body = nn.Sequential(*list(model.children())[:-2])
    assert list(attention_modules(body)) == ["6.attention"]
    features = IntermediateLayerGetter(model, {"layer4": "out"})(IMAGE)["out"]
    assert torch.equal(body(IMAGE), features)
    body.double()
    assert {p.dtype for p in attention_modules(body)["6.attention"].parameters()} == {torch.float64}


def test_children_of_a_registered_network_give_features() -> None:
    model = timm.create_model("cram_resnet_tiny", num_classes=7).eval()
    body = nn.Sequential(*list(model.children())[:-1])  # all but the classifier
    assert torch.equal(model.fc(body(IMAGE)), model(IMAGE))


def test_removing_it_removes_it() -> None:
    model = attended("resnet18", "cram")
    with torch.no_grad():
        before = model(IMAGE)
        del model.layer3.attention
        assert not attention_modules(model)
        assert not torch.equal(model(IMAGE), before)


def low_rank(linear: nn.Module) -> nn.Module:
    """Return a layer with a low-rank addition, as PEFT's LoRA wraps one: the layer is called, not read."""

    class LoRA(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base_layer = linear
            self.down = nn.Linear(linear.in_features, 2, bias=False)
            self.up = nn.Linear(2, linear.out_features, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.base_layer(x) + self.up(self.down(x))

    return LoRA()


def test_an_adapted_readout_computes_at_once_and_merged_the_same() -> None:
    torch.manual_seed(0)
    module = RectangularAttention2d(6).eval()
    x = torch.randn(2, 6, 5, 7)
    before = module(x)
    linear = module.readout
    module.readout = low_rank(linear)
    adapted = module(x)
    assert not torch.allclose(adapted, before)
    with torch.no_grad():
        linear.weight.add_(module.readout.up.weight @ module.readout.down.weight)
    module.readout = linear
    assert torch.allclose(module(x), adapted, atol=1e-6)


SUBMODULES: dict[str, Callable[[], nn.Module]] = {
    "rectangular": lambda: RectangularAttention2d(6),
    "positionwise": lambda: PositionwiseAttention2d(6),
    "explicit": lambda: foveate.nn.ExplicitAttention2d(6),
    "expatt": lambda: foveate.nn.ExpAttConv2d(6, 11),
    "global_self": lambda: foveate.nn.GlobalSelfAttention2d(6, num_heads=2, feat_size=(5, 7)),
    "augmented": lambda: foveate.nn.AttentionAugmentedConv2d(6, 44, num_heads=2, feat_size=7),
}


@pytest.mark.parametrize("make", SUBMODULES.values(), ids=SUBMODULES)
def test_every_submodule_is_called_and_none_is_read(make: Callable[[], nn.Module]) -> None:
    """Each layer with weights is replaced by one that has no attributes: it still computes the same."""

    class Opaque(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.hidden = [layer]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.hidden[0](x)

    torch.manual_seed(0)
    module = make().eval()
    x = torch.randn(2, 6, 5, 7)
    wanted = module(x)
    for name, layer in list(module.named_modules()):
        if name and not list(layer.children()):
            path, _, last = name.rpartition(".")
            setattr(module.get_submodule(path), last, Opaque(layer))
    assert torch.allclose(module(x), wanted, atol=1e-6)


@pytest.mark.parametrize("make", SUBMODULES.values(), ids=SUBMODULES)
def test_pruned_normalised_and_quantised_layers_train_on(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 6, 5, 7)
    for change in (
        lambda layer: prune.l1_unstructured(layer, "weight", amount=0.3),
        nn.utils.parametrizations.weight_norm,
    ):
        module = make()
        for layer in list(module.modules()):
            if isinstance(layer, nn.Linear | nn.Conv2d):
                change(layer)
        optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
        outputs: list[Any] = []
        for _ in range(3):
            optimiser.zero_grad()
            outputs.append(module(x))
            outputs[-1].square().mean().backward()
            optimiser.step()
        assert not torch.equal(outputs[-1], outputs[0])
    quantised = torch.ao.quantization.quantize_dynamic(make().eval(), {nn.Linear}, dtype=torch.qint8)
    assert quantised(x).isfinite().all()
