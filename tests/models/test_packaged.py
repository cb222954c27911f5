"""Weights of ImageNet from a package, and files that hold only what differs from them."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from skimage.data import chelsea
from torch import nn

import foveate
from foveate._extras import MissingExtraError
from foveate.export import export_network
from foveate.io import NetworkMeta, load_network, read_card
from foveate.io.checkpoint import load_weights, save_network, save_with_card
from foveate.io.reading import BACKBONE_KEY, META_KEY
from foveate.models import packaged
from foveate.models.building import create_network
from foveate.models.packaged import PACKAGED, packaged_weights, paired
from foveate.trained import build

NAME = "tf_efficientnet_lite0"
CRAM = f"cram_{NAME}"


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the package, as where the extra is not installed."""
    monkeypatch.setitem(sys.modules, PACKAGED[NAME].package, None)


@pytest.fixture(scope="module")
def tuned() -> tuple[nn.Module, NetworkMeta]:
    """A network of which the attention, the last stage and the classifier are not those of the package."""
    torch.manual_seed(0)
    model = timm.create_model(CRAM, pretrained=True, num_classes=7).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "attention" in name or name.startswith("blocks.6"):
                parameter.add_(torch.randn_like(parameter), alpha=0.01)
    half = dict.fromkeys(("mean", "std"), [0.5] * 3)
    meta = NetworkMeta(
        model=CRAM,
        kwargs={"num_classes": 7},
        classes=list("abcdefg"),
        img_size=[53, 67],
        crop_pct=0.875,
        interpolation="bicubic",
        **half,
    )
    return model, meta


@pytest.mark.slow
def test_what_the_weights_are_worth():
    """Weights under wrong names would know no cat; neither would those of another padding or normalization."""
    trained = build(NAME, pretrained=True)
    assert trained.meta.mean == trained.meta.std == [0.5, 0.5, 0.5]
    cat = trained.predict(Image.fromarray(chelsea()))[0]
    assert cat.name == "tiger cat"
    assert cat.probability > 0.3
    assert trained.network.pretrained_cfg["state_dict"] is None  # else every network would hold them twice


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cram", "positionwise"])
def test_pretrained_networks_with_attention_have_them(kind: str):
    network = timm.create_model(f"{kind}_{NAME}", pretrained=True, num_classes=5, in_chans=1)
    base, own = packaged_weights(NAME), network.state_dict()
    assert {name for name in own.keys() - base.keys() if ".attention." not in name} == set()
    changed = [name for name in base if own[name].shape != base[name].shape or not own[name].equal(base[name])]
    assert changed == ["conv_stem.weight", "classifier.weight", "classifier.bias"]  # as timm fits them
    torch.testing.assert_close(own["conv_stem.weight"], base["conv_stem.weight"].sum(1, keepdim=True))


@pytest.mark.slow
def test_other_weights_can_be_asked_for():
    given = {name: torch.full_like(each, 2) for name, each in packaged_weights(NAME).items()}
    network = timm.create_model(CRAM, pretrained=True, pretrained_cfg_overlay={"state_dict": given})
    assert (network.conv_stem.weight == 2).all()


@pytest.mark.slow
@pytest.mark.usefixtures("no_package")
def test_without_the_extra_it_is_named(tuned: tuple[nn.Module, NetworkMeta], tmp_path: Path):
    timm.create_model(CRAM)
    for do in (
        lambda: timm.create_model(CRAM, pretrained=True),
        lambda: create_network(CRAM, {}, pretrained=True),
        lambda: save_network(tmp_path / "model.safetensors", *tuned, difference=True),
    ):
        with pytest.raises(MissingExtraError, match=r"foveate\[photos\]"):
            do()


def test_a_file_that_was_changed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    content = bytearray(PACKAGED[NAME].path().read_bytes())
    content[len(content) // 2] ^= 1
    other = tmp_path / "other.pth"
    for written in (bytes(content), b""):
        other.write_bytes(written)
        monkeypatch.setitem(packaged.PACKAGED, NAME, dataclasses.replace(PACKAGED[NAME], file=str(other)))
        with pytest.raises(ValueError, match="SHA-256"):
            timm.create_model(CRAM, pretrained=True)


def test_tensors_are_paired_with_names_by_order_and_shape():
    network = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Linear(5, 7))
    shapes = [(5, 3, 1, 1), (5,), (7, 5), (7,)]
    given = {f"other.{index}": torch.full(shape, float(index)) for index, shape in enumerate(shapes)}
    found = paired(given, network, "file")
    assert list(found) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert [tensor.flatten()[0].item() for tensor in found.values()] == [0, 1, 2, 3]
    for wrong, field in (
        ({**given, "other.2": torch.zeros(5, 7)}, "other.2"),
        ({**given, "other.3": 7}, "other.3"),
        ({**given, "more": torch.zeros(1)}, "5 tensors"),
    ):
        with pytest.raises(ValueError, match=field):
            paired(wrong, network, "file")


