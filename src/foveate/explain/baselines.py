"""Maps without any look at the image: what a network's map must beat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foveate import _checks

__all__ = ["BASELINES", "baseline_maps"]

BASELINES = ("centre", "uniform", "random")
SPREAD = 0.25
"""Standard deviation of the Gaussian, as a share of each side."""


def baseline_maps(kind: str, indices: list[int], size: tuple[int, int], *, seed: int = 0) -> NDArray[np.float64]:
    """Return maps ``(B, H, W)`` that depend on nothing of an image but its index in the data set, and on ``seed``.

    - ``centre``: a Gaussian in the middle of the image, its standard deviation a quarter of each side. Photographs are
      taken of what is in the middle: this is the baseline to take seriously.
    - ``uniform``: 1 everywhere.
    - ``random``: each pixel drawn evenly from [0, 1), independently.

    Examples:
        >>> foveate.explain.baseline_maps("centre", [0], (1, 5)).round(2)
        array([[[0.28, 0.73, 1.  , 0.73, 0.28]]])
    """
    _checks.one_of("kind of baseline", kind, BASELINES)
    height, width = _checks.pair("size", size)
    if kind == "random":
        return np.stack([np.random.default_rng([seed, index]).random((height, width)) for index in indices])
    if kind == "uniform":
        return np.ones((len(indices), height, width))
    down, across = (
        np.exp(-(((np.arange(side) + 0.5) / side - 0.5) ** 2) / (2 * SPREAD**2)) for side in (height, width)
    )
    return np.broadcast_to(np.outer(down, across), (len(indices), height, width))
