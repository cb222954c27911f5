"""``foveate score``: networks whose rectangles are set by hand, scored on images whose boxes are known."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import foveate
from foveate.cli import main
from foveate.commands.score import ScoreConfig, run
from foveate.data import make_transform, open_data
from foveate.explain import deletion, saliency
from foveate.io import NetworkMeta, load_network, save_network
from foveate.nn import RectangularAttention2d
from foveate.trained import build
from foveate.trained.scoring import ScoreSettings, score_networks

DIGITS: dict[str, Any] = {"size": 24, "clutter": 1, "length": 20, "val_length": 10, "test_length": 30}
SIZE, CROP = 24, 0.75
WIDTH, HEIGHT = 48, 64  # of the photographs: resized to 32×42, of which the middle 24×24 is seen
BOX = (15, 23, 27, 43)  # of the thing, the last ones exclusive
COMMON: dict[str, Any] = {"device": "cpu", "thresholds": 10, "steps": 4}


def checkpoint(folder: Path, name: str, *, classes: int = 10, crop_pct: float = 1.0, **changes: Any) -> str:
    """Save a network with random weights as `foveate train` would."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=classes, **changes)
    names = [str(label) for label in range(classes)] if classes == 10 else ["ant", "bee"]
    kwargs = {"num_classes": classes, **changes}
    meta = NetworkMeta(
        model=name,
        kwargs=kwargs,
        classes=names,
        img_size=(SIZE, SIZE),
        mean=(0.2, 0.3, 0.4),
        std=(0.3, 0.3, 0.3),
        crop_pct=crop_pct,
        interpolation="bilinear",
    )
    folder.mkdir(parents=True, exist_ok=True)
    save_network(folder / "model.safetensors", model, meta)
    return str(folder)


def point(folder: str, box: tuple[float, float, float, float]) -> None:
    """Make the rectangle of a network be ``box`` of its input, in pixels, whatever it sees."""
    model, meta = load_network(folder)
    (module,) = [module for module in model.modules() if isinstance(module, RectangularAttention2d)]
    left, top, right, bottom = (2 * at / SIZE - 1 for at in box)
    numbers = [math.atanh((left + right) / 2), math.atanh((top + bottom) / 2)]
    cover = math.log(math.expm1(RectangularAttention2d.INITIAL_HALF_SIZE))
    numbers += [math.log(math.expm1(side / 2)) - cover for side in (right - left, bottom - top)]
    with torch.no_grad():
        module.readout.bias.copy_(torch.tensor([*numbers, 0.0]))
    save_network(Path(folder) / "model.safetensors", model, meta)


