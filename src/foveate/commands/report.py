"""``foveate report``: one page that shows a comparison, in one file that needs nothing else."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foveate import _checks
from foveate.comparison import COMPARISON, CompareConfig
from foveate.io.files import read_json, writable_file, write_text
from foveate.report.comparison import to_markdown
from foveate.report.page import comparison_page
from foveate.trained.loading import check_data_of_run, load
from foveate.training.run_folder import RESULT
from foveate.training.settings_file import to_yaml

__all__ = ["ReportConfig", "run"]


@dataclass(kw_only=True)
class ReportConfig:
    """Write a page about a comparison: table, learning curves, and where each network looks.

    Attributes:
        runs: Folder that `foveate compare` has written.
        out: File to write; report.html in that folder if not given.
        images: How many test images are shown.
    """

    runs: Path | None = None
    out: Path | None = None
    images: int = 12


def run(config: ReportConfig) -> Path:
    """Write the report, print its path, and return it.

    Raises:
        ValueError: The folder holds no finished comparison, or the report cannot be written where it should be.
    """
    if config.runs is None:
        raise ValueError("no folder given; name that of a comparison, as in `foveate report runs/compare`")
    _checks.integer("images", config.images)
    table, comparison = _read(config.runs)
    out = writable_file(config.out or config.runs / "report.html")
    folder = config.runs / table["networks"][0]["runs"][0]
    first = load(folder)
    data = comparison.open(tuple(table["image_size"]), intensity_range=first.meta.intensity_range)
    check_data_of_run(data, folder)
    data = dataclasses.replace(data, transform=first.transform_of(data))  # as the networks saw images that were opened
    page = comparison_page(table, data, runs=config.runs, config=to_yaml(comparison), images=config.images)
    write_text(out, page)
    print(out)
    return out


def _read(runs: Path) -> tuple[dict[str, Any], CompareConfig]:
    """Return the comparison in ``runs``, with the learning history of each run as ``histories`` of its network.

    The second value is what was asked for then; ``config.yaml`` may say what another one, not yet finished, is to be.
    """
    if not (runs / COMPARISON).is_file():
        raise ValueError(
            f"there is no {COMPARISON} in {runs}; `foveate compare --out {runs} …` writes one when it ends"
        )
    table = read_json(runs / COMPARISON)
    try:
        for network in table["networks"]:
            network["histories"] = [read_json(runs / folder / RESULT)["history"] for folder in network["runs"]]
        models = [network["label"] for network in table["networks"]]
        comparison = CompareConfig(models=models, seeds=len(table["seeds"]), out=str(runs), **table["protocol"])
        to_markdown(table)  # what makes a table has all that makes a page
    except FileNotFoundError as error:
        raise ValueError(f"{error.filename} is missing; run `foveate compare` again, which makes it anew") from error
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{runs / COMPARISON} is not what `foveate compare` writes: {error!r}") from error
    dataclasses.replace(comparison, logger=[], opt="adamw").check()  # what trained need not be installed here
    return table, comparison
