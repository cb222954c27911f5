"""Checkpoints for images of another size, with parameters of several names, and of other networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_model
from tests.training.made_networks import meta_of, same, shaken
from torch.nn import functional as F

from foveate.cli import main
from foveate.io import load_network, load_weights, save_network, save_with_card
from foveate.training import TrainConfig
from foveate.training import train_network as run


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
            if name.startswith("gsa"):  # whose passes are sums over as many more positions
                wanted *= (value.shape[0] + 1) / (got.shape[0] + 1)
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
