"""Files that a person might upload, good and bad."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from matplotlib import cbook
from PIL import Image


def photograph(folder: Path) -> Path:
    """Write a real photograph as PNG."""
    with cbook.get_sample_data("grace_hopper.jpg") as file, Image.open(file) as image:
        image.save(folder / "hopper.png")
    return folder / "hopper.png"


def bomb(folder: Path) -> Path:
    """Write a PNG of 20,000×10,000 pixels in a few kilobytes."""
    width, height = 20_000, 10_000
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes((width // 8 + 1) * height), 9)),
        (b"IEND", b""),
    ]
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    (folder / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return folder / "bomb.png"


def drawing(folder: Path) -> Path:
    """Write an SVG."""
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>'
    (folder / "drawing.svg").write_text(svg)
    return folder / "drawing.svg"


def text(folder: Path) -> Path:
    """Write a text that is called an image."""
    (folder / "text.png").write_text("This is not an image.")
    return folder / "text.png"


def truncated(folder: Path) -> Path:
    """Write the first half of a JPEG."""
    pixels = np.random.default_rng(0).integers(0, 256, (120, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "half.jpg")
    whole = (folder / "half.jpg").read_bytes()
    (folder / "half.jpg").write_bytes(whole[: len(whole) // 2])
    return folder / "half.jpg"


def animation(folder: Path) -> Path:
    """Write a GIF of three frames."""
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "green", "blue")]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    return folder / "moving.gif"


BAD = {
    bomb: "more than the 33554432 pixels",
    drawing: "not an image",
    text: "not an image",
    truncated: "truncated",
    animation: "it moves or has pages",
}
"""What writes a bad file, and what the page must say of it."""
