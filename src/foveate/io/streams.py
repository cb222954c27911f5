"""Text for files and terminals of limited encodings: file names that are not UTF-8, old terminals."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["encoded", "printable", "tolerate_encodings"]


def encoded(text: str) -> bytes:
    r"""Encode ``text`` in UTF-8; a byte of a file name that was not UTF-8 becomes ``\udcXX``, as JSON escapes it."""
    return text.encode("utf-8", "backslashreplace")


def printable(text: str) -> str:
    """Return ``text`` as `encoded` writes it: safe to draw, store and send, whatever file name is in it."""
    return encoded(text).decode()


def tolerate_encodings() -> None:
    """Make stdout and stderr replace what their encoding lacks, rather than fail.

    A closed one is replaced by the null device; else native code would print to the next file that is opened.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        stream = getattr(sys, name)
        reconfigure = getattr(stream, "reconfigure", None)  # a program may have put anything there
        if reconfigure is not None:
            utf8 = (stream.encoding or "").lower().replace("-", "") == "utf8"
            reconfigure(errors="backslashreplace" if utf8 else "replace")
