"""The scores of segmentation networks and detectors as tables."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from foveate.report.text import WIDTH, markdown

__all__ = ["attention_table", "classes_table", "scores_table"]

TITLES = {"pixel_accuracy": "pixel accuracy", "map50": "at 0.5"}
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


def attention_table(table: Mapping[str, Any]) -> str:
    """Return what each network owes to its attention, and what became of radii and gates; means over the seeds."""
    title = table["metric_title"]
    header = ["network", "seeds", f"{title} %", "without", "loses", "radii", "gate", "objects within", "half-sides"]
    rows = []
    for network in table["networks"]:
        runs = network["attention"]
        for part in runs[0]["without"] if runs else []:
            # The mean over those seeds alone whose weights were there.
            without = _mean([run["without"][part] for run in runs])
            score = _mean([network["score"]["per_seed"][network["seeds"].index(run["seed"])] for run in runs])
            row = [network["label"], str(len(runs)), _percent(score)]
            row += [_percent(without) + ("" if part == "attention" else f" ({part})"), f"{100 * (score - without):.1f}"]
            rows.append([*row, _radii(runs), *_gate(runs)])
    caption = (
        f"{title} of the trained networks, and without their attention: gates open, explicit and augmented attention "
        "of each position to itself alone, GSA without the part that is named. Radii: learned, in positions of the "
        "map. Gate: share of the picture above half of the gate's maximum, and of the objects whose center is there. "
        "Half-sides of CRAM's rectangle, ± their deviation over the images; 1 is from the middle to the edge."
    )
    return f"{markdown(header, rows)}\n\n{textwrap.fill(caption, WIDTH)}\n"


def _radii(runs: Sequence[Mapping[str, Any]]) -> str:
    names = runs[0].get("radii", {})
    return ", ".join(f"{_mean([run['radii'][name]['learned'] for run in runs]):.2f}" for name in names)


def _gate(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    if "gates" not in runs[0]:
        return ["", "", ""]
    columns = zip(*(_gate_of([run["gates"][name] for run in runs]) for name in runs[0]["gates"]), strict=True)
    return ["; ".join(filter(None, column)) for column in columns]  # of several gates


def _gate_of(gates: Sequence[Mapping[str, Any]]) -> tuple[str, str, str]:
    within = f"{100 * _mean([gate['objects_within'] for gate in gates]):.1f} %" if "objects_within" in gates[0] else ""
    sides = [
        " ± ".join(f"{_mean([gate[name][what] for gate in gates]):.2f}" for what in ("mean", "deviation"))
        for name in ("sx", "sy")
        if name in gates[0]
    ]
    return f"{100 * _mean([gate['share'] for gate in gates]):.1f} %", within, ", ".join(sides)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
