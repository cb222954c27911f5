"""Interleaved timing of several calls: every call once in each round, in rotating order."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from foveate import _checks

__all__ = ["MIN_ROUNDS", "Samples", "interleaved"]

Name = TypeVar("Name", bound=Hashable)

MIN_ROUNDS = 3
"""Fewest rounds for quartiles."""


@dataclass
class Samples:
    """Samples of one call."""

    repetitions: int = 1
    """Calls in each sample."""
    seconds: list[float] = field(default_factory=list)
    """Seconds per call, round by round."""


def interleaved(
    calls: Mapping[Name, Callable[[], object]],
    *,
    rounds: int,
    warmup: int,
    device: torch.device,
    min_sample: float = 0.0,
    progress: Callable[[int], None] = lambda number: None,
) -> dict[Name, Samples]:
    """Measure how long each of ``calls`` takes.

    In every round each call is sampled once; each round starts with the next call and every other round runs backwards,
    so that changes in load, clock or caches affect all alike: compare only figures of one run. A sample starts and ends
    with the device's queue empty, and the garbage collector waits.

    Args:
        calls: Calls by name.
        rounds: Number of timed rounds, at least `MIN_ROUNDS`.
        warmup: Number of untimed rounds before those.
        device: The device that computes.
        min_sample: Shortest sample in seconds; the warm-up determines how often a faster call is repeated in one.
        progress: Called with the number of each round that begins, 0 for the warm-up.
    """
    _checks.integer("rounds", rounds, minimum=MIN_ROUNDS)
    _checks.integer("warmup", warmup, minimum=0)
    names = list(calls)
    samples = {name: Samples() for name in names}
    for step in range(warmup + rounds):
        progress(max(0, step - warmup + 1))
        for name in _order(names, step):
            sample = samples[name]
            elapsed = _time(calls[name], sample.repetitions, device)
            if step < warmup:
                sample.repetitions = max(sample.repetitions, math.ceil(min_sample / elapsed))
            else:
                sample.seconds.append(elapsed)
    return samples


def _order(names: list[Name], step: int) -> list[Name]:
    """Return the names rotated, every other time backwards, so that none always follows the same other."""
    first = step % len(names)
    head, *others = names[first:] + names[:first]
    return [head, *(others if step % 2 == 0 else reversed(others))]


def _time(call: Callable[[], object], repetitions: int, device: torch.device) -> float:
    """Return the mean seconds per call over ``repetitions``."""
    with _uncollected():
        _synchronize(device)
        start = time.perf_counter()
        for _ in range(repetitions):
            call()
        _synchronize(device)
        return (time.perf_counter() - start) / repetitions


@contextmanager
def _uncollected() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
