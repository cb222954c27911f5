"""``foveate compare``: paired runs, interrupted and continued, and a table whose figures are those of the runs."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from tests.commands.watched import BEFORE_TRAINING_STEP, DIGITS, MODELS, SEEN, config

from foveate.commands.compare import CompareConfig, run
from foveate.comparison import ModelSpec
from foveate.report.comparison import to_csv, to_markdown


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    SEEN.clear()
    BEFORE_TRAINING_STEP.clear()


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("compared")
    return out, run(config(out))


def runs_of(out: Path, network: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads((out / folder / "result.json").read_text()) for folder in network["runs"]]


@pytest.mark.slow
def test_the_table_is_made_of_the_runs(compared: tuple[Path, dict[str, Any]]) -> None:
    out, table = compared
    assert json.loads((out / "compare.json").read_text()) == table
    assert [network["label"] for network in table["networks"]] == MODELS
    assert table["networks"][1]["model_args"] == {"drop_rate": 0.4}
    assert (table["images"], table["split"], table["seeds"]) == (31, "test", [0, 1])
    first = np.array([r["correct"] for r in runs_of(out, table["networks"][0])], dtype=float)
    for network in table["networks"]:
        results = runs_of(out, network)
        assert [(r["seed"], r["model"]) for r in results] == [(0, network["model"]), (1, network["model"])]
        correct = np.array([r["correct"] for r in results], dtype=float)
        assert network["top1"]["mean"] == pytest.approx(correct.mean())
        assert network["top1"]["per_seed"] == pytest.approx([r["metrics"]["top1"] for r in results])
        assert network["top1"]["seed_std"] == pytest.approx(correct.mean(axis=1).std(ddof=1))
        if network["label"] == MODELS[0]:
            assert network["difference"] is None
        else:
            assert network["difference"]["mean"] == pytest.approx((correct - first).mean())
            assert 0 < network["difference"]["p_value"] <= 1
        model = timm.create_model(
            network["model"], num_classes=10, **({"img_size": 16} if "vit" in network["label"] else {})
        )
        assert network["parameters"] == sum(p.numel() for p in model.parameters())
        rate = network["images_per_second"]
        assert 0 < rate["q1"] <= rate["median"] <= rate["q3"]
        assert network["peak_memory"] > 4 * network["parameters"]  # the gradients alone


@pytest.mark.slow
def test_the_saved_tables_hold_the_same_figures(compared: tuple[Path, dict[str, Any]]) -> None:
    out, table = compared
    with (out / "compare.csv").open() as file:
        rows = list(csv.DictReader(file))
    markdown = (out / "compare.md").read_text()
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1  # aligned
    for network, row, line in zip(table["networks"], rows, lines[2:], strict=True):
        assert row["network"] == network["label"]
        assert float(row["top1_low"]) == network["top1"]["low"]
        assert int(row["flops"]) == network["flops"]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[0] == network["label"]
        assert float(cells[1]) == pytest.approx(100 * network["top1"]["mean"], abs=0.005)
        if network["difference"]:
            assert float(row["difference_p_value"]) == network["difference"]["p_value"]
            assert float(cells[4]) == pytest.approx(100 * network["difference"]["mean"], abs=0.005)
        else:
            assert row["difference_mean"] == cells[4] == ""
    assert "1 multiply-add = 2 FLOPs" in markdown
    assert table["layout"] == "NCHW"
    assert "laid out NCHW" in markdown
    assert table["threads"] == table["protocol"]["threads"]


@pytest.mark.slow
def test_finished_runs_are_reused_and_networks_can_be_added(
    compared: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    out, table = compared
    written = {path: path.stat().st_mtime_ns for path in out.rglob("result.json")}
    again = run(config(out, models=["test_vit", "test_resnet", "conv_resnet_tiny"], seeds=2, workers=1))
    lines = sorted(capsys.readouterr().out.splitlines()[:6])
    assert [line.split("]")[0] for line in lines] == [f"[{k}/6" for k in range(1, 7)]
    assert [line.endswith("finished before and reused") for line in lines] == [True, True, False] * 2
    assert all(path.stat().st_mtime_ns == time for path, time in written.items())
    by_name = {network["label"]: network for network in table["networks"]}
    assert again["networks"][0]["top1"] == by_name["test_vit"]["top1"]
    assert again["networks"][1]["difference"]["mean"] == -by_name["test_vit"]["difference"]["mean"]


@pytest.mark.slow
def test_runs_that_were_tested_on_other_images_are_not_paired(
    compared: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    shutil.copytree(compared[0], tmp_path / "other")
    changed = tmp_path / "other" / compared[1]["networks"][1]["runs"][1] / "result.json"
    changed.write_text(json.dumps(json.loads(changed.read_text()) | {"bad_tested": ["photos/test/3.jpg"]}))
    with pytest.raises(ValueError, match=r"seed-1 were tested on different images: photos/test/3\.jpg"):
        run(config(tmp_path / "other"))


@pytest.mark.slow
def test_equal_seeds_see_the_same_images_in_the_same_order(tmp_path: Path) -> None:
    augmented = {"random_erasing": 0.5, "mixup": 0.5, "cutmix": 0.5}
    run(config(tmp_path, models=["watched_resnet", "watched_vit"], **augmented))
    batches = {name: [images for seen, images in SEEN if seen == name] for name in ("test_resnet", "test_vit")}
    # 2 seeds of 2 epochs of 5 batches; the last one of each network measures its memory
    assert [len(seen) for seen in batches.values()] == [21, 21]
    for one, other in list(zip(*batches.values(), strict=True))[:20]:
        assert torch.equal(one, other)
    first, second = batches["test_vit"][:10], batches["test_vit"][10:20]
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))  # seeds differ


@pytest.mark.slow
def test_interrupted_it_goes_on_where_it_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = ["watched_resnet", "watched_vit"]
    whole = run(config(tmp_path / "whole", models=models))
    SEEN.clear()

    def interrupt() -> None:
        if len(SEEN) == 2 * 10 + 7:  # in the second epoch of the third run, that is of seed 1 of the first network
            raise KeyboardInterrupt

    BEFORE_TRAINING_STEP.append(interrupt)
    with pytest.raises(KeyboardInterrupt, match="run the same command again"):
        run(config(tmp_path / "cut", models=models))
    assert sorted(path.parent.parent.name for path in (tmp_path / "cut").rglob("result.json")) == models
    assert not (tmp_path / "cut" / "compare.json").exists()

    SEEN.clear()
    BEFORE_TRAINING_STEP.clear()
    capsys.readouterr()
    continued = run(config(tmp_path / "cut", models=models))
    lines = capsys.readouterr().out.splitlines()
    assert ["reused" in line for line in lines[:4]] == [True, True, False, False]
    assert ["resumed" in line for line in lines[:4]] == [False, False, True, False]
    assert len(SEEN) == 5 + 10 + 2  # an epoch, a run, and a step of each network for its memory
    for one, other in zip(whole["networks"], continued["networks"], strict=True):
        assert one["top1"] == other["top1"]
        assert one["difference"] == other["difference"]


@pytest.mark.slow
def test_another_protocol_is_refused_and_the_difference_named(compared: tuple[Path, dict[str, Any]]) -> None:
    out, _ = compared
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    with pytest.raises(
        ValueError, match=r"started with other settings; use those .*, give another `out`, or delete"
    ) as error:
        run(config(out, lr=0.01, data_options={**DIGITS, "clutter": 2}))
    message = str(error.value)
    assert "lr: 0.003 there, 0.01 now" in message
    assert "data_options: " in message
    assert "epochs" not in message
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": []}, "no networks given"),
        ({"models": ["test_vit", "test_vit"]}, "each network can be compared once"),
        ({"models": ["test_resnet", "test_vitt"]}, "unknown model 'test_vitt'; did you mean 'test_vit"),
        ({"models": ["test_resnet", "resnet10t:heads=4"]}, "does not take these arguments: .*'heads'"),
        (
            {"models": ["test_resnet:drop_rate"]},
            "'test_resnet:drop_rate' is not a network; give name or name:key=value",
        ),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"data": "nowhere", "data_options": {}}, "no data set is called 'nowhere'"),
        ({"batch_size": 4000}, "batch_size=4000 leaves no whole batch of the 40 training images"),
        ({"models": ["test_resnet", "inception_v3"]}, "inception_v3 does not take an image of 3×16×16"),
        ({"models": ["test_resnet", "resnet10t:num_classes=3"]}, "model_args cannot set num_classes"),
        ({"models": ["test_resnet", "test_vit"], "data_options": DIGITS | {"test_length": 1}}, "1 image in test"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_not_begun(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        run(config(tmp_path / "out", **changes))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_single_network_makes_a_valid_table_and_costs_that_cannot_be_measured_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def run_out_of_memory() -> None:
        if len(SEEN) == 5:  # after an epoch of 5 batches, in the step whose memory is measured
            raise torch.OutOfMemoryError("CUDA out of memory")

    BEFORE_TRAINING_STEP.append(run_out_of_memory)
    table = run(config(tmp_path, models=["watched_resnet"], seeds=1, epochs=1, channels_last=True))
    (network,) = table["networks"]
    assert network["peak_memory"] is None
    assert network["images_per_second"]["median"] > 0
    assert len(SEEN) == 5
    assert all(images.is_contiguous(memory_format=torch.channels_last) for _, images in SEEN)
    assert table["layout"] == "NHWC"
    assert "CUDA out of memory" in caplog.text
    markdown = (tmp_path / "compare.md").read_text()
    assert "laid out NHWC" in markdown
    header, rule, cells = (line.strip("|").split("|") for line in markdown.splitlines()[:3])
    assert len(header) == len(rule) == len(cells)
    assert all(re.fullmatch(r" :?-+:? ", cell) for cell in rule)  # the delimiter row of GitHub's Markdown
    assert cells[-1].strip() == ""
    with (tmp_path / "compare.csv").open() as file:
        assert next(csv.DictReader(file))["peak_memory"] == ""

    network |= {"images_per_second": None, "flops": None}
    assert "".join(to_markdown(table).splitlines()[2].split("|")[-5:]).strip() == ""
    row = next(csv.DictReader(to_csv(table).splitlines()))
    assert row["images_per_second_median"] == row["flops"] == ""


@pytest.mark.slow
def test_speed_and_memory_are_measured_in_the_layout_of_training(tmp_path: Path) -> None:
    run(config(tmp_path, models=["watched_resnet"], seeds=1, epochs=1, channels_last=True))
    _, measured = SEEN[-1]
    assert measured.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
def test_a_run_that_fails_is_named(tmp_path: Path) -> None:
    def explode() -> None:
        if len(SEEN) == 13:
            raise ValueError("the loss became nan")

    BEFORE_TRAINING_STEP.append(explode)
    with pytest.raises(ValueError, match=r"\[2/4\] watched_vit seed 0: the loss became nan"):
        run(config(tmp_path, models=["watched_resnet", "watched_vit"]))


def test_specifications_of_networks() -> None:
    assert ModelSpec.parse("resnet26") == ("resnet26", {}, {})
    text = "gsa_resnet26:stem=small,num_heads=4,layers=[1, 2, 1],drop_rate=1.5e-1,drop_path_rate=1e-1,flag=true"
    expected = {"stem": "small", "num_heads": 4, "layers": [1, 2, 1], "drop_rate": 0.15, "flag": True}
    expected["drop_path_rate"] = 0.1
    assert ModelSpec.parse(text + ",lr=1e-3") == ("gsa_resnet26", expected, {"lr": 0.001})
    with pytest.raises(ValueError, match="is not a network"):
        ModelSpec.parse("resnet26:layers=[1, 2")


def test_every_option_of_training_is_one_of_comparing() -> None:
    from foveate.training import TrainConfig

    training = {field.name for field in dataclasses.fields(TrainConfig)}
    comparing = {field.name for field in dataclasses.fields(CompareConfig)}
    assert training - comparing == {"model", "seed", "resume", "checkpoint", "strategy", "sync_bn"}
    assert comparing - training == {"models", "seeds", "jobs"}


def test_a_network_has_settings_of_its_own() -> None:
    config = CompareConfig(models=["test_resnet", "test_resnet:lr=0.5,drop_rate=0.4"], lr=0.01)
    plain, own = (config.run_of(spec, 0) for spec in config.models)
    assert (plain.lr, plain.model_args) == (0.01, {})
    assert (own.lr, own.model_args) == (0.5, {"drop_rate": 0.4})
    with pytest.raises(ValueError, match="lr must be a finite number above 0; got -1"):
        config.run_of("test_resnet:lr=-1", 0).check()
