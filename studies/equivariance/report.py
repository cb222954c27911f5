"""Equivariance of attention as a table and as a picture."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from foveate.report.figures import OKABE_ITO
from foveate.report.text import WIDTH, markdown
from studies.figures import STYLE, label_ends, svg

__all__ = ["draw", "to_markdown"]

COLUMNS = {
    "shift": "shift, sides of the image",
    "rotation": "rotation, degrees",
    "scale": "factor, or its reciprocal",
}
ROWS = {
    "centre": "rectangle: centre off by, sides",
    "size": "rectangle: size off by, |ln ratio|",
    "angle": "rectangle: angle off by, degrees",
    "overlap": "rectangle: IoU",
    "correlation": "map: correlation",
    "iou": "map: IoU of regions",
}
CELLS = {"corners": ".3f", "centre": ".3f", "size": ".3f", "angle": ".1f", "overlap": ".2f"}
CELLS |= {"correlation": ".2f", "iou": ".2f"}

NOTE = "bands: 95 % intervals over seeds; dotted: if what is looked at stayed where it was"

Curve = Mapping[str, Any]


def to_markdown(table: Mapping[str, Any]) -> str:
    """Return the table of everything changed at once, and what its columns mean."""
    rows = []
    for curve in table["curves"]:
        if curve["transform"] != "all":
            continue
        row = [curve["label"], curve["gate"], str(len(curve["seeds"]))]
        rows.append(row + [_cell(curve, name, form) for name, form in CELLS.items()])
    header = ["network", "attention at", "seeds", "corners", "centre", "size", "angle °", "IoU", "map r", "map IoU"]
    ranges = table["all"]
    caption = (
        f"{table['data']}: {table['images']} {table['split']} images, each shifted by up to {ranges['shift']:g} "
        f"sides along each axis, turned by up to {ranges['rotation']:g}°, and scaled by a factor of up to "
        f"{ranges['scale']:g} or its reciprocal, all at once. How far what the network looks at in the changed image "
        "is from where the change carries what it looks at in the image; in parentheses, what it would be if it "
        "stayed where it was. Corners and centre: in sides of the image; size: |ln ratio|; ±: half the 95 % interval "
        "over the seeds."
    )
    return f"{markdown(header, rows, left=2)}\n\n{textwrap.fill(caption, WIDTH)}\n"


def _cell(curve: Curve, name: str, form: str) -> str:
    figure, still = curve["errors"].get(name), curve["unmoved"].get(name)
    if figure is None:
        return ""
    reach = "" if figure["low"] is None else f" ± {figure['high'] - figure['mean']:{form}}"
    return f"{figure['mean']:{form}}{reach}" + ("" if still is None else f" ({still['mean']:{form}})")


def draw(table: Mapping[str, Any]) -> bytes:
    """Return an SVG file: a row of panels for each figure, a column for each kind of transform.

    A line for each attention module of each network, with a band for the interval over seeds; dotted, what it would
    be if what is looked at stayed where it was.
    """
    curves = [curve for curve in table["curves"] if curve["transform"] in COLUMNS]
    names = [name for name in ROWS if any(curve["errors"].get(name) for curve in curves)]
    columns = [name for name in COLUMNS if any(curve["transform"] == name for curve in curves)]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.2 + 3.4 * len(columns), 0.6 + 2.3 * len(names)), layout="constrained")
        if columns:
            panels = figure.subplots(len(names), len(columns), squeeze=False, sharex="col", sharey="row")
            for row, name in enumerate(names):
                for column, transform in enumerate(columns):
                    axes = panels[row][column]
                    ends = _panel(axes, [c for c in curves if c["transform"] == transform], name, table["curves"])
                    axes.set_ylabel(ROWS[name] if column == 0 else "")
                    if row == len(names) - 1:
                        axes.set_xlabel(COLUMNS[transform])
                        axes.set_xticks(sorted({c["magnitude"] for c in curves if c["transform"] == transform}))
                        axes.xaxis.set_major_formatter("{x:g}")
                panels[row][0].set_ylim(0, None if ROWS[name].endswith(("sides", "ratio|", "degrees")) else 1.02)
                label_ends(axes, ends)
            figure.supxlabel(NOTE, fontsize=8)
        return svg(figure)


def _panel(
    axes: Axes, curves: Sequence[Curve], name: str, everything: Sequence[Curve]
) -> dict[str, tuple[tuple[float, float], str]]:
    """Draw a line for each module; return where each ends, and its colour, by its label."""
    modules = list(dict.fromkeys(_label(curve, everything) for curve in everything))
    ends = {}
    for number, label in enumerate(modules):
        own = [curve for curve in curves if _label(curve, everything) == label and curve["errors"].get(name)]
        points = [(curve["magnitude"], curve["errors"][name], curve["unmoved"].get(name)) for curve in own]
        if not points:
            continue
        colour = OKABE_ITO[number % len(OKABE_ITO)]
        x, y = [at for at, _, _ in points], [found["mean"] for _, found, _ in points]
        axes.plot(x, y, color=colour, marker="o", markersize=3, linewidth=1.6)
        if all(found["low"] is not None for _, found, _ in points):
            low, high = ([found[end] for _, found, _ in points] for end in ("low", "high"))
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        still = [(at, found["mean"]) for at, _, found in points if found is not None]
        if still:
            axes.plot(*zip(*still, strict=True), ":", color=colour, linewidth=1)
        ends[label] = ((x[-1], y[-1]), colour)
    return ends


def _label(curve: Curve, everything: Sequence[Curve]) -> str:
    """Return the label of a module: the network's, with the module's name if it has several."""
    gates = {other["gate"] for other in everything if other["label"] == curve["label"]}
    return curve["label"] + (f" {curve['gate']}" if len(gates) > 1 else "")
