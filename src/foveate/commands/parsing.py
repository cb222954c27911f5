"""Parsing of command-line arguments into a configuration, a dataclass whose fields are the options."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import itertools
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from foveate._extras import require
from foveate._option import check_options

__all__ = ["parse_config"]

OUR_YAML = "yaml of any file name"
SPARED = {0xDC00 + byte: 0x10FF00 + byte for byte in range(0x80, 0x100)}
"""Surrogates of undecodable bytes in file names, mapped to private characters while YAML is parsed."""


def parse_config(config_class: type[Any], argv: Sequence[str], *, prog: str, positional: str | None = None) -> Any:
    """Return the configuration that ``argv`` describes: the defaults, ``--config`` over them, other options over it.

    Args:
        config_class: A dataclass; its docstring is the help of its fields.
        argv: The arguments.
        prog: What the help calls the program.
        positional: Field that arguments without a name go to, all of them if it is a list.

    Raises:
        ValueError: An option or a value is not known; the message names it.
    """
    plain = all(field.type == "str" for field in dataclasses.fields(config_class))
    if plain and importlib.util.find_spec("jsonargparse") is None:
        return _parse_plainly(config_class, argv, prog=prog, positional=positional)
    jsonargparse = require("jsonargparse", extra="train")
    wrong = (require("yaml", extra="train").YAMLError,)
    jsonargparse.set_loader(OUR_YAML, _any_name(jsonargparse.get_loader("yaml")), wrong)
    parser = jsonargparse.ArgumentParser(prog=prog, exit_on_error=False, allow_abbrev=False, parser_mode=OUR_YAML)
    parser.add_argument("--config", action="config", help="YAML file with options; those given beside it override it")
    # Annotations of inherited fields are resolved in the modules that they were written in.
    config_class.__init__.__annotations__.update(get_type_hints(config_class))
    parser.add_class_arguments(config_class, fail_untyped=True)
    if positional is not None:
        default = next(field for field in dataclasses.fields(config_class) if field.name == positional)
        nargs = "?" if default.default_factory is dataclasses.MISSING else "*"
        # Left out, it must not override the option of the same name, nor the configuration file.
        same = f"the same as --{positional}"
        parser.add_argument(positional, nargs=nargs, default=argparse.SUPPRESS, metavar=positional.upper(), help=same)
    try:
        end = list(argv).index("--") if "--" in argv else len(argv)  # behind it there are no options
        words = _collect_lists(config_class, _spell_out_flags(config_class, list(argv[:end])))
        namespace = parser.parse_args([*_config_first(words), *argv[end:]])
    except argparse.ArgumentError as error:
        raise ValueError(f"{_readable(str(error))} (`{prog} --help` explains the options)") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"--config: the file is not text in UTF-8: {error}") from error
    values = {field.name: namespace[field.name] for field in dataclasses.fields(config_class)}
    check_options(values, argv)
    return config_class(**{name: _at_home(value) for name, value in values.items()})


def _parse_plainly(config_class: type[Any], argv: Sequence[str], *, prog: str, positional: str | None) -> Any:
    """Do what `parse_config` does, for a configuration of texts alone, where only the core is installed."""
    parser = argparse.ArgumentParser(prog=prog, description=config_class.__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    for field in dataclasses.fields(config_class):
        parser.add_argument(f"--{field.name}", default=field.default)
    if positional is not None:
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
    """Make a YAML loader accept file names that are not UTF-8, raw or escaped."""

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
    """Turn jsonargparse's ``Parser key "lr": Expected a <class 'float'>`` into ``--lr: Expected a float``.

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
    """Expand ``--resume`` to ``--resume=true`` where no value follows."""
    flags = {f"--{field.name}" for field in dataclasses.fields(config_class) if field.type == "bool"}
    values = ("true", "false", "yes", "no")
    return [
        f"{word}=true" if word in flags and after.lower() not in values else word
        for word, after in itertools.pairwise([*argv, ""])
    ]


def _collect_lists(config_class: type, argv: list[str]) -> list[str]:
    """Merge ``--layers a --layers b`` into ``--layers=["a", "b"]``."""
    names = [field.name for field in dataclasses.fields(config_class) if str(field.type).startswith("list[")]
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in names:
        parser.add_argument(f"--{name}", action="append", default=[])
    known, rest = parser.parse_known_args(argv)
    given = {name: values for name, values in vars(known).items() if values}
    for name, values in given.items():
        whole = len(values) == 1 and values[0][:1] + values[0][-1:] == "[]" and not os.path.exists(values[0])
        rest.append(f"--{name}={values[0] if whole else json.dumps(values)}")
    return rest


def _config_first(argv: list[str]) -> list[str]:
    """Move ``--config`` to the front: what comes later overrides, and a file is never to override an option."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", action="append", default=[])
    known, rest = parser.parse_known_args(argv)
    return [*(f"--config={path}" for path in known.config), *rest]
