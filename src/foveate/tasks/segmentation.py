"""Semantic segmentation: one class per pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from foveate import _checks, _extras
from foveate.data import LoaderData
from foveate.data.dense import VOID, DenseData, open_segmentation
from foveate.models.dense import DECODERS
from foveate.models.inspection import dry_run
from foveate.tasks.task import Batch, Metrics, Task, resized

__all__ = ["Segmentation", "SegmentationResult", "iou_statistic"]


@dataclass(frozen=True)
class SegmentationResult:
    """Figures over a set of images with masks, all of them fractions in [0, 1] but the loss.

    Attributes:
        mean_iou: Mean over the classes of the intersection over the union, each summed over all images; classes that
            are neither in a mask nor predicted do not count.
        pixel_accuracy: Share of the pixels whose class is right.
        loss: Mean over the images of the mean cross-entropy of their pixels, in nats.
        per_class: Intersection over union of each class; None where its union is empty.
        scores: For each image a triple for each class: pixels that are of the class and predicted as such, pixels
            predicted, pixels of the class. Void pixels are left out.
    """

    mean_iou: float
    pixel_accuracy: float
    loss: float
    per_class: list[float | None]
    scores: list[list[list[int]]]


class Segmentation(Task):
    """Segmentation by cross-entropy, with Dice loss beside it if asked for.

    The cross-entropy is averaged over the pixels of an image that are not void, and then over the images, so that each
    image weighs the same and several processes have the gradient of one. The Dice loss is that of
    segmentation_models_pytorch, image by image.

    Args:
        classes: Names of the classes.
        dice: Weight of the Dice loss.
        decoder: Decoder of the network, one of `foveate.models.dense.DECODERS`.
        decoder_args: Keywords of the decoder.
    """

    name: ClassVar[str] = "segmentation"
    metric: ClassVar[str] = "mean_iou"
    metric_title: ClassVar[str] = "mean IoU"
    data_class: ClassVar[tuple[type, ...]] = (DenseData, LoaderData)
    target_dims: ClassVar[int] = 3
    record_dtype: ClassVar[torch.dtype] = torch.float64
    unused: ClassVar[tuple[str, ...]] = ("detector", "mixup", "cutmix", "label_smoothing")

    def __init__(
        self,
        classes: Sequence[str],
        *,
        dice: float = 0.0,
        decoder: str = "unet",
        decoder_args: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(classes)
        self.dice = _checks.number("dice", dice, minimum=0)
        self.head, self.head_args = _checks.one_of("decoder", decoder, tuple(DECODERS)), dict(decoder_args or {})

    @classmethod
    def check_settings(cls, settings: Any) -> None:
        """Raise a `ValueError` that names the first setting of no meaning, or of none of the known decoders."""
        super().check_settings(settings)
        cls([], dice=settings.dice, decoder=settings.decoder)

    @classmethod
    def configured(cls, settings: Any, data: Any, *, seed: int) -> Self:
        """Return the task with the decoder and the losses of ``settings``."""
        return cls(data.classes, dice=settings.dice, decoder=settings.decoder, decoder_args=settings.head_args)

    @classmethod
    def open_data(cls, name: str, **options: Any) -> DenseData:
        """Open images with masks, see `foveate.data.dense.open_segmentation`."""
        return open_segmentation(name, **options)

    @classmethod
    def check_data(cls, data: Any) -> None:
        """Raise a `ValueError` unless ``data`` are images with masks, or loaders of images that nothing is cut off."""
        super().check_data(data)
        if isinstance(data, LoaderData) and data.target_dims != cls.target_dims:
            raise ValueError(f"{data.name} must give masks of integers, (B, H, W), for task={cls.name}")
        if len(data.classes) > VOID:
            raise ValueError(f"{data.name} has {len(data.classes)} classes; masks hold {VOID}, as {VOID} is void")
        if data.transform.crop_pct != 1:
            raise ValueError(
                f"{data.name} has crop_pct={data.transform.crop_pct}, and a segmentation network sees whole images; "
                "leave it at 1"
            )

    def check_network(self, name: str, network: nn.Module, img_size: tuple[int, int]) -> None:
        """Raise a `ValueError` unless ``network`` turns a color image of ``img_size`` into logits of every pixel."""
        output = dry_run(network, (3, *img_size), lambda twin, image: twin(image), name=name)
        expected = (1, len(self.classes), *img_size)
        if not isinstance(output, Tensor) or output.shape != expected:
            got = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
            raise ValueError(f"{name} gives {got} for one image, where a segmentation network gives {expected}")

    def resize(self, images: Tensor, targets: Tensor, size: tuple[int, int]) -> Batch:
        """Resize images and masks, the masks by their nearest pixels."""
        masks = F.interpolate(targets[:, None].float(), size, mode="nearest-exact")[:, 0]
        return resized(images, size), masks.to(targets.dtype)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of logits ``(B, classes, H, W)`` and masks ``(B, H, W)``."""
        loss = _cross_entropies(outputs, targets).mean()
        if not self.dice:
            return loss
        each = [_dice(one[None], mask[None]) for one, mask in zip(outputs, targets, strict=True)]
        return loss + self.dice * torch.stack(each).mean()

    def metrics(self) -> Metrics:
        """Return cross-entropy, mean IoU and pixel accuracy."""
        return _SegmentationMetrics(len(self.classes))

    @property
    def record_shape(self) -> tuple[int, ...]:
        """Shape of an image's record, see `reduce`."""
        return (3 * len(self.classes) + 1,)

    def reduce(self, outputs: Tensor, targets: Tensor) -> Batch:
        """Return, of each image, what `SegmentationResult.scores` holds, flat, and its loss."""
        num_classes = len(self.classes)
        labels = outputs.argmax(1)
        valid = targets != VOID
        records = []
        for label, target, where in zip(labels, targets, valid, strict=True):
            label, target = label[where], target[where]
            counts = [torch.bincount(each, minlength=num_classes) for each in (target[label == target], label, target)]
            records.append(torch.stack(counts, dim=1).flatten())
        losses = _cross_entropies(outputs, targets)[:, None].cpu().double()  # there: not every GPU has float64
        kept = torch.cat([torch.stack(records).cpu().double(), losses], dim=1)
        return kept, torch.zeros(len(outputs), dtype=torch.long)

    def evaluate(self, outputs: Tensor, targets: Tensor) -> SegmentationResult:
        """Return the `SegmentationResult` of the records of all images."""
        counts = outputs[:, :-1].long().view(len(outputs), len(self.classes), 3)
        intersection, predicted, wanted = counts.sum(0).double().unbind(1)
        union = predicted + wanted - intersection
        per_class = [i / u if u else None for i, u in zip(intersection.tolist(), union.tolist(), strict=True)]
        found = [value for value in per_class if value is not None]
        pixels = wanted.sum().item()
        return SegmentationResult(
            mean_iou=sum(found) / len(found) if found else 0.0,
            pixel_accuracy=intersection.sum().item() / pixels if pixels else 0.0,
            loss=outputs[:, -1].mean().item(),
            per_class=per_class,
            scores=counts.tolist(),
        )

    def score(self, per_image: Sequence[Sequence[Any]]) -> Any:
        """Return the mean IoU with its bootstrap interval over the images."""
        from foveate.stats import record_score

        return record_score(iou_statistic, per_image)

    def difference(self, per_image: Sequence[Sequence[Any]], reference: Sequence[Sequence[Any]]) -> Any:
        """Return by how much the mean IoU of two networks differ on the same images with paired seeds."""
        from foveate.stats import record_difference

        return record_difference(iou_statistic, per_image, reference)


