"""Evidence of segmentation networks: raw results of real runs, and the tables made of them again."""

from __future__ import annotations

import dataclasses
import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import foveate
import studies.dense.command
from foveate.explain import attention_off
from foveate.io import load_network, save_network
from foveate.stats import crossed_by_interval, holm
from foveate.tasks import Segmentation
from foveate.training import TrainConfig
from studies._command import main
from studies.dense.attention import attention_of
from studies.dense.command import DenseConfig, run
from tests.costs import leave_out_costs

pytestmark = pytest.mark.slow

MODELS = ["conv_resnet_tiny", "gsa_resnet_tiny:part=content", "cram_resnet_tiny"]
CLAIMS = ["gsa_resnet_tiny:part=content - conv_resnet_tiny", "gsa_resnet_tiny:part=content - cram_resnet_tiny"]
MADE = (
    "evidence.json",
    "attention.json",
    "networks.md",
    "classes.md",
    "attention.md",
    "claims.md",
    "explore.md",
    "differences.svg",
)


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    digits: dict[str, Any] = {"size": 16, "clutter": 1, "length": 32, "val_length": 8, "test_length": 13}
    settings: dict[str, Any] = {"decoder": "fpn", "head_args": {"decoder_pyramid_channels": 32}}
    settings |= {"epochs": 1, "batch_size": 8, "lr": 0.01, "device": "cpu", "jobs": 1, "seeds": 2}
    with pytest.MonkeyPatch.context() as patch:
        leave_out_costs(patch)
        foveate.compare(
            MODELS, task="segmentation", data="digits", data_options=digits, verbose=False, out=str(out), **settings
        )
    return out


