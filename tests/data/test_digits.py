from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageOps
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from torch.utils.data import DataLoader

from foveate.data import ClutteredDigits, make_transform, open_data
from foveate.data.drawing import SPLITS, Handwriting, _turn
from foveate.data.splitting import stratified_split

SPLIT_NAMES = ("train", "val", "test")


def pixels(dataset: ClutteredDigits, index: int) -> np.ndarray:
    return np.asarray(dataset[index][0])


def test_a_sample_depends_on_seed_split_and_index_only():
    dataset = ClutteredDigits("train", seed=3, length=40)
    again = ClutteredDigits("train", seed=3, length=400, cache=False)
    backwards = {i: pixels(again, i) for i in reversed(range(40))}
    for i in range(40):
        np.testing.assert_array_equal(pixels(dataset, i), backwards[i])
        np.testing.assert_array_equal(pixels(dataset, i), backwards[i])  # now from the cache
        assert dataset[i][1] == again[i][1]
        assert dataset.boxes(i) == again.boxes(i)
    others = [ClutteredDigits("train", seed=4), ClutteredDigits("val", seed=3)]
    assert all(not np.array_equal(pixels(other, i), backwards[i]) for other in others for i in range(40))
    assert len({backwards[i].tobytes() for i in range(40)}) == 40


def test_a_pickled_data_set_gives_the_same_samples():
    dataset = ClutteredDigits("test", seed=1, size=31, clutter=3, length=20)
    copy = pickle.loads(pickle.dumps(dataset))
    assert len(pickle.dumps(dataset)) < 1000  # the handwriting and the cache stay at home
    for i in range(20):
        np.testing.assert_array_equal(pixels(copy, i), pixels(dataset, i))


def test_forked_workers_give_the_same_samples_and_fill_the_cache():
    dataset = ClutteredDigits("val", length=24, transform=np.asarray)
    fresh = ClutteredDigits("val", length=24, cache=False)
    loader = DataLoader(dataset, num_workers=2, batch_size=5, multiprocessing_context="fork")
    drawn = np.concatenate([images.numpy() for images, _ in loader])
    np.testing.assert_array_equal(drawn, [pixels(fresh, i) for i in range(24)])
    dataset.clutter = 0  # what is cached is not drawn again
    np.testing.assert_array_equal(drawn, [dataset[i][0] for i in range(24)])


@pytest.mark.slow
def test_splits_share_no_handwriting_and_hold_the_same_mixture():
    tiles = {name: [tile.tobytes() for tile in Handwriting.of(name, 48).tiles] for name in SPLIT_NAMES}
    assert sum(map(len, tiles.values())) == 1797
    assert len(set().union(*tiles.values())) == 1797
    for name, share in SPLITS.items():
        for members, total in zip(Handwriting.of(name, 48).by_class, np.bincount(load_digits().target), strict=True):
            assert abs(len(members) - share * total) <= 1


@pytest.mark.slow
def test_classes_are_balanced_and_labels_say_what_is_drawn():
    dataset = ClutteredDigits("test", clutter=0, size=64, length=400)
    samples = [dataset.sample(i) for i in range(400)]
    assert set(Counter(sample.label for sample in samples).values()) == {40}
    # A nearest neighbour that has seen only training digits, cropped to their ink as ours are.
    source = load_digits()
    train, _, _ = stratified_split(source.target, list(SPLITS.values()))

    def features(image: Image.Image) -> np.ndarray:
        return np.asarray(image.convert("L").resize((12, 12), Image.Resampling.BOX)).ravel().astype(float)

    def crops(i: int) -> list[Image.Image]:
        upright = Image.fromarray((source.images[i] * 15).astype(np.uint8))
        turned = [upright.rotate(angle, Image.Resampling.BILINEAR) for angle in (-20, 0, 20)]
        return [image.crop(image.getbbox()) for image in turned]

    known = KNeighborsClassifier(1).fit(
        [features(crop) for i in train for crop in crops(i)], np.repeat(source.target[train], 3)
    )
    found = known.predict([features(sample.image.crop(sample.box)) for sample in samples])
    assert np.mean(found == [sample.label for sample in samples]) > 0.85


@pytest.mark.slow
@pytest.mark.parametrize(("size", "clutter"), [(48, 8), (31, 5), (97, 20)])
def test_the_box_is_the_digit_inside_the_canvas(size: int, clutter: int):
    dataset = ClutteredDigits("test", size=size, clutter=clutter, seed=7)
    alone = ClutteredDigits("test", size=size, clutter=0, seed=7)
    clear = 0
    for i in range(150):
        x_min, y_min, x_max, y_max = box = dataset.boxes(i)
        ink = alone[i][0].convert("L").point(lambda value: 255 * (value >= 64))
        assert ink.getbbox() == box == dataset.sample(i).box  # Pillow's own tight box of the digit alone
        assert 0 <= x_min < x_max <= size
        assert 0 <= y_min < y_max <= size
        assert 0.2 * size <= y_max - y_min <= 0.7 * size
        inside = np.s_[y_min:y_max, x_min:x_max]
        clear += np.array_equal(pixels(dataset, i)[inside], pixels(alone, i)[inside])
        assert (pixels(dataset, i) >= pixels(alone, i)).all()
    assert clear >= 0.95 * 150  # fragments keep away from the digit


