"""The order of the calls, and what a sample is, on a clock that the calls set themselves."""

from __future__ import annotations

import gc
import itertools
import time
from collections import Counter
from collections.abc import Callable

import pytest
import torch

from foveate.benchmark.interleaving import interleaved

CPU = torch.device("cpu")


class Clock:
    """Stands still but for what the calls take."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.calls: list[str] = []
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def call(self, name: str, *seconds: float) -> Callable[[], None]:
        """Return a call that takes ``seconds`` the first times, then always the last of them."""
        durations = itertools.chain(seconds, itertools.repeat(seconds[-1]))

        def run() -> None:
            self.calls.append(name)
            self.now += next(durations)

        return run


def test_every_call_once_a_round_and_none_always_first_or_behind_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, names, rounds = Clock(monkeypatch), "abcde", 20
    interleaved({name: clock.call(name, 1.0) for name in names}, rounds=rounds, warmup=1, device=CPU)
    order = [clock.calls[start : start + 5] for start in range(0, len(clock.calls), 5)]
    assert len(order) == rounds + 1
    assert all(sorted(each) == list(names) for each in order)
    assert Counter(each[0] for each in order[1:]) == dict.fromkeys(names, rounds // 5)
    before = {name: Counter(a for a, b in itertools.pairwise(clock.calls) if b == name) for name in names}
    assert all(max(others.values()) < 0.7 * rounds for others in before.values())


def test_seconds_are_of_one_call_and_short_calls_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    calls = {"slow": clock.call("slow", 0.7), "short": clock.call("short", 9.0, 0.004)}  # the first call compiles
    found = interleaved(calls, rounds=4, warmup=2, device=CPU, min_sample=0.01)
    assert found["slow"].repetitions == 1
    assert found["slow"].seconds == pytest.approx([0.7] * 4)
    assert found["short"].repetitions == 3  # 0.012 s is the first multiple beyond
    assert found["short"].seconds == pytest.approx([0.004] * 4)
    assert Counter(clock.calls) == {"slow": 2 + 4, "short": 2 + 3 * 4}


def test_progress_names_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, told = Clock(monkeypatch), []
    interleaved({"a": clock.call("a", 1.0)}, rounds=3, warmup=2, device=CPU, progress=told.append)
    assert told == [0, 0, 1, 2, 3]


def test_the_collector_waits_and_goes_on_also_after_an_error() -> None:
    states = []
    interleaved({"a": lambda: states.append(gc.isenabled())}, rounds=3, warmup=0, device=CPU)
    assert states == [False] * 3
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        interleaved({"a": lambda: 1 / 0}, rounds=3, warmup=0, device=CPU)
    assert gc.isenabled()


@pytest.mark.parametrize(("rounds", "warmup", "name"), [(2, 0, "rounds"), (3, -1, "warmup")])
def test_bad_input_is_refused(rounds: int, warmup: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least"):
        interleaved({"a": lambda: None}, rounds=rounds, warmup=warmup, device=CPU)
