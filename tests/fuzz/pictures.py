"""Image files to read: unusual ones of which it is known what they show, and broken ones."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

ENDINGS = {"JPEG": ".jpg", "PNG": ".png", "PPM": ".ppm", "BMP": ".bmp", "TIFF": ".tif", "WEBP": ".webp", "GIF": ".gif"}


@dataclass(frozen=True)
class Picture:
    """A file, and what must come of it."""

    kind: str
    ending: str
    content: bytes
    expected: np.ndarray | None = None
    """What it shows, ``(H, W, 3)`` of uint8; None where an error will do as well, if it names the file."""
    tolerance: float = 0.0
    """How far the mean absolute difference may be from it: some formats lose something."""
    refused: bool = False
    """Whether it must not be decoded."""


def pictures(number: int, seed: int) -> list[Picture]:
    """Return ``number`` files, in equal shares of every way of making them."""
    rng = random.Random(seed)
    ways = [unusual, damaged, impostor, impossible, bomb]
    return [ways[index % len(ways)](rng) for index in range(number)]


def drawn(rng: random.Random) -> np.ndarray:
    """Return a smooth, coloured ``(H, W, 3)``."""
    coarse = np.random.default_rng(rng.getrandbits(32)).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    size = rng.randint(5, 90), rng.randint(5, 90)
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))


def stored(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


def unusual(rng: random.Random) -> Picture:
    """A whole image in a mode that code for RGB gets wrong."""
    shown = drawn(rng)
    image, plain = Image.fromarray(shown), np.asarray(Image.fromarray(shown).convert("L"))
    deep = np.minimum(plain.astype(np.int64) * 257 + 3, 65535).astype(np.uint16)  # 3/257 of a level more
    alpha = np.asarray(Image.fromarray(shown[::-1].copy()).convert("L"))
    on_white = shown * (alpha[..., None] / 255) + 255 * (1 - alpha[..., None] / 255)
    other = Image.fromarray(255 - shown)
    palette = image.quantize(64)
    bits = (plain > 127).astype(np.uint8) * 255
    with_alpha = Image.fromarray(np.dstack([shown, alpha]))
    grey_alpha = Image.merge("LA", (Image.fromarray(plain), Image.fromarray(alpha)))
    grey_on_white = grey((plain * (alpha / 255) + 255 * (1 - alpha / 255)).round())
    through = stored(palette, "PNG", transparency=bytes([0] + [255] * 63))
    seen_through = np.where(np.asarray(palette)[..., None] == 0, 255, np.asarray(palette.convert("RGB")))
    rgb: dict[str, Any] = {"expected": shown}
    makers: dict[str, Callable[[], tuple[str, bytes, dict[str, Any]]]] = {
        "plain": lambda: ("PNG", stored(image, "PNG"), rgb),
        "CMYK": lambda: ("TIFF", stored(image.convert("CMYK"), "TIFF"), {**rgb, "tolerance": 3}),
        "CMYK JPEG": lambda: ("JPEG", stored(image.convert("CMYK"), "JPEG", quality=100), {**rgb, "tolerance": 12}),
        "16-bit grey": lambda: ("PNG", stored(Image.fromarray(deep), "PNG"), {"expected": grey(plain)}),
        "16-bit grey, big-endian": lambda: (
            "TIFF",
            stored(Image.fromarray(deep.astype(">u2")), "TIFF"),
            {"expected": grey(plain)},
        ),
        "32-bit grey": lambda: (
            "TIFF",
            stored(Image.fromarray(deep.astype(np.int32)), "TIFF"),
            {"expected": grey(plain)},
        ),
        "16-bit PGM": lambda: ("PPM", _pgm(deep), {"expected": grey(plain)}),
        "16-bit colour": lambda: ("PNG", _deep_png(shown), rgb),
        "float": lambda: ("TIFF", stored(Image.fromarray(plain.astype(np.float32)), "TIFF"), {"refused": True}),
        "palette": lambda: ("GIF", stored(palette, "GIF"), {"expected": np.asarray(palette.convert("RGB"))}),
        "palette with alpha": lambda: ("PNG", through, {"expected": seen_through}),
        "alpha": lambda: ("PNG", stored(with_alpha, "PNG"), {"expected": on_white, "tolerance": 1}),
        "grey with alpha": lambda: ("PNG", stored(grey_alpha, "PNG"), {"expected": grey_on_white, "tolerance": 1}),
        "one bit": lambda: ("TIFF", stored(Image.fromarray(bits).convert("1"), "TIFF"), {"expected": grey(bits)}),
        "one bit, fax": lambda: (
            "TIFF",
            stored(Image.fromarray(bits).convert("1"), "TIFF", compression="group4"),
            {"expected": grey(bits)},
        ),
        "animated PNG": lambda: ("PNG", stored(image, "PNG", save_all=True, append_images=[other]), rgb),
        "animated WebP": lambda: (
            "WEBP",
            stored(image, "WEBP", save_all=True, append_images=[other], lossless=True),
            rgb,
        ),
        "animated GIF": lambda: (
            "GIF",
            stored(palette, "GIF", save_all=True, append_images=[other.quantize(64)]),
            {"expected": np.asarray(palette.convert("RGB"))},
        ),
        "several pages": lambda: ("TIFF", stored(image, "TIFF", save_all=True, append_images=[other]), rgb),
        "another ending": lambda: (rng.choice(list(ENDINGS)), stored(image, "PNG"), rgb),
        "LZW": lambda: ("TIFF", stored(image, "TIFF", compression="tiff_lzw"), rgb),
        "progressive": lambda: (
            "JPEG",
            stored(image, "JPEG", progressive=True, quality=100, subsampling=0),
            {**rgb, "tolerance": 3},
        ),
    }
    kind = rng.choice(list(makers))
    ending, content, expectation = makers[kind]()
    return Picture(kind, ENDINGS[ending], content, **expectation)


def damaged(rng: random.Random) -> Picture:
    """An image of any format that was cut short, or of which bytes were changed, removed or put in."""
    kind = rng.choice(list(ENDINGS))
    image = Image.fromarray(drawn(rng))
    if kind in ("PNG", "TIFF", "BMP") and rng.random() < 0.5:
        image = image.convert(rng.choice(["L", "P", "1", *(["RGBA", "LA", "I;16"] if kind != "BMP" else ["RGBA"])]))
    content = bytearray(stored(image, kind))
    how = rng.choice(["truncated", "changed", "head changed", "removed", "inserted"])
    place = rng.randrange(len(content))
    if how == "truncated":
        del content[place:]
    elif how == "removed":
        del content[place : place + rng.randint(1, 40)]
    elif how == "inserted":
        content[place:place] = rng.randbytes(rng.randint(1, 40))
    else:
        end = 80 if how == "head changed" else len(content)
        for _ in range(rng.randint(1, 12)):
            content[rng.randrange(min(end, len(content)))] = rng.randrange(256)
    return Picture(f"{how}, {kind}", ENDINGS[kind], bytes(content))


def impostor(rng: random.Random) -> Picture:
    """Something else under the name of an image, some of it images in formats that are not read."""
    image = Image.fromarray(drawn(rng))
    contents = {
        "nothing": b"",
        "text": b"this is a note, not a picture\n" * 5,
        "SVG": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "HTML": b"<!doctype html><script>alert(1)</script>",
        "pickle": b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
        "ZIP": b"PK\x03\x04" + rng.randbytes(60),
        "ELF": b"\x7fELF" + rng.randbytes(60),
        "noise": rng.randbytes(rng.randint(1, 3000)),
        "only a signature": rng.choice(
            [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"RIFF\0\0\0\0WEBP", b"BM", b"P6"]
        ),
        "EPS that runs": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch executed) (w) file\n",
        **{name: stored(image.resize((64, 64)), name) for name in ("ICO", "PCX", "TGA", "EPS", "PDF", "ICNS")},
    }
    kind = rng.choice(list(contents))
    return Picture(kind, rng.choice(list(ENDINGS.values())), contents[kind], refused=True)


def impossible(rng: random.Random) -> Picture:
    """A head that says what cannot be: no pixels, unknown depths, more data than there is."""
    width, height = rng.choice([(0, 0), (0, 7), (7, 0), (7, 7)])
    depth, colour = rng.choice([(8, 2), (8, 2), (3, 2), (16, 3), (255, 6)])
    contents = {
        "PNG": lambda: png(width, height, b"\0" * 9, depth, colour),
        "PPM": lambda: b"P6 %d %d %d\n" % (width, height, rng.choice([0, 255, 65536, 10**9])),
        "BMP": lambda: _bmp(width, -height, rng.choice([0, 7, 24, 33])),
        "GIF": lambda: b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + b",",
        "TIFF": lambda: _tiff(width, height),
    }
    kind = rng.choice(list(contents))
    return Picture(f"impossible head, {kind}", ENDINGS[kind], contents[kind](), refused=True)


def bomb(rng: random.Random) -> Picture:
    """A small file that would fill the memory."""
    width, height = rng.choice([(8193, 8192), (13_000, 13_000), (20_000, 10_000), (65_535, 65_535), (65_000, 1_100)])
    contents = {
        "PNG": lambda: png(width, height, bytes(min(width * height // 8, 2**27)), 1, 0),
        "GIF": lambda: b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
        + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x08\x01\x00\x00;",
        "BMP": lambda: _bmp(width, height, 24),
        "PPM": lambda: b"P6 %d %d 255\n" % (width, height),
        "TIFF": lambda: _tiff(width, height),
    }  # fmt: skip
    kind = rng.choice(list(contents))
    return Picture(f"bomb, {kind}", ENDINGS[kind], contents[kind](), refused=True)


def largest() -> list[Picture]:
    """Images of as many pixels as are decoded, in the modes that take the most memory."""
    flat = [
        Image.new(mode, (8192, 8192), colour) for mode, colour in (("RGBA", (9, 8, 7, 0)), ("I;16", 514), ("LA", 0))
    ]
    return [Picture(f"largest, {image.mode}", ".png", stored(image, "PNG", compress_level=1)) for image in flat]


def png(width: int, height: int, pixels: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """Return a PNG with these fields, whether or not its pixels are as many."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def _deep_png(shown: np.ndarray) -> bytes:
    """Return ``shown`` with 16 bits per channel, the lower 8 of them noise."""
    height, width, _ = shown.shape
    deep = shown.astype(">u2") * 256 + 77
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    return png(width, height, rows, depth=16)


def _pgm(deep: np.ndarray) -> bytes:
    return b"P5 %d %d 65535\n" % (deep.shape[1], deep.shape[0]) + deep.astype(">u2").tobytes()


def _bmp(width: int, height: int, depth: int) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, depth, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head


def _tiff(width: int, height: int) -> bytes:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in {
        256: width,
        257: height,
        258: (8, 8, 8),
        259: 1,
        262: 2,
        273: (8,),
        277: 3,
        278: height,
        279: (9,),
    }.items():
        tags[tag] = value
    buffer = io.BytesIO()
    tags.save(buffer)
    return buffer.getvalue()
