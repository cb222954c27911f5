"""Networks and tasks from modules of the user's, which commands import first."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.interpreters import Interpreter

NETWORKS = """
import timm
import foveate

print("this is printed, at once", flush=True)

@timm.models.register_model
def mine(pretrained=False, **kwargs):
    return foveate.insert(timm.create_model("test_resnet", **kwargs), foveate.nn.RectangularAttention2d)
"""
DIGITS = "{size: 16, clutter: 1, length: 40, val_length: 20, test_length: 31}"
SETTINGS = ["--data_options", DIGITS, "--batch_size=8", "--epochs=1", "--device=cpu"]


def foveate(python: Interpreter, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command as from a console, which does not look for modules in the working folder by itself."""
    code = f"import sys; sys.path.remove(''); from foveate_cli import main; sys.exit(main({[*words]!r}))"
    return python.run(code, folder)


@pytest.mark.slow
def test_networks_of_a_module_are_trained_side_by_side_and_loaded(tmp_path: Path, python: Interpreter) -> None:
    (tmp_path / "my_networks.py").write_text(NETWORKS)
    words = ["compare", "mine", "test_resnet", "--seeds=1", "--jobs=2", "--out=runs", *SETTINGS]
    unknown = foveate(python, tmp_path, *words)
    assert (unknown.returncode, (tmp_path / "runs").exists()) == (2, False)
    done = foveate(python, tmp_path, "--import", "my_networks", *words)
    assert done.returncode == 0, done.stderr
    table = json.loads((tmp_path / "runs" / "compare.json").read_text())
    assert [network["label"] for network in table["networks"]] == ["mine", "test_resnet"]
    evaluated = foveate(python, tmp_path, "--import=my_networks", "evaluate", "runs/mine/seed-0", "--json=found.json")
    assert evaluated.returncode == 0, evaluated.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["top1"]["mean"] == table["networks"][0]["top1"]["mean"]


@pytest.mark.slow
def test_a_module_that_is_missing_or_lacks_one_is_named(tmp_path: Path, python: Interpreter) -> None:
    (tmp_path / "lacking.py").write_text("import no_such_module")
    missing = foveate(python, tmp_path, "--import", "my_networks.py", "models")
    assert missing.returncode == 2
    assert "'my_networks.py'" in missing.stderr
    lacking = foveate(python, tmp_path, "--import", "lacking", "models")  # an error of that module, not of the option
    assert lacking.returncode == 1
    assert "no_such_module" in lacking.stderr
