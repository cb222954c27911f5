"""The interface of a task: all that the training loop, evaluation and comparison ask of what is learned."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveate.data import LabelledImages, open_data

if TYPE_CHECKING:
    from foveate.stats import Difference, MeanScore

__all__ = ["Batch", "Metrics", "Task", "resized"]

Batch = tuple[Tensor, Any]
"""Images ``(B, C, H, W)`` and their targets."""


class Metrics(nn.Module, ABC):
    """Validation metrics of one pass over a data set, summed over the processes that share it."""

    @abstractmethod
    def update(self, outputs: Any, targets: Any) -> None:
        """Add a batch."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Return the metrics by name, such as ``loss`` and ``top1``, and forget the batches."""


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Return images ``(B, C, H, W)`` at another size, in the same memory format."""
    return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)


class Task(ABC):
    """Abstract base class of tasks.

    Args:
        classes: Names of the classes of the data.
    """

    name: ClassVar[str]
    """Value of ``--task``."""
    metric: ClassVar[str]
    """Name of the metric by which the best epoch is chosen and networks are compared: a fraction, higher is better."""
    metric_title: ClassVar[str]
    """What tables and figures call it."""
    per_image: ClassVar[str] = "scores"
    """Field of the result that holds a number per image; networks are compared by their means."""

    data_class: ClassVar[type | tuple[type, ...]] = object
    """What it is learned from, as `isinstance` has it."""
    target_dims: ClassVar[int | None] = None
    """Dimensions of a batch's targets where they are one tensor of integers, 0 where they are objects; None if they may
    be any, as those of a classification of several classes an image."""
    record_dtype: ClassVar[torch.dtype] = torch.float32
    """Type of what `reduce` keeps."""
    unused: ClassVar[tuple[str, ...]] = ()
    """Fields of `foveate.training.TrainSettings` that mean nothing to the task."""
    head: str = ""
    """What stands on the network, a decoder or a detector, see `foveate.models.dense`; nothing on a classifier."""
    head_args: Mapping[str, Any] = MappingProxyType({})
    """Its keywords."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = list(classes)

    @classmethod
    def check_settings(cls, settings: Any) -> None:
        """Raise a `ValueError` that names the first of `unused` that is set."""
        defaults = type(settings)()
        for name in cls.unused:
            value = getattr(settings, name)
            if value != getattr(defaults, name):
                raise ValueError(
                    f"{name}={value!r} means nothing to task={cls.name}; leave it out, or give another task"
                )

    @classmethod
    def configured(cls, settings: Any, data: Any, *, seed: int) -> Self:
        """Return the task as ``settings``, a `foveate.training.TrainConfig`, asks for it on ``data``."""
        return cls(data.classes)

    @classmethod
    def open_data(cls, name: str, **options: Any) -> Any:
        """Open images with what the task learns of them, see `foveate.data.open_data` for the options."""
        return open_data(name, **options)

    @classmethod
    def check_data(cls, data: Any) -> None:
        """Raise a `ValueError` unless ``data`` is a `data_class` with targets as the task has them."""
        name, dims = getattr(data, "name", "data"), getattr(data, "target_dims", None)
        if not isinstance(data, cls.data_class):
            raise ValueError(
                f"{name} is {type(data).__name__}, from which task={cls.name} cannot be learned; open it for "
                "that task, by foveate.data.open_data or foveate.data.dense.open_segmentation or open_detection"
            )
        if dims is not None and cls.target_dims not in (None, dims):
            kinds = {0: "boxes", 1: "class indices (B,)", 3: "masks (B, H, W)"}
            wanted, got = (kinds.get(number, f"targets of {number} dimensions") for number in (cls.target_dims, dims))
            raise ValueError(f"{name} must give {wanted} for task={cls.name}; it gives {got}")

    @property
    def outputs(self) -> Sequence[str]:
        """Names of the network's outputs, which give their number; by default the classes."""
        return self.classes

    def samples(self, images: LabelledImages) -> Any:
        """Return a data set of pairs ``(image, target)``; by default ``images``, whose targets are labels."""
        return images

    @abstractmethod
    def check_network(self, name: str, network: nn.Module, img_size: tuple[int, int]) -> None:
        """Raise a `ValueError` unless ``network`` has outputs for this task."""

    def mix(self, images: Tensor, targets: Any, *, epoch: int, step: int) -> Batch:
        """Mix batch ``step`` of ``epoch`` for training; by default leave it unchanged."""
        return images, targets

    def resize(self, images: Tensor, targets: Any, size: tuple[int, int]) -> Batch:
        """Resize a batch of training to ``size``, height and width; targets of a place in the image move with it."""
        return resized(images, size), targets

    def forward(self, network: nn.Module, images: Tensor, targets: Any = None) -> Any:
        """Return the outputs of the network; with ``targets`` in training, without in evaluation."""
        return network(images).float()

    @abstractmethod
    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """Return the training loss of a batch."""

    @abstractmethod
    def metrics(self) -> Metrics:
        """Return metrics that have seen nothing."""

    @property
    def record_shape(self) -> tuple[int, ...]:
        """Shape of what `reduce` keeps of the outputs for an image."""
        return (len(self.outputs),)

    def reduce(self, outputs: Any, targets: Any) -> Batch:
        """Return what `evaluate` needs of a batch, two tensors of a row per image; by default outputs and targets."""
        return outputs, targets

    @abstractmethod
    def evaluate(self, outputs: Tensor, targets: Tensor) -> Any:
        """Return a dataclass of what the outputs of a data set, as `reduce` keeps them, are worth, with `per_image`."""

    def score(self, per_image: Sequence[Sequence[float]]) -> MeanScore:
        """Return the mean of the images' scores, a row per seed, with its bootstrap interval over the images."""
        from foveate.stats import mean_score

        return mean_score(per_image)

    def difference(self, per_image: Sequence[Sequence[float]], reference: Sequence[Sequence[float]]) -> Difference:
        """Return by how much two networks differ on the same images with paired seeds."""
        from foveate.stats import paired_difference

        return paired_difference(per_image, reference)

    def summary(self, row: Mapping[str, float]) -> str:
        """Return the validation part of an epoch's line; ``row`` has the metrics as ``val_…``."""
        return f"val loss {row['val_loss']:.4f}  val {self.metric_title} {row[f'val_{self.metric}']:6.2%}"

    @classmethod
    def verdict(cls, metrics: Mapping[str, Any]) -> str:
        """Return the figure that counts among those of `evaluate`, in words such as ``top-1 71.20%``."""
        return f"{cls.metric_title} {metrics[cls.metric]:.2%}"
