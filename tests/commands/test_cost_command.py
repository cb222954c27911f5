"""What ``foveate cost`` and ``foveate models`` print, read back from the text."""

from __future__ import annotations

import json

import pytest

import foveate
from foveate.benchmark import network_cost
from foveate.commands.cost import CostConfig, run
from foveate.commands.models import ModelsConfig
from foveate.commands.models import run as run_models


def table(text: str, first: str) -> list[list[str]]:
    """Return the cells of the rows below the header that starts with ``first``."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.split("  ")[0] == first)
    end = next((number for number in range(start, len(lines)) if not lines[number]), len(lines))
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines[start + 1 : end]]


@pytest.mark.slow
def test_the_figures_of_the_papers_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    run(CostConfig(models=["resnet50", "gsa_resnet50", "expatt_resnet152", "aa_resnet152"]))
    text = capsys.readouterr().out
    assert "1 multiply-add = 2 FLOPs" in text
    rows = {row[0]: row[1:] for row in table(text, "network")}
    assert rows["resnet50"] == ["25.557", "+0.0%", "8.178", "+0.0%"]
    assert float(rows["gsa_resnet50"][0]) == pytest.approx(18.05, abs=0.05)
    assert float(rows["gsa_resnet50"][2]) == pytest.approx(7.2, abs=0.1)
    expatt, augmented = (float(rows[f"{kind}_resnet152"][0]) for kind in ("expatt", "aa"))
    assert 100 * (expatt / augmented - 1) == pytest.approx(-6.4, abs=0.15)


@pytest.mark.slow
def test_every_option_reaches_the_count(capsys: pytest.CaptureFixture[str]) -> None:
    options = {"img_size": (45, 61), "num_classes": 7, "in_chans": 1, "model_args": {"stem": "small"}}
    cost = run(CostConfig(models=["gsa_resnet26"], **options))["gsa_resnet26"]
    model = foveate.models.AttentionResNet(
        foveate.models.attention_net.global_self,
        layers=(1, 2, 4, 1),
        stem="small",
        img_size=(45, 61),
        num_classes=7,
        in_chans=1,
    )
    assert cost == network_cost(model, (1, 45, 61))
    assert "1×45×61" in capsys.readouterr().out


def test_depth_lists_modules_whose_figures_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    cost = run(CostConfig(models=["expatt_resnet26"], depth=1))["expatt_resnet26"]
    network, *modules = table(capsys.readouterr().out, "module")
    assert network[:2] == ["expatt_resnet26", "AttentionResNet"]
    assert [row[0] for row in modules] == [row.name for row in cost.modules if row.depth == 1]
    for column, total in ((-2, cost.parameters / 1e3), (-1, cost.flops / 1e6)):
        printed = [float(row[column].replace(",", "")) for row in modules]
        assert sum(printed) == pytest.approx(total, abs=0.05 * len(printed))


def test_json_holds_every_module(capsys: pytest.CaptureFixture[str]) -> None:
    cost = run(CostConfig(models=["cram_resnet_tiny"], img_size=48, json=True))["cram_resnet_tiny"]
    printed = json.loads(capsys.readouterr().out)["cram_resnet_tiny"]
    assert (printed["parameters"], printed["flops"]) == (cost.parameters, cost.flops)
    assert [row["name"] for row in printed["modules"]] == [row.name for row in cost.modules]
    assert printed["attention"][0]["kinds"] == ["RectangularAttention2d"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": []}, "no networks given"),
        ({"models": ["gsa_resnet5"]}, "did you mean 'gsa_resnet50'"),
        ({"img_size": 0}, "img_size must be at least 1"),
        ({"img_size": (3, 4, 5)}, "img_size must be one integer or"),
        ({"in_chans": 0}, "in_chans must be at least 1"),
        ({"num_classes": -1}, "num_classes must be at least 0"),
        ({"task": "regression"}, "task must be one of"),
        ({"task": "segmentation", "decoder": "unett"}, "decoder must be one of"),
        ({"task": "detection", "detector": "yolo"}, "detector must be one of"),
        ({"detector": "fcos"}, "detector means nothing to task=classification"),
        ({"task": "detection", "decoder": "fpn"}, "decoder means nothing to task=detection"),
        ({"head_args": {"channels": 8}}, "head_args"),
        ({"depth": -1}, "depth must be at least 0"),
        ({"model_args": {"colour": "red"}}, "does not take these arguments: .*colour"),
        ({"model_args": {"num_heads": 7}}, "num_heads=7"),
    ],
)
def test_bad_input_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(CostConfig(**{"models": ["gsa_resnet26"], **options}))


@pytest.mark.slow
def test_decoders_and_detectors_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """The decoder's last layer is a 3×3 convolution of 8 channels at the size of the image, with a bias."""
    how = {"models": ["cram_resnet_tiny"], "img_size": (24, 40), "task": "segmentation"}
    args = {"decoder_channels": [16, 8, 8]}
    few, more = (run(CostConfig(**how, num_classes=n, head_args=args))["cram_resnet_tiny"] for n in (5, 8))
    assert more.parameters - few.parameters == 3 * (8 * 9 + 1)
    assert more.flops - few.flops == 2 * 3 * 8 * 9 * 24 * 40
    assert "unet" in capsys.readouterr().out
    how |= {"task": "detection", "detector": "retinanet", "num_classes": 5}
    narrow = run(CostConfig(**how, head_args={"channels": 16}))["cram_resnet_tiny"]
    assert narrow.parameters < run(CostConfig(**how, head_args={"channels": 32}))["cram_resnet_tiny"].parameters
    assert [stage.kinds for stage in narrow.attention] == [("RectangularAttention2d",)]


@pytest.mark.slow
def test_models_lists_what_is_registered(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # Tests of recipes count what the deepest have, which would take most of the time here.
    names = [name for name in foveate.models.registered() if not name.endswith(("_resnet101", "_resnet152"))]
    monkeypatch.setattr("foveate.commands.models.registered", lambda: names)
    assert run_models(ModelsConfig()) == names
    rows = {row[0]: row[1:] for row in table(capsys.readouterr().out, "network")}
    assert list(rows) == names
    assert rows["gsa_resnet50"] == ["gsa", "224×224", "18.053"]
    assert rows["cram_efficientnet_b0"][:2] == ["cram", "224×224"]


@pytest.mark.slow
def test_models_filters_and_refuses_a_pattern_that_matches_none(capsys: pytest.CaptureFixture[str]) -> None:
    names = run_models(ModelsConfig(filter="gsa_*"))
    assert "gsa_resnet50" in names
    assert all(name.startswith("gsa_") for name in names)
    assert "aa_resnet50" not in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"no network matches filter='resnext\*'"):
        run_models(ModelsConfig(filter="resnext*"))
