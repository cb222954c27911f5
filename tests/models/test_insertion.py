"""Insertion of attention into timm's convolutional networks."""

from __future__ import annotations

import copy
import pickle

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

import foveate
from foveate.nn import PositionwiseAttention2d, RectangularAttention2d
from tests.comparison import relative_error
from tests.models.networks import network
from tests.sweeps import in_turn

FAMILIES = [
    "resnet18",
    "resnext50_32x4d",
    "regnety_002",
    "efficientnet_b0",
    "mobilenetv3_small_050",
    "convnext_atto",
    "densenet121",
    "vgg11_bn",
    "dla34",
    "hrnet_w18_small",
]


@pytest.fixture
def image():
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "at"), in_turn(FAMILIES, [-1, -2, -3]))
def test_the_stage_is_attended_to_once_and_keeps_its_names(name, at, image):
    model = network(name)
    names = list(model.state_dict())
    with torch.no_grad():
        before = model(image)
    inserted = foveate.insert(model, PositionwiseAttention2d, at=at)
    assert inserted is model
    assert [key for key in model.state_dict() if "attention" not in key] == names
    modules = [m for m in model.modules() if isinstance(m, PositionwiseAttention2d)]
    calls = []
    for module in modules:
        module.register_forward_hook(lambda m, inputs, output: calls.append((m, inputs[0], output)))
    with torch.no_grad():
        after = model(image)
    assert [m for m, _, _ in calls] == modules
    for module, x, gated in calls:
        with torch.no_grad():
            assert relative_error(gated, module.attention_map(x) * x) < 1e-6
    assert 0 < relative_error(after, before) < 0.2  # σ(3) on one stage: near the identity, but not nothing


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "regnety_002", "convnext_atto", "efficientnet_b0"])
def test_checkpointed_stages_are_attended_to_as_well(name, image):
    model = foveate.insert(network(name), RectangularAttention2d)
    with torch.no_grad():
        plain = model(image)
    model.set_grad_checkpointing(True)
    assert relative_error(model(image).detach(), plain) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "module", "where"),
    [
        ("resnet18", "layer2.0", "layer2.0.attention"),
        ("convnext_atto", "stages.1.blocks.0", "stages.1.blocks.0.attention"),
        ("vgg11_bn", "features.10", "features.10.attention"),  # a ReLU, which has no weights
        ("densenet121", "features.norm5", "features.norm5_attention"),
        ("efficientnet_b0", "blocks.2.1.se", "blocks.2.1.se.attention"),
    ],
)
def test_any_module_by_name(name, module, where, image):
    model = foveate.insert(network(name), RectangularAttention2d, at=module, sharpness=3.0)
    assert model.get_submodule(where).sharpness == 3.0
    seen = []
    model.get_submodule(where).register_forward_hook(lambda m, inputs, output: seen.append(output))
    with torch.no_grad():
        model(image)
    assert len(seen) == 1


@pytest.mark.slow
def test_several_stages_of_one_network(image):
    model = network("resnet18")
    for at in (1, 2, 3, 4):
        foveate.insert(model, RectangularAttention2d, at=at)
    places = [name for name, module in model.named_modules() if isinstance(module, RectangularAttention2d)]
    assert places == [f"layer{stage}.attention" for stage in (1, 2, 3, 4)]
    model.train()(image).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.slow
def test_copies_and_pickles_are_independent(image):
    model = foveate.insert(network("resnet18"), RectangularAttention2d)
    with torch.no_grad():
        before = model(image)
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(twin(image), before)
            twin.layer3.attention.readout.bias.fill_(-3.0)  # a small rectangle in the copy only
            assert not torch.equal(twin(image), before)
        assert torch.equal(model(image), before)


@pytest.mark.slow
def test_compiled_exported_and_traced(image):
    model = foveate.insert(network("resnet18", layers=(1, 1, 1, 1)), RectangularAttention2d)
    with torch.no_grad():
        eager = model(image)
        assert relative_error(torch.compile(model, fullgraph=True, backend="aot_eager")(image), eager) < 1e-5
        assert relative_error(torch.export.export(model, (image,)).module()(image), eager) < 1e-5
        assert torch.equal(torch.fx.symbolic_trace(model)(image), eager)


@pytest.mark.slow
def test_pretrained_weights_come_from_a_local_file_before_the_insertion(tmp_path):
    donor = network("resnet50")
    path = tmp_path / "resnet50.safetensors"
    save_file(donor.state_dict(), path)
    model = timm.create_model(
        "cram_resnet50", pretrained=True, pretrained_cfg_overlay={"file": str(path), "num_classes": 7}, num_classes=7
    )
    loaded = model.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in donor.state_dict().items())
    assert all(key.startswith("layer3.attention.") for key in loaded.keys() - donor.state_dict().keys())


def test_tables_of_a_checkpoint_are_fitted_when_it_is_loaded(tmp_path):
    donor = timm.create_model("gsa_resnet_tiny", num_classes=7, img_size=32)
    path = tmp_path / "gsa.safetensors"
    save_file(donor.state_dict(), path)
    overlay = {"file": str(path), "num_classes": 7}
    larger = timm.create_model(
        "gsa_resnet_tiny", num_classes=7, img_size=64, pretrained=True, pretrained_cfg_overlay=overlay
    )
    resized = foveate.resize_relative_tables(copy.deepcopy(donor), 64)
    for (key, a), (_, b) in zip(larger.named_parameters(), resized.named_parameters(), strict=True):
        assert torch.equal(a, b), key
    assert larger.layer1[0].conv2.feat_size == resized.layer1[0].conv2.feat_size == (64, 64)


def test_timm_takes_the_modules_as_its_attention_layer(image):
    for attention in (RectangularAttention2d, PositionwiseAttention2d):
        model = network("resnet50", block_args={"attn_layer": attention}, layers=(1, 1, 1, 1))
        assert isinstance(model.layer1[0].se, attention)
        with torch.no_grad():
            assert model(image).isfinite().all()


class Half(nn.Module):
    def __init__(self, *_, **__) -> None:
        super().__init__()

    def forward(self, x):
        return x / 2


class InPlace(nn.Module):
    """Adds its shortcut to what its body returns in the same memory, as torchvision's blocks do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3))

    def forward(self, x):
        y = self.body(x)
        y += x
        return y


def test_what_a_block_adds_in_place_is_attended_to_as_well() -> None:
    model, image = nn.Sequential(InPlace(), nn.Conv2d(3, 5, 1)).eval(), torch.randn(2, 3, 7, 11)
    expected = model[1](model[0](image) / 2)
    foveate.insert(model, Half, at="0")
    assert relative_error(model(image), expected) < 1e-6


def test_float16_networks_with_tables_are_tried_on_the_meta_device() -> None:
    model = foveate.insert(timm.create_model("gsa_resnet_tiny", img_size=32).half(), RectangularAttention2d)
    assert {p.dtype for p in model.layer3.attention.parameters()} == {torch.float16}
    assert foveate.resize_relative_tables(model, 48).layer1[0].conv2.feat_size == (48, 48)


def test_initial_weights_are_those_of_the_attention_wherever_it_is() -> None:
    model = timm.create_model("cram_resnet_tiny")
    attention = model.layer3.attention
    nn.init.normal_(attention.readout.weight)
    model.init_weights()
    fresh = RectangularAttention2d(attention.dim)
    spreads = [module.readout.weight.detach().std().item() for module in (attention, fresh)]
    assert spreads[0] == pytest.approx(spreads[1], rel=0.5, abs=1e-6)
