"""Where trained segmentation networks and detectors look: from a pixel, from a box, and of padded inputs."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import foveate
from foveate.commands.explain import ExplainConfig, run
from foveate.explain import attention_records
from foveate.explain.numbers import finding_numbers
from foveate.trained import TrainedDetector, TrainedSegmenter

from .conftest import train


def test_a_pixel_has_its_class_and_its_attention(segmenter: TrainedSegmenter, photo: Image.Image) -> None:
    finding = segmenter.explain(photo, query=(7, 29))
    expected = segmenter.predict(photo)
    name, probability = expected.at((7, 29))
    assert name in finding.verdict()
    numbers = finding_numbers(finding)
    assert numbers["pixel"] == {"at": [7, 29], "class": name, "probability": pytest.approx(probability, abs=1e-5)}
    assert numbers["shares"] == expected.shares
    pixel = (int(7.5 * 10 / 23), int(29.5 * 16 / 37))
    for record in finding.records:
        assert record.query == pixel
        direct = attention_records(segmenter.network, segmenter.prepare(photo), query=pixel, names=[record.name])
        assert torch.allclose(record.map, direct[0].map, atol=1e-5)
    assert finding.unlike == segmenter.unlike(segmenter.prepare(photo), (23, 37))


def test_a_box_is_the_mean_of_its_pixels(segmenter: TrainedSegmenter, photo: Image.Image) -> None:
    """The finest map has a position per pixel of the input: those whose middle lies in the box."""
    finding = segmenter.explain(photo, box=(4, 3, 20, 15), names=["all"])
    record = finding.records[0]
    assert record.map.shape[1:] == (16, 16)
    rows = [row for row in range(16) if 3 * 10 / 23 <= row + 0.5 < 15 * 10 / 23]
    columns = [column for column in range(16) if 4 * 16 / 37 <= column + 0.5 < 20 * 16 / 37]
    magnitudes = [record.attention_from((row, column)).abs().sum(1) for row in rows for column in columns]
    mean = torch.stack(magnitudes).double().mean(0)
    assert torch.allclose(record.map.double(), 256 * mean / mean.sum(), atol=1e-5)
    box = finding_numbers(finding)["layers"][0]["box"]
    assert box["map"] == {"rows": [rows[0], rows[-1] + 1], "columns": [columns[0], columns[-1] + 1]}
    assert np.allclose(box["image"], [[4, 3], [20, 15]])


def test_maps_of_a_padded_input_span_what_the_network_saw(detector: TrainedDetector, photo: Image.Image) -> None:
    """The detector pads its 16×16 pixels to 32×32: CRAM's rectangle is one of these."""
    finding = detector.explain(photo)
    padded = F.pad(detector.prepare(photo), (0, 16, 0, 16))
    (direct,) = attention_records(detector.network.model.backbone, padded)
    (record,) = finding.records
    assert record.image_size == (32, 32) == finding.placement.input_size
    assert torch.allclose(record.rectangle, direct.rectangle, atol=1e-4)
    corners = finding_numbers(finding)["layers"][0]["rectangle"]["corners"]["image"]
    assert np.allclose(corners, direct.rectangle[0].numpy() * [37 / 16, 2.3], atol=1e-3)
    assert [one.box for one in finding.answer] == [one.box for one in detector.predict(photo)]


def test_what_cannot_be_asked_is_named(segmenter: TrainedSegmenter, photo: Image.Image) -> None:
    for asked, field in (
        ({"query": (23, 0)}, "query"),
        ({"box": (0, 0, 38, 5)}, "box"),
        ({"box": (9, 2, 9, 5)}, "box"),
        ({"box": (0, 0, 3)}, "box"),
        ({"query": (1, 1), "box": (0, 0, 5, 5)}, "two places"),
        ({"method": "gradcam"}, "Grad-CAM"),
        ({"names": ["layer9"]}, "layer9"),
        ({"query": (-1, 3)}, "query"),
    ):
        with pytest.raises(ValueError, match=field):
            segmenter.explain(photo, **asked)


def test_a_box_is_asked_of_classifiers_too() -> None:
    trained = foveate.load("gsa_resnet_tiny.digits")
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    whole = trained.explain(image, box=(0, 0, 32, 32)).records[-1]
    assert torch.allclose(whole.map, trained.explain(image).records[-1].map, atol=1e-5)


@pytest.mark.slow
def test_networks_of_several_tasks_are_explained_together(
    segmentation_run: Path, detection_run: Path, photo: Image.Image, tmp_path: Path
) -> None:
    plain = train(tmp_path / "plain", "conv_resnet_tiny", "segmentation", head_args={"decoder_channels": [8, 8, 8]})
    photo.save(tmp_path / "photo.png")
    checkpoints = [str(folder) for folder in (segmentation_run, detection_run, plain)]
    out = tmp_path / "out"
    found = run(
        ExplainConfig(images=[str(tmp_path / "photo.png")], checkpoint=checkpoints, out=str(out), box=(2, 3, 9, 9))
    )
    (image,) = json.loads((out / "explanation.json").read_text())["images"]
    assert image == json.loads(json.dumps(found["images"][0]))
    first, second, third = image["networks"]
    assert sum(first["shares"].values()) == pytest.approx(1)
    assert first["layers"][0]["box"]["map"]
    assert {"objects", "counts"} <= second.keys()
    assert third["layers"] == []
    for one in image["networks"]:
        with Image.open(out / one["picture"]) as picture:
            assert picture.width > 400


def test_the_peak_of_a_map_is_in_the_image(segmenter: TrainedSegmenter, photo: Image.Image) -> None:
    """The lower six of the sixteen rows are padding, whose weights count for nothing."""
    finding = segmenter.explain(photo, names=["all"])
    raised = []
    for record in finding.records:
        values = record.map.clone()
        rows = math.ceil(10 / 16 * values.shape[1] - 0.5)
        values[:, rows:] = 1000.0
        raised.append(dataclasses.replace(record, map=values))
    for layer, record in zip(
        finding_numbers(dataclasses.replace(finding, records=raised))["layers"], finding.records, strict=True
    ):
        rows = max(1, math.ceil(10 / 16 * record.map.shape[1] - 0.5))
        seen = record.map[0, :rows]
        if rows < record.map.shape[1] or layer["most"] < 1000:
            assert layer["most"] == pytest.approx(float(seen.max()))
            assert layer["mean"] == pytest.approx(float(seen.mean()))
            assert 0 <= layer["peak"]["image"][1] <= 23 + 23 / seen.shape[0] / 2
        assert layer["map_size"] == list(record.map.shape[1:])


@pytest.mark.slow
def test_layers_without_attention_are_not_there_to_be_shown(photo: Image.Image, tmp_path: Path) -> None:
    args = {"decoder_channels": [16, 8, 8]}
    plain = foveate.load(train(tmp_path / "run", "conv_resnet_tiny", "segmentation", head_args=args))
    with pytest.raises(ValueError, match=r"layers: .* has no layer .model\.encoder.; it has none with attention"):
        plain.explain(photo, names=["model.encoder"])
