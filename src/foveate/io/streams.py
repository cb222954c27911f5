"""Text for files and terminals that cannot hold all of it: names of files that are not UTF-8, old encodings."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["encoded", "printable", "tolerate_encodings"]


def encoded(text: str) -> bytes:
    r"""Encode ``text`` in UTF-8; a byte of a file name that was not UTF-8 becomes ``\udcXX``, as JSON escapes it."""
    return text.encode("utf-8", "backslashreplace")


def printable(text: str) -> str:
    """Return ``text`` as `encoded` writes it: it can be drawn, stored and sent, whatever file name is in it."""
    return encoded(text).decode()


def tolerate_encodings() -> None:
    """Let stdout and stderr replace what their encoding lacks, rather than fail: no result is worth less for it.

    One that is closed becomes one that forgets; else the next file that is opened would be what native code prints to.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        stream = getattr(sys, name)
        reconfigure = getattr(stream, "reconfigure", None)  # a program may have put anything there
        if reconfigure is not None:
            utf8 = (stream.encoding or "").lower().replace("-", "") == "utf8"
            reconfigure(errors="backslashreplace" if utf8 else "replace")
