"""Figures of trained segmentation networks and detectors are those of their runs; data of other tasks are refused."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

import foveate
from foveate.commands.evaluate import EvaluateConfig, run
from foveate.data import open_data
from foveate.data.dense import open_detection, open_segmentation
from foveate.explain import overlay
from foveate.io import load_network, load_weights, save_network
from foveate.models.dense import build_with_head
from foveate.report.dense import found_in
from foveate.report.grid import choose_samples, fill_column
from foveate.report.samples import encoded, zoom_of
from foveate.tasks import Segmentation
from foveate.trained import TrainedDetector, TrainedSegmenter

from .conftest import DATA

FIGURES = {"segmentation": ("mean_iou", "pixel_accuracy", "loss"), "detection": ("map", "map50", "detections")}


@pytest.mark.slow
@pytest.mark.parametrize("task", FIGURES)
def test_the_command_gives_the_figures_of_the_run(
    task: str, request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = request.getfixturevalue(f"{task}_run")
    expected = json.loads((folder / "result.json").read_text())
    file = tmp_path / "figures.json"
    found = run(EvaluateConfig(checkpoint=str(folder), data_options=DATA, batch_size=5, device="cpu", json=str(file)))
    assert json.loads(file.read_text()) == json.loads(json.dumps(found))
    score, *others = FIGURES[task]
    assert found[score]["mean"] == pytest.approx(expected["metrics"][score], abs=1e-6)
    assert found[score]["low"] <= found[score]["mean"] <= found[score]["high"]
    for name in others:
        assert found[name] == pytest.approx(expected["metrics"][name], rel=1e-4)
    assert list(found["per_class"].values()) == pytest.approx(expected["metrics"]["per_class"], abs=1e-6)
    assert list(found["per_class"]) == expected["network"]["classes"]
    assert found["images"] == len(found["scores"]) == 13
    printed = capsys.readouterr().out
    assert f"{found[score]['mean']:.2%}" in printed
    assert f"{found[score]['low']:.2%}" in printed
    assert run(EvaluateConfig(checkpoint=str(folder), data_options=DATA, split="val", device="cpu"))["images"] == 5
    for given in ({}, {"data": "digits"}):  # from Python too they are opened as in the training
        again = foveate.evaluate(f"local-dir:{folder}", **given, batch_size=5)
        assert dataclasses.asdict(getattr(again, score)) == found[score]


@pytest.mark.slow
def test_data_that_were_opened_before_have_to_be_given_again(tmp_path: Path) -> None:
    digits = open_data("digits", options={**DATA, "length": 40})
    result = foveate.train(
        "test_resnet", digits, epochs=1, batch_size=8, out=str(tmp_path / "run"), verbose=False, logger=[]
    )
    with pytest.raises(ValueError, match="train: 40 images then"):
        foveate.evaluate(result.folder)
    assert foveate.evaluate(result.folder, digits).top1.mean == pytest.approx(result.metrics["top1"])


def lighter(image: Image.Image) -> Image.Image:
    return image.point(lambda value: min(2 * value, 255))


@pytest.mark.slow
def test_augmentation_of_the_training_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = foveate.train(
        "test_resnet",
        augment=lighter,
        data_options=DATA,
        epochs=1,
        batch_size=8,
        out=str(tmp_path / "run"),
        verbose=False,
        logger=[],
    )
    assert foveate.evaluate(result.folder).top1.mean == pytest.approx(result.metrics["top1"])
    monkeypatch.chdir(result.folder)
    found = foveate.evaluate("conv_resnet_tiny.digits", batch_size=64)  # a name; the run around it is another matter
    assert found.images == 2000


def test_batches_of_ones_own_are_taken(segmenter: TrainedSegmenter) -> None:
    data = open_segmentation("digits", options=DATA)
    images, masks = next(iter(data.loaders(batch_size=13).test))
    masks[:, :3] = 255
    batches = DataLoader(TensorDataset(images, masks), batch_size=4)
    found = segmenter.evaluate(batches)
    task = Segmentation(segmenter.classes)
    with torch.no_grad():
        expected = task.evaluate(*task.reduce(segmenter.network(images), masks))
    assert found.mean_iou.mean == pytest.approx(expected.mean_iou)
    assert sum(row[2] for row in found.scores[0]) == 13 * 16
    masks[2, 9, 9] = 11
    with pytest.raises(ValueError, match="11 classes"):
        segmenter.evaluate(batches)


def test_labels_that_are_floats_are_taken() -> None:
    trained, images = foveate.load("cram_resnet_tiny.digits"), torch.randn(6, 3, 32, 32)
    found = [
        trained.evaluate(DataLoader(TensorDataset(images, torch.arange(6).to(kind)), 4))
        for kind in (torch.float, torch.long)
    ]
    assert found[0].correct == found[1].correct


@pytest.mark.slow
def test_data_of_another_task_are_refused(segmenter: TrainedSegmenter, detector: TrainedDetector) -> None:
    objects = open_detection("digits", options=DATA)
    for trained, data in ((segmenter, open_data("digits", options=DATA)), (segmenter, objects)):
        with pytest.raises(ValueError, match="was trained for"):
            trained.evaluate(data)
    with pytest.raises(ValueError, match="was trained for"):
        foveate.load("cram_resnet_tiny.digits").evaluate(objects)  # of the same classes
    assert detector.evaluate(objects, split="val").images == 5


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_masks_of_any_integers_are_taken(segmenter: TrainedSegmenter, dtype: torch.dtype) -> None:
    images, masks = torch.randn(5, 3, 16, 16), torch.randint(0, 11, (5, 16, 16))
    expected = segmenter.evaluate(DataLoader(TensorDataset(images, masks), batch_size=2))
    found = segmenter.evaluate(DataLoader(TensorDataset(images, masks.to(dtype)), batch_size=2))
    assert (found.mean_iou, found.loss) == (expected.mean_iou, expected.loss)


@pytest.mark.slow
def test_weights_alone_are_read_again(segmenter: TrainedSegmenter, detector: TrainedDetector, tmp_path: Path) -> None:
    """Every name of them begins with ``model.``, as those of a classifier in a Lightning checkpoint."""
    for trained in (segmenter, detector):
        state = trained.network.state_dict()
        for content in (state, {"state_dict": state}, {"state_dict": {f"model.{k}": v for k, v in state.items()}}):
            torch.save(content, tmp_path / "weights.pth")
            other = copy.deepcopy(trained.network)
            for parameter in other.parameters():
                torch.nn.init.zeros_(parameter)
            load_weights(other, tmp_path / "weights.pth")
            assert all(torch.equal(state[name], value) for name, value in other.state_dict().items())


@pytest.mark.slow
def test_a_report_draws_maps_where_padded_networks_looked(detector: TrainedDetector, detection_run: Path) -> None:
    """The detector pads its 16×16 pixels to 32×32: of its rectangle, a quarter of the map is in the picture."""
    data = open_detection("digits", img_size=16, options=DATA)
    samples = choose_samples(data, "test", 1)
    column = fill_column(detection_run, samples, data.transform)
    (record,) = detector.explain(samples[0].seen).records
    place = detector.placement((16, 16))._replace(input_size=(32, 32))
    expected = overlay(samples[0].seen, record, zoom=zoom_of(samples[0].seen), placement=place)
    assert column.answers[0].picture == encoded(expected)


def test_a_report_leaves_out_images_that_the_loader_leaves_out() -> None:
    images = [(Image.new("RGB", size), 0) for size in ((50_000, 1), (20, 16), (1, 50_000))]
    data = dataclasses.replace(open_data("digits", img_size=64), test=images)
    assert [sample.index for sample in choose_samples(data, "test", 3)] == [1]


def test_a_report_shows_networks_images_as_they_were_trained_on_them(tmp_path: Path, segmentation_run: Path) -> None:
    """A pretrained network has a normalization of its own, which is not that of the data."""
    data = open_segmentation("digits", img_size=16, options=DATA)
    sample = choose_samples(data, "test", 1)
    network, meta = load_network(segmentation_run)
    own = dataclasses.replace(meta, mean=(0.7, 0.1, 0.3), std=(0.1, 0.2, 0.3))
    save_network(tmp_path / "model.safetensors", network, own)
    found = fill_column(tmp_path / "model.safetensors", sample, data.transform).answers[0]
    tensor = sample[0].tensor * torch.tensor(data.std).view(3, 1, 1) + torch.tensor(data.mean).view(3, 1, 1)
    tensor = (tensor - torch.tensor(own.mean).view(3, 1, 1)) / torch.tensor(own.std).view(3, 1, 1)
    with torch.no_grad():
        assert found.found == found_in(sample[0], network(tensor[None])[0], data.classes)


def test_batches_that_are_no_tensors_are_named(detector: TrainedDetector) -> None:
    images = [(torch.zeros(3, 16, 16), {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)})] * 2
    loader = DataLoader(images, batch_size=2, collate_fn=lambda batch: tuple(zip(*batch, strict=True)))
    with pytest.raises(ValueError, match=r"images must be a tensor \(B, 3, H, W\); got a tuple"):
        detector.evaluate(loader)


def test_a_head_for_other_classes_is_begun_anew(segmenter: TrainedSegmenter, detector: TrainedDetector) -> None:
    for trained, head in ((segmenter, "segmentation_head"), (detector, "head.classification_head.cls_logits")):
        meta, size = trained.meta, trained.input_size
        network, _ = build_with_head(meta.model, meta.head, num_classes=3, img_size=size, head_args=meta.head_args)
        own = {name: value.clone() for name, value in network.state_dict().items()}
        load_weights(network, Path(trained.source))
        saved = trained.network.state_dict()
        for name, value in network.state_dict().items():
            kept = name.startswith(f"model.{head}.") and saved[name].shape != own[name].shape
            assert torch.equal(value, own[name] if kept else saved[name]), name
        assert any(saved[name].shape != own[name].shape for name in own)
