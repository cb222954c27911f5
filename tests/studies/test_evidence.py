"""Evidence: raw results of real runs, the tables made of them again, and verdicts that follow from them."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import foveate
from foveate.commands.compare import CompareConfig
from foveate.commands.compare import run as compare
from foveate.explain import attention_off
from foveate.io import load_network, save_network
from foveate.stats import crossed_difference, paired_difference
from foveate.training import TrainConfig
from studies._command import main
from studies.differences import pair_of, runs_of_pair, verdict
from studies.evidence.command import EvidenceConfig, run

pytestmark = pytest.mark.slow

MODELS = ["conv_resnet_tiny", "cram_resnet_tiny:equivariance=1", "gsa_resnet_tiny", "expatt_resnet_tiny:kernel=cone"]
CLAIMS = ["cram_resnet_tiny:equivariance=1 - conv_resnet_tiny", "gsa_resnet_tiny - conv_resnet_tiny"]
MADE = ("evidence.json", "networks.md", "claims.md", "explore.md", "attention.md", "accuracy.svg", "differences.svg")


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    digits: dict[str, Any] = {"size": 16, "clutter": 1, "length": 32, "val_length": 20, "test_length": 31}
    compare(
        CompareConfig(
            models=MODELS,
            seeds=2,
            jobs=1,
            epochs=1,
            batch_size=16,
            lr=0.01,
            device="cpu",
            data_options=digits,
            out=str(out),
        )
    )
    return out


@pytest.fixture(scope="module")
def collected(comparison: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results")
    run(EvidenceConfig(out=str(out), collect=[str(comparison)], claims=CLAIMS))
    return out


def test_raw_results_are_those_of_the_runs(comparison: Path, collected: Path) -> None:
    files = sorted((collected / "runs").glob("*.json"))
    assert len(files) == 8
    for file in files:
        raw = json.loads(file.read_text())
        result = json.loads(
            (comparison / Path(file.name.removesuffix(".json").replace(".seed", "/seed")))
            .joinpath("result.json")
            .read_text()
        )
        assert raw["label"] in MODELS
        assert [int(c) for c in raw["correct"]] == result["correct"]
        assert (raw["seed"], raw["metrics"], raw["history"]) == (result["seed"], result["metrics"], result["history"])
        assert raw["config"] == result["config"]


def test_the_same_raw_results_give_the_same_bytes(collected: Path, tmp_path: Path) -> None:
    shutil.copytree(collected / "runs", tmp_path / "runs")
    shutil.copy(collected / "costs.json", tmp_path)
    run(EvidenceConfig(out=str(tmp_path), claims=CLAIMS))
    for name in MADE:
        assert (tmp_path / name).read_bytes() == (collected / name).read_bytes(), name


def test_figures_are_those_of_the_statistics(comparison: Path, collected: Path) -> None:
    table = json.loads((collected / "evidence.json").read_text())
    correct = {}
    for name in ("gsa_resnet_tiny", "conv_resnet_tiny"):
        results = [json.loads((comparison / name / f"seed-{k}" / "result.json").read_text()) for k in (0, 1)]
        correct[name] = np.array([result["correct"] for result in results])
    row = next(row for row in table["claims"] if row["label"] == "gsa_resnet_tiny")
    both = crossed_difference(correct["gsa_resnet_tiny"], correct["conv_resnet_tiny"])
    images = paired_difference(correct["gsa_resnet_tiny"], correct["conv_resnet_tiny"])
    assert (row["over_both"]["low"], row["over_both"]["high"]) == (both.low, both.high)
    assert (row["over_images"]["low"], row["over_images"]["p_value"]) == (images.low, images.p_value)
    smaller = min(row["over_images"]["p_value"] for row in table["claims"])
    assert min(row["holm"] for row in table["claims"]) == pytest.approx(min(1, 2 * smaller))
    explored = [(row["label"], row["other"]) for row in table["explore"]]
    assert explored == [("expatt_resnet_tiny:kernel=cone", "conv_resnet_tiny")]
    points = f"{100 * both.mean:+.2f}"
    assert re.search(
        rf"gsa_resnet_tiny − conv_resnet_tiny +\| +2 \| +{re.escape(points)} \|", (collected / "claims.md").read_text()
    )
    costs = {net["label"]: net for net in json.loads((comparison / "compare.json").read_text())["networks"]}
    for network in table["networks"]:
        assert network["flops"] == costs[network["label"]]["flops"]
        assert network["top1"]["per_seed"] == costs[network["label"]]["top1"]["per_seed"]


def test_what_is_explored_goes_by_the_seeds_that_both_networks_have() -> None:
    raw = {
        "one": {seed: {"of": ("one", seed)} for seed in (0, 1, 2, 5)},
        "two": {seed: {"of": ("two", seed)} for seed in (5, 1)},
    }
    seeds, ours, theirs = runs_of_pair(raw, "one", "two", named=False)
    assert seeds == [1, 5]
    assert [run["of"] for run in ours] == [("one", 1), ("one", 5)]
    assert [run["of"] for run in theirs] == [("two", 1), ("two", 5)]
    with pytest.raises(ValueError, match=r"one was trained with seeds \[0, 1, 2, 5\], two with \[1, 5\]"):
        runs_of_pair(raw, "one", "two")
    with pytest.raises(ValueError, match="train those that are missing"):
        runs_of_pair({**raw, "three": {7: {}}}, "one", "three", named=False)


def test_a_network_with_one_seed_is_listed_but_not_compared(collected: Path, tmp_path: Path) -> None:
    broken(collected, tmp_path / "one").unlink()
    table = run(EvidenceConfig(out=str(tmp_path / "one"), reference="conv_resnet_tiny"))
    assert [len(row["seeds"]) for row in table["networks"] if row["label"] == "gsa_resnet_tiny"] == [1]
    assert {row["label"] for row in table["explore"]} == {*MODELS} - {"conv_resnet_tiny", "gsa_resnet_tiny"}


def test_what_is_seen_in_the_weights_is_in_the_raw_results(collected: Path) -> None:
    raw = {}
    for file in (collected / "runs").glob("*.seed-1.json"):
        found = json.loads(file.read_text())
        raw[found["label"]] = found["attention"]
    assert raw["conv_resnet_tiny"] == {}
    assert set(raw["gsa_resnet_tiny"]["top1_without"]) == {"content", "positional"}
    assert all(0 < share < 1 for share in raw["gsa_resnet_tiny"]["gradient_shares"].values())
    radii = raw["expatt_resnet_tiny:kernel=cone"]["radii"]
    assert len(radii) == 3
    assert all(radius["start"] == 2 and radius["learned"] > 0 for radius in radii.values())
    (rectangle,) = raw["cram_resnet_tiny:equivariance=1"]["rectangles"].values()
    assert all(rectangle["deviation"][name] >= 0 for name in ("cx", "cy", "sx", "sy"))
    assert rectangle["mean"]["sx"] > 0


def test_networks_see_the_images_as_in_their_training(comparison: Path, tmp_path: Path) -> None:
    """A pretrained network has a normalization of its own, which is not that of the data."""
    shutil.copytree(comparison / "gsa_resnet_tiny", tmp_path / "runs" / "gsa_resnet_tiny")
    file = tmp_path / "runs" / "gsa_resnet_tiny" / "seed-0" / "model.safetensors"
    network, meta = load_network(file)
    save_network(file, network, dataclasses.replace(meta, std=(0.01, 0.02, 0.03)))
    run(EvidenceConfig(out=str(tmp_path), collect=[str(tmp_path / "runs")]))
    found = json.loads((tmp_path / "runs" / "gsa_resnet_tiny.seed-0.json").read_text())
    trained = foveate.load(file)
    with attention_off(trained.network, "content"):
        expected = trained.evaluate(TrainConfig(**found["config"]).open()).top1.mean
    assert found["attention"]["top1_without"]["content"] == pytest.approx(expected, abs=1e-9)


def test_a_comparison_goes_on_elsewhere(comparison: Path, collected: Path, tmp_path: Path) -> None:
    """On another machine there are the raw results alone: those runs are not made again, and the table is the same."""
    run(EvidenceConfig(out=str(collected), restore=str(tmp_path / "again")))
    settings = yaml.safe_load((comparison / "config.yaml").read_text())
    known = {field.name for field in dataclasses.fields(CompareConfig)}
    config = {name: value for name, value in settings.items() if name in known} | {"out": str(tmp_path / "again")}
    table, before = compare(CompareConfig(**config)), json.loads((comparison / "compare.json").read_text())
    assert not list((tmp_path / "again").rglob("model.safetensors"))
    for network, wanted in zip(table["networks"], before["networks"], strict=True):
        assert (network["label"], network["top1"]) == (wanted["label"], wanted["top1"])
        assert network["difference"] == wanted["difference"]


def test_finished_runs_are_added_and_those_that_are_there_stay(comparison: Path, tmp_path: Path) -> None:
    part = tmp_path / "part"
    shutil.copytree(comparison / "gsa_resnet_tiny", part / "gsa_resnet_tiny")
    out = tmp_path / "out"
    run(EvidenceConfig(out=str(out), collect=[str(part)]))
    file = out / "runs" / "gsa_resnet_tiny.seed-0.json"
    before = file.stat().st_mtime_ns
    run(EvidenceConfig(out=str(out), collect=[str(comparison)], reference="gsa_resnet_tiny"))
    assert file.stat().st_mtime_ns == before
    assert len(list((out / "runs").iterdir())) == 8
    again = part / "gsa_resnet_tiny" / "seed-0" / "result.json"
    again.write_text(json.dumps(json.loads(again.read_text()) | {"seconds": 4321.0}))  # as if it was made again
    run(EvidenceConfig(out=str(out), collect=[str(part)]))
    assert json.loads(file.read_text())["seconds"] == 4321.0


def row(low: float, high: float, p: float) -> dict[str, Any]:
    return {"over_both": {"low": low, "high": high, "confidence": 0.95}, "holm": p}


@pytest.mark.parametrize(
    ("low", "high", "p", "said"),
    [
        (0.01, 0.03, 0.001, "supported"),
        (0.01, 0.03, 0.2, "not decidable here"),  # no correction survived
        (-0.01, 0.03, 0.001, "not decidable here"),  # other seeds could change it
        (-0.03, -0.01, 0.001, "not supported"),
        (-0.03, -0.01, 0.06, "not decidable here"),
    ],
)
def test_verdicts(low: float, high: float, p: float, said: str) -> None:
    assert verdict(row(low, high, p)) == said


@pytest.mark.parametrize("spec", ["a", "a-b", "a - b - c", " - b", "a b - c"])
def test_a_difference_is_written_with_two_networks(spec: str) -> None:
    with pytest.raises(ValueError, match="is not a difference; write two networks as in"):
        pair_of(spec)


def broken(collected: Path, out: Path) -> Path:
    shutil.copytree(collected / "runs", out / "runs")
    return out / "runs" / "gsa_resnet_tiny.seed-0.json"


def test_what_is_wrong_is_named_with_code_2(
    comparison: Path, collected: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(message: str, *arguments: str) -> None:
        assert main("evidence", arguments) == 2
        said = capsys.readouterr().err
        assert re.search(message, said), said
        assert "Traceback" not in said

    fails("no experiment given; name the folder of its raw results with --out")
    fails(
        "there are no raw results in .*; --collect RUNS",
        str(tmp_path / "none"),
    )
    assert not (tmp_path / "none").exists()
    fails("there is no finished run in", str(tmp_path / "none"), f"--collect={tmp_path}")
    fails(
        "no raw result of gsa_resnet_tini; did you mean",
        str(collected),
        "--claims",
        "gsa_resnet_tini - conv_resnet_tiny",
    )
    fails("'a-b' is not a difference", str(collected), "--claims", "a-b")

    file = broken(collected, tmp_path / "one")
    file.unlink()
    fails(
        r"gsa_resnet_tiny was trained with seeds \[1\], conv_resnet_tiny with \[0, 1\]",
        str(tmp_path / "one"),
        "--claims",
        CLAIMS[1],
    )
    file = broken(collected, tmp_path / "two")
    file.write_text(file.read_text().replace('"correct": "', '"correct": "2'))
    fails(
        "gsa_resnet_tiny.seed-0.json is not a raw result.*collect it again",
        str(tmp_path / "two"),
    )
    file = broken(collected, tmp_path / "three")
    file.write_text("{")
    fails("gsa_resnet_tiny.seed-0.json is not JSON", str(tmp_path / "three"))
    file = broken(collected, tmp_path / "four")
    shutil.copy(file, file.with_name("copy.json"))
    fails("is of gsa_resnet_tiny with seed 0, of which there is another file; remove one", str(tmp_path / "four"))
    assert not (tmp_path / "four" / "networks.md").exists()
