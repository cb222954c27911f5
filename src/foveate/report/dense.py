"""Masks and boxes in the report's grid, at the size at which the networks see the images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from foveate.data import UnreadableImageError
from foveate.data.dense import VOID, DenseData
from foveate.data.dense.joint import Evaluation
from foveate.data.placement import check_resizable
from foveate.explain.painting import boxed, colored
from foveate.report.samples import Sample, denormalized, encoded, extent_of, zoom_of

__all__ = ["dense_samples", "found_in"]

SCORE = 0.5
"""Least score of the boxes that are shown."""


def dense_samples(data: DenseData, images: Any, indices: Iterable[int]) -> list[Sample]:
    """Return images with their masks or objects; unreadable ones are left out."""
    transform = Evaluation(data.transform)
    samples = []
    for index in indices:
        try:
            image, known = images[index]
            check_resizable(data.transform, (image.height, image.width), "")
            tensor, target = transform(image, known)
        except UnreadableImageError:
            continue
        seen = denormalized(tensor, data.transform)
        if isinstance(target, Tensor):
            picture, caption = _mask(seen, target), "true mask"
        else:
            counted = {name: target[name][~target["ignored"]] for name in ("boxes", "labels")}
            names = [data.classes[label] for label in counted["labels"].tolist()]
            picture, caption = _boxes(seen, counted, names), f"{len(names)} true box{'es' * (len(names) != 1)}"
        extent = extent_of(data.transform, image)
        samples.append(Sample(index, target, caption, tensor, extent, seen, encoded(picture), False))
    return samples


def found_in(sample: Sample, output: Any, classes: Sequence[str]) -> str:
    """Return the picture of what a network found in an image, as a data URI."""
    if isinstance(output, Tensor):
        labels = output.argmax(0)
        labels[sample.label == VOID] = VOID  # as in the true mask
        return encoded(_mask(sample.seen, labels))
    sure = output["scores"] >= SCORE
    kept = {name: output[name][sure] for name in ("boxes", "labels", "scores")}
    names = [
        f"{classes[label]} {score:.2f}"
        for label, score in zip(kept["labels"].tolist(), kept["scores"].tolist(), strict=True)
    ]
    return encoded(_boxes(sample.seen, kept, names))


def _mask(seen: Image.Image, labels: Tensor) -> Image.Image:
    return colored(seen, labels.numpy().astype(np.uint8), _side(seen))


def _boxes(seen: Image.Image, objects: Mapping[str, Tensor], names: Sequence[str]) -> Image.Image:
    return boxed(seen, objects["boxes"].tolist(), names, objects["labels"].tolist(), _side(seen))


def _side(seen: Image.Image) -> int:
    return zoom_of(seen) * max(seen.size)
