"""The results of an experiment as tables."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from foveate.report.text import WIDTH, markdown

__all__ = ["attention_table", "differences_table", "networks_table"]

Row = Mapping[str, Any]


def networks_table(table: Row) -> str:
    """Return what each network reaches, and what it costs."""
    header = ["network", "seeds", "top-1 %", "interval", "of the seeds", "test loss", "train loss"]
    header += ["params M", "GFLOPs", "images/s"]
    rows = []
    for network in sorted(table["networks"], key=lambda network: -network["top1"]["mean"]):
        top1, rate = network["top1"], network.get("images_per_second")
        row = [network["label"], str(len(network["seeds"])), f"{100 * top1['mean']:.2f}", _interval(top1)]
        row += [", ".join(f"{100 * value:.1f}" for value in top1["per_seed"])]
        row += [f"{network['loss']:.3f}", f"{network['train_loss']:.3f}"]
        row += [f"{network['parameters'] / 1e6:.3f}" if "parameters" in network else ""]
        row += [f"{network['flops'] / 1e9:.4f}" if network.get("flops") else ""]
        row += ["" if rate is None else f"{rate['median']:.0f}"]
        rows.append(row)
    caption = (
        f"Top-1 on {table['images']} test images, the mean over the seeds; its 95 % interval is bootstrapped over the "
        "images. Train loss: of the last epoch, on augmented images, with label smoothing if there is any. 1 "
        "multiply-add = 2 FLOPs. Images/s: forward, the networks of one comparison interleaved; those of several do "
        "not compare."
    )
    return f"{markdown(header, rows)}\n\n{textwrap.fill(caption, WIDTH)}\n"


def differences_table(rows: Sequence[Row], images: int, metric: str = "top-1") -> str:
    """Return differences in points, each with both intervals."""
    corrected = any("holm" in row for row in rows)
    header = ["difference", "seeds", "points", "over images", "over images and seeds", "of the seeds", "p"]
    header += ["p, Holm", "of both"] * corrected + ["visible from"] + ["verdict"] * corrected
    cells = []
    for row in rows:
        images_only, both = row["over_images"], row["over_both"]
        cell = [f"{row['label']} − {row['other']}", str(len(row["seeds"])), f"{100 * both['mean']:+.2f}"]
        cell += [_interval(images_only, "+.2f"), _interval(both, "+.2f")]
        cell += [", ".join(f"{100 * value:+.1f}" for value in images_only["per_seed"])]
        cell += [f"{images_only['p_value']:.4f}"]
        cell += [f"{row[name]:.4f}" for name in ("holm", "holm_over_both")] if corrected else []
        cell += [f"{100 * both['detectable']:.1f}"]
        cell += [row["verdict"]] if corrected else []
        cells.append(cell)
    caption = (
        f"Differences of {metric} in points, paired by seed and by image, {images} images. Intervals of 95 %: over "
        "images, bootstrapped, for these trained networks; over images and seeds, Student's, for networks trained "
        "again. p: two-sided permutation test over the images"
        + (
            ", and corrected for the number of rows by Holm's procedure; of both: Student's test over images and "
            "seeds, corrected likewise, by which no verdict goes"
            if corrected
            else "; not corrected"
        )
        + ". Visible from: the smallest difference that the experiment would have seen in four of five repetitions."
    )
    return f"{markdown(header, cells)}\n\n{textwrap.fill(caption, WIDTH)}\n"


def attention_table(table: Row) -> str:
    """Return what the networks owe to their attention, and what it became."""
    header = ["network", "top-1 %", "without", "loses", "share of the gradient", "radii, or rectangles"]
    rows = []
    for network in table["networks"]:
        found = network["attention"]
        if not found:
            continue
        top1 = network["top1"]["mean"]
        shares = ", ".join(f"{100 * share:.2g} %" for share in found["gradient_shares"].values())
        for part, without in found["top1_without"].items() or [("", None)]:
            lost = ["", ""] if without is None else [_without(part, without), f"{100 * (top1 - without):.1f}"]
            rows.append([network["label"], f"{100 * top1:.2f}", *lost, shares, _became(found)])
    caption = (
        "Top-1 of the trained networks, and without their attention: gates open, explicit and augmented attention of "
        "each position to itself alone, GSA without the part that is named. Share of the gradient: of the squared norm "
        "for a batch of validation images, that of the parameters of each map, from the first to the last. Radii: "
        "learned, in positions of the map, from the first module to the last. Rectangles: half-sides and centre, mean "
        "± deviation over images. All are means over the seeds."
    )
    return f"{markdown(header, rows, left=1)}\n\n{textwrap.fill(caption, WIDTH)}\n"


def _without(part: str, top1: float) -> str:
    return f"{100 * top1:.2f}" + ("" if part == "attention" else f" ({part})")


def _became(found: Row) -> str:
    if "radii" in found:
        return ", ".join(f"{radius['learned']:.2f}" for radius in found["radii"].values())
    if "rectangles" in found:
        return "; ".join(
            ", ".join(f"{name} {r['mean'][name]:.2f} ± {r['deviation'][name]:.2f}" for name in ("sx", "sy", "cx", "cy"))
            for r in found["rectangles"].values()
        )
    return ""


def _interval(figure: Row, form: str = ".2f") -> str:
    return f"{100 * figure['low']:{form}} to {100 * figure['high']:{form}}"
