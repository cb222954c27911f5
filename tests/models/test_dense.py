"""Decoders and detectors on networks of this library and of timm."""

from __future__ import annotations

import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from timm.optim import create_optimizer_v2
from torch.nn import functional as F

import foveate  # noqa: F401  registers the networks
from foveate.export.program import export_program, smallest_side
from foveate.models.dense import DECODERS, DETECTORS, build_with_head
from foveate.models.inspection import attention_modules
from tests.sweeps import in_turn

SMALL = {"decoder_channels": [16, 8, 8]}
ARGUMENTS = {
    "unet": SMALL,
    "unetplusplus": SMALL,
    "fpn": {"decoder_pyramid_channels": 16, "decoder_segmentation_channels": 32},
    "deeplabv3plus": {"decoder_channels": 16, "decoder_atrous_rates": [1, 2, 3]},
    "segformer": {"decoder_segmentation_channels": 16},
    "upernet": {"decoder_channels": 16},
}
NARROW = {"channels": 32}


def targets(size: tuple[int, int]) -> list[dict[str, torch.Tensor]]:
    height, width = size
    masks = torch.zeros(2, height, width, dtype=torch.uint8)
    masks[0, 3:20, 4:25] = 1
    masks[1, 8:30, 1:14] = 1
    one = {
        "boxes": torch.tensor([[4.0, 3.0, 25.0, 20.0], [1.0, 8.0, 14.0, 30.0]]),
        "labels": torch.tensor([2, 0]),
        "ignored": torch.tensor([False, False]),
        "masks": masks,
    }
    none = {name: value[:0] for name, value in one.items()}
    return [one, none]


@pytest.mark.slow
@pytest.mark.parametrize(("decoder", "name"), in_turn(DECODERS, ["gsa_resnet_tiny", "positionwise_resnet_tiny"]))
def test_segmenters_learn_and_take_any_size(name: str, decoder: str) -> None:
    torch.manual_seed(0)
    network, kwargs = build_with_head(name, decoder, num_classes=3, img_size=(32, 48), head_args=ARGUMENTS[decoder])
    assert len(attention_modules(network)) == len(attention_modules(timm.create_model(name)))
    images = torch.randn(2, 3, 37, 53)
    labels = (images.mean(1) > 0).long()
    network.train()
    loss = F.cross_entropy(network(images), labels)
    loss.backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []
    network.eval()
    with torch.no_grad():
        padded = F.pad(images, (0, -53 % network.divisor, 0, -37 % network.divisor))
        assert torch.equal(network(images), network.model(padded)[..., :37, :53])
    assert kwargs["num_classes"] == 3


@pytest.mark.slow
@pytest.mark.parametrize(("detector", "name"), in_turn(DETECTORS, ["expatt_resnet_tiny", "cram_resnet_tiny"]))
def test_detectors_learn_and_find(name: str, detector: str) -> None:
    torch.manual_seed(0)
    size = (32, 48)
    network, _ = build_with_head(name, detector, num_classes=3, img_size=size, head_args=NARROW)
    images = torch.randn(2, 3, *size)
    network.train()
    losses = network(images, targets(size))
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    inside = {name: p for name, p in network.named_parameters() if ".pyramid." in name}
    assert [name for name, p in inside.items() if p.grad is None] == []
    network.eval()
    with torch.no_grad():
        found = network(images)
    assert [set(one) >= {"boxes", "labels", "scores"} for one in found] == [True, True]
    labels = torch.cat([one["labels"] for one in found])
    assert not len(labels) or (labels.min() >= 0 and labels.max() < 3)
    with pytest.raises(ValueError, match="targets"):
        network.train()(images)


