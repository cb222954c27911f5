"""The command ``foveate``: turns arguments into the configuration of a command and runs it.

Nothing is computed here. The options of a command are the fields of its configuration, with the help of its
docstring. To add a command, write ``foveate/commands/NAME.py`` with a dataclass ``NameConfig`` and a function
``run(config)``, and add a line to `foveate_cli.COMMANDS`.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import itertools
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from foveate._extras import MissingExtraError, require
from foveate._signals import raising_sigterm
from foveate.io.streams import tolerate_encodings
from foveate_cli import COMMANDS, FAILED, parse

__all__ = ["COMMANDS", "main"]

OUR_YAML = "yaml of any file name"
SPARED = {0xDC00 + byte: 0x10FF00 + byte for byte in range(0x80, 0x100)}
"""Bytes of file names that are not UTF-8, as Python has them in text, and what stands for them while YAML is read."""


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
        command, arguments = parse(words)
        module = importlib.import_module(COMMANDS[command].module or f"foveate.commands.{command}")
        config = _parse(command, module, arguments)
        with raising_sigterm():
            module.run(config)
        sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        _tell(f"\nfoveate: interrupted{f'; {interrupt}' if str(interrupt) else ''}")
        return 128 + getattr(interrupt, "signum", signal.SIGINT)
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        _silence(sys.stdout)
        return 128 + signal.SIGPIPE
    except (ValueError, OSError, MissingExtraError) as error:
        if os.environ.get("FOVEATE_DEBUG", "0") not in ("", "0"):
            traceback.print_exc()
        _tell(f"foveate: error: {error}")
        return FAILED
    return 0


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
    """Let what is still to be written to ``stream`` vanish, in place of an error at the end of the process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _parse(name: str, module: Any, argv: list[str]) -> Any:
    """Return the configuration that ``argv`` describes: the defaults, ``--config`` over them, other options over it.

    Raises:
        ValueError: An option or a value is not known, in words that name it.
    """
    config_class = getattr(module, f"{name.capitalize()}Config")
    plain = all(field.type == "str" for field in dataclasses.fields(config_class))
    if plain and importlib.util.find_spec("jsonargparse") is None:
        return _parse_plainly(name, config_class, argv)
    jsonargparse = require("jsonargparse", extra="train")
    jsonargparse.set_loader(
        OUR_YAML, _any_name(jsonargparse.get_loader("yaml")), (require("yaml", extra="train").YAMLError,)
    )
    parser = jsonargparse.ArgumentParser(
        prog=f"foveate {name}", exit_on_error=False, allow_abbrev=False, parser_mode=OUR_YAML
    )
    parser.add_argument("--config", action="config", help="YAML file with options; those given beside it override it")
    parser.add_class_arguments(config_class, fail_untyped=True)
    if positional := COMMANDS[name].positional:
        default = next(field for field in dataclasses.fields(config_class) if field.name == positional)
        many = default.default_factory is not dataclasses.MISSING
        # Left out, it must not stand in the way of the option of the same name, nor of the configuration file.
        parser.add_argument(
            positional,
            nargs="*" if many else "?",
            default=argparse.SUPPRESS,
            metavar=positional.upper(),
            help=f"the same as --{positional}",
        )
    try:
        namespace = parser.parse_args(_config_first(_collect_lists(config_class, _spell_out_flags(config_class, argv))))
    except argparse.ArgumentError as error:
        raise ValueError(f"{_readable(str(error))} (`foveate {name} --help` explains the options)") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"--config: the file is not text in UTF-8: {error}") from error
    return config_class(**{field.name: _at_home(namespace[field.name]) for field in dataclasses.fields(config_class)})


def _parse_plainly(name: str, config_class: type, argv: list[str]) -> Any:
    """Do what `_parse` does, for a configuration of texts alone, where only the core is installed."""
    parser = argparse.ArgumentParser(prog=f"foveate {name}", description=config_class.__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    for field in dataclasses.fields(config_class):
        parser.add_argument(f"--{field.name}", default=field.default)
    positional = str(COMMANDS[name].positional)
    parser.add_argument(positional, nargs="?", default=argparse.SUPPRESS, help=f"the same as --{positional}")
    return config_class(**vars(parser.parse_args(argv)))


def _at_home(value: Any) -> Any:
    """Put the user's folder where a path begins with ``~/``: shells leave it in ``--out=~/runs``, files in any case."""
    if isinstance(value, list):
        return [_at_home(item) for item in value]
    if isinstance(value, str | Path) and str(value).startswith("~/"):
        return type(value)(os.path.expanduser(value))
    return value


def _any_name(load: Callable[[str], Any]) -> Callable[[str], Any]:
    """Let a reader of YAML take names of files that are not UTF-8, as Python has them or as YAML escapes those."""

    def load_any(text: str) -> Any:
        text = re.sub(r"(?i)\\u(dc[89a-f][0-9a-f])", lambda found: chr(int(found[1], 16)), text)
        return _translated(load(text.translate(SPARED)), {spare: byte for byte, spare in SPARED.items()})

    return load_any


def _translated(value: Any, table: Mapping[int, int]) -> Any:
    if isinstance(value, dict):
        return {_translated(key, table): _translated(item, table) for key, item in value.items()}
    if isinstance(value, list):
        return [_translated(item, table) for item in value]
    return value.translate(table) if isinstance(value, str) else value


def _readable(message: str) -> str:
    """Say ``--lr: Expected a float`` where jsonargparse says ``Parser key "lr": Expected a <class 'float'>``.

    Of a union it lists every type and what is wrong with each, a line each; one line says what is allowed.
    """
    message = re.sub(r'Parser key "([\w.]+)":\s*', r"--\1: ", message)
    message = re.sub(r"<class '(\w+)'>|typing\.", r"\1", message)
    union = re.search(r"Does not validate against any of the Union subtypes\s+Subtypes: \[(.*)\]\n", message)
    if union is None:
        return message
    types = re.split(r", (?![^\[]*\])", union[1].replace("NoneType", "null"))
    value = message.rpartition("Given value: ")[2].strip()
    return f"{message[: union.start()]}Expected {' or '.join(types)}. Got value: {value}"


def _spell_out_flags(config_class: type, argv: list[str]) -> list[str]:
    """Let ``--resume`` stand for ``--resume=true`` where no value follows."""
    flags = {f"--{field.name}" for field in dataclasses.fields(config_class) if field.type == "bool"}
    values = ("true", "false", "yes", "no")
    return [
        f"{word}=true" if word in flags and after.lower() not in values else word
        for word, after in itertools.pairwise([*argv, ""])
    ]


def _collect_lists(config_class: type, argv: list[str]) -> list[str]:
    """Let ``--layers a --layers b`` stand for ``--layers=["a", "b"]``: of an option given twice, none is lost."""
    names = [field.name for field in dataclasses.fields(config_class) if field.type == "list[str]"]
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in names:
        parser.add_argument(f"--{name}", action="append", default=[])
    known, rest = parser.parse_known_args(argv)
    given = {name: values for name, values in vars(known).items() if values}
    for name, values in given.items():
        whole = len(values) == 1 and values[0].startswith("[")
        rest.append(f"--{name}={values[0] if whole else json.dumps(values)}")
    return rest


def _config_first(argv: list[str]) -> list[str]:
    """Move ``--config`` to the front: what comes later overrides, and a file is never to override an option."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", action="append", default=[])
    known, rest = parser.parse_known_args(argv)
    return [*(f"--config={path}" for path in known.config), *rest]
