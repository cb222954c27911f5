"""Boxes of detectors in bfloat16, whose 8 bits tell whole pixels apart up to 256 alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from foveate.models.dense import DETECTORS, build_with_head

SIZE = (96, 544)
"""Wide enough for places that bfloat16 does not tell apart."""


def detector(head: str) -> Any:
    torch.manual_seed(0)
    few = {"box_score_thresh": 0.0, "box_batch_size_per_image": 32, "box_detections_per_img": 40}
    own = few if "rcnn" in head else {"score_thresh": 0.0}
    network, _ = build_with_head("resnet10t", head, num_classes=2, img_size=SIZE, head_args={"channels": 32, **own})
    return network


@pytest.mark.slow
@pytest.mark.parametrize("head", DETECTORS)
def test_boxes_are_finer_than_the_precision_of_the_network(head: str) -> None:
    network = detector(head)
    images = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    target = {"boxes": torch.tensor([[300.3, 20.7, 401.9, 83.2]]), "labels": torch.tensor([1])}
    if head == "maskrcnn":
        target["masks"] = torch.zeros(1, *SIZE, dtype=torch.uint8)
        target["masks"][:, 21:83, 301:401] = 1
    with torch.autocast("cpu", torch.bfloat16):
        losses = network.train()(images, [target, target])
        sum(loss.float() for loss in losses.values()).backward()
        with torch.no_grad():
            (found, _) = network.eval()(images)
    assert all(loss.isfinite() for loss in losses.values())
    assert found["boxes"].dtype == torch.float32
    far = found["boxes"][(found["boxes"] > 256) & (found["boxes"] < SIZE[1])]
    assert len(far) > 10
    rounded = (far == far.bfloat16().float()).float().mean()
    assert rounded < 0.5


@pytest.mark.parametrize("head", ["retinanet", "fcos"])
def test_regression_in_bfloat16_moves_anchors_that_are_not_rounded(head: str) -> None:
    coder = detector(head).model.box_coder
    anchors, codes = torch.tensor([[301.0, 203.0, 337.0, 259.0]]), torch.zeros(1, 4)
    decode = coder.decode_single if head == "retinanet" else coder.decode
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(decode(codes.bfloat16(), anchors), decode(codes, anchors))
    assert decode(codes.half(), anchors).dtype == torch.float16  # of a network that is half precision throughout
