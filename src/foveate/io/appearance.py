"""Appearance of images in four numbers: enough to see that one is plainly unlike those of a training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

__all__ = ["FEATURES", "FEWEST", "appearance", "range_of", "unlike"]

FEATURES = {
    "saturation": "color",
    "dark": "the share that is dark",
    "light": "the share that is white",
    "contrast": "contrast",
}
"""Features and their descriptions."""
FEWEST = 50
"""Fewest images whose range represents a training."""
LEAST_MARGIN = 0.05
"""Smallest tolerance beyond the range of the training images, on the scale from 0 to 1."""


def appearance(image: Tensor) -> dict[str, float]:
    """Return the `FEATURES` of an image ``(3, H, W)`` in [0, 1]: each a mean over its pixels, in [0, 1].

    ``saturation`` is the range of the three channels; ``dark`` and ``light`` are the shares of pixels of a gray value
    below 0.1 and above 0.9; ``contrast`` is the standard deviation of the gray values.
    """
    gray = image.mean(0)
    return {
        "saturation": (image.amax(0) - image.amin(0)).mean().item(),
        "dark": (gray < 0.1).float().mean().item(),
        "light": (gray > 0.9).float().mean().item(),
        "contrast": gray.std(correction=0).item(),
    }


def range_of(images: Iterable[Tensor]) -> dict[str, list[float]] | None:
    """Return minimum and maximum of each of the `FEATURES` over ``images``; None for fewer than `FEWEST`."""
    found = [appearance(image) for image in images]
    if len(found) < FEWEST:
        return None
    return {name: [min(one[name] for one in found), max(one[name] for one in found)] for name in FEATURES}


def unlike(image: Tensor, ranges: Mapping[str, Sequence[float]]) -> list[str]:
    """Return the `FEATURES`, in words, in which ``image`` is plainly outside ``ranges``; usually none.

    Plainly means by half the width of the range.
    """
    found = appearance(image)
    beyond = []
    for name, words in FEATURES.items():
        if name in ranges:
            low, high = ranges[name]
            margin = max(LEAST_MARGIN, (high - low) / 2)
            if not low - margin <= found[name] <= high + margin:
                beyond.append(words)
    return beyond
