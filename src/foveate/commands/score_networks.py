"""Trained networks, and whether they fit the images that they are to be used on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from foveate.data import ImageData, TransformConfig
from foveate.io import NetworkMeta, load_network
from foveate.models.building import check_classifier

__all__ = ["Trained", "load_trained"]


@dataclass(frozen=True, eq=False)
class Trained:
    """A network as its checkpoint describes it."""

    checkpoint: str
    model: nn.Module
    meta: NetworkMeta

    @property
    def img_size(self) -> int | tuple[int, int]:
        """Height and width of the images that it was trained on; one number if they are equal."""
        height, width = self.meta.img_size
        return height if height == width else (height, width)

    def transform(self, data: ImageData) -> TransformConfig:
        """Return how ``data`` is prepared for this network: at the size of ``data``, else as in training."""
        names = ("mean", "std", "crop_pct", "interpolation")
        return data.transform.replace(**{name: getattr(self.meta, name) for name in names})

    def check_fits(self, data: ImageData) -> None:
        """Raise a `ValueError` unless the network knows the classes of ``data`` and takes images of its size."""
        if list(data.classes) != list(self.meta.classes):
            raise ValueError(
                f"{self.checkpoint} was trained for {_listing(self.meta.classes)}; "
                f"{data.name} has {_listing(data.classes)}"
            )
        check_classifier(self.meta.model, self.model, num_classes=data.num_classes, img_size=data.image_size)


def load_trained(checkpoint: str) -> Trained:
    """Load the network that a checkpoint holds; see `load_network` for what it may be and what is raised."""
    return Trained(checkpoint, *load_network(checkpoint))


def _listing(classes: Sequence[str]) -> str:
    names = list(classes)
    return f"{len(names)} classes ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
