"""Scores against the size of the images as a table and as a picture."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from foveate.report.figures import OKABE_ITO
from foveate.report.text import WIDTH, markdown
from studies.figures import STYLE, svg

__all__ = ["draw", "to_markdown"]

LINES = {"as trained": "-", "tables stretched": "--", "radii scaled": ":"}


def to_markdown(table: Mapping[str, Any]) -> str:
    """Return the scores by network, factor and variant, and what the columns mean."""
    parts = []
    for task in dict.fromkeys(row["task"] for row in table["rows"]):
        rows = [row for row in table["rows"] if row["task"] == task]
        cells = [
            [
                row["label"],
                row["variant"],
                f"{row['factor']:g}",
                f"{row['size'][0]}×{row['size'][1]}",
                str(row["seeds"]),
                f"{100 * row['score']['mean']:.1f}",
                _interval(row["score"]),
                f"{100 * row['difference']['mean']:+.1f}" if row["difference"] else "",
                _interval(row["difference"]) if row["difference"] else "",
            ]
            for row in rows
        ]
        metric = f"{rows[0]['metric']} %"
        header = ["network", "variant", "factor", "size", "seeds", metric, "interval", "Δ", "interval"]
        caption = (
            f"{task}: {rows[0]['images']} images. Factor: the size of the images in that of the training. Δ: to the "
            "same networks at the size of their training, in points. Intervals (95 %) are bootstrapped over the "
            "images, each with all of its seeds."
        )
        parts.append(f"{markdown(header, cells, left=2)}\n\n{textwrap.fill(caption, WIDTH)}\n")
    return "\n".join(parts)


def draw(table: Mapping[str, Any]) -> bytes:
    """Return the scores against the factor as SVG, one panel for each task."""
    tasks = list(dict.fromkeys(row["task"] for row in table["rows"]))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.5 * len(tasks), 4), layout="constrained")
        for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
            rows = [row for row in table["rows"] if row["task"] == task]
            labels = list(dict.fromkeys(row["label"] for row in rows))
            for number, label in enumerate(labels):
                for variant, line in LINES.items():
                    own = [row for row in rows if row["label"] == label and row["variant"] in ("as trained", variant)]
                    own = [row for row in own if row["variant"] == variant or row["factor"] == 1]
                    if len(own) < 2:
                        continue
                    own.sort(key=lambda row: row["factor"])
                    color = OKABE_ITO[number % len(OKABE_ITO)]
                    name = label if variant == "as trained" else f"{label}, {variant}"
                    xs, ys = [row["factor"] for row in own], [100 * row["score"]["mean"] for row in own]
                    axes.plot(xs, ys, line, color=color, label=name, marker="o", markersize=3)
            axes.set_xscale("log", base=2)
            factors = sorted({row["factor"] for row in rows})
            axes.set_xticks(factors, [f"{factor:g}" for factor in factors])
            axes.minorticks_off()
            axes.set(title=task, xlabel="size of the images, in that of the training", ylabel=f"{rows[0]['metric']} %")
            axes.legend(fontsize="x-small")
        return svg(figure)


def _interval(one: Mapping[str, Any]) -> str:
    return f"{100 * one['low']:.1f} to {100 * one['high']:.1f}"
