"""``foveate explain`` on real images: pictures and numbers that agree with the network, and bad input that is named."""

from __future__ import annotations

import json
import math
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.commands.explained import CLASSES

from foveate.cli import main
from foveate.commands.explain import ExplainConfig, run
from foveate.data import ClutteredDigits, TransformConfig, make_transform, read_image
from foveate.data.given import find_images, slugs
from foveate.io import load_network


def pictures(out: Path) -> list[str]:
    return sorted(path.name for path in out.glob("*.png"))


def numbers_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "explanation.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_whole_folders_and_several_networks(networks: dict[str, str], photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(ExplainConfig(images=[str(photographs)], checkpoint=list(networks.values()), out=str(out)))
    assert json.loads(json.dumps(result)) == numbers_of(out)
    expected = [f"{image}--{name}.png" for image in ("digit", "hopper", "hopper-2") for name in networks]
    assert pictures(out) == sorted([*expected, "sheet-1.png"])
    assert [Path(image["file"]).name for image in result["images"]] == ["digit.gif", "hopper.jpg", "hopper.png"]
    assert [image["label"] for image in result["images"]] == [None, "person", "tree"]
    assert [network["model"] for network in result["networks"]] == list(networks)
    sheet = np.asarray(Image.open(out / "sheet-1.png"))
    assert (np.ptp(sheet.reshape(-1, 3), axis=0) > 200).all()
    for image in result["images"]:
        for network in image["networks"]:
            with Image.open(out / network["picture"]) as picture:
                assert picture.info["Software"].startswith("foveate ")
                assert Path(image["file"]).name in picture.info["Title"]


@pytest.mark.slow
def test_the_numbers_are_those_of_the_network(networks: dict[str, str], photographs: Path, tmp_path: Path) -> None:
    """Against the network itself, asked by hand, and the rectangle's corners against trigonometry."""
    photograph = photographs / "person" / "hopper.jpg"
    run(ExplainConfig(images=[str(photograph)], checkpoint=[networks["cram_resnet_tiny"]], out=str(tmp_path / "out")))
    (image,) = numbers_of(tmp_path / "out")["images"]
    (found,) = image["networks"]
    assert image["size"] == {"height": 281, "width": 240}

    model, meta = load_network(networks["cram_resnet_tiny"])
    transform = TransformConfig(
        img_size=(48, 64), mean=meta.mean, std=meta.std, crop_pct=0.875, interpolation="bicubic"
    )
    tensor = make_transform(transform, training=False)(read_image(photograph))[None]
    seen: list[torch.Tensor] = []
    module = model.get_submodule("layer3.attention")
    module.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    probabilities = model(tensor).softmax(1)[0]
    order = probabilities.argsort(descending=True).tolist()
    assert [guess["class"] for guess in found["predictions"]] == [CLASSES[label] for label in order]
    for guess, label in zip(found["predictions"], order, strict=True):
        assert guess["probability"] == pytest.approx(probabilities[label].item(), abs=1e-6)
    assert found["correct"] == (CLASSES[order[0]] == "person")

    (layer,) = found["layers"]
    cx, cy, sx, sy, angle = module.rectangle(seen[0])[0].tolist()
    assert list(layer["rectangle"]["numbers"].values()) == pytest.approx([cx, cy, sx, sy, angle], abs=1e-5)
    # 240×281 is resized so that it covers ⌊48/0.875⌋ × ⌊64/0.875⌋ = 54 × 73: to 85 × 73, of which 48 × 64 are kept.
    left, top = round((73 - 64) / 2), round((85 - 48) / 2)
    for (x, y), (u, v) in zip(
        layer["rectangle"]["corners"]["image"], ((-1, -1), (1, -1), (1, 1), (-1, 1)), strict=True
    ):
        across = cx + u * sx * math.cos(angle) - v * sy * math.sin(angle)
        down = cy + u * sx * math.sin(angle) + v * sy * math.cos(angle)
        assert x == pytest.approx(((across + 1) * 32 + left) * 240 / 73, abs=1e-4 * 240)
        assert y == pytest.approx(((down + 1) * 24 + top) * 281 / 85, abs=1e-4 * 281)


@pytest.mark.slow
def test_an_image_on_its_side_is_seen_as_people_see_it(
    networks: dict[str, str], photographs: Path, tmp_path: Path
) -> None:
    run(ExplainConfig(images=[str(photographs)], checkpoint=[networks["cram_resnet_tiny"]], out=str(tmp_path / "out")))
    _, upright, turned = numbers_of(tmp_path / "out")["images"]
    assert upright["size"] == turned["size"]
    ours, theirs = (image["networks"][0]["layers"][0]["rectangle"]["corners"]["image"] for image in (upright, turned))
    np.testing.assert_allclose(ours, theirs, atol=2)  # a JPEG and a PNG of the same pixels


@pytest.mark.slow
def test_pixels_attend(networks: dict[str, str], photographs: Path, tmp_path: Path) -> None:
    """A pixel of the image is carried to the input of each network; ExpAtt's radius is in pixels of the image too."""
    photograph = str(photographs / "person" / "hopper.jpg")
    names = ("gsa_resnet_tiny", "expatt_resnet_tiny")
    checkpoints = [networks[name] for name in names]
    run(ExplainConfig(images=[photograph], checkpoint=checkpoints, query=(150, 90), out=str(tmp_path / "out")))
    gsa, expatt = numbers_of(tmp_path / "out")["images"][0]["networks"]
    # 240×281 becomes 36 × 42 for 32 × 32, whose middle begins at (2, 5).
    expected = [math.floor(150.5 * 42 / 281 - 5), math.floor(90.5 * 36 / 240 - 2)]
    assert all(layer["query"]["input"] == expected for layer in (*gsa["layers"], *expatt["layers"]))
    for layer in expatt["layers"]:
        x, y = layer["radius"]["image"]
        assert x == pytest.approx(layer["radius"]["input"][0] * 240 / 36)
        assert y == pytest.approx(layer["radius"]["input"][1] * 281 / 42)


