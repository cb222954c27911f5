"""The page of evidence says what the raw results say: remade byte for byte, each figure found, each verdict theirs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import matplotlib
import pytest
import yaml

from studies.evidence.command import EvidenceConfig, run
from studies.evidence.figures import draw_accuracy, draw_differences
from studies.evidence.table import attention_table, differences_table, networks_table

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
PAGE = (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8")
FOUND = PAGE.split("## What came out")[1]
PUBLISHED = {"2.2", "0.9", "6.4", "6.7", "23.8"}
"""What the papers state, and pages quote."""


SETTINGS = yaml.safe_load((ROOT / "recipes" / "evidence.yaml").read_text(encoding="utf-8"))
COMMITTED = ROOT / SETTINGS["out"]


def assert_committed(name: str, content: bytes) -> None:
    """Assert that a file that was made is the one in results."""
    wanted = (COMMITTED / name).read_bytes()
    if name.endswith(".svg") and f"Matplotlib v{matplotlib.__version__}".encode() not in wanted:
        # Another version draws other bytes; the words and figures that are drawn are the same.
        content, wanted = (b"\n".join(sorted(re.findall(rb"<!-- (.*?) -->", text))) for text in (content, wanted))
    assert content == wanted, name


@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_raw_results_give_the_committed_bytes(tmp_path: Path) -> None:
    shutil.copytree(COMMITTED / "runs", tmp_path / "runs")
    shutil.copy(COMMITTED / "costs.json", tmp_path)
    run(EvidenceConfig(**{**SETTINGS, "out": str(tmp_path)}))
    made = [path for path in tmp_path.iterdir() if path.is_file()]
    assert len(made) >= 6
    for path in made:
        assert_committed(path.name, path.read_bytes())


@pytest.mark.slow
def test_the_raw_results_of_some_networks_give_the_committed_figures(tmp_path: Path) -> None:
    ours, other = SETTINGS["claims"][-1].split(" - ")
    (tmp_path / "runs").mkdir()
    for label in (ours, other):
        for file in (COMMITTED / "runs").glob(f"{label.replace(':', '+')}.seed-*.json"):
            shutil.copy(file, tmp_path / "runs")
    shutil.copy(COMMITTED / "costs.json", tmp_path)
    made = run(EvidenceConfig(out=str(tmp_path), claims=[f"{ours} - {other}"]))
    wanted = json.loads((COMMITTED / "evidence.json").read_text(encoding="utf-8"))
    assert {row["label"] for row in made["networks"]} == {ours, other}
    assert all(row in wanted["networks"] for row in made["networks"])
    (claim,), corrected = made["claims"], ("holm", "holm_over_both", "verdict")
    (found,) = [row for row in wanted["claims"] if (row["label"], row["other"]) == (ours, other)]
    assert {k: v for k, v in claim.items() if k not in corrected} == {
        k: v for k, v in found.items() if k not in corrected
    }


@pytest.mark.slow
def test_the_committed_figures_give_the_committed_tables_and_pictures() -> None:
    table = json.loads((COMMITTED / "evidence.json").read_text(encoding="utf-8"))
    made = {"networks.md": networks_table(table), "attention.md": attention_table(table)}
    made |= {f"{name}.md": differences_table(table[name], table["images"]) for name in ("claims", "explore")}
    for name, text in made.items():
        assert_committed(name, text.encode())
    assert_committed("accuracy.svg", draw_accuracy(table["networks"]))
    assert_committed("differences.svg", draw_differences(table))


def measured() -> str:
    """Return all tables that the page may quote."""
    files = [*RESULTS.glob("photographs/**/*.md"), *RESULTS.glob("photographs/*.txt")]
    files += [*RESULTS.glob("bench/*.md"), *RESULTS.glob("*/*.md"), RESULTS / "cost-224.txt"]
    return "\n".join(path.read_text(encoding="utf-8") for path in files).replace("-", "−")


def test_every_figure_of_the_page_is_in_a_table_of_results() -> None:
    text = re.sub(r"^--8<--.*$", "", FOUND, flags=re.M).replace("-", "−")
    figures = set(re.findall(r"(?<![\w.])[+−]?\d+\.\d+(?![\w.])", text))
    assert len(figures) > 20
    tables = measured()
    ours = {figure for figure in figures if figure.lstrip("+") not in PUBLISHED}
    missing = [figure for figure in ours if not re.search(rf"(?<![\d.]){re.escape(figure)}(?!\d)", tables)]
    assert missing == []


def test_verdicts_are_those_that_follow_from_the_figures() -> None:
    claims = json.loads((RESULTS / "photographs" / "evidence.json").read_text(encoding="utf-8"))["claims"]
    rows = re.findall(r"^\| (\d) \|.*\| \*(supported|not supported|not decidable here)\* \|$", FOUND, re.M)
    assert rows == [(str(number), row["verdict"]) for number, row in enumerate(claims, 1)]


def test_the_learning_rate_is_the_one_that_the_pilot_found_best() -> None:
    top1 = {
        float(path.parts[-3].removeprefix("lr-")): json.loads(path.read_text())["metrics"]["top1"]
        for path in RESULTS.glob("photographs/pilot/lr-*/runs/conv_resnet_tiny.seed-0.json")
    }
    assert len(top1) == 3
    best = max(top1, key=top1.__getitem__)
    recipe = yaml.safe_load((ROOT / "recipes" / "photographs.yaml").read_text(encoding="utf-8"))
    assert recipe["lr"] == best
    assert {f"{100 * value:.1f}" for value in top1.values()} <= set(re.findall(r"\d+\.\d", PAGE))


def test_the_runs_are_of_the_protocol() -> None:
    recipe = yaml.safe_load((ROOT / "recipes" / "photographs.yaml").read_text(encoding="utf-8"))
    own = {"model", "out", "seed", "resume", "checkpoint", "strategy", "sync_bn", "model_args", "lr"}
    files = sorted((RESULTS / "photographs" / "runs").glob("*.json"))
    assert len(files) >= recipe["seeds"] * len(recipe["models"])
    labels = set()
    for file in files:
        raw = json.loads(file.read_text(encoding="utf-8"))
        labels.add((raw["label"], raw["seed"]))
        assert raw["images"] == len(raw["correct"]) == 3500
        for name, value in recipe.items():
            if name not in ("models", "seeds", *own):
                assert raw["config"][name] == value, (file.name, name)
        rate = re.search(r"lr=([\d.]+)", raw["label"])
        assert raw["config"]["lr"] == (float(rate[1]) if rate else recipe["lr"])
    assert {(label, seed) for label in recipe["models"] for seed in range(recipe["seeds"])} <= labels
