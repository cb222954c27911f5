"""Every network of a recipe trains on its data: a few updates through the command itself, on images made alike.

Two recipes that differ in their schedules alone would do the same in these updates, and two depths of a ResNet repeat
the same blocks; one of them is tried, the shallowest. Of what is left `make test` trains each data set, network, base
and task once, `make test-all` every combination.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable, Container, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torchvision
import yaml
from PIL import Image
from safetensors.torch import load_file

import foveate.training.loop
import foveate.training.run
from foveate.cli import main
from tests.costs import leave_out_costs
from tests.data.dense.made import write_voc, xml
from tests.made_sets import write_cifar10, write_cifar100, write_folder, write_pets
from tests.recipes.files import COMPARED, ROOT, TEXTS, TRAINED, configuration

pytestmark = pytest.mark.slow


def family(model: str) -> tuple[str, int]:
    """Return the name of a network without its depth, and that: ResNets differ in the number of their blocks."""
    found = re.fullmatch(r"(.*resnet)(\d+)(d?)", model)
    return (found[1] + found[3], int(found[2])) if found else (model, 0)


CONFIGURED = sorted(((configuration(file), file) for file in TRAINED), key=lambda one: -family(one[0].model)[1])
TRIED = {
    (family(config.model)[0], config.data, config.img_size, config.equivariance): file for config, file in CONFIGURED
}

REPRESENTATIVES = {
    "recipes/cifar100/gsa_resnet26.yaml",
    "recipes/expatt-cifar10/expatt_resnet50.yaml",
    "recipes/expatt-tiny-imagenet/conv_resnet50.yaml",
    "recipes/imagenet/aa_resnet50.yaml",
    "recipes/pets/efficientnet_b0.yaml",
    "recipes/pets/cram_mobilenetv3_large_100.yaml",
    "recipes/pets/cram_efficientnet_b0_equivariance.yaml",
    "recipes/pets/positionwise_mobilenetv3_large_100_equivariance.yaml",
}
assert set(TRIED.values()) >= REPRESENTATIVES
REPEATING = {
    f"recipes/{name}.yaml"
    for name in (
        *("cifar100-pilot", "cifar100", "digits", "demo", "shipped", "sizes", "sizes-masks", "sizes-scaled"),
        *("flowers-pilot", "cells-pretrained", "stability"),
    )
}
"""Comparisons of networks that others compare, on data and at sizes that others have too."""
assert set(COMPARED) >= REPEATING


def rarely(files: Iterable[str], rare: Container[str]) -> list[Any]:
    """Return the files for ``parametrize``, the rare ones exhaustive."""
    return [pytest.param(file, marks=pytest.mark.exhaustive) if file in rare else file for file in files]


NEW: dict[str, list[str]] = {}
"""Of the networks that a recipe compares, those of which none of the recipes before it, nor another network of this
one, has each option; one with several options stands for those with one of them."""
earlier: set[tuple[str, str]] = set()
for compared in COMPARED:
    specs: dict[str, set[tuple[str, str]]] = {}
    for spec in yaml.safe_load(TEXTS[compared])["models"]:
        network, *options = re.split(r":|,(?=\w+=)", re.sub(r"[:,]lr=[^,]+", "", spec))
        name = ":".join(filter(None, [network, ",".join(options)]))
        specs[name] = {(network, option) for option in options or [""]}
    chosen = set()
    for name, parts in sorted(specs.items(), key=lambda one: -len(one[1])):
        if not parts <= earlier:
            chosen.add(name)
        earlier |= parts
    NEW[compared] = [name for name in specs if name in chosen]


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    """Give a folder for runs that is gone after the test: the weights of all recipes are gigabytes."""
    yield tmp_path / "runs"
    shutil.rmtree(tmp_path / "runs", ignore_errors=True)


CIFAR: dict[str, tuple[Any, Callable[..., Path]]] = {
    "torch/cifar10": (torchvision.datasets.CIFAR10, write_cifar10),
    "torch/cifar100": (torchvision.datasets.CIFAR100, write_cifar100),
}


class Start(NamedTuple):
    """What a run starts from, and what becomes of it."""

    weights: dict[str, torch.Tensor]
    used: set[str]
    """Names of the weights that a gradient other than zero has reached."""


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[Start]:
    """Collect what each run starts from."""
    build, seen = foveate.training.run.build, []

    def noting(*arguments: Any) -> Any:
        model, meta = build(*arguments)
        start = Start({name: weight.detach().clone() for name, weight in model.named_parameters()}, set())
        for name, weight in model.named_parameters():
            weight.register_post_accumulate_grad_hook(partial(note, start.used, name))
        seen.append(start)
        return model, meta

    def note(used: set[str], name: str, weight: torch.Tensor) -> None:
        if weight.grad is not None and weight.grad.any():
            used.add(name)

    monkeypatch.setattr(foveate.training.run, "build", noting)
    return seen


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Make images like those of a set, and return the options that lead a recipe to them."""

    def make(data: str) -> list[str]:
        if data == "digits":
            return ["--data_options.length=8", "--data_options.val_length=4", "--data_options.test_length=4"]
        if data in CIFAR:
            kind, write = CIFAR[data]
            for files in ("train_list", "test_list"):
                names = [[name, None] for name, _ in getattr(kind, files)]
                monkeypatch.setattr(kind, files, names)  # None: no sum to compare with
            monkeypatch.setattr(kind, "meta", kind.meta | {"md5": None})
            return [f"--root={write(tmp_path / 'sets', {'train': 5, 'test': 1})}"]
        if data == "torchvision/OxfordIIITPet":
            counts = {"trainval": [5, 5, *[1] * 35], "test": [1, 1, *[0] * 35]}
            breeds = [(f"Breed_{number}", 1 + number % 2) for number in range(37)]
            return [f"--root={write_pets(tmp_path / 'sets', counts, breeds)}"]
        if data == "data/streets":
            return [f"--data={write_streets(tmp_path / 'sets')}"]
        if data == "data/bccd":
            names = ("RBC", "WBC", "Platelets")
            images = {str(i): xml([(name, (2, 3, 21, 25)) for name in names]) for i in range(6)}
            splits = {"train": images, "val": {"6": images["0"]}, "test": {"7": images["0"], "8": images["0"]}}
            return [f"--data={write_voc(tmp_path / 'sets', splits)}"]
        # 1000 class folders would be 1000 images, too many steps for ResNet-152: two classes stand for them.
        return [f"--data={write_folder(tmp_path / 'sets', {'train': 2, 'val': 1})}"]

    return make


