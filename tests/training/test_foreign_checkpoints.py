"""Checkpoints of others, of other image sizes, and of networks whose parameters have several names."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file, save_model
from timm.utils import CheckpointSaver, ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional as F

from foveate.cli import main
from foveate.io import NetworkMeta, load_network, load_weights, save_network, save_with_card
from foveate.io.checkpoint import rehearse_saving
from foveate.training import TrainConfig
from foveate.training import train_network as run


def shaken(name: str, **keywords: Any) -> nn.Module:
    """Build a network of which no two tensors are alike."""
    model = timm.create_model(name, **keywords)
    with torch.no_grad():
        for tensor in dict.fromkeys((*model.parameters(), *model.buffers())):
            if tensor.is_floating_point():
                tensor.uniform_(0.1, 1)
    return model.eval()


def meta_of(name: str, num_classes: int, **kwargs: Any) -> NetworkMeta:
    return NetworkMeta(
        model=name,
        kwargs={"num_classes": num_classes, **kwargs},
        classes=[str(index) for index in range(num_classes)],
        img_size=[64, 64],
        mean=[0.5] * 3,
        std=[0.5] * 3,
        crop_pct=1.0,
        interpolation="bicubic",
    )


def same(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)


@pytest.fixture
def written_by_timm(tmp_path: Path) -> tuple[Path, nn.Module, nn.Module]:
    """What timm's own saver writes, with the arguments of the script, and the two networks that are in it."""
    model, average = shaken("test_resnet", num_classes=7), shaken("test_resnet", num_classes=7)
    ema = ModelEmaV3(average)
    arguments = argparse.Namespace(
        model="test_resnet", num_classes=7, img_size=40, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), crop_pct=0.9,
        interpolation="bilinear", model_kwargs={}, in_chans=None, lr=0.1, distributed=False,
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    CheckpointSaver(model, optimizer, args=arguments, model_ema=ema, checkpoint_dir=str(tmp_path)).save_checkpoint(3)
    return tmp_path / "last.pth.tar", model, average


def test_a_checkpoint_of_timm_is_used_as_it_is(
    written_by_timm: tuple[Path, nn.Module, nn.Module], caplog: pytest.LogCaptureFixture
) -> None:
    path, raw, average = written_by_timm
    loaded, meta = load_network(path)
    assert same(loaded, average)
    assert not same(loaded, raw)
    assert (meta.model, len(meta.classes), list(meta.img_size)) == ("test_resnet", 7, [40, 40])
    assert (meta.mean, meta.std, meta.crop_pct, meta.interpolation) == (
        [0.1, 0.2, 0.3],
        [0.4, 0.5, 0.6],
        0.9,
        "bilinear",
    )
    assert [(record.levelno, "state_dict_ema" in record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, True)
    ]
    start = timm.create_model("test_resnet", num_classes=7)
    load_weights(start, path)
    assert same(start, average)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {f"_orig_mod.{key}": value for key, value in state.items()},
        lambda state: {f"_orig_mod.module.{key}": value for key, value in state.items()},
        lambda state: {key.replace("layer1.", "layer1._orig_mod."): value for key, value in state.items()},
        lambda state: {"n_averaged": torch.tensor(3), **{f"module.{key}": value for key, value in state.items()}},
        lambda state: {"model": state, "args": argparse.Namespace(lr=1), "epoch": 4},
        lambda state: {"model": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {"model_state_dict": state},
        lambda state: {"state_dict": {f"model._orig_mod.{key}": value for key, value in state.items()}},
        lambda state: {"state_dict": {f"module.model.{key}": value for key, value in state.items()}},
        lambda state: {"model": {key: value + 1 for key, value in state.items()}, "model_ema": state},
        lambda state: {
            "model": {key: value + 1 for key, value in state.items()},
            "model_ema": {"n_averaged": torch.tensor(3), **{f"module.{key}": value for key, value in state.items()}},
        },
    ],
)
def test_what_wrapped_a_network_is_taken_off(wrap: Any, tmp_path: Path) -> None:
    model, start = shaken("test_resnet", num_classes=5), timm.create_model("test_resnet", num_classes=5)
    wrapped = wrap(dict(model.state_dict()))
    torch.save(wrapped, tmp_path / "wrapped.pth")
    load_weights(start, tmp_path / "wrapped.pth")
    assert same(start, model)
    if all(isinstance(value, Tensor) for value in wrapped.values()):
        save_file({key: value.clone() for key, value in wrapped.items()}, tmp_path / "wrapped.safetensors")
        start = timm.create_model("test_resnet", num_classes=5)
        load_weights(start, tmp_path / "wrapped.safetensors")
        assert same(start, model)


