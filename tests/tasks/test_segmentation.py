"""Segmentation: loss, records, mean IoU and accuracy against plain loops and torchmetrics."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.functional.classification import multiclass_jaccard_index

from foveate.data import from_loaders
from foveate.data.dense import VOID, open_detection, open_segmentation
from foveate.tasks import Detection, Segmentation
from foveate.tasks.segmentation import iou_statistic

CLASSES = ["sky", "road", "tree", "car", "never"]


def case(seed: int, images: int = 3, height: int = 5, width: int = 7) -> tuple[Tensor, Tensor]:
    """Return random logits and masks with void pixels; of some cases one image is void, of all a class is missing."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, len(CLASSES), height, width, generator=generator)
    logits[:, 4] -= 100
    masks = torch.randint(0, 4, (images, height, width), generator=generator)
    masks[torch.rand(masks.shape, generator=generator) < 0.2] = VOID
    if seed % 5 == 0:
        masks[1] = VOID
    return logits, masks


def loop_iou(logits: Tensor, masks: Tensor) -> tuple[float, float]:
    """Return mean IoU and pixel accuracy, pixel by pixel."""
    both, either = [0] * len(CLASSES), [0] * len(CLASSES)
    right = counted = 0
    for image, mask in zip(logits.argmax(1).tolist(), masks.tolist(), strict=True):
        for row, wanted_row in zip(image, mask, strict=True):
            for label, wanted in zip(row, wanted_row, strict=True):
                if wanted == VOID:
                    continue
                counted += 1
                right += label == wanted
                for index in range(len(CLASSES)):
                    both[index] += label == index and wanted == index
                    either[index] += label == index or wanted == index
    ratios = [b / e for b, e in zip(both, either, strict=True) if e]
    return sum(ratios) / len(ratios), right / counted


@pytest.mark.parametrize("seed", range(50))
def test_mean_iou_and_accuracy(seed: int) -> None:
    logits, masks = case(seed)
    task = Segmentation(CLASSES)
    result = task.evaluate(*task.reduce(logits, masks))
    mean_iou, accuracy = loop_iou(logits, masks)
    assert result.mean_iou == pytest.approx(mean_iou, abs=1e-12)
    assert result.pixel_accuracy == pytest.approx(accuracy, abs=1e-12)
    expected = multiclass_jaccard_index(logits.argmax(1), masks, len(CLASSES), ignore_index=VOID)
    assert result.mean_iou == pytest.approx(expected.item(), abs=1e-6)
    assert result.per_class[4] is None
    metrics = task.metrics()
    for one in range(len(logits)):
        metrics.update(logits[one : one + 1], masks[one : one + 1])
    found = metrics.compute()
    assert (found["mean_iou"], found["pixel_accuracy"]) == pytest.approx((mean_iou, accuracy), abs=1e-6)
    assert found["loss"] == pytest.approx(result.loss, rel=1e-5)


def test_the_loss_weighs_images_alike_and_its_gradient_is_that_of_parts() -> None:
    logits, masks = case(5)
    task = Segmentation(CLASSES, dice=0.7)
    logits.requires_grad_(True)
    cross_entropies = []
    for image, mask in zip(logits, masks, strict=True):
        values = [
            math.log(sum(math.exp(value) for value in image[:, y, x].tolist())) - image[mask[y, x], y, x].item()
            for y in range(5)
            for x in range(7)
            if mask[y, x] != VOID
        ]
        cross_entropies.append(sum(values) / len(values) if values else 0.0)
    assert Segmentation(CLASSES).loss(logits, masks).item() == pytest.approx(sum(cross_entropies) / 3, rel=1e-5)
    whole = torch.autograd.grad(task.loss(logits, masks), logits)[0]
    parts = [
        torch.autograd.grad(task.loss(logits[one : one + 1], masks[one : one + 1]) / 3, logits, retain_graph=True)[0]
        for one in range(3)
    ]
    assert whole.any()
    torch.testing.assert_close(torch.stack(parts).sum(0), whole)


def test_dice_of_one_image_is_its_formula() -> None:
    logits, masks = case(7, images=1)
    dice = (Segmentation(CLASSES, dice=1.0).loss(logits, masks) - Segmentation(CLASSES).loss(logits, masks)).item()
    valid = masks[0] != VOID
    probabilities = logits[0].softmax(0)[:, valid].double()
    terms = []
    for index in range(len(CLASSES)):
        wanted = (masks[0][valid] == index).double()
        both, total = (probabilities[index] * wanted).sum(), probabilities[index].sum() + wanted.sum()
        terms.append((1 - 2 * both / total).item() if wanted.any() else 0.0)
    assert dice == pytest.approx(float(np.mean(terms)), abs=1e-5)


def test_images_are_resampled_whole() -> None:
    logits, masks = case(3, images=4)
    task = Segmentation(CLASSES)
    records = task.evaluate(*task.reduce(logits, masks)).scores
    twice = torch.tensor([0, 0, 2, 3])
    expected = loop_iou(logits[twice], masks[twice])[0]
    assert iou_statistic(records)(np.array([[2.0, 0.0, 1.0, 1.0]]))[0] == pytest.approx(expected, abs=1e-12)
    score, difference = task.score([records, records]), task.difference([records], [records[::-1]])
    assert score.mean == pytest.approx(loop_iou(logits, masks)[0])
    assert score.low <= score.mean <= score.high
    assert difference.mean == pytest.approx(0, abs=1e-12)


def test_settings_of_other_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match="dice"):
        Segmentation(CLASSES, dice=-1.0)
    settings = SimpleNamespace(detector="fasterrcnn", mixup=0.2, cutmix=0.0, label_smoothing=0.0)
    defaults = type("Settings", (), {"detector": "fasterrcnn", "mixup": 0.0, "cutmix": 0.0, "label_smoothing": 0.0})
    given = defaults()
    vars(given).update(vars(settings))
    with pytest.raises(ValueError, match="mixup"):
        Segmentation.check_settings(given)


def test_masks_that_are_no_integers_or_of_too_many_classes_are_refused() -> None:
    kwargs = {"mean": [0.5] * 3, "std": [0.5] * 3}
    floats = DataLoader([(torch.zeros(3, 8, 8), torch.zeros(8, 8))] * 2)
    with pytest.raises(ValueError, match="integers"):
        Segmentation.check_data(from_loaders(floats, floats, classes=["a", "b"], **kwargs))
    batches = DataLoader([(torch.zeros(3, 8, 8), torch.zeros(8, 8, dtype=torch.long))] * 2)
    fitting = from_loaders(batches, batches, classes=list(map(str, range(255))), fit="squash", **kwargs)
    Segmentation.check_data(fitting)
    assert fitting.transform.fit == "squash"
    with pytest.raises(ValueError, match="256 classes"):
        Segmentation.check_data(from_loaders(batches, batches, classes=list(map(str, range(256))), **kwargs))


def test_data_of_another_task_are_refused() -> None:
    masks, objects = open_segmentation("digits"), open_detection("digits")
    for task, data, other in ((Segmentation, masks, objects), (Detection, objects, masks)):
        task.check_data(data)
        with pytest.raises(ValueError, match=task.name):
            task.check_data(other)


def test_loaders_of_images_that_were_cropped_are_refused() -> None:
    batches = DataLoader([(torch.zeros(3, 8, 8), torch.zeros(8, 8, dtype=torch.long))] * 2)
    data = from_loaders(batches, batches, classes=["a", "b"], mean=[0.5] * 3, std=[0.5] * 3, crop_pct=0.9)
    with pytest.raises(ValueError, match=r"crop_pct=0\.9"):
        Segmentation.check_data(data)
