"""The report's grid: test images, what each network attended to in them, and what it said."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from foveate.data import BoxedImages, ImageData, LabelledImages, TransformConfig, UnreadableImageError, make_transform
from foveate.data.dense import DenseData
from foveate.data.placement import Placement, check_resizable
from foveate.data.splitting import equally_spaced
from foveate.explain import AttentionRecord, Scale, attention_records, draw_box, overlay, shown_module
from foveate.io.class_names import class_name
from foveate.models.inspection import attention_modules, evaluating
from foveate.report.dense import dense_samples, found_in
from foveate.report.samples import Sample, denormalized, encoded, extent_of, renormalized, zoom_of
from foveate.trained import load

__all__ = ["Answer", "Column", "choose_samples", "fill_column"]


@dataclass(frozen=True)
class Answer:
    """One network's prediction and map for one image."""

    picture: str
    """What it attended to, as a data URI; the empty string for a network without attention."""
    text: str
    """What it said, in words; empty where `found` shows it."""
    correct: bool | None
    """Whether that is right; None where it cannot be right or wrong as a whole."""
    probability: float | None = None
    found: str = ""
    """The mask or the boxes that it found, as a data URI; empty for a classifier."""


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


def choose_samples(data: ImageData | DenseData, split: str, number: int) -> list[Sample]:
    """Return ``number`` images at equal distances through the split, without looking; unreadable ones are left out."""
    images = data.split(split)
    if isinstance(data, DenseData):
        return dense_samples(data, images, equally_spaced(len(images), number))
    transform = make_transform(data.transform, training=False)
    samples = []
    for index in equally_spaced(len(images), number):
        try:
            image, label = images[index]
            check_resizable(data.transform, (image.height, image.width), "image")
        except UnreadableImageError:
            continue
        tensor = transform(image)
        seen = denormalized(tensor, data.transform)
        box = _box(images, index, image, data.transform)
        zoom = zoom_of(seen)
        picture = seen.resize((seen.width * zoom, seen.height * zoom), Image.Resampling.NEAREST)
        if box is not None:
            picture = draw_box(seen, box, zoom=zoom)
        caption = class_name(data.classes[label])
        extent = extent_of(data.transform, image)
        samples.append(Sample(index, label, caption, tensor, extent, seen, encoded(picture), box is not None))
    return samples


def fill_column(run: Path, samples: list[Sample], transform: TransformConfig) -> Column:
    """Return what the network that was trained in the folder ``run`` made of ``samples``, prepared by ``transform``.

    Raises:
        ValueError: There is no checkpoint, or it is not one of this library.
    """
    if not samples:
        raise ValueError("none of the images that were chosen can be read; choose more with --images")
    trained = load(run)
    model, meta = trained.network, trained.meta
    images = torch.stack([renormalized(sample, transform, meta) for sample in samples])
    with evaluating(model), torch.inference_mode():
        outputs = model(images)
    spanned = trained.seen_size((images.shape[2], images.shape[3]))
    record, place = _record(model, images), Placement(1.0, 1.0, 0, 0, spanned)
    answers = []
    for row, sample in enumerate(samples):
        picture = ""
        if record is not None:
            picture = encoded(overlay(sample.seen, record, row, zoom=zoom_of(sample.seen), placement=place))
        if meta.head:
            answers.append(Answer(picture, "", None, found=found_in(sample, outputs[row], meta.classes)))
            continue
        probability, predicted = outputs[row].softmax(0).max(0)
        correct = int(predicted) == sample.label
        answers.append(Answer(picture, class_name(meta.classes[int(predicted)]), correct, float(probability)))
    if record is None:
        return Column(None, "", (0, 0), None, "", answers)
    size = (record.map.shape[1], record.map.shape[2])
    return Column(record.name, record.kind, size, record.scale, _outline(record), answers)


def _record(model: nn.Module, images: Tensor) -> AttentionRecord | None:
    """Return what the last attention module that sees a map of useful size attended to; None if there is no module."""
    modules = attention_modules(model)
    if not modules:
        return None
    chosen = shown_module(model, images)
    record = attention_records(model, images, names=[chosen])[-1]
    # Explicit attention is the same from everywhere: what the middle attends to says all, the sum over all nothing.
    middle = (images.shape[2] // 2, images.shape[3] // 2)
    same = record.weights is not None and not modules[chosen].depends_on_content
    return record.queried(middle) if same else record


def _outline(record: AttentionRecord) -> str:
    if record.rectangle is not None:
        return "outline: the rectangle (none is seen where it covers the image)"
    if record.radius is not None:
        return f"circle: the learned radius, {record.radius:.2f} positions, the same for every image and position"
    return ""


def _box(
    images: LabelledImages, index: int, image: Image.Image, transform: TransformConfig
) -> tuple[int, int, int, int] | None:
    """Return the true box where it is known and the image reaches the network uncropped and in its own size."""
    height, width = transform.img_size  # type: ignore[misc]
    if not isinstance(images, BoxedImages) or image.size != (width, height) or transform.crop_pct != 1:
        return None
    return images.boxes(index)
