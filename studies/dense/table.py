"""The scores of segmentation networks and detectors as tables."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from foveate.report.text import WIDTH, markdown

__all__ = ["classes_table", "scores_table"]

TITLES = {"pixel_accuracy": "pixels right", "map50": "at 0.5"}
"""What else of the metrics is shown."""


def scores_table(table: Mapping[str, Any]) -> str:
    """Return what each network reaches, the best first."""
    shown = [name for name in TITLES if name in table["networks"][0]["metrics"]]
    header = ["network", "seeds", f"{table['metric_title']} %", "interval", "of the seeds"]
    header += [f"{TITLES[name]} %" for name in shown] + ["train loss"]
    rows = []
    for network in sorted(table["networks"], key=lambda network: -network["score"]["mean"]):
        score = network["score"]
        row = [network["label"], str(len(network["seeds"])), _percent(score["mean"])]
        row += [f"{_percent(score['low'])} to {_percent(score['high'])}"]
        row += [", ".join(_percent(value) for value in score["per_seed"])]
        row += [_percent(network["metrics"][name]) for name in shown] + [f"{network['train_loss']:.3f}"]
        rows.append(row)
    caption = (
        f"On {table['images']} test images, the mean over the seeds; the 95 % interval is bootstrapped over the "
        "images. Train loss: of the last epoch, on augmented images."
    )
    return f"{markdown(header, rows)}\n\n{textwrap.fill(caption, WIDTH)}\n"


def classes_table(table: Mapping[str, Any]) -> str:
    """Return the score of each class, the mean over the seeds."""
    networks = table["networks"]
    header = [f"{table['metric_title']} %", *(network["label"] for network in networks)]
    rows = [
        [name, *(_percent(network["per_class"][index]) for network in networks)]
        for index, name in enumerate(table["classes"])
    ]
    return f"{markdown(header, rows)}\n"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
