"""Detection: average precision against pycocotools and a plain loop."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from foveate.tasks import Detection
from foveate.tasks.average_precision import THRESHOLDS, ap_statistic, average_precision, match

CLASSES = ["red", "white", "platelet", "never"]
Images = list[tuple[dict[str, Tensor], dict[str, Tensor]]]


def boxes(random: np.random.Generator, number: int) -> np.ndarray:
    corner, size = random.uniform(0, 60, (number, 2)), random.uniform(5, 40, (number, 2))
    return np.concatenate([corner, corner + size], axis=1).round(2)


def case(seed: int, images: int = 5) -> Images:
    """Return detections and objects: some objects found nearly, some not, some twice; one image has neither."""
    random = np.random.default_rng(seed)
    found = []
    for image in range(images):
        objects = int(random.integers(0, 7)) if image else 0
        wanted, labels = boxes(random, objects), random.integers(0, 3, objects)
        near = wanted + random.normal(0, 2, wanted.shape)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        extra = boxes(random, int(random.integers(0, 4)) if image else 0)
        detected = np.concatenate([near, near[::2] + 0.5, extra])
        guessed = np.concatenate([labels, labels[::2], random.integers(0, 3, len(extra))])
        wrong = random.random(len(guessed)) < 0.15
        guessed = np.where(wrong, random.integers(0, 3, len(guessed)), guessed)
        scores = random.random(len(guessed)).round(2)  # some are equal
        found.append(
            (
                {
                    "boxes": torch.tensor(detected, dtype=torch.float32).reshape(-1, 4),
                    "labels": torch.tensor(guessed, dtype=torch.long),
                    "scores": torch.tensor(scores, dtype=torch.float32),
                },
                {
                    "boxes": torch.tensor(wanted, dtype=torch.float32).reshape(-1, 4),
                    "labels": torch.tensor(labels, dtype=torch.long),
                    "ignored": torch.tensor(random.random(objects) < 0.15),
                },
            )
        )
    return found


def coco(images: Images) -> np.ndarray:
    """Return pycocotools' precisions ``(thresholds, recalls, classes)`` over all images; -1 for absent classes."""
    wanted: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for index, (detections, target) in enumerate(images, start=1):
        for into, one in ((wanted, target), (found, detections)):
            for k, (x0, y0, x1, y1) in enumerate(one["boxes"].tolist()):
                entry = {"id": len(into) + 1, "image_id": index, "category_id": int(one["labels"][k])}
                entry |= {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
                entry |= {"iscrowd": int(one["ignored"][k])} if "ignored" in one else {"iscrowd": 0}
                entry |= {"score": one["scores"][k].item()} if "scores" in one else {}
                into.append(entry)
    sets = []
    for listed in (wanted, found):
        data = COCO()
        data.dataset = {
            "images": [{"id": k + 1} for k in range(len(images))],
            "categories": [{"id": k} for k in range(len(CLASSES))],
            "annotations": listed,
        }
        data.createIndex()
        sets.append(data)
    evaluation = COCOeval(*sets, "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval["precision"][:, :, :, 0, -1]


def loop_ap(images: Images, label: int, threshold: float) -> float | None:
    """Return the average precision of a class without ignored objects, by its definition."""
    total = sum(int((target["labels"] == label).sum()) for _, target in images)
    if not total:
        return None
    detections = [
        (score, image, k)
        for image, (found, _) in enumerate(images)
        for k, (score, own) in enumerate(zip(found["scores"].tolist(), found["labels"].tolist(), strict=True))
        if own == label
    ]
    taken: set[tuple[int, int]] = set()
    points, right = [], 0
    for number, (_, image, k) in enumerate(sorted(detections, key=lambda one: -one[0]), start=1):
        found, target = images[image]
        best, chosen = threshold, None
        for j, own in enumerate(target["labels"].tolist()):
            overlap = iou(found["boxes"][k].tolist(), target["boxes"][j].tolist())
            if own == label and (image, j) not in taken and overlap >= best:
                best, chosen = overlap, j
        if chosen is not None:
            taken.add((image, chosen))
            right += 1
        points.append((right / total, right / number))
    return (
        sum(
            max((precision for recall, precision in points if recall >= wanted), default=0.0)
            for wanted in np.linspace(0, 1, 101)
        )
        / 101
    )


def iou(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


@pytest.fixture(autouse=True)
def quiet() -> Any:
    with contextlib.redirect_stdout(io.StringIO()):
        yield


@pytest.mark.parametrize("seed", range(50))
def test_average_precision_is_that_of_pycocotools(seed: int) -> None:
    images = case(seed)
    precision = coco(images)
    found = average_precision([match(*image, len(CLASSES)) for image in images])
    present = precision[0, 0] > -1
    assert found.mean == pytest.approx(precision[:, :, present].mean(), abs=1e-6)
    assert found.at_50 == pytest.approx(precision[0][:, present].mean(), abs=1e-6)
    expected = [precision[:, :, k].mean() if present[k] else None for k in range(len(CLASSES))]
    assert found.per_class == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(50))
def test_average_precision_is_that_of_a_plain_loop(seed: int) -> None:
    images = case(seed)
    for detections, target in images:
        del target["ignored"]
        detections["scores"] += torch.arange(len(detections["scores"])) * 1e-4  # of equal ones the order is open
    distinct = torch.cat([detections["scores"] for detections, _ in images])
    distinct = distinct + torch.rand(len(distinct), generator=torch.Generator().manual_seed(seed)) * 1e-3
    for (detections, _), scores in zip(images, distinct.split([len(one["scores"]) for one, _ in images]), strict=True):
        detections["scores"] = scores
    found = average_precision([match(*image, len(CLASSES)) for image in images])
    values = {k: [loop_ap(images, k, t) for t in THRESHOLDS] for k in range(len(CLASSES))}
    expected = [None if row[0] is None else float(np.mean(row)) for row in values.values()]  # type: ignore[arg-type]
    assert found.per_class == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_the_task_agrees_with_torchmetrics_and_keeps_each_image(seed: int) -> None:
    images = case(seed)
    task = Detection(CLASSES)
    metrics = task.metrics()
    for found, target in images:
        metrics.update([found], [target])
    detections, targets = [found for found, _ in images], [target for _, target in images]
    result = task.evaluate(*task.reduce(detections, targets))
    values = metrics.compute()
    assert (result.map, result.map50) == pytest.approx((values["map"], values["map50"]), abs=1e-6)
    assert result.detections == sum(len(one["scores"]) for one in detections) / len(images)
    chosen = [0, 2, 2, 4]
    expected = coco([images[k] for k in chosen])
    weights = np.array([[chosen.count(k) for k in range(5)]], float)
    present = expected[0, 0] > -1
    assert ap_statistic(result.scores)(weights)[0] == pytest.approx(expected[:, :, present].mean(), abs=1e-6)
    assert task.difference([result.scores], [result.scores]).mean == 0
    score = task.score([result.scores])
    assert score.mean == pytest.approx(result.map)
    assert score.low <= score.mean <= score.high


def test_a_hundred_detections_of_each_class_count() -> None:
    """As COCO has it: of 160 perfect boxes in an image, 80 of each class, none is left out."""
    corners = torch.arange(160.0)[:, None] * 3
    boxes = torch.cat([corners, corners, corners + 2, corners + 2], 1)
    labels = torch.arange(160) % 2
    found, wanted = {"boxes": boxes, "labels": labels, "scores": torch.linspace(1, 0.5, 160)}, {"boxes": boxes}
    task = Detection(["a", "b"])
    result = task.evaluate(*task.reduce([found], [{**wanted, "labels": labels}]))
    metrics = task.metrics()
    metrics.update([found], [{**wanted, "labels": labels}])
    assert result.map == pytest.approx(1)
    assert metrics.compute()["map"] == pytest.approx(1)
    assert result.detections == 160


def test_what_is_found_in_the_padding_does_not_count() -> None:
    target = {"boxes": torch.tensor([[10.0, 20.0, 30.0, 48.0]]), "labels": torch.tensor([0])}
    padded = {**target, "extent": torch.tensor([64.0, 48.0])}
    boxes = torch.tensor([[10.0, 20.0, 30.0, 64.0], [1.0, 50.0, 9.0, 60.0], [40.0, 2.0, 80.0, 9.0]])
    found = {"boxes": boxes, "labels": torch.tensor([0, 0, 1]), "scores": torch.tensor([0.9, 0.95, 0.8])}
    task, results = Detection(["a", "b"]), []
    for one in (target, padded):
        result, metrics = task.evaluate(*task.reduce([found], [one])), task.metrics()
        metrics.update([found], [one])
        assert metrics.compute()["map"] == pytest.approx(result.map, abs=1e-6)
        results.append(result)
    assert [result.map for result in results] == pytest.approx([0.15, 1])  # a half at three of ten thresholds
    assert [result.detections for result in results] == [3, 2]
    _, (moved,) = task.resize(torch.zeros(1, 3, 64, 64), [padded], (32, 16))
    assert moved["extent"].tolist() == [16, 24]
