"""The two charts of the report, as images that a page can hold in itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

__all__ = ["data_uri", "learning_curves", "network_color", "score_chart"]

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
"""Okabe and Ito's colors, told apart with every kind of color blindness (yellow, too light for lines, replaced)."""
STYLES = ("-", "--", ":", "-.")
GRAY = "#5b6470"


def network_color(index: int) -> str:
    """Return the color of the network at ``index``, the same in every chart and in the table."""
    return OKABE_ITO[index % len(OKABE_ITO)]


def data_uri(content: bytes, kind: str) -> str:
    """Return ``content`` as an address that holds it, such as ``data:image/png;base64,…``."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def score_chart(networks: Sequence[Mapping[str, Any]], metric: str, title: str) -> str:
    """Draw the score of each network of a ``compare.json`` with its interval and each seed's own; as a data URI."""
    figure = Figure(figsize=(10, 0.9 + 0.42 * len(networks)), layout="constrained")
    axes = figure.add_subplot()
    for row, network in enumerate(networks):
        score, color = network[metric], network_color(row)
        axes.plot([100 * score["low"], 100 * score["high"]], [row, row], color=color, linewidth=3, alpha=0.45)
        axes.plot([100 * value for value in score["per_seed"]], [row] * len(score["per_seed"]), "|", color=color, ms=9)
        axes.plot(100 * score["mean"], row, "o", color=color, ms=8)
    axes.set_yticks(range(len(networks)), [_plain(network["label"]) for network in networks])
    axes.set_ylim(len(networks) - 0.5, -0.5)
    axes.set_xlabel(f"{title}, %")
    _finish(axes, "x")
    return _svg(figure)


def learning_curves(histories: Mapping[str, Sequence[Sequence[Mapping[str, float]]]], metric: str, title: str) -> str:
    """Draw training loss and validation score against the epoch; as a data URI.

    Args:
        histories: For each network, by its label, the ``history`` of each of its runs.
        metric: Name of the score, without ``val_``.
        title: What the axis calls it.
    """
    figure = Figure(figsize=(10, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    panels: tuple[tuple[Axes, str, float, str], ...] = (
        (left, "train_loss", 1, "training loss"),
        (right, f"val_{metric}", 100, f"validation {title}, %"),
    )
    for axes, key, factor, label in panels:
        for index, runs in enumerate(histories.values()):
            style: dict[str, Any] = {"color": network_color(index), "linestyle": STYLES[index // len(OKABE_ITO) % 4]}
            style["marker"] = "o" if len(runs[0]) == 1 else ""  # of a single epoch a line shows nothing
            epochs = [epoch["epoch"] for epoch in runs[0]]
            # Without a number, as of an epoch whose updates were all left out, there is a gap.
            values = factor * np.array([[epoch[key] for epoch in history] for history in runs], dtype=float)
            for history in values:
                axes.plot(epochs, history, linewidth=0.8, markersize=3, alpha=0.5, **style)
            axes.plot(epochs, values.mean(0), linewidth=2, **style)
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _finish(axes, "both")
    handles = [line for line in left.lines if line.get_linewidth() == 2]
    longest = max(map(len, histories))
    columns = max(1, min(len(handles), 4, 115 // (longest + 8)))  # as many as the figure is wide
    figure.legend(handles, map(_plain, histories), loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    return _svg(figure)


def _plain(label: str) -> str:
    """Keep matplotlib from reading a label as mathematics."""
    return label.replace("$", r"\$")


def _finish(axes: Axes, grid: str) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRAY)
    axes.tick_params(colors="#1d2329")
    axes.grid(axis=grid, color="#e3e7ec")  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def _svg(figure: Figure) -> str:
    buffer = io.BytesIO()
    # The same figures give the same bytes: no date, and identifiers that are not drawn at random.
    with matplotlib.rc_context({"svg.hashsalt": "foveate"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return data_uri(buffer.getvalue(), "image/svg+xml")