@pytest.fixture(scope="module")
def collected(comparison: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results")
    run(DenseConfig(out=str(out), collect=[str(comparison)], claims=CLAIMS))
    return out


def raw(folder: Path, label: str) -> list[Any]:
    files = [folder / "runs" / f"{label.replace(':', '+')}--seed-{seed}.json.gz" for seed in (0, 1)]
    return [json.loads(gzip.decompress(file.read_bytes())) for file in files]


def test_figures_are_those_of_the_runs(comparison: Path, collected: Path) -> None:
    table = json.loads((collected / "evidence.json").read_text())
    compared = json.loads((comparison / "compare.json").read_text())["networks"]
    by_label = {network["label"]: network for network in table["networks"]}
    for network in compared:
        assert by_label[network["label"]]["score"] == network["mean_iou"]
    task = Segmentation(table["classes"])
    scores = {label: [result["scores"] for result in raw(collected, label)] for label in MODELS}
    for row, claim in zip(table["claims"], CLAIMS, strict=True):
        label, other = claim.split(" - ")
        difference = task.difference(scores[label], scores[other])
        assert row["over_images"]["mean"] == difference.mean
        assert row["over_both"]["high"] == crossed_by_interval(difference, images=13).high
    assert [row["holm"] for row in table["claims"]] == holm([row["over_images"]["p_value"] for row in table["claims"]])
    assert [(row["label"], row["other"]) for row in table["explore"]] == [("cram_resnet_tiny", "conv_resnet_tiny")]


def test_what_networks_owe_to_their_attention_is_measured_on_the_same_images(collected: Path) -> None:
    table = json.loads((collected / "evidence.json").read_text())
    by_label = {network["label"]: network["attention"] for network in table["networks"]}
    assert by_label["conv_resnet_tiny"] == []
    assert [run["seed"] for run in by_label["cram_resnet_tiny"]] == [0, 1]
    (gate,) = by_label["cram_resnet_tiny"][0]["gates"].values()
    assert 0 < gate["share"] <= 1
    assert [set(run["without"]) for run in by_label["cram_resnet_tiny"]] == [{"attention"}] * 2
    assert all(0 <= value < 1 for run in by_label["cram_resnet_tiny"] for value in run["without"].values())


def test_networks_see_the_images_as_in_their_training(tmp_path: Path) -> None:
    """A pretrained network has a normalization of its own, which is not that of the data."""
    digits = {"size": 16, "clutter": 1, "length": 96, "val_length": 8, "test_length": 13}
    how: dict[str, Any] = {"data_options": digits, "epochs": 6, "batch_size": 8, "lr": 0.01, "logger": []}
    how |= {"decoder": "fpn", "head_args": {"decoder_pyramid_channels": 32}, "device": "cpu", "verbose": False}
    trained = foveate.train("cram_resnet_tiny", "digits", task="segmentation", out=str(tmp_path), **how)
    before = attention_of(tmp_path, trained.content)["without"]["attention"]
    network, meta = load_network(tmp_path)
    save_network(tmp_path / "model.safetensors", network, dataclasses.replace(meta, std=(0.1, 0.1, 0.1)))
    changed = foveate.load(tmp_path)
    data = TrainConfig(**trained.content["config"]).open()
    with attention_off(changed.network):
        expected = changed.evaluate(data, batch_size=8).mean_iou.mean
    assert attention_of(tmp_path, trained.content)["without"]["attention"] == pytest.approx(expected, abs=1e-9)
    assert before != pytest.approx(expected, abs=1e-3)


def test_another_reference(collected: Path, tmp_path: Path) -> None:
    out = shutil.copytree(collected, tmp_path / "results")
    found = run(DenseConfig(out=str(out), claims=CLAIMS[1:], reference="conv_resnet_tiny"))
    pairs = [(row["label"], row["other"]) for row in found["explore"]]
    assert set(pairs) == {(label, "conv_resnet_tiny") for label in MODELS[1:]}


def test_the_same_raw_results_give_the_same_bytes(comparison: Path, collected: Path) -> None:
    before = {name: (collected / name).read_bytes() for name in MADE}
    files = {file.name: file.read_bytes() for file in (collected / "runs").iterdir()}
    options = [f"--out={collected}", f"--claims={CLAIMS}", f"--collect=[{comparison}]"]
    assert main("dense", options) == 0
    assert {name: (collected / name).read_bytes() for name in MADE} == before
    assert {file.name: file.read_bytes() for file in (collected / "runs").iterdir()} == files


def test_what_was_seen_in_other_weights_goes_before_their_results(
    comparison: Path, collected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again, out = shutil.copytree(comparison, tmp_path / "runs"), shutil.copytree(collected, tmp_path / "results")
    (result,) = again.glob("cram_resnet_tiny/seed-1/result.json")
    result.write_text(json.dumps({**json.loads(result.read_text()), "seconds": 0.5}))
    before = json.loads((out / "attention.json").read_text())

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(studies.dense.command, "attention_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(DenseConfig(out=str(out), collect=[str(again)], claims=CLAIMS))
    assert raw(out, "cram_resnet_tiny")[1]["seconds"] == 0.5
    after = json.loads((out / "attention.json").read_text())
    assert "1" in before["cram_resnet_tiny"]
    assert after == before | {"cram_resnet_tiny": {"0": before["cram_resnet_tiny"]["0"]}}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "results/streets"),
        (["--out=results/streets", "--claims=[a]"], "'a'"),
        (["--out=nowhere", "--claims=[a - b]"], "nowhere"),
        (["--out=results/streets", "--claims=[conv_resnet_tin - conv_resnet_tiny]"], "did you mean"),
    ],
    ids=str,
)
def test_what_cannot_be_compared_is_named(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("dense", options) == 2
    assert said in capsys.readouterr().err


def test_a_missing_seed_and_a_broken_file_are_named(collected: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    for file in (collected / "runs").iterdir():
        if file.name != "cram_resnet_tiny--seed-1.json.gz":
            (runs / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ValueError, match=r"cram_resnet_tiny with \[0\]"):
        run(DenseConfig(out=str(tmp_path), claims=CLAIMS))
    (runs / "cram_resnet_tiny--seed-1.json.gz").write_bytes(b"\x1f\x8b\x08 broken")
    with pytest.raises(ValueError, match=r"cram_resnet_tiny--seed-1\.json\.gz"):
        run(DenseConfig(out=str(tmp_path), claims=CLAIMS))
