"""``python -m studies.dense``: tables and a figure of segmentation networks or detectors, from their raw results."""

from __future__ import annotations

import dataclasses
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foveate.io.files import read_json, writable_folder, write_bytes, write_json, write_text
from foveate.stats import crossed_by_interval
from foveate.tasks import Task, find_task
from studies.dense.attention import attention_of, has_weights
from studies.dense.table import attention_table, classes_table, scores_table
from studies.differences import Raw, beside, difference_row, finished_runs, judge, label_of, pair_of, runs_of_pair
from studies.evidence.figures import draw_differences
from studies.evidence.table import differences_table

__all__ = ["RAW", "DenseConfig", "collect", "read_raw", "run"]

RAW, ATTENTION = "runs", "attention.json"


@dataclass(kw_only=True)
class DenseConfig:
    """Make the tables and the figure of a comparison of segmentation networks or detectors from its raw results.

    Attributes:
        out: Folder of the experiment: ``runs`` in it holds the raw results, a compressed file for each run; tables and
            the figure are put beside it.
        collect: Folders of comparisons, as `foveate compare` leaves them: the results of their finished runs are added
            first, and what can only be seen in their weights. Their data have to be where they were.
        claims: Differences that were named before the runs, as "gsa_resnet26 - conv_resnet26"; their p-values are
            corrected for their number.
        reference: What all others are compared to besides; the second network of the first claim if not given.
    """

    out: str = ""
    collect: list[str] = field(default_factory=list)
    claims: list[str] = field(default_factory=list)
    reference: str = ""

    def check(self) -> None:
        """Raise a `ValueError` that names the first setting that is out of its range."""
        if not self.out:
            raise ValueError("no experiment given; name the folder of its raw results, as in results/streets")
        if not self.claims:
            raise ValueError("no claims given; write at least one difference as 'gsa_resnet26 - conv_resnet26'")
        for spec in self.claims:
            pair_of(spec)


def run(config: DenseConfig) -> dict[str, Any]:
    """Make ``evidence.json`` and what is drawn and written of it; the same raw results give the same bytes.

    - ``networks.md``: the score of each network with its interval, and ``classes.md``: that of each class;
    - ``attention.md``: what the networks owe to their attention, and what it became;
    - ``claims.md``, ``explore.md``: differences, with their intervals over images, and over images and seeds;
    - ``differences.svg``.

    Returns:
        What ``evidence.json`` holds: ``metric_title``, ``images``, ``networks``, ``claims`` and ``explore``.

    Raises:
        ValueError: A setting is wrong, or a network or seed of a difference has no raw result.
    """
    config.check()
    out = Path(config.out)
    for comparison in config.collect:
        print(f"{collect(Path(comparison), out)} new runs in {out / RAW}")
    raw = read_raw(out)
    writable_folder(out)
    first = next(iter(next(iter(raw.values())).values()))
    task = find_task(first["config"]["task"])(first["network"]["classes"])
    claims = [pair_of(spec) for spec in config.claims]
    attention = read_json(out / ATTENTION) if (out / ATTENTION).is_file() else {}
    reference = config.reference or claims[0][1]
    table = {
        "metric_title": task.metric_title,
        "images": first["images"],
        "classes": task.classes,
        "networks": [_network(task, label, seeds, attention) for label, seeds in raw.items()],
        "claims": judge(_differences(task, raw, claims, named=True)),
        "explore": _differences(task, raw, beside(raw, reference, claims), named=False),
    }
    write_json(out / "evidence.json", table)
    table = read_json(out / "evidence.json")
    title = table["metric_title"]
    pages = {"networks": scores_table(table), "classes": classes_table(table), "attention": attention_table(table)}
    pages |= {
        name: differences_table(table[name], table["images"], title) for name in ("claims", "explore") if table[name]
    }
    for name, text in pages.items():
        write_text(out / f"{name}.md", text)
    write_bytes(out / "differences.svg", draw_differences(table, title))
    print("\n".join([*(pages[name] for name in ("networks", "claims")), f"saved in {out}"]))
    return table


def collect(comparison: Path, out: Path) -> int:
    """Add the results of the finished runs of a comparison to the raw results; return how many are new.

    A run that was made again replaces its raw result. ``attention.json`` gets what `attention_of` finds in the weights
    of each, by label and seed.

    Raises:
        ValueError: There is no finished run, or its data are not where they were.
    """
    runs = finished_runs(comparison)
    writable_folder(out / RAW)
    found = read_json(out / ATTENTION) if (out / ATTENTION).is_file() else {}
    new = 0
    for path in runs:
        file = out / RAW / f"{path.parts[-3]}--{path.parts[-2]}.json.gz"
        seeds = found.setdefault(label_of(path.parts[-3]), {})
        seed = path.parts[-2].removeprefix("seed-")
        if not file.exists() or gzip.decompress(file.read_bytes()) != path.read_bytes():
            if seeds.pop(seed, None) is not None:  # what was seen in other weights: gone before they are
                _write_attention(out, found)
            write_bytes(file, gzip.compress(path.read_bytes(), mtime=0))
            new += 1
        if seed not in seeds and has_weights(path.parent):
            seeds[seed] = attention_of(path.parent, read_json(path))
            _write_attention(out, found)
    return new


def _write_attention(out: Path, found: Mapping[str, Mapping[str, Any]]) -> None:
    write_json(out / ATTENTION, {label: found[label] for label in sorted(found)})


def read_raw(folder: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """Return the raw results in ``folder``, by label and seed.

    Raises:
        ValueError: There are none, or one cannot be read.
    """
    files = sorted((folder / RAW).glob("*.json.gz"))
    if not files:
        raise ValueError(f"there are no raw results in {folder / RAW}; --collect RUNS adds some")
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for file in files:
        label = label_of(file.name.partition("--seed-")[0])
        try:
            result = json.loads(gzip.decompress(file.read_bytes()))
            found.setdefault(label, {})[result["seed"]] = result
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is not a raw result: {error!r}; remove it and collect it again") from error
    return found


def _network(
    task: Task, label: str, seeds: Mapping[int, Mapping[str, Any]], attention: Mapping[str, Any]
) -> dict[str, Any]:
    runs = [seeds[seed] for seed in sorted(seeds)]
    metrics = [run["metrics"] for run in runs]
    return {
        "label": label,
        "seeds": sorted(seeds),
        "score": dataclasses.asdict(task.score([run[task.per_image] for run in runs])),
        "train_loss": _mean([run["history"][-1]["train_loss"] for run in runs]),
        "metrics": {name: _mean([one[name] for one in metrics]) for name in metrics[0] if name != "per_class"},
        "attention": [
            {"seed": int(seed), **found} for seed, found in sorted(attention.get(label, {}).items()) if found
        ],
        "per_class": [_mean([one["per_class"][index] for one in metrics]) for index in range(len(task.classes))],
    }


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of what is defined; None if nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _differences(task: Task, raw: Raw, pairs: Sequence[tuple[str, str]], *, named: bool) -> list[dict[str, Any]]:
    rows = []
    for label, other in pairs:
        seeds, ours, theirs = runs_of_pair(raw, label, other, named=named)
        over_images = task.difference(*([one[task.per_image] for one in runs] for runs in (ours, theirs)))
        over_both = crossed_by_interval(over_images, images=ours[0]["images"])
        rows.append(difference_row(label, other, seeds, over_images, over_both))
    return rows
