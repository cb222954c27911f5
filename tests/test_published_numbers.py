"""Figures of ours on the pages are those of the committed results; how a page words them is its own affair."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "results"
PUBLISHED = {"18.1", "7.2", "25.8", "8.3", "23.8", "6.4", "6.7", "2.2", "0.9"}
"""What the papers state."""


def assert_on_page(name: str, *figures: str) -> None:
    """Assert that each of the figures stands somewhere on a page: of ``docs``, or a file with its path."""
    path = ROOT / "docs" / name
    text = (path if path.is_file() else ROOT / name).read_text(encoding="utf-8").replace("−", "-")
    assert set(figures) - set(re.findall(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?!\d)", text.replace(", ", " "))) == set()


def counted() -> dict[str, tuple[str, str]]:
    """Return parameters and GFLOPs by network, as `foveate cost` printed them."""
    rows = re.findall(r"^(\w+) +([\d.]+) +[+-][\d.]+% +([\d.]+)", (RESULTS / "cost-224.txt").read_text(), re.M)
    return {name: (parameters, gflops) for name, parameters, gflops in rows}


def test_costs_in_the_readme_are_those_counted():
    rows = re.findall(r"^\| `(\w+)`.*? \| ([\d.]+) M \| ([\d.]+) \|", README, re.M)
    assert rows
    assert {name: (parameters, gflops) for name, parameters, gflops in rows}.items() <= counted().items()


def share(name: str, other: str) -> tuple[float, ...]:
    """Return by how many per cent parameters and GFLOPs of two networks differ."""
    figures = {name: tuple(map(float, pair)) for name, pair in counted().items()}
    return tuple(abs(100 * (a / b - 1)) for a, b in zip(figures[name], figures[other], strict=True))


def test_what_cram_adds_follows_from_the_counts():
    assert_on_page("cram.md", *(f"{value:.2f}" for value in share("cram_resnet50", "resnet50")))


def derived() -> set[str]:
    """Return the figures that the README may give besides those that stand in results, from which they follow."""
    digits = json.loads((RESULTS / "digits" / "compare.json").read_text(encoding="utf-8"))["networks"]
    history = json.loads((RESULTS / "tiny-imagenet-100" / "result.json").read_text(encoding="utf-8"))["history"]
    return {
        *(f"{value:.1f}" for value in share("expatt_resnet152", "aa_resnet152")),
        *(f"{float(gflops):.1f}" for _, gflops in counted().values()),
        *(f"{100 * value:.2f}" for network in digits for value in network["top1"]["per_seed"]),
        *(f"{row[name]:.3f}" for row in history for name in ("train_loss", "val_loss")),
        *(f"{100 * row['val_top1']:.2f}" for row in history),
    }


def test_every_decimal_of_the_readme_is_counted_measured_or_published():
    text = re.sub(r"```.*?```|(arXiv|Python|CC BY) \d+\.\d+", "", README, flags=re.S)
    shown = set(re.findall(r"(?<![\w.])\d+\.\d+(?![\w.])", text))
    files = [RESULTS / "cost-224.txt", *RESULTS.glob("*/*.md")]
    measured = set(re.findall(r"\d+\.\d+", "\n".join(path.read_text(encoding="utf-8") for path in files)))
    assert len(shown) > 10
    assert shown - measured - derived() - PUBLISHED == set()


def test_ratios_on_the_page_of_costs_are_those_measured():
    page = (ROOT / "docs" / "cost.md").read_text(encoding="utf-8")
    tables = "\n".join(path.read_text(encoding="utf-8") for path in sorted((RESULTS / "bench").glob("*.md")))
    ratios = re.findall(r"[\d.]+ \([\d.]+ to [\d.]+\)", page)
    assert len(ratios) >= 12
    assert not [ratio for ratio in ratios if not re.search(rf"\| +{re.escape(ratio)} \|", tables)]


def cell(table: str, heading: str, subject: str, column: int) -> str:
    """Return a cell of a table of `python -m studies.bench`."""
    section = table.split(f"## {heading}")[1].split("\n## ")[0]
    row = next(line for line in section.splitlines() if line.startswith(f"| {subject} "))
    return row.split("|")[column].strip()


@pytest.mark.parametrize("size", ["56×56×64", "28×28×128"])
def test_memory_on_the_page_of_costs_is_that_measured(size: str):
    table = (RESULTS / "bench" / "bench-gsa.md").read_text(encoding="utf-8")
    ours, theirs = (cell(table, f"{size}: forward and backward", name, 4) for name in ("GSA", "gsa-pytorch"))
    assert_on_page("cost.md", ours, theirs, f"{float(ours) / float(theirs):.2f}")


def test_times_of_networks_on_the_page_of_costs_are_those_measured():
    table = (RESULTS / "bench" / "bench-networks.md").read_text(encoding="utf-8")
    names = ("expatt_resnet50, compiled", "aa_resnet50 (half_resolution=False), compiled")
    ours, theirs = (cell(table, "224×224: forward", name, 2).split()[0] for name in names)
    assert_on_page("cost.md", ours, theirs, f"{float(ours) / float(theirs):.2f}")
    for network, operator in (
        ("gsa_resnet50", "foveate::global_self"),
        ("gsa_resnet50", "aten::mkldnn_convolution"),
        ("resnet50", "aten::mkldnn_convolution"),
        ("expatt_resnet50", "aten::mkldnn_convolution"),
        ("expatt_resnet50 (value_ratio=0.125)", "aten::mkldnn_convolution"),
    ):
        spent = re.search(rf"^\| {re.escape(network)}, compiled +\|.*?{operator} ([\d.]+)", table, re.M)
        assert_on_page("cost.md", f"{float(spent[1]):.0f}")


def test_the_tables_of_benchmarks_are_made_from_their_results():
    from studies.bench.table import to_markdown

    for path in sorted((RESULTS / "bench").glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        assert to_markdown(result) == path.with_suffix(".md").read_text(encoding="utf-8"), path.name


def test_equivariance_on_its_page_and_in_its_recipe_is_that_measured():
    folder = RESULTS / "equivariance"
    measured = (folder / "equivariance.md").read_text(encoding="utf-8")
    compared = json.loads((folder / "compare.json").read_text(encoding="utf-8"))

    def row(name: str) -> list[str]:
        return next(line for line in measured.splitlines() if line.startswith(f"| {name} ")).split("|")

    plain, term = row("cram_resnet_tiny"), row("cram_resnet_tiny:equivariance=1")
    corners, centre = ([cells[column].split()[0] for cells in (plain, term)] for column in (4, 5))
    stayed = term[4].split("(")[1].split(")")[0]
    top1 = [100 * network["top1"]["mean"] for network in compared["networks"][:2]]
    assert_on_page("stability.md", *corners, stayed, *centre, f"{top1[1] - top1[0]:.2f}")
    assert_on_page("recipes/equivariance.yaml", *corners, *(f"{value:.2f}" for value in top1))


def test_scores_on_their_page_are_those_measured():
    shipped = json.loads((RESULTS / "shipped" / "scores.json").read_text(encoding="utf-8"))["networks"]
    scores = {network["model"].partition("_")[0]: network["scores"] for network in shipped}

    def percent(name: str, score: str) -> str:
        return f"{100 * scores[name][score]['mean']:.1f}"

    assert_on_page("scores.md", *(percent(name, "pointing") for name in ("cram", "positionwise", "gsa", "conv")))
    assert_on_page("scores.md", percent("cram", "max_box_acc_0.5"))
    faithful = {network["model"].partition("_")[0]: network["faithfulness"] for network in shipped}
    better = {
        name
        for name, figures in faithful.items()
        if figures["deletion map - centre"]["high"] < 0 < figures["insertion map - centre"]["low"]
    }
    assert better == {"cram"}
    seeds = json.loads((RESULTS / "equivariance" / "scores.json").read_text(encoding="utf-8"))["networks"]
    pointing: dict[str, list[float]] = {}
    for network in seeds:
        family = Path(network["checkpoint"]).parent.name
        pointing.setdefault(family, []).append(100 * network["scores"]["pointing"]["mean"])
    assert len(pointing) == 4
    for values in pointing.values():
        assert_on_page("scores.md", f"{min(values):.1f}", f"{max(values):.1f}")


def test_stability_on_its_page_is_that_measured():
    places = json.loads((RESULTS / "stability" / "stability.json").read_text(encoding="utf-8"))["places"]

    def correlations(kind: str, what: str, figure: str = "correlation", *, together: bool = False) -> list[float]:
        chosen = [p for p in places if p["family"].startswith(kind) and bool(p["together"]) == together]
        return [place["agreement"][what][figure]["mean"] for place in chosen]

    for together in (False, True):
        for kind, figure in (("cram", "correlation"), ("positionwise", "correlation"), ("cram", "chance_correlation")):
            values = correlations(kind, "layers", figure, together=together)
            assert_on_page("stability.md", f"{min(values):.2f}", f"{max(values):.2f}")
    table = (RESULTS / "stability" / "stability.md").read_text(encoding="utf-8")
    cells = {
        kind: [line.split("|") for line in table.splitlines() if line.startswith(f"| {kind}_resnet_tiny  ")]
        for kind in ("cram", "positionwise")
    }
    third = [rows[-1][6].split("(")[0].split()[0] for rows in cells.values()]
    assert_on_page("stability.md", *third)
    assert_on_page("recipes/stability.yaml", *third)
    early = correlations("positionwise", "changes")[:3]
    late = correlations("cram", "changes")[0]
    assert_on_page("stability.md", *(f"{value:.2f}" for value in (min(early), max(early), late)))
    regions = [row[5].split("±")[0].strip() for row in cells["cram"]]
    assert_on_page("stability.md", regions[0], regions[-1])
    compared = json.loads((RESULTS / "stability" / "compare.json").read_text(encoding="utf-8"))["networks"]
    worst = next(network for network in compared if network["label"] == "positionwise_resnet_tiny:at=3")
    last = json.loads((RESULTS / "stability" / "behind-the-last-stage.json").read_text(encoding="utf-8"))
    assert_on_page(
        "stability.md", f"{100 * min(worst['top1']['per_seed']):.0f}", f"{100 * last['metrics']['top1']:.1f}"
    )


def test_reading_of_shards_on_its_page_is_that_measured():
    measured = re.findall(
        r"^\| \w+ +\| +([\d,]+) \(([\d,]+) to ([\d,]+)\) ", (RESULTS / "shards/shards.md").read_text(), re.M
    )
    assert len(measured) == 9
    assert_on_page("shards.md", *(figure for row in measured for figure in row))
    rate = int(measured[0][0])
    needed = (1_281_167 / rate / 3600, round(1e9 / rate / 3600, -1), 1000 / rate, 64_000 / rate)
    assert_on_page("shards.md", *(f"{value:.{digits}f}" for value, digits in zip(needed, (2, 0, 1, 0), strict=True)))
