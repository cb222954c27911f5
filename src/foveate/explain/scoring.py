"""Scores of the maps of a network, or of baseline maps, image by image."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from foveate.explain.baselines import baseline_maps
from foveate.explain.faithfulness import Fill, deletion, insertion
from foveate.explain.saliency import saliency
from foveate.explain.scores import (
    box_above,
    box_iou,
    component_iou,
    corners_box,
    energy_inside,
    max_box_acc,
    pointing_game,
)
from foveate.models.inspection import floating_dtype

if TYPE_CHECKING:
    from foveate.data import ImageLoader

__all__ = ["ORDERS", "Measured", "Measurement", "Values", "score_baseline", "score_network"]

IOUS = (0.3, 0.5, 0.7)
"""Overlaps at which MaxBoxAcc counts a box as found."""
OVERLAPS = "overlaps"
ORDERS = ("centre", "random")
"""Baselines of deletion and insertion; a uniform map would give the random order."""
INDEX, LABEL, BOX = 0, 1, slice(2, None)
"""Columns of the rows of `InputBoxes`: index of the image, its class, and the box."""

Values = dict[str, NDArray[np.float64]]
"""Values of each score by name, one per image, as `estimate` takes them."""


@dataclass(frozen=True)
class Measurement:
    """Settings of the scores."""

    method: str
    """Method of `saliency`."""
    thresholds: int
    """Number of thresholds of `component_iou`."""
    steps: int
    """Steps of `deletion` and `insertion`."""
    deletion_fill: Fill
    insertion_fill: Fill
    seed: int
    """Seed of random maps and orders."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Scores of the maps of a network on each image."""

    module: str
    """Name of the module whose map is scored."""
    kind: str
    """Its class."""
    truth: NDArray[np.float64]
    """The rows of `InputBoxes`."""
    scores: Values
    """Values for `estimate`."""
    thresholds: dict[str, float]
    """Threshold of each MaxBoxAcc, from 0 at the minimum of a map to 1 at its maximum."""
    areas: Values
    """Areas under the curves, on the images of ``faithful``: ``deletion map``, ``deletion centre``, …"""
    bad_images: list[str]


def score_network(
    model: nn.Module,
    loader: ImageLoader,
    how: Measurement,
    *,
    faithful: Collection[int],
    device: torch.device,
    title: str,
) -> Measured:
    """Score the maps of a network that is on ``device``.

    ``loader`` gives images with rows of `InputBoxes` in place of labels; ``faithful`` are the indices of the images on
    which deletion and insertion are measured as well; ``title`` is that of the progress bar in a terminal.
    """
    module, kind = "", ""
    truth, scores, areas = [], [], []
    for images, labels in tqdm(loader, desc=title, unit="batch", disable=None, leave=False):
        images, rows = images.to(device, floating_dtype(model)), labels.numpy()
        seen = saliency(model, images, name=module or None, method=how.method)
        module, kind = seen.name, seen.kind
        truth.append(rows)
        correct = seen.predicted.numpy() == rows[:, LABEL]
        scores.append({"top1": correct, **_score_maps(seen.map.numpy(), rows[:, BOX], how.thresholds)})
        if seen.rectangle is not None:
            size = (images.shape[2], images.shape[3])
            scores[-1]["rectangle_iou"] = box_iou(corners_box(seen.rectangle, size), rows[:, BOX], size)
        some = np.flatnonzero(np.isin(rows[:, INDEX], list(faithful)))
        if len(some):
            areas.append(_areas(model, images[some], seen.map[some], _indices(rows[some]), how))
    if not truth:
        raise ValueError("none of the images can be read")
    bad = [str(image) for image in loader.bad_images]
    joined, thresholds = _with_best_thresholds(_joined(scores))
    return Measured(module, kind, np.concatenate(truth), joined, thresholds, _joined(areas), bad)


def score_baseline(kind: str, truth: NDArray[np.float64], size: tuple[int, int], how: Measurement) -> Values:
    """Score the maps of `baseline_maps` on the images of ``truth``, rows of `InputBoxes`, as `score_network` does."""
    parts = np.array_split(truth, -(-len(truth) // 64))
    scores = [
        _score_maps(baseline_maps(kind, _indices(part), size, seed=how.seed), part[:, BOX], how.thresholds)
        for part in parts
    ]
    return _with_best_thresholds(_joined(scores))[0]


def _score_maps(maps: NDArray[Any], boxes: NDArray[np.float64], thresholds: int) -> Values:
    """Return the scores of maps, and under ``OVERLAPS`` the IoUs from which MaxBoxAcc follows for all images."""
    return {
        "pointing": pointing_game(maps, boxes),
        "energy": energy_inside(maps, boxes),
        "iou": box_iou(box_above(maps), boxes, maps.shape[1:]),
        OVERLAPS: component_iou(maps, boxes, thresholds=thresholds),
    }


def _with_best_thresholds(scores: Values) -> tuple[Values, dict[str, float]]:
    """Replace the overlaps at all thresholds by MaxBoxAcc; return also the threshold of each."""
    overlaps = scores.pop(OVERLAPS)
    found = {f"max_box_acc_{iou:g}": max_box_acc(overlaps, iou) for iou in IOUS}
    thresholds = {name: best / overlaps.shape[1] for name, (_, best) in found.items()}
    return scores | {name: values for name, (values, _) in found.items()}, thresholds


def _areas(model: nn.Module, images: Tensor, maps: Tensor, indices: list[int], how: Measurement) -> Values:
    """Return the areas under the curves of deletion and insertion for the network's maps, and for other orders."""
    size = (images.shape[2], images.shape[3])
    orders = {"map": maps.numpy()} | {kind: baseline_maps(kind, indices, size, seed=how.seed) for kind in ORDERS}
    areas: Values = {}
    for order, ranking in orders.items():
        for game, fill in ((deletion, how.deletion_fill), (insertion, how.insertion_fill)):
            curves = game(model, images, ranking, steps=how.steps, fill=fill, seed=how.seed)
            areas[f"{game.__name__} {order}"] = curves.area
    return areas


def _indices(rows: NDArray[np.float64]) -> list[int]:
    return rows[:, INDEX].astype(int).tolist()


def _joined(parts: list[Values]) -> Values:
    return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}