def write_streets(folder: Path) -> Path:
    """Write small images with masks of all 12 values, as CamVid has them; return the folder."""
    random = np.random.default_rng(0)
    for split, number in (("train", 8), ("val", 4), ("test", 4)):
        for index in range(number):
            for kind, shape in (("images", (30, 40, 3)), ("masks", (30, 40))):
                pixels = random.integers(0, 256 if kind == "images" else 12, shape).astype(np.uint8)
                path = folder / split / kind / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return folder


STEPS = ["--epochs=1", "--warmup_epochs=0", "--device=cpu", "--workers=0"]


@pytest.fixture
def only_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes most of the time, checkpoints and measurements of costs; other tests are about them."""
    monkeypatch.setattr(foveate.training.loop, "write_checkpoint", lambda *arguments, **options: None)
    leave_out_costs(monkeypatch)


@pytest.mark.usefixtures("only_steps")
@pytest.mark.parametrize("file", rarely(sorted(TRIED.values()), {*TRIED.values()} - REPRESENTATIVES))
def test_it_trains(file: str, out: Path, made: Callable[[str], list[str]], starts: list[Start]):
    config = configuration(file)
    batch = {"torch/cifar10": 4, "torch/cifar100": 4, "torchvision/OxfordIIITPet": 16}.get(config.data, 2)
    changes = [
        f"--batch_size={batch}",  # two updates: what a norm that starts at zero follows has no gradient in the first
        f"--img_size={min(config.img_size, 64)}",  # at 224 pixels all recipes together would take minutes
        f"--lr={min(config.lr, 0.02)}",  # the recipes' own are for larger batches and are warmed up to
        "--pretrained=false",
        f"--out={out}",
    ]
    assert main(["train", "--config", str(ROOT / file), *STEPS, *changes, *made(config.data)]) == 0

    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert result["model"] == config.model
    (row,) = result["history"]
    assert row["train_loss"] > 0
    assert all(math.isfinite(figure) for figure in (row["train_loss"], row["val_loss"], result["metrics"]["loss"]))
    assert ("train_equivariance" in row) == bool(config.equivariance)
    (start,), trained = starts, load_file(out / "model.safetensors")
    assert start.used == start.weights.keys() <= trained.keys()
    # Those of norms start at 1 and may have moved by less than a unit in their last place.
    assert not [name for name, w in start.weights.items() if w.ndim > 1 and torch.equal(w, trained[name])]


@pytest.mark.parametrize("file", COMPARED)
def test_every_run_of_a_comparison_can_begin(file: str):
    config = configuration(file)
    for spec in config.models:
        config.run_of(spec, seed=0).check()


@pytest.mark.usefixtures("only_steps")
@pytest.mark.parametrize("file", rarely(COMPARED, REPEATING))
def test_it_compares(file: str, out: Path, made: Callable[[str], list[str]], starts: list[Start]):
    config = configuration(file)
    networks = NEW[file] or config.models[-1:]
    changes = ["--batch_size=4", "--seeds=1", "--jobs=1", f"--out={out}", f"--models={json.dumps(networks)}"]
    if config.pretrained:  # which takes any size
        changes += ["--img_size=64", "--crop=resized"]  # and not as is usual for such small images
    elif config.task == "detection":
        changes += ["--img_size=[64, 96]"]
    assert main(["compare", "--config", str(ROOT / file), *STEPS, *changes, *made(config.data)]) == 0

    table = json.loads((out / "compare.json").read_text(encoding="utf-8"))
    assert [network["label"] for network in table["networks"]] == networks
    for network, start in zip(table["networks"], starts, strict=True):
        (run,) = network["runs"]
        result = json.loads((out / run / "result.json").read_text(encoding="utf-8"))
        assert math.isfinite(result["history"][-1]["train_loss"])
        trained = load_file(out / run / "model.safetensors")
        assert any(not torch.equal(weight, trained[name]) for name, weight in start.weights.items())
