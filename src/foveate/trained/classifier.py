"""Trained networks that give an image one of several classes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, overload

import torch

from foveate import _checks
from foveate.io.class_names import class_name
from foveate.models.building import check_classifier
from foveate.trained.evaluation import ClassificationEvaluation, EvaluationResult
from foveate.trained.network import Picture, TrainedNetwork

__all__ = ["Prediction", "TrainedClassifier"]


class Prediction(NamedTuple):
    """A class, and how probable the network takes it to be."""

    label: int
    """Index of the class."""
    name: str
    """In words; of a class of ImageNet those of its synset, whose number `TrainedNetwork.classes` has."""
    probability: float


@dataclass(frozen=True, eq=False)
class TrainedClassifier(TrainedNetwork):
    """A `TrainedNetwork` that predicts classes."""

    result_class: ClassVar[type[EvaluationResult]] = ClassificationEvaluation
    names_images: ClassVar[bool] = True

    @overload
    def predict(  # type: ignore[overload-overlap]  # a path is a sequence of letters, too
        self, images: Picture, *, k: int = 5, batch_size: int = 32
    ) -> list[Prediction]: ...
    @overload
    def predict(self, images: Iterable[Picture], *, k: int = 5, batch_size: int = 32) -> list[list[Prediction]]: ...

    def predict(
        self, images: Picture | Iterable[Picture], *, k: int = 5, batch_size: int = 32
    ) -> list[Prediction] | list[list[Prediction]]:
        """Return the ``k`` most probable classes of an image (all if there are fewer), the most probable first.

        Args:
            images: One, or several; of several there is a list for each.
            k: How many classes.
            batch_size: How many images are computed at a time.

        Raises:
            ValueError: An image cannot be read, or a number is out of its range.
        """
        k = min(_checks.integer("k", k), len(self.classes))
        several = [images] if isinstance(images, Picture) else images
        found = []
        for _, logits in self.outputs(several, batch_size=batch_size):
            wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
            values, labels = (part.tolist() for part in wide.softmax(1).topk(k))
            found += [
                [Prediction(label, class_name(self.classes[label]), value) for label, value in zip(*image, strict=True)]
                for image in zip(labels, values, strict=True)
            ]
        return found[0] if isinstance(images, Picture) else found

    def check_network(self, img_size: tuple[int, int]) -> None:
        """Raise a `ValueError` unless the network turns a color image of ``img_size`` into a logit per class."""
        check_classifier(self.meta.model, self.network, num_classes=len(self.classes), img_size=img_size)
