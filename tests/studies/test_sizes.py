"""The study of larger images: what it evaluates is what it says."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import foveate
from foveate.data import open_data
from foveate.io import load_network
from foveate.models.inspection import attention_modules
from studies.sizes.command import MAGNIFIED, WIDER, SizesConfig, run, variants
from tests.training.interruptions import PROCESSES

pytestmark = pytest.mark.slow

DIGITS = {"size": 16, "clutter": 1, "length": 96, "val_length": 20, "test_length": 21}
SETTINGS: dict[str, Any] = {"data": "digits", "epochs": 1, "batch_size": 16, "logger": [], "verbose": False, "lr": 5e-3}


def check_resumption(folders: list[str], table: dict[str, Any], out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupt the evaluation of the second network, go on, and compare; rows are those of ``table``, not computed."""
    config = SizesConfig(checkpoints=folders, factors=[1, 1.5], out=str(out), device="cpu")
    groups = [list(rows) for _, rows in itertools.groupby(table["rows"], lambda row: (row["label"], row["task"]))]
    seen: list[str] = []

    def rows_of(config: Any, device: Any, label: str, paths: Any) -> Any:
        seen.append(label)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return groups[max(0, len(seen) - 2)]

    monkeypatch.setattr("studies.sizes.command._rows", rows_of)
    with pytest.raises(KeyboardInterrupt):
        run(config)
    assert run(config)["rows"] == table["rows"]
    assert len(seen) == len(groups) + 1  # what was done is not done again
    assert sorted(path.name for path in out.iterdir()) == ["sizes.json", "sizes.md", "sizes.svg"]


def test_networks_are_evaluated_at_other_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    how = {**SETTINGS, "data_options": DIGITS}
    for seed in (0, 1):
        foveate.train("gsa_resnet_tiny", seed=seed, out=str(tmp_path / f"gsa-{seed}"), **how)
    segmenter = {**how, "task": "segmentation", "head_args": {"decoder_channels": [8, 8, 8]}}
    foveate.train("conv_resnet_tiny", img_scale=(1.0, 1.5), out=str(tmp_path / "masks"), **segmenter)
    foveate.train("gsa_resnet_tiny", out=str(tmp_path / "gsa-masks"), **segmenter)  # by the name of the classifier
    folders = [str(tmp_path / name) for name in ("gsa-0", "gsa-1", "masks", "gsa-masks")]
    table = run(SizesConfig(checkpoints=folders, factors=[1, 1.5], out=str(tmp_path / "sizes"), device="cpu"))
    with monkeypatch.context() as patch:  # processes that have imported what takes seconds
        patch.setattr("studies.sizes.command.multiprocessing.get_context", lambda _: PROCESSES)
        both = SizesConfig(checkpoints=folders, factors=[1, 1.5], jobs=2, out=str(tmp_path / "two"), device="cpu")
        parallel = run(both)
    assert parallel["rows"] == table["rows"]
    check_resumption(folders, table, tmp_path / "cut", monkeypatch)
    assert json.loads((tmp_path / "sizes" / "sizes.json").read_text()) == table
    dense = [row for row in table["rows"] if row["label"] == "gsa_resnet_tiny" and row["task"] == "segmentation"]
    assert [(row["seeds"], row["metric"]) for row in dense] == [(1, "mean IoU")] * 5
    others = [row for row in table["rows"] if row not in dense]
    rows = {(row["label"], row["scene"], row["factor"], row["variant"]): row for row in others}
    masks = "conv_resnet_tiny (trained at 1 to 1.5)"
    assert set(rows) == {
        ("gsa_resnet_tiny", None, 1, "as trained"),
        *(("gsa_resnet_tiny", scene, 1.5, "as trained") for scene in (MAGNIFIED, WIDER)),
        *(("gsa_resnet_tiny", scene, 1.5, "tables stretched") for scene in (MAGNIFIED, WIDER)),
        (masks, None, 1, "as trained"),
        *((masks, scene, 1.5, "as trained") for scene in (MAGNIFIED, WIDER)),
    }
    scored = {scene: rows["gsa_resnet_tiny", scene, 1.5, "tables stretched"]["score"] for scene in (MAGNIFIED, WIDER)}
    assert scored[MAGNIFIED]["per_seed"] == stretched(tmp_path, {"size": 24})
    assert scored[WIDER]["per_seed"] == stretched(tmp_path, {"size": 24, "unit": 16, "clutter": 2})  # 1 · 1.5²
    native = rows["gsa_resnet_tiny", None, 1, "as trained"]
    assert native["difference"] is native["gain"] is None
    for scene in (MAGNIFIED, WIDER):
        found = rows["gsa_resnet_tiny", scene, 1.5, "as trained"]
        assert found["gain"] is None
        assert found["difference"]["mean"] == pytest.approx(found["score"]["mean"] - native["score"]["mean"])
        gain = rows["gsa_resnet_tiny", scene, 1.5, "tables stretched"]["gain"]
        assert gain["mean"] == pytest.approx(scored[scene]["mean"] - found["score"]["mean"])


