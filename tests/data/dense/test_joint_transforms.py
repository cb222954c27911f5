from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from foveate.data import TransformConfig, make_loader, make_transform, placement
from foveate.data.dense import VOID, Objects, check_joint
from foveate.data.dense.joint import AugmentedJoint, Evaluation, Training
from foveate.data.seeding import seed_generators

HEIGHT, WIDTH = 53, 37
SIZE = (41, 47)
BOXES = [(0, 0, 11, 7), (3, 20, 14, 50), (20, 5, 37, 31), (30, 40, 37, 53), (17, 17, 19, 19)]
PLAIN = TransformConfig(
    img_size=SIZE,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    scale=(0.5, 2.0),
    ratio=(0.8, 1.25),
    vflip=0.5,
    color_jitter=0.0,
    crop_pct=1.0,
    interpolation="nearest",
    fit="pad",
)


def marked() -> Image.Image:
    """Return an image whose pixels say where they are: x in red, y in green; blue is full, unlike padding."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return Image.fromarray(np.stack([x, y, np.full_like(x, 255)], 2).astype(np.uint8))


def pattern(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (7 * x + 13 * y) % 19


def sources(tensor: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x and y in the image of each pixel of a tensor made of `marked`, and which are of the image at all."""
    x, y, blue = (tensor * 255).round().int().numpy()
    return x, y, blue == 255


def objects(masks: bool = True) -> Objects:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    found = Objects.of(BOXES, list(range(len(BOXES))), ignored=[False, True, False, True, False])
    inside = [(x >= a) & (x < c) & (y >= b) & (y < d) for a, b, c, d in BOXES]
    return Objects(found.boxes, found.labels, found.ignored, torch.tensor(np.stack(inside)) if masks else None)


CONFIGS = [PLAIN, PLAIN.replace(crop="none"), PLAIN.replace(fit="crop", scale=(0.4, 1.0))]


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS, ids=["jittered", "placed", "covering"])
def test_masks_and_boxes_move_with_their_image(config: TransformConfig):
    transform, image = Training(config), marked()
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    mask = pattern(x, y).astype(np.uint8)
    layouts = set()
    for number in range(200):
        seed_generators(number)
        tensor, moved = transform(image, mask)
        seed_generators(number)
        again, target = transform(image, objects())
        assert torch.equal(again, tensor)
        assert tensor.shape == (3, *SIZE)
        assert (moved.dtype, moved.shape) == (torch.int64, SIZE)
        x, y, shown = sources(tensor)
        np.testing.assert_array_equal(moved.numpy(), np.where(shown, pattern(x, y), VOID))
        assert (tensor[:, ~shown] == 0).all()
        check_objects(target, x, y, shown)
        layouts.add(tensor.numpy().tobytes())
    assert len(layouts) == (4 if config.crop == "none" else 200)


def check_objects(target: dict[str, torch.Tensor], x: np.ndarray, y: np.ndarray, shown: np.ndarray) -> None:
    """Compare the objects of a tensor with what its pixels say about where they are."""
    boxes, labels = target["boxes"].numpy(), target["labels"].tolist()
    assert target["boxes"].dtype == torch.float32
    assert target["masks"].dtype == torch.uint8
    assert target["ignored"].tolist() == [bool(label % 2) for label in labels]
    assert (boxes >= 0).all()
    assert (boxes <= np.array([SIZE[1], SIZE[0]] * 2)).all()
    for label, (x_min, y_min, x_max, y_max) in enumerate(BOXES):
        inside = shown & (x >= x_min) & (x < x_max) & (y >= y_min) & (y < y_max)
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        if not inside.any():
            assert label not in labels
            continue
        kept = [x[inside].max() - x[inside].min() + 1, y[inside].max() - y[inside].min() + 1]
        sides = [x_max - x_min, y_max - y_min]
        if label not in labels:
            share = (kept[0] - 1) * (kept[1] - 1) / np.prod(sides)
            assert share < 0.1 or min(len(rows), len(columns)) <= 1
            continue
        assert (kept[0] + 1) * (kept[1] + 1) / np.prod(sides) >= 0.1
        at = labels.index(label)
        np.testing.assert_array_equal(target["masks"][at].numpy(), inside)
        extent = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_allclose(boxes[at], extent, atol=0.5001)  # a pixel is the box's if its center is


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("size", [(41, 47), (60, 23), (37, 37), (106, 74), (5, 90)])
def test_evaluation_prepares_images_as_prediction_does(fit: str, interpolation: str, size: tuple[int, int]):
    config = TransformConfig(img_size=size, fit=fit, crop_pct=1.0, interpolation=interpolation)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    tensor, target = Evaluation(config)(image, objects(masks=False))
    assert torch.equal(tensor, make_transform(config, training=False)(image))
    place = placement(config, (HEIGHT, WIDTH))
    for box, label in zip(target["boxes"].numpy(), target["labels"].tolist(), strict=True):
        np.testing.assert_allclose(box, place.box_to_input(BOXES[label]), atol=1e-4)
    assert fit == "crop" or len(target["labels"]) == len(BOXES)  # however small they have become
    assert set(target) == {"boxes", "labels", "ignored"} | ({"extent"} if fit == "pad" else set())
    if fit == "pad":
        right, bottom = place.box_to_input((0, 0, WIDTH, HEIGHT))[2:]
        np.testing.assert_allclose(target["extent"].numpy(), [right, bottom], atol=1e-4)


