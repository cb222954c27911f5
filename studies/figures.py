"""What the figures of the studies have in common."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from foveate.report.figures import GRAY

__all__ = ["LABEL_GAP", "STYLE", "label_ends", "spread", "svg"]

STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GRAY,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e3e7ec",
    "axes.titlesize": "medium",
    "axes.titlelocation": "left",
    "font.size": 9,
    # The same figures give the same bytes: identifiers that are not drawn at random.
    "svg.hashsalt": "foveate",
}
LABEL_GAP = 0.09
"""Between two labels, in heights of a panel."""


def svg(figure: Figure) -> bytes:
    """Return a figure as an SVG file without a date, so that the same figures give the same bytes."""
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()


def label_ends(axes: Axes, ends: Mapping[str, tuple[tuple[float, float], str]]) -> None:
    """Write the names of lines beside the panel, as high as they end, with thin lines from there."""
    low, high = axes.get_ylim()
    heights = {name: (end[1] - low) / (high - low) for name, (end, _) in ends.items()}
    names = sorted(heights, key=heights.__getitem__)
    for name, place in zip(names, spread([heights[name] for name in names], LABEL_GAP), strict=True):
        end, colour = ends[name]
        axes.annotate(
            name.replace("$", r"\$"),
            end,
            (1.04, place),
            textcoords="axes fraction",
            va="center",
            color=colour,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.5,
                "shrinkA": 0,
                "shrinkB": 2,
                "relpos": (0, 0.5),
            },
        )


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move ascending ``heights`` apart to at least ``gap``, up first, then down from 1."""
    places: list[float] = []
    for height in heights:
        places.append(max(height, places[-1] + gap) if places else height)
    limit = 1.0
    for index in reversed(range(len(places))):
        places[index] = min(places[index], limit)
        limit = places[index] - gap
    return places
