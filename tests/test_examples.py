"""Every example of the README and the documentation: Python runs, commands are read by what would run them."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import timm
import torch
from PIL import Image

import foveate_cli
from foveate import cli
from foveate.io import NetworkMeta, save_network
from foveate.models.building import build_network
from foveate.models.inspection import attention_modules
from studies._command import parse_study
from tests.costs import leave_out_costs
from tests.fuzz.parts import PARTS

ROOT = Path(__file__).parents[1]
ELSEWHERE = {"docs/explain.md": "tests/explain/test_guide.py", "docs/export.md": "tests/test_examples.py"}
"""Pages whose Python is run by a test of their own."""
TRAIN = {"docs/dense.md", "docs/training.md"}
"""Pages whose Python takes seconds."""
TOOLS = {"pre-commit"}
"""Programs that `dev` installs."""


def pages() -> list[str]:
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [path.relative_to(ROOT).as_posix() for path in files]


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [body for found, body in re.findall(r"^```(\S*)[^\n]*\n(.*?)^```", text, re.M | re.S) if found == language]


def check_readme(found: dict[str, Any]) -> None:
    replaced = [f"layer4.{block}.conv2.attention" for block in range(3)]
    assert list(attention_modules(found["network"])) == ["layer3.attention", *replaced]
    assert torch.allclose(found["attention"](torch.zeros(1, 64, 14, 14)), torch.zeros(1, 64, 14, 14), atol=1e-6)
    assert found["weights"].shape == (2, 8, 196, 196)
    assert Image.open("where.png").size[0] > 0


def check_tools(found: dict[str, Any]) -> None:
    assert [tuple(x.shape[1:]) for x in found["maps"]] == [(96, 16, 24), (192, 8, 12)]
    assert found["larger"].layer1[0].conv2.feat_size == (96, 96)
    assert found["segmenter"].encoder.model.layer1[0].conv2.feat_size == (24, 32)
    for name, modules in (("segmenter", 8), ("classifier", 1), ("detector", 2), ("again", 4)):
        assert len(attention_modules(found[name])) == modules, name
    assert found["explanation"].logits is None
    assert found["explanation"].output.shape == (1, 11, 96, 128)
    weights = found["network"].state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in found["again"].state_dict().items())


CHECKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "README.md": check_readme,
    "docs/tools.md": check_tools,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which examples run, with an image; weights that would be fetched are random."""
    create = timm.create_model

    def without_downloads(name: str, pretrained: bool = False, **kwargs: Any) -> Any:
        here = name.startswith("local-dir:") or "resnet_tiny." in name
        return create(name, pretrained=pretrained and here, **kwargs)

    monkeypatch.setattr(timm, "create_model", without_downloads)
    leave_out_costs(monkeypatch)
    comparing = importlib.import_module("foveate.comparison.compare")
    monkeypatch.setattr(comparing, "cores", lambda: 1)  # processes side by side would take seconds to begin
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 50), "grey").save("photo.jpg")
    torch.manual_seed(0)
    return tmp_path


def save_run(folder: Path) -> None:
    """Write the weights of a run."""
    folder.mkdir(parents=True)
    model, kwargs = build_network("conv_resnet_tiny", num_classes=3, img_size=(32, 32))
    meta = NetworkMeta(
        model="conv_resnet_tiny",
        kwargs=kwargs,
        classes=["ant", "bee", "cat"],
        img_size=(32, 32),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        crop_pct=1.0,
        interpolation="bilinear",
    )
    save_network(folder / "model.safetensors", model, meta)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] if page in TRAIN else [])
        for page in pages()
        if blocks(page, "python") and page not in ELSEWHERE
    ],
)
def test_python_runs(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = ModuleType("example")  # which timm looks up where a network is registered
    monkeypatch.setitem(sys.modules, script.__name__, script)
    found: dict[str, Any] = vars(script)
    for block in blocks(page, "python"):
        exec(compile(block, page, "exec"), found)
    CHECKS.get(page, dict)(found)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_is_exported_is_loaded(folder: Path) -> None:
    page = "docs/export.md"
    save_run(folder / "runs" / "cifar100")
    for words in commands(page):
        assert cli.main(words[1:]) == 0
    found: dict[str, Any] = {}
    for block in blocks(page, "python"):
        exec(compile(block.replace("gsa_resnet26", "conv_resnet_tiny"), page, "exec"), found)  # made in less time
    assert found["logits"].shape == (8, 3)


def test_pages_that_are_run_elsewhere_are() -> None:
    for page, test in ELSEWHERE.items():
        assert Path(page).name in (ROOT / test).read_text(encoding="utf-8")


def commands(page: str) -> list[list[str]]:
    """Return the words of each command in the shell's blocks of a page."""
    text = "".join(blocks(page, "bash")).replace("\\\n", " ")
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


def read(words: list[str]) -> None:
    """Let a command be read by what would run it; raises where that would refuse it."""
    program, *rest = words
    if program in {"torchrun", "srun"}:
        return read(["python", *words[words.index("-m") :]])
    if words[:3] == ["python", "-m", "foveate"]:
        return read(words[2:])
    if program == "foveate":
        cli.parse_command(*foveate_cli.parse(rest)[:2])
    elif words[:2] == ["python", "-m"] and words[2].startswith("studies."):
        parse_study(words[2].removeprefix("studies."), words[3:])
    elif words[:3] == ["python", "-m", "tests.fuzz"]:
        options = dict(zip(words[3::2], words[4::2], strict=True))
        assert options.keys() <= {"--seed", "--out", "--only", "--trials"}
        assert set(options.get("--only", "images").split(",")) <= PARTS.keys()
    elif program == "make":
        assert set(rest) <= targets(), rest
    elif words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
        named = re.fullmatch(r"\.(?:\[([\w,]+)\])?", rest[1])
        assert named is not None
        assert set(filter(None, (named[1] or "").split(","))) <= extras.keys()
    elif program != "export":  # of a variable
        assert Path(program).name in TOOLS, f"no test knows what {program} is"
    return None


def targets() -> set[str]:
    """Return what `make` can make."""
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


@pytest.mark.parametrize("page", [page for page in pages() if blocks(page, "bash")])
def test_commands_are_read(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs" / "cifar100").mkdir(parents=True)
    (tmp_path / "runs" / "cifar100" / "config.yaml").write_text("model: gsa_resnet26\n")
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    found = commands(page)
    assert found
    for words in found:
        read(words)


@pytest.mark.parametrize(
    "line",
    [
        "foveate train --epoch 3",
        "foveate train --epochs many",
        "foveate trian",
        "torchrun --nproc_per_node=8 -m foveate train --lr_ 3",
        "python -m studies.stability --seeds 3",
        "python -m tests.fuzz --only image",
        "make everything",
        "pip install '.[everything]'",
        "tensorboard --logdir runs",
    ],
)
def test_wrong_commands_are_noticed(line: str) -> None:
    with pytest.raises((ValueError, SystemExit, AssertionError)):
        read(shlex.split(line))


def test_every_example_has_a_language_that_is_tried() -> None:
    known = {"python", "bash", "text", ""}
    found = {page: set(re.findall(r"^```(\S+)", (ROOT / page).read_text(encoding="utf-8"), re.M)) for page in pages()}
    assert {page: languages - known for page, languages in found.items() if languages - known} == {}