def seen(box: tuple[int, int, int, int]) -> tuple[float, float, float, float]:
    """Where a box of the photographs is in the input: 2/3 of the size (the height 42 of 64), less 4 and 9 pixels."""
    left, top, right, bottom = box
    return left * 32 / WIDTH - 4, top * 42 / HEIGHT - 9, right * 32 / WIDTH - 4, bottom * 42 / HEIGHT - 9


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder of noise, each image with the same box."""
    lines = ["file,x_min,y_min,x_max,y_max"]
    left, top, right, bottom = BOX
    generator = np.random.default_rng(0)
    for split, number in (("train", 1), ("val", 7)):
        for label in ("ant", "bee"):
            for i in range(number):
                file = tmp_path / "photos" / split / label / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(generator.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(file)
                lines.append(f"{split}/{label}/{i}.png,{left},{top},{right - 1},{bottom - 1}")
    (tmp_path / "photos" / "boxes.csv").write_text("\n".join(lines))
    return tmp_path / "photos"


@pytest.mark.slow
def test_a_rectangle_on_the_box_of_a_resized_and_cropped_photograph(photos: Path, tmp_path: Path) -> None:
    right, wrong, plain = (
        checkpoint(tmp_path / label, name, classes=2, crop_pct=CROP)
        for label, name in (("right", "cram_resnet_tiny"), ("wrong", "cram_resnet_tiny"), ("plain", "conv_resnet_tiny"))
    )
    point(right, seen(BOX))
    point(wrong, (1, 1, 5, 5))
    out = tmp_path / "deep" / "scores.json"
    result = run(
        ScoreConfig(
            checkpoints=[right, wrong, plain], data=str(photos), split="val", out=str(out), batch_size=5, **COMMON
        )
    )
    assert json.loads(out.read_text()) == json.loads(json.dumps(result))
    assert (result["images"], result["without_box"], result["bad_images"]) == (14, 0, [])
    found = {Path(network["checkpoint"]).name: network for network in result["networks"]}
    scores = {name: {key: value["mean"] for key, value in one["scores"].items()} for name, one in found.items()}
    assert scores["right"]["rectangle_iou"] == pytest.approx(1, abs=1e-4)
    assert scores["right"]["pointing"] == 1
    assert scores["right"]["max_box_acc_0.7"] == 1
    assert scores["wrong"]["rectangle_iou"] == scores["wrong"]["pointing"] == scores["wrong"]["max_box_acc_0.3"] == 0
    left, top, right_, bottom = seen(BOX)
    assert result["baselines"]["uniform"]["energy"]["mean"] == pytest.approx((right_ - left) * (bottom - top) / SIZE**2)
    assert scores["right"]["energy"] > result["baselines"]["uniform"]["energy"]["mean"] > scores["wrong"]["energy"]
    assert result["baselines"]["centre"]["pointing"]["mean"] == 1  # the box is there
    assert found["wrong"]["differences"]["pointing"] == {
        **found["wrong"]["scores"]["pointing"],
        "mean": -1,
        "low": -1,
        "high": -1,
    }
    assert set(found["wrong"]["differences"]) == set(found["wrong"]["scores"])
    assert (found["plain"]["kind"], "rectangle_iou" in scores["plain"]) == ("GradCAM", False)
    assert (found["right"]["module"], found["right"]["kind"]) == ("layer3.attention", "RectangularAttention2d")


@pytest.mark.slow
def test_the_figures_are_those_of_the_functions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = checkpoint(tmp_path / "gsa", "gsa_resnet_tiny", img_size=SIZE)
    options: dict[str, Any] = {"data_options": DIGITS, "images": 11, "faithful_images": 4, "seed": 5, **COMMON}
    result = run(ScoreConfig(checkpoints=[saved], **options))
    output = capsys.readouterr()
    assert output.out.startswith("11 test images of digits at 24×24; %, 95% intervals over images\n")
    assert output.err == ""
    again = run(ScoreConfig(checkpoints=[saved], batch_size=3, workers=1, **options))
    assert close(again, result)

    model, meta = load_network(saved)
    data = open_data("digits", options=DIGITS)
    transform = make_transform(data.transform.replace(mean=meta.mean, std=meta.std, crop_pct=1.0), training=False)
    chosen = [0, 3, 6, 9, 12, 14, 17, 20, 23, 26, 29]
    images = torch.stack([transform(data.test[index][0]) for index in chosen])
    maps = saliency(model, images).map.double().numpy()
    inside = []
    for map_, index in zip(maps, chosen, strict=True):
        left, top, right, bottom = data.test.boxes(index)
        inside.append(map_[top:bottom, left:right].sum() / map_.sum())
    (network,) = result["networks"]
    assert network["scores"]["energy"]["mean"] == pytest.approx(np.mean(inside))
    right = [model(image[None]).argmax().item() == index % 10 for image, index in zip(images, chosen, strict=True)]
    assert network["scores"]["top1"]["mean"] == pytest.approx(np.mean(right))
    some = [0, 3, 7, 10]
    area = deletion(model, images[some], maps[some], steps=4, fill="mean", seed=5).area.mean()
    assert network["faithfulness"]["deletion map"]["mean"] == pytest.approx(area, rel=1e-5)
    own, other, difference = (
        network["faithfulness"][f"insertion {name}"]["mean"] for name in ("map", "random", "map - random")
    )
    assert difference == pytest.approx(own - other)
    assert result["settings"]["seed"] == 5


def close(ours: Any, theirs: Any) -> bool:
    """Compare results of other batches, which differ by rounding."""
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(close(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(close, ours, theirs))
    return ours == (pytest.approx(theirs, rel=1e-4, abs=1e-6) if isinstance(theirs, float) else theirs)


@pytest.mark.slow
def test_images_without_a_box_in_view_or_that_cannot_be_read_are_counted(photos: Path, tmp_path: Path) -> None:
    saved = checkpoint(tmp_path / "cram", "cram_resnet_tiny", classes=2, crop_pct=CROP)
    point(saved, seen(BOX))
    lines = (photos / "boxes.csv").read_text().split("\n")
    lines = [line if "val/ant/2" not in line else "val/ant/2.png,0,0,3,3" for line in lines]  # cropped away
    (photos / "boxes.csv").write_text("\n".join(lines))
    (photos / "val" / "bee" / "4.png").write_bytes(b"no image")
    options: dict[str, Any] = {
        "checkpoints": [saved],
        "data": str(photos),
        "split": "val",
        "faithful_images": 0,
        **COMMON,
    }
    with pytest.raises(ValueError, match=r"could not read 1 image\(s\), and max_bad_images allows 0"):
        run(ScoreConfig(**options))
    result = run(ScoreConfig(max_bad_images=1, **options))
    assert (result["images"], result["without_box"], len(result["bad_images"])) == (13, 1, 1)
    (network,) = result["networks"]
    assert network["scores"]["rectangle_iou"]["images"] == 12
    assert network["scores"]["rectangle_iou"]["mean"] == pytest.approx(1, abs=1e-4)
    assert network["faithfulness"] == {}


@pytest.mark.slow
def test_on_the_command_line(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = checkpoint(tmp_path / "cram", "cram_resnet_tiny", classes=2, crop_pct=CROP)
    boxes = (photos / "boxes.csv").rename(tmp_path / "elsewhere.csv")
    arguments = ["score", saved, f"--data={photos}", "--split=val", "--device=cpu", "--thresholds=5", "--steps=2"]
    assert main([*arguments, f"--boxes={boxes}", f"--out={tmp_path / 'scores.json'}"]) == 0
    output = capsys.readouterr().out
    assert "cram_resnet_tiny: layer3.attention (RectangularAttention2d)" in output
    for word in (
        "pointing",
        "rectangle's IoU",
        "MaxBoxAcc 0.7",
        "centre",
        "uniform",
        "random",
        "deletion",
        "insertion",
    ):
        assert word in output
    result = json.loads((tmp_path / "scores.json").read_text())
    assert result["settings"]["boxes"] == str(boxes)
    assert (result["settings"]["seed"], result["settings"]["data_seed"]) == (0, 0)
    assert main(arguments) == 2
    assert "has no boxes, or not for all of its val images" in capsys.readouterr().err


@pytest.mark.slow
def test_what_does_not_fit_is_refused(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = checkpoint(tmp_path / "digits", "cram_resnet_tiny")
    insects = checkpoint(tmp_path / "insects", "cram_resnet_tiny", classes=2)
    cropped = checkpoint(tmp_path / "cropped", "cram_resnet_tiny", classes=2, crop_pct=CROP)
    plain = checkpoint(tmp_path / "plain", "conv_resnet_tiny", classes=2)
    model, meta = load_network(insects)
    gray = tmp_path / "gray" / "model.safetensors"
    gray.parent.mkdir()
    save_network(gray, model, dataclasses.replace(meta, intensity_range=(0.0, 4095.0)))
    (tmp_path / "bad.csv").write_text("file,x_min,y_min,x_max,y_max\nval/ant/0.png,1,2,3\n")
    lines = (photos / "boxes.csv").read_text().replace("val/bee/3.png,15,23,26", "val/bee/3.png,15,23,48")
    (tmp_path / "outside.csv").write_text(lines)
    folder: dict[str, Any] = {"data": str(photos), "split": "val"}
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "no checkpoint given; name some"),
        ({"checkpoints": [str(tmp_path / "none")]}, "there is no checkpoint"),
        ({"checkpoints": [insects]}, r"was trained for 2 classes \(ant, bee\); digits has 10 classes"),
        (
            {"checkpoints": [insects, cropped], **folder},
            r"cropped was trained with crop_pct=0\.75, .*insects with 1\.0",
        ),
        ({"checkpoints": [insects, str(gray)], **folder}, r"gray\S* was trained with intensity_range=.*4095"),
        ({"checkpoints": [insects], "data": str(photos)}, "has no labelled test images; use its 'val' split"),
        ({"checkpoints": [insects], **folder, "boxes": str(tmp_path / "bad.csv")}, "bad.csv, line 2: expected file"),
        (
            {"checkpoints": [insects], **folder, "boxes": str(tmp_path / "outside.csv")},
            "line 14: x_max=48, y_max=42 lies",
        ),
        ({"checkpoints": [digits], "boxes": str(tmp_path / "bad.csv")}, "boxes are for folders of images"),
        (
            {"checkpoints": [plain], **folder, "method": "attention"},
            "plain holds conv_resnet_tiny, which has no attention",
        ),
        ({"checkpoints": [digits], "method": "cam"}, "method must be one of auto, attention, gradcam"),
        ({"checkpoints": [digits], "images": 0}, "images must be at least 1"),
        ({"checkpoints": [digits], "faithful_images": -1}, "faithful_images must be at least 0"),
        ({"checkpoints": [digits], "confidence": 1.0}, "confidence must be below 1"),
        ({"checkpoints": [digits], "deletion_fill": "grey"}, "deletion_fill must be one of mean, blur"),
        ({"checkpoints": [digits], "steps": SIZE**2 + 1}, "steps must be at most the 576 pixels of an image; got 577"),
        ({"checkpoints": [digits], "out": str(tmp_path)}, "is a folder; name a file in it"),
    ]
    monkeypatch.setattr("foveate.trained.scoring.score_network", lambda *_, **__: pytest.fail("it has begun"))
    for changes, message in cases:
        options = {"data_options": {} if "data" in changes else {**DIGITS, "size": SIZE}, "device": "cpu", **changes}
        with pytest.raises(ValueError, match=message):
            run(ScoreConfig(**options))


@pytest.mark.slow
def test_sizes_are_the_same_however_they_were_saved() -> None:
    """In a checkpoint the size is a list; of a network that was built it is a tuple."""
    loaded, built = foveate.load("cram_resnet_tiny.digits"), build("conv_resnet_tiny", num_classes=10, img_size=32)
    built = dataclasses.replace(built, meta=dataclasses.replace(built.meta, classes=loaded.classes, crop_pct=1.0))
    data = open_data("digits", options={**DIGITS, "size": 32})
    found = score_networks([loaded, built], data, ScoreSettings(images=3, faithful_images=0))
    assert [network["model"] for network in found["networks"]] == ["cram_resnet_tiny", "conv_resnet_tiny"]
