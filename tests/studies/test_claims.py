"""The committed tables of segmentation, detection and of all claims are what the raw results give."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from foveate.io.files import read_json
from studies.claims import EXPERIMENTS, claims_table
from studies.dense.command import ATTENTION, DenseConfig, run

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
DENSE = [folder for folder in EXPERIMENTS if (RESULTS / folder / ATTENTION).is_file()]
RECIPES = [ROOT / "recipes" / f"evidence-{folder}.yaml" for folder in DENSE]


def test_the_claims_are_those_of_all_experiments() -> None:
    committed = (RESULTS / "claims.md").read_text(encoding="utf-8")
    assert committed == claims_table(RESULTS)
    with_results = [
        title for folder, (title, _) in EXPERIMENTS.items() if (RESULTS / folder / "evidence.json").is_file()
    ]
    assert with_results
    assert all(f"[{title}]" in committed for title in with_results)


DEAR = [
    pytest.param(path, marks=pytest.mark.exhaustive) if path.stem.startswith("evidence-cells") else path
    for path in RECIPES
]
"""The mean average precision of one resample takes as long as a table of segmentation."""


@pytest.mark.slow
@pytest.mark.parametrize("recipe", DEAR, ids=lambda path: path.stem)
def test_raw_results_give_the_committed_tables(recipe: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    committed = ROOT / settings["out"]
    shutil.copytree(committed / "runs", tmp_path / "runs")
    shutil.copy(committed / ATTENTION, tmp_path)
    run(DenseConfig(**{**settings, "out": str(tmp_path)}))
    for path in tmp_path.glob("*.md"):
        assert path.read_bytes() == (committed / path.name).read_bytes(), path.name
    assert len(list(tmp_path.glob("*.md"))) >= 4


@pytest.mark.slow
def test_raw_results_of_two_detectors_give_the_committed_figures(tmp_path: Path) -> None:
    settings = yaml.safe_load((ROOT / "recipes" / "evidence-cells.yaml").read_text(encoding="utf-8"))
    committed = ROOT / settings["out"]
    wanted = read_json(committed / "evidence.json")
    claim = settings["claims"][-1]
    labels = claim.split(" - ")
    (tmp_path / "runs").mkdir()
    for label in labels:
        for file in (committed / "runs").glob(f"{label}--seed-*.json.gz"):
            shutil.copy(file, tmp_path / "runs")
    shutil.copy(committed / ATTENTION, tmp_path)
    made = run(DenseConfig(**{**settings, "claims": [claim], "out": str(tmp_path)}))
    assert [row["label"] for row in made["networks"]] == sorted(labels)
    assert all(row in wanted["networks"] for row in made["networks"])
    corrected = {"holm", "holm_over_both", "verdict"}  # for another number of claims
    (row,) = made["claims"]
    (same,) = [row for row in wanted["claims"] if [row["label"], row["other"]] == labels]
    assert {k: v for k, v in row.items() if k not in corrected} == {k: v for k, v in same.items() if k not in corrected}
