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
from safetensors.torch import save_file
from tests.training.made_networks import meta_of, same, shaken
from timm.utils import CheckpointSaver, ModelEmaV3
from torch import Tensor, nn

from foveate.io import load_network, load_weights
from foveate.io.checkpoint import rehearse_saving
from foveate.training import TrainConfig
from foveate.training import train_network as run


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


def test_a_part_called_model_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    whole, start = (nn.ModuleDict({"model": nn.Linear(3, 5), "neck": nn.Linear(5, 2)}) for _ in range(2))
    torch.save({"state_dict": whole.state_dict()}, tmp_path / "whole.pth")
    load_weights(start, tmp_path / "whole.pth")
    assert same(start, whole)
    loss = {"loss.weight": torch.ones(7)}
    state = {f"model.{key}": value for key, value in whole.state_dict().items()}
    torch.save({"pytorch-lightning_version": "2.5.0", "state_dict": state | loss}, tmp_path / "lightning.ckpt")
    again = nn.ModuleDict({"model": nn.Linear(3, 5), "neck": nn.Linear(5, 2)})
    load_weights(again, tmp_path / "lightning.ckpt")
    assert same(again, whole)


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
