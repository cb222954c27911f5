"""The command ``foveate``: turns arguments into the configuration of a command and runs it.

Nothing is computed here. The options of a command are the fields of its configuration, with the help of its
docstring. To add a command, write ``foveate/commands/NAME.py`` with a dataclass ``NameConfig`` and a function
``run(config)``, and add a line to `foveate_cli.COMMANDS`.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from foveate._extras import MissingExtraError
from foveate._imports import import_modules
from foveate._memory import out_of_memory
from foveate._signals import raising_sigterm
from foveate.commands.parsing import parse_config
from foveate.io.streams import tolerate_encodings
from foveate_cli import COMMANDS, FAILED, parse

__all__ = ["COMMANDS", "main", "parse_command"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that ``argv`` (by default that of the process) names; return the exit code.

    The codes: 0, done; 2, the input was wrong, with one message on stderr that begins ``foveate: error:``; 130,
    interrupted by Ctrl-C; 143, ended by SIGTERM; 141, the reader of the output has gone. ``FOVEATE_DEBUG=1`` shows the
    traceback of an error besides.
    """
    tolerate_encodings()
    words = sys.argv[1:] if argv is None else list(argv)
    if sorted(words) == ["--verbose", "--version"]:
        print(importlib.import_module("foveate.commands._versions").describe())
        return 0
    try:
        command, arguments, imports = parse(words)
        import_modules(imports)
        config = parse_command(command, arguments)
        with raising_sigterm():
            _module(command).run(config)
        sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        _tell(f"\nfoveate: interrupted{f'; {interrupt}' if str(interrupt) else ''}")
        return 128 + getattr(interrupt, "signum", signal.SIGINT)
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        _silence(sys.stdout)
        return 128 + signal.SIGPIPE
    except (ValueError, OSError, MissingExtraError, MemoryError, RuntimeError) as error:
        told = out_of_memory(error)
        if told is None and isinstance(error, RuntimeError):
            raise
        if os.environ.get("FOVEATE_DEBUG", "0") not in ("", "0"):
            traceback.print_exc()
        _tell(f"foveate: error: {told or error}")
        return FAILED
    return 0


def parse_command(command: str, arguments: Sequence[str]) -> Any:
    """Return the configuration of ``command`` that ``arguments`` describe; raises as `parse_config`."""
    config_class = getattr(_module(command), f"{command.capitalize()}Config")
    return parse_config(config_class, arguments, prog=f"foveate {command}", positional=COMMANDS[command].positional)


def _module(command: str) -> Any:
    return importlib.import_module(COMMANDS[command].module or f"foveate.commands.{command}")


def _tell(message: str) -> None:
    """Print on stderr, if anybody still reads there, behind all that was printed before: it is the last word."""
    try:
        sys.stdout.flush()
    except OSError:  # nobody reads, or the disk that it goes to is full
        _silence(sys.stdout)
    try:
        print(message, file=sys.stderr, flush=True)
    except OSError:
        _silence(sys.stderr)


def _silence(stream: Any) -> None:
    """Discard what is still to be written to ``stream``, which would end the process with an error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
