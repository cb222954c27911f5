"""Differences between networks with paired seeds, as experiments name and publish them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from foveate import _checks
from foveate.stats import CrossedDifference, Difference, holm
from foveate.training.run_folder import RESULT

__all__ = [
    "Raw",
    "beside",
    "difference_row",
    "finished_runs",
    "judge",
    "label_of",
    "pair_of",
    "runs_of_pair",
    "verdict",
]

Raw = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""Raw results by label and seed."""

KEYS = {"standard_error": "error", "dof": "degrees", "minimum_detectable_effect": "detectable"}
"""Keys of the result files that differ from the names of the fields; committed results hold them."""


def finished_runs(comparison: Path) -> list[Path]:
    """Return the results of the finished runs of a comparison, as `foveate compare` leaves them.

    Raises:
        ValueError: There is none.
    """
    runs = sorted(comparison.glob(f"*/seed-*/{RESULT}"))
    if not runs:
        raise ValueError(f"there is no finished run in {comparison}; `foveate compare … --out {comparison}` makes some")
    return runs


def label_of(folder: str) -> str:
    """Return the label of a network from the name of its folder in a comparison."""
    return unquote(folder).replace("+", ":", 1)


def pair_of(spec: str) -> tuple[str, str]:
    """Return the labels of a difference written as ``A - B``.

    Raises:
        ValueError: It is not written so.
    """
    found = re.fullmatch(r"\s*(\S+) - (\S+)\s*", spec)
    if found is None:
        raise ValueError(f"{spec!r} is not a difference; write two networks as in 'cram_resnet26 - resnet26d'")
    return found[1], found[2]


def runs_of_pair(raw: Raw, label: str, other: str, *, named: bool = True) -> tuple[list[int], list[Any], list[Any]]:
    """Return the seeds of two networks, and the raw results of each in their order.

    A difference that was ``named`` before its runs needs the same seeds of both. Another one goes by those that both
    have, so that what is explored can be trained with fewer.

    Raises:
        ValueError: One has no raw result, or the seeds are not the same, or none is.
    """
    for name in (label, other):
        if name not in raw:
            raise ValueError(f"there is no raw result of {name}{_checks.suggestion(name, list(raw))}")
    seeds = sorted(raw[label].keys() & raw[other].keys())
    if not seeds or (named and raw[label].keys() != raw[other].keys()):
        raise ValueError(
            f"{label} was trained with seeds {sorted(raw[label])}, {other} with {sorted(raw[other])}; a paired "
            "difference needs the same: train those that are missing, or leave the difference out"
        )
    return seeds, [raw[label][seed] for seed in seeds], [raw[other][seed] for seed in seeds]


def beside(raw: Raw, reference: str, claims: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the pairs of each network with ``reference`` that are not among the ``claims``.

    A pair needs two seeds that both have: fewer do not tell what a seed changes.
    """
    if reference not in raw:
        raise ValueError(f"there is no raw result of {reference}{_checks.suggestion(reference, list(raw))}")
    others = [label for label in raw if label != reference and len(raw[label].keys() & raw[reference].keys()) > 1]
    return [(label, reference) for label in others if (label, reference) not in claims]


def difference_row(
    label: str, other: str, seeds: list[int], over_images: Difference, over_both: CrossedDifference
) -> dict[str, Any]:
    """Return a difference as result files hold it."""
    both = dataclasses.asdict(over_both)
    return {
        "label": label,
        "other": other,
        "seeds": seeds,
        "over_images": dataclasses.asdict(over_images),
        "over_both": {KEYS.get(name, name): value for name, value in both.items()},
    }


def judge(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add to the differences that were named beforehand Holm's p-values and what the claims have come to.

    ``holm`` is of the tests over images, by which verdicts go; ``holm_over_both`` of those over images and seeds.
    """
    over_images, over_both = (holm([row[name]["p_value"] for row in rows]) for name in ("over_images", "over_both"))
    for row, images, both in zip(rows, over_images, over_both, strict=True):
        row["holm"] = images
        row["verdict"] = verdict(row)
        row["holm_over_both"] = both
    return rows


def verdict(row: Mapping[str, Any]) -> str:
    """Return what a claim has come to; the claim is that the difference is above zero."""
    both, sure = row["over_both"], row["holm"] < 1 - row["over_both"]["confidence"]
    if sure and both["low"] > 0:
        return "supported"
    return "not supported" if sure and both["high"] < 0 else "not decidable here"
