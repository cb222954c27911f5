"""Images per second in inference, with all networks measured side by side in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from foveate import _checks
from foveate._networks import evaluating

__all__ = ["Rate", "images_per_second"]


class Rate(NamedTuple):
    """Images per second: the median over the rounds, and the quartiles, which say how steady it was."""

    median: float
    q1: float
    q3: float


def images_per_second(
    models: Mapping[str, nn.Module], batch: Tensor, *, rounds: int = 11, warmup: int = 2
) -> dict[str, Rate]:
    """Measure how many images of ``batch`` per second each of ``models`` takes in inference.

    In every round each network runs once, each round starting with the next one, so that a change in the load
    or the clock of the machine meets all networks alike: only figures from one call are to be compared.
    Networks run in evaluation mode without gradients, and are put back in the modes that they had.

    Args:
        models: Networks by name, on the device of ``batch``.
        batch: Images ``(B, C, H, W)``.
        rounds: Timed rounds, at least 3 for quartiles.
        warmup: Rounds before those, untimed.

    Raises:
        ValueError: ``models`` is empty, or ``rounds`` or ``warmup`` too small.
    """
    if not models:
        raise ValueError("models is empty; pass at least one network by name")
    _checks.integer("rounds", rounds, minimum=3)
    _checks.integer("warmup", warmup, minimum=0)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    names = list(models)
    for step in range(warmup + rounds):
        first = step % len(names)
        for name in names[first:] + names[:first]:
            elapsed = _time(models[name], batch)
            if step >= warmup:
                seconds[name].append(elapsed)
    return {name: _rate(len(batch), times) for name, times in seconds.items()}


def _time(model: nn.Module, batch: Tensor) -> float:
    """Return the seconds that ``model`` takes for ``batch``, the device's queue empty before and after."""
    with evaluating(model), torch.inference_mode():
        _synchronize(batch.device)
        start = time.perf_counter()
        model(batch)
        _synchronize(batch.device)
        return time.perf_counter() - start


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _rate(images: int, seconds: list[float]) -> Rate:
    q1, median, q3 = statistics.quantiles((images / elapsed for elapsed in seconds), n=4, method="inclusive")
    return Rate(median, q1, q3)
