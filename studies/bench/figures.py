"""The result of a benchmark as a picture: ratios to the base, or curves against the side of the input."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from foveate.benchmark import quartiles
from foveate.report.figures import GRAY, OKABE_ITO
from studies.bench.table import entry_label, ratio
from studies.figures import LABEL_GAP, STYLE, spread, svg

__all__ = ["draw"]

BAND = "#d5dae0"
FEW_DECADES = 2
"""An axis over fewer has ticks at 2 and 5 as well."""
MIN_TICK_RATIO = 1.4
"""Sides closer than this share a tick."""

Case = Mapping[str, Any]
Entry = Mapping[str, Any]


def draw(result: Mapping[str, Any]) -> bytes:
    """Return an SVG file: of a suite by side, time and memory; of another, the ratios."""
    with matplotlib.rc_context(STYLE):
        return svg((_curves if result["by_side"] else _ratios)(result["cases"]))


def _ratios(cases: Sequence[Case]) -> Figure:
    """Draw a row of panels for each case, one for each mode and dtype, with a line for each entry."""
    rows = list(dict.fromkeys(case["case"] for case in cases))
    conditions = list(dict.fromkeys((case["mode"], case["dtype"]) for case in cases))
    heights = [max(len(case["entries"]) for case in cases if case["case"] == row) for row in rows]
    size = 2.6 + 4.2 * len(conditions), 0.5 + sum(0.62 + 0.2 * height for height in heights)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(
        len(rows), len(conditions), squeeze=False, height_ratios=[height + 2 for height in heights], sharex="col"
    )
    for case in cases:
        row, column = rows.index(case["case"]), conditions.index((case["mode"], case["dtype"]))
        _ratio_panel(panels[row][column], case, labels=column == 0)
    for axes in panels[-1]:
        axes.set_xlabel("time, × base (left is faster)")
    return figure


def _ratio_panel(axes: Axes, case: Case, *, labels: bool) -> None:
    entries = case["entries"]
    axes.set_title(f"{case['case']}, {case['mode']}, {case['dtype']}")
    axes.set_xscale("log")
    noise = [spread for entry in entries if entry["again"] and (spread := ratio(case, entry))]
    if noise:  # what the base differs from itself
        axes.axvspan(min(s.q1 for s in noise), max(s.q3 for s in noise), color=BAND, linewidth=0)
    axes.axvline(1, color=GRAY, linewidth=1)
    for row, entry in enumerate(entries):
        colour = OKABE_ITO[entry["compiled"]]
        if spread := ratio(case, entry):
            axes.plot([spread.q1, spread.q3], [row, row], color=colour, linewidth=3, alpha=0.45)
            unsteady = entry.get("unsteady", False)
            if not unsteady:
                axes.plot(spread.median, row, "o", color=colour, markersize=5)
            text = "unsteady" if unsteady else f"{spread.median:.3g}"
            axes.annotate(text, (spread.q3, row), (6, 0), textcoords="offset points", va="center", fontsize=8)
        elif entry["seconds"]:
            axes.plot(1, row, "D", color=colour, markersize=5)
        else:
            axes.annotate(entry["reason"] or entry["status"], (1, row), (6, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(entries)), [entry_label(entry) if labels else "" for entry in entries])
    axes.set_ylim(len(entries) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.15)
    _plain_ticks(axes.xaxis)


def _curves(cases: Sequence[Case]) -> Figure:
    """Draw a column of panels for each group, a row each for time and memory in each mode and dtype."""
    groups = list(dict.fromkeys(case["group"] for case in cases))
    conditions = list(dict.fromkeys((case["mode"], case["dtype"]) for case in cases))
    figure = Figure(figsize=(0.4 + 4.8 * len(groups), 0.3 + 5.6 * len(conditions)), layout="constrained")
    panels = figure.subplots(2 * len(conditions), len(groups), squeeze=False)
    figures: tuple[tuple[str, Callable[[Entry], float]], ...] = (
        ("time of a call, ms", lambda entry: 1e3 * quartiles(entry["seconds"]).median),
        ("memory that it adds, MB", lambda entry: (entry["peak_memory"] or float("nan")) / 1e6),
    )
    for row, (mode, dtype) in enumerate(conditions):
        for column, group in enumerate(groups):
            chosen = [c for c in cases if (c["group"], c["mode"], c["dtype"]) == (group, mode, dtype)]
            for number, (words, value) in enumerate(figures):
                axes = panels[2 * row + number][column]
                _curve_panel(axes, chosen, value)
                axes.set_title(f"{group}: {mode}, {dtype}")
                axes.set_ylabel(words)
    for axes, group in zip(panels[-1], groups, strict=True):
        network = any(case["network"] for case in cases if case["group"] == group)
        both = len({entry["compiled"] for case in cases for entry in case["entries"]}) > 1
        axes.set_xlabel(f"side of the {'image' if network else 'map'}{' (dashed: compiled)' if both else ''}")
    return figure


def _curve_panel(axes: Axes, cases: Sequence[Case], value: Callable[[Entry], float]) -> None:
    """Draw a line for each entry, eager ones solid and compiled ones dashed, and the name of each subject."""
    lines: dict[tuple[str, bool], list[tuple[float, float]]] = {}
    names = list(dict.fromkeys(entry["name"] for case in cases for entry in case["entries"]))
    for case in cases:
        for entry in case["entries"]:
            if entry["seconds"] and not entry["again"]:
                lines.setdefault((entry["name"], entry["compiled"]), []).append((case["input"][-1], value(entry)))
    for (name, compiled), points in lines.items():
        style: dict[str, Any] = {"color": OKABE_ITO[names.index(name)], "linestyle": "--" if compiled else "-"}
        axes.plot(*zip(*points, strict=True), **style, marker="o", markersize=3, linewidth=1.6)
    axes.set_xscale("log")
    axes.set_yscale("log")
    ticks: list[int] = []
    for side in sorted({case["input"][-1] for case in cases}):
        if not ticks or side > MIN_TICK_RATIO * ticks[-1]:
            ticks.append(side)
    axes.set_xticks(ticks, [str(side) for side in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    _plain_ticks(axes.yaxis)
    ends = {name: points[-1] for (name, compiled), points in lines.items() if not (compiled and (name, False) in lines)}
    _label(axes, {name: (end, OKABE_ITO[names.index(name)]) for name, end in ends.items()})


def _plain_ticks(axis: Axis) -> None:
    """Write 0.1, 1, 10 on a logarithmic axis, and what lies between where it is short."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if high / low < 10**FEW_DECADES else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _label(axes: Axes, ends: Mapping[str, tuple[tuple[float, float], str]]) -> None:
    """Write the names of lines beside the panel, as high as the lines end, with thin lines from there."""
    low, high = map(math.log, axes.get_ylim())
    heights = {name: (math.log(end[1]) - low) / (high - low) for name, (end, _) in ends.items()}
    names = sorted(heights, key=heights.__getitem__)
    for name, place in zip(names, spread([heights[name] for name in names], LABEL_GAP), strict=True):
        end, colour = ends[name]
        axes.annotate(
            name,
            end,
            (1.03, place),
            textcoords="axes fraction",
            va="center",
            color=colour,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2},
        )
