"""An image that is plainly unlike those of a training is said to be, and no other."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from foveate.cli import main
from foveate.data import ClutteredDigits, TransformConfig, make_transform, open_data
from foveate.data.appearance import appearance_of
from foveate.io import NetworkMeta, load_network
from foveate.io.appearance import FEATURES, FEWEST, appearance, range_of, unlike
from foveate.models import shipped
from foveate.training import TrainConfig
from foveate.training import train_network as run


def prepared(meta: NetworkMeta) -> Any:
    names = ("img_size", "mean", "std", "crop_pct", "interpolation")
    return make_transform(TransformConfig().replace(**{name: getattr(meta, name) for name in names}), training=False)


def photographs(number: int) -> Iterator[Image.Image]:
    """Cut pieces of all sizes out of the photographs that come with scikit-learn."""
    rng = np.random.default_rng(5)
    for index in range(number):
        pixels = load_sample_images().images[index % 2]
        side = int(rng.integers(100, 427))
        top, left = (int(rng.integers(0, size - side + 1)) for size in pixels.shape[:2])
        yield Image.fromarray(pixels[top : top + side, left : left + side])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cram_resnet_tiny.digits", "conv_resnet_tiny.digits"])
def test_no_digits_are_unlike_digits_and_photographs_are(name: str) -> None:
    _, meta = load_network(name)
    prepare = prepared(meta)
    digits = ClutteredDigits("test", length=500, seed=3)
    assert not [index for index in range(500) if meta.unlike(prepare(digits.sample(index).image))]
    seen = [meta.unlike(prepare(image)) for image in photographs(60)]
    assert all(seen)
    grey = [meta.unlike(prepare(image.convert("L").convert("RGB"))) for image in photographs(60)]
    assert all(grey)


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped("photographs"))
def test_no_photographs_are_unlike_photographs(name: str) -> None:
    _, meta = load_network(name)
    prepare = prepared(meta)
    assert meta.appearance is not None
    assert not [image for image in photographs(60) if meta.unlike(prepare(image))]
    assert not [image for image in photographs(20) if meta.unlike(prepare(image.convert("L").convert("RGB")))]


def test_what_is_measured_is_what_is_said() -> None:
    image = np.random.default_rng(0).random((3, 7, 11))
    found = appearance(torch.from_numpy(image))
    grey = [float(np.mean(pixel)) for pixel in image.reshape(3, -1).T]
    spread = [max(pixel) - min(pixel) for pixel in image.reshape(3, -1).T]
    wanted = {
        "saturation": sum(spread) / 77,
        "dark": sum(value < 0.1 for value in grey) / 77,
        "light": sum(value > 0.9 for value in grey) / 77,
        "contrast": (sum((value - sum(grey) / 77) ** 2 for value in grey) / 77) ** 0.5,
    }
    assert found == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("size", [(30, 60), (60, 30)])
def test_padding_is_none_of_what_images_look_like(size: tuple[int, int]) -> None:
    random = np.random.default_rng(1)
    images = [Image.fromarray(random.integers(140, 250, (*size, 3), np.uint8)) for _ in range(FEWEST)]
    data = dataclasses.replace(
        open_data("digits", options={"size": 48}),
        train=[(image, 0) for image in images],
        transform=TransformConfig(img_size=48, fit="pad", crop="none", crop_pct=1.0),
    )
    found = appearance_of(data)
    assert found is not None
    assert found["dark"] == [0, 0]
    whole = make_transform(data.transform.replace(mean=(0.0,) * 3, std=(1.0,) * 3), training=False)(images[0])
    assert appearance(whole)["dark"] == pytest.approx(0.5)


def test_plainly_is_beyond_half_of_the_range() -> None:
    flat = torch.full((3, 5, 7), 0.5)
    coloured = flat + torch.tensor([0.1, 0.0, -0.1]).view(3, 1, 1)  # saturation 0.2
    assert unlike(coloured, {"saturation": [0.0, 0.13]}) == [FEATURES["saturation"]]
    assert unlike(coloured, {"saturation": [0.0, 0.14]}) == []
    assert unlike(coloured, {"saturation": [0.3, 0.45], "something of a later version": [5, 6]}) == [
        FEATURES["saturation"]
    ]
    assert unlike(flat, {"saturation": [0.0, 0.0]}) == []
    assert range_of([flat] * (FEWEST - 1)) is None
    assert range_of([flat] * (FEWEST - 1) + [coloured]) == {
        "saturation": pytest.approx([0, 0.2]), "dark": [0, 0], "light": [0, 0], "contrast": pytest.approx([0, 0]),
    }  # fmt: skip


@pytest.mark.parametrize(
    "value", [{"dark": [0.1]}, {"dark": [0.1, "x"]}, {"dark": None}, [1], {"dark": [0, float("nan")]}]
)
def test_a_description_that_makes_no_sense(value: Any) -> None:
    _, meta = load_network("cram_resnet_tiny.digits")
    with pytest.raises(ValueError, match="appearance"):
        NetworkMeta(**{**vars(meta), "appearance": value})


@pytest.mark.slow
def test_a_training_notes_it_and_explaining_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digits = {"size": 16, "clutter": 1, "length": 64, "val_length": 8, "test_length": 5}
    config = {"model": "cram_resnet_tiny", "data_options": digits, "epochs": 1, "batch_size": 16, "device": "cpu"}
    run(TrainConfig(**config, out=str(tmp_path / "run")), verbose=False)
    for file in ("model.safetensors", "last.ckpt"):
        _, meta = load_network(tmp_path / "run" / file)
        assert meta.appearance is not None
        assert meta.appearance["saturation"] == [0, 0]
    given = tmp_path / "given"
    given.mkdir()
    next(photographs(1)).save(given / "photo.png")
    ClutteredDigits("test", size=16, clutter=1, length=3).sample(0).image.save(given / "digit.png")
    argv = ["explain", str(given), f"--checkpoint={tmp_path}/run", "--device=cpu"]
    assert main([*argv, "--model=cram_resnet_tiny.photographs", "--pretrained", f"--out={tmp_path}/out"]) == 0
    found = json.loads((tmp_path / "out" / "explanation.json").read_text())
    said = {
        (Path(image["file"]).name, network["network"].partition(".")[2]): network["unlike_training"]
        for image in found["images"]
        for network in image["networks"]
    }
    assert FEATURES["saturation"] in said.pop(("photo.png", ""))
    assert not any(said.values())
    assert len(said) == 3
    lines = capsys.readouterr().out.splitlines()
    assert ["unlike" in line for line in lines] == [False, True, True]  # the digit, the photograph, in the end how many
