"""Every recipe says what it does: its settings, its network's cost, its header, its line in the documentation."""

from __future__ import annotations

import functools
import json
import math
import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml

from foveate.benchmark import network_cost
from foveate.cli import parse_command
from foveate.commands.compare import CompareConfig
from foveate.models.building import build_network
from foveate.training import TrainConfig
from tests.recipes.files import COMPARED, ROOT, TEXTS, TRAINED, configuration, header, said

FOLDERS = sorted({str(Path(file).parent) for file in TRAINED})

CLASSES = {
    "imagenet": 1000,
    "tiny-imagenet-200": 200,
    "torch/cifar10": 10,
    "torch/cifar100": 100,
    "torchvision/OxfordIIITPet": 37,
}
"""Classes of the published sets."""

EXPATT_DEPTHS = {"cifar10": 50, "cifar100": 50, "tiny-imagenet": 50, "imagenet": 152}
"""The sets of ExpAtt's paper, and the layers of the network that is trained on each by its protocol."""

PUBLISHED = {
    "resnet50": ((25.555, 25.565), (8.15, 8.25)),
    "gsa_resnet50": ((18.00, 18.10), (7.1, 7.3)),
    "aa_resnet50": ((25.75, 25.85), (8.3, 8.5)),
    "expatt_resnet50": ((24.54, 24.64), (7.9, 8.0)),
    "expatt_resnet152": ((0.0, math.inf), (22.0, 22.4)),
}
"""Bounds of millions of parameters and GFLOPs at 224×224 with 1000 classes, around what was published or follows."""

CLAIMED = {"+2.2 points", "+0.9 points", "6.4 %", "6.7 %"}
"""The papers' figures of quality and of relative cost that a header may name; no other is known here."""


@functools.cache
def cost(model: str, model_args: str, classes: int, img_size: int) -> tuple[float, float]:
    """Return millions of parameters and GFLOPs of a network, without computing anything."""
    with torch.device("meta"):
        network, _ = build_network(
            model, num_classes=classes, img_size=(img_size, img_size), model_args=json.loads(model_args)
        )
    counted = network_cost(network, (3, img_size, img_size))
    return counted.parameters / 1e6, counted.flops / 1e9


def cost_of(config: TrainConfig, classes: int) -> tuple[float, float]:
    assert isinstance(config.img_size, int)
    return cost(config.model, json.dumps(config.model_args), classes, config.img_size)


def test_there_is_a_recipe_for_each_published_experiment():
    found = {(Path(file).parent.name, Path(file).stem) for file in TRAINED}
    imagenet = {
        ("imagenet", f"{family}resnet{depth}") for family in ("", "expatt_", "aa_", "gsa_") for depth in (50, 101, 152)
    }
    cifar = {("cifar100", f"{family}_resnet{depth}") for family in ("conv", "expatt", "gsa") for depth in (26, 38, 50)}
    pets = {
        ("pets", f"{kind}{base}{term}")
        for base in ("efficientnet_b0", "mobilenetv3_large_100")
        for kind, terms in {"": ("",), "positionwise_": ("", "_equivariance"), "cram_": ("", "_equivariance")}.items()
        for term in terms
    }
    assert (len(imagenet), len(cifar), len(pets)) == (12, 9, 10)
    assert imagenet | cifar | pets <= found
    assert {(f"expatt-{data}", f"expatt_resnet{depth}") for data, depth in EXPATT_DEPTHS.items()} <= found


@pytest.mark.parametrize("file", TEXTS)
def test_the_command_line_takes_it(file: str):
    config = configuration(file)
    assert isinstance(config, TrainConfig) == (file in TRAINED)
    assert isinstance(config, CompareConfig) == (file in COMPARED)
    config.check()
    asked = yaml.safe_load(TEXTS[file])
    as_read = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(config).items()}
    assert {name: as_read[name] for name in asked} == asked  # 5e-4 is a text to YAML, and would be one here


@pytest.mark.parametrize("file", TRAINED)
def test_runs_lie_apart_and_are_named_for_the_recipe(file: str):
    config = configuration(file)
    assert config.out == str(Path("runs", *Path(file).with_suffix("").parts[1:]))
    assert Path(file).stem == config.model + ("_equivariance" if config.equivariance else "")


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_recipes_of_a_folder_are_one_protocol(folder: str):
    own = ("model", "out", "equivariance")
    files = [file for file in TRAINED if str(Path(file).parent) == folder]
    protocols = [{k: v for k, v in vars(configuration(file)).items() if k not in own} for file in files]
    assert all(protocol == protocols[0] for protocol in protocols)


