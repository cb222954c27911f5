"""The page about a comparison: one file in HTML that needs nothing else."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from foveate._extras import require
from foveate.data import ImageData
from foveate.data.dense import DenseData
from foveate.explain import Scale, palette_stops
from foveate.explain.painting import class_color
from foveate.io.class_names import class_name
from foveate.report.comparison import cells, metric_of
from foveate.report.figures import learning_curves, network_color, score_chart
from foveate.report.grid import Column, choose_samples, fill_column
from foveate.report.samples import Sample, shown_width

__all__ = ["comparison_page"]

TEMPLATE = "page.html"


def comparison_page(
    table: Mapping[str, Any], data: ImageData | DenseData, *, runs: Path, config: str, images: int
) -> str:
    """Return a page in HTML about a comparison: findings, table, charts, and where each network looks.

    Args:
        table: What ``compare.json`` holds, with the learning history of each run as ``histories`` of its network.
        data: The images that the networks were trained on.
        runs: Folder of the comparison.
        config: The settings of the comparison, shown as they are.
        images: How many test images are shown.
    """
    jinja2 = require("jinja2", extra="demo")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("foveate.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    networks, (metric, title) = table["networks"], metric_of(table)
    samples = choose_samples(data, table["split"], images)
    columns = [fill_column(Path(runs, network["runs"][0]), samples, data.transform) for network in networks]
    return environment.get_template(TEMPLATE).render(
        table=table,
        title=_title(table),
        findings=_findings(table),
        confidence=f"{networks[0][metric]['confidence']:.0%}".replace("%", " %"),
        rows=[_row(index, network, metric) for index, network in enumerate(networks)],
        metric=title,
        score_chart=score_chart(networks, metric, title),
        learning_curves=learning_curves(
            {network["label"]: network["histories"] for network in networks}, metric, title
        ),
        samples=samples,
        class_colors=_class_colors(data, samples),
        columns=list(zip(networks, columns, strict=True)),
        legends=_legends(networks, columns),
        palettes=[palette_stops(ground=0), palette_stops(ground=255)],
        shown_side=shown_width(data.image_size),
        config=config,
        out=shlex.quote(str(runs)),
    )


def _class_colors(data: ImageData | DenseData, samples: Sequence[Sample]) -> dict[str, str]:
    """Return the colors of the classes of pixels as ``#rrggbb``, by their names; none for other tasks."""
    if not any(isinstance(sample.label, Tensor) for sample in samples):
        return {}
    return {class_name(name): "#{:02x}{:02x}{:02x}".format(*class_color(i)) for i, name in enumerate(data.classes)}


def _title(table: Mapping[str, Any]) -> str:
    number = len(table["networks"])
    what = "cluttered digits" if table["data"] == "digits" else Path(table["data"]).resolve().name
    return f"{number} networks on {what}" if number > 1 else f"{table['networks'][0]['label']} on {what}"


def _findings(table: Mapping[str, Any]) -> list[str]:
    """Say in words what the figures say, and no more."""
    networks, (metric, title) = table["networks"], metric_of(table)
    best = max(network[metric]["mean"] for network in networks)
    leaders = [network for network in networks if network[metric]["mean"] == best]
    score = leaders[0][metric]
    interval = (
        f"{100 * score['low']:.2f} to {100 * score['high']:.2f}" if len(leaders) == 1 else "intervals in the table"
    )
    names = ", ".join(network["label"] for network in leaders)
    mean = "" if title.startswith("mean ") else "mean "
    findings = [f"Highest {mean}{title}: {names} with {100 * best:.2f} % ({interval})."]
    if len(networks) == 1:
        return findings
    first = f"{networks[0]['label']} ({100 * networks[0][metric]['mean']:.2f} %)"
    groups: dict[str, list[str]] = {"above": [], "below": [], "not told apart from": []}
    for network in networks[1:]:
        difference = network["difference"]
        entry = (
            f"{network['label']} ({100 * difference['mean']:+.2f} points, p\u00a0=\u00a0{difference['p_value']:.4f})"
        )
        groups[_verdict(difference)].append(entry)
    return findings + [f"{word.capitalize()} {first}: {', '.join(group)}." for word, group in groups.items() if group]


def _verdict(difference: Mapping[str, float]) -> str:
    """Return ``above`` or ``below`` if both the interval and the p-value exclude equality."""
    if difference["low"] <= 0 <= difference["high"] or difference["p_value"] >= round(1 - difference["confidence"], 12):
        return "not told apart from"
    return "above" if difference["mean"] > 0 else "below"


def _row(index: int, network: Mapping[str, Any], metric: str) -> dict[str, str]:
    """Return the cells of a network's row in the table, its color, and the minutes that its training took."""
    return {**cells(network, metric), "color": network_color(index), "minutes": f"{network['seconds'] / 60:.1f}"}


def _legends(networks: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> dict[Scale, list[str]]:
    """Return each meaning of the colors that occurs, with the labels of the networks that it is for."""
    legends: dict[Scale, list[str]] = {}
    for network, column in zip(networks, columns, strict=True):
        if column.scale is not None:
            legends.setdefault(column.scale, []).append(network["label"])
    return legends
