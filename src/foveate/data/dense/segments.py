"""Masks of objects as COCO writes them: polygons, and lengths of runs down the columns."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foveate import _extras

__all__ = ["Segment", "Segments", "segment"]

COMPRESSED = re.compile(r"(?:[P-o]{0,5}[0-O])+")
"""Text of run lengths: groups of characters of six bits from ``0`` on, the sixth set where the number goes on."""

Segment = tuple[np.ndarray, ...] | np.ndarray
"""An object's polygons, or the lengths of its runs."""


@dataclass(frozen=True)
class Segments:
    """The masks of an image's objects, to be drawn."""

    segments: Sequence[Segment]

    def __call__(self, size: tuple[int, int]) -> np.ndarray:
        """Return ``(n, height, width)`` bool."""
        masks = np.zeros((len(self.segments), *size), bool)
        for mask, segment in zip(masks, self.segments, strict=True):
            mask[:] = _runs(segment, size) if isinstance(segment, np.ndarray) else _polygons(segment, size)
        return masks


def segment(value: Any, size: tuple[int, int], called: str) -> Segment:
    """Return the ``segmentation`` of an object; raise a `ValueError` if it is malformed or not of an image of ``size``.

    What draws polygons trusts them: coordinates far out of the image would take any memory, and runs that are too short
    leave memory undefined. So all is checked here.
    """
    if isinstance(value, list):
        return tuple(_polygon(polygon, size, called) for polygon in value)
    if not isinstance(value, dict) or value.get("size") != list(size):
        raise ValueError(f"{called} must be polygons, or runs of size {list(size)}; got {json.dumps(value)[:80]}")
    counts = value.get("counts")
    if isinstance(counts, str):
        counts = _decompressed(counts, called)
    whole = isinstance(counts, list) and all(type(count) is int and count >= 0 for count in counts)
    if not isinstance(counts, list) or not whole or sum(counts) != math.prod(size):
        raise ValueError(f"{called}.counts must be lengths that sum up to {math.prod(size)} pixels")
    return np.array(counts, np.int64)


def _polygon(polygon: Any, size: tuple[int, int], called: str) -> np.ndarray:
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        raise ValueError(
            f"{called}: a polygon must be x and y of at least three points; got {json.dumps(polygon)[:80]}"
        )
    height, width = size
    for number, value in enumerate(polygon):
        side = height if number % 2 else width
        if type(value) not in (int, float) or not -side <= value <= 2 * side:
            raise ValueError(f"{called}: a polygon must be in the image of {width}×{height}; got {json.dumps(value)}")
    return np.array(polygon, np.float64)  # a quarter of the memory of a list


def _decompressed(text: str, called: str) -> list[int]:
    if not COMPRESSED.fullmatch(text):
        raise ValueError(f"{called}.counts is not the text of run lengths; got {text[:40]!r}")
    counts: list[int] = []
    value = place = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 31) << place
        place += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << place
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))  # from the fourth on, what is added
        value = place = 0
    return counts


def _runs(counts: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T


def _polygons(polygons: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    masks = _extras.require("pycocotools.mask", extra="dense")
    return masks.decode(masks.merge(masks.frPyObjects([polygon.tolist() for polygon in polygons], *size))).astype(bool)