def test_colors_change_but_padding_and_target_do_not():
    image, mask = marked(), np.zeros((HEIGHT, WIDTH), np.uint8)
    config = PLAIN.replace(crop="none", hflip=0.0, vflip=0.0, mean=(0.5, 0.4, 0.3))
    still, expected = Training(config)(image, mask)
    seen = []
    for number in range(5):
        seed_generators(number)
        tensor, moved = Training(config.replace(color_jitter=0.5))(image, mask)
        assert torch.equal(moved, expected)
        assert (tensor[:, moved == VOID] == 0).all()
        assert (tensor != still)[:, moved != VOID].float().mean() > 0.3
        seen.append(tensor)
    assert not torch.equal(seen[0], seen[1])


def test_an_image_without_objects():
    for transform in (Training(PLAIN), Evaluation(PLAIN)):
        target = transform(marked(), Objects(*(part[:0] for part in vars(objects()).values())))[1]
        target.pop("extent", None)
        assert {name: tuple(part.shape) for name, part in target.items()} == {
            "boxes": (0, 4),
            "labels": (0,),
            "ignored": (0,),
            "masks": (0, *SIZE),
        }


def test_augmentation_of_a_users_own():
    def mirrored(image: Image.Image, target: np.ndarray) -> tuple[Image.Image, np.ndarray]:
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), np.ascontiguousarray(target[:, ::-1])

    mask = np.random.default_rng(0).integers(0, 9, (HEIGHT, WIDTH), dtype=np.uint8)
    found = AugmentedJoint(mirrored, PLAIN)(marked(), mask)
    expected = Evaluation(PLAIN)(*mirrored(marked(), mask))
    assert all(map(torch.equal, found, expected))


def test_an_augmentation_that_leaves_less_than_a_pixel_of_an_object():
    small = Objects.of([(1.0, 1.0, 1.4, 9.0), (2.0, 2.0, 20.0, 20.0)], [0, 1])
    kept = [transform(marked(), small)[1]["labels"].tolist() for transform in (Evaluation(PLAIN), Training(PLAIN))]
    own = AugmentedJoint(lambda image, target: (image, target), PLAIN)(marked(), small)[1]["labels"].tolist()
    assert (kept[0], own) == ([0, 1], [1])


@pytest.mark.parametrize(
    "augment",
    [
        lambda image, target: image,
        lambda image, target: (np.asarray(image), target),
        lambda image, target: (image, None),
        lambda image, target: (image, target[1:]),
        lambda image, target: (image, target.astype(np.int64)),
        lambda image, target: (image.resize((9, 9)), target),
        lambda image, target: (image, objects()),
    ],
)
def test_augmentation_that_returns_something_else(augment: object):
    with pytest.raises(ValueError, match="augment"):
        AugmentedJoint(augment, PLAIN)(marked(), np.zeros((HEIGHT, WIDTH), np.uint8))


def test_augmentation_must_be_callable():
    with pytest.raises(ValueError, match="augment"):
        AugmentedJoint("flip", PLAIN)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"auto_augment": "rand-m9"}, "auto_augment"),
        ({"random_erasing": 0.25}, "random_erasing"),
        ({"fit": "crop", "crop_pct": 0.9, "scale": (0.5, 1.0)}, "crop_pct"),
        ({"crop": "padded"}, "crop"),
    ],
)
def test_options_for_class_labels_are_refused(change: dict, name: str):
    with pytest.raises(ValueError, match=name):
        check_joint(PLAIN.replace(**change))
    check_joint(PLAIN)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"boxes": torch.zeros(2, 5)}, "boxes"),
        ({"boxes": torch.zeros(3, 4)}, "boxes"),
        ({"boxes": torch.zeros(2, 4, dtype=torch.float64)}, "boxes"),
        ({"labels": torch.zeros(2)}, "labels"),
        ({"ignored": torch.zeros(2, dtype=torch.uint8)}, "ignored"),
        ({"masks": torch.zeros(2, 5, 7)}, "masks"),
        ({"masks": torch.zeros(3, 5, 7, dtype=torch.bool)}, "masks"),
        ({"boxes": [[0, 0, 1, 1]] * 2}, "boxes"),
    ],
)
def test_objects_of_wrong_types(change: dict, name: str):
    right = Objects.of([(0, 0, 3, 5), (1, 2, 3, 4)], [0, 1])
    with pytest.raises(ValueError, match=name):
        Objects(**{**vars(right), **change})


def test_an_image_too_narrow_to_be_resized_is_not_read():
    mask = np.zeros((1, 50_000), np.uint8)
    images = [(Image.new("RGB", (50_000, 1)), mask)] * 2
    config = TransformConfig(img_size=64, fit="crop", crop_pct=1.0, scale=(0.5, 1.0), ratio=(1.0, 1.0))
    for transform in (Training(config), Evaluation(config), AugmentedJoint(lambda *both: both, config)):
        loader = make_loader(images, transform=transform, batch_size=1, training=True, max_bad_images=2)
        assert list(loader) == []
        assert [bad.path for bad in loader.bad_images] == ["image number 0", "image number 1"]
