"""A case measured: who is timed, who is left out and why, and what is told of each."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from foveate.benchmark.cost import network_cost
from studies.bench.dense import DenseExplicit, FactoredExplicit
from studies.bench.measurement import LEFT_OUT, MEASURED, WRONG, Conditions, Measurer
from studies.bench.references import explicit_reference, itself
from studies.bench.subject import Case, Subject, prepared
from studies.bench.suites import SUITES

GIB = 2**30


def conditions(**changes: Any) -> Conditions:
    defaults: dict[str, Any] = {
        "mode": "step",
        "device": torch.device("cpu"),
        "batch_size": 2,
        "rounds": 3,
        "warmup": 1,
        "max_seconds": 1e9,
        "max_memory": 4 * GIB,
    }
    return Conditions(**{**defaults, **changes})


class Blurred(FactoredExplicit):
    """Ours, with a mistake."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1e-2 * x


def missing() -> nn.Module:
    raise ModuleNotFoundError("no module named 'peer'", name="peer")


OURS = Subject("ours", partial(FactoredExplicit, "gaussian"), explicit_reference("gaussian"))
DENSE = Subject("dense", partial(DenseExplicit, "matmul"))
WRONG_ONE = Subject("blurred", partial(Blurred, "gaussian"), explicit_reference("gaussian"))
MISSING = Subject("peer", missing)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["forward", "step"])
def test_what_is_wrong_or_missing_is_not_timed(mode: str) -> None:
    case = Case("7×11", (5, 7, 11), (OURS, DENSE, WRONG_ONE, MISSING))
    found = Measurer(conditions(mode=mode)).measure(case)
    assert found["input"] == [2, 5, 7, 11]
    ours, again, dense, wrong, peer = found["entries"]
    assert [entry["status"] for entry in found["entries"]] == [MEASURED, MEASURED, MEASURED, WRONG, LEFT_OUT]
    assert [len(entry["seconds"]) for entry in found["entries"]] == [3, 3, 3, 0, 0]
    assert (ours["again"], again["again"], again["name"]) == (False, True, "ours")
    assert peer["reason"] == "peer is not installed"
    assert ours["check"]["passed"]
    assert len(ours["check"]["errors"]) == (2 if mode == "step" else 1)
    assert 1e-2 < wrong["check"]["errors"][0] < 1e-1
    assert dense["check"] is None
    assert ours["peak_memory"] > 0
    assert ours["parameters"] == 1
    forward = network_cost(prepared(OURS.build, 0), (5, 7, 11)).flops
    assert ours["flops"] == 2 * forward * (3 if mode == "step" else 1) > 0
    assert ours["repetitions"] > 1


@pytest.mark.slow
def test_the_base_that_is_wrong_leaves_the_others_to_be_timed() -> None:
    found = Measurer(conditions()).measure(Case("7×11", (5, 7, 11), (WRONG_ONE, OURS)))
    assert [(e["name"], e["status"]) for e in found["entries"]] == [("blurred", WRONG), ("ours", MEASURED)]


def test_too_much_memory_is_told_before_it_is_taken() -> None:
    case = Case("512×512", (2, 512, 512), (DENSE,))  # 256 GiB for each map
    (entry,) = Measurer(conditions(batch_size=1)).measure(case)["entries"]
    assert entry["status"] == LEFT_OUT
    assert entry["reason"].startswith("would need ")
    assert float(entry["reason"].split()[2]) > 256


def test_what_runs_out_of_memory_leaves_the_others_to_be_timed() -> None:
    class Large(FactoredExplicit):
        def forward(self, x: Tensor) -> Tensor:
            if type(x) is Tensor and x.device.type == "cpu":  # not where only shapes are counted
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(x)

    large = Subject("large", partial(Large, "gaussian"))
    found = Measurer(conditions(mode="forward")).measure(Case("7×11", (5, 7, 11), (OURS, large)))
    assert [entry["status"] for entry in found["entries"]] == [MEASURED, MEASURED, LEFT_OUT]
    assert found["entries"][2]["reason"] == "memory ran out"


