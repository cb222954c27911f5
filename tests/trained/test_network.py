"""`TrainedNetwork`: from each kind of source, against what is written out by hand."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import foveate
from foveate.cli import main
from foveate.data import make_transform, open_data, placement
from foveate.export import export_network
from foveate.io import NetworkMeta, load_network, save_network
from foveate.io.class_names import class_name
from foveate.models import shipped
from foveate.models.building import build_network
from foveate.trained import EvaluationResult, Prediction, build, told_apart
from tests.made_sets import write_folder, write_photo

MEAN, STD = (0.4, 0.5, 0.6), (0.3, 0.2, 0.25)
CLASSES = [f"class{number}" for number in range(7)]


def saved(file: Path, name: str = "cram_resnet_tiny", size: tuple[int, int] = (32, 48), classes: int = 7) -> Path:
    """Write a checkpoint of a network whose weights are random, all of them."""
    torch.manual_seed(0)
    network, kwargs = build_network(name, num_classes=classes, img_size=size)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    meta = NetworkMeta(
        model=name,
        kwargs=kwargs,
        classes=CLASSES[:classes],
        img_size=size,
        mean=MEAN,
        std=STD,
        crop_pct=1.0,
        interpolation="bilinear",
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    save_network(file, network, meta)
    return file


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("runs") / "mine" / "model.safetensors").parent


@pytest.fixture(scope="module")
def trained(run: Path) -> foveate.TrainedNetwork:
    return foveate.load(run)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    return [write_photo(folder / f"{number}.png", number, (48, 32)) for number in range(5)]


def same(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def by_hand(paths: list[Path], size: tuple[int, int] = (32, 48)) -> Tensor:
    """Prepare images that already have the size of the input: the library's resize and crop are then no change."""
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths]).astype(np.float32) / 255
    assert pixels.shape[1:3] == size
    normalised = (pixels - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return torch.from_numpy(normalised).permute(0, 3, 1, 2)


@pytest.mark.slow
def test_a_run_a_file_and_a_checkpoint_of_training_are_loaded(run: Path, tmp_path: Path) -> None:
    network, meta = load_network(run)
    state = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"state_dict": state, "foveate": json.dumps(dataclasses.asdict(meta))}, tmp_path / "last.ckpt")
    for source in (run, str(run), run / "model.safetensors", tmp_path / "last.ckpt"):
        found = foveate.load(source)
        assert isinstance(found, foveate.TrainedNetwork)
        assert (found.source, found.name, list(found.classes)) == (str(source), "cram_resnet_tiny", CLASSES)
        assert same(found.network, network)
        assert not any(module.training for module in found.network.modules())
        assert found.transform.img_size == (32, 48) == found.img_size
        assert (found.transform.mean, found.transform.std, found.transform.interpolation) == (MEAN, STD, "bilinear")


