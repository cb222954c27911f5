"""What users install: the wheel's contents and tag, and that it runs where there is no compiler."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import torch

from foveate import __version__

ROOT = Path(__file__).parents[1]
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
KERNELS = {"_any.so", "_avx2.so", "_avx512.so"} if platform.machine() in ("x86_64", "AMD64") else {"_any.so"}
SHIPPED = (".py", ".css", ".html", ".safetensors", ".json", "py.typed", ".so")
"""How the names of files in the package end."""


def build(kind: str, source: Path, out: Path, **environment: str) -> Path:
    """Build ``kind`` ("wheel" or "sdist") of a source tree."""
    command = [sys.executable, "-c", BUILD, f"build_{kind}", str(out)]
    done = subprocess.run(
        command, cwd=source, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, unpacked; made of a copy, as building leaves files in the tree."""
    folder = tmp_path_factory.mktemp("sdist")
    files = ["pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "CHANGELOG.md", "LICENSE"]
    for name in files:
        shutil.copy(ROOT / name, folder / name)
    ignored = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info")
    for name in ("src", "tests", "studies", "recipes", "LICENSES"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    with tarfile.open(build("sdist", folder, folder)) as archive:
        archive.extractall(folder, filter="data")
    unpacked = folder / f"foveate-{__version__}"
    assert {path.name for path in unpacked.iterdir()} == {*files, "LICENSES", "src", "setup.cfg", "PKG-INFO"}
    return unpacked


def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


@pytest.mark.slow
def test_the_wheel_holds_the_library_for_every_python(sdist: Path, tmp_path: Path) -> None:
    wheel = build("wheel", sdist, tmp_path, CC="false", CXX="false")  # the kernels are left out
    assert re.fullmatch(rf"foveate-{re.escape(__version__)}-py3-none-(?!any)\w+\.whl", wheel.name)
    files = contents(wheel)
    metadata = f"foveate-{__version__}.dist-info"
    assert {name.partition("/")[0] for name in files} == {"foveate", "foveate_cli.py", metadata}
    assert {name for name in files if not name.startswith(metadata) and not name.endswith(SHIPPED)} == set()
    ours = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "src"]
    listed = subprocess.run(ours, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    wanted = {name.removeprefix("src/") for name in listed if not name.endswith((".cpp", ".h"))}
    assert {name for name in files if not name.startswith(metadata)} == wanted


IN_USE = """
import foveate, timm, torch
from foveate.kernels import cpu
from foveate_cli import main
assert foveate.__file__.startswith({prefix!r}), foveate.__file__
model = timm.create_model("gsa_resnet_tiny.photographs", pretrained=True).eval()
with torch.no_grad(), torch.profiler.profile() as profile:
    model(torch.randn(1, 3, 32, 32))
assert "foveate::global_self" in {{event.key for event in profile.key_averages()}}
runtimes = {{line.split()[-1] for line in open("/proc/self/maps") if "libgomp" in line}}
assert main(["cost", "gsa_resnet26"]) == 0
print(cpu.found(), len(runtimes))
"""


@pytest.mark.slow
def test_the_wheel_runs_without_a_compiler(sdist: Path, tmp_path: Path) -> None:
    quick = tmp_path / "quick"  # the compiler without its optimizations, which take ten times as long
    quick.write_text(f'#!/bin/sh\nexec {shutil.which("g++") or "c++"} "$@" -O0\n')
    quick.chmod(0o755)
    wheel = build("wheel", sdist, tmp_path, CC=str(quick), CXX=str(quick))
    assert {Path(name).name for name in contents(wheel) if name.endswith(".so")} == KERNELS
    venv.create(tmp_path / "clean")
    packages = next((tmp_path / "clean").glob("lib/python*/site-packages"))
    (packages / "torch.pth").write_text(
        f"{Path(torch.__file__).parents[1]}\n"
    )  # what it depends on is not fetched again
    python, nothing = tmp_path / "clean" / "bin" / "python", {"PATH": "", "HOME": str(tmp_path), "CC": "false"}

    def run(*words: str | Path) -> str:
        done = subprocess.run(
            list(map(str, words)), env=nothing, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    install = ["-m", "pip", f"--python={python}", "install", "--no-deps", "--no-index", "--ignore-installed"]
    run(sys.executable, *install, wheel)
    best = torch.backends.cpu.get_cpu_capability()
    said = run(python, "-c", IN_USE.format(prefix=str(tmp_path)))
    assert said.splitlines()[-1].split() == [best, "1"]
    assert re.search(r"^gsa_resnet26 +10\.\d+ +4\.\d+$", said, re.M)
    assert run(python.with_name("foveate"), "--version").split() == ["foveate", __version__]
