"""Every difference that was named before its runs, of all experiments, in one table: ``python -m studies.claims``.

It reads ``evidence.json`` in the folders of the experiments and writes ``results/claims.md``.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foveate.io.files import read_json, write_text
from foveate.report.text import WIDTH, markdown

__all__ = ["EXPERIMENTS", "claims_table", "main"]

ROOT = Path(__file__).parents[1]
EXPERIMENTS = {
    "photographs": ("photographs (classification)", "evidence.md"),
    "cifar100": ("CIFAR-100 (classification)", "cifar100.md"),
    "streets": ("street scenes (segmentation)", "streets.md"),
    "streets-pretrained": ("street scenes, pretrained", "streets.md"),
    "flowers-compare": ("Flowers, pretrained", "flowers.md"),
    "cells": ("blood cells (detection)", "cells.md"),
    "cells-pretrained": ("blood cells, pretrained", "cells.md"),
}
"""By the folder in ``results``: what a reader calls it, and its page."""
ENDINGS = ("_resnet_tiny", "_tf_efficientnet_lite0")


def claims_table(results: Path) -> str:
    """Return the table, the same claim in all experiments together; experiments without evidence are left out."""
    rows: dict[str, list[list[str]]] = {}
    for folder, (title, page) in EXPERIMENTS.items():
        if not (results / folder / "evidence.json").is_file():
            continue
        table = read_json(results / folder / "evidence.json")
        for row in table["claims"]:
            rows.setdefault(_claim(row), []).append(
                [f"[{title}]({page})", table.get("metric_title", "top-1"), *_figures(row), row["verdict"]]
            )
    header = ["difference", "where", "score", "points", "over images and seeds", "p", "visible from", "verdict"]
    cells = [[claim, *row] for claim, found in rows.items() for row in found]
    caption = (
        "Differences in points between networks with the same seeds; intervals of 95 % for networks trained again, by "
        "which verdicts go. p: over images and seeds, corrected by Holm's procedure for the differences of its "
        "experiment; no verdict goes by it. Visible from: the smallest difference that would have been seen in four of "
        "five repetitions."
    )
    return f"{markdown(header, cells, left=3)}\n\n{textwrap.fill(caption, WIDTH)}\n"


def _claim(row: dict[str, Any]) -> str:
    return " − ".join(_short(row[name]) for name in ("label", "other"))


def _short(label: str) -> str:
    name, _, options = label.partition(":")
    for ending in ENDINGS:
        name = name.removesuffix(ending)
    # Learning rates are a matter of the protocol: the claim is the same.
    options = ",".join(option for option in options.split(",") if not option.startswith("lr="))
    return f"{name} ({options})" if options else name


def _figures(row: dict[str, Any]) -> list[str]:
    both = row["over_both"]
    interval = f"{100 * both['low']:+.2f} to {100 * both['high']:+.2f}"
    return [f"{100 * both['mean']:+.2f}", interval, f"{row['holm_over_both']:.3f}", f"{100 * both['detectable']:.1f}"]


def main(argv: Sequence[str] | None = None) -> int:
    """Write the table into ``results``, or the folder that is given; return the exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    results = Path(given[0]) if given else ROOT / "results"
    write_text(results / "claims.md", claims_table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
