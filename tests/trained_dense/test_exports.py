"""Segmentation networks in ONNX at sizes other than that of the export; cards; what cannot be exported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import foveate
from foveate.export import export_network, run_onnx, run_onnx_detector
from foveate.io import read_card

from .conftest import train

SIZES = [(16, 16), (23, 37), (41, 19), (24, 64)]


@pytest.mark.slow
def test_onnx_agrees_at_sizes_that_it_was_not_exported_with(tmp_path: Path) -> None:
    run = train(tmp_path / "run", "cram_resnet_tiny", "segmentation", head_args={"decoder_channels": [16, 8, 8]})
    segmenter = foveate.load(run)
    (file,) = export_network(run, "onnx", out=tmp_path).files
    exported = run_onnx(file.read_bytes())
    generator = torch.Generator().manual_seed(0)
    images = 0
    for size in SIZES:
        for batch in (1, 49):
            x = torch.rand(batch, 3, *size, generator=generator)
            with torch.no_grad():
                wanted = segmenter.network(x)
            got = exported(x)
            assert got.shape == (batch, 11, *size)
            assert (got - wanted).norm() <= 1e-4 * wanted.norm()
            first, second = wanted.topk(2, dim=1).values.unbind(1)
            clear = first - second > 1e-5  # of equal logits, rounding decides
            assert clear.float().mean() > 0.99
            assert torch.equal(got.argmax(1)[clear], wanted.argmax(1)[clear])
            images += batch
    assert images == 200


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("model", ["cram_resnet_tiny", "gsa_resnet_tiny", "expatt_resnet_tiny"])
def test_a_program_agrees_at_sizes_that_it_was_not_exported_with(model: str, tmp_path: Path) -> None:
    run = train(tmp_path / "run", model, "segmentation", head_args={"decoder_channels": [16, 8, 8]})
    (file,) = export_network(run, "torch", out=tmp_path).files
    program, network = torch.export.load(file).module(), foveate.load(run).network
    for size in SIZES:
        for batch in (1, 5):
            x = torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(batch))
            with torch.no_grad():
                wanted, got = network(x), program(x)
            assert (got - wanted).norm() <= 1e-5 * wanted.norm()


@pytest.mark.slow
def test_cards_have_the_figures_of_the_task(segmentation_run: Path, detection_run: Path, tmp_path: Path) -> None:
    for run, figures in (
        (segmentation_run, {"mean_iou", "pixel_accuracy", "loss"}),
        (detection_run, {"map", "map50", "detections"}),
    ):
        weights, card = export_network(run, out=tmp_path / run.parent.name).files
        metrics = json.loads((run / "result.json").read_text())["metrics"]
        test = read_card(card).test
        assert test == {"split": "test", "images": 13, **{name: metrics[name] for name in figures}}
        assert foveate.load(weights).meta.task == foveate.load(run).meta.task


@pytest.mark.slow
def test_what_cannot_be_exported_is_named(segmentation_run: Path, detection_run: Path, tmp_path: Path) -> None:
    for run, to, reason in (
        (detection_run, "torch", "detector"),
        (detection_run, "hub", "retinanet"),
        (segmentation_run, "hub", "unet"),
    ):
        with pytest.raises(ValueError, match=reason):
            export_network(run, to, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_detector_is_a_graph_of_one_image(detection_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batch"):
        export_network(detection_run, "onnx", out=tmp_path, batch=2)
    assert not list(tmp_path.iterdir())
    (file,) = export_network(detection_run, "onnx", out=tmp_path, normalize=True, size=(40, 72)).files
    trained = foveate.load(detection_run)
    image = torch.rand(1, 3, 40, 72, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (trained.meta.mean, trained.meta.std))
    with torch.no_grad():
        (wanted,) = trained.network((image - mean) / std)
    found = run_onnx_detector(file.read_bytes())(image)
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-3, rtol=1e-4)
