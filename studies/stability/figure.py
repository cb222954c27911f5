"""Stability of attention as a picture: similarity of maps against depth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from foveate.report.figures import OKABE_ITO
from studies.figures import STYLE, label_ends, svg

__all__ = ["draw"]

NOTE = (
    "bars: 95 % intervals over seeds; dashed: attention in all places at once; dotted: the same of unrelated images, "
    "what maps share without looking"
)

Place = Mapping[str, Any]
COLUMNS = {
    "changes": "image and changed image",
    "seeds": "one seed and another",
    "layers": "one depth and the others",
}
ROWS = {"correlation": "correlation of maps", "iou": "IoU of half-maximum regions"}
ALONE: dict[str, tuple[str, Callable[[Place], Any]]] = {
    "total variation of the map": ("total variation", lambda place: place["total_variation"]),
    "half-maximum region": ("share of the image", lambda place: place["inside"]),
}


def draw(table: Mapping[str, Any]) -> bytes:
    """Return an SVG file: a row of panels for each kind of similarity, with what the maps are alone at the right.

    A line for each network, dashed for one with attention in all places at once. Bands and bars are intervals over
    seeds; the dotted line is what unrelated images give.
    """
    places = table["places"]
    gates = list(dict.fromkeys(place["gate"] for place in sorted(places, key=lambda place: place["together"])))
    series: dict[tuple[str, bool], list[Place]] = {}
    for place in places:
        series.setdefault((place["family"], place["together"]), []).append(place)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(14, 6.4), layout="constrained")
        panels = figure.subplots(2, 4, sharex=True)
        for row, (name, words) in enumerate(ROWS.items()):
            for column, (what, title) in enumerate(COLUMNS.items()):
                axes = panels[row][column]
                _panel(axes, series, gates, partial(_similarity, what=what, name=name))
                _panel(axes, series, gates, partial(_similarity, what=what, name=f"chance_{name}"), faint=True)
                lowest = min((min(line.get_ydata()) for line in axes.lines if line.get_marker() == "o"), default=0)
                axes.set_ylim(min(0, lowest - 0.1), 1.02)  # of few seeds, intervals reach far beyond
                if not axes.lines:
                    axes.text(0.5, 0.5, "nothing to compare", transform=axes.transAxes, ha="center")
                axes.set_title(title if row == 0 else "")
                axes.set_ylabel(words if column == 0 else "")
        for row, (title, (words, value)) in enumerate(ALONE.items()):
            axes = panels[row][3]
            ends = _panel(axes, series, gates, value)
            axes.set_ylim(0, None)
            axes.set_title(title)
            axes.set_ylabel(words)
            label_ends(axes, ends)
        for axes in panels[1]:
            axes.set_xlabel("attention behind")
        figure.supxlabel(NOTE, fontsize=8)
        return svg(figure)


def _similarity(place: Place, *, what: str, name: str) -> Any:
    return (place["agreement"][what] or {}).get(name)


def _panel(
    axes: Axes,
    series: Mapping[tuple[str, bool], Sequence[Place]],
    gates: Sequence[str],
    value: Callable[[Place], Any],
    *,
    faint: bool = False,
) -> dict[str, tuple[tuple[float, float], str]]:
    """Draw a line for each series; return where each ends, and its colour, by its label."""
    families = list(dict.fromkeys(family for family, _ in series))
    ends = {}
    for number, ((family, together), places) in enumerate(series.items()):
        points = [(gates.index(place["gate"]), value(place)) for place in places if value(place) is not None]
        if not points:
            continue
        colour = OKABE_ITO[families.index(family) % len(OKABE_ITO)]
        shift = 0.06 * (number - (len(series) - 1) / 2)  # so that bars do not hide one another
        x, y = [at + shift for at, _ in points], [figure["mean"] for _, figure in points]
        if faint:
            axes.plot(x, y, ":", color=colour, marker="_", linewidth=1, alpha=0.8)
            continue
        axes.plot(x, y, "--" if together else "-", color=colour, marker="o", markersize=4, linewidth=1.6)
        for at, (_, figure) in zip(x, points, strict=True):
            if figure["low"] is not None:
                axes.plot([at, at], [figure["low"], figure["high"]], color=colour, linewidth=3, alpha=0.35)
        ends[family + (", all in one" if together else "")] = ((x[-1], y[-1]), colour)
    axes.set_xticks(range(len(gates)), gates)
    axes.set_xlim(-0.5, len(gates) - 0.5)
    return ends
