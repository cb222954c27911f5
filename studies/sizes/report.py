"""Scores against the size of the images as a table and as a picture."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from foveate.report.figures import GRAY, OKABE_ITO
from foveate.report.text import WIDTH, markdown
from studies.figures import STYLE, svg

__all__ = ["draw", "to_markdown"]

MARKERS = "os^"
Rows = Sequence[Mapping[str, Any]]

LINES: dict[str, Any] = {"as trained": "-", "tables stretched": "--", "radii scaled": ":"}


def to_markdown(table: Mapping[str, Any]) -> str:
    """Return the scores by network, variant and size, a table for each task and scene, and what adaptation changed."""
    return "\n".join(part for task in _tasks(table) for part in _of_task(_of(table, task=task)))


def _of_task(rows: Rows) -> Iterator[str]:
    native = {row["label"]: row for row in rows if row["scene"] is None}
    task, metric = rows[0]["task"], f"{rows[0]['metric']} in %"
    for scene in _scenes(rows):
        own = [row for row in rows if row["scene"] == scene]
        factors = sorted({row["factor"] for row in own})
        cells = []
        for label, variant in dict.fromkeys((row["label"], row["variant"]) for row in own):
            at = {row["factor"]: row for row in own if (row["label"], row["variant"]) == (label, variant)}
            scores = [_with_difference(at[factor]) if factor in at else "" for factor in factors]
            cells.append([label, variant, f"{100 * native[label]['score']['mean']:.1f}", *scores])
        header = ["network", "variant", "size of the training", *(f"{factor:g} times the size" for factor in factors)]
        caption = (
            f"{task.capitalize()}, {scene}: {metric} of {own[0]['images']} images, means of {_seeds(own)}; in brackets "
            "the interval of the difference to the size of the training, in points."
        )
        yield f"{markdown(header, cells, left=2)}\n\n{textwrap.fill(caption, WIDTH)}\n"
    gains = [row for row in rows if row["gain"]]
    if gains:
        cells = [
            [row["label"], row["variant"], row["scene"], f"{row['factor']:g}", *_signed(row["gain"])] for row in gains
        ]
        header = ["network", "variant", "images", "times the size", "points", "interval"]
        caption = (
            f"{task.capitalize()}: what adaptation changed against the same networks on the same images as they were "
            "trained. Intervals (95 %) are bootstrapped over the images, each with all of its seeds."
        )
        yield f"{markdown(header, cells, left=3)}\n\n{textwrap.fill(caption, WIDTH)}\n"


def draw(table: Mapping[str, Any]) -> bytes:
    """Return the scores against the factor as SVG, one panel for each task and scene."""
    panels = [(task, scene) for task in _tasks(table) for scene in _scenes(_of(table, task=task))]
    names = list(dict.fromkeys(row["label"] for row in table["rows"]))
    networks, trainings = [
        list(dict.fromkeys(part)) for part in zip(*(n.partition(" (")[::2] for n in names), strict=True)
    ]
    styles = {}
    for name in names:  # a color for each network, a marker for each training of it
        network, _, training = name.partition(" (")
        color = OKABE_ITO[networks.index(network) % len(OKABE_ITO)]
        styles[name] = color, MARKERS[trainings.index(training) % len(MARKERS)]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * len(panels), 4), layout="constrained")
        for axes, (task, scene) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            rows = [row for row in _of(table, task=task) if row["scene"] in (None, scene)]
            labels = list(dict.fromkeys(row["label"] for row in rows))
            for label in labels:
                own = [row for row in rows if row["label"] == label]
                for variant, line in LINES.items():
                    if any(row["variant"] == variant and row["scene"] for row in own):
                        along = [row for row in own if row["variant"] == variant or row["scene"] is None]
                        _line(axes, along, line, styles[label])
            axes.set_xscale("log", base=2)
            factors = sorted({row["factor"] for row in rows})
            axes.set_xticks(factors, [f"{factor:g}" for factor in factors])
            axes.minorticks_off()
            title = f"{task}: {scene}"
            axes.set(title=title, xlabel="size of the images, in that of the training", ylabel=f"{rows[0]['metric']} %")
        entries = [Line2D([], [], color=color, marker=marker, label=name) for name, (color, marker) in styles.items()]
        found = {row["variant"] for row in table["rows"]}
        entries += [
            Line2D([], [], color=GRAY, linestyle=line, label=name) for name, line in LINES.items() if name in found
        ]
        figure.legend(handles=entries, loc="outside right center")
        return svg(figure)


def _line(axes: Axes, rows: Rows, line: str, style: tuple[str, str]) -> None:
    rows = sorted(rows, key=lambda row: row["factor"])
    xs, ys = [row["factor"] for row in rows], [100 * row["score"]["mean"] for row in rows]
    axes.plot(xs, ys, line, color=style[0], marker=style[1], markersize=4)


def _tasks(table: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(row["task"] for row in table["rows"]))


def _of(table: Mapping[str, Any], *, task: str) -> Rows:
    return [row for row in table["rows"] if row["task"] == task]


def _scenes(rows: Rows) -> list[str]:
    return list(dict.fromkeys(row["scene"] for row in rows if row["scene"]))


def _seeds(rows: Rows) -> str:
    numbers = sorted({row["seeds"] for row in rows})
    return f"{numbers[0] if len(numbers) == 1 else f'{numbers[0]} to {numbers[-1]}'} seed(s)"


def _with_difference(row: Mapping[str, Any]) -> str:
    low, high = (100 * row["difference"][end] for end in ("low", "high"))
    return f"{100 * row['score']['mean']:.1f} ({low:+.1f} to {high:+.1f})"


def _signed(one: Mapping[str, Any]) -> tuple[str, str]:
    return f"{100 * one['mean']:+.1f}", f"{100 * one['low']:+.1f} to {100 * one['high']:+.1f}"
