"""Evaluation of a trained network on labelled images."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from foveate import _checks
from foveate._devices import check_device
from foveate.data.loader_data import checked_targets
from foveate.io.class_names import class_name
from foveate.models.inspection import evaluating, floating_dtype, is_channels_last

if TYPE_CHECKING:
    from foveate.stats import MeanScore
    from foveate.trained.network import TrainedNetwork

__all__ = [
    "ClassificationEvaluation",
    "DetectionEvaluation",
    "EvaluationResult",
    "SegmentationEvaluation",
    "evaluate_trained",
    "open_as_trained",
]


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """Figures over a set of labelled images; scores are fractions in [0, 1]. As text, a table for a terminal.

    Those of each task are a subclass: `ClassificationEvaluation`, `SegmentationEvaluation`, `DetectionEvaluation`.

    Attributes:
        model: Name of the network.
        data: Name of the set of images.
        split: Which part of it.
        images: How many.
        per_class: Score of each class, by its name; None for a class that does not occur.
        bad_images: Images that could not be read, and why.
    """

    shown: ClassVar[dict[str, str]]
    """Titles of the figures in the table, by their field."""

    model: str
    data: str
    split: str
    images: int
    per_class: dict[str, float | None]
    bad_images: list[str]

    def __str__(self) -> str:
        width = max(len(class_name(name)) for name in self.per_class)
        titles = max(map(len, self.shown.values()))
        lines = [" ".join(filter(None, (f"{self.model} on {self.images}", self.split, f"images of {self.data}")))]
        for field, title in self.shown.items():
            value = getattr(self, field)
            if value is not None:
                lines.append(f"  {title:<{titles}}  {_text(field, value)}")
        lines.append("  per class")
        for name, value in self.per_class.items():
            lines.append(f"    {class_name(name):<{width}}  " + ("no images" if value is None else f"{value:7.2%}"))
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class ClassificationEvaluation(EvaluationResult):
    """Figures of a classifier; accuracies are shares of images.

    Attributes:
        top1: Share of the images whose class has the highest logit, with its bootstrap interval.
        top5: Share of the images whose class is among the five highest; None with at most five classes.
        loss: Mean cross-entropy, in nats.
        correct: For each image, 1 if it counts in ``top1``, else 0.
    """

    shown: ClassVar[dict[str, str]] = {"top1": "top-1", "top5": "top-5", "loss": "loss"}

    top1: MeanScore
    top5: float | None
    loss: float
    correct: list[int]


@dataclass(frozen=True, kw_only=True)
class SegmentationEvaluation(EvaluationResult):
    """Figures of a segmentation network, see `foveate.tasks.SegmentationResult`.

    Attributes:
        mean_iou: Mean intersection over union of the classes, with its bootstrap interval over the images.
        pixel_accuracy: Share of the pixels whose class is right.
        loss: Mean cross-entropy, in nats.
        scores: Of each image the counts of pixels that the mean is made of.
    """

    shown: ClassVar[dict[str, str]] = {"mean_iou": "mean IoU", "pixel_accuracy": "pixel accuracy", "loss": "loss"}

    mean_iou: MeanScore
    pixel_accuracy: float
    loss: float
    scores: list[list[list[int]]]


@dataclass(frozen=True, kw_only=True)
class DetectionEvaluation(EvaluationResult):
    """Figures of a detector, see `foveate.tasks.DetectionResult`.

    Attributes:
        map: Mean average precision over classes and thresholds, with its bootstrap interval over the images.
        map50: Mean average precision where a box must overlap its object by half of their union.
        detections: Mean number of detections per image.
        scores: The record of each image that the mean is made of.
    """

    shown: ClassVar[dict[str, str]] = {"map": "mAP", "map50": "mAP at 0.5", "detections": "boxes per image"}

    map: MeanScore
    map50: float
    detections: float
    scores: list[Any]


def evaluate_trained(
    trained: TrainedNetwork, data: Any, *, split: str, batch_size: int, workers: int, precision: Any
) -> EvaluationResult:
    """Return what `TrainedNetwork.evaluate` returns: the task's figures, and an interval of its score."""
    # Only here: SciPy, torchmetrics and Lightning, which need not be installed to predict.
    from foveate.tasks import find_task
    from foveate.training import Recipe, TrainingModule, predict
    from foveate.training.recipe import Precision

    _checks.one_of("precision", precision, get_args(Precision))
    check_device(trained.device, precision)
    network, task = trained.network, find_task(trained.meta.task)(trained.classes)
    batches, name = data, type(data).__name__
    if isinstance(data, DataLoader):
        split = ""
    else:
        if isinstance(data, str | Path):
            data = open_as_trained(trained, data)
        trained.check_fits(data)
        name = data.name
        batches = data.evaluation_loader(
            split,
            transform=trained.transform_of(data),
            batch_size=batch_size,
            workers=workers,
            samples=task.samples,
            pin_memory=trained.device.type == "cuda",
        )
    recipe = Recipe(precision=precision, channels_last=is_channels_last(network))
    dtype = floating_dtype(network)
    labelled = (
        (_cast(images, dtype), _labels(found) if isinstance(found, Tensor) else found) for images, found in batches
    )
    with evaluating(network):
        targets = checked_targets(labelled, len(task.classes))
        kept = predict(TrainingModule(network, recipe, task), targets, device=trained.device)
    if not len(kept[0]):
        raise ValueError("data: there is no image in it that can be read")
    found = task.evaluate(*kept)
    figures: dict[str, Any] = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    per_image = figures[task.per_image]
    figures[task.metric] = task.score([per_image])
    figures["per_class"] = dict(zip(task.classes, figures["per_class"], strict=True))
    figures |= {"images": len(per_image), "bad_images": [str(bad) for bad in getattr(batches, "bad_images", ())]}
    return trained.result_class(model=trained.meta.model, data=name, split=split, **figures)


def open_as_trained(trained: TrainedNetwork, data: str | Path = "") -> Any:
    """Open images by name, as in the training of a network; without a name, what it was trained on, else digits."""
    # Only here: Lightning, which need not be installed to predict.
    from foveate.training.settings import DataConfig
    from foveate.training.settings_file import with_data_of_run

    config = with_data_of_run(DataConfig(data=data, data_seed=None), trained.source)  # type: ignore[arg-type]
    return config.open(trained.img_size, task=trained.meta.task, intensity_range=trained.meta.intensity_range)


def _labels(targets: Tensor) -> Tensor:
    if targets.ndim not in (1, 3):
        raise ValueError(f"targets must be class indices (B,) or masks (B, H, W); got {tuple(targets.shape)}")
    return targets.long()


def _cast(images: Any, dtype: torch.dtype) -> Tensor:
    if not isinstance(images, Tensor) or images.ndim != 4:
        got = tuple(images.shape) if isinstance(images, Tensor) else f"a {type(images).__name__}"
        raise ValueError(
            f"images must be a tensor (B, 3, H, W); got {got}: give the DataLoader a collate_fn that stacks"
        )
    if not images.is_floating_point():
        raise ValueError(f"images must be floating-point numbers, normalized for the network; got {images.dtype}")
    return images.to(dtype)


def _text(field: str, value: Any) -> str:
    if field == "loss":
        return f"{value:7.4f}"
    if field == "detections":
        return f"{value:7.1f}"
    if isinstance(value, float):
        return f"{value:7.2%}"
    return f"{value.mean:7.2%}  ({value.confidence:.0%} interval {value.low:.2%} to {value.high:.2%})"
