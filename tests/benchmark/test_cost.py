"""Costs against formulas written down by hand, published figures, and the promise to leave the network alone."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

import foveate
from foveate.benchmark import network_cost, step_flops
from foveate.models.dense.detector import build_detector
from foveate.nn import ExpAttConv2d


class Net(nn.Module):
    """A grouped strided convolution, a product of N×N maps, a layer that is used twice, and a list."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 10, (3, 5), stride=2, padding=(1, 2), groups=2)
        self.norm = nn.BatchNorm2d(10)
        self.twice = nn.Linear(10, 10, bias=False)
        self.heads = nn.ModuleList([nn.Linear(10, 3), nn.Linear(10, 4)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.conv(x))).flatten(2).transpose(1, 2)  # B, N, 10
        x = self.twice(self.twice(x))
        x = (x @ x.transpose(1, 2)).softmax(-1) @ x
        return torch.cat([head(x.mean(1)) for head in self.heads], dim=1)


def test_flops_equal_the_formula_derived_by_hand() -> None:
    cost = network_cost(Net(), (6, 11, 7))
    positions = 6 * 4  # ceil(11 / 2) · ceil(7 / 2)
    conv = 2 * positions * 10 * (3 * 3 * 5)  # each output channel reads its group of 3 input channels
    twice = 2 * (2 * positions * 10 * 10)
    maps = 2 * (2 * positions * positions * 10)
    heads = 2 * 10 * (3 + 4)
    flops = {row.name: row.flops for row in cost.modules}
    assert flops["conv"] == conv
    assert flops["twice"] == twice
    assert flops["heads"] == flops["heads.0"] + flops["heads.1"] == heads
    assert flops["norm"] == 0
    assert cost.flops == conv + twice + maps + heads


def test_parameters_equal_the_formula_and_a_shared_one_counts_once() -> None:
    model = Net()
    conv, norm, twice, heads = 10 * 3 * 3 * 5 + 10, 2 * 10, 100, (30 + 3) + (40 + 4)
    assert network_cost(model, (6, 11, 7)).parameters == conv + norm + twice + heads
    model.heads[1].weight = nn.Parameter(torch.zeros(3, 10))
    model.heads[1].bias = None
    model.heads[0].weight = model.heads[1].weight
    assert network_cost(model, (6, 11, 7)).parameters == conv + norm + twice + 30 + 3


def test_shapes_and_depth_of_the_rows() -> None:
    rows = {row.name: row for row in network_cost(Net(), (6, 11, 7)).modules}
    assert next(iter(rows)) == ""
    assert rows["conv"].output_shape == (10, 6, 4)
    assert rows["heads"].output_shape is None  # a list is never called
    assert [rows[name].depth for name in ("", "heads", "heads.1")] == [0, 1, 2]
    assert rows["heads.1"].kind == "Linear"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "gsa_resnet26", "aa_resnet26", "expatt_resnet26", "efficientnet_b0"])
def test_children_add_up_to_their_parent(name: str) -> None:
    with torch.device("meta"):
        cost = network_cost(timm.create_model(name), (3, 97, 61))
    leaves = [a for a in cost.modules if not any(b.name.startswith(f"{a.name}.") for b in cost.modules)]
    top = [row for row in cost.modules if row.depth == 1]
    assert sum(row.flops for row in top) == cost.flops
    assert sum(row.parameters for row in top) == cost.parameters
    assert sum(row.flops for row in leaves if row.name) <= cost.flops  # attention computes outside of its leaves


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parameters", "gflops"),
    [("resnet50", 25.557e6, 8.18e9), ("resnet152", 60.193e6, 23.03e9), ("mobilenetv3_large_100", 5.483e6, 0.433e9)],
)
def test_published_figures(name: str, parameters: float, gflops: float) -> None:
    with torch.device("meta"):
        cost = network_cost(timm.create_model(name))
    assert cost.parameters == pytest.approx(parameters, rel=2e-4)
    assert cost.flops == pytest.approx(gflops, rel=5e-3)


@pytest.mark.slow
def test_a_large_image_costs_in_proportion_to_its_pixels() -> None:
    """At 1024² the activations alone would take gigabytes; on the meta device they take nothing."""
    with torch.device("meta"):
        model = timm.create_model("resnet152", num_classes=0)
    assert network_cost(model, (3, 1024, 1024)).flops == 64 * network_cost(model, (3, 128, 128)).flops


@pytest.mark.slow
def test_attention_is_added_up_by_stage() -> None:
    attention = network_cost(timm.create_model("expatt_resnet26")).attention
    assert [(stage.stage, stage.modules) for stage in attention] == [("layer2", 2), ("layer3", 4), ("layer4", 1)]
    side, channels, d_v = 7, 512, 51  # layer4: values and their projection, then the factorised map
    projections = 2 * side**2 * (channels * d_v + d_v * d_v)
    assert attention[2].parameters == channels * d_v + d_v * d_v + 1
    assert attention[2].flops == projections + 2 * (2 * side**3 * d_v)


