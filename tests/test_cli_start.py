"""What the command answers before, and without, what it does not need."""

from __future__ import annotations

import dataclasses
import importlib
import subprocess
import sys

import pytest

from foveate.cli import main
from foveate_cli import COMMANDS, options_of
from tests.interpreters import Interpreter


@pytest.mark.parametrize(
    ("argv", "code"),
    [(["--help"], 0), (["--version"], 0), (["trian"], 2), ([], 2), (["train", "test_resnet", "--epoch=3"], 2)],
    ids=str,
)
def test_what_needs_no_pytorch_is_answered_without_it(argv: list[str], code: int) -> None:
    start = (
        "import atexit, sys; from foveate_cli import main\n"
        "atexit.register(lambda: print(*sorted({'foveate', 'torch', 'timm', 'yaml'} & set(sys.modules)), 'end'))\n"
        f"sys.exit(main({argv!r}))"
    )
    done = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stdout.splitlines()[-1].split() == ["end"]
    assert (done.stderr == "") == (code == 0)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_options_are_known_without_importing_the_command(command: str) -> None:
    module = importlib.import_module(COMMANDS[command].module or f"foveate.commands.{command}")
    fields = {field.name for field in dataclasses.fields(getattr(module, f"{command.capitalize()}Config"))}
    assert set(options_of(command)) == fields


@pytest.mark.parametrize(("missing", "command"), [("jsonargparse", "cost"), ("lightning", "train")])
def test_a_missing_extra_is_named(missing: str, command: str, python: Interpreter) -> None:
    hide = f"import sys; sys.modules[{missing!r}] = None; from foveate.cli import main; sys.exit(main({[command]!r}))"
    done = python.run(hide)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("foveate: error: this needs ")
    assert "pip install 'foveate[train]'" in done.stderr


@pytest.mark.parametrize("argv", [["gsa_resnet26"], ["--filter=gsa_resnet26"]])
def test_listing_networks_needs_no_extra(
    argv: list[str], python: Interpreter, capsys: pytest.CaptureFixture[str]
) -> None:
    hide = f"import sys; sys.modules['jsonargparse'] = None; from foveate.cli import main; main({['models', *argv]!r})"
    done = python.run(hide)
    assert (done.returncode, done.stderr) == (0, "")
    assert main(["models", *argv]) == 0
    assert done.stdout == capsys.readouterr().out


def test_listing_networks_needs_no_lightning(python: Interpreter) -> None:
    code = (
        "import sys; from foveate.cli import main; main(['models', 'gsa_resnet26']); "
        "print(*({'lightning', 'torchmetrics', 'scipy', 'sklearn'} & set(sys.modules)), file=sys.stderr)"
    )
    done = python.run(code)
    assert "gsa_resnet26" in done.stdout
    assert (done.returncode, done.stderr) == (0, "\n")
