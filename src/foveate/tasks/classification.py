"""Image classification: one class per image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn
from torch.nn import functional as F

from foveate.data import ImageData, LoaderData, make_mixup
from foveate.models.building import check_classifier
from foveate.tasks.task import Batch, Metrics, Task

__all__ = ["Classification", "ClassificationResult", "Mixing", "classification_result"]


class Mixing(Protocol):
    """Mixes the images of a batch, and their labels into distributions ``(B, num_classes)``."""

    def __call__(self, images: Tensor, labels: Tensor, *, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Return what becomes of batch ``step`` of ``epoch``, both counted from 0."""
        ...


@dataclass(frozen=True)
class ClassificationResult:
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


class Classification(Task):
    """Classification by cross-entropy, with label smoothing, mixup and CutMix.

    Args:
        classes: Names of the classes.
        label_smoothing: Share of the target that is spread over all classes.
        mixing: Mixes batches in training. It must smooth the labels itself if they are to be smoothed.
    """

    name: ClassVar[str] = "classification"
    metric: ClassVar[str] = "top1"
    metric_title: ClassVar[str] = "top-1"
    per_image: ClassVar[str] = "correct"
    data_class: ClassVar[tuple[type, ...]] = (ImageData, LoaderData)
    target_dims: ClassVar[int] = 1
    unused: ClassVar[tuple[str, ...]] = ("decoder", "dice", "detector", "head_args")

    def __init__(self, classes: Sequence[str], *, label_smoothing: float = 0.0, mixing: Mixing | None = None) -> None:
        super().__init__(classes)
        self.mixing = mixing
        self._loss: Callable[[Tensor, Tensor], Tensor] = (
            LabelSmoothingCrossEntropy(label_smoothing) if mixing is None else SoftTargetCrossEntropy()
        )

    @classmethod
    def configured(cls, settings: Any, data: Any, *, seed: int) -> Self:
        """Return the task with the label smoothing and the mixing of ``settings``."""
        mixing = make_mixup(
            data.num_classes,
            mixup=settings.mixup,
            cutmix=settings.cutmix,
            label_smoothing=settings.label_smoothing,
            seed=seed,
        )
        return cls(data.classes, label_smoothing=settings.label_smoothing, mixing=mixing)

    def check_network(self, name: str, network: nn.Module, img_size: tuple[int, int]) -> None:
        """Raise a `ValueError` unless ``network`` turns a color image of ``img_size`` into a logit per class."""
        check_classifier(name, network, num_classes=len(self.classes), img_size=img_size)

    def mix(self, images: Tensor, targets: Tensor, *, epoch: int, step: int) -> Batch:
        """Mix the images and labels of a batch, if they are to be mixed."""
        if type(self) is Classification:  # other kinds know their batches
            if images.ndim != 4 or not images.is_floating_point():
                raise ValueError(f"data: images must be floats (B, 3, H, W); got {images.dtype} {tuple(images.shape)}")
            if targets.ndim != 1 or targets.is_floating_point():
                raise ValueError(
                    f"data: labels must be class indices (B,); got {targets.dtype} {tuple(targets.shape)}; to mix them "
                    "give mixup=… or cutmix=…"
                )
        return (images, targets) if self.mixing is None else self.mixing(images, targets, epoch=epoch, step=step)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of logits ``(B, num_classes)`` and labels ``(B,)``, or distributions of mixing."""
        return self._loss(outputs, targets)

    def metrics(self) -> Metrics:
        """Return cross-entropy, top-1 and, with more than five classes, top-5 accuracy."""
        return _ClassificationMetrics(len(self.classes))

    def evaluate(self, outputs: Tensor, targets: Tensor) -> ClassificationResult:
        """Return the `ClassificationResult` of logits ``(images, num_classes)`` and labels ``(images,)``."""
        return classification_result(outputs, targets)


class _ClassificationMetrics(Metrics):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        from torchmetrics import MeanMetric, Metric, MetricCollection  # only here: they take long to import
        from torchmetrics.classification import MulticlassAccuracy

        ks = (1, 5) if num_classes > 5 else (1,)
        top: dict[str, Metric | MetricCollection] = {
            f"top{k}": MulticlassAccuracy(num_classes, top_k=k, average="micro") for k in ks
        }
        self.accuracy = MetricCollection(top)
        self.loss = MeanMetric(nan_strategy=float("nan"))  # not left out in silence

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.loss.update(F.cross_entropy(outputs, targets), len(targets))
        self.accuracy.update(outputs, targets)

    def compute(self) -> dict[str, float]:
        values = {"loss": self.loss.compute(), **self.accuracy.compute()}
        self.loss.reset()
        self.accuracy.reset()
        return {name: float(value) for name, value in values.items()}


def classification_result(logits: Tensor, labels: Tensor) -> ClassificationResult:
    """Return the `ClassificationResult` of ``logits`` ``(images, num_classes)`` against ``labels`` ``(images,)``."""
    num_classes = logits.shape[1]
    correct = logits.argmax(1) == labels
    images = labels.bincount(minlength=num_classes)
    right = labels[correct].bincount(minlength=num_classes)
    fives = logits.topk(5, dim=1).indices if num_classes > 5 else None
    return ClassificationResult(
        top1=correct.double().mean().item(),
        top5=None if fives is None else (fives == labels[:, None]).any(1).double().mean().item(),
        loss=F.cross_entropy(logits, labels).item(),
        per_class=[r / n if n else None for r, n in zip(right.tolist(), images.tolist(), strict=True)],
        correct=correct.int().tolist(),
    )
