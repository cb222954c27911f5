"""The results of an experiment as pictures: accuracy against cost, and differences with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from foveate.report.figures import GRAY, OKABE_ITO
from studies.figures import STYLE, svg

__all__ = ["draw_accuracy", "draw_differences"]

Row = Mapping[str, Any]
COSTS = {
    "parameters": ("parameters, M", 1e6),
    "flops": ("GFLOPs an image (1 multiply-add = 2)", 1e9),
    "time": ("time an image, µs forward", 1e-6),
}


def draw_accuracy(networks: Sequence[Row]) -> bytes:
    """Return an SVG file: top-1 against parameters, FLOPs and time, with intervals over images; a number for each."""
    shown = [network for network in networks if network.get("flops")]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13, 5.4), layout="constrained")
        panels = figure.subplots(1, 4, sharey=True, width_ratios=(1, 1, 1, 0.9))
        families = list(dict.fromkeys(_family(network) for network in shown))
        for axes, (name, (words, unit)) in zip(panels[:3], COSTS.items(), strict=True):
            for number, network in enumerate(shown, 1):
                if (cost := _cost(network, name)) is not None:
                    _point(axes, cost / unit, network["top1"], number, _colour(families, network))
            axes.set_xlabel(words)
            axes.margins(x=0.12)
        panels[0].set_ylabel("top-1, %")
        panels[3].axis("off")
        for number, network in enumerate(shown, 1):
            at = 1 - number / (len(shown) + 1)
            text = f"{number}  {network['label']}"
            panels[3].text(0, at, text, transform=panels[3].transAxes, color=_colour(families, network), fontsize=8)
        return svg(figure)


def draw_differences(table: Row, metric: str = "top-1") -> bytes:
    """Return an SVG file: each difference with its two intervals, and the seeds' own; claims above."""
    groups = [(name, table[name]) for name in ("claims", "explore") if table[name]]
    heights = [len(rows) + 1 for _, rows in groups]
    with matplotlib.rc_context(STYLE):
        longest = max(len(_name(row)) for _, rows in groups for row in rows)
        width = 10 + 0.11 * max(0, longest - 80)  # that names leave the differences enough of it
        figure = Figure(figsize=(width, 1.2 + 0.3 * sum(heights)), layout="constrained")
        panels = figure.subplots(len(groups), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
        titles = {"claims": "named before the runs", "explore": "explored afterwards"}
        for axes, (name, rows) in zip(panels, groups, strict=True):
            axes.set_title(titles[name])
            axes.axvline(0, color=GRAY, linewidth=1)
            for place, row in enumerate(rows):
                _difference(axes, place, row, OKABE_ITO[name == "explore"])
            axes.set_yticks(range(len(rows)), [_name(row) for row in rows], fontsize=8)
            axes.set_ylim(len(rows) - 0.5, -0.5)
            axes.grid(visible=False, axis="y")
        panels[-1].set_xlabel(
            f"difference of {metric} in points; thick: 95 % over images, thin: over images and seeds, |: each seed"
        )
        return svg(figure)


def _name(row: Row) -> str:
    return f"{row['label']} − {row['other']}"


def _difference(axes: Axes, place: int, row: Row, colour: str) -> None:
    images, both = row["over_images"], row["over_both"]
    axes.plot([100 * both["low"], 100 * both["high"]], [place, place], color=colour, linewidth=1)
    axes.plot([100 * images["low"], 100 * images["high"]], [place, place], color=colour, linewidth=4, alpha=0.45)
    axes.plot([100 * value for value in images["per_seed"]], [place] * len(images["per_seed"]), "|", color=GRAY, ms=7)
    axes.plot(100 * both["mean"], place, "o", color=colour, markersize=5)


def _point(axes: Axes, x: float, top1: Row, number: int, colour: str) -> None:
    axes.plot([x, x], [100 * top1["low"], 100 * top1["high"]], color=colour, linewidth=1.2, alpha=0.5)
    axes.plot(x, 100 * top1["mean"], "o", color=colour, markersize=5)
    axes.annotate(str(number), (x, 100 * top1["mean"]), (4, 3), textcoords="offset points", fontsize=7, color=colour)


def _cost(network: Row, name: str) -> float | None:
    if name == "time":
        rate = network.get("images_per_second")
        return None if rate is None else 1 / rate["median"]
    return network[name]


def _family(network: Row) -> str:
    return network["label"].partition(":")[0]


def _colour(families: Sequence[str], network: Row) -> str:
    return OKABE_ITO[families.index(_family(network)) % len(OKABE_ITO)]
