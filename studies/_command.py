"""Run a study from the command line, with the options and exit codes of the ``foveate`` command."""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Sequence
from typing import Any

from foveate import cli
from foveate._extras import MissingExtraError
from foveate._signals import raising_sigterm
from foveate.io.streams import tolerate_encodings

__all__ = ["STUDIES", "main"]

STUDIES = {
    "bench": "suites",
    "equivariance": "checkpoints",
    "evidence": "out",
    "shards": "shards",
    "stability": "checkpoints",
}
"""The studies, and the option of each that arguments without a name go to."""


def main(name: str, argv: Sequence[str] | None = None) -> int:
    """Run the study ``name`` with ``argv``, by default the arguments of the process; return the exit code."""
    tolerate_encodings()
    prog = f"python -m studies.{name}"
    module = importlib.import_module(f"studies.{name}.command")
    try:
        config = _parse(name, module, list(sys.argv[1:] if argv is None else argv))
        with raising_sigterm():
            module.run(config)
    except KeyboardInterrupt as interrupt:
        print(f"\n{prog}: interrupted; {interrupt}", file=sys.stderr)
        return 128 + getattr(interrupt, "signum", signal.SIGINT)
    except (ValueError, OSError, MissingExtraError) as error:
        print(f"{prog}: error: {str(error).replace(f'foveate {name} ', f'{prog} ')}", file=sys.stderr)
        return cli.FAILED
    return 0


def _parse(name: str, module: Any, argv: list[str]) -> Any:
    """Return the configuration that ``argv`` describes, read as that of a command, which the study is meanwhile."""
    known = dict(cli.COMMANDS)
    cli.COMMANDS[name] = cli.COMMANDS["train"]._replace(positional=STUDIES[name])
    try:
        return cli._parse(name, module, argv)
    finally:
        cli.COMMANDS.clear()
        cli.COMMANDS.update(known)
