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
