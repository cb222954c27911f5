"""Pictures of findings: one sheet for each image and network, and sheets that compare networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from PIL import Image

from foveate.explain.overlay import overlay, zoom_of
from foveate.explain.painting import Color, marked
from foveate.explain.records import AttentionRecord, Scale
from foveate.explain.sheet import Panel, Strip, contact_sheet
from foveate.io.class_names import class_name

if TYPE_CHECKING:
    from foveate.explain.finding import Finding

__all__ = [
    "CROPPED",
    "WHOLE_PICTURE",
    "Comparison",
    "answered",
    "compare_sheet",
    "comparison",
    "drawn",
    "enlarged",
    "image_sheet",
    "looked_at",
    "own_size",
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
    key: Mapping[str, Color] = field(default_factory=dict)


def image_sheet(finding: Finding) -> Image.Image:
    """Draw the image and every layer of one network."""
    records = list(finding.records)
    rows = []
    for start in range(0, max(1, len(records)), ACROSS):
        image = [Panel(answered(finding, PANEL), _picture(finding, PANEL).title)] if start == 0 else []
        layers = [_layer(finding, record, PANEL) for record in records[start : start + ACROSS]]
        rows.append([Strip(image), Strip(layers)])
    title = f"{finding.name}, {finding.verdict(3)}"
    headings = ("", ", ".join([finding.network, *[finding.source] * (finding.source not in finding.network)]))
    scales = [record.scale for record in records]
    key = None if finding.answer is None else finding.answer.key
    return contact_sheet(
        rows, title=title, headings=headings, scales=scales, notes=_notes([finding]), key=key, side=PANEL
    )


def comparison(findings: Sequence[Finding]) -> Comparison:
    """Return the row of a sheet that compares the findings of several networks for one image."""
    first = findings[0]
    picture = _picture(first, SMALL_PANEL)
    label = next((finding.label for finding in findings if finding.label is not None), None)
    about = [first.name, picture.title, *([] if label is None else [f"it is {class_name(label)}"])]
    strips = [Strip([Panel(picture.picture)], "\n".join(about))]
    for finding in findings:
        answer = [] if finding.answer is None else [Panel(finding.answer.drawn(SMALL_PANEL))]
        layers = [_layer(finding, record, SMALL_PANEL, heading=True) for record in finding.records]
        shown = [record.looks_at_all() for record in finding.records if record.rectangle is not None]
        whole = bool(shown) and all(shown)
        strips.append(Strip([*answer, *layers], f"{finding.verdict()}{f'; {WHOLE_PICTURE}' * whole}"))
    answers = [(finding, finding.answer) for finding in findings if finding.answer is not None]
    alike = len({(type(answer), tuple(finding.classes)) for finding, answer in answers}) < 2  # else in other colors
    key = {
        name if alike else f"{name} ({finding.network})": color
        for finding, answer in answers
        for name, color in answer.key.items()
    }
    scales = [record.scale for finding in findings for record in finding.records]
    return Comparison(strips, scales, _notes(findings), key)


def compare_sheet(rows: Sequence[Comparison], networks: Sequence[str]) -> Image.Image:
    """Draw several images, one a row, as several networks saw them; their names stand above the first."""
    others = [[Strip([Panel(panel.picture) for panel in s.panels], s.caption) for s in row.strips] for row in rows[1:]]
    return contact_sheet(
        [rows[0].strips, *others],
        headings=("", *networks),
        scales=[scale for row in rows for scale in row.scales],
        notes=list(dict.fromkeys(note for row in rows for note in row.notes)),
        key={name: color for row in rows for name, color in row.key.items()},
        side=SMALL_PANEL,
    )


def own_size(finding: Finding, record: AttentionRecord) -> Image.Image:
    """Draw one layer over the image at its own size."""
    return overlay(finding.image, record, placement=finding.placement)


def enlarged(image: Image.Image, side: int) -> Image.Image:
    """Return an image at the size at which it is shown."""
    zoom = zoom_of(image, side)
    how = Image.Resampling.NEAREST if zoom >= 1 else Image.Resampling.LANCZOS
    return image.resize((max(1, round(image.width * zoom)), max(1, round(image.height * zoom))), how)


def drawn(finding: Finding, record: AttentionRecord, side: int) -> Image.Image:
    """Draw one layer over the image, at the size of `enlarged`."""
    return overlay(finding.image, record, zoom=zoom_of(finding.image, side), placement=finding.placement)


def answered(finding: Finding, side: int) -> Image.Image:
    """Draw the image with the mask or the boxes that a network sees in it, and the pixel that was asked for."""
    if finding.answer is None:
        return enlarged(finding.image, side)
    picture = finding.answer.drawn(side)
    return picture if finding.query is None else marked(picture, finding.image, finding.query)


def looked_at(finding: Finding, side: int) -> Image.Image:
    """Draw where the network looked, by the first record; of a network without attention, the image."""
    return drawn(finding, finding.records[0], side) if finding.records else enlarged(finding.image, side)


def _picture(finding: Finding, side: int) -> Panel:
    return Panel(enlarged(finding.image, side), f"{finding.image.width}×{finding.image.height} pixels")


def _layer(finding: Finding, record: AttentionRecord, side: int, *, heading: bool = False) -> Panel:
    """Draw a layer under its name, which, as a heading, is of the layers of other images as well."""
    about = f"{record.kind}, {record.map.shape[2]}×{record.map.shape[1]}"
    whole = record.looks_at_all() and not heading
    return Panel(drawn(finding, record, side), f"{record.name}\n{WHOLE_PICTURE if whole else about}")


def _notes(findings: Sequence[Finding]) -> list[str]:
    """Explain what is drawn besides the colors."""
    notes = {}
    for finding in findings:
        for record in finding.records:
            if record.rectangle is not None:
                notes["rectangle"] = "Outline: the rectangle attended to."
                if record.looks_at_all():
                    notes["whole"] = f"In its own colors: {WHOLE_PICTURE}."
            elif record.box is not None:
                notes["box"] = "Outline: the positions of the box, which attend together."
            elif record.radius is not None:
                notes["circle"] = "Circle: the learned radius of explicit attention around the position that attends."
            elif record.query is not None:
                notes["square"] = "Outlined square: the position that attends."
        if finding.answer is not None and not finding.records:
            notes["none"] = f"{finding.network} has no attention to show, and Grad-CAM explains classifiers."
        if finding.cropped:
            notes["margin"] = CROPPED
        if finding.unlike:
            about = f"{finding.name} is for {finding.network} {finding.warning}: what it predicts means nothing."
            notes[about] = about
    return list(notes.values())