@pytest.mark.parametrize("unit", [16, 32])
def test_on_a_larger_canvas_digits_are_as_large_as_their_unit_says(unit: int):
    small, large = (ClutteredDigits("test", size=size, unit=unit, clutter=0, seed=3) for size in (unit, 3 * unit + 1))
    corners = []
    for i in range(60):
        assert large.digit(i).height == small.digit(i).height  # and their place is drawn over the whole canvas
        box, usual = np.array(large.boxes(i)), np.array(small.boxes(i))
        np.testing.assert_allclose(box[2:] - box[:2], usual[2:] - usual[:2], atol=2)
        corners.append(box)
    assert np.min(corners) <= unit / 4
    assert np.max(corners) >= 2.75 * unit
    usual = ClutteredDigits("test", size=unit, seed=3)
    for i in range(20):
        np.testing.assert_array_equal(
            pixels(ClutteredDigits("test", size=unit, unit=unit, seed=3), i), pixels(usual, i)
        )


@pytest.mark.parametrize("unit", [15, 33, 20.0])
def test_a_unit_is_at_most_the_canvas(unit):
    with pytest.raises(ValueError, match="unit"):
        ClutteredDigits(size=32, unit=unit)


def test_places_sizes_and_boxes_vary_over_the_whole_canvas():
    boxes = np.array([ClutteredDigits("train", length=400, size=48).boxes(i) for i in range(400)])
    assert boxes.min() <= 2
    assert boxes.max() >= 46
    heights = boxes[:, 3] - boxes[:, 1]
    assert heights.min() <= 16
    assert heights.max() >= 24


def test_clutter_is_ink_elsewhere():
    def ink(clutter: int) -> float:
        dataset = ClutteredDigits("train", clutter=clutter, cache=False)
        return np.mean([pixels(dataset, i).mean() for i in range(50)])

    amounts = [ink(clutter) for clutter in (0, 4, 8, 16)]
    assert amounts == sorted(amounts)
    assert amounts[2] > 2 * amounts[0]  # the default has more ink in the clutter than in the digit


@pytest.mark.parametrize("angle", [-0.5, 0.0, 0.3, 2.0])
def test_turning_agrees_with_geometry(angle: float):
    # An even rectangle: its moments say where it is, how large, and how it is turned.
    tile, scale, centre = ImageOps.expand(Image.new("L", (40, 18), 255), 3), 0.83, (37.3, 30.6)
    drawn = _turn(tile, centre, scale, angle, 71)
    canvas = np.zeros((71, 71))
    canvas[drawn.y : drawn.y + drawn.pixels.shape[0], drawn.x : drawn.x + drawn.pixels.shape[1]] = drawn.pixels / 255
    y, x = np.mgrid[:71, :71] + 0.5
    assert canvas.sum() == pytest.approx(40 * 18 * scale**2, rel=0.03)
    mean = np.array([(canvas * x).sum(), (canvas * y).sum()]) / canvas.sum()
    np.testing.assert_allclose(mean, centre, atol=0.1)
    offsets = np.stack([x - mean[0], y - mean[1]]).reshape(2, -1)
    spread, axes = np.linalg.eigh((canvas.ravel() * offsets) @ offsets.T / canvas.sum())
    np.testing.assert_allclose(np.sqrt(12 * spread), [18 * scale, 40 * scale], rtol=0.03)
    assert abs(axes[:, 1] @ [np.cos(angle), np.sin(angle)]) == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_statistics_for_normalisation_are_those_of_the_images():
    data = open_data("digits")
    transform = make_transform(data.transform, training=True)
    values = np.stack([transform(data.train[i][0]) for i in range(500)])
    assert values.shape == (500, 3, 32, 32)
    assert abs(values.mean()) < 0.05
    assert values.std() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "training"}, "split must be one of train, val, test; got 'training'; did you mean 'train'"),
        ({"size": 15}, "size must be at least 16; got 15"),
        ({"size": 48.0}, "size must be an integer"),
        ({"clutter": -1}, "clutter must be at least 0; got -1"),
        ({"length": 0}, "length must be at least 1; got 0"),
        ({"seed": -5}, "seed must be at least 0; got -5"),
    ],
)
def test_bad_arguments(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        ClutteredDigits(**arguments)


def test_an_index_outside_is_refused():
    dataset = ClutteredDigits("val", length=7)
    for index in (7, -1):
        with pytest.raises(IndexError, match=f"from 0 to 6; got {index}"):
            dataset[index]
        with pytest.raises(IndexError):
            dataset.boxes(index)
    assert len(list(dataset)) == 7


def test_parts_of_classes_are_those_of_a_plain_loop():
    labels = np.random.default_rng(0).integers(0, 7, 101)
    generator, wanted = np.random.default_rng(3), [[], []]
    for label in sorted(set(labels.tolist())):
        members = generator.permutation([i for i, other in enumerate(labels) if other == label])
        cut = round(0.7 * len(members))
        for part, piece in zip(wanted, (members[:cut], members[cut:]), strict=True):
            part += piece.tolist()
    assert [part.tolist() for part in stratified_split(labels, (0.7, 0.3), seed=3)] == [*map(sorted, wanted)]


def test_large_canvases_are_drawn_anew(monkeypatch: pytest.MonkeyPatch):
    kept = ClutteredDigits("val", size=16, length=3)
    monkeypatch.setattr("foveate.data.digits.MOST_KEPT", 3 * 16 * 16 - 1)
    drawn = ClutteredDigits("val", size=16, length=3)
    assert drawn._cache.size == 0
    for index in (2, 2, 0):
        assert drawn[index][0].tobytes() == kept[index][0].tobytes()
