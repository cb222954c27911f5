"""Evaluation of a trained network on labelled images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor, nn

from foveate import _checks
from foveate._devices import check_device
from foveate.io.class_names import class_name

if TYPE_CHECKING:
    from foveate.stats import MeanScore

__all__ = ["EvaluationResult", "evaluate_network"]


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """Figures over a set of labelled images; accuracies are fractions in [0, 1]. As text, a table for a terminal.

    Attributes:
        model: Name of the network.
        data: Name of the set of images.
        split: Which part of it.
        images: How many.
        top1: Share of the images whose class has the highest logit, with its bootstrap interval.
        top5: Share of the images whose class is among the five highest; None with at most five classes.
        loss: Mean cross-entropy, in nats.
        per_class: Share of each class's images that are right, by its name; None for a class without images.
        correct: For each image, 1 if it counts in ``top1``, else 0.
        bad_images: Those that could not be read, and why.
    """

    model: str
    data: str
    split: str
    images: int
    top1: MeanScore
    top5: float | None
    loss: float
    per_class: dict[str, float | None]
    correct: list[int]
    bad_images: list[str]

    def __str__(self) -> str:
        top1, width = self.top1, max(len(class_name(name)) for name in self.per_class)
        lines = [
            " ".join(filter(None, (f"{self.model} on {self.images}", self.split, f"images of {self.data}"))),
            f"  top-1  {top1.mean:7.2%}  ({top1.confidence:.0%} interval {top1.low:.2%} to {top1.high:.2%})",
            *([] if self.top5 is None else [f"  top-5  {self.top5:7.2%}"]),
            f"  loss   {self.loss:7.4f}",
            "  per class",
        ]
        for name, value in self.per_class.items():
            lines.append(f"    {class_name(name):<{width}}  " + ("no images" if value is None else f"{value:7.2%}"))
        return "\n".join(lines)


def evaluate_network(
    network: nn.Module,
    batches: Iterable[Any],
    *,
    classes: Sequence[str],
    device: torch.device,
    precision: Any = "32-true",
    **about: str,
) -> EvaluationResult:
    """Evaluate ``network`` on ``batches`` of images ``(B, C, H, W)`` as it takes them and class indices ``(B,)``.

    Raises:
        ValueError: The device cannot compute in that precision, there are no images, or a label is none of the classes.
    """
    from foveate.stats import mean_score  # only here: Lightning and SciPy, which need not be installed to predict
    from foveate.tasks import Classification
    from foveate.training import Recipe, TrainingModule, predict
    from foveate.training.recipe import Precision

    _checks.one_of("precision", precision, get_args(Precision))
    check_device(device, precision)
    task = Classification(classes)
    module = TrainingModule(network, Recipe(precision=precision), task)
    logits, labels = predict(module, batches, device=device)
    _check_labels(labels, len(classes))
    found = task.evaluate(logits, labels)
    return EvaluationResult(
        **about,
        images=len(found.correct),
        top1=mean_score([found.correct]),
        top5=found.top5,
        loss=found.loss,
        per_class=dict(zip(classes, found.per_class, strict=True)),
        correct=found.correct,
        bad_images=[str(bad) for bad in getattr(batches, "bad_images", ())],
    )


def _check_labels(labels: Tensor, num_classes: int) -> None:
    if not len(labels):
        raise ValueError("data: there is no image in it that can be read")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f"data: labels are from {low} to {high}, and the network has {num_classes} classes, from 0")