@pytest.mark.parametrize(
    ("data", "epochs", "restarts"),
    [
        ("cifar10", 450, [25, 45, 85, 165, 325]),
        ("cifar100", 450, [25, 45, 85, 165, 325]),
        ("tiny-imagenet", 324, [25, 45, 85, 165]),
        ("imagenet", 164, [25, 45, 85]),
    ],
)
def test_what_is_stated_of_expatt_s_protocol(data: str, epochs: int, restarts: list[int]):
    file = f"recipes/expatt-{data}/expatt_resnet{EXPATT_DEPTHS[data]}.yaml"
    config = configuration(file)
    assert (config.opt, config.momentum, config.sched, config.epochs, config.lr) == (
        "momentum",
        0.9,
        "cosine",
        epochs,
        0.05,
    )
    assert (config.warmup_epochs, config.warmup_prefix) == (15, True)
    starts = [15.0]
    while starts[-1] < epochs:
        starts.append(starts[-1] + config.cycle_epochs * config.cycle_mul ** (len(starts) - 1))
    assert starts[1:-1] == restarts
    assert (config.cycle_limit, config.cycle_decay) == (0, 1)
    stated = said(header(file)["stated"])
    assert f"{epochs} epochs" in stated
    assert [int(number) for number in re.findall(r"\d+", stated.partition("restarts at epochs")[2])] == restarts


def test_the_protocol_on_imagenet_is_the_usual_one():
    config = configuration("recipes/imagenet/gsa_resnet50.yaml")
    assert (config.epochs, config.opt, config.momentum, config.sched) == (90, "momentum", 0.9, "cosine")
    assert config.lr == pytest.approx(0.1 * config.batch_size / 256)
    assert (config.batch_size, config.weight_decay, config.label_smoothing) == (2048, 1e-4, 0.1)
    assert (config.crop, config.hflip, config.color_jitter, config.auto_augment) == ("resized", 0.5, 0.0, None)
    assert (config.img_size, config.crop_pct) == (224, 0.875)
    assert (config.mixup, config.cutmix, config.random_erasing, config.vflip) == (0.0, 0.0, None, None)


@pytest.mark.slow
@pytest.mark.parametrize("file", [file for file in TRAINED if Path(file).stem in PUBLISHED and "/imagenet/" in file])
def test_the_network_has_the_published_cost(file: str):
    config = configuration(file)
    for (low, high), counted in zip(PUBLISHED[config.model], cost_of(config, 1000), strict=True):
        assert low <= counted <= high


@pytest.mark.slow
def test_expatt_is_smaller_than_aa_by_what_was_published():
    ours, theirs = (
        cost_of(configuration(f"recipes/imagenet/{name}_resnet152.yaml"), 1000) for name in ("expatt", "aa")
    )
    assert 100 * (1 - ours[0] / theirs[0]) == pytest.approx(6.4, abs=0.15)


@pytest.mark.parametrize("file", TEXTS)
def test_the_command_in_the_header_is_of_this_file(file: str):
    command = header(file)["command"]
    named = re.findall(r"--config (\S+)", command)
    assert named or command.startswith("make ")
    assert set(named) <= {file}


@pytest.mark.slow
@pytest.mark.parametrize("file", TRAINED)
def test_the_header_says_what_the_settings_say(file: str, monkeypatch: pytest.MonkeyPatch):
    parts, config = header(file), configuration(file)
    known = ["stated", "derived"] if "/expatt-" in file else []
    assert list(parts) == ["title", "command", "data", "network", "expected", *known, "open", "chosen", "status"]
    assert all(parts.values())
    assert "known here" in said(parts["expected"])
    assert said(parts["status"]).startswith("Not run here: ")
    figures = "{:.3f} M parameters, {:.3f} GFLOPs".format(*cost_of(config, CLASSES[config.data]))
    size = f"at {config.img_size}×{config.img_size} with {CLASSES[config.data]} classes"
    assert said(parts["network"]).startswith(f"{figures} {size}. ")
    text = " ".join(said(part) for part in parts.values())
    assert set(re.findall(r"\+?\d[\d.]* (?:%|points)", text)) <= CLAIMED
    for number, unit in re.findall(r"(\d+) (epochs of warm-up|epochs)", said(parts["chosen"])):
        assert int(number) == (config.warmup_epochs if "warm-up" in unit else config.epochs)

    monkeypatch.chdir(ROOT)
    lines = [line for line in parts["command"].splitlines() if "foveate train" in line]
    assert lines
    for line in lines:
        options = shlex.split(line.partition("foveate train ")[2])
        run = parse_command("train", options)
        run.check()
        assert run.batch_size * run.accumulate == config.batch_size * config.accumulate
        assert run.download == config.data.startswith("torch")
        processes = re.search(r"--nproc_per_node=(\d+)", line)
        assert processes is None or run.batch_size % int(processes[1]) == 0
    assert (config.batch_size > 1000) == any(line.startswith("torchrun ") for line in lines)


@pytest.mark.slow
def test_every_recipe_is_on_the_page():
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\S+)` \| ([\d.]+) M \| ([\d.]+) \|", page, re.M)
    counted = {
        file.removeprefix("recipes/").removesuffix(".yaml"): tuple(
            f"{figure:.3f}" for figure in cost_of(configuration(file), CLASSES[configuration(file).data])
        )
        for file in TRAINED
    }
    assert len(rows) == len(counted)
    assert {name: (parameters, gflops) for name, parameters, gflops in rows} == counted
    for file in COMPARED:
        assert f"`{file}`" in page
