"""Explanation of one image by one network, with its prediction and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from PIL import Image
from torch import Tensor

from foveate.data.written import check_png, write_png
from foveate.explain.asked import Box
from foveate.explain.explanation import Explanation
from foveate.explain.painting import Color
from foveate.explain.pictures import image_sheet
from foveate.explain.records import AttentionRecord
from foveate.io.class_names import class_name

if TYPE_CHECKING:
    from foveate.data import Placement

__all__ = ["Answer", "Finding"]


class Answer(Protocol):
    """What a network that is no classifier says of an image: the classes of its pixels, or its objects."""

    def verdict(self, number: int = 1, query: tuple[int, int] | None = None) -> str:
        """Describe it in words: its first ``number`` parts, or what it says of the pixel ``query``."""

    def numbers(self, query: tuple[int, int] | None = None) -> dict[str, Any]:
        """Return it for JSON."""

    def drawn(self, side: int) -> Image.Image:
        """Draw it over the image, at the size of `foveate.explain.pictures.enlarged`."""

    def parts(self) -> Sequence[tuple[str, float]]:
        """Return what it consists of, by name, with the share or the score of each, the highest first."""

    @property
    def key(self) -> Mapping[str, Color]:
        """Colors of `drawn`, by what they stand for."""


@dataclass(frozen=True, eq=False)
class Finding:
    """Explanation of one image by one network, as `foveate.TrainedNetwork.explain` returns it."""

    name: str
    """Name of the image's file."""
    image: Image.Image
    network: str
    """Name of the network."""
    source: str
    """Source of the weights."""
    classes: Sequence[str]
    """Names of the classes."""
    explanation: Explanation
    """Explanation with all layers."""
    records: Sequence[AttentionRecord]
    """Records of the layers that are shown."""
    placement: Placement
    """Where the image ended up in the network's input."""
    label: str | None = None
    """True class of the image, where it is known."""
    answer: Answer | None = None
    """What the network says of the image, where it is no classifier."""
    query: tuple[int, int] | None = None
    """Row and column of the pixel of the image that was asked for."""
    box: Box | None = None
    """Box in pixels of the image that was asked for."""
    unlike: Sequence[str] = ()
    """Features in which the image plainly differs from the training images, see `NetworkMeta.unlike`."""

    @property
    def logits(self) -> Tensor | None:
        """``(1, classes)``, on the CPU."""
        return self.explanation.logits

    @property
    def warning(self) -> str:
        """Warning that the image plainly is not what the network was made for; else empty."""
        return f"unlike what it was trained on, in {' and '.join(self.unlike)}" if self.unlike else ""

    @property
    def cropped(self) -> bool:
        """Whether the network did not see half a pixel or more at an edge of the image."""
        height, width = self.placement.input_size
        left, top, right, bottom = self.placement.to_image([[0, 0], [width, height]]).reshape(4).tolist()
        return left > 0.5 or top > 0.5 or right < self.image.width - 0.5 or bottom < self.image.height - 0.5

    def verdict(self, number: int = 1) -> str:
        """Describe the prediction, the most probable class first, and whether it is right."""
        if self.answer is not None:
            return self.answer.verdict(number, self.query)
        guesses = [(self.classes[label], probability) for label, probability in self.explanation.top(number)[0]]
        verdict = "predicted " + ", ".join(f"{class_name(name)} ({probability:.1%})" for name, probability in guesses)
        if self.label is None:
            return verdict
        return f"{verdict}, {'right' if guesses[0][0] == self.label else f'wrong: it is {class_name(self.label)}'}"

    def picture(self) -> Image.Image:
        """Draw the image and what each of the `records` attended to, with the prediction and a legend."""
        return image_sheet(self)

    def save(self, path: str | Path) -> None:
        """Write `picture` as a PNG file atomically; a file that this library has not written is not replaced."""
        write_png(check_png(path), self.picture(), title=f"{self.name}, {self.network}")