def stretched(folder: Path, drawn: dict[str, int]) -> Any:
    """Return top-1 of both seeds on the test digits as they are drawn, tables stretched, computed by hand."""
    data = open_data("digits", options={**DIGITS, **drawn})
    images, labels = next(iter(data.loaders(batch_size=21).test))
    expected = []
    for seed in (0, 1):
        network, _ = load_network(folder / f"gsa-{seed}")
        foveate.resize_relative_tables(network, 24)
        with torch.inference_mode():
            expected.append((network(images).argmax(1) == labels).double().mean().item())
    return pytest.approx(expected)


def test_variants_leave_the_network_as_it_is() -> None:
    network = timm.create_model("expatt_resnet_tiny")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    (_, same), (name, scaled) = variants(network, 2.0, (64, 64))
    assert same is network
    assert name == "radii scaled"
    radii = [[m.radius.item() for m in attention_modules(one).values()] for one in (network, scaled)]
    assert radii[1] == pytest.approx([2 * radius for radius in radii[0]])
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert len(list(variants(timm.create_model("cram_resnet_tiny"), 2.0, (64, 64)))) == 1
    large = timm.create_model("gsa_resnet_tiny", img_size=64)
    assert [[name for name, _ in variants(large, 2.0, (side, side))] for side in (48, 64, 96)] == [
        ["as trained"],
        ["as trained"],
        ["as trained", "tables stretched"],
    ]


def test_runs_that_differ_in_more_than_their_seed_are_not_taken_for_seeds(tmp_path: Path) -> None:
    how = {**SETTINGS, "data_options": DIGITS}
    for name, changes in {
        "a": {},
        "b": {"model_args": {"kernel": "laplace_l1"}},
        "c": {"lr": 0.02},
    }.items():
        foveate.train("expatt_resnet_tiny", out=str(tmp_path / name), **{**how, **changes})
    config = SizesConfig(factors=[1, 1.5], out=str(tmp_path / "sizes"), device="cpu")
    table = run(dataclasses.replace(config, checkpoints=[str(tmp_path / name) for name in "ab"]))
    assert {(row["label"], row["seeds"]) for row in table["rows"]} == {
        ("expatt_resnet_tiny", 1),
        ("expatt_resnet_tiny:kernel=laplace_l1", 1),
    }
    with pytest.raises(ValueError, match="seed"):
        run(dataclasses.replace(config, checkpoints=[str(tmp_path / name) for name in "abc"]))


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "runs"),
        ({"checkpoints": ["x"], "factors": [2.0]}, "factors"),
        ({"checkpoints": ["x"], "factors": [1.0, 0.5]}, "factors"),
        ({"checkpoints": ["x"], "factors": [1.0]}, "factors"),
    ],
)
def test_bad_settings(settings: dict[str, Any], name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=name):
        run(SizesConfig(out=str(tmp_path / "out"), **settings))
    with pytest.raises(ValueError, match="factor"):
        foveate.scale_reach(timm.create_model("expatt_resnet_tiny"), 0)