@pytest.mark.slow
@pytest.mark.parametrize("half", [False, True])
def test_what_differs_is_stored_and_completed(half: bool, tuned: tuple[nn.Module, NetworkMeta], tmp_path: Path):
    model, meta = tuned
    path = tmp_path / "flowers.safetensors"
    card = save_with_card(path, model, meta, half=half, difference=True)
    assert card.dtype == ("float16" if half else "float32")
    assert card.backbone == {"name": NAME, "sha256": PACKAGED[NAME].sha256}
    assert dataclasses.asdict(read_card(path.with_suffix(".json"))) == dataclasses.asdict(card)
    stored = load_file(path)
    assert {name.partition(".attention")[0] for name in stored if "attention" in name} == {"blocks.4"}
    assert {name.split(".")[0] for name in stored} == {"blocks", "classifier"}
    assert path.stat().st_size < (1.3e6 if half else 2.6e6)

    loaded, known = load_network(path)
    assert dataclasses.asdict(known) == dataclasses.asdict(meta)
    for name, tensor in model.state_dict().items():
        exact = tensor if not half or name not in stored else tensor.to(stored[name].dtype).to(tensor.dtype)
        assert loaded.state_dict()[name].equal(exact), name
    if half:  # what follows reads the same tensors
        return
    other = timm.create_model(CRAM, num_classes=3)
    load_weights(other, path)
    assert other.conv_stem.weight.equal(model.conv_stem.weight)
    assert other.blocks[6][0].conv_pw.weight.equal(loaded.blocks[6][0].conv_pw.weight)

    foveate.load(path).save(tmp_path / "whole")  # a file that needs no package
    assert load_file(tmp_path / "whole" / "model.safetensors").keys() == model.state_dict().keys()


@pytest.mark.slow
def test_it_is_an_option_of_exported_weights_alone(tuned: tuple[nn.Module, NetworkMeta], tmp_path: Path):
    save_network(tmp_path / "model.safetensors", *tuned)
    (file, _), _ = export_network(tmp_path, out=tmp_path / "out", difference=True, half=True)
    assert file.stat().st_size < 1.3e6 < (tmp_path / "model.safetensors").stat().st_size
    with pytest.raises(ValueError, match="difference"):
        export_network(tmp_path, "hub", out=tmp_path / "out", difference=True)


@pytest.mark.slow
def test_bad_files_of_what_differs(tuned: tuple[nn.Module, NetworkMeta], tmp_path: Path):
    path = tmp_path / "model.safetensors"
    save_network(path, *tuned, difference=True)
    stored, meta = load_file(path), json.dumps(dataclasses.asdict(tuned[1]))

    def written(backbone: str, tensors: dict[str, torch.Tensor] = stored) -> Path:
        save_file(tensors, path, {META_KEY: meta, BACKBONE_KEY: backbone})
        return path

    own = {"name": NAME, "sha256": PACKAGED[NAME].sha256}
    load_network(written(json.dumps(own)))
    for backbone in ({**own, "sha256": "0" * 64}, {**own, "name": "resnet50"}, {"name": NAME}, [], "{"):
        with pytest.raises(ValueError, match="backbone"):
            load_network(written(backbone if isinstance(backbone, str) else json.dumps(backbone)))
    without = {name: tensor for name, tensor in stored.items() if "readout" not in name}
    with pytest.raises(ValueError, match="readout"):
        load_network(written(json.dumps(own), without))
    with pytest.raises(ValueError, match="cram_resnet_tiny"):
        save_network(path, tuned[0], dataclasses.replace(tuned[1], model="cram_resnet_tiny"), difference=True)


def test_weights_with_their_attention_are_loaded_into_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    wanted, bare = timm.create_model("cram_resnet26", num_classes=5), timm.create_model("conv_resnet26", num_classes=5)
    for number, network in enumerate((wanted, bare)):
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        saved = {"state_dict": network.state_dict(), "args": argparse.Namespace(lr=1)}  # as timm's script does
        torch.save(saved, tmp_path / f"{number}.pth")

    def loaded(number: int, num_classes: int) -> dict[str, torch.Tensor]:
        # As timm's training script has it: with num_classes=-1 names that it does not know would be dropped.
        overlay = {"file": str(tmp_path / f"{number}.pth"), "num_classes": num_classes}
        return timm.create_model(
            "cram_resnet26", pretrained=True, pretrained_cfg_overlay=overlay, num_classes=5
        ).state_dict()

    for found in (loaded(0, 5), loaded(0, -1)):
        own = {key: value for key, value in wanted.state_dict().items() if not key.startswith("fc.")}
        assert all(torch.equal(found[key], value) for key, value in own.items())
    found = loaded(1, 5)
    assert all(torch.equal(found[key], value) for key, value in bare.state_dict().items())


def test_what_timm_saves_of_a_shipped_network_is_built_again(tmp_path: Path) -> None:
    network = timm.create_model(f"{CRAM}.flowers", pretrained=True)
    timm.models.save_for_hf(network, tmp_path)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).state_dict()
    assert all(torch.equal(again[key], value) for key, value in network.state_dict().items())
