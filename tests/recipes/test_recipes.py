"""Every recipe can be run: its settings, its network, its header, and a few steps of training on made images."""

from __future__ import annotations

import functools
import importlib
import json
import math
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torchvision
import yaml
from safetensors.torch import load_file

import foveate.commands.compare
import foveate.commands.train
import foveate.training.loop
from foveate._networks import build_network
from foveate.benchmark import network_cost
from foveate.cli import _parse, main
from foveate.commands.compare import CompareConfig
from foveate.commands.train import TrainConfig
from tests.made_sets import write_cifar100, write_folder, write_pets

ROOT = Path(__file__).parents[2]
TEXTS = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("recipes/**/*.yaml"))
}
TRAINED = [file for file, text in TEXTS.items() if "model" in yaml.safe_load(text)]
COMPARED = [file for file, text in TEXTS.items() if "models" in yaml.safe_load(text)]
FOLDERS = sorted({str(Path(file).parent) for file in TRAINED})

NEW: dict[str, list[str]] = {}
"""Of the networks that a recipe compares, those that none of the recipes before it has."""
for compared in COMPARED:
    earlier = {network for networks in NEW.values() for network in networks}
    NEW[compared] = [network for network in yaml.safe_load(TEXTS[compared])["models"] if network not in earlier]

CLASSES = {"imagenet": 1000, "torch/cifar100": 100, "torchvision/OxfordIIITPet": 37}
"""Classes of the published sets."""

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


def configuration(file: str, *options: str) -> Any:
    """Return what the command line makes of a recipe."""
    if file in TRAINED or file in COMPARED:
        command = "train" if file in TRAINED else "compare"
    else:  # a recipe that trains nothing, for the command that it names
        found = re.search(rf"foveate (\w+) --config {re.escape(file)}", header(file)["command"])
        assert found is not None
        command = found[1]
    module = importlib.import_module(f"foveate.commands.{command}")
    return _parse(command, module, ["--config", str(ROOT / file), *options])


def header(file: str) -> dict[str, str]:
    """Return the parts of the comment that a recipe begins with: its title, and the others by their names."""
    comment = re.match(r"(?:#.*\n)+", TEXTS[file])
    assert comment is not None, f"{file} does not begin with a comment"
    title, _, parts = comment[0].partition("\n#\n")
    return {"title": title} | {
        name: re.sub(r"\n# *", "\n", part).strip()
        for name, part in re.findall(r"^# (\w+) +(.*\n(?:#  .*\n)*)", parts, re.M)
    }


def said(part: str) -> str:
    """Return a part of a header in one line."""
    return " ".join(part.split())


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


def test_gsa_s_published_protocol():
    config = configuration("recipes/imagenet/gsa_resnet50.yaml")
    assert (config.epochs, config.opt, config.momentum, config.sched) == (90, "momentum", 0.9, "cosine")
    assert config.lr == pytest.approx(0.1 * config.batch_size / 256)
    assert (config.batch_size, config.weight_decay, config.label_smoothing) == (2048, 1e-4, 0.1)
    assert (config.crop, config.hflip, config.color_jitter, config.auto_augment) == ("resized", 0.5, 0.0, None)
    assert (config.img_size, config.crop_pct) == (224, 0.875)
    assert (config.mixup, config.cutmix, config.random_erasing, config.vflip) == (0.0, 0.0, None, None)


@pytest.mark.parametrize("file", [file for file in TRAINED if Path(file).stem in PUBLISHED and "/imagenet/" in file])
def test_the_network_has_the_published_cost(file: str):
    config = configuration(file)
    for (low, high), counted in zip(PUBLISHED[config.model], cost_of(config, 1000), strict=True):
        assert low <= counted <= high


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


