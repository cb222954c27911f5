"""Images per second in inference, with all networks measured side by side in one run."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn

from foveate.benchmark.interleaving import interleaved
from foveate.benchmark.ratios import Quartiles, quartiles
from foveate.models.inspection import evaluating

__all__ = ["Rate", "images_per_second"]


class Rate(Quartiles):
    """Images per second: the median over the rounds, and the quartiles."""


def images_per_second(
    models: Mapping[str, nn.Module], batch: Tensor, *, rounds: int = 11, warmup: int = 2
) -> dict[str, Rate]:
    """Measure how many images of ``batch`` per second each of ``models`` takes in inference.

    They are measured as `foveate.benchmark.interleaved` says: only figures from one call are to be compared.
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
    calls = {name: partial(model, batch) for name, model in models.items()}
    with ExitStack() as modes, torch.inference_mode():
        for model in models.values():
            modes.enter_context(evaluating(model))
        measured = interleaved(calls, rounds=rounds, warmup=warmup, device=batch.device)
    return {name: Rate(*quartiles(len(batch) / s for s in sample.seconds)) for name, sample in measured.items()}
