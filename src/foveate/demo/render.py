"""HTML of the page: mechanisms in plain words, predictions as bars, the scale, the numbers behind a picture."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

from foveate.explain import AttentionRecord, Scale, palette_stops
from foveate.explain.finding import Answer, Finding
from foveate.explain.numbers import seen_positions
from foveate.explain.pictures import CROPPED, WHOLE_PICTURE, answered
from foveate.io.class_names import class_name
from foveate.io.streams import printable

__all__ = [
    "Mechanism",
    "comparison",
    "escaped",
    "meaning",
    "mechanism",
    "numbers",
    "picture_tag",
    "prediction",
    "scale",
    "scale_bar",
]

MOST_BARS, MOST_COMPARED = 10, 3
UNSURE = 0.2
"""Probability of the predicted class below which the page says that the network is not sure."""


def escaped(text: str) -> str:
    """Return text for HTML; the bytes of names that are not UTF-8 are written out, as they cannot be sent."""
    return html.escape(printable(text))


class Mechanism(NamedTuple):
    """A mechanism in plain words."""

    name: str
    seen: str
    """What one sees in the picture, in a sentence or two."""


def mechanism(finding: Finding) -> Mechanism:
    """Return the words for what the record of a finding shows, and for what a reader can do with it."""
    if not finding.records:
        return Mechanism("Without attention", "This network has no attention to show; Grad-CAM explains classifiers.")
    (record,) = finding.records
    can = ""
    if record.radius is not None:
        can += " Change the radius: map and prediction follow."
    if record.looks_at_all():
        can += f" In this image {WHOLE_PICTURE}, so that nothing is colored."
    if record.weights is not None:
        can += " Click a pixel of a picture to see from where it takes."
    return Mechanism(record.title, record.description + can)


def prediction(finding: Finding, most: int = MOST_BARS) -> str:
    """Write the verdict and the probability of each class (the ``most`` probable if there are more) as HTML.

    Of a mask they are the shares of the classes, of objects the scores, with the colors that they are drawn in.
    """
    if finding.answer is not None:
        return _parts(finding, finding.answer, most)
    classes = finding.classes
    ranked = finding.explanation.top(len(classes))[0]
    best = ranked[0].label
    shown = sorted(ranked) if len(classes) <= most else ranked[:most]  # few stay in their places while one compares
    rows = []
    for label, probability in shown:
        true = classes[label] == finding.label
        marks = " best" * (label == best) + " true" * true
        note = ' <abbr title="the true class">✓</abbr>' if true else ""
        rows.append(
            f'<div class="bar{marks}" role="listitem"><span>{escaped(class_name(classes[label]))}{note}</span>'
            f'<i><b style="width:{probability:.2%}"></b></i><span>{probability:.1%}</span></div>'
        )
    return f'{_verdict(finding)}<div class="bars" role="list" aria-label="probabilities">{"".join(rows)}</div>'


def _parts(finding: Finding, answer: Answer, most: int) -> str:
    rows = []
    for name, value in answer.parts()[:most]:
        color = "rgb({}, {}, {})".format(*answer.key[name])
        rows.append(
            f'<div class="bar" role="listitem"><span><i class="swatch" style="background:{color}"></i>'
            f'{escaped(class_name(name))}</span><i><b style="width:{value:.2%}"></b></i><span>{value:.1%}</span></div>'
        )
    said = finding.verdict()
    verdict = f'{_doubt(finding)}<p class="verdict">{escaped(said[0].upper() + said[1:])}</p>'
    return f'{verdict}<div class="bars" role="list" aria-label="shares or scores">{"".join(rows)}</div>'


def _verdict(finding: Finding) -> str:
    return f"{_doubt(finding)}{_said(finding)}"


def _doubt(finding: Finding) -> str:
    """Warn where the network was not made for such an image."""
    if not finding.unlike:
        return ""
    return f'<p class="doubt" role="alert">This image is {finding.warning}: its answer means nothing here.</p>'


def _said(finding: Finding) -> str:
    classes, (guess,) = finding.classes, finding.explanation.top(1)[0]
    said = f"Predicted <b>{escaped(class_name(classes[guess.label]))}</b>, {guess.probability:.1%}"
    if finding.label is None:
        if guess.probability < UNSURE:
            said = f"Not sure. {said}: it may be none of the {len(classes)} classes that this network knows"
        return f'<p class="verdict">{said}</p>'
    if classes[guess.label] == finding.label:
        return f'<p class="verdict right">{said}: right</p>'
    return f'<p class="verdict wrong">{said}: wrong, it is <b>{escaped(class_name(finding.label))}</b></p>'


def scale(finding: Finding) -> str:
    """Draw the scale of the record of a finding, if it has one."""
    return "".join(scale_bar(record.scale) for record in finding.records)


def scale_bar(scale: Scale) -> str:
    """Draw the colors of a scale with their numbers, above as over white and below as over black, as HTML."""
    strips = "".join(
        f'<i style="background:linear-gradient(to right,{",".join(palette_stops(17, ground=ground))})"></i>'
        for ground in (255, 0)
    )
    values = (scale.low + share * (scale.high - scale.low) for share in (0, 0.25, 0.5, 0.75, 1))
    ticks = "".join(f"<span>{value:g}</span>" for value in values)
    return (
        f'<div class="scale"><div class="strips" title="above over white, below over black">{strips}</div>'
        f'<div class="ticks">{ticks}</div></div>'
    )


def meaning(*findings: Finding) -> str:
    """Say what the colors of the pictures mean, each scale once, as HTML."""
    scales = [record.scale.meaning for finding in findings for record in finding.records]
    said = [f"{words[0].upper()}{words[1:]}." for words in scales] + [CROPPED for f in findings if f.cropped]
    return "".join(f'<p class="meaning">{escaped(words)}</p>' for words in dict.fromkeys(said))


def numbers(finding: Finding) -> str:
    """Write the numbers behind the picture as a table in HTML: those of the rectangle, the radius or the position."""
    if not finding.records:
        return ""
    (record,) = finding.records
    rows = [("Layer", f"{record.name}, {record.map.shape[1]}×{record.map.shape[2]} positions")]
    rows += _rectangle(finding, record)
    if record.radius is not None and record.radius_image is not None:
        (x0, y0), (x1, y1) = finding.placement.to_image([[0, 0], record.radius_image]).tolist()
        rows.append(("Radius", f"{record.radius:.2f} positions, {x1 - x0:.1f} × {y1 - y0:.1f} pixels"))
    if record.query is not None:
        row, column = record.position(record.query)
        rows.append(("Position", f"row {row + 1}, column {column + 1} of the map"))
    if record.target is not None:
        rows.append(("Class", class_name(finding.classes[record.target[0]])))
    values = record.map[0][seen_positions(finding, record)]
    least, most = float(values.min()), float(values.max())
    rows.append(("Values", f"from {least:.2f} to {most:.2f}"))
    body = "".join(f"<tr><th>{escaped(name)}</th><td>{escaped(value)}</td></tr>" for name, value in rows)
    return f'<table class="numbers">{body}</table>'


def _rectangle(finding: Finding, record: AttentionRecord) -> list[tuple[str, str]]:
    if record.rectangle is None or record.numbers is None:
        return []
    cx, cy, sx, sy, angle = record.numbers[0].tolist()
    corners = finding.placement.to_image(record.rectangle[0].numpy()).tolist()
    return [
        (
            "Five numbers",
            f"centre ({cx:.2f}, {cy:.2f}), half-sides {sx:.2f} and {sy:.2f}, angle {math.degrees(angle):.0f}°",
        ),
        ("", "where the map spans −1 to 1, x to the right and y down"),
        ("Corners", ", ".join(f"({x:.1f}, {y:.1f})" for x, y in corners) + " in pixels"),
    ]


def comparison(image: Image.Image, label: str | None, columns: Sequence[tuple[str, Finding, Image.Image]]) -> str:
    """Lay an image and what several networks made of it out side by side, as HTML.

    Args:
        image: As it is to be shown.
        label: Its true class, where it is known.
        columns: What each network is called, what it made of it, and the picture of that.
    """
    about = "the image" if label is None else f"the image: it is {label}"
    figures = [
        f"<figure><figcaption><b>{escaped(about.capitalize())}</b></figcaption>{picture_tag(image, about)}</figure>"
    ]
    for name, finding, picture in columns:
        says = "" if finding.answer is None else picture_tag(answered(finding, max(picture.size)), "what it says")
        figures.append(
            f"<figure><figcaption><b>{escaped(name)}</b></figcaption>{says}{picture_tag(picture, name)}"
            f"{scale(finding)}{prediction(finding, MOST_COMPARED)}</figure>"
        )
    return f'<div class="comparison">{"".join(figures)}</div>{meaning(*(finding for _, finding, _ in columns))}'


def picture_tag(picture: Image.Image, description: str) -> str:
    """Return an ``<img>`` that holds the picture itself."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{escaped(description)}" src="data:image/png;base64,{data}">'
