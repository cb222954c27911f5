"""``foveate test``: the figures of a run again, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.made_sets import write_folder, write_photo

import foveate
from foveate.commands.evaluate import EvaluateConfig, run
from foveate.training import TrainConfig
from foveate.training import train_network as train

DIGITS: dict[str, Any] = {"size": 16, "clutter": 1, "length": 48, "val_length": 20, "test_length": 31}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("trained") / "run"
    wanted = TrainConfig(
        model="test_resnet", data_options=DIGITS, epochs=2, batch_size=8, device="cpu", out=str(out), crop_pct=0.8
    )
    return out, train(wanted, verbose=False)


@pytest.mark.slow
def test_it_gives_the_figures_of_the_run(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, expected = trained
    file = tmp_path / "figures" / "test.json"
    result = run(EvaluateConfig(checkpoint=str(out), data_options=DIGITS, batch_size=7, device="cpu", json=str(file)))
    assert json.loads(file.read_text()) == json.loads(json.dumps(result))
    assert result["correct"] == expected["correct"]  # crop_pct too is read from the checkpoint
    assert result["top1"]["mean"] == pytest.approx(expected["metrics"]["top1"])
    assert result["top1"]["low"] <= result["top1"]["mean"] <= result["top1"]["high"]
    assert result["top5"] == pytest.approx(expected["metrics"]["top5"])
    assert result["loss"] == pytest.approx(expected["metrics"]["loss"], rel=1e-5)
    assert list(result["per_class"].values()) == expected["metrics"]["per_class"]
    output = capsys.readouterr()
    assert output.out.startswith("test_resnet on 31 test images of digits\n")
    assert f"{result['top1']['mean']:.2%}  (95% interval {result['top1']['low']:.2%}" in output.out
    assert output.err == ""


@pytest.mark.slow
def test_the_data_of_the_run_are_the_default(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    out, expected = trained
    for given in ({}, {"data": "digits"}):
        assert run(EvaluateConfig(checkpoint=str(out), device="cpu", **given))["correct"] == expected["correct"]
    folder = write_folder(tmp_path / "photos", {"train": 9})  # of which a part is kept for validation, by the seed
    settings: dict[str, Any] = {"model": "test_resnet", "epochs": 1, "batch_size": 8, "device": "cpu", "img_size": 32}
    wanted = TrainConfig(**settings, data=str(folder), data_seed=3, out=str(tmp_path / "run"))
    history = train(wanted, verbose=False)["history"]
    elsewhere = str(folder.parent / "." / "sub" / ".." / folder.name)
    (folder.parent / "sub").mkdir()
    for given in ({}, {"data": str(folder)}, {"data": elsewhere}, {"data": str(folder), "data_seed": 3}):
        found = run(EvaluateConfig(checkpoint=str(tmp_path / "run"), split="val", device="cpu", **given))
        assert found["loss"] == pytest.approx(history[-1]["val_loss"], rel=1e-5)
    named = foveate.load(tmp_path / "run").evaluate(folder, split="val")
    assert named.loss == pytest.approx(history[-1]["val_loss"], rel=1e-5)
    for seed in (0, 4):
        other = run(EvaluateConfig(checkpoint=str(tmp_path / "run"), split="val", device="cpu", data_seed=seed))
        assert other["loss"] != pytest.approx(history[-1]["val_loss"], rel=1e-5)
    write_photo(folder / "train" / "class0" / "new.jpg")  # the division is another one now
    with pytest.raises(ValueError, match="train: 14 images then, 15 now"):
        run(EvaluateConfig(checkpoint=str(tmp_path / "run"), split="val", device="cpu"))
    run(EvaluateConfig(checkpoint=str(tmp_path / "run"), split="val", device="cpu", data=str(folder)))


@pytest.mark.slow
def test_it_tests_other_splits(trained: tuple[Path, dict[str, Any]]) -> None:
    out, expected = trained
    options: dict[str, Any] = {"data_options": DIGITS, "device": "cpu"}
    result = run(EvaluateConfig(checkpoint=str(out / "last.ckpt"), split="val", **options))
    assert result["images"] == 20
    assert result["top1"]["mean"] == pytest.approx(expected["history"][-1]["val_top1"])
    assert run(EvaluateConfig(checkpoint=str(out / "last.ckpt"), split="train", **options))["images"] == 48


@pytest.mark.slow
def test_what_does_not_fit_is_refused(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _ = trained
    vit = tmp_path / "vit"
    train(
        TrainConfig(model="test_vit", data_options=DIGITS, epochs=1, device="cpu", out=str(vit), batch_size=8),
        verbose=False,
    )
    for label in ("cat", "dog"):
        for split in ("train", "val"):
            (tmp_path / "photos" / split / label).mkdir(parents=True)
            Image.new("RGB", (20, 20)).save(tmp_path / "photos" / split / label / "0.png")
    photos = str(tmp_path / "photos")
    cases = [
        (EvaluateConfig(), "no checkpoint given"),
        (EvaluateConfig(checkpoint=str(tmp_path / "none")), "there is no checkpoint"),
        (EvaluateConfig(checkpoint=str(out / "config.yaml")), "config.yaml is not a checkpoint of weights"),
        (
            EvaluateConfig(checkpoint=str(out), data=photos),
            r"was trained for 10 classes \(0, 1, 2, …\); .* 2 classes \(cat",
        ),
        (EvaluateConfig(checkpoint=str(out), split="tests"), "split must be one of"),  # type: ignore[arg-type]
        (EvaluateConfig(checkpoint=str(out), batch_size=0), "batch_size must be at least 1"),
        (EvaluateConfig(checkpoint=str(out), img_size=0), "img_size must be at least 1; got 0"),
        (
            EvaluateConfig(checkpoint=str(vit), data_options={**DIGITS, "size": 24}, img_size=24),
            "test_vit does not take an image of 3×24×24",
        ),
        (
            EvaluateConfig(checkpoint=str(out), json="/proc/figures/test.json"),
            "cannot write to the output folder /proc",
        ),
        (
            EvaluateConfig(checkpoint=str(tmp_path / "none"), json=str(tmp_path / "deep" / "x.json")),
            "there is no checkpoint",
        ),
        (
            EvaluateConfig(checkpoint=str(out), data_options=DIGITS, json=str(tmp_path)),
            "is a folder; name a file in it",
        ),
    ]
    monkeypatch.setattr("foveate.training.predict", lambda *_, **__: pytest.fail("it has begun"))
    for wanted, message in cases:
        with pytest.raises(ValueError, match=message):
            run(wanted)
    assert not (tmp_path / "deep").exists()
