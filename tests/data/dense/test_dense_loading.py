from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.data.dense.made import write_masks, write_voc, xml

from foveate.data.dense import DenseData, open_detection, open_segmentation


@pytest.fixture(params=["masks", "boxes", "digits"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> DenseData:
    if request.param == "masks":
        return open_segmentation(write_masks(tmp_path, {"train": 13, "val": 5}), img_size=(24, 32))
    if request.param == "digits":
        return open_detection("digits", options={"size": 32, "length": 13, "val_length": 5, "test_length": 1})
    boxes = [("cat", (1 + i, 2, 9 + 2 * i, 11 + i)) for i in range(9)]
    train = {f"t{i}": xml(boxes[: i % 4]) for i in range(13)}
    root = write_voc(tmp_path, {"train": train, "val": {f"v{i}": xml(boxes[i : i + 2]) for i in range(5)}})
    return open_detection(root, img_size=(24, 32))


def plain(batch: tuple[torch.Tensor, Any]) -> list[Any]:
    """Return all numbers of a batch."""
    images, targets = batch
    if isinstance(targets, torch.Tensor):
        return [images.tolist(), targets.tolist()]
    return [images.tolist(), [{name: part.tolist() for name, part in target.items()} for target in targets]]


def epoch(loader: Any, number: int) -> list[Any]:
    loader.set_epoch(number)
    return [plain(batch) for batch in loader]


@pytest.mark.slow
def test_workers_and_other_draws_do_not_change_a_bit(data: DenseData):
    alone, helped = (data.loaders(batch_size=3, workers=workers, seed=5) for workers in (0, 2))
    first = epoch(alone.train, 0)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    assert first == epoch(helped.train, 0)
    assert epoch(alone.val, 0) == epoch(helped.val, 0)
    assert first != epoch(alone.train, 1)
    assert first != epoch(data.loaders(batch_size=3, seed=6).train, 0)
    assert first == epoch(alone.train, 0)


def test_an_epoch_is_resumed_where_it_was_left(data: DenseData):
    whole = epoch(data.loaders(batch_size=3, seed=2).train, 4)
    assert len(whole) == 4
    stopped = data.loaders(batch_size=3, seed=2).train
    stopped.set_epoch(4)
    iterator = iter(stopped)
    taken = [plain(next(iterator)) for _ in range(2)]
    resumed = data.loaders(batch_size=3, seed=2).train
    resumed.load_state_dict(stopped.state_dict())
    assert taken + epoch(resumed, 4) == whole


def test_batches_are_as_tasks_take_them(data: DenseData):
    height, width = data.image_size
    val = list(data.loaders(batch_size=2).val)
    assert [len(images) for images, _ in val] == [2, 2, 1]
    for images, targets in [*val, *data.loaders(batch_size=3).train]:
        assert (images.dtype, images.shape[1:]) == (torch.float32, (3, height, width))
        if isinstance(targets, torch.Tensor):
            assert (targets.dtype, targets.shape) == (torch.int64, (len(images), height, width))
            continue
        assert (type(targets), len(targets)) == (list, len(images))
        for target in targets:
            number, extent = len(target["labels"]), target.pop("extent", None)
            assert extent is None or (extent.dtype == torch.float32 and 0 < extent.min() <= extent.max() <= width)
            expected = {"boxes": torch.float32, "labels": torch.int64, "ignored": torch.bool, "masks": torch.uint8}
            assert {name: part.dtype for name, part in target.items()}.items() <= expected.items()
            assert {len(part) for part in target.values()} == {number}
            assert ((target["boxes"] >= 0) & (target["boxes"] <= torch.tensor([width, height] * 2))).all()


def test_processes_share_the_images(data: DenseData):
    together = epoch(data.loaders(batch_size=1).val, 0)
    shares = [epoch(data.loaders(batch_size=2, rank=rank, world_size=2).val, 0) for rank in (0, 1)]
    assert shares[0] + shares[1] == together
    with pytest.raises(ValueError, match="batch_size"):
        data.loaders(batch_size=3, world_size=2)


def test_options_for_class_labels_are_refused(data: DenseData):
    changed = DenseData(**{**vars(data), "transform": data.transform.replace(random_erasing=0.5)})
    with pytest.raises(ValueError, match="random_erasing"):
        changed.loaders(batch_size=2)


def test_an_augmentation_of_a_users_own_replaces_the_random_part(data: DenseData):
    calm = DenseData(**{**vars(data), "augment": lambda image, target: (image, target)})
    loader = calm.loaders(batch_size=1)
    assert sorted(map(str, epoch(loader.train, 0))) == sorted(map(str, epoch(loader.train, 1)))


def test_what_a_data_set_says_of_itself(data: DenseData):
    assert not data.has_boxes
    assert data.length("val") == len(data.val) == 5
    assert data.split("train") is data.train
    assert data.num_classes == len(data.classes)
    with pytest.raises(ValueError, match="split"):
        data.split("all")