def iou_statistic(records: Sequence[Any]) -> Any:
    """Return the mean IoU as a `foveate.stats.Statistic` of `SegmentationResult.scores`."""
    counts = np.asarray(records, np.float64)  # images, classes, 3

    def mean_iou(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        intersection, predicted, wanted = (weights @ counts[:, :, which] for which in range(3))
        union = predicted + wanted - intersection
        present = union > 0
        ratios = np.divide(intersection, union, out=np.zeros_like(union), where=present)
        return ratios.sum(1) / np.maximum(present.sum(1), 1)

    return mean_iou


class _SegmentationMetrics(Metrics):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        from torchmetrics import MeanMetric  # only here: they take long to import
        from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

        self.mean_iou = MulticlassJaccardIndex(num_classes, ignore_index=VOID)
        self.pixel_accuracy = MulticlassAccuracy(num_classes, average="micro", ignore_index=VOID)
        self.loss = MeanMetric(nan_strategy=float("nan"))  # not left out in silence

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        labels = outputs.argmax(1)
        self.loss.update(_cross_entropies(outputs, targets))
        self.mean_iou.update(labels, targets)
        self.pixel_accuracy.update(labels, targets)

    def compute(self) -> dict[str, float]:
        values = {}
        for name in ("loss", "mean_iou", "pixel_accuracy"):
            metric: Any = getattr(self, name)
            values[name] = float(metric.compute())
            metric.reset()
        return values


def _cross_entropies(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of each image's pixels ``(B,)``; 0 of an image that is void."""
    sums = F.cross_entropy(outputs, targets, ignore_index=VOID, reduction="none").flatten(1).sum(1)
    return sums / (targets != VOID).flatten(1).sum(1).clamp(min=1)


def _dice(outputs: Tensor, targets: Tensor) -> Tensor:
    losses = _extras.require("segmentation_models_pytorch.losses", extra="dense")
    return losses.DiceLoss("multiclass", ignore_index=VOID)(outputs, targets)