def test_weights_that_are_there_twice_are_not_guessed(tmp_path: Path) -> None:
    model = shaken("test_resnet", num_classes=5)
    state = {**model.state_dict(), "layer1._orig_mod.0.conv1.weight": model.layer1[0].conv1.weight.detach() + 1}
    torch.save(state, tmp_path / "twice.pth")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"twice\.pth holds the same weights more than once"):
        load_weights(model, tmp_path / "twice.pth")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class Touch:
    """What runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_what_would_have_to_be_run_is_refused_and_named(tmp_path: Path) -> None:
    state = shaken("test_resnet", num_classes=5).state_dict()
    for name, harm, said in (
        ("touch", Touch(tmp_path / "touched"), r"pathlib\.Path"),
        ("namespace", argparse.Namespace(x=Touch(tmp_path / "touched")), r"pathlib\.Path"),
        ("scalar", np.float64(0.7), r"numpy.*scalar"),
        ("network", nn.Conv2d(1, 1, 1), r"torch\.nn\.modules\.conv\.Conv2d"),
    ):
        path = tmp_path / f"{name}.pth.tar"
        torch.save({"state_dict": state, "args": harm}, path)
        with pytest.raises(ValueError, match=said) as caught:
            load_weights(timm.create_model("test_resnet", num_classes=5), path)
        assert "weights_only=False" in str(caught.value)
        assert "argparse" not in str(caught.value)
    assert not (tmp_path / "touched").exists()
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_classes": 10**12},
        {"num_classes": "many"},
        {"img_size": -3},
        {"mean": ["a", "b", "c"]},
        {"model_kwargs": {"pretrained_cfg": {"file": "x"}}},
        {"model_kwargs": [1]},
        {"crop_pct": 7},
        {"model": "no_such_network"},
        {"model": 3},
    ],
    ids=str,
)
def test_arguments_that_make_no_sense(arguments: dict[str, Any], tmp_path: Path) -> None:
    given = {"model": "test_resnet", "num_classes": 7, "img_size": 40, **arguments}
    state = shaken("test_resnet", num_classes=7).state_dict()
    path = tmp_path / "odd.pth.tar"
    torch.save({"arch": given["model"], "state_dict": state, "args": argparse.Namespace(**given)}, path)
    with pytest.raises(ValueError, match=r"odd\.pth\.tar"):
        load_network(path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["safetensors", "half", "card", "tar"])
def test_parameters_with_several_names_come_back(kind: str, tmp_path: Path) -> None:
    model, path = shaken("coat_lite_tiny", num_classes=3, img_size=32), tmp_path / "model.safetensors"
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    assert len(names) > len(list(model.parameters()))
    meta = meta_of("coat_lite_tiny", 3, img_size=32)
    if kind == "tar":
        path = tmp_path / "model.ckpt"
        state = {f"model.{key}": value for key, value in model.state_dict().items()}
        torch.save({"state_dict": state, "foveate": "{}"}, path)
    elif kind == "card":
        save_with_card(path, model, meta)
    else:
        save_network(path, model, meta, half=kind == "half")
    if kind == "half":
        assert {str(tensor.dtype) for key, tensor in load_file(path).items() if key in names} == {"torch.float16"}
        model = model.half().float()
    if kind != "tar":
        assert same(load_network(path)[0], model)
        theirs = timm.create_model("coat_lite_tiny", num_classes=3, img_size=32, checkpoint_path=str(path))  # strictly
        assert same(theirs, model)
    start = timm.create_model("coat_lite_tiny", num_classes=3, img_size=32)
    load_weights(start, path)
    assert same(start, model)
    assert len(list(start.parameters())) == len(list(model.parameters()))  # one parameter still, not two


def test_of_several_names_one_is_enough(tmp_path: Path) -> None:
    model, path = shaken("coat_lite_tiny", num_classes=3, img_size=32), tmp_path / "one.safetensors"
    save_model(model, str(path))  # safetensors' own way: each parameter once
    assert len(load_file(path)) < len(model.state_dict())
    start = timm.create_model("coat_lite_tiny", num_classes=3, img_size=32)
    load_weights(start, path)
    assert same(start, model)


@pytest.mark.slow
def test_a_network_with_tied_weights_is_trained_and_saved(tmp_path: Path) -> None:
    digits = {"size": 32, "clutter": 1, "length": 8, "val_length": 4, "test_length": 5}
    config = TrainConfig(model="coat_lite_tiny", data_options=digits, epochs=1, batch_size=8, device="cpu",
                         out=str(tmp_path / "run"))  # fmt: skip
    assert run(config, verbose=False)["images"] == 5
    trained, _ = load_network(tmp_path / "run")
    assert same(trained, load_network(tmp_path / "run" / "last.ckpt")[0])
    assert main(["export", str(tmp_path / "run"), "--to=hub", f"--out={tmp_path}/hub"]) == 0
    assert same(timm.create_model(f"local-dir:{tmp_path}/hub", pretrained=True), trained)


def test_what_cannot_be_saved_is_known_before_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from foveate.io import checkpoint

    def refuse(*_: object, **__: object) -> bytes:
        raise RuntimeError("tensors of a kind that cannot be stored")

    model, path = shaken("test_resnet", num_classes=7), tmp_path / "model.safetensors"
    rehearse_saving(path, model, meta_of("test_resnet", 7))
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(checkpoint, "save", refuse)
    digits = {"size": 16, "clutter": 1, "length": 8, "val_length": 4, "test_length": 5}
    config = TrainConfig(model="test_resnet", data_options=digits, epochs=1, batch_size=8, device="cpu",
                         out=str(tmp_path / "run"))  # fmt: skip
    with pytest.raises(RuntimeError, match="cannot be stored"):
        run(config, verbose=False)
    assert not (tmp_path / "run" / "last.ckpt").exists()  # not an update was made


@pytest.mark.parametrize("name", ["gsa_resnet_tiny", "aa_resnet_tiny"])
def test_tables_of_another_image_size_are_resized(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    small = shaken(name, num_classes=5, img_size=32)
    torch.save(small.state_dict(), tmp_path / "small.pth")
    large = timm.create_model(name, num_classes=5, img_size=(48, 64))
    load_weights(large, tmp_path / "small.pth")
    tables = [key for key in small.state_dict() if key.endswith((".rel_height", ".rel_width"))]
    assert tables
    for key, value in small.state_dict().items():
        got = large.state_dict()[key]
        if key in tables:  # linear interpolation of offsets, computed here with numpy
            assert got.shape[0] > value.shape[0]
            old, new = np.linspace(-1, 1, value.shape[0]), np.linspace(-1, 1, got.shape[0])
            wanted = np.stack([np.interp(new, old, column) for column in value.double().numpy().T], axis=1)
            assert np.abs(got.double().numpy() - wanted).max() < 1e-5
        else:
            assert torch.equal(got, value)
    assert f"{len(tables)} tensors: {tables[0]}" in caplog.text


def test_position_embeddings_of_timm_are_resized(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    small = shaken("test_vit", num_classes=5, img_size=64)
    torch.save(small.state_dict(), tmp_path / "small.pth")
    large = timm.create_model("test_vit", num_classes=7, img_size=96)
    head = large.head.weight.detach().clone()
    load_weights(large, tmp_path / "small.pth")
    was, got = small.pos_embed.detach(), large.pos_embed.detach()
    side, prefix = int((was.shape[1] - 1) ** 0.5), was.shape[1] - int((was.shape[1] - 1) ** 0.5) ** 2
    grid = was[:, prefix:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    new = int((got.shape[1] - prefix) ** 0.5)
    wanted = F.interpolate(grid, size=(new, new), mode="bicubic", antialias=True).flatten(2).mT
    assert torch.equal(got[:, :prefix], was[:, :prefix])
    assert torch.allclose(got[:, prefix:], wanted, atol=1e-6)
    assert torch.equal(large.blocks[0].attn.qkv.weight, small.blocks[0].attn.qkv.weight)
    assert torch.equal(large.head.weight, head)  # of another number of classes
    assert "pos_embed" in caplog.text


@pytest.mark.slow
def test_another_network_is_still_refused(tmp_path: Path) -> None:
    torch.save(shaken("gsa_resnet26", num_classes=5, img_size=64).state_dict(), tmp_path / "other.pth")
    for name in ("gsa_resnet_tiny", "test_vit"):
        model = shaken(name, num_classes=5, img_size=64)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        with pytest.raises(ValueError, match="is a checkpoint of another network"):
            load_weights(model, tmp_path / "other.pth")
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
