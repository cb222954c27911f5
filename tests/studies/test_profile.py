"""The profile names the operators that ran, and what it counts adds up to the time of the call."""

from __future__ import annotations

import time

import torch

from studies.bench.profile import operator_seconds


def test_the_product_takes_the_time_of_a_product() -> None:
    a = torch.randn(389, 401)
    found = operator_seconds(lambda: (a @ a.T).relu(), torch.device("cpu"))
    assert next(iter(found)) == "aten::mm"
    assert {"aten::mm", "aten::relu"} <= found.keys()
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_it_adds_up_to_no_more_than_the_call_takes() -> None:
    a = torch.randn(257, 263)

    def call() -> None:
        (a @ a.T).exp().sum()

    start = time.perf_counter()
    found = operator_seconds(call, torch.device("cpu"), repetitions=4)
    assert 0 < 4 * sum(found.values()) <= time.perf_counter() - start
