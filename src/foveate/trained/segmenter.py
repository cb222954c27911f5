"""Trained networks that give every pixel a class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from foveate import _checks
from foveate.data.dense import DenseData
from foveate.data.written import check_png, write_png
from foveate.trained.evaluation import EvaluationResult, SegmentationEvaluation
from foveate.trained.network import Picture, TrainedNetwork

if TYPE_CHECKING:
    from foveate.explain.painting import Color

__all__ = ["Segmented", "TrainedSegmenter", "resized_rows"]

LISTED = 3
"""Classes that a verdict names."""
AT_ONCE = 1 << 25
"""Most logits, of all classes, that are held at the size of the image at a time: 128 MiB."""


@dataclass(frozen=True, eq=False)
class Segmented:
    """The classes of the pixels of an image, as `TrainedSegmenter.predict` returns them."""

    image: Image.Image
    """The image, RGB and upright."""
    labels: NDArray[np.uint8]
    """``(H, W)``: index of the most probable class of each pixel of the image."""
    probabilities: NDArray[np.float32]
    """``(H, W)``: how probable the network takes that class to be."""
    classes: Sequence[str]
    """Names of the classes."""

    @property
    def shares(self) -> dict[str, float]:
        """Share of the pixels of each class, by its name."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.classes))
        return {name: count / self.labels.size for name, count in zip(self.classes, counts.tolist(), strict=True)}

    def at(self, query: tuple[int, int]) -> tuple[str, float]:
        """Return the class of the pixel in row and column ``query``, and its probability."""
        row, column = _checks.pair("query", query, minimum=0)
        if row >= self.labels.shape[0] or column >= self.labels.shape[1]:
            raise ValueError(f"query={(row, column)} lies outside of the image of {self.labels.shape} pixels")
        return self.classes[self.labels[row, column]], float(self.probabilities[row, column])

    def picture(self, side: int = 400) -> Image.Image:
        """Draw the classes in colors over the image, at most ``side`` pixels long, with a legend below."""
        from foveate.explain.painting import with_key  # only here: matplotlib, which need not be installed to predict

        return with_key(self.drawn(side), self.key)

    def drawn(self, side: int) -> Image.Image:
        """Draw the classes in colors over the image."""
        from foveate.explain.painting import colored

        return colored(self.image, self.labels, side)

    @property
    def key(self) -> dict[str, Color]:
        """Colors of the classes that occur, the most frequent first."""
        from foveate.explain.painting import class_color

        return {name: class_color(list(self.classes).index(name)) for name, _ in self.parts()}

    def parts(self) -> list[tuple[str, float]]:
        """Return the classes that occur with their shares, the most frequent first."""
        return [(name, share) for name, share in sorted(self.shares.items(), key=lambda share: -share[1]) if share]

    def verdict(self, number: int = 1, query: tuple[int, int] | None = None) -> str:
        """Describe the result: the class of a pixel, or the most frequent classes."""
        if query is not None:
            name, probability = self.at(query)
            return f"pixel ({query[0]}, {query[1]}): {name} ({probability:.1%})"
        return "pixels: " + ", ".join(f"{name} {share:.1%}" for name, share in self.parts()[: max(number, LISTED)])

    def numbers(self, query: tuple[int, int] | None = None) -> dict[str, Any]:
        """Return the shares and, of a pixel, its class, for JSON."""
        if query is None:
            return {"shares": self.shares}
        name, probability = self.at(query)
        return {"shares": self.shares, "pixel": {"at": list(query), "class": name, "probability": probability}}

    def save(self, path: str | Path) -> None:
        """Write the classes as a palette PNG atomically; a file that this library has not written is not replaced."""
        from foveate.explain.painting import palette

        mask = Image.fromarray(self.labels, "P")
        mask.putpalette(palette())
        write_png(check_png(path), mask, title=f"classes: {', '.join(self.classes)}")


@dataclass(frozen=True, eq=False)
class TrainedSegmenter(TrainedNetwork):
    """A `TrainedNetwork` that gives every pixel a class.

    trained = foveate.load("runs/streets")
    found = trained.predict("street.jpg")
    found.labels, found.shares["road"], found.picture()
    found.save("mask.png")
    """

    fit: ClassVar[str | None] = "pad"
    data_class: ClassVar[type[DenseData]] = DenseData
    result_class: ClassVar[type[EvaluationResult]] = SegmentationEvaluation

    def predict(self, images: Picture | Iterable[Picture], *, batch_size: int = 4) -> Any:
        """Return the `Segmented` of an image, or a list of them for several.

        The network sees the whole image, resized to fit its input and padded, or squashed to it if it learned so. The
        logits of the part that the image fills are resized bilinearly to the size of the image; the class of a pixel is
        that of the largest.

        Args:
            images: One, or several.
            batch_size: How many images are computed at a time.

        Raises:
            ValueError: An image cannot be read, or a number is out of its range.
        """
        several = [images] if isinstance(images, Picture) else images
        found = [
            self.answer(image, logits)
            for opened, output in self.outputs(several, batch_size=batch_size)
            for image, logits in zip(opened, output, strict=True)
        ]
        return found[0] if isinstance(images, Picture) else found

    def answer(self, image: Image.Image, output: Tensor) -> Segmented:
        """Return what logits ``([1,] classes, H, W)`` mean for an image."""
        size = (image.height, image.width)
        _, _, width, height = self.placement(size).extent(size)
        logits = output.reshape(output.shape[-3:])[:, :height, :width].float()
        labels, probabilities = [], []
        for rows in resized_rows(logits, size):
            values, indices = rows.softmax(0).max(0)
            labels.append(indices.to(torch.uint8).cpu())
            probabilities.append(values.cpu())
        return Segmented(image, torch.cat(labels).numpy(), torch.cat(probabilities).numpy(), self.classes)

    def check_network(self, img_size: tuple[int, int]) -> None:
        """Raise a `ValueError` unless the network turns a color image of ``img_size`` into logits of every pixel."""
        from foveate.tasks import Segmentation  # only here: SciPy and torchmetrics

        Segmentation(self.classes).check_network(self.meta.model, self.network, img_size)


def resized_rows(logits: Tensor, size: tuple[int, int]) -> Iterator[Tensor]:
    """Yield the rows of maps ``(C, h, w)`` resized bilinearly to height and width ``size``, some at a time.

    Together they are ``F.interpolate(logits[None], size, mode="bilinear")[0]``, up to rounding: interpolation along
    the columns and along the rows commute. The maps of a large photograph and many classes do not fit in memory.
    """
    channels, height, _ = logits.shape
    lines = max(1, AT_ONCE // (channels * size[1]))
    places = ((torch.arange(size[0], dtype=torch.float64) + 0.5) * height / size[0] - 0.5).clamp(0, height - 1)
    above = places.floor().long()
    below = (above + 1).clamp(max=height - 1)
    weight = (places - above).to(logits)[:, None]
    above, below = above.to(logits.device), below.to(logits.device)
    for start in range(0, size[0], lines):
        part = slice(start, start + lines)
        rows = logits[:, above[part]] * (1 - weight[part]) + logits[:, below[part]] * weight[part]
        yield F.interpolate(rows[None], (rows.shape[1], size[1]), mode="bilinear")[0]
