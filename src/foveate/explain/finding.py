"""What one network made of one image: its prediction, where it looked, and both as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from torch import Tensor

from foveate.explain.explanation import Explanation
from foveate.explain.pictures import image_sheet, write_png
from foveate.explain.records import AttentionRecord

if TYPE_CHECKING:
    from foveate.data import Placement

__all__ = ["Finding"]


@dataclass(frozen=True, eq=False)
class Finding:
    """What one network made of one image, as `foveate.TrainedNetwork.explain` returns it."""

    name: str
    """Of the image's file."""
    image: Image.Image
    network: str
    """What the network is called."""
    source: str
    """Where its weights are from."""
    classes: Sequence[str]
    """Names of the classes."""
    explanation: Explanation
    """Of all layers."""
    records: Sequence[AttentionRecord]
    """Of the layers that are shown."""
    placement: Placement
    """Where the image ended up in the network's input."""
    label: str | None = None
    """The image's true class, where it is known."""
    unlike: Sequence[str] = ()
    """In what the image plainly differs from those of the network's training, see `NetworkMeta.unlike`."""

    @property
    def logits(self) -> Tensor | None:
        """``(1, classes)``, on the CPU, as the network gave them."""
        return self.explanation.logits

    @property
    def warning(self) -> str:
        """What has to be said where the image plainly is not what the network was made for; else nothing."""
        return f"unlike what it was trained on, in {' and '.join(self.unlike)}" if self.unlike else ""

    @property
    def cropped(self) -> bool:
        """Whether the network did not see all of the image, by half a pixel or more at an edge."""
        height, width = self.placement.input_size
        left, top, right, bottom = self.placement.to_image([[0, 0], [width, height]]).reshape(4).tolist()
        return left > 0.5 or top > 0.5 or right < self.image.width - 0.5 or bottom < self.image.height - 0.5

    def verdict(self, number: int = 1) -> str:
        """Say what the network takes the image for, the most probable first, and whether that is so."""
        guesses = [(self.classes[label], probability) for label, probability in self.explanation.top(number)[0]]
        verdict = "predicted " + ", ".join(f"{name} ({probability:.1%})" for name, probability in guesses)
        if self.label is None:
            return verdict
        return f"{verdict}, {'right' if guesses[0][0] == self.label else f'wrong: it is {self.label}'}"

    def picture(self) -> Image.Image:
        """Draw the image and what each of the `records` attended to, with the prediction and a legend."""
        return image_sheet(self)

    def save(self, path: str | Path) -> None:
        """Write `picture` as a PNG file, whole or not at all.

        Raises:
            ValueError: The name does not end in ``.png``, or there is a file that was not written by this library.
            OSError: The file cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() != ".png":
            raise ValueError(f"a picture is written as PNG; got {path}; give {path.with_suffix('.png')}")
        write_png(path, self.picture(), title=f"{self.name}, {self.network}")
