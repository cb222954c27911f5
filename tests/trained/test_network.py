"""`TrainedNetwork`, against what is written out by hand."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import foveate
from foveate.cli import main
from foveate.data import make_transform, open_data, placement
from foveate.export import export_network
from foveate.io import load_network
from foveate.trained import EvaluationResult, Prediction
from foveate.trained.scoring import ScoreSettings, score_networks
from tests.made_sets import write_folder, write_photo
from tests.trained.made import CLASSES, MEAN, STD, by_hand, same, saved, saved_again


@pytest.mark.slow
def test_predictions_are_those_of_a_preparation_by_hand(trained: foveate.TrainedNetwork, photos: list[Path]) -> None:
    network, _ = load_network(trained.source)
    with torch.no_grad():
        probabilities = network(by_hand(photos)).softmax(1)
    torch.testing.assert_close(trained.prepare(photos), by_hand(photos), rtol=0, atol=1e-6)
    found = trained.predict(photos, k=3, batch_size=2)
    for row, guesses in zip(probabilities, found, strict=True):
        order = row.argsort(descending=True)[:3].tolist()
        assert [(guess.label, guess.name) for guess in guesses] == [(label, CLASSES[label]) for label in order]
        assert [guess.probability for guess in guesses] == pytest.approx(row[order].tolist(), abs=1e-5)
    assert len(trained.predict(photos[0], k=100)) == len(CLASSES)
    with Image.open(photos[0]) as image:
        for source in (str(photos[0]), photos[0], image):
            one = trained.predict(source, k=3)
            assert [type(guess) for guess in one] == [Prediction] * 3
            assert [guess.label for guess in one] == [guess.label for guess in found[0]]
            assert [guess.probability for guess in one] == pytest.approx([g.probability for g in found[0]], abs=1e-5)
    assert trained.predict([]) == []


class OtherPath(os.PathLike[str]):
    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


def test_paths_of_any_kind_and_names_of_no_user(
    trained: foveate.TrainedNetwork, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(photos[0], "~$photo.png")
    assert trained.predict("~$photo.png") == trained.predict(OtherPath(photos[0])) == trained.predict(photos[0])
    with pytest.raises(ValueError, match=r"~none\.png"):
        trained.predict("~none.png")
    with pytest.raises(ValueError, match=r"~none\.safetensors"):
        foveate.load("~none.safetensors")


def test_an_orientation_tag_is_applied(trained: foveate.TrainedNetwork, photos: list[Path], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    with Image.open(photos[1]) as image:
        image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    assert trained.predict(tmp_path / "turned.png") == trained.predict(photos[1])
    with Image.open(tmp_path / "turned.png") as image:
        assert trained.predict(image) == trained.predict(photos[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cram_resnet_tiny", "gsa_resnet_tiny", "expatt_resnet_tiny", "conv_resnet_tiny"])
def test_an_explanation_is_that_of_the_function(name: str, tmp_path: Path) -> None:
    trained = foveate.load(saved(tmp_path / "model.safetensors", name))
    photo = write_photo(tmp_path / "photo.png", 3, (90, 70))
    with Image.open(photo) as image:
        tensor = make_transform(trained.transform, training=False)(image.convert("RGB"))[None]
    expected = foveate.explain(trained.network, tensor)
    found = trained.explain(photo, names=["all"])
    assert torch.equal(found.logits, expected.logits)
    assert [record.name for record in found.records] == [record.name for record in expected.records]
    for record, other in zip(found.records, expected.records, strict=True):
        centred = other.queried((16, 24)) if other.radius is not None else other
        assert torch.equal(record.map, centred.map)
    (last,) = trained.explain(photo, names=[found.records[-1].name]).records
    assert torch.equal(last.map, found.records[-1].map)
    asked = trained.explain(photo, query=(31, 52))
    x, y = placement(trained.transform, (70, 90)).to_input((52.5, 31.5))
    for record in asked.records:
        assert record.query == (None if record.weights is None else (int(y), int(x)))
    found.save(tmp_path / "where.png")
    with Image.open(tmp_path / "where.png") as picture:
        assert np.array_equal(np.asarray(picture), np.asarray(found.picture()))


@pytest.mark.slow
def test_it_is_evaluated_as_by_a_plain_loop(tmp_path: Path) -> None:
    trained = foveate.load(saved(tmp_path / "model.safetensors", classes=2))
    folder = write_folder(tmp_path / "photos", {"train": 2, "val": 7, "test": 11})
    data = open_data(folder, img_size=(32, 48))
    assert data.test is not None
    transform = make_transform(data.transform.replace(mean=MEAN, std=STD, interpolation="bilinear"), training=False)
    images = torch.stack([transform(image) for image, _ in data.test])
    labels = torch.tensor([label for _, label in data.test])
    with torch.no_grad():
        logits = torch.cat([trained.network(image[None]) for image in images])
    correct = (logits.argmax(1) == labels).int().tolist()
    loss = nn.functional.cross_entropy(logits, labels).item()
    loader = DataLoader(TensorDataset(images, labels), batch_size=5)
    for source in (folder, str(folder), data, loader):
        found = trained.evaluate(source, batch_size=4)
        assert isinstance(found, EvaluationResult)
        assert (found.correct, found.images, found.top5) == (correct, 22, None)
        assert found.loss == pytest.approx(loss, rel=1e-5)
        assert found.top1.mean == pytest.approx(sum(correct) / 22)
        assert found.per_class == {f"class{c}": pytest.approx(sum(correct[11 * c : 11 * c + 11]) / 11) for c in (0, 1)}
    assert trained.evaluate(folder, split="val").images == 14


@pytest.mark.slow
def test_what_foveate_test_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data_options", "{length: 8, val_length: 4, test_length: 13}", "--device=cpu"]
    assert main(["test", "cram_resnet_tiny.digits", *data, f"--json={tmp_path / 'test.json'}"]) == 0
    options = {"length": 8, "val_length": 4, "test_length": 13}
    found = foveate.load("cram_resnet_tiny.digits").evaluate(open_data("digits", options=options))
    assert capsys.readouterr().out == f"{found}\n"
    written = json.loads((tmp_path / "test.json").read_text())
    assert written == {"checkpoint": "cram_resnet_tiny.digits", **json.loads(json.dumps(dataclasses.asdict(found)))}


@pytest.mark.slow
def test_it_is_saved_whole_and_loaded_the_same(
    trained: foveate.TrainedNetwork, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained.save(tmp_path / "deep" / "saved")
    again = foveate.load(tmp_path / "deep" / "saved")
    assert same(again.network, trained.network)
    assert dataclasses.asdict(again.meta) == json.loads(json.dumps(dataclasses.asdict(trained.meta)))
    assert again.predict(photos) == trained.predict(photos)
    before = (tmp_path / "deep" / "saved" / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match="saved"):
        trained.save(tmp_path / "deep" / "saved")
    assert (tmp_path / "deep" / "saved" / "model.safetensors").read_bytes() == before

    def full(path: Path, *_: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("foveate.trained.saving.save_network", full)
    with pytest.raises(OSError, match="No space"):
        trained.save(tmp_path / "deep" / "other")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["saved"]


def test_bad_input_is_refused(trained: foveate.TrainedNetwork, photos: list[Path], tmp_path: Path) -> None:
    Image.new("RGB", (300_000, 1)).save(tmp_path / "long.png")
    (tmp_path / "words.png").write_text("words")
    folder = write_folder(tmp_path / "photos", {"train": 2, "val": 1})
    other = DataLoader(TensorDataset(torch.zeros(3, 3, 32, 48), torch.tensor([0, 7, 1])))
    for call, message in (
        (lambda: trained.predict(tmp_path / "none.png"), "none.png"),
        (lambda: trained.predict([photos[0], tmp_path / "words.png"]), "words.png: this is not an image"),
        (lambda: trained.predict(tmp_path / "long.png"), "long.png: 300000×1 pixels"),
        (lambda: trained.predict(np.zeros((3, 4, 3))[0]), "Image.fromarray"),
        (lambda: trained.predict(photos[0], k=0), "k must be at least 1"),
        (lambda: trained.predict(photos[0], batch_size=0), "batch_size must be at least 1"),
        (lambda: trained.prepare([]), "there are none"),
        (lambda: trained.explain(photos[0], query=(32, 0)), "lies outside of 0.png, 32×48"),
        (lambda: trained.explain(photos[0], names=["layer9"]), "has no layer 'layer9'"),
        (lambda: trained.explain(photos[0], method="cam"), "method must be one of"),
        (lambda: trained.explain(photos[0]).save(tmp_path / "where.jpg"), "where.png"),
        (lambda: trained.explain(photos[0]).save(photos[1]), "was not written by"),
        (lambda: trained.evaluate("digits"), "is square"),
        (lambda: trained.evaluate(folder), "was trained for 7 classes"),
        (lambda: trained.evaluate(tmp_path / "nothing"), "there is no folder"),
        (lambda: trained.evaluate(other), "a label 7"),
        (
            lambda: trained.evaluate(DataLoader(TensorDataset(torch.zeros(0, 3, 32, 48), torch.zeros(0).long()))),
            "no image",
        ),
        (lambda: trained.evaluate(other, precision="16"), "precision must be one of"),
        (lambda: trained.evaluate(other, precision="16-mixed"), "needs a CUDA GPU"),
        (lambda: trained.save(photos[0]), "is there already"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["center", "squash"])
def test_images_are_fitted_as_timm_fits_them(tmp_path: Path, mode: str) -> None:
    network = timm.create_model("test_resnet", num_classes=3)
    entry = {"pretrained_cfg": {"input_size": (3, 64, 64), "crop_pct": 0.9, "crop_mode": mode}}
    timm.models.save_for_hf(network, tmp_path / "hub", model_config=entry)
    config = resolve_model_data_config(timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True))
    assert config["crop_mode"] == mode
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 200, 3), dtype=np.uint8))
    wanted = create_transform(**config, is_training=False)(image)
    found = foveate.load(tmp_path / "hub")
    again = foveate.load(saved_again(found, tmp_path / "again"))
    export_network(tmp_path / "again" / "model.safetensors", "hub", out=tmp_path / "out")
    exported = foveate.load(tmp_path / "out")
    for trained in (found, again, exported):
        assert torch.equal(trained.prepare(image)[0], wanted)
        left, _, right, _ = trained.placement((100, 200)).box_to_input([0, 0, 200, 100])
        assert (left, right) == (0, 64)
        assert trained.placement((100, 200)).pixel([2, 50]) is None or mode == "squash"


def test_a_way_of_fitting_that_is_not_known_is_refused(tmp_path: Path) -> None:
    entry = {"pretrained_cfg": {"input_size": (3, 64, 64), "crop_mode": "border"}}
    timm.models.save_for_hf(timm.create_model("test_resnet", num_classes=3), tmp_path, model_config=entry)
    with pytest.raises(ValueError, match="crop_mode"):
        foveate.load(tmp_path)


def test_an_unknown_module_is_named_beside_a_known_one(photos: list[Path]) -> None:
    trained = foveate.load("cram_resnet_tiny.digits")
    with pytest.raises(ValueError, match="nope"):
        trained.explain(photos[0], names=["layer3.attention", "nope"])


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1000, 20), (20, 1200), (500, 1)])
def test_narrow_images_are_drawn_where_the_rectangle_covers_them(size: tuple[int, int]) -> None:
    trained = foveate.load("cram_resnet_tiny.digits")
    nn.init.constant_(trained.network.get_submodule("layer3.attention.readout").bias, 5.0)
    finding = trained.explain(Image.new("RGB", size, "gray"))
    assert finding.records[-1].looks_at_all()
    picture = np.asarray(finding.picture())
    assert picture.min() < picture.max()


def test_images_that_are_no_fractions_are_refused() -> None:
    network = foveate.load("cram_resnet_tiny.digits")
    images = TensorDataset(torch.zeros(3, 3, 32, 32, dtype=torch.uint8), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"torch\.uint8"):
        network.evaluate(DataLoader(images, 2))


def test_in_half_precision_it_does_all_that_it_does() -> None:
    network = foveate.load("gsa_resnet_tiny.digits")
    wanted = network.evaluate("digits", split="val").top1.mean
    network.network.bfloat16().train()
    assert network.evaluate("digits", split="val").top1.mean == pytest.approx(wanted, abs=0.02)
    assert all(module.training for module in network.network.modules())
    records = network.explain(Image.new("RGB", (32, 32), "gray")).records
    assert len(records) > 0
    assert all(record.map.isfinite().all() for record in records)
    digits = open_data("digits", options={"length": 8, "val_length": 4, "test_length": 6})
    how = ScoreSettings(steps=2, faithful_images=1)
    half, single = (
        score_networks([one], digits, how)["networks"][0]["scores"]["energy"]["mean"]
        for one in (network, foveate.load("gsa_resnet_tiny.digits"))
    )
    assert half == pytest.approx(single, abs=0.02)
