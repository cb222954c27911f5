"""Every module in random configurations and all dtypes, against plain loops in float64."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest import mock

import torch

from foveate.functional import explicit as explicit_file
from tests.comparison import Case, errors, errors_beside_loops
from tests.fuzz.outcome import Outcome, progress
from tests.nn.test_against_reference import CASES

BOUND = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
"""Relative L2 error of an output or a gradient."""
HALF = (torch.float16, torch.bfloat16)
TIMES = {"output": 2, "gradient": 3}
"""How often the error of the loops in the same dtype ours may be."""
ONEDNN = "wrong gradients of a plain convolution in bfloat16 by oneDNN, computed again without it"
CONVOLUTION = "gradient of conv.weight"
ENOUGH = 100
"""Configurations of which quantiles are judged."""
QUANTILES = {"median": 0.5, "99 %": 0.99}

Errors = dict[str, list[float]]
"""For each configuration that of the output, and the largest of a gradient."""


@dataclass(frozen=True)
class Comparison:
    """The errors of one module in one dtype, and those of the loops where they compute in it."""

    dtype: torch.dtype
    ours: Errors = field(default_factory=lambda: {kind: [] for kind in TIMES})
    loops: Errors = field(default_factory=lambda: {kind: [] for kind in TIMES})
    labels: list[str] = field(default_factory=list)

    def add(self, label: str, ours: dict[str, float], loops: dict[str, float]) -> None:
        """Take in one configuration."""
        self.labels.append(label)
        for errors_of, into in ((ours, self.ours), (loops, self.loops)):
            values = dict(errors_of)
            into["output"].append(values.pop("output"))
            into["gradient"].append(max(values.values()))

    def failures(self) -> list[str]:
        """Return what is not as it should be.

        In half precision an error may be beyond the bound where that of the loops is of the same size, or is in one
        configuration of a hundred: then no computation in this dtype keeps to it. And at the median, and at the worst
        of a hundred, errors must be at most so many times those of the loops; of one small configuration, theirs may
        be nothing by luck.
        """
        wrong = []
        for kind, times in TIMES.items():
            usual = _quantile(self.loops[kind], 0.99)
            for label, ours, loops in zip(self.labels, self.ours[kind], self.loops[kind], strict=True):
                excused = times * max(usual, loops) if self.dtype in HALF else 0.0
                if not ours <= max(BOUND[self.dtype], excused):
                    wrong.append(f"{self.dtype}: {kind} off by {ours:.1e}, the loops' by {loops:.1e}: {label}")
            wrong += [
                f"{self.dtype}: {kind} errors are {ratio:.1f} times those of the loops at the {name}"
                for name, ratio in self.ratios(kind).items()
                if len(self.labels) >= ENOUGH and not ratio <= times
            ]
        return wrong

    def ratios(self, kind: str) -> dict[str, float]:
        """Return how many times as large as those of the loops the errors are; in float64 the loops are exact."""
        if self.dtype == torch.float64:
            return {}
        return {name: _quantile(self.ours[kind], q) / _quantile(self.loops[kind], q) for name, q in QUANTILES.items()}

    def row(self, module: str) -> dict[str, Any]:
        """Return a line of the table."""
        bound, name = BOUND[self.dtype], str(self.dtype).removeprefix("torch.")
        cells: dict[str, Any] = {"module": module, "dtype": name, "bound": f"{bound:g}"}
        for kind in TIMES:
            beyond, theirs = (
                sum(not e <= bound for e in errors[kind]) / len(self.labels) for errors in (self.ours, self.loops)
            )
            cells[f"{kind}: median"] = f"{_quantile(self.ours[kind], 0.5):.1e}"
            cells[f"{kind}: worst"] = f"{max(self.ours[kind]):.1e}"
            cells[f"{kind}: beyond the bound (loops)"] = f"{beyond:.1%} ({theirs:.1%})"
            cells[f"{kind}: times the loops, median and 99 %"] = ", ".join(
                f"{r:.2f}" for r in self.ratios(kind).values()
            )
        return cells


def run(trials: int, seed: int) -> Outcome:
    """Compare ``trials`` configurations of each module in each dtype, two modules at a time if there are many."""
    outcome = Outcome(trials=trials * len(CASES) * len(BOUND), counts={ONEDNN: 0})
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        spread = pool.map if trials >= 100 else map
        for part in spread(partial(_module, trials, seed), range(len(CASES))):
            outcome.rows += part.rows
            outcome.failures += part.failures
            outcome.counts[ONEDNN] += part.counts.get(ONEDNN, 0)
    outcome.notes.append(
        "The loops compute in the same dtype as the module; in float64 they are what all is compared with."
    )
    return outcome


def _module(trials: int, seed: int, number: int) -> Outcome:
    torch.set_num_threads(1)
    make = CASES[number]
    outcome = Outcome(trials=trials)
    comparisons = [Comparison(dtype) for dtype in BOUND]
    for index in progress(range(trials), make.__name__):
        for comparison in comparisons:
            key = f"{seed}-{make.__name__}-{index}"
            comparison.add(*_errors(make, comparison.dtype, key, index, outcome))
    outcome.rows = [comparison.row(make.__name__.removesuffix("_case")) for comparison in comparisons]
    outcome.failures = [fault for comparison in comparisons for fault in comparison.failures()]
    return outcome


def _quantile(values: list[float], q: float) -> float:
    return sorted(values)[min(int(q * len(values)), len(values) - 1)]


def _errors(
    make: Callable[[random.Random, torch.dtype], Case], dtype: torch.dtype, key: str, index: int, outcome: Outcome
) -> tuple[str, dict[str, float], dict[str, float]]:
    """Return what a configuration is, and the errors of the module and of the loops in its dtype."""
    # Both ways to apply a kernel that does not factorise, at sizes that loops can follow.
    with mock.patch.object(explicit_file, "DENSE_MAX_POSITIONS", 576 * (index % 2)):
        torch.manual_seed(index)
        case = make(random.Random(key), dtype)
        ours, loops = errors_beside_loops(case)
        # The weights of a plain convolution, which no code of ours touches: what else is wrong is not hidden by this.
        if not ours.get(CONVOLUTION, 0.0) <= BOUND[dtype]:  # a NaN as well
            with torch.backends.mkldnn.flags(enabled=False):
                again = errors(case)[CONVOLUTION]
            if again <= BOUND[dtype]:
                outcome.count(ONEDNN)
                ours[CONVOLUTION] = again
        return f"{key}, x {tuple(case.x.shape)}, {' '.join(case.label.split())}", ours, loops
