"""Rates: every network in every round, in evaluation mode without gradients, and put back as it was."""

from __future__ import annotations

import statistics
import time
from collections import Counter

import pytest
import torch
from torch import nn

from foveate.benchmark import Rate, images_per_second


class Recorder(nn.Module):
    """Notes each call and how it was called; sleeps as long as it is told to."""

    def __init__(self, name: str, calls: list[str], seconds: float = 0.0) -> None:
        super().__init__()
        self.name, self.calls, self.seconds = name, calls, seconds
        self.inner = nn.Dropout()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = (self.training, self.inner.training, torch.is_grad_enabled())
        assert not any(state)
        self.calls.append(self.name)
        time.sleep(self.seconds)
        return x


def test_networks_alternate_and_none_is_always_first() -> None:
    calls: list[str] = []
    names = ["a", "b", "c"]
    rates = images_per_second({name: Recorder(name, calls) for name in names}, torch.zeros(2, 1), rounds=6, warmup=1)
    rounds = [calls[start : start + 3] for start in range(0, len(calls), 3)]
    assert len(rounds) == 7
    assert all(sorted(each) == names for each in rounds)
    assert Counter(each[0] for each in rounds[1:]) == {"a": 2, "b": 2, "c": 2}
    assert list(rates) == names


def test_the_rate_is_images_over_seconds() -> None:
    """A network that takes at least 20 ms for 7 images does at most 350 of them a second."""
    rate = images_per_second({"slow": Recorder("slow", [], 0.02)}, torch.zeros(7, 1), rounds=3, warmup=0)["slow"]
    assert 0 < rate.q1 <= rate.median <= rate.q3 <= 350


def test_median_and_quartiles_are_those_of_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0, 1, 10, 12, 20, 24, 30, 38, 40, 56])  # rounds of 1, 2, 4, 8 and 16 seconds
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    rate = images_per_second({"a": nn.Identity()}, torch.zeros(16, 1), rounds=5, warmup=0)["a"]
    rates = [16, 8, 4, 2, 1]
    assert rate == Rate(statistics.median(rates), 2, 8)


def test_modes_are_put_back_also_when_a_network_fails() -> None:
    model = Recorder("a", [])
    model.inner.eval()
    images_per_second({"a": model}, torch.zeros(2, 1), rounds=3)
    assert model.training
    assert not model.inner.training
    broken = nn.Sequential(nn.Dropout(), nn.Linear(5, 2))
    with pytest.raises(RuntimeError):
        images_per_second({"a": model, "b": broken}, torch.zeros(2, 1), rounds=3)
    assert model.training
    assert all(module.training for module in broken.modules())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"rounds": 2}, "rounds must be at least 3"), ({"warmup": -1}, "warmup must be at least 0"), ({}, "models is")],
)
def test_bad_input_is_refused(options: dict[str, int], message: str) -> None:
    models = {"a": nn.Identity()} if options else {}
    with pytest.raises(ValueError, match=message):
        images_per_second(models, torch.zeros(2, 1), **options)
