"""``python -m studies.evidence``: tables and figures of an experiment, made from its raw results alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from foveate._extras import require
from foveate.io.files import read_json, writable_folder, write_bytes, write_json, write_text
from foveate.stats import crossed_difference, mean_score, paired_difference
from studies.differences import Raw, beside, difference_row, judge, pair_of, runs_of_pair
from studies.evidence.raw import collect, read_costs, read_raw, restore
from studies.evidence.table import attention_table, differences_table, networks_table

__all__ = ["EvidenceConfig", "run"]


@dataclass(kw_only=True)
class EvidenceConfig:
    """Make the tables and figures of an experiment from its raw results.

    Attributes:
        out: Folder of the experiment: ``runs`` in it holds the raw results, a file for each run; tables and figures
            are put beside it.
        collect: Folders of comparisons, as `foveate compare` leaves them: their finished runs are added to the raw
            results first. Their data have to be where they were.
        restore: Folder of a comparison that is to go on: it gets what it needs to leave out the runs of the raw
            results. Nothing else is done then.
        reference: What all networks are compared to; not given, the first of the claims.
        claims: Differences that were named before the runs, as "cram_resnet26 - resnet26d"; their p-values are
            corrected for their number.
        explore: Further differences, whose p-values are not corrected; over the seeds that both networks have.
    """

    out: str = ""
    collect: list[str] = field(default_factory=list)
    restore: str = ""
    reference: str = ""
    claims: list[str] = field(default_factory=list)
    explore: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Raise a `ValueError` that names the first setting that is out of its range."""
        if not self.out:
            raise ValueError("no experiment given; name the folder of its raw results with --out")
        for name in ("claims", "explore"):
            for spec in getattr(self, name):
                pair_of(spec)


def run(config: EvidenceConfig) -> dict[str, Any]:
    """Make ``evidence.json`` and what is drawn and written of it; the same raw results give the same bytes.

    - ``networks.md``: top-1 of each network, its interval, and what it costs;
    - ``claims.md``, ``explore.md``: differences, with their intervals over images, and over images and seeds;
    - ``attention.md``: what the networks owe to their attention, and what it became;
    - ``accuracy.svg`` and ``differences.svg``.

    Returns:
        What ``evidence.json`` holds: ``networks``, ``claims`` and ``explore``, each a list.

    Raises:
        ValueError: A setting is wrong, or a network or seed of a difference has no raw result.
    """
    config.check()
    if config.restore:
        number = restore(Path(config.out), Path(config.restore))
        print(f"{number} results restored in {config.restore}")
        return {}
    require("matplotlib", extra="explain")
    from studies.evidence.figures import draw_accuracy, draw_differences

    out = Path(config.out)
    for comparison in config.collect:
        collect(Path(comparison), out, print)
    raw = read_raw(out)
    writable_folder(out)
    reference = config.reference or (pair_of(config.claims[0])[1] if config.claims else next(iter(raw)))
    claims, asked = ([pair_of(spec) for spec in specs] for specs in (config.claims, config.explore))
    explored = [pair for pair in dict.fromkeys([*asked, *beside(raw, reference, claims)]) if pair not in claims]
    table = {
        "reference": reference,
        "images": len(runs_of_pair(raw, reference, reference)[1][0]["correct"]),
        "networks": _networks(raw, read_costs(out)),
        "claims": judge(_differences(raw, claims, named=True)),
        "explore": _differences(raw, explored, named=False),
    }
    write_json(out / "evidence.json", table)
    table = read_json(out / "evidence.json")
    pages = {"networks": networks_table(table), "attention": attention_table(table)}
    pages |= {name: differences_table(table[name], table["images"]) for name in ("claims", "explore") if table[name]}
    for name, text in pages.items():
        write_text(out / f"{name}.md", text)
    write_bytes(out / "accuracy.svg", draw_accuracy(table["networks"]))
    if table["claims"] or table["explore"]:
        write_bytes(out / "differences.svg", draw_differences(table))
    print("\n".join([pages["networks"], pages.get("claims", ""), f"saved in {out}"]))
    return table


def _networks(raw: Raw, costs: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for label, seeds in raw.items():
        runs = [seeds[seed] for seed in sorted(seeds)]
        rows.append(
            {
                "label": label,
                "seeds": sorted(seeds),
                "top1": dataclasses.asdict(mean_score([one["correct"] for one in runs])),
                "train_loss": float(np.mean([one["history"][-1]["train_loss"] for one in runs])),
                "loss": float(np.mean([one["metrics"]["loss"] for one in runs])),
                "attention": _mean([one["attention"] for one in runs]),
                **costs.get(label, {}),
            }
        )
    return rows


def _mean(values: Sequence[Any]) -> Any:
    """Return the mean over the seeds of nested dictionaries of numbers."""
    if isinstance(values[0], Mapping):
        return {name: _mean([value[name] for value in values]) for name in values[0]}
    return float(np.mean(values))


def _differences(raw: Raw, pairs: Sequence[tuple[str, str]], *, named: bool) -> list[dict[str, Any]]:
    rows = []
    for label, other in pairs:
        seeds, ours, theirs = runs_of_pair(raw, label, other, named=named)
        correct, reference = ([one["correct"] for one in runs] for runs in (ours, theirs))
        over_images, over_both = paired_difference(correct, reference), crossed_difference(correct, reference)
        rows.append(difference_row(label, other, seeds, over_images, over_both))
    return rows
