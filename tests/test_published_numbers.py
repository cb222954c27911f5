"""Every figure of ours in the README stands in a committed result file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "results"


def counted() -> dict[str, tuple[str, str]]:
    """Return parameters and GFLOPs by network, as `foveate cost` printed them."""
    rows = re.findall(r"^(\w+) +([\d.]+) +[+-][\d.]+% +([\d.]+)", (RESULTS / "cost-224.txt").read_text(), re.M)
    return {name: (parameters, gflops) for name, parameters, gflops in rows}


def test_costs_in_the_readme_are_those_counted():
    rows = re.findall(r"^\| `(\w+)`.*? \| ([\d.]+) M \| ([\d.]+) \|", README, re.M)
    assert len(rows) >= 7
    assert {name: (parameters, gflops) for name, parameters, gflops in rows}.items() <= counted().items()


def test_shares_in_the_text_follow_from_the_counts():
    figures = {name: tuple(map(float, pair)) for name, pair in counted().items()}
    ours, theirs = figures["expatt_resnet152"], figures["aa_resnet152"]
    assert f"{100 * (1 - ours[0] / theirs[0]):.1f} % fewer parameters than `aa_resnet152`" in README
    assert f"and {100 * (1 - ours[1] / theirs[1]):.1f} % fewer GFLOPs" in README
    with_head, alone = figures["cram_resnet50"], figures["resnet50"]
    page = (ROOT / "docs" / "cram.md").read_text(encoding="utf-8")
    shares = [f"{100 * (a / b - 1):.2f} %" for a, b in zip(with_head, alone, strict=True)]
    assert f"{shares[0]} of the parameters and {shares[1]} of the FLOPs" in " ".join(page.split())


def test_the_comparison_in_the_readme_is_the_committed_one():
    table = (RESULTS / "digits" / "compare.md").read_text(encoding="utf-8")
    assert table.strip() in README
    comparison = json.loads((RESULTS / "digits" / "compare.json").read_text(encoding="utf-8"))
    for network in comparison["networks"]:
        assert f"{100 * network['top1']['mean']:.2f}" in table


def test_the_example_on_photographs_is_the_committed_run():
    result = json.loads((RESULTS / "tiny-imagenet-100" / "result.json").read_text(encoding="utf-8"))
    for row in result["history"]:
        line = f"| {row['epoch']} | {row['train_loss']:.3f} | {row['val_loss']:.3f} | {100 * row['val_top1']:.2f} % |"
        assert line in README
    assert result["history"][-1]["train_loss"] < result["history"][0]["train_loss"]
    assert result["history"][-1]["val_top1"] == pytest.approx(result["metrics"]["top1"], abs=1e-6)


def test_ratios_on_the_page_of_costs_are_those_measured():
    page = (ROOT / "docs" / "cost.md").read_text(encoding="utf-8")
    tables = "\n".join(path.read_text(encoding="utf-8") for path in sorted((RESULTS / "bench").glob("*.md")))
    ratios = re.findall(r"[\d.]+ \([\d.]+ to [\d.]+\)", page)
    assert len(ratios) >= 12
    assert not [ratio for ratio in ratios if f"| {ratio} |" not in tables]


def test_speed_in_the_readme_is_that_measured():
    module = (RESULTS / "bench" / "bench-gsa.md").read_text(encoding="utf-8")
    networks = (RESULTS / "bench" / "bench-networks.md").read_text(encoding="utf-8")
    times = float(cell(module, "56×56×64: forward in", "gsa-pytorch", 3).split()[0])
    assert f"{times:.1f} times as fast as gsa-pytorch's at 56×56×64" in README
    times = float(cell(networks, "224×224: forward", "gsa_resnet50, compiled", 4).split()[0])
    assert f"`gsa_resnet50` takes {times:.2f} times the time of `resnet50`" in README


def cell(table: str, heading: str, subject: str, column: int) -> str:
    """Return a cell of a table of `foveate bench`."""
    section = table.split(f"## {heading}")[1].split("\n## ")[0]
    row = next(line for line in section.splitlines() if line.startswith(f"| {subject} "))
    return row.split("|")[column].strip()


@pytest.mark.parametrize("size", ["56×56×64", "28×28×128"])
def test_memory_on_the_page_of_costs_is_that_measured(size: str):
    page = (ROOT / "docs" / "cost.md").read_text(encoding="utf-8")
    table = (RESULTS / "bench" / "bench-gsa.md").read_text(encoding="utf-8")
    ours, theirs = (cell(table, f"{size}: forward and backward", name, 4) for name in ("GSA", "gsa-pytorch"))
    assert f"{ours} MB against {theirs} MB, {float(ours) / float(theirs):.2f} |" in page


def test_times_of_networks_on_the_page_of_costs_are_those_measured():
    page = " ".join((ROOT / "docs" / "cost.md").read_text(encoding="utf-8").split())
    table = (RESULTS / "bench" / "bench-networks.md").read_text(encoding="utf-8")
    names = ("expatt_resnet50, compiled", "aa_resnet50 (half_resolution=False), compiled")
    ours, theirs = (cell(table, "224×224: forward", name, 2).split()[0] for name in names)
    assert f"{ours} ms against {theirs} ms, {float(ours) / float(theirs):.2f} |" in page
    spent = {
        name: float(re.search(rf"^\| {network}, compiled +\|.*?{name} ([\d.]+)", table, re.M)[1])
        for network, name in (
            ("gsa_resnet50", "foveate::axial_pass"),
            ("gsa_resnet50", "foveate::content"),
            ("resnet50", "aten::mkldnn_convolution"),
        )
    }
    assert f"where all convolutions of ResNet-50 take {spent['aten::mkldnn_convolution']:.0f})" in " ".join(
        page.split()
    )
    explicit, aligned = (
        float(re.search(rf"^\| {re.escape(name)}, compiled +\|.*?mkldnn_convolution ([\d.]+)", table, re.M)[1])
        for name in ("expatt_resnet50", "expatt_resnet50 (value_ratio=0.125)")
    )
    assert f"they take {explicit:.0f} ms where all of ResNet-50's take {spent['aten::mkldnn_convolution']:.0f}" in page
    assert f"its convolutions take {aligned:.0f} ms" in page
    passes, content = spent["foveate::axial_pass"], spent["foveate::content"]
    assert f"{passes:.0f} ms the positional passes, {content:.0f} ms content attention" in page


def test_the_tables_of_benchmarks_are_made_from_their_results():
    from foveate.commands.bench_table import to_markdown

    for path in sorted((RESULTS / "bench").glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        assert to_markdown(result) == path.with_suffix(".md").read_text(encoding="utf-8"), path.name


def test_equivariance_on_its_page_and_in_its_recipe_is_that_measured():
    folder = RESULTS / "equivariance"
    measured = (folder / "equivariance.md").read_text(encoding="utf-8")
    compared = json.loads((folder / "compare.json").read_text(encoding="utf-8"))
    page = " ".join((ROOT / "docs" / "stability.md").read_text(encoding="utf-8").split())
    recipe = (ROOT / "recipes" / "equivariance.yaml").read_text(encoding="utf-8")

    def row(name: str) -> list[str]:
        return next(line for line in measured.splitlines() if line.startswith(f"| {name} ")).split("|")

    plain, term = row("cram_resnet_tiny"), row("cram_resnet_tiny:equivariance=1")
    corners, centre = ([cells[column].split()[0] for cells in (plain, term)] for column in (4, 5))
    stayed = term[4].split("(")[1].split(")")[0]
    assert f"{corners[0]} to {corners[1]} sides of the image, where a rectangle that stayed in place would" in page
    assert f"would have {stayed};" in page
    assert f"from {centre[0]} to {centre[1]}" in page
    top1 = [100 * network["top1"]["mean"] for network in compared["networks"][:2]]
    assert f"rises by {top1[1] - top1[0]:.2f} points" in page
    assert f"from {corners[0]} to {corners[1]} sides, top-1 rises from {top1[0]:.2f} to {top1[1]:.2f} %" in recipe


def in_words(path: Path) -> str:
    return " ".join(path.read_text(encoding="utf-8").split())


def test_scores_on_their_page_are_those_measured():
    page = in_words(ROOT / "docs" / "scores.md")
    shipped = json.loads((RESULTS / "shipped" / "scores.json").read_text(encoding="utf-8"))["networks"]
    scores = {network["model"].partition("_")[0]: network["scores"] for network in shipped}

    def percent(name: str, score: str) -> str:
        return f"{100 * scores[name][score]['mean']:.1f} %"

    assert f"lies on the digit in {percent('cram', 'pointing')} of the images" in page
    assert f"trained in the same way in {percent('positionwise', 'pointing')}" in page
    assert f"of GSA in {percent('gsa', 'pointing')}, and of Grad-CAM on the plain network in " in page
    assert f"plain network in {percent('conv', 'pointing')}" in page
    assert f"with the true one in {percent('cram', 'max_box_acc_0.5')}" in page
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
    ranges = {family: f"{min(values):.1f} to {max(values):.1f} %" for family, values in pointing.items()}
    plain, term = ranges["cram_resnet_tiny"], ranges["cram_resnet_tiny+equivariance=1"]
    assert f"lies on the digit in {plain}, with it in {term}; of position-wise attention" in page
    plain, term = ranges["positionwise_resnet_tiny"], ranges["positionwise_resnet_tiny+equivariance=1"]
    assert f"attention {plain.removesuffix(' %')} % and {term}" in page


def test_stability_on_its_page_is_that_measured():
    page = in_words(ROOT / "docs" / "stability.md")
    places = json.loads((RESULTS / "stability" / "stability.json").read_text(encoding="utf-8"))["places"]

    def correlations(kind: str, what: str, figure: str = "correlation", *, together: bool = False) -> list[float]:
        chosen = [p for p in places if p["family"].startswith(kind) and bool(p["together"]) == together]
        return [place["agreement"][what][figure]["mean"] for place in chosen]

    def reach(*arguments: str, together: bool = False) -> str:
        values = correlations(*arguments, together=together)
        return f"{min(values):.2f} to {max(values):.2f}".replace("-", "−")

    assert f"r from {reach('cram', 'layers')} against {reach('positionwise', 'layers')}, and all in one" in page
    alone, others = (reach(kind, "layers", together=True) for kind in ("cram", "positionwise"))
    assert f"network {alone} against {others}" in page
    chance = [reach("cram", "layers", "chance_correlation", together=together) for together in (False, True)]
    assert f"agree with {chance[0]} (all in one {chance[1]})" in page
    table = (RESULTS / "stability" / "stability.md").read_text(encoding="utf-8")
    cells = {
        kind: [line.split("|") for line in table.splitlines() if line.startswith(f"| {kind}_resnet_tiny  ")]
        for kind in ("cram", "positionwise")
    }
    third = {kind: rows[-1][6].split("(")[0].strip() for kind, rows in cells.items()}
    assert f"r {third['cram']} and the position-wise map {third['positionwise']}" in page
    recipe = (ROOT / "recipes" / "stability.yaml").read_text(encoding="utf-8")
    assert third["cram"].split()[0] in recipe
    assert third["positionwise"].split()[0] in recipe
    early = correlations("positionwise", "changes")[:3]
    assert f"({min(early):.2f} to {max(early):.2f} against {correlations('cram', 'changes')[0]:.2f})" in page
    regions = [row[5].split("±")[0].strip() for row in cells["cram"]]
    assert f"its region is {regions[0]} % of the image behind the stem, {regions[-1]} % behind the third" in page
    compared = json.loads((RESULTS / "stability" / "compare.json").read_text(encoding="utf-8"))["networks"]
    worst = next(network for network in compared if network["label"] == "positionwise_resnet_tiny:at=3")
    assert f"({100 * min(worst['top1']['per_seed']):.0f} % top-1)" in page
    last = json.loads((RESULTS / "stability" / "behind-the-last-stage.json").read_text(encoding="utf-8"))
    assert f"({100 * last['metrics']['top1']:.1f} %," in page