@pytest.mark.slow
def test_layers_are_chosen(networks: dict[str, str], photographs: Path, tmp_path: Path) -> None:
    def shown(out: str, **settings: Any) -> list[str]:
        photograph, checkpoint = str(photographs / "digit.gif"), networks["gsa_resnet_tiny"]
        run(ExplainConfig(images=[photograph], checkpoint=[checkpoint], out=str(tmp_path / out), **settings))
        return [layer["name"] for layer in numbers_of(tmp_path / out)["images"][0]["networks"][0]["layers"]]

    every = shown("all", layers=["all"])
    assert shown("usual") == [name for name in every if name != every[0]]  # the first has the size of the second
    assert len(every) == 4
    assert shown("named", layers=[every[2]]) == [every[2]]
    assert shown("gradcam", method="gradcam") == ["layer4"]
    assert shown("other", method="gradcam", layers=["layer2", "layer1"]) == ["layer2", "layer1"]


@pytest.mark.slow
def test_overlays_have_the_size_of_the_image(networks: dict[str, str], photographs: Path, tmp_path: Path) -> None:
    photograph, out = str(photographs / "person" / "hopper.jpg"), tmp_path / "out"
    run(ExplainConfig(images=[photograph], checkpoint=[networks["cram_resnet_tiny"]], overlays=True, out=str(out)))
    layer = numbers_of(out)["images"][0]["networks"][0]["layers"][0]
    assert layer["picture"] == "hopper--cram_resnet_tiny--layer3.attention.png"
    with Image.open(out / layer["picture"]) as picture:
        assert picture.size == (240, 281)


@pytest.mark.slow
def test_untrained_networks_by_name(photographs: Path, tmp_path: Path) -> None:
    argv = ["explain", str(photographs / "digit.gif"), "--model", "cram_resnet_tiny", "--model=test_resnet"]
    argv += ["--num_classes", "4", "--img_size=32", "--out", str(tmp_path / "out")]
    assert main(argv) == 0
    result = numbers_of(tmp_path / "out")
    assert [network["label"] for network in result["networks"]] == ["cram_resnet_tiny", "test_resnet"]
    assert all(network["weights"] == "untrained, seed 0" for network in result["networks"])
    kinds = [network["layers"][0]["kind"] for network in result["images"][0]["networks"]]
    assert kinds == ["RectangularAttention2d", "GradCAM"]


@pytest.mark.slow
def test_the_same_network_twice_is_told_apart(networks: dict[str, str], photographs: Path, tmp_path: Path) -> None:
    first = networks["cram_resnet_tiny"]
    second = shutil.copytree(first, tmp_path / "again")
    argv = ["explain", str(photographs / "digit.gif"), "--checkpoint", first, "--checkpoint", str(second)]
    assert main([*argv, f"--out={tmp_path / 'out'}"]) == 0
    assert pictures(tmp_path / "out") == [
        "digit--cram_resnet_tiny-2.png",
        "digit--cram_resnet_tiny.png",
        "sheet-1.png",
    ]
    labels = [network["label"] for network in numbers_of(tmp_path / "out")["networks"]]
    assert labels == [f"cram_resnet_tiny ({first})", f"cram_resnet_tiny ({second})"]


@pytest.mark.slow
def test_many_images_fill_several_sheets(networks: dict[str, str], tmp_path: Path) -> None:
    digits = ClutteredDigits("test", size=32, length=20)
    (tmp_path / "digits").mkdir()
    for index in range(12):
        digits[index][0].save(tmp_path / "digits" / f"{index:02}.png")
    settings: dict[str, Any] = {"images": [str(tmp_path / "digits")], "checkpoint": [networks["cram_resnet_tiny"]]}
    result = run(ExplainConfig(**settings, out=str(tmp_path / "all")))
    assert result["sheets"] == ["sheet-1.png", "sheet-2.png"]
    result = run(ExplainConfig(**settings, max_images=3, out=str(tmp_path / "some")))
    assert [Path(image["file"]).stem for image in result["images"]] == ["00", "06", "11"]


def test_names_of_results() -> None:
    assert slugs(["a b/c", "A-b-c", "ünïcode.1", "--", "x"]) == ["a-b-c", "A-b-c-2", "ünïcode.1", "image", "x"]


def test_a_folder_is_a_class_however_its_name_is_encoded(tmp_path: Path) -> None:
    folder = tmp_path / unicodedata.normalize("NFD", "Café")
    folder.mkdir()
    (folder / "1.png").touch()
    assert [image.folder for image in find_images([str(tmp_path)], None)] == [unicodedata.normalize("NFC", "Café")]


def test_folders_are_looked_through_in_order(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/1.jpg", "a/.hidden.png", "a/z/3.gif", "a/note.txt", "c.webp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_images([str(tmp_path / "b" / "2.png"), str(tmp_path)], None)
    names = [image.path.relative_to(tmp_path).as_posix() for image in found]
    assert names == ["b/2.png", "c.webp", "a/z/3.gif", "b/1.jpg"]
