"""Pictures that this library writes, marked so that it replaces no others."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from foveate._paths import expanded
from foveate._version import __version__
from foveate.data.given import SOFTWARE, is_ours
from foveate.io.files import write_bytes
from foveate.io.streams import printable

__all__ = ["check_ours", "check_png", "write_png"]


def write_png(path: Path, picture: Image.Image, *, title: str) -> None:
    """Write ``picture`` to ``path`` atomically, marked as a file of this library; others are not replaced."""
    check_ours(path)
    info = PngInfo()
    info.add_text(SOFTWARE, f"foveate {__version__}")
    info.add_itxt("Title", printable(title))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=info)
    write_bytes(path, buffer.getbuffer())


def check_ours(path: Path) -> None:
    """Raise a `ValueError` if there is a file at ``path`` that `write_png` has not written."""
    if path.exists() and not is_ours(path):
        raise ValueError(f"out: {path} was not written by `foveate explain`; give another folder, or move it")


def check_png(path: str | Path) -> Path:
    """Return a path that ends in ``.png``; raise a `ValueError` for another."""
    path = expanded(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"a picture is written as PNG; got {path}; give {path.with_suffix('.png')}")
    return path
