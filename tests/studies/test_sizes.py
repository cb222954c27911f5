"""The study of larger images: what it evaluates is what it says."""

from __future__ import annotations

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
from studies.sizes.command import SizesConfig, run, variants

pytestmark = pytest.mark.slow

DIGITS = {"size": 16, "clutter": 1, "length": 96, "val_length": 20, "test_length": 21}
SETTINGS: dict[str, Any] = {"data": "digits", "epochs": 1, "batch_size": 16, "logger": [], "verbose": False, "lr": 5e-3}


def test_networks_are_evaluated_at_other_sizes(tmp_path: Path) -> None:
    how = {**SETTINGS, "data_options": DIGITS}
    for seed in (0, 1):
        foveate.train("gsa_resnet_tiny", seed=seed, out=str(tmp_path / f"gsa-{seed}"), **how)
    foveate.train(
        "conv_resnet_tiny",
        task="segmentation",
        head_args={"decoder_channels": [8, 8, 8]},
        img_scale=(1.0, 1.5),
        out=str(tmp_path / "masks"),
        **how,
    )
    folders = [str(tmp_path / name) for name in ("gsa-0", "gsa-1", "masks")]
    table = run(SizesConfig(checkpoints=folders, factors=[1, 1.5], out=str(tmp_path / "sizes"), device="cpu"))
    assert json.loads((tmp_path / "sizes" / "sizes.json").read_text()) == table
    rows = {(row["label"], row["factor"], row["variant"]): row for row in table["rows"]}
    masks = "conv_resnet_tiny (trained at 1 to 1.5)"
    assert set(rows) == {
        ("gsa_resnet_tiny", 1, "as trained"),
        ("gsa_resnet_tiny", 1.5, "as trained"),
        ("gsa_resnet_tiny", 1.5, "tables stretched"),
        (masks, 1, "as trained"),
        (masks, 1.5, "as trained"),
    }
    data = open_data("digits", options={**DIGITS, "size": 24})
    images, labels = next(iter(data.loaders(batch_size=21).test))
    expected = []
    for seed in (0, 1):
        network, _ = load_network(tmp_path / f"gsa-{seed}")
        foveate.resize_relative_tables(network, 24)
        with torch.inference_mode():
            expected.append((network(images).argmax(1) == labels).double().mean().item())
    assert rows["gsa_resnet_tiny", 1.5, "tables stretched"]["score"]["per_seed"] == pytest.approx(expected)
    found = rows["gsa_resnet_tiny", 1.5, "as trained"]
    native = rows["gsa_resnet_tiny", 1, "as trained"]
    assert native["difference"] is None
    assert found["difference"]["mean"] == pytest.approx(found["score"]["mean"] - native["score"]["mean"])


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


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "runs"),
        ({"checkpoints": ["x"], "factors": [2.0]}, "factors"),
        ({"checkpoints": ["x"], "factors": [0.0]}, "factors"),
    ],
)
def test_bad_settings(settings: dict[str, Any], name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=name):
        run(SizesConfig(out=str(tmp_path / "out"), **settings))
    with pytest.raises(ValueError, match="factor"):
        foveate.scale_reach(timm.create_model("expatt_resnet_tiny"), 0)
