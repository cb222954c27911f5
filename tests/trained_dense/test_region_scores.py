"""How much of an object's attention stays inside of it: of trained networks, by the command and from Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import foveate
from foveate.cli import main
from foveate.commands.score import ScoreConfig, run
from foveate.data.dense import VOID, open_detection, open_segmentation
from foveate.explain import attention_records
from foveate.trained import TrainedDetector, TrainedSegmenter
from foveate.trained.region_scoring import regions_of
from foveate.trained.scoring import ScoreSettings, score_networks
from tests.data.dense.made import write_mask
from tests.made_sets import write_photo

from .conftest import DATA


@pytest.mark.slow
def test_a_segmenter_by_a_plain_loop(segmenter: TrainedSegmenter, segmentation_run: Path, tmp_path: Path) -> None:
    found = run(ScoreConfig(checkpoints=[str(segmentation_run)], data_options=DATA, out=str(tmp_path / "s.json")))
    data = open_segmentation("digits", img_size=16, options=DATA)
    loader = data.evaluation_loader("test", transform=segmenter.transform_of(data), batch_size=1)
    expected: dict[str, list[list[float]]] = {}
    before: dict[str, Any] = {}
    for image, masks in loader:
        assert image.shape[2:] == (16, 16)
        for record in attention_records(segmenter.network, image):
            height, width = record.map.shape[1:]
            rows = []
            for label in sorted(set(masks.flatten().tolist()) - {VOID, data.classes.index("background")}):
                cover = F.avg_pool2d((masks == label).double(), (16 // height, 16 // width))[0]
                row = []
                for weights in (record.weights, before.get(record.name)):
                    if weights is None:
                        row.append(np.nan)
                        continue
                    full = weights.rows(slice(0, 1), slice(None), slice(None))[0].abs().sum(0).double()
                    taken = (cover[:, :, None, None] * full).sum((0, 1))
                    row.append(float((taken * cover).sum() / taken.sum()))
                rows.append([*row, float(cover.mean())])
            expected.setdefault(record.name, []).append(np.mean(rows, axis=0).tolist())
            before[record.name] = record.weights
    assert found["images"] == 13
    assert found["without_box"] == 0
    (network,) = found["networks"]
    assert [layer["module"] for layer in network["layers"]] == list(expected)
    for layer in network["layers"]:
        inside, another, area = np.transpose(expected[layer["module"]])
        scores, differences = layer["scores"], layer["differences"]
        assert scores["inside"]["mean"] == pytest.approx(inside.mean(), abs=1e-6)
        assert scores["another"]["mean"] == pytest.approx(another[1:].mean(), abs=1e-6)
        assert scores["another"]["images"] == 12
        assert scores["area"]["mean"] == pytest.approx(area.mean(), abs=1e-6)
        assert differences["another"]["mean"] == pytest.approx((inside - another)[1:].mean(), abs=1e-6)
        assert differences["area"]["mean"] == pytest.approx((inside - area).mean(), abs=1e-6)
    assert json.loads((tmp_path / "s.json").read_text()) == found


@pytest.mark.slow
def test_a_detector_by_a_plain_loop(detector: TrainedDetector) -> None:
    """The network pads the 16×16 pixels to 32×32, of which nothing counts: a quarter of its gate is of the image."""
    data = open_detection("digits", img_size=16, options=DATA)
    found = score_networks([detector], data)
    loader = data.evaluation_loader("test", transform=detector.transform_of(data), batch_size=1)
    expected = []
    for image, (target,) in loader:
        (record,) = attention_records(detector.network.model.backbone, F.pad(image, (0, 16, 0, 16)))
        gate = record.map[0].double()
        side = 32 // len(gate)
        masks = F.pad(target["masks"].double(), (0, 16, 0, 16))
        covers = F.avg_pool2d(masks, side)
        seen = gate[: len(gate) // 2, : len(gate) // 2].sum()
        expected.append(np.mean([float((gate * cover).sum() / seen) for cover in covers]))
    (layer,) = found["networks"][0]["layers"]
    assert layer["scores"]["inside"]["mean"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert layer["kind"] == "RectangularAttention2d"


@pytest.mark.slow
def test_padding_is_no_image_and_no_object(tmp_path: Path, segmenter: TrainedSegmenter) -> None:
    """An image of 32×16 pixels fills half of the input: uniform attention has its objects' share of that half."""
    root = tmp_path / "set"
    for number in range(5):
        mask = np.zeros((16, 32), np.uint8)
        mask[2:10, 8:12] = 3
        write_mask(root / "train" / "masks" / f"{number}.png", mask)
        write_photo(root / "train" / "images" / f"{number}.png", number=number, size=(32, 16))
    data = open_segmentation(root, img_size=16, options={"classes": list(segmenter.classes)})
    assert data.classes == tuple(segmenter.classes)
    found = score_networks([segmenter], data, ScoreSettings(split="train"))
    for layer in found["networks"][0]["layers"]:
        assert layer["scores"]["area"]["mean"] == pytest.approx(8 * 4 / (16 * 32), abs=0.02)
        assert 0 < layer["scores"]["inside"]["mean"] < 1


def test_regions_of_boxes_and_of_what_is_ignored() -> None:
    boxes = torch.tensor([[1.5, 0.0, 3.0, 2.0], [0.0, 0.0, 4.0, 3.0], [2.0, 2.0, 2.0, 3.0]])
    target = {"boxes": boxes, "labels": torch.tensor([0, 1, 0]), "ignored": torch.tensor([False, True, False])}
    found = regions_of(target, (3, 4))
    assert found.tolist() == [[[0, 0.5, 1, 0], [0, 0.5, 1, 0], [0, 0, 0, 0]]]
    masks = torch.zeros(3, 3, 4, dtype=torch.uint8)
    masks[0, 2, 1] = masks[1] = 1
    assert regions_of({**target, "masks": masks}, (3, 4)).tolist() == masks[:1].tolist()
    nothing = {name: value[:0] for name, value in target.items()}
    assert regions_of(nothing, (3, 4)).shape == (0, 3, 4)
    assert regions_of(torch.full((1, 3, 4), VOID), (3, 4)).shape == (0, 3, 4)
    mask = torch.tensor([[[0, 0, 2, VOID], [0, 5, 2, 2]]])
    assert regions_of(mask, (2, 4), background=0).tolist() == [[[0, 0, 1, 0], [0, 0, 1, 1]], [[0] * 4, [0, 1, 0, 0]]]


@pytest.mark.slow
def test_what_cannot_be_scored(
    segmentation_run: Path, detection_run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    plain = foveate.train(
        "conv_resnet_tiny", "digits", task="segmentation", out=str(tmp_path / "plain"), data_options=DATA, epochs=1,
        batch_size=16, verbose=False, logger=[], head_args={"decoder_channels": [16, 8, 8]}, device="cpu",
    ).folder  # fmt: skip
    for arguments, named in (
        ([segmentation_run, detection_run], "trained for detection"),
        ([segmentation_run, plain], "has no attention"),
        ([segmentation_run, "--method=gradcam"], "method"),
        ([segmentation_run, "--boxes=boxes.csv"], "boxes"),
    ):
        assert main(["score", *map(str, arguments), "--out", str(tmp_path / "out" / "s.json")]) == 2
        assert named in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
