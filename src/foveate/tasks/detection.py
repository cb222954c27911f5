"""Object detection: boxes with a class each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from foveate import _checks
from foveate._extras import check_installed
from foveate.data.dense import DenseData, TargetImages, open_detection
from foveate.models.dense import DETECTORS, Detector, seen_size
from foveate.models.inspection import dry_run
from foveate.tasks.average_precision import (
    MAX_DETECTIONS,
    RECALLS,
    THRESHOLDS,
    Record,
    ap_statistic,
    average_precision,
    match,
)
from foveate.tasks.task import Batch, Metrics, Task, resized

__all__ = ["Detection", "DetectionResult"]

MOST = 1000
"""Detections of an image that are kept."""
MASKED = 4
"""Images whose masks are drawn at a time in evaluation."""
RESAMPLES = 999
"""Resamples of the average precision, which takes milliseconds each."""


@dataclass(frozen=True)
class DetectionResult:
    """Figures over a set of images with boxes, fractions in [0, 1], as COCO defines them.

    Attributes:
        map: Mean average precision over the classes and the thresholds 0.5, 0.55, …, 0.95 of the intersection over
            union.
        map50: Mean average precision over the classes at 0.5.
        per_class: Average precision of each class over the thresholds; None for a class without objects.
        detections: Mean number of detections per image.
        scores: The record of each image, see `foveate.tasks.average_precision.match`.
    """

    map: float
    map50: float
    per_class: list[float | None]
    detections: float
    scores: list[Any]


class Detection(Task):
    """Detection by the losses of torchvision's detectors, added up.

    Args:
        classes: Names of the classes.
        detector: One of `foveate.models.dense.DETECTORS`.
        detector_args: Keywords of the detector.
    """

    name: ClassVar[str] = "detection"
    metric: ClassVar[str] = "map"
    target_dims: ClassVar[int] = 0
    metric_title: ClassVar[str] = "mAP"
    data_class: ClassVar[type] = DenseData
    record_dtype: ClassVar[torch.dtype] = torch.float64
    unused: ClassVar[tuple[str, ...]] = ("decoder", "dice", "mixup", "cutmix", "label_smoothing", "equivariance")

    def __init__(
        self, classes: Sequence[str], *, detector: str = "fasterrcnn", detector_args: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(classes)
        self.head, self.head_args = _checks.one_of("detector", detector, tuple(DETECTORS)), dict(detector_args or {})

    @classmethod
    def check_settings(cls, settings: Any) -> None:
        """Raise a `ValueError` that names the first setting of no meaning, or of none of the known detectors."""
        super().check_settings(settings)
        cls([], detector=settings.detector)

    @classmethod
    def configured(cls, settings: Any, data: Any, *, seed: int) -> Self:
        """Return the task with the detector of ``settings``.

        A `ValueError` says that it learns from masks, and that there are none in ``data``.
        """
        samples = data.train.samples if isinstance(data.train, TargetImages) else []
        boxes = samples and all(getattr(sample, "masks", sample) is None for sample in samples)
        if settings.detector == "maskrcnn" and boxes:
            raise ValueError(
                f"detector: Mask R-CNN learns from masks, and the training images of {data.name} have boxes alone; "
                "use fasterrcnn"
            )
        return cls(data.classes, detector=settings.detector, detector_args=settings.head_args)

    @classmethod
    def open_data(cls, name: str, **options: Any) -> DenseData:
        """Open images with boxes, see `foveate.data.dense.open_detection`."""
        return open_detection(name, **options)

    def samples(self, images: Any) -> Any:
        """Return ``images`` without masks that the detector does not learn from: to draw them takes time and memory."""
        return images.without_masks() if isinstance(images, TargetImages) and self.head != "maskrcnn" else images

    def check_network(self, name: str, network: nn.Module, img_size: tuple[int, int]) -> None:
        """Raise a `ValueError` unless ``network`` is a `Detector` that takes a color image of ``img_size``."""
        if not isinstance(network, Detector):
            raise ValueError(f"{name} is no foveate.models.dense.Detector; build it with build_detector")
        backbone = network.model.get_submodule("backbone")
        dry_run(backbone, (3, *seen_size(network, img_size)), lambda twin, image: twin(image), name=name)

    def resize(self, images: Tensor, targets: Any, size: tuple[int, int]) -> Batch:
        """Resize images, boxes and, where there are any, masks."""
        (height, width), moved = images.shape[-2:], []
        for target in targets:
            scale = target["boxes"].new_tensor([size[1] / width, size[0] / height] * 2)
            moved.append({**target, "boxes": target["boxes"] * scale})
            if "extent" in target:
                moved[-1]["extent"] = target["extent"] * scale[:2]
            if "masks" in target:
                masks = F.interpolate(target["masks"][:, None].float(), size, mode="nearest-exact")[:, 0]
                moved[-1]["masks"] = masks.to(target["masks"].dtype)
        return resized(images, size), moved

    def forward(self, network: nn.Module, images: Tensor, targets: Any = None) -> Any:
        """Return the losses of a batch in training, else its detections: boxes, labels and scores."""
        if network.training:
            return network(images, targets)
        # Masks, as large as the images, are drawn of a few at a time: they are not scored.
        parts = images.split(MASKED) if self.head == "maskrcnn" else [images]
        return [{name: one[name] for name in ("boxes", "labels", "scores")} for part in parts for one in network(part)]

    def loss(self, outputs: Mapping[str, Tensor], targets: Any) -> Tensor:
        """Return the sum of the detector's losses."""
        return torch.stack([value.float() for value in outputs.values()]).sum()

    def metrics(self) -> Metrics:
        """Return mean average precision, over the thresholds and at 0.5."""
        return _DetectionMetrics()

    @property
    def record_shape(self) -> tuple[int, ...]:
        """Shape of an image's record, see `reduce`."""
        return (4 * self._most + len(self.classes),)

    @property
    def _most(self) -> int:
        return min(MAX_DETECTIONS * len(self.classes), MOST)

    def reduce(self, outputs: Sequence[Mapping[str, Tensor]], targets: Sequence[Mapping[str, Tensor]]) -> Batch:
        """Return, of each image, its record: four numbers for each detection, and counts of objects.

        As COCO has it, the best 100 detections of each class count; of all classes together, the best 1,000.
        """
        packed = torch.full((len(outputs), *self.record_shape), -1.0, dtype=torch.float64)
        for row, found, wanted in zip(packed, outputs, targets, strict=True):
            rows, counts = match(_on_cpu(_in_image(found, wanted)), _on_cpu(wanted), len(self.classes))
            best = sorted(rows, key=lambda detection: -detection[1])[: self._most]
            values = [value for detection in best for value in detection]
            row[: len(values)] = torch.tensor(values, dtype=torch.float64)
            row[4 * self._most :] = torch.tensor(counts, dtype=torch.float64)
        return packed, torch.zeros(len(outputs), dtype=torch.long)

    def evaluate(self, outputs: Tensor, targets: Tensor) -> DetectionResult:
        """Return the `DetectionResult` of the records of all images."""
        records = [_unpacked(row, len(self.classes)) for row in outputs]
        found = average_precision(records)
        number = sum(len(rows) for rows, _ in records)
        return DetectionResult(
            map=found.mean,
            map50=found.at_50,
            per_class=found.per_class,
            detections=number / max(len(records), 1),
            scores=[[rows, counts] for rows, counts in records],
        )

    def score(self, per_image: Sequence[Sequence[Any]]) -> Any:
        """Return the mean average precision with its bootstrap interval over the images."""
        from foveate.stats import record_score

        return record_score(ap_statistic, per_image, resamples=RESAMPLES)

    def difference(self, per_image: Sequence[Sequence[Any]], reference: Sequence[Sequence[Any]]) -> Any:
        """Return by how much the mean average precisions of two networks differ, with paired seeds."""
        from foveate.stats import record_difference

        return record_difference(ap_statistic, per_image, reference, resamples=RESAMPLES)

    def summary(self, row: Mapping[str, float]) -> str:
        """Return the validation part of an epoch's line."""
        return f"val mAP {row['val_map']:6.2%}  at 0.5 {row['val_map50']:6.2%}"


