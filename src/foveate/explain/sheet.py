"""Contact sheets: what several networks, and several layers of each, attended to in several images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from foveate import _checks
from foveate.explain.lettering import QUIET, TEXT, font, height_of, legend, wrapped, write
from foveate.explain.painting import key_of_colors
from foveate.explain.records import Scale

__all__ = ["Panel", "Strip", "contact_sheet"]


@dataclass(frozen=True)
class Panel:
    """A picture and the title above it.

    Examples:
        >>> foveate.explain.Panel(Image.new("RGB", (32, 24)), "layer3").title
        'layer3'
    """

    picture: Image.Image
    title: str = ""


@dataclass(frozen=True)
class Strip:
    """Pictures side by side that belong together, such as the layers of one network, and the caption below them.

    Examples:
        >>> panels = [foveate.explain.Panel(Image.new("RGB", (32, 24)), name) for name in ("layer3", "layer4")]
        >>> foveate.explain.Strip(panels, "predicted cat (91.0%)").caption
        'predicted cat (91.0%)'
    """

    panels: Sequence[Panel]
    caption: str = ""


@dataclass(frozen=True)
class _Metrics:
    """Lengths in pixels, all in proportion to the side of a picture."""

    side: int

    @property
    def letters(self) -> int:
        return max(11, round(self.side / 18))

    @property
    def gap(self) -> int:
        return round(0.9 * self.letters)


def contact_sheet(
    rows: Sequence[Sequence[Strip]],
    *,
    title: str = "",
    headings: Sequence[str] = (),
    scales: Sequence[Scale] = (),
    notes: Sequence[str] = (),
    key: Mapping[str, tuple[int, int, int]] | None = None,
    side: int = 240,
) -> Image.Image:
    """Lay strips of pictures out in rows and columns, with their titles and captions, and a legend below.

    Args:
        rows: Strips of each row, one per column; a column is as wide as the longest of its strips, and an empty strip
            leaves its place empty. Pictures larger than ``side`` are reduced, smaller ones left as they are.
        title: Title of the sheet.
        headings: One for each column of strips, above the first row.
        scales: Scales explained in the legend, in this order, each once.
        key: Colors of classes by their names, shown above the legend.
        notes: Lines below the legend, such as what an outline means.
        side: Longer side of a picture, in pixels; letters are in proportion.

    Examples:
        >>> strip = foveate.explain.Strip([foveate.explain.Panel(Image.new("RGB", (64, 64)))])
        >>> foveate.explain.contact_sheet([[strip, strip]], headings=("ExpAtt", "GSA"), side=64).width
        188
    """
    metrics = _Metrics(_checks.integer("side", side, minimum=32))
    counts = {len(row) for row in rows}
    if len(counts) != 1 or not any(strip.panels for row in rows for strip in row):
        raise ValueError(f"rows must hold the same number of strips each, and a picture; got {[len(r) for r in rows]}")
    (count,) = counts
    if headings and len(headings) != count:
        raise ValueError(f"headings must be one for each of the {count} columns; got {len(headings)}")
    most = [max(1, *(len(row[column].panels) for row in rows)) for column in range(count)]
    widths = [n * side + (n - 1) * metrics.gap for n in most]
    width = sum(widths) + (count - 1) * 2 * metrics.gap
    parts = [_heading(title, width, metrics)] if title else []
    if any(headings):
        parts.append(_headings(headings, widths, metrics))
    parts += [_row(row, widths, metrics) for row in rows]
    if key:
        parts.append(key_of_colors(key, size=metrics.letters, width=width))
    parts += [legend(scale, size=metrics.letters, width=width) for scale in dict.fromkeys(scales)]
    if notes:
        parts.append(_text("\n".join(notes), width, metrics, color=QUIET))
    return _stacked(parts, width, metrics)


def _stacked(parts: Sequence[Image.Image], width: int, metrics: _Metrics) -> Image.Image:
    margin = 2 * metrics.gap
    height = sum(part.height for part in parts) + (len(parts) - 1) * metrics.gap
    sheet = Image.new("RGB", (width + 2 * margin, height + 2 * margin), "white")
    top = margin
    for part in parts:
        sheet.paste(part, (margin, top))
        top += part.height + metrics.gap
    return sheet


def _text(
    text: str, width: int, metrics: _Metrics, *, larger: float = 1, bold: bool = False, color: str = TEXT
) -> Image.Image:
    face = font(round(larger * metrics.letters), bold=bold)
    text = wrapped(text, face, width)
    picture = Image.new("RGB", (width, max(1, height_of(text, face))), "white")
    write(picture, (0, 0), text, face, color)
    return picture


def _heading(title: str, width: int, metrics: _Metrics) -> Image.Image:
    return _text(title, width, metrics, larger=1.25, bold=True)


def _headings(headings: Sequence[str], widths: Sequence[int], metrics: _Metrics) -> Image.Image:
    """Write the heading of each column over a rule as wide as the column."""
    texts = [_text(heading, width, metrics, bold=True) for heading, width in zip(headings, widths, strict=True)]
    rule = max(1, metrics.letters // 8)
    height = max(text.height for text in texts) + 3 * rule
    picture = Image.new("RGB", (sum(widths) + (len(widths) - 1) * 2 * metrics.gap, height), "white")
    left = 0
    for text, heading, width in zip(texts, headings, widths, strict=True):
        picture.paste(text, (left, height - 3 * rule - text.height))
        if heading:
            ImageDraw.Draw(picture).rectangle([left, height - rule, left + width - 1, height - 1], fill=QUIET)
        left += width + 2 * metrics.gap
    return picture


def _row(row: Sequence[Strip], widths: Sequence[int], metrics: _Metrics) -> Image.Image:
    """Draw one row: titles on one line, pictures hanging from it, captions below."""
    side, face = metrics.side, font(metrics.letters)
    titles = [[wrapped(panel.title, face, side) for panel in strip.panels] for strip in row]
    pictures = [[_fitted(panel.picture, side) for panel in strip.panels] for strip in row]
    captions = [wrapped(strip.caption, face, width) for strip, width in zip(row, widths, strict=True)]
    above = max((height_of(title, face) for strip in titles for title in strip), default=0)
    middle = max((picture.height for strip in pictures for picture in strip), default=0)
    below = max(height_of(caption, face) for caption in captions)
    total = above + middle + (below + metrics.gap // 2 if below else 0)
    canvas = Image.new("RGB", (sum(widths) + (len(widths) - 1) * 2 * metrics.gap, total), "white")
    left = 0
    for strip_titles, strip_pictures, caption, width in zip(titles, pictures, captions, widths, strict=True):
        x = left
        for text, picture in zip(strip_titles, strip_pictures, strict=True):
            write(canvas, (x, above - height_of(text, face)), text, face, QUIET)
            canvas.paste(picture, (x, above))
            x += side + metrics.gap
        write(canvas, (left, above + middle + metrics.gap // 2), caption, face)
        left += width + 2 * metrics.gap
    return canvas


def _fitted(picture: Image.Image, side: int) -> Image.Image:
    if max(picture.size) <= side:
        return picture.convert("RGB")
    scale = side / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
