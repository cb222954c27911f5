"""The networks that come with the library: loadable by name, small, and as good as is said."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from skimage.data import chelsea
from timm.data import resolve_model_data_config

import foveate
from foveate._extras import MissingExtraError
from foveate.data import ClutteredDigits, make_transform, open_data
from foveate.io import load_network, read_card
from foveate.io.checkpoint import load_weights
from foveate.models import shipped
from foveate.models.packaged import PACKAGED, packaged_weights

RESULTS = Path(__file__).parents[2] / "results" / "shipped"


def test_all_together_are_small():
    assert sum(path.stat().st_size for path in shipped("digits").values()) < 3e6
    with pytest.raises(ValueError, match=r"tag must be one of digits.*; got 'digit'; did you mean 'digits'"):
        shipped("digit")


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped())
def test_timm_and_load_network_give_the_same_network(name):
    ours, meta = load_network(name)
    theirs = timm.create_model(name, pretrained=True).eval()
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())
    assert all(parameter.dtype == torch.float32 for parameter in theirs.parameters())
    config = resolve_model_data_config(theirs)
    assert (config["mean"], config["std"]) == (tuple(meta.mean), tuple(meta.std))
    assert (config["crop_pct"], config["interpolation"]) == (meta.crop_pct, meta.interpolation)
    assert config["input_size"] == (3, *meta.img_size)
    assert list(theirs.pretrained_cfg["label_names"]) == list(meta.classes)


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """All test digits, as the networks take them, and their classes."""
    drawn = ClutteredDigits("test", transform=make_transform(open_data("digits").transform, training=False))
    images, labels = zip(*(drawn[index] for index in range(len(drawn))), strict=True)
    return torch.stack(images), torch.tensor(labels)


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped("digits"))
def test_its_accuracy_is_that_of_its_card(name, digits):
    model, _ = load_network(name)
    card = read_card(shipped()[name].with_suffix(".json"))
    images, labels = digits
    with torch.inference_mode():
        predicted = torch.cat([model(batch) for batch in images.split(250)]).argmax(1)
    accuracy = (predicted == labels).double().mean().item()
    # The card's is of the weights before they were rounded to half precision: an image or two may fall otherwise.
    assert accuracy == pytest.approx(card.test["top1"], abs=3 / len(images))
    assert accuracy > 0.9


@pytest.mark.slow
def test_other_uses_of_a_shipped_network():
    features = timm.create_model("cram_resnet_tiny.digits", pretrained=True, features_only=True)
    whole = timm.create_model("cram_resnet_tiny.digits", pretrained=True)
    assert torch.equal(features.state_dict()["model.conv1.weight"], whole.state_dict()["conv1.weight"])
    fewer = timm.create_model("cram_resnet_tiny.digits", pretrained=True, num_classes=3)
    assert fewer.num_classes == 3
    assert torch.equal(fewer.layer4[0].conv3.weight, whole.layer4[0].conv3.weight)
    untrained = timm.create_model("cram_resnet_tiny")
    assert untrained.num_classes == 1000
    with pytest.raises(RuntimeError, match="No pretrained weights exist"):
        timm.create_model("cram_resnet_tiny", pretrained=True)
    with pytest.raises(RuntimeError, match="Invalid pretrained tag"):
        timm.create_model("cram_resnet50.digits")


@pytest.mark.slow
def test_training_starts_from_one_by_name():
    model = timm.create_model("cram_resnet_tiny", num_classes=10)
    load_weights(model, "cram_resnet_tiny.digits")
    assert torch.equal(model.fc.weight, load_network("cram_resnet_tiny.digits")[0].fc.weight)


def test_scores_are_of_the_networks_that_ship():
    scores = json.loads((RESULTS / "scores.json").read_text())
    assert [network["checkpoint"] for network in scores["networks"]] == list(shipped("digits"))
    by_name = {network["checkpoint"]: network["scores"] for network in scores["networks"]}
    for name in ("conv_resnet_tiny.digits", "positionwise_resnet_tiny.digits"):
        assert by_name["cram_resnet_tiny.digits"]["pointing"]["low"] > by_name[name]["pointing"]["high"]
    assert by_name["cram_resnet_tiny.digits"]["pointing"]["low"] > 0.8


@pytest.mark.slow
def test_they_are_what_foveate_explains():
    digits = ClutteredDigits("test", transform=make_transform(open_data("digits").transform, training=False))
    images = torch.stack([digits[index][0] for index in range(3)])
    model = timm.create_model("cram_resnet_tiny.digits", pretrained=True)
    (record,) = foveate.explain(model, images).records
    assert record.rectangle is not None
    # The rectangle holds the middle of the true box.
    for index, corners in enumerate(record.rectangle):
        left, top, right, bottom = digits.boxes(index)
        low, high = corners.amin(0), corners.amax(0)
        middle = torch.tensor([(left + right) / 2, (top + bottom) / 2])
        assert ((low < middle) & (middle < high)).all()


@pytest.mark.parametrize("name", shipped("photographs"))
def test_a_network_of_photographs_is_the_run_that_is_published(name):
    assert shipped()[name].stat().st_size < 3e6
    card = read_card(shipped()[name].with_suffix(".json"))
    label = f"{card.network.model}+equivariance=1" if card.recipe["equivariance"] else card.network.model
    raw = json.loads((RESULTS.parent / "photographs" / "runs" / f"{label}.seed-0.json").read_text())
    assert card.test["top1"] == raw["metrics"]["top1"]
    assert all(raw["config"][setting] == value for setting, value in card.recipe.items())
    assert len(card.network.classes) == 20
    assert len(shipped("photographs")) == 3


@pytest.mark.slow
def test_the_network_of_flowers_is_what_differs_from_its_backbone():
    (path,) = shipped("flowers").values()
    assert path.stat().st_size < 3e6
    card, stored, backbone = (
        read_card(path.with_suffix(".json")),
        load_file(path),
        packaged_weights("tf_efficientnet_lite0"),
    )
    assert card.backbone == {"name": "tf_efficientnet_lite0", "sha256": PACKAGED["tf_efficientnet_lite0"].sha256}
    model = timm.create_model("cram_tf_efficientnet_lite0.flowers", pretrained=True)
    taken = [name for name in model.state_dict() if name not in stored]
    assert len(taken) > 200
    assert all(torch.equal(model.state_dict()[name], backbone[name]) for name in taken)
    early = {*card.recipe["freeze"]} - {"blocks.6", "conv_head", "bn2"}  # which a first step trained
    assert {"conv_stem", "blocks.0", "blocks.5"} < early
    assert [name for name in stored if name.startswith(tuple(f"{part}." for part in early))] == []
    measured = json.loads((RESULTS.parent / "flowers" / "cram_tf_efficientnet_lite0.json").read_text())
    assert measured["top1"]["mean"] == pytest.approx(card.test["top1"], abs=3 / measured["images"])  # of half precision
    assert measured["images"] == card.test["images"] == len(measured["correct"])
    page = (RESULTS.parents[1] / "docs" / "networks.md").read_text(encoding="utf-8")
    top1 = (f"{100 * measured['top1'][name]:.1f}" for name in ("mean", "low", "high"))
    assert "{} % (95 % interval {} to {})".format(*top1) in " ".join(page.split())
    assert list(measured["per_class"]) == list(card.network.classes)
    assert (
        foveate.load("cram_efficientnet_lite0.flowers").meta == foveate.load("cram_tf_efficientnet_lite0.flowers").meta
    )


@pytest.mark.slow
def test_without_the_extra_the_network_of_flowers_says_what_it_needs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, PACKAGED["tf_efficientnet_lite0"].package, None)
    with pytest.raises(MissingExtraError, match=r"foveate\[photos\]"):
        foveate.load("cram_tf_efficientnet_lite0.flowers")
    with pytest.raises(MissingExtraError, match=r"foveate\[photos\]"):
        timm.create_model("cram_tf_efficientnet_lite0.flowers", pretrained=True)


@pytest.mark.slow
def test_networks_of_photographs_name_their_classes_in_words():
    trained = foveate.load("cram_resnet_tiny.photographs")
    found = trained.predict(Image.fromarray(chelsea()), k=20)
    names = {trained.classes[prediction.label]: prediction.name for prediction in found}
    known = {"n01443537": "goldfish", "n02123045": "tabby", "n04532670": "viaduct", "n07871810": "meat loaf"}
    assert {synset: names[synset] for synset in known} == known
    assert all(" " in name or name.isalpha() for name in names.values())
