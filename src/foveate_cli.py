"""Start of the command ``foveate``: what can be answered without PyTorch is answered before it is imported.

Help, the version, and a mistyped command or option take a tenth of a second here and several in `foveate`, which
registers its networks with timm when it is imported. So this module stands outside of that package and imports nothing
but the standard library; everything else is done by `foveate.cli`.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib.util
import runpy
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

__all__ = ["COMMANDS", "Command", "UnknownOptionError", "Words", "main", "options_of", "parse"]

FAILED = 2
OF_THE_PARSER = ("config", "help", "print_config")
"""Options that every command has."""


class Command(NamedTuple):
    """A line of `COMMANDS`."""

    summary: str
    positional: str | None = None
    """The field that arguments without a name go to, all of them if it is a list."""
    module: str = ""
    """Where the command is, if not in ``foveate.commands``."""


COMMANDS = {
    "train": Command("train a network and evaluate it", "model"),
    "evaluate": Command("evaluate a trained network on labelled images", "checkpoint"),
    "compare": Command("train several networks with paired seeds and compare them", "models"),
    "report": Command("write a page about a comparison", "runs"),
    "explain": Command("show what networks predict for images and where they look", "images"),
    "score": Command("score where networks look, and how faithfully, on images with boxes", "checkpoints"),
    "demo": Command("show a web page on which to explore where networks look", "checkpoint", "foveate.demo"),
    "cost": Command("count parameters and FLOPs of networks", "models"),
    "shards": Command("write images into tar files, and index and check those", "task"),
    "export": Command("write a network in a form that others can use", "checkpoint"),
    "models": Command("list the networks that foveate adds to timm", "filter"),
}

ALIASES = {"test": "evaluate"}
"""Other names of commands."""


class Words(NamedTuple):
    """What a command line says: a command, its arguments, and modules to be imported first."""

    command: str
    arguments: list[str]
    imports: list[str]


class UnknownOptionError(ValueError):
    """A command has no option of this name."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command ``foveate``; see `foveate.cli.main`, which does all that needs more than a look at the words."""
    words = sys.argv[1:] if argv is None else list(argv)
    if sorted(words) != ["--verbose", "--version"]:
        try:
            parse(words)
        except UnknownOptionError as error:
            sys.stderr.write(f"foveate: error: {error}\n")
            return FAILED
    from foveate.cli import main as run

    return run(words)


def parse(words: Sequence[str]) -> Words:
    """Return the command, its arguments, and what is to be imported first.

    Raises:
        UnknownOptionError: The command has no such option.
        SystemExit: There is no such command (2), or help or the version was asked for and is printed (0).
    """
    known = _top_level().parse_args(words)
    _check_options(known.command, known.arguments)
    return Words(known.command, known.arguments, known.imports)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(FAILED, f"{self.prog}: error: {message} (`{self.prog} --help` lists the commands)\n")


def _top_level() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    parser = _Parser(
        prog="foveate",
        description="Spatial attention for image recognition: train, evaluate and compare networks.",
        epilog="commands:\n"
        + "\n".join(f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items())
        + "\n\n`foveate COMMAND --help` explains a command and its options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = runpy.run_path(str(_package() / "_version.py"))["__version__"]
    parser.add_argument("--version", action="version", version=f"foveate {version}")
    parser.add_argument("--verbose", action="store_true", help="with --version: also what it computes with")
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="import a module of yours first, which registers networks or tasks; may be repeated",
    )
    parser.add_argument("command", type=_command, metavar="COMMAND", help="what to do")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="its arguments")
    return parser


def _command(name: str) -> str:
    name = ALIASES.get(name, name)
    if name not in COMMANDS:
        raise argparse.ArgumentTypeError(f"there is no command {name!r}{_suggestion(name, [*COMMANDS, *ALIASES])}")
    return name


def _suggestion(got: str, allowed: Iterable[str]) -> str:
    close = difflib.get_close_matches(got, list(allowed), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _check_options(command: str, words: Sequence[str]) -> None:
    options = {*options_of(command), *OF_THE_PARSER}
    for word in words:
        if word == "--":
            return
        name = word[2:].partition("=")[0].partition(".")[0].rstrip("+")
        if word.startswith("--") and name not in options:
            close = _suggestion(f"--{name}", [f"--{option}" for option in options])
            raise UnknownOptionError(
                f"unknown option --{name}{close or ';'} (`foveate {command} --help` explains the options)"
            )


def options_of(command: str) -> list[str]:
    """Return the options of a command, the fields of its configuration, read from the source without importing it."""
    module = COMMANDS[command].module or f"foveate.commands.{command}"
    return _fields(f"{command.capitalize()}Config", module)


def _fields(name: str, module: str) -> list[str]:
    """Return the fields of a dataclass and of what it inherits from, wherever ``module`` has it from."""
    for node in ast.walk(ast.parse(_source(module).read_bytes())):
        if isinstance(node, ast.ClassDef) and node.name == name:
            inherited = [
                field for base in node.bases if isinstance(base, ast.Name) for field in _fields(base.id, module)
            ]
            own = [item.target for item in node.body if isinstance(item, ast.AnnAssign)]
            return inherited + [target.id for target in own if isinstance(target, ast.Name)]
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("foveate"):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _fields(alias.name, str(node.module))
    raise LookupError(f"{module} has no class {name}")


def _source(module: str) -> Path:
    path = _package().parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _package() -> Path:
    spec = importlib.util.find_spec("foveate")  # finds the package without importing it
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations)))
