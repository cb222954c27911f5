"""Trained networks that find objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from foveate import _checks
from foveate.data.dense import DenseData
from foveate.data.fitting import fitted_size
from foveate.trained.evaluation import DetectionEvaluation, EvaluationResult
from foveate.trained.network import Picture, TrainedNetwork

if TYPE_CHECKING:
    from foveate.explain.painting import Color

__all__ = ["THRESHOLD", "Detected", "Detections", "TrainedDetector"]

THRESHOLD = 0.5
"""Least score of an object that is returned and shown."""
LISTED = 5
"""Objects that a verdict names."""


class Detected(NamedTuple):
    """An object, as a network found it."""

    box: tuple[float, float, float, float]
    """``x_min, y_min, x_max, y_max`` in pixels of the image, the last two exclusive."""
    label: int
    """Index of the class."""
    name: str
    """Name of the class."""
    score: float
    """How sure the network is, from 0 to 1."""
    mask: NDArray[np.bool_] | None = None
    """``(H, W)``: the object's pixels, where the network gives them (Mask R-CNN)."""


class Detections(list[Detected]):
    """The objects in an image, those with the highest scores first."""

    def __init__(self, objects: Iterable[Detected], image: Image.Image, classes: Sequence[str]) -> None:
        super().__init__(objects)
        self.image = image
        """The image, RGB and upright."""
        self.classes = classes
        """Names of the classes."""

    def picture(self, side: int = 400) -> Image.Image:
        """Draw the boxes with their names and scores over the image, at most ``side`` pixels long."""
        return self.drawn(side)

    def drawn(self, side: int) -> Image.Image:
        """Draw the boxes with their names and scores over the image."""
        from foveate.explain.painting import boxed  # only here: matplotlib, which need not be installed to predict

        return boxed(
            self.image,
            [one.box for one in self],
            [f"{one.name} {one.score:.2f}" for one in self],
            [one.label for one in self],
            side,
            masks=[one.mask for one in self],
        )

    def parts(self) -> list[tuple[str, float]]:
        """Return the names of the objects with their scores, the highest first."""
        return [(one.name, one.score) for one in self]

    @property
    def key(self) -> dict[str, Color]:
        """Colors of the classes that were found."""
        from foveate.explain.painting import object_color

        return {one.name: object_color(one.label) for one in self}

    def verdict(self, number: int = 1, query: tuple[int, int] | None = None) -> str:
        """Describe the result: how many objects, and the first of them."""
        if not self:
            return "no objects"
        names = [f"{one.name} {one.score:.2f}" for one in self[: max(number, LISTED)]]
        more = ", …" if len(self) > len(names) else ""
        return f"{len(self)} object{'s' * (len(self) > 1)}: {', '.join(names)}{more}"

    def numbers(self, query: tuple[int, int] | None = None) -> dict[str, Any]:
        """Return the objects and their number by class, for JSON."""
        objects = [{"class": one.name, "index": one.label, "score": one.score, "box": list(one.box)} for one in self]
        return {"objects": objects, "counts": dict(Counter(one.name for one in self))}


@dataclass(frozen=True, eq=False)
class TrainedDetector(TrainedNetwork):
    """A `TrainedNetwork` that finds objects.

    trained = foveate.load("runs/cells")
    found = trained.predict("blood.jpg", threshold=0.7)
    found[0].name, found[0].box, found[0].score, found.picture()
    """

    fit: ClassVar[str | None] = "pad"
    data_class: ClassVar[type[DenseData]] = DenseData
    result_class: ClassVar[type[EvaluationResult]] = DetectionEvaluation

    def predict(self, images: Picture | Iterable[Picture], *, threshold: float = THRESHOLD, batch_size: int = 4) -> Any:
        """Return the `Detections` in an image, the highest scores first, or a list of them for several.

        The network sees the whole image, resized to fit its input and padded; boxes are in pixels of the image.

        Args:
            images: One, or several.
            threshold: Least score. torchvision's detectors leave out what is below a threshold of their own (0.05, and
                0.2 of FCOS).
            batch_size: How many images are computed at a time.

        Raises:
            ValueError: An image cannot be read, or a number is out of its range.
        """
        _checks.number("threshold", threshold, minimum=0, maximum=1)
        several = [images] if isinstance(images, Picture) else images
        found = [
            self.answer(image, one, threshold=threshold)
            for opened, output in self.outputs(several, batch_size=batch_size)
            for image, one in zip(opened, output, strict=True)
        ]
        return found[0] if isinstance(images, Picture) else found

    def answer(self, image: Image.Image, output: Any, *, threshold: float = THRESHOLD) -> Detections:
        """Return what the detections in the input, a dict or a list of one, mean for an image."""
        found: Mapping[str, Tensor] = output if isinstance(output, Mapping) else output[0]
        place = self.placement((image.height, image.width))
        corners = place.to_image(found["boxes"].reshape(-1, 2, 2).cpu().double().numpy())
        boxes = corners.clip(0, (image.width, image.height)).reshape(-1, 4)
        scores, labels = found["scores"].tolist(), found["labels"].tolist()
        objects = []
        for index in sorted(range(len(scores)), key=lambda index: -scores[index]):
            x_min, y_min, x_max, y_max = boxes[index].tolist()
            if scores[index] < threshold or not (x_min < x_max and y_min < y_max):  # or in the padding alone
                continue
            mask = self._mask(found["masks"][index], image) if "masks" in found else None
            label = labels[index]
            objects.append(Detected((x_min, y_min, x_max, y_max), label, self.classes[label], scores[index], mask))
        return Detections(objects, image, self.classes)

    def _mask(self, mask: Tensor, image: Image.Image) -> NDArray[np.bool_]:
        """Return a mask ``(1, H, W)`` of probabilities in the input in pixels of the image."""
        size = (image.height, image.width)
        height, width = fitted_size(size, self.input_size)
        part = mask[None, :, :height, :width].float()
        return (F.interpolate(part, size, mode="bilinear")[0, 0] >= 0.5).cpu().numpy()

    def check_network(self, img_size: tuple[int, int]) -> None:
        """Raise a `ValueError` unless the network is a detector that takes a color image of ``img_size``."""
        from foveate.tasks import Detection  # only here: SciPy and torchmetrics

        Detection(self.classes).check_network(self.meta.model, self.network, img_size)
