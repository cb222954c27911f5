"""Run a study from the command line, with the options and exit codes of the ``foveate`` command."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence
from typing import Any

from foveate._extras import MissingExtraError, check_installed
from foveate._imports import import_modules
from foveate._signals import raising_sigterm
from foveate.commands.parsing import parse_config
from foveate.io.streams import tolerate_encodings
from foveate_cli import FAILED

__all__ = ["STUDIES", "main", "parse_study", "split_imports"]

STUDIES = {
    "bench": "suites",
    "dense": "out",
    "equivariance": "checkpoints",
    "evidence": "out",
    "shards": "shards",
    "sizes": "checkpoints",
    "stability": "checkpoints",
}
"""The studies, and the option of each that arguments without a name go to."""


def main(name: str, argv: Sequence[str] | None = None) -> int:
    """Run the study ``name`` with ``argv``, by default the arguments of the process; return the exit code.

    ``--import MODULE`` imports a module first, as ``foveate --import`` does.
    """
    tolerate_encodings()
    prog = f"python -m studies.{name}"
    try:
        module = _module(name)
        imports, rest = split_imports(sys.argv[1:] if argv is None else argv)
        import_modules(imports)
        config = parse_study(name, rest)
        with raising_sigterm():
            module.run(config)
    except KeyboardInterrupt as interrupt:
        print(f"\n{prog}: interrupted; {interrupt}", file=sys.stderr)
        return 128 + getattr(interrupt, "signum", signal.SIGINT)
    except (ValueError, OSError, MissingExtraError) as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        return FAILED
    return 0


def parse_study(name: str, argv: Sequence[str]) -> Any:
    """Return the configuration of a study that ``argv`` describes."""
    config_class = getattr(_module(name), f"{name.capitalize()}Config")
    return parse_config(config_class, argv, prog=f"python -m studies.{name}", positional=STUDIES[name])


def split_imports(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the modules that ``--import`` names, and the other arguments; raises a `ValueError` if it names none."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--import", dest="imports", action="append", default=[])
    try:
        known, rest = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error
    return known.imports, rest


def _module(name: str) -> Any:
    if name != "shards":
        check_installed("matplotlib", extra="explain")  # all others draw
    return importlib.import_module(f"studies.{name}.command")
