"""What the logits of a network are worth on labelled images."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True)
class Evaluation:
    """Figures over a set of labelled images; accuracies are fractions in [0, 1].

    Attributes:
        top1: Share of the images whose class has the highest logit.
        top5: Share of the images whose class is among the five highest; None with at most five classes.
        loss: Mean cross-entropy, in nats.
        per_class: Share of each class's images that are right; None for a class without images.
        correct: For each image, 1 if it counts in ``top1``, else 0.
    """

    top1: float
    top5: float | None
    loss: float
    per_class: list[float | None]
    correct: list[int]


def evaluate(logits: Tensor, labels: Tensor) -> Evaluation:
    """Return the `Evaluation` of ``logits`` ``(images, num_classes)`` against ``labels`` ``(images,)``."""
    from torchmetrics.functional.classification import multiclass_accuracy

    num_classes = logits.shape[1]
    correct = logits.argmax(1) == labels
    images = labels.bincount(minlength=num_classes)
    right = labels[correct].bincount(minlength=num_classes)
    top5 = multiclass_accuracy(logits, labels, num_classes, average="micro", top_k=5) if num_classes > 5 else None
    return Evaluation(
        top1=correct.double().mean().item(),
        top5=None if top5 is None else top5.item(),
        loss=F.cross_entropy(logits, labels).item(),
        per_class=[r / n if n else None for r, n in zip(right.tolist(), images.tolist(), strict=True)],
        correct=correct.int().tolist(),
    )
