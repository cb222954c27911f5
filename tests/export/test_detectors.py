"""Detectors in ONNX find what the network finds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from foveate.export import check_detections, onnx_detector, run_onnx_detector
from foveate.models.dense import DETECTORS, build_detector

SIZE = (64, 96)
KINDS = {
    "fcos": "gsa_resnet_tiny",
    "retinanet": "expatt_resnet_tiny",
    "fasterrcnn": "aa_resnet_tiny",
    "maskrcnn": "cram_resnet_tiny",
}


def detector(kind: str, seed: int = 0) -> nn.Module:
    """Build a detector that finds something in noise, whose scores differ."""
    torch.manual_seed(seed)
    name = KINDS[kind]
    kwargs = {"img_size": SIZE} if name[:2] in ("gs", "aa") else {}
    options: dict[str, Any] = (
        {"channels": 32, "score_thresh": 0.35} if kind in ("fcos", "retinanet") else {"channels": 32}
    )
    if kind.endswith("rcnn"):
        options["box_detections_per_img"] = 20
    network = build_detector(name, kwargs, num_classes=3, img_size=SIZE, detector=kind, detector_args=options)
    for key, parameter in network.named_parameters():
        if key.endswith("cls_logits.weight"):
            nn.init.normal_(parameter, std=0.3)
        if key.endswith("cls_logits.bias"):
            nn.init.zeros_(parameter)
    return network.eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    # Mask R-CNN is Faster R-CNN with masks, and RetinaNet has FCOS's heads.
    [kind if kind in ("fcos", "maskrcnn") else pytest.param(kind, marks=pytest.mark.exhaustive) for kind in DETECTORS],
)
def test_its_boxes_are_those_of_the_network(kind: str) -> None:
    network = detector(kind)
    content = onnx_detector(network, (3, *SIZE), {"network": kind})
    exported = run_onnx_detector(content)
    assert check_detections(network, exported, (3, *SIZE)) > 20

    coarse = torch.randn(1, 3, 9, 13, generator=torch.Generator().manual_seed(5))
    smooth = 3 * nn.functional.interpolate(coarse, SIZE, mode="bicubic")  # no noise, unlike what it was checked with
    with torch.no_grad():
        (wanted,) = network(smooth)
    found = exported(smooth)
    assert list(found) == list(wanted)
    assert len(wanted["boxes"]) > 10
    for name, tensor in wanted.items():  # the best ones: what is left out last depends on rounding
        torch.testing.assert_close(found[name][:5], tensor[:5], atol=2e-3, rtol=1e-4)

    proto = onnx.load_from_string(content)
    onnx.checker.check_model(proto, full_check=True)
    assert {node.domain for node in proto.graph.node} == {""}
    assert {entry.key: json.loads(entry.value) for entry in proto.metadata_props} == {"foveate": {"network": kind}}
    assert not any(str(place).encode() in content for place in (sys.prefix, Path(__file__).parents[2]))


@pytest.mark.slow
def test_other_objects_are_refused() -> None:
    network, size = detector("fcos"), (3, *SIZE)
    network.model.detections_per_img = 20  # of so few, one in each image is more than may differ

    def changed(**changes: Any) -> Any:
        def other(images: Tensor) -> dict[str, Tensor]:
            with torch.no_grad():
                (found,) = network(images)
            return {name: changes.get(name, lambda x: x)(tensor) for name, tensor in found.items()}

        return other

    assert check_detections(network, changed(), size) > 20
    for name, change in {
        "boxes": lambda x: x + 1,
        "labels": lambda x: (x + 1) % 3,
        "scores": lambda x: x + 0.01,
    }.items():
        with pytest.raises(ValueError, match="objects"):
            check_detections(network, changed(**{name: change}), size)
    with pytest.raises(ValueError, match="objects"):
        check_detections(network, changed(**{name: lambda x: x[1:] for name in ("boxes", "labels", "scores")}), size)
    with pytest.raises(ValueError, match="64×96"):
        check_detections(network, changed(boxes=lambda x: x.no_such), size)