def test_a_checkpoint_of_timms_script_is_loaded(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = timm.create_model("test_resnet", num_classes=3)
    arguments = {"model": "test_resnet", "num_classes": 3, "img_size": 40, "mean": [0.1, 0.2, 0.3]}
    content = {"arch": "test_resnet", "state_dict": network.state_dict(), "args": arguments}
    torch.save(content, tmp_path / "best.pth.tar")
    found = foveate.load(tmp_path / "best.pth.tar")
    assert same(found.network, network)
    assert (found.img_size, tuple(found.transform.mean), list(found.classes)) == (40, (0.1, 0.2, 0.3), ["0", "1", "2"])


@pytest.mark.parametrize("safe", [True, False])
def test_a_folder_of_timms_for_a_hub_is_loaded(tmp_path: Path, safe: bool) -> None:
    torch.manual_seed(2)
    network = timm.create_model("test_vit", num_classes=4, img_size=64)
    entry = {"label_names": list("abcd"), "pretrained_cfg": {"input_size": (3, 64, 64), "crop_pct": 0.9}}
    timm.models.save_for_hf(network, tmp_path, model_config=entry, safe_serialization=safe)
    expected = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    for source in (tmp_path, f"local-dir:{tmp_path}"):
        found = foveate.load(source)
        assert same(found.network, expected)
        assert (list(found.classes), found.img_size, found.transform.crop_pct) == (list("abcd"), 64, 0.9)


@pytest.mark.slow
def test_what_is_exported_for_a_hub_is_loaded(run: Path, tmp_path: Path, photos: list[Path]) -> None:
    assert main(["export", str(run), "--to=hub", f"--out={tmp_path / 'hub'}"]) == 0
    for source in (tmp_path / "hub", f"local-dir:{tmp_path / 'hub'}"):
        assert foveate.load(source).predict(photos) == foveate.load(run).predict(photos)


@pytest.mark.slow
def test_names_with_weights_are_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, file in shipped("digits").items():
        found = foveate.load(name)
        assert same(found.network, foveate.load(file).network)
        assert list(found.classes) == list("0123456789")
    torch.manual_seed(3)
    weights = timm.create_model("test_resnet").state_dict()
    torch.save(weights, tmp_path / "weights.pth")
    known = timm.get_pretrained_cfg("test_resnet.r160_in1k")
    local = dataclasses.replace(known, file=str(tmp_path / "weights.pth"))  # what would be fetched
    monkeypatch.setitem(timm.models._registry._model_pretrained_cfgs, "test_resnet.r160_in1k", local)
    found = foveate.load("test_resnet.r160_in1k")
    assert same(found.network, timm.create_model("test_resnet")) is False
    assert all(torch.equal(tensor, weights[name]) for name, tensor in found.network.state_dict().items())
    assert (len(found.classes), found.classes[1]) == (1000, "n01443537")
    assert (found.img_size, found.transform.crop_pct) == (160, 0.95)
    guesses = found.predict(write_photo(tmp_path / "photo.png", 0, (48, 32)), k=1000)
    assert {guess.name for guess in guesses if guess.label in (1, 134, 517)} == {"goldfish", "crane"}
    assert class_name("n00007846") == "person"  # of the larger ImageNet
    again = foveate.load(saved_again(found, tmp_path / "again"))
    assert same(again.network, found.network)


def saved_again(trained: foveate.TrainedNetwork, folder: Path) -> Path:
    trained.save(folder)
    return folder


@pytest.mark.slow
def test_a_folder_goes_before_a_name(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, "resnet18")
    assert foveate.load("resnet18").meta.model == "cram_resnet_tiny"


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


def test_networks_of_one_model_are_told_apart(trained: foveate.TrainedNetwork) -> None:
    other = dataclasses.replace(trained, source="elsewhere")
    names = [one.name for one in told_apart([trained, other, build("conv_resnet_tiny", num_classes=3)])]
    assert names == [f"cram_resnet_tiny ({trained.source})", "cram_resnet_tiny (elsewhere)", "conv_resnet_tiny"]


def test_bad_sources_are_refused(tmp_path: Path, run: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.safetensors").write_text("words")
    broken = shutil.copytree(run, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes()[:-10])
    grey, kwargs = build_network("test_resnet", num_classes=3, in_chans=1, img_size=(32, 32))
    meta = dataclasses.replace(load_network(run)[1], model="test_resnet", kwargs=kwargs, classes=list("abc"))
    save_network(tmp_path / "grey.safetensors", grey, meta)
    for source, message in (
        (tmp_path / "none", "there is no checkpoint"),
        ("cram_resnet_tiny.digit", "there are cram_resnet_tiny.digits, "),
        ("gsa_resnet5", "did you mean 'gsa_resnet5"),
        ("gsa_resnet50", "no weights for gsa_resnet50"),
        ("resnet18.nope", "no weights called resnet18.nope; there are .*resnet18.a1_in1k"),
        (tmp_path / "empty", "there is no checkpoint"),
        (tmp_path / "text.safetensors", "text.safetensors"),
        (broken, "cut short"),
        (tmp_path / "grey.safetensors", "does not take an image of 3×"),
    ):
        with pytest.raises(ValueError, match=message):
            foveate.load(source)
    with pytest.raises(ValueError, match="device must be one of"):
        foveate.load(run, device="tpu")


def test_weights_that_cannot_be_fetched_are_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*_: object, **__: object) -> None:
        raise FileNotFoundError("no connection")

    monkeypatch.setattr("foveate.models.building.timm.create_model", fetch)
    with pytest.raises(ValueError, match=r"weights of resnet18 cannot be fetched: no connection"):
        foveate.load("resnet18")


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


@pytest.mark.slow
def test_shipped_weights_are_built_whatever_of_their_own_is_named() -> None:
    for same in ({}, {"img_size": 32}, {"num_classes": 10}, {"img_size": (32, 32), "num_classes": 10}):
        found = build("cram_resnet_tiny.digits", pretrained=True, **same)
        assert found.classes == [str(digit) for digit in range(10)]
    assert len(build("cram_resnet_tiny.digits", pretrained=True, num_classes=3).classes) == 3


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
