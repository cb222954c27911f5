"""Does a map say what the prediction rests on? Take pixels away, or bring them in, in its order, and watch.

Source: Petsiuk et al., *RISE: Randomized Input Sampling for Explanation of Black-box Models* (2018, arXiv 1806.07421).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import trapezoid
from torch import Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur

from foveate import _checks
from foveate.explain.scores import levels
from foveate.models.inspection import private_copy

__all__ = ["Curves", "Fill", "deletion", "insertion", "pixel_order", "without_content"]

Fill = Literal["mean", "blur"]
"""What stands in the place of a pixel that is not there."""

BLUR = 1 / 8
"""Standard deviation of the blur, as a share of the image's shorter side."""


@dataclass(frozen=True)
class Curves:
    """How the probability of the predicted class changes with the pixels."""

    probabilities: NDArray[np.float64]
    """``(B, steps + 1)``: with the share k/steps of the pixels taken away or brought in, k from 0."""
    area: NDArray[np.float64]
    """``(B,)``: the area under each by the trapezoidal rule, the share of the pixels running from 0 to 1."""


def deletion(
    model: nn.Module, images: Tensor, maps: ArrayLike, *, steps: int = 16, fill: Fill = "mean", seed: int = 0
) -> Curves:
    """Take the pixels away, those with the highest values first: the faster the probability falls, the better.

    The probability is that of the class that ``model`` predicts for the whole image. The model is run in evaluation
    mode and left as it was.

    Args:
        model: A classifier.
        images: ``(B, C, H, W)`` as the network takes them (normalized), on its device.
        maps: ``(B, H, W)``, finite and not negative, at the size of the images.
        steps: In how many steps of equally many pixels, up to rounding.
        fill: What takes a pixel's place, see `without_content`; the source takes a constant here.
        seed: Of the order among pixels of the same value, see `pixel_order`.

    Raises:
        ValueError: Maps and images do not fit together, or another argument is out of its range.
    """
    return _curves(model, images, images, without_content(images, fill), maps, steps, seed)


def insertion(
    model: nn.Module, images: Tensor, maps: ArrayLike, *, steps: int = 16, fill: Fill = "blur", seed: int = 0
) -> Curves:
    """Bring the pixels in, those with the highest values first: the faster the probability rises, the better.

    The probability is that of the class that is predicted for the whole image. The source begins with the blurred
    image, since pixels on an even ground make edges that the image has not. Arguments and errors as for `deletion`.
    """
    return _curves(model, images, without_content(images, fill), images, maps, steps, seed)


def without_content(images: Tensor, fill: Fill) -> Tensor:
    """Return images of the same shape with little in them to recognize.

    ``mean`` is each channel's mean over the image. ``blur`` is a Gaussian blur, reflected at the edges, with a standard
    deviation of `BLUR` of the shorter side (28 pixels of 224): enough to make a large thing unrecognizable, which the 5
    pixels of the source are not.
    """
    _checks.one_of("fill", fill, get_args(Fill))
    if images.ndim != 4 or not images.numel():
        raise ValueError(f"images must be a batch (B, C, H, W) of at least one; got shape {tuple(images.shape)}")
    if fill == "mean":
        return images.mean((2, 3), keepdim=True).expand_as(images)
    shorter = min(images.shape[2:])
    radius = min(math.ceil(3 * BLUR * shorter), shorter - 1)  # the reflection reaches no further than the image
    for kernel in ([2 * radius + 1, 1], [1, 2 * radius + 1]):  # along x, then along y: in one go it takes the square
        images = gaussian_blur(images, kernel, [BLUR * shorter] * 2)
    return images


def pixel_order(maps: ArrayLike, *, seed: int = 0) -> NDArray[np.int64]:
    """Return the numbers ``(B, H·W)`` of the pixels, row by row, from the highest value to the lowest.

    Pixels of the same value (to a millionth of the maximum, see `foveate.explain.scores`) come in an order that is
    drawn at random: of a flat map all of them, where any fixed order would start in a corner. The draw is the same for
    all images of a batch, and depends on ``seed`` and the number of pixels alone.
    """
    ranks = levels(maps)
    ranks = ranks.reshape(len(ranks), -1)
    drawn = np.random.default_rng(seed).permutation(ranks.shape[1])
    return np.lexsort((np.broadcast_to(drawn, ranks.shape), -ranks), axis=1)


def _curves(
    model: nn.Module, images: Tensor, before: Tensor, after: Tensor, maps: ArrayLike, steps: int, seed: int
) -> Curves:
    """Put the pixels of ``after`` in the place of those of ``before``, step by step."""
    height, width = images.shape[2:]
    order = pixel_order(maps, seed=seed)
    if np.shape(maps) != (len(images), height, width):
        raise ValueError(f"maps must be {(len(images), height, width)}, as the images are; got {np.shape(maps)}")
    pixels = height * width
    if _checks.integer("steps", steps) > pixels:
        raise ValueError(f"steps must be at most the {pixels} pixels of an image; got {steps}")
    place = torch.from_numpy(order.argsort(1)).to(images.device).view(-1, 1, height, width)  # in the order, from 0
    curve = []
    model = private_copy(model).eval()
    with torch.no_grad():
        predicted = model(images).argmax(1, keepdim=True).cpu()
        for step in range(steps + 1):
            seen = torch.where(place < round(step * pixels / steps), after, before)
            curve.append(model(seen).cpu().double().softmax(1).gather(1, predicted)[:, 0])  # MPS has no float64
    probabilities = torch.stack(curve, dim=1).numpy()
    return Curves(probabilities, trapezoid(probabilities, dx=1 / steps, axis=1))
