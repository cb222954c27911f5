"""What `foveate explain` refuses, leaves out and does not write over."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from foveate.cli import main
from foveate.commands.explain import ExplainConfig, run


def numbers_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "explanation.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_images_that_cannot_be_read_are_named_and_counted(
    networks: dict[str, str], photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photographs / "digit.gif").unlink()
    (photographs / "a-text.jpg").write_text("this is no image")
    (photographs / "b-empty.png").touch()
    (photographs / "c-short.jpg").write_bytes((photographs / "person" / "hopper.jpg").read_bytes()[:3000])
    argv = ["explain", str(photographs), "--checkpoint", networks["cram_resnet_tiny"], "--out", str(tmp_path / "out")]
    assert main([*argv, "--query=[100,100]"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"1/5  cannot read .*a-text\.jpg: this is not an image in a format that is read", said)
    assert "b-empty.png: the file is empty" in said
    assert "2 images explained; 3 could not be read" in said
    result = numbers_of(tmp_path / "out")
    assert [Path(bad["path"]).name for bad in result["bad_images"]] == ["a-text.jpg", "b-empty.png", "c-short.jpg"]
    assert len(result["images"]) == 2


@pytest.mark.slow
def test_a_bomb_is_refused(networks: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bomb = tmp_path / "bomb.png"
    Image.new("1", (20_000, 10_000)).save(bomb)
    assert main(["explain", str(bomb), "--checkpoint", networks["cram_resnet_tiny"], f"--out={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert "images: none of the 1 could be read" in error
    assert "200000000 pixels" in error


def test_an_image_too_long_to_be_resized_is_refused(networks: dict[str, str], tmp_path: Path) -> None:
    for name, width in (("long.png", 3_000), ("longer.png", 60_000)):
        Image.new("RGB", (width, 1)).save(tmp_path / name)
    images = [str(tmp_path / name) for name in ("long.png", "longer.png")]
    result = run(ExplainConfig(images=images, checkpoint=[networks["conv_resnet_tiny"]], out=str(tmp_path / "out")))
    assert [Path(image["file"]).name for image in result["images"]] == ["long.png"]
    assert result["bad_images"][0]["reason"].startswith("60000×1 pixels")


@pytest.mark.slow
def test_it_writes_over_its_own_files_only(networks: dict[str, str], photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    config = ExplainConfig(images=[str(photographs)], checkpoint=[networks["cram_resnet_tiny"]], out=str(out))
    run(config)
    before = {path.name: path.read_bytes() for path in out.glob("*.png")}
    run(config)
    assert {path.name: path.read_bytes() for path in out.glob("*.png")} == before
    for name, content in {
        "sheet-1.png": b"mine",
        "explanation.json": b"[]",
        "digit--cram_resnet_tiny.png": None,
    }.items():
        ours = (out / name).read_bytes()
        if content is None:
            Image.new("RGB", (3, 3)).save(out / name)
        else:
            (out / name).write_bytes(content)
        theirs = (out / name).read_bytes()
        with pytest.raises(ValueError, match=f"out: .*{name} was not written by `foveate explain`"):
            run(config)
        assert (out / name).read_bytes() == theirs
        (out / name).write_bytes(ours)


def fails(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(argv) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "Traceback" not in output.err
    return output.err


@pytest.mark.slow
def test_bad_input_is_named_by_its_option(
    networks: dict[str, str],
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    image, cram = str(photographs / "person" / "hopper.jpg"), ["--checkpoint", networks["cram_resnet_tiny"]]
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    for argv, message in (
        ([], "images: none given"),
        ([image], "checkpoint: no network given"),
        (["nowhere.jpg", *cram], "images: there is no file or folder nowhere.jpg"),
        (["empty", *cram], "images: there is no image in empty"),
        ([image, "--checkpoint=nowhere"], "there is no checkpoint nowhere"),
        ([image, "--model=resnet5"], "unknown model 'resnet5'"),
        ([image, *cram, "--method=cam"], "--method: Expected a Literal"),
        ([image, *cram, "--method=attention", "--model=test_resnet"], "method: test_resnet has no attention module"),
        ([image, *cram, "--model=test_vit", "--img_size=64"], "method: test_vit cannot be explained: 'blocks."),
        ([image, *cram, "--layers=layer4.attention"], "did you mean 'layer3.attention'"),
        ([image, *cram, "--query=5"], "--query"),
        ([image, *cram, "--query=[281,0]"], "query: [281, 0] lies outside of "),
        ([image, *cram, "--query=[0,0]"], "query: [0, 0] of "),
        ([image, *cram, "--query=[-1,0]"], "query must be at least 0; got -1"),
        ([image, *cram, "--max_images=0"], "max_images must be at least 1"),
        ([image, *cram, "--out=file"], "cannot write to the output folder file"),
        ([image, *cram, "--device=tpu"], "device must be one of auto, cpu, cuda"),
        ([image, *cram, "--imagesize=3"], "unknown option --imagesize"),
    ):
        assert message in fails(["explain", *argv], capsys), argv
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_pictures_of_layers_that_are_not_its_own_are_seen_before_anything_is_computed(
    networks: dict[str, str], photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = sorted(photographs.rglob("*.png"))[0]
    options = [str(image), f"--checkpoint={networks['cram_resnet_tiny']}", f"--out={tmp_path / 'out'}", "--overlays"]
    assert main(["explain", *options]) == 0
    (layer,) = (tmp_path / "out").glob("*--*--*.png")
    for file in (tmp_path / "out").iterdir():
        if file != layer:
            file.unlink()
    Image.new("RGB", (3, 3)).save(layer)
    before = layer.read_bytes()
    capsys.readouterr()
    assert main(["explain", *options]) == 2
    assert layer.name in capsys.readouterr().err
    assert [file.read_bytes() for file in (tmp_path / "out").iterdir()] == [before]


@pytest.mark.parametrize(
    ("name", "value"),
    [("img_size", 320), ("num_classes", 3), ("pretrained", True), ("seed", 2), ("model_args", {"a": 1})],
)
def test_settings_of_networks_that_are_not_named_are_refused(name: str, value: Any) -> None:
    config = ExplainConfig(images=["photo.jpg"], checkpoint=["runs/mine"], **{name: value})
    with pytest.raises(ValueError, match=f"^{name} is for the networks in --model"):
        config.check()
    config.model = ["resnet18"]
    config.check()
