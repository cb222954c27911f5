"""The report's grid: test images, what each network attended to in them, and what it said."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from foveate.data import BoxedImages, ImageData, LabelledImages, TransformConfig, UnreadableImageError, make_transform
from foveate.explain import AttentionRecord, Scale, attention_records, draw_box, overlay
from foveate.io import load_network
from foveate.models.inspection import attention_modules, evaluating
from foveate.report.figures import data_uri

__all__ = ["Answer", "Column", "Sample", "choose_samples", "fill_column", "shown_width"]

SHOWN_SIDE = 144
"""Images smaller than this are enlarged to about this many pixels."""
ENOUGH_POSITIONS = 64
"""Fewest positions of the attention map that is shown, of the last such module."""


@dataclass(frozen=True)
class Sample:
    """A test image of the grid."""

    index: int
    """Index in the data set."""
    label: int
    tensor: Tensor
    """Input of the networks, ``(C, H, W)``."""
    seen: Image.Image
    """The same before normalization."""
    picture: str
    """The same as a data URI, with the true box where it is known."""
    boxed: bool


@dataclass(frozen=True)
class Answer:
    """One network's prediction and map for one image."""

    picture: str
    """What it attended to, as a data URI; the empty string for a network without attention."""
    predicted: int
    probability: float
    correct: bool


@dataclass(frozen=True)
class Column:
    """One network's cells for all images of the grid."""

    module: str | None
    """Name of the attention module that is shown; None for a network without attention."""
    kind: str
    map_size: tuple[int, int]
    scale: Scale | None
    """What its values mean; None for a network without attention."""
    outline: str
    """What is drawn over the map: a word for the legend, or nothing."""
    answers: list[Answer]


def choose_samples(data: ImageData, split: str, number: int) -> list[Sample]:
    """Return ``number`` images at equal distances through the split, without looking; unreadable ones are left out."""
    images = data.split(split)
    transform = make_transform(data.transform, training=False)
    samples = []
    for index in np.linspace(0, len(images) - 1, min(number, len(images))).round().astype(int).tolist():
        try:
            image, label = images[index]
        except UnreadableImageError:
            continue
        tensor = transform(image)
        seen = _denormalized(tensor, data.transform)
        box = _box(images, index, image, data.transform)
        zoom = _zoom(seen)
        picture = seen.resize((seen.width * zoom, seen.height * zoom), Image.Resampling.NEAREST)
        if box is not None:
            picture = draw_box(seen, box, zoom=zoom)
        samples.append(Sample(index, label, tensor, seen, _encoded(picture), box is not None))
    return samples


def fill_column(run: Path, samples: list[Sample]) -> Column:
    """Return what the network that was trained in the folder ``run`` made of ``samples``.

    Raises:
        ValueError: There is no checkpoint, or it is not one of this library.
    """
    model, _ = load_network(run)
    images = torch.stack([sample.tensor for sample in samples])
    with evaluating(model), torch.inference_mode():
        probabilities, predicted = model(images).softmax(1).max(1)
    record = _record(model, images)
    answers = [
        Answer(
            picture="" if record is None else _encoded(overlay(sample.seen, record, row, zoom=_zoom(sample.seen))),
            predicted=int(predicted[row]),
            probability=float(probabilities[row]),
            correct=int(predicted[row]) == sample.label,
        )
        for row, sample in enumerate(samples)
    ]
    if record is None:
        return Column(None, "", (0, 0), None, "", answers)
    size = (record.map.shape[1], record.map.shape[2])
    return Column(record.name, record.kind, size, record.scale, _outline(record), answers)


def _record(model: nn.Module, images: Tensor) -> AttentionRecord | None:
    """Return what the last attention module that sees a map of useful size attended to; None if there is no module."""
    modules = attention_modules(model)
    if not modules:
        return None
    chosen = next(reversed(modules))
    for name in reversed(modules):  # from the deepest, whose maps are small
        if attention_records(model, images[:1], names=[name])[0].map[0].numel() >= ENOUGH_POSITIONS:
            chosen = name
            break
    # Explicit attention is the same from everywhere: what the middle attends to says all, the sum over all nothing.
    middle = (images.shape[2] // 2, images.shape[3] // 2)
    query = None if modules[chosen].depends_on_content else middle
    return attention_records(model, images, names=[chosen], query=query)[0]


def _outline(record: AttentionRecord) -> str:
    if record.rectangle is not None:
        return "outline: the rectangle (none is seen where it covers the image)"
    if record.radius is not None:
        return f"circle: the learned radius, {record.radius:.2f} positions, the same for every image and position"
    return ""


def _denormalized(tensor: Tensor, transform: TransformConfig) -> Image.Image:
    mean, std = (torch.tensor(values)[:, None, None] for values in (transform.mean, transform.std))
    pixels = (tensor * std + mean).clamp(0, 1) * 255
    return Image.fromarray(pixels.round().byte().permute(1, 2, 0).numpy())


def _box(
    images: LabelledImages, index: int, image: Image.Image, transform: TransformConfig
) -> tuple[int, int, int, int] | None:
    """Return the true box where it is known and the image reaches the network uncropped and in its own size."""
    height, width = transform.img_size  # type: ignore[misc]
    if not isinstance(images, BoxedImages) or image.size != (width, height) or transform.crop_pct != 1:
        return None
    return images.boxes(index)


def shown_width(image_size: tuple[int, int]) -> int:
    """Return how wide the pictures of images of this height and width are shown, in pixels of the page."""
    return round(image_size[1] * SHOWN_SIDE / max(image_size))


def _zoom(image: Image.Image) -> int:
    return max(1, round(SHOWN_SIDE / max(image.size)))


def _encoded(picture: Image.Image) -> str:
    """Return a picture as a data URI: exact if it is a small image enlarged, else compressed."""
    buffer = io.BytesIO()
    if max(picture.size) < 2 * SHOWN_SIDE and picture.width * picture.height < 200**2:
        picture.save(buffer, "PNG", optimize=True)
        return data_uri(buffer.getvalue(), "image/png")
    picture.save(buffer, "JPEG", quality=88)
    return data_uri(buffer.getvalue(), "image/jpeg")