def test_too_much_time_is_told_from_the_last_case() -> None:
    runs: list[tuple[int, ...]] = []

    class Noted(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            if type(x) is Tensor and x.device.type == "cpu":
                runs.append(tuple(x.shape))
            return super().forward(x)

    subject = Subject("noted", partial(Noted, 2, 2, 3))
    measurer = Measurer(conditions(mode="forward"))
    small, large = (Case(f"{side}", (2, side, side), (subject,), group="noted") for side in (7, 70))
    seconds = min(measurer.measure(small)["entries"][1]["seconds"])
    positions, flops = 7 * 7, 2 * 2 * 2 * 9 * 5 * 5
    growth = max(70 * 70 / positions, 2 * 2 * 2 * 9 * 68 * 68 / flops)
    runs.clear()
    for limit, status in ((0.9 * growth * seconds, LEFT_OUT), (1.1 * growth * seconds, MEASURED)):
        measurer.conditions = conditions(mode="forward", max_seconds=limit)
        (entry, *_) = measurer.measure(large)["entries"]
        assert entry["status"] == status
        assert (not runs) == (status == LEFT_OUT)
    other = Case("70", (2, 70, 70), (subject,), group="other")  # of which nothing is known yet
    measurer.conditions = conditions(mode="forward", max_seconds=1e-9)
    assert measurer.measure(other)["entries"][0]["status"] == MEASURED


SQUASHED = Case("5×7", (3, 5, 7), (Subject("squashed", nn.Hardswish, itself()), Subject("peer", nn.Softsign)))


@pytest.mark.slow
def test_compiled_beside_eager() -> None:
    both = conditions(mode="forward", compiled=(False, True), dtype=torch.bfloat16, repeats=0)
    entries = Measurer(both).measure(SQUASHED)["entries"]
    assert [(e["name"], e["compiled"], e["again"]) for e in entries] == [
        ("squashed", False, False),
        ("squashed", False, True),
        ("squashed", True, False),
        ("squashed", True, True),
        ("peer", False, False),
        ("peer", True, False),
    ]
    assert {entry["status"] for entry in entries} == {MEASURED}
    assert [entry["check"] and entry["check"]["against"] for entry in entries[::2]] == [
        "itself in float64",
        "itself in float64",
        None,
    ]
    assert entries[-1]["check"]["against"] == "itself, not compiled"


@pytest.mark.slow
def test_without_a_compiler_eager_remains() -> None:
    with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",), "fx_graph_cache": False}):
        entries = Measurer(conditions(compiled=(False, True), repeats=0)).measure(SQUASHED)["entries"]
    for entry in entries:
        assert entry["status"] == (LEFT_OUT if entry["compiled"] else MEASURED)
        assert (entry["reason"] or "").startswith("cannot be compiled" if entry["compiled"] else "")


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["gsa", "expatt", "cram"])
def test_the_smallest_case_of_every_suite_of_modules(suite: str) -> None:
    case = min(SUITES[suite].cases, key=lambda case: case.positions)
    found = Measurer(conditions(batch_size=1, repeats=0)).measure(case)
    assert {entry["status"] for entry in found["entries"]} == {MEASURED}
    checked = {entry["name"] for entry in found["entries"] if entry["check"]}
    assert checked == {subject.name for subject in case.subjects if subject.reference}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("suite", ["gsa", "expatt", "cram"])
def test_on_a_gpu(suite: str, dtype: torch.dtype) -> None:
    case = min(SUITES[suite].cases, key=lambda case: case.positions)
    found = Measurer(conditions(device=torch.device("cuda"), dtype=dtype)).measure(case)
    assert {entry["status"] for entry in found["entries"]} == {MEASURED}


def test_every_suite_measures_ours_against_what_it_is_checked_with() -> None:
    for name, suite in SUITES.items():
        assert suite.name == name
        labels = [case.label for case in suite.cases]
        assert len(set(labels)) == len(labels)
        for case in suite.cases:
            names = [subject.name for subject in case.subjects]
            assert len(set(names)) == len(names) > 1
            assert any(subject.reference for subject in case.subjects)
