"""What is recorded of attention against plain loops over the public maps, and a network that is left alone."""

from __future__ import annotations

import cmath
import copy
import pickle

import pytest
import timm
import torch
from torch import nn

import foveate
from foveate.explain import attention_records
from foveate.explain.records import GATE, QUERIED, RECEIVED, position_of, shares
from foveate.models.dense import build_segmenter
from foveate.nn import (
    AttentionAugmentedConv2d,
    ExpAttConv2d,
    ExplicitAttention2d,
    GlobalSelfAttention2d,
    PositionwiseAttention2d,
    RectangularAttention2d,
)

HEIGHT, WIDTH = 7, 11
TINY = ["expatt_resnet_tiny", "gsa_resnet_tiny", "aa_resnet_tiny", "cram_resnet_tiny", "positionwise_resnet_tiny"]


def scrambled(module: nn.Module) -> nn.Module:
    """Give every parameter a value of some size, gates too, which start flat."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    for name, buffer in module.named_buffers():
        if name.endswith("running_var"):
            nn.init.uniform_(buffer, 0.3, 3.0)
    return module


def applied_map(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return the weights that were applied: of GSA, the positional ones scaled by the normalisation between passes."""
    if not isinstance(module, GlobalSelfAttention2d):
        return module.attention_map(x)
    norm = module.norm
    gain = (norm.weight / (norm.running_var + norm.eps).sqrt()).view(module.num_heads, -1).mean(1)
    return module.attention_map(x, "content") + gain[:, None, None] * module.attention_map(x, "positional")


PAIRWISE = {
    "gsa": (lambda: GlobalSelfAttention2d(6, 8, num_heads=4, dim_key=8, feat_size=(7, 11), stride=2), (7, 11)),
    "aa": (lambda: AttentionAugmentedConv2d(6, 40, num_heads=2, value_ratio=0.2, min_dim_key=3, stride=2), (4, 6)),
    "aa half": (lambda: AttentionAugmentedConv2d(6, 40, num_heads=2, min_dim_key=3, downsample=True), (4, 6)),
    "expatt": (lambda: ExplicitAttention2d(6, 5, radius=1.5, stride=2), (4, 6)),
    "expatt conv": (lambda: ExpAttConv2d(6, 20, kernel="cone", radius=3.0), (7, 11)),
}


@pytest.mark.parametrize("query", [None, (0, 0), (6, 4)])
@pytest.mark.parametrize("kind", PAIRWISE)
def test_received_attention_equals_a_plain_loop(kind: str, query: tuple[int, int] | None) -> None:
    build, (height, width) = PAIRWISE[kind]
    torch.manual_seed(0)
    module = scrambled(build()).double()
    x = torch.randn(2, 6, HEIGHT, WIDTH, dtype=torch.float64)
    (record,) = attention_records(module, x, query=query)
    maps = applied_map(module, x).expand(2, -1, -1, -1).tolist()
    positions = range(height * width)
    asked = positions
    if query is not None:  # the position whose part of the image holds the middle of that pixel
        row, column = int((query[0] + 0.5) / HEIGHT * height), int((query[1] + 0.5) / WIDTH * width)
        asked = [row * width + column]
    for image in range(2):
        received = [sum(abs(head[i][j]) for head in maps[image] for i in asked) for j in positions]
        expected = [[received[y * width + x] for x in range(width)] for y in range(height)]
        expected = torch.tensor(expected, dtype=torch.float64) / sum(received) * len(positions)
        torch.testing.assert_close(record.map[image].double(), expected, rtol=1e-5, atol=1e-6)
    assert record.scale == (RECEIVED if query is None else QUERIED)


def test_uniform_attention_is_one_everywhere() -> None:
    module = ExplicitAttention2d(3, radius=1e6)
    (record,) = attention_records(module, torch.randn(1, 3, HEIGHT, WIDTH))
    torch.testing.assert_close(record.map, torch.ones(1, HEIGHT, WIDTH))


def test_attention_to_an_empty_input_prefers_no_position() -> None:
    torch.manual_seed(0)
    module = GlobalSelfAttention2d(6, num_heads=2, dim_key=6, feat_size=(HEIGHT, WIDTH))
    (record,) = attention_records(module, torch.zeros(2, 6, HEIGHT, WIDTH))
    assert torch.equal(module.attention_map(torch.zeros(1, 6, HEIGHT, WIDTH)).abs().sum(), torch.tensor(0.0))
    assert torch.equal(record.map, torch.ones(2, HEIGHT, WIDTH))


