"""Scores of where networks for segmentation and detection look: how much of an object's attention stays inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Subset
from tqdm import tqdm

from foveate._devices import on_device
from foveate.data import make_loader, placement
from foveate.data.dense import VOID, DenseData
from foveate.data.dense.joint import Evaluation
from foveate.data.splitting import equally_spaced
from foveate.explain import AttentionRecord, attention_records, mass_inside
from foveate.models.inspection import floating_dtype
from foveate.trained.network import TrainedNetwork

__all__ = ["SCORES", "LayerScores", "RegionScores", "regions_of", "score_regions"]

SCORES = ("inside", "another", "area")
"""Mass inside of the object, that of the same region with the weights of another image, and of uniform attention."""
BACKGROUND = "background"
"""Name of the class of a segmentation that is no object."""


@dataclass(frozen=True, eq=False)
class LayerScores:
    """What the objects of each image attend to, in one attention module."""

    module: str
    """Its name in the network."""
    kind: str
    """Its class."""
    scores: dict[str, NDArray[np.float64]]
    """Values of `SCORES`, one per image: the mean over its objects; NaN where there is none, and of ``another`` in the
    first image."""


@dataclass(frozen=True, eq=False)
class RegionScores:
    """Scores of all attention modules of a network."""

    layers: list[LayerScores]
    images: int
    empty: int
    """Images without an object."""
    bad_images: list[str]


def score_regions(
    network: TrainedNetwork, data: DenseData, *, split: str, images: int | None, device: torch.device, workers: int
) -> RegionScores:
    """Score every attention module of a network on ``device``; it is on the one that it was on before and after.

    ``images`` of the split are looked at, at equal distances, or all of them. A `ValueError` says that none of them can
    be read.
    """
    loader = make_loader(
        Subset(data.split(split), equally_spaced(data.length(split), images)),
        transform=_WithExtent(network.transform_of(data)),
        batch_size=1,
        training=False,
        workers=workers,
        max_bad_images=data.max_bad_images,
    )
    names = [name.lower() for name in data.classes]
    background = names.index(BACKGROUND) if BACKGROUND in names else None
    dtype = floating_dtype(network.network)
    layers: dict[str, LayerScores] = {}
    values: dict[str, dict[str, list[float]]] = {}
    before: dict[str, AttentionRecord] = {}
    seen = empty = 0
    with on_device(network.network, device):
        for image, targets in tqdm(loader, desc=network.source, unit="image", disable=None, leave=False):
            height, width = image.shape[2:]
            spanned = network.seen_size((height, width))
            target = targets if isinstance(targets, Tensor) else targets[0]
            regions = regions_of(target, (height, width), background=background)
            image, extent = image[:, :-1], image[0, -1:]
            regions, extent = (F.pad(one, (0, spanned[1] - width, 0, spanned[0] - height)) for one in (regions, extent))
            seen, empty = seen + 1, empty + (not len(regions))
            last = {found.name: found for found in attention_records(network.network, image.to(device, dtype))}
            for record in last.values():  # of a module that is called several times, the last call
                other = before.get(record.name)
                masses = {
                    "inside": mass_inside(record, regions, view=extent[0]),
                    "another": regions.new_full((1,), torch.nan)
                    if other is None
                    else mass_inside(other, regions, view=extent[0]),
                    "area": regions.sum((1, 2)) / extent.sum(),
                }
                for name, mass in masses.items():
                    values.setdefault(record.name, {}).setdefault(name, []).append(
                        float(mass.mean()) if len(mass) else np.nan
                    )
                layers.setdefault(record.name, LayerScores(record.name, record.kind, {}))
                before[record.name] = record
    if not seen:
        raise ValueError("none of the images can be read")
    for name, layer in layers.items():
        layer.scores.update({score: np.array(one) for score, one in values[name].items()})
    return RegionScores(list(layers.values()), seen, empty, [str(bad) for bad in loader.bad_images])


class _WithExtent(Evaluation):
    """The transform of evaluation, with a fourth channel that is 1 where the image is, and 0 where it is padded."""

    def __call__(self, image: Image.Image, target: Any) -> tuple[Tensor, Any]:
        tensor, moved = super().__call__(image, target)
        size = (image.height, image.width)
        left, top, right, bottom = placement(self.config, size).extent(size)
        extent = torch.zeros(1, *tensor.shape[1:])
        extent[:, top:bottom, left:right] = 1
        return torch.cat([tensor, extent]), moved


def regions_of(target: Any, size: tuple[int, int], *, background: int | None = None) -> Tensor:
    """Return the regions ``(R, H, W)`` of an image: its objects, or of a mask the pixels of each class that occurs.

    An object is its mask where that is known, else its box. The class ``background``, ignored objects, void pixels and
    what has no area are none.
    """
    height, width = size
    if isinstance(target, Tensor):
        mask = target.reshape(height, width)
        labels = [label for label in mask.unique().tolist() if label not in (VOID, background)]
        regions = torch.stack([mask == label for label in labels]) if labels else torch.zeros(0, height, width)
        return regions.double()
    counted = ~target["ignored"]
    if "masks" in target:
        regions = target["masks"][counted].double()
    else:
        boxes = target["boxes"][counted].double()
        x, y = torch.arange(width, dtype=torch.double), torch.arange(height, dtype=torch.double)
        across, down = (
            (torch.minimum(boxes[:, high, None], at + 1) - torch.maximum(boxes[:, low, None], at)).clamp(0, 1)
            for at, low, high in ((x, 0, 2), (y, 1, 3))
        )
        regions = down[:, :, None] * across[:, None]
    return regions[regions.sum((1, 2)) > 0]
