"""Weights on disk: what is written comes back, and what cannot be right is refused by name."""

from __future__ import annotations

import argparse
import json
import math
import pickle
import re
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from foveate.io import NetworkMeta, load_network, load_weights, save_network, save_with_card
from tests.comparison import relative_error
from tests.io.made import network


def test_a_network_comes_back_as_it_was_saved(saved: tuple[Path, nn.Module, NetworkMeta]) -> None:
    path, model, meta = saved
    for place in (path, str(path), path.parent):  # the folder of a run stands for its weights
        loaded, read = load_network(place)
        assert read == meta
        assert not loaded.training
        image = torch.rand(2, 3, 33, 41)
        assert torch.equal(loaded(image), model.eval()(image))
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]  # no temporary file is left


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "stage"), [("cram_resnet_tiny", "layer3"), ("positionwise_efficientnet_b0", "blocks_4")]
)
def test_checkpoints_of_version_0_1_are_read(tmp_path: Path, name: str, stage: str) -> None:
    model, meta = network(name)
    path = tmp_path / "model.safetensors"
    save_network(path, model, meta)
    inserted = re.compile(rf"^{stage.replace('_', '.')}\.(?:\w+\.)?attention\.")
    earlier = {inserted.sub(f"attention.{stage}.", key): tensor for key, tensor in load_file(path).items()}
    assert any(key.startswith("attention.") for key in earlier)
    with safe_open(path, framework="pt") as file:
        save_file(earlier, path, metadata=file.metadata())
    loaded, _ = load_network(path)
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())
    earlier["attention.other.weight"] = torch.zeros(1)
    with safe_open(path, framework="pt") as file:
        save_file(earlier, path, metadata=file.metadata())
    with pytest.raises(ValueError, match="other"):
        load_network(path)


def test_the_network_is_described_in_plain_json(saved: tuple[Path, nn.Module, NetworkMeta]) -> None:
    path, _, meta = saved
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["foveate"])["classes"] == meta.classes


def test_no_file(tmp_path: Path) -> None:
    for place in (tmp_path / "nothing.safetensors", tmp_path):
        with pytest.raises(ValueError, match=f"there is no checkpoint {tmp_path}"):
            load_network(place)


@pytest.mark.parametrize("name", ["model.safetensors", "model.ckpt", "model.pth"])
@pytest.mark.parametrize("content", [b"", b"these are words, not weights", bytes(range(256)) * 40], ids=len)
def test_a_file_that_is_no_checkpoint(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is not a .*, or is cut short"):
        load_network(path)


@pytest.mark.parametrize("kind", ["safetensors", "ckpt"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_file_that_is_cut_short(kind: str, share: float, saved: tuple[Path, nn.Module, NetworkMeta]) -> None:
    path, model, _ = saved
    whole = path.with_suffix(f".{kind}")
    if kind == "ckpt":
        torch.save({"state_dict": {f"model.{name}": value for name, value in model.state_dict().items()}}, whole)
    content = whole.read_bytes()
    cut = path.with_name(f"cut.{kind}")
    cut.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=f"cut.{kind} is not a .*, or is cut short"):
        load_network(cut)


def test_a_checkpoint_never_runs_code(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "touched",))

    torch.save({"state_dict": Harmful()}, tmp_path / "harmful.ckpt")
    with pytest.raises(ValueError, match=r"harmful.ckpt is not a checkpoint of weights"):
        load_network(tmp_path / "harmful.ckpt")
    assert not (tmp_path / "touched").exists()


def test_of_a_plain_pickle_nothing_is_said_but_that_it_is_refused(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps(Path("x"), protocol=4))
    with pytest.raises(ValueError, match=r"plain.ckpt is not a checkpoint of weights"):
        load_network(tmp_path / "plain.ckpt")
    assert not recwarn.list


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {"weight": 3}}, {}], ids=str)
def test_something_else_that_torch_can_load(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"other.ckpt (holds a list|does not hold weights by name)"):
        load_network(tmp_path / "other.ckpt")


def test_weights_without_a_description(saved: tuple[Path, nn.Module, NetworkMeta]) -> None:
    path, _, _ = saved
    save_file(load_file(path), path)
    with pytest.raises(ValueError, match="does not say which network it holds"):
        load_network(path)