@pytest.mark.slow
def test_the_convolution_that_attention_augments_is_not_attention() -> None:
    cost = network_cost(timm.create_model("aa_resnet26"))
    rows = {row.name: row for row in cost.modules}
    whole, conv = rows["layer4.0.conv2"], rows["layer4.0.conv2.conv"]
    assert conv.flops > 0
    assert cost.attention[-1].stage == "layer4"
    assert cost.attention[-1].flops == whole.flops - conv.flops
    assert cost.attention[-1].parameters == whole.parameters - conv.parameters


@pytest.mark.slow
def test_inserted_attention_belongs_to_the_stage_that_it_looks_at() -> None:
    before = network_cost(timm.create_model("efficientnet_b0"), (3, 64, 96))
    after = network_cost(
        foveate.insert(timm.create_model("efficientnet_b0"), foveate.nn.PositionwiseAttention2d, at=-2), (3, 64, 96)
    )
    (stage,) = after.attention
    assert stage.stage == "blocks.4"
    assert stage.flops == after.flops - before.flops == 2 * 4 * 6 * (112 * 16 + 16)
    assert stage.parameters == after.parameters - before.parameters


@pytest.mark.slow
def test_attention_in_a_block_belongs_to_the_innermost_stage_around_it() -> None:
    model = timm.create_model("resnet26")
    for at in ("layer3.0", "layer4", "act1"):
        foveate.insert(model, foveate.nn.PositionwiseAttention2d, at=at)
    stages = [stage.stage for stage in network_cost(model, (3, 64, 96)).attention]
    assert stages == ["act1", "layer3", "layer4"]
    model.feature_info.append({"module": "layer3.0", "num_chs": 1024, "reduction": 16})
    assert network_cost(model, (3, 64, 96)).attention[1].stage == "layer3.0"
    model.feature_info = None
    assert network_cost(model, (3, 64, 96)).attention[1].stage == "layer3"


@pytest.mark.slow
def test_the_network_is_left_as_it_was() -> None:
    model = timm.create_model("resnet26", drop_rate=0.3).train()
    model.layer2.eval()
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    modes = [module.training for module in model.modules()]
    state, grads = copy.deepcopy(model.state_dict()), [p.grad.clone() for p in model.parameters()]
    seed = torch.get_rng_state()
    network_cost(model, (3, 64, 64))
    assert torch.equal(seed, torch.get_rng_state())
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(torch.equal(p.grad, grad) for p, grad in zip(model.parameters(), grads, strict=True))
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())


def test_half_precision_and_a_single_module() -> None:
    cost = network_cost(ExpAttConv2d(11, 20).bfloat16(), (11, 5, 7))
    assert cost.flops == network_cost(ExpAttConv2d(11, 20), (11, 5, 7)).flops > 0


def test_a_wrapped_network_costs_what_is_inside() -> None:
    network = timm.create_model("gsa_resnet_tiny", num_classes=3)
    assert network_cost(nn.DataParallel(network), (3, 32, 32)) == network_cost(network, (3, 32, 32))
    assert network_cost(torch.compile(network), (3, 32, 32)) == network_cost(network, (3, 32, 32))


def test_a_detector_in_half_precision_is_counted_and_one_without_numbers_refused() -> None:
    detector = build_detector("conv_resnet_tiny", {}, num_classes=3, img_size=(64, 64), detector="retinanet")
    half = network_cost(copy.deepcopy(detector).bfloat16(), (3, 64, 64))
    assert half.flops == network_cost(detector, (3, 64, 64)).flops > 0
    with pytest.raises(ValueError, match="meta"):
        network_cost(detector.to("meta"), (3, 64, 64))


def test_a_step_that_trains_nothing_is_refused() -> None:
    network = timm.create_model("conv_resnet_tiny").requires_grad_(False)
    with pytest.raises(ValueError, match="frozen"):
        step_flops(network, (3, 32, 32), input_gradient=False)
    assert step_flops(network, (3, 32, 32), input_gradient=True) > network_cost(network, (3, 32, 32)).flops


@pytest.mark.parametrize("size", [224, (224, 224), (3, 0, 224), (3, 224.0, 224), "3x224x224"])
def test_a_size_that_is_none_is_refused(size: object) -> None:
    with pytest.raises(ValueError, match="input_size"):
        network_cost(Net(), size)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "size"), [("resnet26", (1, 64, 64)), ("vit_tiny_patch16_224", (3, 256, 256))])
def test_an_image_that_the_network_does_not_take_is_refused(name: str, size: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=f"does not take an image of {size[0]}×{size[1]}×{size[2]}"):
        network_cost(timm.create_model(name), size)
