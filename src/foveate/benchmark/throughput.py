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
    """Images per second: median and quartiles over the rounds."""


def images_per_second(
    models: Mapping[str, nn.Module], batch: Tensor, *, rounds: int = 11, warmup: int = 2
) -> dict[str, Rate]:
    """Measure how many images of ``batch``, ``(B, C, H, W)``, per second each of ``models`` takes in inference.

    Models are on the device of ``batch``. Timing is that of `foveate.benchmark.interleaving.interleaved`, over at least
    3 ``rounds`` after ``warmup`` ones: compare only figures of one call. Networks run in evaluation mode without
    gradients, and return to their own modes.
    """
    if not models:
        raise ValueError("models is empty; pass at least one network by name")
    calls = {name: partial(model, batch) for name, model in models.items()}
    with ExitStack() as modes, torch.inference_mode():
        for model in models.values():
            modes.enter_context(evaluating(model))
        measured = interleaved(calls, rounds=rounds, warmup=warmup, device=batch.device)
    return {name: Rate(*quartiles(len(batch) / s for s in sample.seconds)) for name, sample in measured.items()}
