"""Findings as numbers, for a file."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from foveate.explain.finding import Finding
from foveate.explain.records import AttentionRecord
from foveate.io.class_names import class_name

__all__ = ["finding_numbers", "seen_positions"]

GUESSES = 5


def finding_numbers(finding: Finding) -> dict[str, Any]:
    """Return the numbers of a finding, for JSON.

    Points are [x, y], in pixels ``image`` of the image (upright) or ``input`` of what the network saw; positions of
    pixels are [row, column].
    """
    height, width = finding.placement.input_size
    return {
        "network": finding.network,
        **(_predictions(finding) if finding.answer is None else finding.answer.numbers(finding.query)),
        "unlike_training": list(finding.unlike),
        "seen": {"corners": _points(finding, [[0, 0], [width, 0], [width, height], [0, height]])},
        "layers": [_record_numbers(finding, record) for record in finding.records],
    }


def _predictions(finding: Finding) -> dict[str, Any]:
    classes, (guesses,) = finding.classes, finding.explanation.top(GUESSES)
    return {
        "predictions": [
            {"class": classes[label], "name": class_name(classes[label]), "index": label, "probability": p}
            for label, p in guesses
        ],
        "correct": None if finding.label is None else classes[guesses[0].label] == finding.label,
    }


def _record_numbers(finding: Finding, record: AttentionRecord) -> dict[str, Any]:
    whole = record.map[0]
    rows, columns = seen_positions(finding, record)
    values = whole[rows, columns]
    row, column = divmod(int(values.argmax()), values.shape[1])
    size = np.array(record.image_size)
    peak = ((np.array([rows.start + row, columns.start + column]) + 0.5) * size / whole.shape)[::-1].tolist()
    numbers: dict[str, Any] = {
        "name": record.name,
        "kind": record.kind,
        "map_size": list(whole.shape),
        "scale": dataclasses.asdict(record.scale),
        "least": float(values.min()),
        "mean": float(values.mean()),
        "most": float(values.max()),
        "peak": _points(finding, peak),
    }
    if record.rectangle is not None and record.numbers is not None and record.shape is not None:
        shape = record.shape
        numbers["rectangle"] = {
            "numbers": dict(zip(("cx", "cy", "sx", "sy", "angle"), record.numbers[0].tolist(), strict=True)),
            "corners": _points(finding, record.rectangle[0].tolist()),
            "centre": _points(finding, shape.center[0].tolist()),
            "sides": {"input": shape.sides[0].tolist()},
            "angle": {"input": float(shape.angle[0])},
        }
    if record.radius is not None and record.radius_image is not None:
        scale = finding.placement.to_image([[0, 0], record.radius_image])
        numbers["radius"] = {
            "map": record.radius,
            "input": list(record.radius_image),
            "image": (scale[1] - scale[0]).tolist(),
        }
    if record.query is not None:
        numbers["query"] = {"input": list(record.query), "map": list(record.position(record.query))}
    if record.box is not None:
        rows, columns = record.positions(record.box)
        corners = _points(finding, [record.box[:2], record.box[2:]])
        numbers["box"] = {**corners, "map": {"rows": [rows.start, rows.stop], "columns": [columns.start, columns.stop]}}
    if record.target is not None:
        numbers["target"] = finding.classes[record.target[0]]
    return numbers


def seen_positions(finding: Finding, record: AttentionRecord) -> tuple[slice, slice]:
    """Return rows and columns of a map whose positions have their middle in the image, not in its padding."""
    left, top, right, bottom = finding.placement.extent((finding.image.height, finding.image.width))
    kept = []
    for low, high, side, number in zip(
        (top, left), (bottom, right), record.image_size, record.map.shape[1:], strict=True
    ):
        middles = (np.arange(number) + 0.5) * side / number
        first, last = np.searchsorted(middles, [low, high])
        first = min(int(first), number - 1)
        kept.append(slice(first, max(int(last), first + 1)))
    return kept[0], kept[1]


def _points(finding: Finding, points: list[Any]) -> dict[str, Any]:
    """Return points of the network's input, also in pixels of the image."""
    return {"image": finding.placement.to_image(points).tolist(), "input": points}
