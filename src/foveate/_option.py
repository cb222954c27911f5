"""The type of free options, such as keywords for a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Option", "check_options"]

Option = bool | int | float | str | list[int] | list[float] | list[str] | list[int | str] | None
"""A plain value: nothing in a configuration can name code."""


def check_options(values: Mapping[str, Any], argv: Sequence[str]) -> None:
    """Raise a `ValueError` for a free option that jsonargparse could not read from a command line.

    Where a value in braces fits no simpler type, it puts the text of the whole argument in its place.
    """
    given = {word for argument in argv for word in (argument, argument.partition("=")[2]) if word.startswith("{")}
    for name, options in values.items():
        for option, value in options.items() if isinstance(options, dict) else ():
            if any(isinstance(item, str) and item in given for item in (value if isinstance(value, list) else [value])):
                raise ValueError(
                    f"--{name}: the value of {option} must be a number, a text, true, false, null, or a list of "
                    f"numbers or of texts; got {' '.join(sorted(given))}. A file (--config) may mix numbers and texts"
                )
