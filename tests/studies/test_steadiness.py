"""When a benchmark is too noisy: the rule, by numbers, and what is then measured again, marked and said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from foveate.benchmark import Quartiles
from foveate.benchmark.interleaving import Samples
from foveate.benchmark.machine import cores
from studies.bench import measurement, roofline
from studies.bench.command import BenchConfig, run
from studies.bench.dense import DenseExplicit, FactoredExplicit
from studies.bench.figures import draw
from studies.bench.measurement import Conditions, Measurer
from studies.bench.references import explicit_reference
from studies.bench.steadiness import noise, unsteady
from studies.bench.subject import Case, Subject, Suite
from studies.bench.suites import SUITES
from studies.bench.table import to_markdown
from tests.studies.test_other_work import LINUX, spinning

OURS = Subject("ours", partial(FactoredExplicit, "gaussian"), explicit_reference("gaussian"))
DENSE = Subject("dense", partial(DenseExplicit, "matmul"))
CASE = Case("7×11", (5, 7, 11), (OURS, DENSE))

STILL = [1.0] * 5


def strayed(by: float) -> list[float]:
    """Return five rounds of which the quartiles are so far from their median, 1."""
    return [1 - 2 * by, 1 - by, 1.0, 1 + by, 1 + 2 * by]


def test_noise_is_what_quartiles_stray_from_the_median() -> None:
    assert noise(Quartiles(2.0, 1.9, 2.4)) == pytest.approx(0.2)
    assert noise(Quartiles(2.0, 1.4, 2.4)) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("again", "other", "wanted"),
    [
        (strayed(0.01), strayed(0.049), {}),
        (strayed(0.01), strayed(0.06), {2: 1.2}),  # the first subject's is small: max_noise holds
        (strayed(0.04), strayed(0.06), {}),  # twice the first subject's holds
        (strayed(0.04), strayed(0.1), {2: 1.25}),
        (strayed(0.1), STILL, {0: 2.0, 1: 2.0, 2: 2.0}),  # nothing can be told from noise
        ([1.1] * 5, STILL, {0: 2.0, 1: 2.0, 2: 2.0}),  # nor where the same differs from itself
        (None, strayed(0.06), {2: 1.2}),
    ],
)
def test_the_rule(again: Sequence[float] | None, other: Sequence[float], wanted: dict[int, float]) -> None:
    seconds = {0: STILL, 2: [3 * value for value in other]} | ({} if again is None else {1: again})
    found = unsteady(seconds, 0, None if again is None else 1, max_noise=0.05)
    assert found == pytest.approx(wanted)


def measured(monkeypatch: pytest.MonkeyPatch, *rounds: dict[int, list[float]], repeats: int = 3) -> dict[str, Any]:
    """Measure `CASE` while the clock shows, at one time after the other, these seconds of its three entries."""
    times = iter(rounds)

    def clocked(calls: dict[int, Any], **_: Any) -> dict[int, Samples]:
        return {number: Samples(1, seconds) for number, seconds in next(times).items()}

    monkeypatch.setattr(measurement, "interleaved", clocked)
    conditions = Conditions(
        mode="forward", device=torch.device("cpu"), batch_size=1, max_seconds=1e9, max_memory=2**32, repeats=repeats
    )
    return Measurer(conditions).measure(CASE)


QUIET = {0: STILL, 1: strayed(0.01), 2: strayed(0.02)}
LOUD = {0: STILL, 1: strayed(0.1), 2: strayed(0.1)}
LOUDER = {0: STILL, 1: strayed(0.2), 2: strayed(0.2)}
ONE_LOUD = {0: STILL, 1: strayed(0.01), 2: strayed(0.08)}


def test_what_is_unsteady_is_measured_again_until_it_is_steady(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(monkeypatch, LOUD, ONE_LOUD, QUIET)
    assert found["repeats"] == 2
    assert [entry["seconds"] for entry in found["entries"]] == list(QUIET.values())
    assert not any(entry["unsteady"] for entry in found["entries"])
    assert measured(monkeypatch, QUIET)["repeats"] == 0


def test_what_stays_unsteady_is_marked_and_its_steadiest_time_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(monkeypatch, LOUDER, LOUD, LOUDER, repeats=2)
    assert found["repeats"] == 2
    assert [entry["seconds"] for entry in found["entries"]] == list(LOUD.values())
    assert all(entry["unsteady"] for entry in found["entries"])
    found = measured(monkeypatch, LOUD, ONE_LOUD, repeats=1)
    assert [entry["unsteady"] for entry in found["entries"]] == [False, False, True]


def published(case: dict[str, Any]) -> str:
    """Return the lines of the case in a result."""
    path = Path(__file__).parents[2] / "results/bench/bench-cram.json"
    result = {**json.loads(path.read_text()), "cases": [case]}
    assert draw(result)
    return to_markdown(result).partition("\n## ")[2]


def test_the_table_says_so_and_gives_no_ratio_of_what_is_unsteady(monkeypatch: pytest.MonkeyPatch) -> None:
    case = measured(monkeypatch, ONE_LOUD, ONE_LOUD, ONE_LOUD, repeats=2)
    case["other_work"] = {"processes": 0.31, "stolen": 0.07}
    text = published(case)
    assert "1.000 (0.990 to 1.010)" in text
    assert "**unsteady** (0.920 to 1.080)" in text
    assert "31%" in text
    assert "7%" in text
    assert "again 2 times" in text
    case["other_work"] = None
    assert "not known" in published(case)


@LINUX
@pytest.mark.slow
def test_processes_beside_a_benchmark_are_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(SUITES, "small", Suite("small", "A small suite", (), (CASE,)))
    monkeypatch.setitem(roofline.PRODUCT, "cpu", (1024, 64))
    monkeypatch.setitem(roofline.COPY_BYTES, "cpu", 2**16)
    config = BenchConfig(suites=["small"], mode="forward", rounds=11, threads=1, repeats=1, out=tmp_path)
    with spinning(2 * cores()):
        (case,) = run(config)["small"]["cases"]
    assert case["other_work"]["processes"] + case["other_work"]["stolen"] > 0.5
    assert case["repeats"] in (0, 1)
    ratios = [entry["unsteady"] for entry in case["entries"]]
    assert ("unsteady" in (tmp_path / "bench-small.md").read_text()) == any(ratios)