class _DetectionMetrics(Metrics):
    def __init__(self) -> None:
        super().__init__()
        from torchmetrics.detection import MeanAveragePrecision  # only here: it takes long to import

        check_installed("pycocotools", extra="dense")
        # COCO's thresholds, which torchmetrics rounds to float32: a recall of exactly 0.3 would count as less.
        self.map = MeanAveragePrecision(
            backend="pycocotools",
            iou_thresholds=THRESHOLDS.tolist(),
            rec_thresholds=RECALLS.tolist(),
            sync_on_compute=False,  # it would gather image by image, as if every process had as many
        )
        self.map.warn_on_many_detections = False

    def update(self, outputs: Any, targets: Any) -> None:
        wanted = [
            {"boxes": one["boxes"], "labels": one["labels"], "iscrowd": one["ignored"].int()}
            if "ignored" in one
            else {"boxes": one["boxes"], "labels": one["labels"]}
            for one in targets
        ]
        self.map.update([_in_image(one, target) for one, target in zip(outputs, targets, strict=True)], wanted)

    def compute(self) -> dict[str, float]:
        if dist.is_available() and dist.is_initialized():
            self._gather()
        values = self.map.compute()
        self.map.reset()
        return {name: max(0.0, float(values[key])) for name, key in (("map", "map"), ("map50", "map_50"))}

    def _gather(self) -> None:
        """Take the images of all processes, in the order of those."""
        lists = [name for name, state in self.map.metric_state.items() if isinstance(state, list)]
        own = {name: [part.cpu() for part in getattr(self.map, name)] for name in lists}
        every: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(every, own)
        for name in lists:
            setattr(self.map, name, [part for one in every for part in one[name]])


def _in_image(found: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return detections cut off where the image ends, without those in the padding beside it; as `predict` does."""
    found = {name: found[name] for name in ("boxes", "labels", "scores")}
    if "extent" not in target:
        return found
    boxes = torch.minimum(found["boxes"], target["extent"].repeat(2).to(found["boxes"]))
    kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
    return {name: values[kept] for name, values in (found | {"boxes": boxes}).items()}


def _on_cpu(one: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: one[name].cpu() for name in ("boxes", "labels", "scores", "ignored") if name in one}


def _unpacked(row: Tensor, classes: int) -> Record:
    detections = row[:-classes].view(-1, 4)
    found = detections[detections[:, 0] >= 0].tolist()
    counts = [int(count) for count in row[-classes:].tolist()]
    return [[int(label), score, int(matched), int(left_out)] for label, score, matched, left_out in found], counts
