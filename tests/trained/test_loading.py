"""What `foveate.load` takes, and what it refuses."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import timm
import torch

import foveate
from foveate.cli import main
from foveate.export import export_network
from foveate.io import load_network, load_weights, save_network
from foveate.io.class_names import class_name
from foveate.models import shipped
from foveate.models.building import build_network
from foveate.trained import build, told_apart
from tests.made_sets import write_photo
from tests.trained.made import CLASSES, MEAN, STD, same, saved_again


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


@pytest.mark.slow
def test_a_folder_goes_before_a_name(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, "resnet18")
    assert foveate.load("resnet18").meta.model == "cram_resnet_tiny"


def test_how_timms_script_built_a_network_is_in_its_file(tmp_path: Path) -> None:
    network = timm.create_model("test_resnet", num_classes=3, global_pool="max")
    arguments = {"model": "test_resnet", "num_classes": 3, "img_size": 40, "gp": "max", "bn_eps": None}
    content = {"arch": "test_resnet", "state_dict": network.state_dict(), "args": argparse.Namespace(**arguments)}
    torch.save(content, tmp_path / "last.pth.tar")
    found, images = foveate.load(tmp_path / "last.pth.tar"), torch.randn(2, 3, 40, 40)
    with torch.no_grad():
        assert torch.equal(found.network(images), network.eval()(images))


def test_weights_without_counts_of_batches_are_whole(tmp_path: Path) -> None:
    network = timm.create_model("test_resnet", num_classes=3)
    old = {name: tensor for name, tensor in network.state_dict().items() if "num_batches" not in name}
    torch.save(old, tmp_path / "old.pth")
    other = timm.create_model("test_resnet", num_classes=3)
    load_weights(other, tmp_path / "old.pth")
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in old.items())


def test_the_size_of_a_hub_entry_may_be_one_number(tmp_path: Path) -> None:
    network = timm.create_model("test_vit", num_classes=4, img_size=64)
    timm.models.save_for_hf(network, tmp_path, safe_serialization=True)
    entry = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(entry | {"model_args": {"img_size": 64}}))
    assert foveate.load(tmp_path).img_size == 64


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


@pytest.mark.slow
def test_shipped_weights_are_built_whatever_of_their_own_is_named() -> None:
    for own in ({}, {"img_size": 32}, {"num_classes": 10}, {"img_size": (32, 32), "num_classes": 10}):
        found = build("cram_resnet_tiny.digits", pretrained=True, **own)
        assert found.classes == [str(digit) for digit in range(10)]
    assert len(build("cram_resnet_tiny.digits", pretrained=True, num_classes=3).classes) == 3


def test_a_folder_that_is_called_like_a_shipped_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "cram_resnet_tiny.digits"
    mine = foveate.load(name)
    with torch.no_grad():
        mine.network.fc.bias.add_(1.0)
    mine.save(name)
    export_network(f"local-dir:./{name}", out="exported")
    for source in (f"./{name}", Path(name), f"local-dir:./{name}", "exported/cram_resnet_tiny.safetensors"):
        assert torch.equal(foveate.load(source).network.fc.bias, mine.network.fc.bias)
    assert not torch.equal(foveate.load(name).network.fc.bias, mine.network.fc.bias)


def test_classes_of_a_hub_entry_may_be_named_by_their_numbers(tmp_path: Path) -> None:
    network = timm.create_model("test_resnet", num_classes=3)
    names = {0: "cat", 2: "dog"}
    timm.models.save_for_hf(network, tmp_path, model_config={"label_names": names}, safe_serialization=True)
    assert list(foveate.load(tmp_path).classes) == ["cat", "1", "dog"]


def test_hub_entries_of_earlier_times(tmp_path: Path) -> None:
    network = timm.create_model("test_resnet", num_classes=3, in_chans=1)
    timm.models.save_for_hf(network, tmp_path, model_args={"in_chans": 1}, safe_serialization=True)
    config = json.loads((tmp_path / "config.json").read_text())
    about = config.pop("pretrained_cfg") | {"labels": ["ant", "bee", "cat"], "input_size": [3, 160, 160]}
    args = config.pop("model_args")
    (tmp_path / "config.json").write_text(json.dumps(about | config | {"model_args": args}))
    found, meta = load_network(tmp_path)
    assert same(found, network)
    assert meta.classes == ["ant", "bee", "cat"]
