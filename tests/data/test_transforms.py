from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from foveate.data import TransformConfig, make_transform, open_data
from foveate.data.seeding import seed_generators

PLAIN = TransformConfig(
    img_size=(12, 20), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), crop="none", hflip=0, color_jitter=0, crop_pct=1.0
)


def picture(height: int, width: int) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def pixels(image: Image.Image) -> torch.Tensor:
    return torch.tensor(np.asarray(image)).permute(2, 0, 1) / 255


def test_an_image_of_the_right_size_is_only_normalised():
    config = PLAIN.replace(mean=(0.1, 0.5, 0.9), std=(0.2, 0.5, 2.0))
    image = picture(12, 20)
    expected = (pixels(image) - torch.tensor(config.mean).view(3, 1, 1)) / torch.tensor(config.std).view(3, 1, 1)
    for training in (True, False):
        torch.testing.assert_close(make_transform(config, training=training)(image), expected)


@pytest.mark.parametrize("training", [True, False])
def test_resize_and_centre_crop(training: bool):
    config = PLAIN.replace(img_size=(12, 12), crop_pct=0.5, interpolation="bilinear")
    image = picture(48, 30)
    resized = image.resize((24, 38), Image.Resampling.BILINEAR)
    top, left = 13, 6
    expected = pixels(resized.crop((left, top, left + 12, top + 12)))
    torch.testing.assert_close(make_transform(config, training=training)(image), expected)


def test_padded_crops_are_shifts_of_the_image():
    config = PLAIN.replace(crop="padded", img_size=(16, 24), hflip=0.5)
    image = picture(16, 24)
    padded = ImageOps.expand(image, (3, 2))
    allowed = {
        (mirror, x, y): pixels(view(padded.crop((x, y, x + 24, y + 16))))
        for mirror, view in {False: lambda i: i, True: ImageOps.mirror}.items()
        for x in range(7)
        for y in range(5)
    }
    seen = set()
    for number in range(200):
        seed_generators(number)
        result = make_transform(config, training=True)(image)
        matches = [place for place, expected in allowed.items() if torch.equal(result, expected)]
        assert len(matches) == 1
        seen.update(matches)
    assert len(seen) > 50
    torch.testing.assert_close(make_transform(config, training=False)(image), pixels(image))


def test_options_reach_timm():
    image = picture(40, 40)
    plain = make_transform(PLAIN.replace(img_size=(40, 40)), training=True)(image)

    def changed(**options: object) -> torch.Tensor:
        seed_generators(5)
        return make_transform(PLAIN.replace(img_size=(40, 40), **options), training=True)(image)

    torch.testing.assert_close(changed(hflip=1.0), plain.flip(2))
    torch.testing.assert_close(changed(vflip=1.0), plain.flip(1))
    erased = changed(random_erasing=1.0)
    assert 0.01 < (erased != plain).float().mean() < 0.5
    assert (changed(color_jitter=0.5) != plain).float().mean() > 0.5
    assert (changed(auto_augment="augmix-m5-w2") != plain).any()
    assert (changed(crop="resized", scale=(0.1, 0.2)) != plain).any()
    assert changed(crop="resized", scale=(0.1, 0.2)).shape == plain.shape


@pytest.mark.parametrize(
    "policy", ["rand-m10-inc1", "rand-m0", "rand-m9-mstd101-inc1", "original", "3a", "augmix-m10-w3"]
)
def test_policies_work_at_every_magnitude(policy: str):
    # timm posterises to 0 bits at magnitude 10, which Pillow refuses; a run would end at a random step.
    transform = make_transform(PLAIN.replace(auto_augment=policy), training=True)
    image = picture(12, 20)
    for number in range(150):
        seed_generators(number)
        result = transform(image)
        assert torch.isfinite(result).all()


def test_sizes_decide_what_is_usual():
    assert TransformConfig.suited_to(64) == TransformConfig(
        img_size=(64, 64), crop="padded", color_jitter=0.0, crop_pct=1.0
    )
    assert TransformConfig.suited_to((65, 40)) == TransformConfig(img_size=(65, 40))
    assert TransformConfig.suited_to(224, flip=False).hflip == 0


def test_replacing_by_none_keeps_what_is_there(photo_folder: Path):
    config = open_data(photo_folder).transform
    assert config.replace(hflip=None, auto_augment=None, scale=None) == config
    assert config.replace(hflip=0.0, img_size=30).hflip == 0
    assert config.replace(img_size=30).img_size == (30, 30)
    assert config.replace(mean=list(config.mean), scale=list(config.scale)) == config  # YAML knows no tuples


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop": "random"}, "crop must be one of resized, padded, none; got 'random'"),
        ({"interpolation": "bicubik"}, "did you mean 'bicubic'"),
        ({"hflip": 1.5}, "hflip must be a finite number at least 0 and at most 1; got 1.5"),
        ({"random_erasing": -0.1}, "random_erasing must be"),
        ({"color_jitter": float("nan")}, "color_jitter must be a finite number"),
        ({"crop_pct": 0.0}, "crop_pct must be"),
        ({"scale": (0.5, 0.2)}, r"scale must be \(low, high\) with 0 < low <= high and at most 1; got \(0.5, 0.2\)"),
        ({"scale": (0.5, 1.2)}, "scale must be"),
        ({"ratio": (0.0, 2.0)}, r"ratio must be \(low, high\) with 0 < low <= high; got"),
        ({"mean": (0.5,)}, r"mean must be three finite numbers; got \(0.5,\)"),
        ({"std": (1.0, 0.0, 1.0)}, "std must be three finite numbers above 0; got"),
        ({"mean": 0.5}, "mean must be three finite numbers; got 0.5"),
        ({"ratio": (0.5, float("nan"))}, "ratio must be"),
        ({"img_size": 0}, "img_size must be at least 1; got 0"),
        (
            {"auto_augment": "randaug"},
            "auto_augment 'randaug' is not one of timm's policies; give for example 'rand-m9",
        ),
        ({"auto_augment": "rand-x9"}, "auto_augment 'rand-x9' is not one of timm's policies"),
        ({"auto_augment": "superb"}, "auto_augment 'superb' is not one of timm's policies"),
    ],
)
def test_bad_settings(change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        PLAIN.replace(**change)
