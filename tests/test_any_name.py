"""Names of files that are not UTF-8 or very long, and terminals that cannot show all of what is printed."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from foveate.cli import main
from foveate.explain.lettering import font, wrapped
from foveate.io import load_network
from foveate.io.files import read_json, write_bytes, write_json

TINY = ["--batch_size=8", "--device=cpu", "--epochs=1"]
DIGITS = ["--data_options", "{size: 16, clutter: 1, length: 24, val_length: 8, test_length: 11}"]


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder of images whose own name, classes and files are in Latin-1, one of them no image."""
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    for split in ("train", "val"):
        for label, colour in ((b"bl\xe9u", (30, 40, 200)), (b"r\xf6t", (200, 40, 30))):
            folder = root / split / os.fsdecode(label)
            folder.mkdir(parents=True)
            for index in range(9):
                picture = Image.new("RGB", (19, 17), tuple(value + index for value in colour))
                with (folder / os.fsdecode(b"im\xe9-%d.png" % index)).open("wb") as file:
                    picture.save(file, "PNG")
            (folder / os.fsdecode(b"bad\xe9.png")).write_text("words")
    return root


@pytest.mark.slow
def test_names_that_are_not_utf8(photographs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = photographs.parent / os.fsdecode(b"r\xfcn")
    train = ["train", "cram_resnet_tiny", f"--data={photographs}", "--max_bad_images=9", "--img_size=32"]
    assert main([*train, *TINY, f"--out={out}"]) == 0
    classes = ["bl\udce9u", "r\udcf6t"]
    assert load_network(out)[1].classes == classes
    result = json.loads((out / "result.json").read_text(encoding="utf-8"))  # is UTF-8 all through
    assert result["config"]["data"] == str(photographs)
    assert {line.partition(": ")[0] for line in result["bad_images"]} == {
        str(photographs / split / label / "bad\udce9.png") for split in ("train", "val") for label in classes
    }
    again = photographs.parent / "again"
    assert main(["train", "--config", str(out / "config.yaml"), f"--out={again}"]) == 0
    assert yaml.safe_load((again / "config.yaml").read_text(encoding="utf-8"))["data"] == str(photographs)

    shown = photographs.parent / os.fsdecode(b"sh\xf6wn")
    assert main(["explain", str(photographs / "val"), f"--checkpoint={out}", f"--out={shown}", "--device=cpu"]) == 0
    found = read_json(shown / "explanation.json")
    assert len(found["images"]) == 18
    assert len(found["bad_images"]) == 2
    assert {image["label"] for image in found["images"]} == set(classes)
    assert all((shown / network["picture"]).is_file() for image in found["images"] for network in image["networks"])
    assert main(["export", str(out), f"--out={shown}", "--name=x"]) == 0
    assert load_network(shown / "x.safetensors")[1].classes == classes
    assert "bl\\udce9u" in capsys.readouterr().out


def test_json_escapes_what_is_not_utf8(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"caf\udce9": ["\udcff", "Δ"]})
    assert (tmp_path / "x.json").read_bytes().decode("utf-8").count("\\udc") == 2
    assert read_json(tmp_path / "x.json") == {"caf\udce9": ["\udcff", "Δ"]}


def test_any_text_can_be_drawn() -> None:
    assert wrapped("caf\udce9 Δ", font(11), 1000) == "caf\\udce9 Δ"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["l" * 240 + ".png", "ü" * 120 + ".png"])
def test_a_very_long_name_hinders_nothing(name: str, tmp_path: Path) -> None:
    given, out = tmp_path / "given", tmp_path / "out"
    given.mkdir()
    for file in (name, name[:-5] + "-.png", "short.png"):
        Image.new("RGB", (40, 30), (90, 20, 20)).save(given / file)
    (given / ("w" * 240 + ".png")).write_text("words")
    argv = ["explain", str(given), "--model=cram_resnet_tiny", "--model=test_resnet", f"--out={out}", "--overlays"]
    assert main([*argv, "--num_classes=3", "--img_size=32", "--device=cpu"]) == 0
    found = read_json(out / "explanation.json")
    assert sorted(Path(image["file"]).name for image in found["images"]) == sorted(
        [name, name[:-5] + "-.png", "short.png"]
    )
    pictures = [network["picture"] for image in found["images"] for network in image["networks"]]
    assert len(set(pictures)) == 6
    assert all((out / picture).is_file() and len(os.fsencode(picture)) < 143 for picture in pictures)
    assert [Path(bad["path"]).name for bad in found["bad_images"]] == ["w" * 240 + ".png"]


def test_a_file_may_have_the_longest_name_that_there_is(tmp_path: Path) -> None:
    for name in ("n" * 255, "é" * 127):
        write_bytes(tmp_path / name, b"content")
        assert (tmp_path / name).read_bytes() == b"content"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_the_exit_code_is_that_of_the_work_whatever_can_be_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, out = {}, tmp_path / "out"
    for encoding in ("ascii", "cp1252"):  # what has less trains, the other one is told what was reused
        printed = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        errors = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", printed)
        monkeypatch.setattr(sys, "stderr", errors)
        argv = ["compare", "cram_resnet_tiny", "positionwise_resnet_tiny", "--seeds=1", "--jobs=1", *DIGITS, *TINY]
        code = main([*argv, f"--out={out}"])
        assert main(["train", "x×", f"--out={out}/x"]) == 2
        monkeypatch.undo()
        printed.flush()
        errors.flush()
        assert code == 0, errors.buffer.getvalue()  # type: ignore[attr-defined]
        written[encoding] = printed.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
        assert "foveate: error: unknown model" in errors.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
        assert (out / "compare.md").is_file()
    assert "10? bytes" in written["cp1252"]  # a superscript, which it lacks
    assert "?" not in written["cp1252"].replace("10? bytes", "").partition("saved in")[2]


@pytest.mark.slow
def test_closed_streams(tmp_path: Path) -> None:
    command = f"{sys.executable} -m foveate models 'no_such*' >&- 2>&-"
    assert subprocess.run(command, shell=True, capture_output=True, cwd=tmp_path, check=False).returncode == 2


def test_help_in_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    for argv in (["--help"], ["explain", "--help"], ["cost", "test_resnet", "--img_size=32"]):
        printed = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        monkeypatch.setattr(sys, "stdout", printed)
        try:
            code = main(argv)
        except SystemExit as stopped:
            code = stopped.code
        printed.flush()
        assert code == 0
        assert printed.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
