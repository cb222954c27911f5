from __future__ import annotations

import numpy as np
import pytest

from foveate.data import open_data
from foveate.data.dense import open_detection, open_segmentation
from foveate.data.drawing import INK

OPTIONS = {"size": 43, "length": 30, "val_length": 20, "test_length": 10}


def test_masks_are_the_ink_of_the_digit():
    alone = open_data("digits", options={**OPTIONS, "clutter": 0})
    cluttered = open_segmentation("digits", options={**OPTIONS, "clutter": 5})
    assert cluttered.classes == ("background", *"0123456789")
    assert cluttered.image_size == (43, 43)
    for split in ("train", "val", "test"):
        assert cluttered.length(split) == alone.length(split)
        for index in range(alone.length(split)):
            image, mask = cluttered.split(split)[index]
            whole, label = alone.split(split)[index]  # the same digit without fragments
            ink = np.asarray(whole)[..., 0] >= INK
            np.testing.assert_array_equal(mask, ink * (label + 1))
            assert (np.asarray(image)[ink][:, 0] >= INK).all()
    assert (np.asarray(image)[mask == 0][:, 0] >= INK).any()  # fragments are background


def test_objects_are_the_boxes_and_the_ink_of_the_digit():
    masks = open_segmentation("digits", options=OPTIONS)
    data = open_detection("digits", options=OPTIONS)
    assert data.classes == tuple("0123456789")
    for index in range(10):
        image, found = data.val[index]
        same, mask = masks.val[index]
        assert image.tobytes() == same.tobytes()
        rows, columns = np.nonzero(mask)
        assert found.boxes.tolist() == [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]
        assert found.labels.tolist() == [index]
        np.testing.assert_array_equal(found.masks.numpy(), mask[None] > 0)


@pytest.mark.slow
def test_size_and_seed_reach_the_canvas():
    data = open_detection("digits", img_size=51, options={"length": 5})
    assert data.image_size == (51, 51)
    boxes = [open_detection("digits", seed=seed).train[3][1].boxes.tolist() for seed in (0, 0, 1)]
    assert boxes[0] == boxes[1] != boxes[2]


@pytest.mark.parametrize("open_dense", [open_segmentation, open_detection])
def test_bad_arguments(open_dense: object):
    for arguments in ({"options": {"void": 3}}, {"img_size": (5, 50)}, {"intensity_range": (0, 5)}):
        with pytest.raises(ValueError, match="digits"):
            open_dense("digits", **arguments)


def test_random_crops_scale_digits_as_other_images_with_targets():
    for data in (open_segmentation("digits"), open_detection("digits")):
        assert (data.transform.scale, data.transform.ratio) == ((0.5, 2.0), (1.0, 1.0))