def test_the_radius_is_in_pixels_of_map_and_image() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=(3, 2), padding=1), ExplicitAttention2d(4, radius=1.5, stride=2))
    (record,) = attention_records(network, torch.randn(2, 3, 36, 20))
    assert record.map.shape == (2, 6, 5)
    assert record.radius == pytest.approx(1.5)
    assert record.radius_image == pytest.approx((1.5 * 20 / 5, 1.5 * 36 / 6))


def test_gates_are_recorded_as_they_are() -> None:
    torch.manual_seed(0)
    for build in (PositionwiseAttention2d, RectangularAttention2d):
        module = scrambled(build(6))
        x = torch.randn(3, 6, HEIGHT, WIDTH)
        (record,) = attention_records(module, x, query=(1, 1))
        assert torch.equal(record.map, module.attention_map(x)[:, 0])
        assert record.map.std() > 0.01
        assert record.scale == GATE
        assert record.query is None


def test_corners_of_the_rectangle_in_pixels() -> None:
    """The pixel (x, y) of an image has its middle at ((2x + 1)/W − 1, (2y + 1)/H − 1)."""
    torch.manual_seed(0)
    module = scrambled(RectangularAttention2d(3))
    x = torch.randn(4, 3, HEIGHT, WIDTH)
    (record,) = attention_records(module, x)
    for corners, (cx, cy, sx, sy, angle) in zip(record.rectangle, module.rectangle(x).tolist(), strict=True):
        turn = cmath.exp(1j * angle)
        expected = [complex(cx, cy) + turn * complex(u * sx, v * sy) for u, v in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
        expected = [((z.real + 1) * WIDTH / 2, (z.imag + 1) * HEIGHT / 2) for z in expected]
        torch.testing.assert_close(corners, torch.tensor(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", TINY)
def test_every_attention_module_of_a_network_is_recorded_once(name: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=10)
    images = torch.randn(2, 3, 23, 31)
    records = attention_records(model, images)
    attention = (ExplicitAttention2d, GlobalSelfAttention2d, AttentionAugmentedConv2d)
    attention += (RectangularAttention2d, PositionwiseAttention2d)
    expected = [name for name, module in model.named_modules() if isinstance(module, attention)]
    assert sorted(record.name for record in records) == sorted(expected)
    assert all(type(model.get_submodule(record.name)).__name__ == record.kind for record in records)
    assert all(record.image_size == (23, 31) for record in records)
    (last,) = attention_records(model, images, names=[expected[-1]])
    assert torch.equal(last.map, next(record.map for record in records if record.name == expected[-1]))


def test_a_network_without_attention_has_no_records() -> None:
    assert attention_records(timm.create_model("resnet10t"), torch.randn(1, 3, 32, 32)) == []


def test_the_input_of_a_module_is_that_of_the_pass() -> None:
    """Behind batch normalisation: recorded with running statistics, though the network is in training mode."""
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), scrambled(PositionwiseAttention2d(6)))
    images = torch.randn(4, 3, 9, 8)
    model(images)
    (record,) = attention_records(model.train(), images)
    features = model[:3].eval()(images)
    torch.testing.assert_close(record.map, model[3].attention_map(features)[:, 0])


@pytest.mark.parametrize("name", TINY)
def test_the_network_is_left_exactly_as_it_was(name: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=10, drop_rate=0.5).train()
    model.layer2.eval()
    images = torch.randn(2, 3, 24, 24)
    modes = [module.training for module in model.modules()]
    state = copy.deepcopy(model.state_dict())
    generator = torch.get_rng_state()
    attention_records(model, images, query=(3, 5))
    assert torch.equal(generator, torch.get_rng_state())
    assert_untouched(model, modes, state)
    model.eval()
    before = model(images)
    attention_records(model, images)
    assert torch.equal(before, model(images))


class Failing(PositionwiseAttention2d):
    """Fails where it is told to."""

    def __init__(self, where: str) -> None:
        super().__init__(6)
        self.where = where

    def attention_map(self, x: torch.Tensor) -> torch.Tensor:
        if self.where == "map":
            raise RuntimeError("no map")
        return super().attention_map(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no forward")


@pytest.mark.parametrize("where", ["map", "forward"])
def test_the_network_is_left_as_it_was_when_the_pass_fails(where: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), PositionwiseAttention2d(6), Failing(where)).train()
    model[2].eval()
    modes, state = [module.training for module in model.modules()], copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match=f"no {where}"):
        attention_records(model, torch.randn(2, 3, 9, 9))
    assert_untouched(model, modes, state)
    assert torch.is_grad_enabled()


