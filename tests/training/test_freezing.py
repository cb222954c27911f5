"""Parts that are not trained, and normalization as pretrained weights know it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.made_sets import write_folder
from tests.training.test_fit import Interrupting, small_net, train
from torch import nn

import foveate
from foveate.io import load_network
from foveate.tasks import Classification
from foveate.training import Recipe, TrainingModule
from foveate.training.settings_file import read_settings
from foveate.training.train_state import LAST

DIGITS: dict[str, Any] = {
    "data": "digits",
    "data_options": {"length": 48, "val_length": 8, "test_length": 8},
    "batch_size": 16,
    "device": "cpu",
    "logger": [],
    "verbose": False,
}


def test_frozen_parts_stay_and_all_others_learn(tmp_path: Path):
    names = ["conv1", "bn1", "layer1", "layer2.0.bn2"]
    out = tmp_path / "run"
    foveate.train("cram_resnet_tiny", freeze=names, epochs=2, weight_decay=0.1, ema_decay=0.5, out=str(out), **DIGITS)
    torch.manual_seed(0)
    first = foveate.models.building.build_network("cram_resnet_tiny", num_classes=10, img_size=(32, 32))[0].state_dict()
    last = load_file(out / "model.safetensors")
    frozen = {key for key in first if key.startswith(tuple(f"{name}." for name in names))}
    assert {key for key in first if first[key].equal(last[key])} == frozen
    assert any("running_mean" in key for key in frozen)


def test_what_is_not_frozen_learns_as_in_a_network_that_begins_there(tmp_path: Path):
    """Two trainings: of a network, its first layers frozen, and of the rest alone on what those compute."""
    torch.manual_seed(1)
    front = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Dropout(0.5))
    rest = nn.Sequential(nn.Conv2d(5, 7, 3), nn.BatchNorm2d(7), nn.Flatten(), nn.LazyLinear(3))
    images, labels = torch.randn(8, 3, 11, 13), torch.arange(8) % 3
    rest(front(images))
    own = {key: value.clone() for key, value in rest.state_dict().items()}
    whole = TrainingModule(nn.Sequential(front, rest), Recipe(freeze=["0"]), Classification(["a", "b", "c"])).train()
    loss, _ = whole(images, labels, epoch=0, step=0)
    loss.backward()
    assert all(parameter.grad is None for parameter in front.parameters())
    found = [parameter.grad.clone() for parameter in rest.parameters()]

    rest.load_state_dict(own)
    rest.zero_grad()
    features = front.eval()(images).detach()
    task = Classification(["a", "b", "c"])
    task.loss(rest.train()(features), labels).backward()
    for ours, parameter in zip(found, rest.parameters(), strict=True):
        torch.testing.assert_close(ours, parameter.grad)


def test_a_run_with_frozen_parts_resumes_to_the_last_bit(tmp_path: Path):
    recipe = Recipe(epochs=2, batch_size=8, freeze=["net.0"])
    expected, _ = train(Interrupting(small_net(), -1), recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(Interrupting(small_net(), 9), recipe, tmp_path / "cut", checkpoint_updates=1)
    assert (tmp_path / "cut" / LAST).is_file()
    found, _ = train(Interrupting(small_net(), -1), recipe, tmp_path / "cut", resume=True)
    for ours, theirs in zip(found.state_dict().values(), expected.state_dict().values(), strict=True):
        assert ours.equal(theirs)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["layer9"], "freeze.*'layer9'.*did you mean"),
        (["conv1.weight"], "freeze"),
        (["conv1", ""], "freeze"),
        (["conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"], "freeze leaves nothing"),
    ],
)
def test_names_that_do_not_do(names: list[str], said: str, tmp_path: Path):
    with pytest.raises(ValueError, match=said):
        foveate.train("conv_resnet_tiny", freeze=names, epochs=1, out=str(tmp_path / "run"), **DIGITS)
    assert not (tmp_path / "run").exists()


def test_runs_from_before_are_read(tmp_path: Path):
    config = foveate.training.TrainConfig(model="conv_resnet_tiny")
    text = foveate.training.settings_file.to_yaml(config)
    assert "freeze: []\n" in text
    (tmp_path / "config.yaml").write_text(text.replace("freeze: []\n", ""))
    found = read_settings(tmp_path / "config.yaml", config)
    assert found is not None
    assert found["freeze"] == []


@pytest.mark.slow
@pytest.mark.parametrize("pretrained", [False, True])
def test_images_are_normalized_as_pretrained_weights_know_them(pretrained: bool, tmp_path: Path):
    data = write_folder(tmp_path / "set", {"train": 3, "val": 2})
    result = foveate.train(
        "cram_tf_efficientnet_lite0",
        data,
        pretrained=pretrained,
        freeze=["blocks.0"],
        img_size=37,
        epochs=1,
        warmup_epochs=0,
        batch_size=3,
        device="cpu",
        logger=[],
        out=str(tmp_path / "run"),
        verbose=False,
    )
    _, meta = load_network(result.folder)
    assert (meta.mean == [0.5] * 3) == pretrained
    own = foveate.evaluate(result.folder, data, split="val")  # which prepares images as the card says
    assert own.loss == pytest.approx(result.metrics["loss"], rel=1e-5)