@pytest.mark.parametrize("description", ["{", '{"model": "test_resnet"}', "[]"])
def test_a_description_that_is_not_understood(description: str, saved: tuple[Path, nn.Module, NetworkMeta]) -> None:
    path, _, _ = saved
    save_file(load_file(path), path, metadata={"foveate": description})
    with pytest.raises(ValueError, match="describes its network in a way that is not understood"):
        load_network(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "resnet10t"}, r"model.safetensors is not a checkpoint of resnet10t: .*'conv1.0.weight'"),
        ({"kwargs": {"num_classes": 8, "in_chans": 3}}, r"'fc.weight' has shape \(7, \d+\), the network \(8, \d+\)"),
        ({"model": "test_resnex"}, "unknown model 'test_resnex'; did you mean 'test_resnet'"),
        ({"kwargs": {"depth": 9}}, "does not take these arguments: .*'depth'"),
    ],
)
def test_weights_of_another_network(
    change: dict[str, object], message: str, saved: tuple[Path, nn.Module, NetworkMeta]
) -> None:
    path, model, meta = saved
    save_network(path, model, replace(meta, **change))
    with pytest.raises(ValueError, match=message):
        load_network(path)


def test_starting_weights_fit_or_are_refused(saved: tuple[Path, nn.Module, NetworkMeta]) -> None:
    path, model, _ = saved
    same, _ = network()
    load_weights(same, path)
    assert all(map(torch.equal, same.state_dict().values(), model.state_dict().values()))
    other, _ = network("resnet10t")
    with pytest.raises(ValueError, match=r"is a checkpoint of another network than ResNet as asked for: .*'conv1.0"):
        load_weights(other, path)
    torch.save({**model.state_dict(), "extra": torch.zeros(1)}, path.with_suffix(".pth"))
    with pytest.raises(ValueError, match="the network has no 'extra'"):
        load_weights(same, path.with_suffix(".pth"))


def test_a_classifier_of_another_size_keeps_its_own_weights(saved: tuple[Path, nn.Module, NetworkMeta]) -> None:
    path, model, _ = saved
    wider, _ = network(num_classes=11)
    before = {name: value.clone() for name, value in wider.state_dict().items()}
    load_weights(wider, path)
    for name, value in wider.state_dict().items():
        expected = before if name.startswith("fc.") else model.state_dict()
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": 7}, "model must be text; got 7"),
        ({"kwargs": [1]}, r"kwargs must be keys with values; got \[1\]"),
        ({"classes": []}, "classes must be a list with something in it"),
        ({"classes": ["a", None]}, "classes must be text; got None"),
        ({"img_size": [3, 0]}, "img_size must be at least 1; got 0"),
        ({"mean": [0.1, math.nan, 0.1]}, "mean must be a finite number; got nan"),
        ({"std": [0.0]}, "std must be a finite number above 0"),
        ({"crop_pct": 2.5}, "crop_pct must be a finite number above 0 and at most 2; got 2.5"),
        ({"interpolation": ""}, "interpolation must be text"),
    ],
)
def test_a_description_out_of_range(
    change: dict[str, object], message: str, saved: tuple[Path, nn.Module, NetworkMeta]
) -> None:
    path, _, meta = saved
    with pytest.raises(ValueError, match=message):
        replace(meta, **change)
    save_file(load_file(path), path, metadata={"foveate": json.dumps({**vars(meta), **change})})
    with pytest.raises(ValueError, match=f"model.safetensors describes .* not understood: {message}"):
        load_network(path)


def test_half_precision_takes_half_the_space(saved: tuple[Path, nn.Module, NetworkMeta]) -> None:
    path, model, meta = saved
    size = path.stat().st_size
    card = save_with_card(path, model, meta, half=True)
    assert card.dtype == "float16"
    assert path.stat().st_size < 0.6 * size
    loaded, _ = load_network(path)
    for name, value in loaded.state_dict().items():
        wanted = model.state_dict()[name]
        assert value.dtype == wanted.dtype
        if name in dict(model.named_parameters()):
            assert relative_error(value, wanted) < 2**-11
        else:
            assert torch.equal(value, wanted), name  # statistics, whose range is wide


def test_what_float16_cannot_hold_is_refused(saved: tuple[Path, nn.Module, NetworkMeta]) -> None:
    path, model, meta = saved
    with torch.no_grad():
        model.get_classifier().weight[0, 0] = 1e5
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"fc.weight holds numbers beyond the range of float16"):
        save_with_card(path, model, meta, half=True)
    assert path.read_bytes() == before
    assert not path.with_suffix(".json").exists()


def test_what_a_user_lets_pickles_hold_stays_allowed(tmp_path: Path) -> None:
    model = timm.create_model("test_resnet", num_classes=3)
    arguments = argparse.Namespace(model="test_resnet", num_classes=3, img_size=40)
    torch.save({"arch": "test_resnet", "state_dict": model.state_dict(), "args": arguments}, tmp_path / "a.pth.tar")
    allowed = torch.serialization.get_safe_globals()
    try:
        for own in ([], [argparse.Namespace]):
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(own)
            assert load_network(tmp_path / "a.pth.tar")[1].model == "test_resnet"
            assert torch.serialization.get_safe_globals() == own
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(allowed)