def assert_untouched(model: nn.Module, modes: list[bool], state: dict[str, torch.Tensor]) -> None:
    assert [module.training for module in model.modules()] == modes
    assert all(not module._forward_pre_hooks and not module._forward_hooks for module in model.modules())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_bad_input_is_refused() -> None:
    model = timm.create_model("cram_resnet_tiny", num_classes=10)
    images = torch.randn(2, 3, 24, 32)
    with pytest.raises(ValueError, match=r"images must be a batch \(B, C, H, W\).*\(3, 24, 32\)"):
        attention_records(model, images[0])
    with pytest.raises(ValueError, match="images must be a batch"):
        attention_records(model, images[:0])
    with pytest.raises(ValueError, match=r"model must be a torch\.nn\.Module.*got None"):
        attention_records(None, images)
    with pytest.raises(ValueError, match=r"query=\(24, 0\) lies outside of images of 24×32"):
        attention_records(model, images, query=(24, 0))
    with pytest.raises(ValueError, match=r"did you mean 'layer3\.attention'"):
        attention_records(model, images, names=["layer4.attention"])
    large = AttentionAugmentedConv2d(8, 80, feat_size=4)
    with pytest.raises(ValueError, match=r"at 100×99 has 7\.8e\+08 weights.*names=…, or give smaller images"):
        attention_records(nn.Sequential(large), torch.randn(1, 8, 100, 99))
    assert attention_records(model, images, query=(23, 31), names=["layer3.attention"])


@pytest.mark.slow
def test_maps_of_inserted_attention_in_a_network_with_branches() -> None:
    model = foveate.insert(timm.create_model("hrnet_w18_small", num_classes=3), PositionwiseAttention2d, at="stage4")
    records = attention_records(model, torch.randn(1, 3, 64, 64))
    assert [tuple(record.map.shape[1:]) for record in records] == [(16, 16), (8, 8), (4, 4), (2, 2)]


def test_maps_span_what_a_segmentation_network_pads_an_image_to() -> None:
    torch.manual_seed(0)
    model = build_segmenter("gsa_resnet26", {"img_size": 128}, num_classes=3).eval()
    image = torch.randn(1, 3, 100, 101)
    padded = torch.zeros(1, 3, 128, 128)
    padded[..., :100, :101] = image
    wrapped = nn.Sequential(nn.Identity(), model)
    calls = ((model, image), (wrapped, image), (model, padded))
    for own, within, other in zip(*(attention_records(*call, query=(99, 60)) for call in calls), strict=True):
        assert within.image_size == (128, 128)
        assert torch.equal(within.map, own.map)
        assert own.image_size == (128, 128)
        assert torch.equal(own.map, other.map)
    with pytest.raises(ValueError, match="100×101"):
        attention_records(model, image, query=(100, 0))


@pytest.mark.parametrize("name", TINY)
def test_an_explanation_is_pickled(name: str) -> None:
    explanation = foveate.explain(timm.create_model(name, num_classes=3), torch.randn(2, 3, 32, 32))
    for own, other in zip(explanation.records, pickle.loads(pickle.dumps(explanation)).records, strict=True):
        assert torch.equal(own.map, other.map)
        if own.weights is not None:
            assert torch.equal(own.attention_from((5, 9)), other.attention_from((5, 9)))


@pytest.mark.parametrize(("side", "positions"), [(11, 6), (200, 13), (33, 7)])
def test_a_pixel_is_of_the_position_that_it_is_drawn_in(side: int, positions: int) -> None:
    drawn = torch.nn.functional.interpolate(torch.arange(float(positions))[None, None], side, mode="nearest-exact")
    found = [position_of((pixel, 0), (side, 5), (positions, 2))[0] for pixel in range(side)]
    assert found == drawn.flatten().int().tolist()


def test_maps_without_numbers_are_not_flat() -> None:
    assert shares(torch.tensor([[[1.0, float("nan")]]])).isnan().all()
    assert shares(torch.zeros(1, 2, 2)).tolist() == [[[1, 1], [1, 1]]]
