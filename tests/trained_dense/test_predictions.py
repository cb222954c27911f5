"""What trained segmentation networks and detectors say of an image, against what is written out by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import foveate
from foveate.data.dense import open_segmentation
from foveate.trained import Detected, Detections, Segmented, TrainedDetector, TrainedNetwork, TrainedSegmenter
from foveate.trained.segmenter import resized_rows

SEEN = (10, 16)
"""Height and width of `photo` in an input of 16×16."""


def by_hand(trained: TrainedNetwork, image: Image.Image) -> Tensor:
    """Prepare an image by Pillow and NumPy: resized in proportion, normalized, zeros right and below."""
    small = np.asarray(image.resize(SEEN[::-1], Image.Resampling.BILINEAR), np.float32) / 255
    normalized = (small - np.array(trained.meta.mean, np.float32)) / np.array(trained.meta.std, np.float32)
    padded = np.zeros((16, 16, 3), np.float32)
    padded[: SEEN[0], : SEEN[1]] = normalized
    return torch.from_numpy(padded.transpose(2, 0, 1))[None]


def interpolated(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Interpolate maps ``(C, h, w)`` linearly between the middles of their pixels, in float64."""
    for axis, length in ((1, size[0]), (2, size[1])):
        own = maps.shape[axis]
        places = (np.arange(length) + 0.5) * own / length - 0.5
        maps = np.apply_along_axis(
            lambda line, places=places, own=own: np.interp(places, np.arange(own), line), axis, maps
        )
    return maps


def test_the_classes_of_the_pixels_are_those_of_the_logits(segmenter: TrainedSegmenter, photo: Image.Image) -> None:
    with torch.no_grad():
        logits = segmenter.network(by_hand(segmenter, photo))[0, :, : SEEN[0], : SEEN[1]].double().numpy()
    wide = interpolated(logits, (23, 37))
    likely = np.exp(wide - wide.max(0))
    likely /= likely.sum(0)
    found = segmenter.predict(photo)
    assert isinstance(found, Segmented)
    assert found.labels.dtype == np.uint8
    assert np.abs(found.probabilities - likely.max(0)).max() < 1e-5
    first, second = np.sort(likely, axis=0)[::-1][:2]
    clear = first - second > 1e-5
    assert clear.mean() > 0.99
    assert np.array_equal(found.labels[clear], likely.argmax(0)[clear])
    assert found.shares == {name: (found.labels == k).mean() for k, name in enumerate(segmenter.classes)}
    name, probability = found.at((4, 31))
    assert (name, probability) == (segmenter.classes[found.labels[4, 31]], found.probabilities[4, 31])
    with pytest.raises(ValueError, match="query"):
        found.at((23, 0))


def test_a_network_that_learned_from_squashed_images_sees_them_so(
    segmenter: TrainedSegmenter, photo: Image.Image
) -> None:
    squashing = dataclasses.replace(segmenter, meta=dataclasses.replace(segmenter.meta, fit="squash"))
    square = photo.resize((16, 16), Image.Resampling.BILINEAR)
    with torch.no_grad():
        logits = segmenter.network(segmenter.prepare(square))[0].double().numpy()
    likely = np.exp(interpolated(logits, (23, 37)))
    likely /= likely.sum(0)
    assert np.abs(squashing.predict(photo).probabilities - likely.max(0)).max() < 1e-5
    assert np.abs(segmenter.predict(photo).probabilities - likely.max(0)).max() > 1e-3
    data = open_segmentation("digits", options={"length": 8, "val_length": 4, "test_length": 4})
    assert (squashing.transform_of(data).fit, segmenter.transform_of(data).fit) == ("squash", "pad")
    wide = dataclasses.replace(data, transform=data.transform.replace(img_size=(16, 32)))
    found = [trained.evaluate(wide).loss for trained in (squashing, segmenter)]
    assert found[0] != found[1]


