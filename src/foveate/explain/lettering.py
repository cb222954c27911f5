"""Text on pictures, and the legend of a scale."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import matplotlib
from PIL import Image, ImageColor, ImageDraw, ImageFont

from foveate.explain.overlay import palette_stops
from foveate.explain.records import Scale
from foveate.io.streams import printable

__all__ = ["QUIET", "TEXT", "font", "height_of", "legend", "shortened", "width_of", "wrapped", "write"]

TEXT, QUIET = "#1d2329", "#56616d"
LINE_HEIGHT = 1.35
TICKS = 5


@lru_cache
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which comes with matplotlib: Latin, Greek, Cyrillic and mathematical signs."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), size)


def width_of(text: str, face: ImageFont.FreeTypeFont) -> float:
    """Return the width in pixels of the longest line of ``text``."""
    return max((face.getlength(line) for line in text.split("\n")), default=0.0)


def height_of(text: str, face: ImageFont.FreeTypeFont) -> int:
    """Return the height in pixels of the lines of ``text``; 0 for no text."""
    return round(len(text.split("\n")) * face.size * LINE_HEIGHT) if text else 0


def write(
    picture: Image.Image, place: tuple[float, float], text: str, face: ImageFont.FreeTypeFont, color: str = TEXT
) -> None:
    """Write the lines of ``text`` on ``picture``; ``place`` is x and y of their upper left corner."""
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(text.split("\n")):
        draw.text((place[0], place[1] + number * face.size * LINE_HEIGHT), line, color, face)


def wrapped(text: str, face: ImageFont.FreeTypeFont, width: float) -> str:
    """Break the lines of ``text`` between words to at most ``width`` pixels; a longer word is shortened."""
    lines = []
    for line in printable(text).split("\n"):
        current = ""
        for word in line.split():
            longer = f"{current} {word}".strip()
            if current and width_of(longer, face) > width:
                lines.append(current)
                longer = word
            current = shortened(longer, face, width)
        lines.append(current)
    return "\n".join(lines)


def shortened(text: str, face: ImageFont.FreeTypeFont, width: float) -> str:
    """Return ``text``, shortened in the middle to ``width`` pixels."""
    if width_of(text, face) <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        short = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
        if width_of(short, face) <= width:
            return short
    return "…"


def legend(scale: Scale, *, size: int, width: int) -> Image.Image:
    """Draw the colors of ``scale`` with its numbers and their meaning, in letters of ``size`` pixels.

    The colors are translucent: above as they look over white, below as over black.
    """
    face = font(size)
    bar = Image.new("RGB", (min(16 * size, width), 2 * size))
    draw = ImageDraw.Draw(bar)
    over_white, over_black = (
        [ImageColor.getrgb(stop) for stop in palette_stops(bar.width, ground=ground)] for ground in (255, 0)
    )
    for x in range(bar.width):
        for y in range(bar.height):
            dark = y / (bar.height - 1)
            color = (
                round(light + (black - light) * dark) for light, black in zip(over_white[x], over_black[x], strict=True)
            )
            draw.point((x, y), tuple(color))
    gap = 2 * size
    beside = width - bar.width - gap > 20 * size
    meaning = wrapped(scale.meaning, face, width - bar.width - gap if beside else width)
    bar_height = bar.height + round(1.6 * size)
    total = max(bar_height, height_of(meaning, face)) if beside else bar_height + size + height_of(meaning, face)
    picture = Image.new("RGB", (width, total), "white")
    picture.paste(bar, (0, 0))
    for tick in range(TICKS):
        share = tick / (TICKS - 1)
        at = share * (bar.width - 1)
        label = f"{scale.low + share * (scale.high - scale.low):g}"
        ImageDraw.Draw(picture).line([(at, bar.height), (at, bar.height + size // 3)], fill=TEXT)
        # The first number is flush left, the last flush right, the others are centered.
        before = share if share in (0, 1) else 0.5
        write(picture, (at - before * width_of(label, face), bar.height + size // 3), label, face)
    write(picture, (bar.width + gap, 0) if beside else (0, bar_height + size // 2), meaning, face, QUIET)
    return picture
