"""Pictures of findings: one sheet for each image and network, and sheets that compare networks."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from foveate._version import __version__
from foveate.data.given import SOFTWARE, is_ours
from foveate.explain.overlay import overlay
from foveate.explain.records import AttentionRecord, Scale
from foveate.explain.sheet import Panel, Strip, contact_sheet
from foveate.io.files import write_bytes
from foveate.io.streams import printable

if TYPE_CHECKING:
    from foveate.explain.finding import Finding

__all__ = [
    "CROPPED",
    "WHOLE_PICTURE",
    "Comparison",
    "check_ours",
    "compare_sheet",
    "comparison",
    "drawn",
    "enlarged",
    "image_sheet",
    "own_size",
    "write_png",
    "zoom_of",
]

PANEL, SMALL_PANEL = 400, 240
"""Longer side in pixels of the pictures of one image's sheet, and of those of a comparison."""
ACROSS = 4
"""Number of layers side by side in one image's sheet."""
WHOLE_PICTURE = "it looks at the whole picture"
"""What is said of a rectangle that covers it."""
CROPPED = "Pale, without color: cropped away before the network saw the image."
"""Note on the picture of an image that was cropped."""


@dataclass(frozen=True)
class Comparison:
    """One image's row of a sheet that compares networks."""

    strips: Sequence[Strip]
    scales: Sequence[Scale]
    notes: Sequence[str]


def image_sheet(finding: Finding) -> Image.Image:
    """Draw the image and every layer of one network."""
    records = list(finding.records)
    rows = []
    for start in range(0, len(records), ACROSS):
        image = [_picture(finding, PANEL)] if start == 0 else []
        layers = [_layer(finding, record, PANEL) for record in records[start : start + ACROSS]]
        rows.append([Strip(image), Strip(layers)])
    title = f"{finding.name}, {finding.verdict(3)}"
    headings = ("", ", ".join([finding.network, *[finding.source] * (finding.source not in finding.network)]))
    scales = [record.scale for record in records]
    return contact_sheet(rows, title=title, headings=headings, scales=scales, notes=_notes([finding]), side=PANEL)


def comparison(findings: Sequence[Finding]) -> Comparison:
    """Return the row of a sheet that compares the findings of several networks for one image."""
    first = findings[0]
    picture = _picture(first, SMALL_PANEL)
    about = [first.name, picture.title, *([] if first.label is None else [f"it is {first.label}"])]
    strips = [Strip([Panel(picture.picture)], "\n".join(about))]
    for finding in findings:
        strips.append(Strip([_layer(finding, record, SMALL_PANEL) for record in finding.records], finding.verdict()))
    scales = [record.scale for finding in findings for record in finding.records]
    return Comparison(strips, scales, _notes(findings))


def compare_sheet(rows: Sequence[Comparison], networks: Sequence[str]) -> Image.Image:
    """Draw several images, one a row, as several networks saw them; their names stand above the first."""
    others = [[Strip([Panel(panel.picture) for panel in s.panels], s.caption) for s in row.strips] for row in rows[1:]]
    return contact_sheet(
        [rows[0].strips, *others],
        headings=("", *networks),
        scales=[scale for row in rows for scale in row.scales],
        notes=list(dict.fromkeys(note for row in rows for note in row.notes)),
        side=SMALL_PANEL,
    )


def own_size(finding: Finding, record: AttentionRecord) -> Image.Image:
    """Draw one layer over the image at its own size."""
    return overlay(finding.image, record, placement=finding.placement)


def zoom_of(image: Image.Image, side: int) -> float:
    """Return the factor by which a small image is enlarged (a whole number) or a large one reduced."""
    zoom = side / max(image.size)
    return zoom if zoom < 1 else int(zoom)


def enlarged(image: Image.Image, side: int) -> Image.Image:
    """Return an image at the size at which it is shown."""
    zoom = zoom_of(image, side)
    how = Image.Resampling.NEAREST if zoom >= 1 else Image.Resampling.LANCZOS
    return image.resize((max(1, round(image.width * zoom)), max(1, round(image.height * zoom))), how)


def drawn(finding: Finding, record: AttentionRecord, side: int) -> Image.Image:
    """Draw one layer over the image, at the size of `enlarged`."""
    return overlay(finding.image, record, zoom=zoom_of(finding.image, side), placement=finding.placement)


def _picture(finding: Finding, side: int) -> Panel:
    return Panel(enlarged(finding.image, side), f"{finding.image.width}×{finding.image.height} pixels")


def _layer(finding: Finding, record: AttentionRecord, side: int) -> Panel:
    about = f"{record.kind}, {record.map.shape[2]}×{record.map.shape[1]}"
    return Panel(drawn(finding, record, side), f"{record.name}\n{WHOLE_PICTURE if record.looks_at_all() else about}")


def _notes(findings: Sequence[Finding]) -> list[str]:
    """Explain what is drawn besides the colors."""
    notes = {}
    for finding in findings:
        for record in finding.records:
            if record.rectangle is not None:
                notes["rectangle"] = "Outline: the rectangle attended to."
                if record.looks_at_all():
                    notes["whole"] = f"In its own colors: {WHOLE_PICTURE}."
            elif record.radius is not None:
                notes["circle"] = "Circle: the learned radius of explicit attention around the position that attends."
            elif record.query is not None:
                notes["square"] = "Outlined square: the position that attends."
        if finding.cropped:
            notes["margin"] = CROPPED
        if finding.unlike:
            about = f"{finding.name} is for {finding.network} {finding.warning}: what it predicts means nothing."
            notes[about] = about
    return list(notes.values())


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