@pytest.mark.parametrize("size", [(23, 37), (5, 3), (10, 16), (1, 1)])
def test_maps_are_resized_in_strips_as_in_one_piece(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    maps = torch.randn(3, *SEEN, dtype=torch.float64)
    monkeypatch.setattr("foveate.trained.segmenter.AT_ONCE", 4 * 3 * size[1])
    strips = list(resized_rows(maps, size))
    assert [len(strip[0]) for strip in strips][:-1] == [4] * (len(strips) - 1)
    whole = F.interpolate(maps[None], size, mode="bilinear")[0]
    assert (torch.cat(strips, 1) - whole).abs().max() < 1e-12


def test_several_images_are_predicted_one_by_one(
    segmenter: TrainedSegmenter, detector: TrainedDetector, photo: Image.Image
) -> None:
    others = [photo, photo.transpose(Image.Transpose.ROTATE_90), photo.resize((16, 16))]
    several = segmenter.predict(others, batch_size=2)
    assert [one.labels.shape for one in several] == [(23, 37), (37, 23), (16, 16)]
    for image, one in zip(others, several, strict=True):
        assert np.allclose(one.probabilities, segmenter.predict(image).probabilities, atol=1e-5)
    lists = detector.predict(others, threshold=0, batch_size=2)
    for image, found in zip(others, lists, strict=True):
        alone = detector.predict(image, threshold=0)
        assert np.allclose([one.score for one in found], [one.score for one in alone], atol=1e-5)


def test_boxes_are_in_pixels_of_the_image(detector: TrainedDetector, photo: Image.Image) -> None:
    with torch.no_grad():
        (wanted,) = detector.network(by_hand(detector, photo))
    scale = torch.tensor([37 / SEEN[1], 23 / SEEN[0]] * 2)
    boxes = torch.minimum(wanted["boxes"] * scale, torch.tensor([37.0, 23.0] * 2))
    kept = (boxes[:, 2:] > boxes[:, :2]).all(1)  # not in the padding alone
    found = detector.predict(photo, threshold=0)
    assert isinstance(found, Detections)
    assert 0 < len(found) == int(kept.sum())
    assert np.allclose([one.box for one in found], boxes[kept].numpy(), atol=1e-3)
    assert [one.label for one in found] == wanted["labels"][kept].tolist()
    scores = [one.score for one in found]
    assert scores == sorted(scores, reverse=True)
    assert [one.name for one in found] == [detector.classes[one.label] for one in found]
    middle = (scores[0] + scores[-1]) / 2
    assert [one.score for one in detector.predict(photo, threshold=middle)] == [s for s in scores if s >= middle]
    with pytest.raises(ValueError, match="threshold"):
        detector.predict(photo, threshold=1.5)


def test_masks_of_objects_are_in_pixels_of_the_image(detector: TrainedDetector, photo: Image.Image) -> None:
    """Two boxes and masks as Mask R-CNN gives them; one box lies in the padding."""
    likely = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    output = {
        "boxes": torch.tensor([[0.0, 11.0, 8.0, 15.0], [2.0, 3.0, 8.0, 14.0]]),
        "labels": torch.tensor([1, 4]),
        "scores": torch.tensor([0.9, 0.8]),
        "masks": likely,
    }
    (found,) = detector.answer(photo, [output])
    assert (found.label, found.score) == (4, pytest.approx(0.8))
    assert found.box == pytest.approx((2 * 37 / 16, 3 * 2.3, 8 * 37 / 16, 23))
    wide = interpolated(likely[1, :, :10].double().numpy(), (23, 37))[0]
    clear = abs(wide - 0.5) > 1e-6
    assert np.array_equal(found.mask[clear], wide[clear] >= 0.5)


def test_the_same_network_comes_back_from_a_folder(
    segmenter: TrainedSegmenter, photo: Image.Image, tmp_path: Path
) -> None:
    segmenter.save(tmp_path / "copy")
    copy = foveate.load(tmp_path / "copy")
    assert np.array_equal(copy.predict(photo).probabilities, segmenter.predict(photo).probabilities)


def test_masks_are_written_index_by_index(segmenter: TrainedSegmenter, photo: Image.Image, tmp_path: Path) -> None:
    found = segmenter.predict(photo)
    for _ in range(2):  # its own file is replaced
        found.save(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as mask:
        assert mask.mode == "P"
        assert np.array_equal(np.asarray(mask), found.labels)
        assert mask.getpalette()[: 4 * 3] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]  # those of Pascal VOC
    photo.save(tmp_path / "photo.png")
    for name in ("photo.png", "mask.jpg"):
        with pytest.raises(ValueError, match=name):
            found.save(tmp_path / name)


def test_pictures_have_the_colors_of_the_classes(photo: Image.Image) -> None:
    gray = Image.new("RGB", (37, 23), (100, 100, 100))
    labels = np.zeros((23, 37), np.uint8)
    labels[5:11, 7:20] = 2
    picture = np.asarray(Segmented(gray, labels, np.ones((23, 37), np.float32), ["a", "b", "c"]).drawn(74))
    assert picture.shape == (46, 74, 3)
    assert (np.abs(picture[12:20, 16:38] - np.array([40, 40 + 0.6 * 128, 40])) <= 1).all()  # green over gray
    assert (np.abs(picture[:8].astype(float) - 40) <= 1).all()
    boxes = Detections([Detected((10, 6, 30, 20), 0, "a", 0.5)], gray, ["a"])
    drawn = np.asarray(boxes.drawn(370))
    assert drawn.shape == (230, 370, 3)
    assert (np.abs(drawn[140, 99] - np.array((191.0, 127.0, 127.0))) <= 1).all()  # on the left edge
    assert (drawn[160, 200] == 100).all()  # inside
    assert (drawn[20, 20] == 100).all()


def test_what_cannot_be_predicted_is_named(segmenter: TrainedSegmenter, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    for image in (tmp_path / "none.png", tmp_path / "text.png"):
        with pytest.raises((ValueError, OSError), match=image.name):
            segmenter.predict(image)
    with pytest.raises(ValueError, match="batch_size"):
        segmenter.predict([], batch_size=0)
