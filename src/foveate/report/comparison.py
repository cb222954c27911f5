"""The result of ``foveate compare`` as a table, for people and for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from foveate.report.text import markdown

__all__ = ["cells", "metric_of", "to_csv", "to_markdown"]


def metric_of(table: Mapping[str, Any]) -> tuple[str, str]:
    """Return the name of the metric that networks are compared by, and its title; tables of 0.1 do not say it."""
    return table.get("metric", "top1"), table.get("metric_title", "top-1")


def to_csv(table: dict[str, Any]) -> str:
    """Return one row per network: fractions, FLOPs and bytes as they are in ``compare.json``."""
    rows = [_flat(network, metric_of(table)[0]) for network in table["networks"]]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def to_markdown(table: dict[str, Any]) -> str:
    """Return a Markdown table, padded so that it reads well in a terminal, and what its columns mean."""
    metric, title = metric_of(table)
    header = ["network", f"{title} %", "interval", "seeds ±", "Δ", "interval", "p"]
    header += ["params M", "GFLOPs", "images/s", "quartiles", "step MB"]
    rows = [list(cells(network, metric).values()) for network in table["networks"]]
    height, width = table["image_size"]
    confidence = f"{table['networks'][0][metric]['confidence']:.0%}"
    return "\n".join(
        [
            markdown(header, rows),
            "",
            f"{table['data']}: {table['images']} {table['split']} images of {height}×{width}, "
            f"{len(table['seeds'])} seed(s) per network, paired.",
            f"Intervals ({confidence}) are bootstrapped over the images, each averaged over the seeds; ± is the",
            "standard deviation over the seeds. Δ is the difference to the first network in points, on the same images",
            "with the same seeds; p is that of a two-sided permutation test. 1 multiply-add = 2 FLOPs. Images/s:",
            f"inference in batches of {table['batch_size']}, all networks interleaved, median. Step: memory that a",
            "training step adds, 1 MB = 10⁶ bytes. Both in float32, whatever the precision of training, with images",
            f"laid out {table['layout']}. Measured on: {table['environment']['device']}{_threads(table)}.",
            "",
        ]
    )


def _threads(table: dict[str, Any]) -> str:
    threads = table.get("threads")  # tables of before 0.2 do not say
    return "" if threads is None else f", {threads} thread{'s' * (threads != 1)}"


def _flat(network: dict[str, Any], metric: str) -> dict[str, Any]:
    score, difference, rate = network[metric], network["difference"] or {}, network["images_per_second"] or {}
    return {
        "network": network["label"],
        **{f"{metric}_{key}": score[key] for key in ("mean", "low", "high", "seed_std")},
        **{f"difference_{key}": difference.get(key) for key in ("mean", "low", "high", "seed_std", "p_value")},
        "parameters": network["parameters"],
        "flops": network["flops"],
        **{f"images_per_second_{key}": rate.get(key) for key in ("median", "q1", "q3")},
        "peak_memory": network["peak_memory"],
        "seconds": network["seconds"],
    }


def cells(network: Mapping[str, Any], metric: str) -> dict[str, str]:
    """Return what the columns say of a network, in their order; nothing where there is no figure."""
    score, difference, rate = network[metric], network["difference"], network["images_per_second"]
    compared = difference is not None
    return {
        "label": network["label"],
        "score": f"{100 * score['mean']:.2f}",
        "interval": f"{100 * score['low']:.2f} to {100 * score['high']:.2f}",
        "seeds": "" if score["seed_std"] is None else f"{100 * score['seed_std']:.2f}",
        "difference": f"{100 * difference['mean']:+.2f}" if compared else "",
        "difference_interval": f"{100 * difference['low']:+.2f} to {100 * difference['high']:+.2f}" if compared else "",
        "p": f"{difference['p_value']:.4f}" if compared else "",
        "parameters": f"{network['parameters'] / 1e6:.3f}",
        "flops": "" if network["flops"] is None else f"{network['flops'] / 1e9:.3f}",
        "rate": "" if rate is None else f"{rate['median']:.0f}",
        "quartiles": "" if rate is None else f"{rate['q1']:.0f} to {rate['q3']:.0f}",
        "memory": "" if network["peak_memory"] is None else f"{network['peak_memory'] / 1e6:.1f}",
    }