def by_heart(head: str, updates: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Train a narrow detector on one picture; return its last losses, and by how much it misses the second object."""
    torch.manual_seed(0)
    network, _ = build_with_head("conv_resnet_tiny", head, num_classes=2, img_size=(64, 64), head_args=NARROW)
    images = torch.zeros(2, 3, 64, 64)
    images[:, 0, 8:40, 10:42] = 2
    images[:, 2, 36:60, 44:60] = 2
    wanted = {"boxes": torch.tensor([[10.0, 8, 42, 40], [44, 36, 60, 60]]), "labels": torch.tensor([1, 0])}
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    for _ in range(updates):
        optimizer.zero_grad()
        losses = network.train()(images, [wanted, wanted])
        sum(losses.values()).backward()
        optimizer.step()
    with torch.no_grad():
        found = network.eval()(images)[0]
    return losses, found["boxes"][found["labels"] == 0][0] - wanted["boxes"][1]


@pytest.mark.slow
def test_a_narrow_retinanet_learns_one_picture_by_heart() -> None:
    """With torchvision's own initial weights, its classification loss would stay above 1.1."""
    losses, error = by_heart("retinanet", 50)
    assert losses["classification"] < 0.6
    assert error.abs().max() <= 4


@pytest.mark.slow
def test_a_narrow_fcos_learns_one_picture_by_heart() -> None:
    losses, error = by_heart("fcos", 50)
    assert losses["bbox_regression"] < 0.3
    assert error.abs().max() <= 4


@pytest.mark.parametrize("channels", [32, 64])
def test_fcos_takes_one_image_whose_coarsest_map_has_one_position(channels: int) -> None:
    network, _ = build_with_head(
        "resnet10t", "fcos", num_classes=3, img_size=(96, 128), head_args={"channels": channels}
    )
    with torch.no_grad():
        (found,) = network.eval()(torch.randn(1, 3, 96, 128))
    assert found["boxes"].isfinite().all()


@pytest.mark.parametrize(("decoder", "name"), in_turn(DECODERS, ["conv_resnet_tiny", "resnet18"]))
def test_what_is_seen_at_a_place_is_answered_there(name: str, decoder: str) -> None:
    """Another corner of the image changes the logits in that corner most, by place, not a magnified corner."""
    torch.manual_seed(0)
    network, _ = build_with_head(name, decoder, num_classes=5, img_size=(128, 128))
    images = torch.randn(1, 3, 128, 128)
    other = images.clone()
    other[..., 96:, 96:] += 3
    with torch.no_grad():
        change = (network.eval()(images) - network(other)).abs().sum(1)[0]
    row, column = divmod(int(change.argmax()), 128)
    assert min(row, column) >= 80


@pytest.mark.parametrize("head", ["fasterrcnn", "maskrcnn"])
@pytest.mark.parametrize("side", [40, 64])
def test_regions_are_pooled_where_they_lie_in_padded_images_too(head: str, side: int) -> None:
    network, _ = build_with_head("resnet18", head, num_classes=2, img_size=(side, side), head_args=NARROW)
    heads = network.model.roi_heads
    pools = [heads.box_roi_pool] + ([heads.mask_roi_pool] if head == "maskrcnn" else [])
    for pool in pools:
        features = {}
        for level, step in enumerate((4, 8, 16, 32)):  # maps of where they are along x, in pixels
            n = 64 // step
            features[str(level)] = ((torch.arange(n) + 0.5) * step).expand(1, 1, n, n)
        for box in ([8.0, 8, 24, 24], [4.0, 4, 36, 36]):
            pooled = pool(features, [torch.tensor([box])], [(side, side)])
            # RoIAlign takes the middle of a pixel for its corner: half a step of 4 pixels.
            assert pooled.mean() == pytest.approx((box[0] + box[2]) / 2 + 2, abs=0.5)


@pytest.mark.parametrize("head", ["retinanet", "fcos"])
def test_one_stage_detectors_know_no_background(head: str) -> None:
    arguments = {**NARROW, "score_thresh": 0.0, "detections_per_img": 500}
    network, _ = build_with_head("conv_resnet_tiny", head, num_classes=3, img_size=(64, 64), head_args=arguments)
    with torch.no_grad():
        (found,) = network.eval()(torch.randn(1, 3, 64, 64))
    assert set(found["labels"].tolist()) == {0, 1, 2}


@pytest.mark.slow
@pytest.mark.parametrize("stem", ["small", "imagenet"])
def test_fcos_has_a_map_for_objects_of_every_size_and_begins_with_a_gradient_everywhere(stem: str) -> None:
    options, side = {"stem": stem}, 128 if stem == "small" else 256
    network, _ = build_with_head(
        "conv_resnet_tiny", "fcos", num_classes=2, img_size=(side, side), model_args=options, head_args=NARROW
    )
    model = network.model
    features = list(model.backbone(torch.randn(1, 3, side, side)).values())
    steps = [side // x.shape[-1] for x in features]
    assert [(one[0, 2:] - one[0, :2]).tolist() for one in model.anchor_generator.cell_anchors] == [
        [s, s] for s in steps
    ]
    for extent in (6.0, 9.0, 14.0, 30.0):
        target = {"boxes": torch.tensor([[20.0, 20, 20 + extent, 20 + extent]]), "labels": torch.tensor([1])}
        assert network.train()(torch.randn(1, 3, side, side), [target])["bbox_regression"] > 0
    distances, _ = model.head.regression_head(features)
    assert distances.min() > 0


@pytest.mark.parametrize(
    ("name", "head", "arguments", "message"),
    [
        ("gsa_resnet_tiny", "unett", {}, "unet"),
        ("gsa_resnet_tiny", "unet", {"decoder_chanels": [8]}, "decoder_chanels"),
        ("gsa_resnet_tiny", "unet", {"decoder_channels": [8]}, "unet"),
        ("gsa_resnet_tiny", "fasterrcnn", {"box_detection": 1}, "box_detection"),
        ("gsa_resnet_tiny", "fasterrcnn", {"channels": 0}, "channels"),
        ("gsa_resnet_tiny", "fasterrcnn", {"min_size": 100}, "min_size"),
        ("mlp_mixer_b16", "fpn", {}, "mlp_mixer_b16"),
        ("gsa_resnet_tiny", "", {"channels": 1}, "head_args"),
    ],
)
def test_what_cannot_be_built(name: str, head: str, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_with_head(name, head, num_classes=2, img_size=(224, 224), head_args=arguments)


@pytest.mark.slow
def test_a_graph_that_was_traced_with_padding_takes_images_without() -> None:
    network, _ = build_with_head(
        "conv_resnet_tiny",
        "fpn",
        num_classes=3,
        img_size=(40, 56),
        model_args={"stem": "imagenet"},
        head_args=ARGUMENTS["fpn"],
    )
    network.eval()
    program = export_program(network, (3, 40, 56), any_size=True)
    graph = program.module()
    for size in ((80, 168), (64, 64), (50, 50), (65, 97)):
        images = torch.randn(1, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(graph(images), network(images))
    assert smallest_side(program, 3) <= 64


@pytest.mark.parametrize(("head", "size"), [("unet", (40, 56)), ("retinanet", (64, 64))])
def test_tables_are_for_the_padded_image(head: str, size: tuple[int, int]) -> None:
    arguments = ARGUMENTS.get(head, NARROW)
    network, kwargs = build_with_head("gsa_resnet_tiny", head, num_classes=2, img_size=(35, 49), head_args=arguments)
    first = next(iter(attention_modules(network).values()))
    assert first.feat_size == size
    assert tuple(kwargs["img_size"]) == size
    _, kwargs = build_with_head(
        "gsa_resnet_tiny", head, num_classes=2, img_size=(35, 49), head_args=arguments, model_args={"img_size": 64}
    )
    assert kwargs["img_size"] == 64


@pytest.mark.parametrize("head", ["unet", "fasterrcnn"])
@pytest.mark.parametrize("name", ["gsa_resnet_tiny", "aa_resnet_tiny", "expatt_resnet_tiny"])
def test_tables_and_radii_have_no_weight_decay(name: str, head: str) -> None:
    network, _ = build_with_head(name, head, num_classes=3, img_size=(32, 32))
    optimizer = create_optimizer_v2(network, opt="adamw", lr=1e-3, weight_decay=0.05)
    name_of = {id(parameter): own for own, parameter in network.named_parameters()}
    decayed = {name_of[id(p)] for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert any(own.endswith("conv1.weight") for own in decayed)
    assert not [own for own in decayed if "rel_" in own or "radius" in own]


def test_networks_are_built_in_several_threads_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes its own encoder, though all have handed theirs over before one is looked up."""
    names, everyone = ["gsa_resnet_tiny", "conv_resnet_tiny", "cram_resnet_tiny"], threading.Barrier(3, timeout=60)
    make = smp.Unet.__init__

    @functools.wraps(make)
    def waiting(*arguments: Any, **keywords: Any) -> None:
        everyone.wait()
        make(*arguments, **keywords)

    monkeypatch.setattr(smp.Unet, "__init__", waiting)

    def build(name: str) -> torch.nn.Module:
        return build_with_head(name, "unet", num_classes=3, img_size=(32, 32), head_args=SMALL)[0]

    with ThreadPoolExecutor(len(names)) as pool:
        found = [
            {type(module).__name__ for module in attention_modules(net).values()} for net in pool.map(build, names)
        ]
    assert found == [{"GlobalSelfAttention2d"}, set(), {"RectangularAttention2d"}]


def test_masks_that_a_detector_learns_from_have_to_be_there() -> None:
    network, _ = build_with_head("conv_resnet_tiny", "maskrcnn", num_classes=2, img_size=(64, 64), head_args=NARROW)
    target = {"boxes": torch.tensor([[3.0, 5, 31, 41]]), "labels": torch.tensor([1])}
    with pytest.raises(ValueError, match="Mask R-CNN learns from masks"):
        network.train()(torch.randn(1, 3, 64, 64), [target])
