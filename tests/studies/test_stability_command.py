"""Stability and equivariance of networks that were trained for it, against plain loops."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional as F

from foveate.commands.compare import CompareConfig
from foveate.commands.compare import run as compare
from foveate.data import ClutteredDigits
from foveate.io import load_network
from foveate.models.inspection import gates
from foveate.training import TrainConfig
from foveate.training import train_network as train
from studies.equivariance.command import EquivarianceConfig
from studies.equivariance.command import run as equivariance
from studies.stability.command import StabilityConfig
from studies.stability.command import run as stability
from tests.costs import leave_out_costs

pytestmark = pytest.mark.slow

DIGITS: dict[str, Any] = {"size": 16, "clutter": 1, "length": 40, "val_length": 20, "test_length": 31}
SHARED: dict[str, Any] = {"data_options": DIGITS, "epochs": 1, "batch_size": 8, "device": "cpu", "lr": 0.02}
CRAM, BOTH, TERM = "cram_resnet_tiny:at=2", "cram_resnet_tiny:at=[2,3]", "cram_resnet_tiny:at=3,equivariance=0.5"
MODELS = [CRAM, "cram_resnet_tiny:at=3", BOTH, "positionwise_resnet_tiny:at=3", TERM]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        leave_out_costs(patch)
        compare(CompareConfig(models=MODELS, seeds=2, out=str(out), warmup_epochs=0, jobs=1, **SHARED))
    return out


def text_of(svg: Path) -> str:
    """Return what is written in a picture: matplotlib draws the letters, and says what they are in comments."""
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    return " ".join(node.text or "" for node in ElementTree.parse(svg, parser).iter(ElementTree.Comment))


def maps_of(runs: Path, folder: str, seed: int) -> dict[str, np.ndarray]:
    """Return the gates of a trained network for the test digits, at the size of the images."""
    network, meta = load_network(runs / folder / f"seed-{seed}")
    digits = ClutteredDigits("test", size=16, clutter=1, length=31)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (meta.mean, meta.std))
    images = torch.stack([torch.tensor(np.array(image)).permute(2, 0, 1) / 255 for image, _ in digits])
    found: dict[str, np.ndarray] = {}
    for name, gate in gates(network).items():
        seen: list[torch.Tensor] = []
        handle = gate.register_forward_pre_hook(lambda module, inputs, seen=seen: seen.append(inputs[0]))
        with torch.no_grad():
            network((images - mean) / std)
            maps = gate.attention_map(seen[0])
        handle.remove()
        found[name.removesuffix(".attention")] = F.interpolate(maps, (16, 16), mode="bilinear")[:, 0].double().numpy()
    return found


def correlations(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(one, other, strict=True)]))


def test_settings_of_one_network_reach_its_runs_alone(runs: Path) -> None:
    weights = {}
    for folder in sorted(runs.glob("*/seed-0")):
        settings = yaml.safe_load((folder / "config.yaml").read_text())
        weights[folder.parent.name] = (settings["equivariance"], settings["model_args"])
        history = json.loads((folder / "result.json").read_text())["history"]
        assert ("train_equivariance" in history[0]) == (settings["equivariance"] > 0)
    assert weights.pop(TERM.replace(":", "+")) == (0.5, {"at": 3})
    assert {weight for weight, _ in weights.values()} == {0.0}
    table = json.loads((runs / "compare.json").read_text())
    assert [network["label"] for network in table["networks"]] == MODELS
    assert table["protocol"]["equivariance"] == 0


def test_a_network_that_cannot_be_equivariant_stops_all_before_it_begins(tmp_path: Path) -> None:
    for models, message in [
        (["cram_resnet_tiny", "conv_resnet_tiny:equivariance=1"], "and AttentionResNet has none; leave equivariance"),
        (["cram_resnet_tiny:equivariance=-1"], "equivariance must be .* at least 0"),
        (["cram_resnet_tiny:equivariance=much"], "equivariance must be a finite number"),
        (["cram_resnet_tiny:equivariance=1,equivariance_scale=0.5"], "equivariance_scale must be .* at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            compare(CompareConfig(models=models, out=str(tmp_path / "out"), **SHARED))
    with pytest.raises(ValueError, match="AttentionResNet has none"):
        train(TrainConfig(model="conv_resnet_tiny", equivariance=1, out=str(tmp_path / "out"), **SHARED))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def steady(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("steady")
    config = StabilityConfig(checkpoints=[str(runs)], out=str(out), batch_size=31, augmentations=2, device="cpu")
    return out, stability(config)


def place_of(table: dict[str, Any], family: str, gate: str, *, together: bool = False) -> dict[str, Any]:
    (found,) = [
        place
        for place in table["places"]
        if (place["family"], place["gate"], place["together"]) == (family, gate, together)
    ]
    return found


def test_similarity_is_that_of_the_maps(runs: Path, steady: tuple[Path, dict[str, Any]]) -> None:
    _, table = steady
    assert (table["data"], table["split"], table["images"]) == ("digits", "test", 31)
    maps = {(place, seed): maps_of(runs, f"cram_resnet_tiny+at={place}", seed) for place in "23" for seed in (0, 1)}
    first = {key: found[f"layer{key[0]}"] for key, found in maps.items()}
    row = place_of(table, "cram_resnet_tiny", "layer2")
    assert (row["kind"], row["seeds"], row["label"]) == ("RectangularAttention2d", [0, 1], CRAM)

    between_seeds = row["agreement"]["seeds"]["correlation"]
    assert between_seeds["values"]["0+1"] == pytest.approx(correlations(first["2", 0], first["2", 1]), rel=1e-3)
    assert between_seeds["low"] is None  # a single pair
    by_chance = row["agreement"]["seeds"]["chance_correlation"]["mean"]
    assert by_chance == pytest.approx(correlations(first["2", 0], np.roll(first["2", 1], -1, axis=0)), rel=1e-3)

    between_layers = row["agreement"]["layers"]["correlation"]
    expected = [correlations(first["2", seed], first["3", seed]) for seed in (0, 1)]
    assert [between_layers["values"][seed] for seed in "01"] == pytest.approx(expected, rel=1e-3)
    reach = 12.706 * abs(expected[0] - expected[1]) / 2  # Student's t with one degree of freedom
    assert between_layers["high"] - between_layers["mean"] == pytest.approx(reach, rel=1e-2)

    inside = [np.mean(a >= a.max((1, 2), keepdims=True) / 2) for a in (first["2", 0], first["2", 1])]
    assert row["inside"]["mean"] == pytest.approx(np.mean(inside), abs=1e-3)

    together = place_of(table, "cram_resnet_tiny", "layer3", together=True)
    both = [maps_of(runs, "cram_resnet_tiny+at=[2,3]", seed) for seed in (0, 1)]
    expected = [correlations(found["layer2"], found["layer3"]) for found in both]
    found = together["agreement"]["layers"]["correlation"]["values"]
    assert [found[seed] for seed in "01"] == pytest.approx(expected, rel=1e-3)


def test_every_comparison_that_there_is_and_no_other(steady: tuple[Path, dict[str, Any]]) -> None:
    _, table = steady
    places = {(p["family"], p["together"], p["gate"]): p["agreement"] for p in table["places"]}
    term = "cram_resnet_tiny:equivariance=0.5"
    assert list(places) == [
        ("cram_resnet_tiny", False, "layer2"),
        ("cram_resnet_tiny", False, "layer3"),
        ("cram_resnet_tiny", True, "layer2"),
        ("cram_resnet_tiny", True, "layer3"),
        (term, False, "layer3"),
        ("positionwise_resnet_tiny", False, "layer3"),
    ]
    for (family, _, _), agreement in places.items():
        assert (agreement["layers"] is None) == (family != "cram_resnet_tiny")
        assert agreement["changes"]["correlation"]["seeds"] == 2
        for what in ("changes", "seeds"):
            assert 0 <= agreement[what]["iou"]["mean"] <= 1
            assert 0 <= agreement[what]["undefined"] <= 1
    pairs = [(pair["family"], pair["together"], pair["gates"]) for pair in table["pairs"]]
    assert sorted(pairs) == [("cram_resnet_tiny", together, ["layer2", "layer3"]) for together in (False, True)]


def test_the_report_of_stability(steady: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    out, table = steady
    assert json.loads((out / "stability.json").read_text()) == table
    lines = (out / "stability.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len({len(line) for line in rows}) == 1
    assert len(rows) == 2 + len(table["places"])
    cell = rows[2].strip("|").split("|")[5]
    changes = table["places"][0]["agreement"]["changes"]
    assert f"{changes['correlation']['mean']:.2f}" in cell
    assert f"({changes['chance_correlation']['mean']:.2f})" in cell
    words = text_of(out / "stability.svg")
    for label in ("cram_resnet_tiny, all in one", "positionwise_resnet_tiny", "layer2", "unrelated images"):
        assert label in words


def test_errors_are_those_of_the_rectangles(runs: Path, tmp_path: Path) -> None:
    config = EquivarianceConfig(
        checkpoints=[str(runs / "cram_resnet_tiny+at=3"), str(runs / "positionwise_resnet_tiny+at=3")],
        out=str(tmp_path), shifts=[0.1, 0.2], rotations=[20], scales=[1.25], batch_size=10, device="cpu",
    )  # fmt: skip
    config.checkpoints = [f"{folder}/seed-{seed}" for folder in config.checkpoints for seed in (0, 1)]
    table = equivariance(config)
    assert json.loads((tmp_path / "equivariance.json").read_text()) == table
    curves = {(c["label"], c["transform"], c["magnitude"]): c for c in table["curves"]}
    transforms = [("all", 1.0), ("shift", 0.1), ("shift", 0.2), ("rotation", 20), ("scale", 1.25)]
    labels = ["cram_resnet_tiny:at=3", "positionwise_resnet_tiny:at=3"]
    assert set(curves) == {(label, *transform) for label in labels for transform in transforms}
    for (label, transform, magnitude), curve in curves.items():
        assert curve["seeds"] == [0, 1]
        assert ("centre" in curve["errors"]) == label.startswith("cram")
        assert 0 <= curve["errors"]["iou"]["mean"] <= 1
        if label.startswith("cram") and transform == "shift":
            assert curve["unmoved"]["centre"]["mean"] == pytest.approx(magnitude, rel=1e-4)
            assert curve["unmoved"]["size"]["mean"] == pytest.approx(0, abs=1e-5)
        if label.startswith("cram") and transform == "scale":
            assert curve["unmoved"]["size"]["mean"] == pytest.approx(math.log(1.25), rel=1e-4)
    rows = [line for line in (tmp_path / "equivariance.md").read_text().splitlines() if line.startswith("|")]
    assert len(rows) == 4
    words = text_of(tmp_path / "equivariance.svg")
    assert "positionwise_resnet_tiny:at=3" in words
    assert "if what is looked at stayed where it was" in words


def test_the_same_command_gives_the_same_files(runs: Path, tmp_path: Path) -> None:
    checkpoints = [str(runs / "cram_resnet_tiny+at=3" / f"seed-{seed}") for seed in (0, 1)]
    shared: dict[str, Any] = {"checkpoints": checkpoints, "images": 12, "batch_size": 5, "device": "cpu"}
    for name in ("a", "b"):
        stability(StabilityConfig(out=str(tmp_path / name), augmentations=1, workers=2 * (name == "b"), **shared))
        equivariance(EquivarianceConfig(out=str(tmp_path / name), shifts=[0.1], rotations=[], scales=[], **shared))
    written = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(written) == 6
    for name in written:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_what_cannot_be_measured_is_refused(runs: Path, tmp_path: Path) -> None:
    run = str(runs / "cram_resnet_tiny+at=3" / "seed-0")
    plain, other = tmp_path / "plain", tmp_path / "other"
    train(TrainConfig(model="conv_resnet_tiny", out=str(plain), **SHARED), verbose=False)
    larger = {**SHARED, "data_options": {**DIGITS, "size": 20}}
    train(TrainConfig(model="cram_resnet_tiny", out=str(other), **larger), verbose=False)
    bare = tmp_path / "model.safetensors"
    bare.write_bytes((Path(run) / "model.safetensors").read_bytes())
    kept = sorted(tmp_path.iterdir())
    cases: list[tuple[list[str], dict[str, Any], str]] = [
        ([], {}, "no networks given; name the folders of runs or of a comparison"),
        ([run], {"batch_size": 1}, "batch_size must be at least 2"),
        ([run], {"device": "tpu"}, "device must be one of"),
        ([run], {"data_options": {"noise": 1}}, "noise"),
        ([str(tmp_path / "nowhere")], {}, "there is no checkpoint"),
        ([run, str(plain)], {}, "holds conv_resnet_tiny, a network without attention; leave it out"),
        ([run, run], {}, "cram_resnet_tiny:at=3 with seed 0 is given twice"),
        ([str(bare), str(bare)], {}, r"model\.safetensors is given twice; name each checkpoint once"),
        ([run, str(other)], {}, r"trained with different img_size: \[16, 16\] and \[20, 20\]"),
        ([str(bare)], {}, "does not say what it was trained on; name the images with --data"),
        ([run], {"images": 1}, "images must be at least 2"),
        ([run], {"seed": -1}, "seed must be at least 0"),
    ]
    # One each of what the other command has from the same places: settings, device, images, networks.
    for config_class, command, tried in (
        (StabilityConfig, stability, cases),
        (EquivarianceConfig, equivariance, cases[:4]),
    ):
        for checkpoints, changes, message in tried:
            with pytest.raises(ValueError, match=message):
                command(config_class(checkpoints=checkpoints, out=str(tmp_path / "out"), **changes))
    with pytest.raises(ValueError, match="augmentations must be at least 1"):
        stability(StabilityConfig(checkpoints=[run], augmentations=0))
    for changes, message in [
        ({"scales": [1.1, 0.9]}, "each of scales must be .* at least 1"),
        ({"shifts": [-0.1]}, "each of shifts must be .* at least 0"),
        ({"scale": 0.5}, "scale must be .* at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            equivariance(EquivarianceConfig(checkpoints=[run], out=str(tmp_path / "out"), **changes))
    assert sorted(tmp_path.iterdir()) == kept
    named = StabilityConfig(
        checkpoints=[str(bare)], data="digits", out=str(tmp_path / "out"), images=4, augmentations=1, device="cpu"
    )
    assert stability(named)["places"][0]["label"] == "cram_resnet_tiny:at=3"
