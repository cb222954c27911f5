"""The result of ``foveate score`` as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from foveate.report.text import columns

__all__ = ["to_text"]

SCORES = {
    "top1": "top-1",
    "pointing": "pointing",
    "energy": "energy",
    "iou": "IoU",
    "rectangle_iou": "rectangle's IoU",
}
"""Heading of each score but MaxBoxAcc."""
MASSES = {"inside": "inside", "another": "another image's", "area": "uniform"}
"""Heading of each score of networks that are no classifiers."""
GAMES = {"deletion": "deletion (low is good)", "insertion": "insertion (high is good)"}


def to_text(result: Mapping[str, Any]) -> str:
    """Return the tables: networks and baselines, each score with its interval, in percent."""
    if "baselines" not in result:
        return _regions_to_text(result)
    networks = dict(zip(_labels(result["networks"]), result["networks"], strict=True))
    rows = {name: network["scores"] for name, network in networks.items()} | result["baselines"]
    first = next(iter(networks.values()))
    boxes = {name: f"MaxBoxAcc {name.removeprefix('max_box_acc_')}" for name in first["thresholds"]}
    shown = {name: title for name, title in SCORES.items() if any(name in scores for scores in rows.values())}
    parts = [
        _title(result, "a box"),
        "\n".join(f"{name}: {network['module']} ({network['kind']})" for name, network in networks.items()),
        _table(rows, shown),
        _table(rows, boxes),
    ]
    if len(networks) > 1:
        others = {name: network["differences"] for name, network in list(networks.items())[1:]}
        parts += [
            f"Difference from {next(iter(networks))} on the same images:",
            _table(others, shown),
            _table(others, boxes),
        ]
    measured = next(filter(None, first["faithfulness"].values()), None)  # of logits that are NaN there is none
    if measured is not None:
        images = measured["images"]
        parts.append(
            f"Area under the probability of the predicted class, on {images} of the images, pixels in the order of"
        )
        for game, title in GAMES.items():
            orders = {name: name.removeprefix(f"{game} ") for name in first["faithfulness"] if name.startswith(game)}
            figures = {name: network["faithfulness"] for name, network in networks.items()}
            parts.append(_table(figures, orders, title))
    return "\n\n".join(parts)


def _regions_to_text(result: Mapping[str, Any]) -> str:
    """Return the tables of networks that are no classifiers, one for each."""
    parts = [_title(result, "an object"), "Of what an object attends to, the share inside of it:"]
    for label, network in zip(_labels(result["networks"]), result["networks"], strict=True):
        parts.append(
            columns(
                [label, *MASSES.values(), "inside − another", "inside − uniform"],
                [
                    [
                        f"{layer['module']} ({layer['kind']})",
                        *(_cell(layer["scores"][name]) for name in MASSES),
                        *(_cell(layer["differences"][name]) for name in ("another", "area")),
                    ]
                    for layer in network["layers"]
                ],
            )
        )
    return "\n\n".join(parts)


def _title(result: Mapping[str, Any], thing: str) -> str:
    height, width = result["image_size"]
    return (
        f"{result['images']} {result['split']} images of {result['data']} at {height}×{width}"
        + (f", {result['without_box']} without {thing} in view left out" if result["without_box"] else "")
        + f"; %, {100 * result['settings']['confidence']:g}% intervals over images"
    )


def _table(rows: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str], corner: str = "") -> str:
    return columns(
        [corner, *titles.values()],
        [[name, *(_cell(figures.get(key)) for key in titles)] for name, figures in rows.items()],
    )


def _cell(estimate: Mapping[str, Any] | None) -> str:
    if estimate is None:
        return "–"
    return f"{100 * estimate['mean']:.1f} ({100 * estimate['low']:.1f} to {100 * estimate['high']:.1f})"


def _labels(networks: list[dict[str, Any]]) -> list[str]:
    """Return the networks' names, or of those that share one the ends of their paths that tell them apart."""
    names = [network["model"] for network in networks]
    paths = [PurePath(network["checkpoint"]).parts for network in networks]
    for parts in range(1, max(map(len, paths)) + 1):
        ends = ["/".join(path[-parts:]) for path in paths]
        labels = [end if names.count(name) > 1 else name for name, end in zip(names, ends, strict=True)]
        if len(set(labels)) == len(labels):
            return labels
    return [f"{label} ({number})" for number, label in enumerate(labels, start=1)]
