"""Faithfulness of maps: how the prediction changes as pixels are deleted or inserted in the order of a map.

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
from foveate._shapes import Float
from foveate.explain.scores import levels
from foveate.explain.untouched import untouched

__all__ = ["Curves", "Fill", "deletion", "insertion", "pixel_order", "without_content"]

Fill = Literal["mean", "blur"]
"""Replacement of a pixel that is not there."""

BLUR = 1 / 8
"""Standard deviation of the blur, as a share of the image's shorter side."""


@dataclass(frozen=True)
class Curves:
    """Probability of the predicted class against the share of the pixels.

    Examples:
        >>> curves = foveate.explain.Curves(np.array([[1.0, 0.5, 0.0]]), np.array([0.5]))
        >>> curves.probabilities[:, -1]  # without any pixel
        array([0.])
    """

    probabilities: NDArray[np.float64]
    """``(B, steps + 1)``: with the share k/steps of the pixels deleted or inserted, k from 0."""
    area: NDArray[np.float64]
    """``(B,)``: area under each curve over shares from 0 to 1, by the trapezoidal rule."""


def deletion(
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    maps: ArrayLike,
    *,
    steps: int = 16,
    fill: Fill = "mean",
    seed: int = 0,
) -> Curves:
    """Delete pixels, those with the highest values first: the faster the probability falls, the better the map.

    The probability is that of the class that ``model`` predicts for the whole image; ``model`` is left as it was.

    Args:
        model: A classifier.
        images: Images as the network takes them (normalized), on its device.
        maps: ``(B, H, W)``, finite and not negative, at the size of the images.
        steps: Number of steps of equally many pixels, up to rounding.
        fill: Replacement of deleted pixels, see `without_content`; the source takes a constant here.
        seed: Seed of the order among pixels of the same value, see `pixel_order`.

    Examples:
        >>> network, images = timm.create_model("conv_resnet_tiny"), torch.randn(2, 3, 32, 32)
        >>> foveate.explain.deletion(network, images, torch.rand(2, 32, 32), steps=2).probabilities.shape
        (2, 3)
    """
    return _curves(model, images, images, without_content(images, fill), maps, steps, seed)


def insertion(
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    maps: ArrayLike,
    *,
    steps: int = 16,
    fill: Fill = "blur",
    seed: int = 0,
) -> Curves:
    """Insert pixels, those with the highest values first: the faster the probability rises, the better the map.

    The source begins with the blurred image, since pixels on a uniform ground make edges that the image does not have.
    Arguments and errors as for `deletion`.

    Examples:
        >>> network, images = timm.create_model("conv_resnet_tiny"), torch.randn(2, 3, 32, 32)
        >>> foveate.explain.insertion(network, images, torch.rand(2, 32, 32), steps=2).area.shape
        (2,)
    """
    return _curves(model, images, without_content(images, fill), images, maps, steps, seed)


def without_content(
    images: Float[Tensor, "batch channels height width"], fill: Fill
) -> Float[Tensor, "batch channels height width"]:
    """Return images of the same shape with little in them to recognize.

    ``mean`` is each channel's mean over the image. ``blur`` is a Gaussian blur, reflected at the edges, with a standard
    deviation of `BLUR` of the shorter side (28 pixels of 224): it makes large objects unrecognizable, as the source's 5
    pixels do not.
    """
    _checks.one_of("fill", fill, get_args(Fill))
    if images.ndim != 4 or not images.numel():
        raise ValueError(f"images must be a batch (B, C, H, W) of at least one; got shape {tuple(images.shape)}")
    if fill == "mean":
        return images.mean((2, 3), keepdim=True).expand_as(images)
    shorter = min(images.shape[2:])
    radius = min(math.ceil(3 * BLUR * shorter), shorter - 1)  # the reflection reaches no further than the image
    for kernel in ([2 * radius + 1, 1], [1, 2 * radius + 1]):  # along x, then along y: in one go it would be quadratic
        images = gaussian_blur(images, kernel, [BLUR * shorter] * 2)
    return images


def pixel_order(maps: ArrayLike, *, seed: int = 0) -> NDArray[np.int64]:
    """Return the indices ``(B, H·W)`` of the pixels in row-major order, from the highest value to the lowest.

    Pixels of the same value (to a millionth of the maximum, see `foveate.explain.scores`) come in random order: any
    fixed order of a flat map would start in a corner. The order is the same for all images of a batch, and depends on
    ``seed`` and the number of pixels alone.
    """
    ranks = levels(maps)
    ranks = ranks.reshape(len(ranks), -1)
    drawn = np.random.default_rng(seed).permutation(ranks.shape[1])
    return np.lexsort((np.broadcast_to(drawn, ranks.shape), -ranks), axis=1)


def _curves(
    model: nn.Module, images: Tensor, before: Tensor, after: Tensor, maps: ArrayLike, steps: int, seed: int
) -> Curves:
    """Replace the pixels of ``before`` by those of ``after``, step by step."""
    height, width = images.shape[2:]
    order = pixel_order(maps, seed=seed)
    if np.shape(maps) != (len(images), height, width):
        raise ValueError(f"maps must be {(len(images), height, width)}, as the images are; got {np.shape(maps)}")
    pixels = height * width
    if _checks.integer("steps", steps) > pixels:
        raise ValueError(f"steps must be at most the {pixels} pixels of an image; got {steps}")
    place = torch.from_numpy(order.argsort(1)).to(images.device).view(-1, 1, height, width)  # in the order, from 0
    curve = []
    with untouched(model, images) as model, torch.no_grad():
        predicted = model(images).argmax(1, keepdim=True).cpu()
        for step in range(steps + 1):
            seen = torch.where(place < round(step * pixels / steps), after, before)
            curve.append(model(seen).cpu().double().softmax(1).gather(1, predicted)[:, 0])  # MPS has no float64
    probabilities = torch.stack(curve, dim=1).numpy()
    return Curves(probabilities, trapezoid(probabilities, dx=1 / steps, axis=1))
