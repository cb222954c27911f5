"""Mean average precision from a record per image, made by pycocotools, that can be weighted and resampled."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from foveate import _extras

__all__ = ["MAX_DETECTIONS", "RECALLS", "THRESHOLDS", "AveragePrecision", "ap_statistic", "average_precision", "match"]

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""Least intersection over union of a match; the mean over them is COCO's."""
RECALLS = np.linspace(0, 1, 101)
"""Recalls at which the precision is read."""
MAX_DETECTIONS = 100
"""Detections of an image that count, those with the highest scores."""

AT_ONCE = 1 << 21
"""Detections times resamples that are computed at a time."""

Record = tuple[Sequence[Sequence[float]], Sequence[int]]
"""Of an image: a row ``(class, score, matched, left out)`` for each detection, the last two with a bit for each of
`THRESHOLDS`; and how many objects of each class there are."""


class AveragePrecision(NamedTuple):
    """Average precision as COCO defines it, fractions in [0, 1]."""

    mean: float
    """Over the classes and the ten thresholds."""
    at_50: float
    """Over the classes, at an intersection over union of 0.5."""
    per_class: list[float | None]
    """Over the thresholds; None for a class without objects."""


_SILENCED = threading.Lock()
"""Held while what pycocotools prints is thrown away, which is done for the whole process."""


def match(detections: Mapping[str, Tensor], target: Mapping[str, Tensor], num_classes: int) -> Record:
    """Match the detections of one image with its objects by pycocotools, and return the image's record.

    Args:
        detections: ``boxes`` ``(n, 4)``, ``labels`` and ``scores`` ``(n,)``.
        target: ``boxes``, ``labels`` and, if there are any, ``ignored``: objects that detections may be matched with,
            and then count for nothing.
        num_classes: Number of classes.
    """
    _extras.require("pycocotools", extra="dense")
    from pycocotools.cocoeval import COCOeval

    with _SILENCED, contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(*_as_coco(detections, target, num_classes), "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.evaluate()
    rows: list[list[float]] = []
    counts = [0] * num_classes
    bits = 1 << np.arange(len(THRESHOLDS))
    for found in filter(None, evaluation.evalImgs):
        label = found["category_id"]
        counts[label] = int(np.sum(np.asarray(found["gtIgnore"]) == 0))
        matched, left_out = found["dtMatches"] > 0, found["dtIgnore"] > 0
        for index, score in enumerate(found["dtScores"]):
            rows.append([label, score, int(bits[matched[:, index]].sum()), int(bits[left_out[:, index]].sum())])
    return rows, counts


def average_precision(records: Sequence[Record]) -> AveragePrecision:
    """Return the `AveragePrecision` over images with these records."""
    (table,) = _Statistic(records)(np.ones((1, len(records))))  # thresholds, classes
    present = ~np.isnan(table[0])
    if not present.any():
        return AveragePrecision(0.0, 0.0, [None] * table.shape[1])
    per_class = [float(value) if there else None for value, there in zip(table.mean(0), present, strict=True)]
    return AveragePrecision(float(table[:, present].mean()), float(table[0, present].mean()), per_class)


def ap_statistic(records: Sequence[Record]) -> Any:
    """Return the mean average precision as a `foveate.stats.Statistic`."""
    statistic = _Statistic(records)

    def mean(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        parts = np.array_split(weights, max(1, len(weights) * statistic.largest // AT_ONCE))
        tables = (table for part in parts for table in statistic(part))
        return np.asarray([0.0 if np.isnan(table).all() else float(np.nanmean(table)) for table in tables])

    return mean


class _Statistic:
    """Average precisions of weighted images: `COCOeval.accumulate`, with each image as often as its weight says.

    The precision falls with every detection that is wrong, and recall rises with one that is right alone: the highest
    precision from a recall on is that of a right one, so that the others, nearly all, need only be counted.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self.counts = np.asarray([counts for _, counts in records], np.float64)  # images, classes
        rows = np.asarray([[image, *row] for image, (rows, _) in enumerate(records) for row in rows], np.float64)
        rows = rows.reshape(-1, 5)
        bits = 1 << np.arange(len(THRESHOLDS))[:, None]
        self.classes = []
        for label in range(self.counts.shape[1]):
            own = rows[rows[:, 1] == label]
            own = own[np.argsort(-own[:, 2], kind="stable")]
            matched, left_out = ((own[:, which].astype(int) & bits) > 0 for which in (3, 4))
            right = [np.flatnonzero(row) for row in matched & ~left_out]
            self.classes.append((own[:, 0].astype(int), right, left_out if left_out.any() else None))
        self.largest = max((len(images) for images, _, _ in self.classes), default=0)

    def __call__(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return tables ``(rows of weights, thresholds, classes)``; NaN for classes without objects."""
        tables = np.zeros((len(weights), len(THRESHOLDS), len(self.classes)))
        objects = weights @ self.counts
        for label, (images, rights, left_out) in enumerate(self.classes):
            weight = weights[:, images]
            found = np.cumsum(weight, axis=1) if left_out is None else None
            number = np.maximum(objects[:, label, None], np.spacing(1))
            for threshold, places in enumerate(rights):
                if not len(places):
                    continue
                if left_out is not None:
                    found = np.cumsum(weight * ~left_out[threshold], axis=1)
                assert found is not None
                right = np.cumsum(weight[:, places], axis=1)
                precision = right / np.maximum(found[:, places], np.spacing(1))
                envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
                for table, recall, best in zip(tables, right / number, envelope, strict=True):
                    at = np.searchsorted(recall, RECALLS, side="left")
                    table[threshold, label] = best[at[at < len(places)]].sum() / len(RECALLS)
            tables[objects[:, label] == 0, :, label] = np.nan
        return tables


def _as_coco(detections: Mapping[str, Tensor], target: Mapping[str, Tensor], num_classes: int) -> tuple[Any, Any]:
    """Return both as data sets of pycocotools with one image."""
    from pycocotools.coco import COCO

    ignored = target["ignored"].tolist() if "ignored" in target else [False] * len(target["labels"])
    # Numbered from 1: pycocotools takes 0 for no match.
    objects = [
        {"id": k, "image_id": 1, "category_id": label, "bbox": _xywh(box), "area": _area(box), "iscrowd": int(ignore)}
        for k, (box, label, ignore) in enumerate(
            zip(target["boxes"].tolist(), target["labels"].tolist(), ignored, strict=True), start=1
        )
    ]
    found = [
        {"id": k, "image_id": 1, "category_id": label, "bbox": _xywh(box), "area": _area(box), "score": score}
        for k, (box, label, score) in enumerate(
            zip(
                detections["boxes"].tolist(), detections["labels"].tolist(), detections["scores"].tolist(), strict=True
            ),
            start=1,
        )
    ]
    sets = []
    for listed in (objects, [{**one, "iscrowd": 0} for one in found]):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": 1}],
            "categories": [{"id": label} for label in range(num_classes)],
            "annotations": listed,
        }
        coco.createIndex()
        sets.append(coco)
    return sets[0], sets[1]


def _xywh(box: Sequence[float]) -> list[float]:
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def _area(box: Sequence[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
