"""Stability of attention as a table."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from foveate.report.text import WIDTH, markdown

__all__ = ["COMPARED", "to_markdown"]

COMPARED = ("changes", "seeds", "layers")
"""What is compared: an image and a changed one, networks of two seeds, two layers."""


def to_markdown(table: Mapping[str, Any]) -> str:
    """Return the table, and what its columns mean."""
    header = ["network", "attention at", "seeds", "TV", "region %"]
    header += [f"{name} {what}" for what in ("changed image", "other seed", "other layer") for name in ("r", "IoU")]
    rows = []
    for place in table["places"]:
        row = [place["family"] + (" (all in one)" if place["together"] else ""), place["gate"]]
        row += [str(len(place["seeds"])), _cell(place["total_variation"]), _cell(place["inside"], 100, ".0f")]
        for what in COMPARED:
            row += [_with_chance(place["agreement"][what], name) for name in ("correlation", "iou")]
        rows.append(row)
    changes = table["variant"]
    caption = (
        f"{table['data']}: {table['images']} {table['split']} images, {table['augmentations']} changed variants of "
        f"each: shifted by up to {changes['shift']:g} sides, turned by up to {changes['rotation']:g}°, scaled by a "
        f"factor of up to {changes['scale']:g} or its reciprocal, contrast and brightness likewise by "
        f"{changes['colour']:g}. r: correlation of the maps; IoU: of the regions where they reach half their maximum; "
        "in parentheses both of unrelated images, what maps share without looking. TV: total variation; of a sharp "
        "rectangle, its circumference in sides of the image. Region: share of the image where the map reaches half "
        "its maximum. ±: half the 95 % interval over the seeds."
    )
    return f"{markdown(header, rows, left=2)}\n\n{textwrap.fill(caption, WIDTH)}\n"


def _with_chance(figures: Mapping[str, Any] | None, name: str) -> str:
    if figures is None or figures[name] is None:
        return ""
    chance = figures[f"chance_{name}"]
    return _cell(figures[name]) + ("" if chance is None else f" ({chance['mean']:.2f})")


def _cell(figure: Mapping[str, Any] | None, factor: float = 1, form: str = ".2f") -> str:
    if figure is None:
        return ""
    reach = "" if figure["low"] is None else f" ± {factor * (figure['high'] - figure['mean']):{form}}"
    return f"{factor * figure['mean']:{form}}{reach}"