@pytest.mark.parametrize("file", TRAINED)
def test_the_header_says_what_the_settings_say(file: str, monkeypatch: pytest.MonkeyPatch):
    parts, config = header(file), configuration(file)
    assert list(parts) == ["title", "command", "data", "network", "expected", "open", "chosen", "status"]
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
        run = _parse("train", foveate.commands.train, options)
        run.check()
        assert run.batch_size * run.accumulate == config.batch_size * config.accumulate
        assert run.download == config.data.startswith("torch")
        processes = re.search(r"--nproc_per_node=(\d+)", line)
        assert processes is None or run.batch_size % int(processes[1]) == 0
    assert (config.batch_size > 1000) == any(line.startswith("torchrun ") for line in lines)


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


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    """Give a folder for runs that is gone after the test: the weights of all recipes are gigabytes."""
    yield tmp_path / "runs"
    shutil.rmtree(tmp_path / "runs", ignore_errors=True)


class Start(NamedTuple):
    """What a run starts from, and what becomes of it."""

    weights: dict[str, torch.Tensor]
    used: set[str]
    """Names of the weights that a gradient other than zero has reached."""


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[Start]:
    """Collect what each run starts from."""
    build, seen = foveate.commands.train.build, []

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

    monkeypatch.setattr(foveate.commands.train, "build", noting)
    return seen


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Make images like those of a set, and return the options that lead a recipe to them."""

    def make(data: str) -> list[str]:
        if data == "digits":
            return ["--data_options.length=8", "--data_options.val_length=4", "--data_options.test_length=4"]
        if data == "torch/cifar100":
            for files in ("train_list", "test_list"):
                names = [[name, None] for name, _ in getattr(torchvision.datasets.CIFAR100, files)]
                monkeypatch.setattr(torchvision.datasets.CIFAR100, files, names)  # None: no sum to compare with
            monkeypatch.setattr(
                torchvision.datasets.CIFAR100, "meta", torchvision.datasets.CIFAR100.meta | {"md5": None}
            )
            return [f"--root={write_cifar100(tmp_path / 'sets', {'train': 5, 'test': 1})}"]
        if data == "torchvision/OxfordIIITPet":
            counts = {"trainval": [5, 5, *[1] * 35], "test": [1, 1, *[0] * 35]}
            breeds = [(f"Breed_{number}", 1 + number % 2) for number in range(37)]
            return [f"--root={write_pets(tmp_path / 'sets', counts, breeds)}"]
        # 1000 class folders would be 1000 images, too many steps for ResNet-152: two classes stand for them.
        return [f"--data={write_folder(tmp_path / 'sets', {'train': 3, 'val': 1})}"]

    return make


STEPS = ["--epochs=1", "--warmup_epochs=0", "--device=cpu", "--workers=0"]


@pytest.fixture
def only_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes most of the time, checkpoints and measurements of speed; other tests are about them."""
    monkeypatch.setattr(foveate.training.loop, "write_checkpoint", lambda *arguments, **options: None)
    monkeypatch.setattr(foveate.commands.compare, "_measured", lambda measure: None)


@pytest.mark.usefixtures("only_steps")
@pytest.mark.parametrize("file", TRAINED)
def test_it_trains(file: str, out: Path, made: Callable[[str], list[str]], starts: list[Start]):
    config = configuration(file)
    pets = config.data == "torchvision/OxfordIIITPet"
    changes = [
        f"--batch_size={16 if pets else 2}",  # 37 breeds have an image each; the others come to 3 or 4 updates
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


@pytest.mark.usefixtures("only_steps")
@pytest.mark.parametrize("file", COMPARED)
def test_it_compares(file: str, out: Path, made: Callable[[str], list[str]], starts: list[Start]):
    config = configuration(file)
    for spec in config.models:
        config.run_of(spec, seed=0).check()
    networks = NEW[file] or config.models[-1:]
    changes = ["--batch_size=4", "--seeds=1", f"--out={out}", f"--models={json.dumps(networks)}"]
    assert main(["compare", "--config", str(ROOT / file), *STEPS, *changes, *made(config.data)]) == 0

    table = json.loads((out / "compare.json").read_text(encoding="utf-8"))
    assert [network["label"] for network in table["networks"]] == networks
    for network, start in zip(table["networks"], starts, strict=True):
        (run,) = network["runs"]
        result = json.loads((out / run / "result.json").read_text(encoding="utf-8"))
        assert math.isfinite(result["metrics"]["loss"])
        trained = load_file(out / run / "model.safetensors")
        assert any(not torch.equal(weight, trained[name]) for name, weight in start.weights.items())
