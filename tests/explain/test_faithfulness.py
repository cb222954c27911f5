"""Deletion and insertion against pixel-by-pixel loops, and a network that is left alone."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from foveate.explain import deletion, insertion
from foveate.explain.faithfulness import pixel_order, without_content

HEIGHT, WIDTH = 5, 7


class OnePixel(nn.Module):
    """Believes in class 1 as far as one pixel is bright."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bright = x[:, 0, 2, 3]
        return torch.stack([torch.zeros_like(bright), bright], dim=1)


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(90, 4)
    )
    model(3 * torch.randn(8, 3, HEIGHT, WIDTH))
    return model


@pytest.mark.parametrize("steps", [1, 4, 35])
@pytest.mark.parametrize("game", [deletion, insertion])
def test_the_curves_equal_a_loop(game, steps: int) -> None:  # type: ignore[no-untyped-def]
    model = network().double().eval()
    images = torch.randn(3, 3, HEIGHT, WIDTH, dtype=torch.float64)
    maps = np.random.default_rng(0).random((3, HEIGHT, WIDTH))  # no ties
    found = game(model, images, maps, steps=steps, fill="mean")
    for image, map_, curve, area in zip(images, maps, found.probabilities, found.area, strict=True):
        predicted = model(image[None]).argmax().item()
        order = sorted(((row, column) for row in range(HEIGHT) for column in range(WIDTH)), key=lambda at: -map_[at])
        expected = []
        for step in range(steps + 1):
            taken = order[: round(step * HEIGHT * WIDTH / steps)]
            seen = image.clone()
            for row in range(HEIGHT):
                for column in range(WIDTH):
                    if ((row, column) in taken) == (game is deletion):
                        seen[:, row, column] = image.mean((1, 2))
            expected.append(model(seen[None]).softmax(1)[0, predicted].item())
        np.testing.assert_allclose(curve, expected, rtol=1e-9)
        halves = [(before + after) / 2 for before, after in itertools.pairwise(expected)]
        assert area == pytest.approx(sum(halves) / steps)


def test_the_map_that_names_the_pixel_that_decides_wins() -> None:
    images = torch.zeros(1, 1, HEIGHT, WIDTH)
    images[:, :, 2, 3] = 5.0
    right = torch.zeros(1, HEIGHT, WIDTH)
    right[:, 2, 3] = 1
    sure, unsure = 1 / (1 + math.exp(-5)), 1 / (1 + math.exp(-5 / 35))  # the mean of the image is 5/35
    taken, brought = (game(OnePixel(), images, right, steps=35, fill="mean") for game in (deletion, insertion))
    np.testing.assert_allclose(taken.probabilities, [[sure] + 35 * [unsure]])
    np.testing.assert_allclose(brought.probabilities, [[unsure] + 35 * [sure]])
    wrong = 1 - right
    assert deletion(OnePixel(), images, wrong, steps=35).area > taken.area
    assert insertion(OnePixel(), images, wrong, steps=35).area < brought.area


def test_it_is_the_predicted_class_that_is_followed() -> None:
    images = torch.zeros(2, 1, HEIGHT, WIDTH)
    images[0, :, 2, 3], images[1, :, 2, 3] = 5.0, -5.0  # class 1, class 0
    found = deletion(OnePixel(), images, np.ones((2, HEIGHT, WIDTH)), steps=5)
    np.testing.assert_allclose(found.probabilities[0], found.probabilities[1])
    assert found.probabilities[0, 0] > 0.99


def test_equal_pixels_come_in_a_random_order() -> None:
    maps = np.zeros((2, HEIGHT, WIDTH))
    maps[:, 1:3, 2:5] = 0.25 + 1e-9 * np.arange(6).reshape(2, 3)  # one step, but for rounding
    maps[1, 4, 4] = 1
    order = pixel_order(maps, seed=3)
    bright = {row * WIDTH + column for row in (1, 2) for column in (2, 3, 4)}
    assert set(order[0, :6]) == bright
    assert order[1, 0] == 4 * WIDTH + 4
    assert set(order[1, 1:7]) == bright
    for line in order:
        assert sorted(line) == list(range(HEIGHT * WIDTH))
        assert list(line[7:]) != sorted(line[7:])
    np.testing.assert_array_equal(order[0, :6], order[1, 1:7])  # whichever images stand beside it
    np.testing.assert_array_equal(pixel_order(maps[:1], seed=3)[0], order[0])
    assert not np.array_equal(pixel_order(maps, seed=4), order)
    first = [pixel_order(np.zeros((1, HEIGHT, WIDTH)), seed=seed)[0, 0] for seed in range(400)]
    assert np.bincount(first, minlength=35).max() < 35  # about 11 each


@pytest.mark.parametrize("size", [(24, 17), (13, 64), (5, 7), (1, 4)])
def test_the_blur_is_a_gaussian(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    sigma = min(size) / 8
    radius = min(math.ceil(3 * sigma), min(size) - 1)
    expected = ndimage.gaussian_filter(
        images.numpy(), (0, 0, sigma, sigma), mode="mirror", radius=(0, 0, radius, radius)
    )
    np.testing.assert_allclose(without_content(images, "blur"), expected, atol=1e-6)
    mean = without_content(images, "mean")
    assert mean.shape == images.shape
    np.testing.assert_allclose(mean[1, 2], images[1, 2].mean().item())


def test_the_network_is_left_as_it_was() -> None:
    model = network().train()
    model[1].eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.randn(3, 3, HEIGHT, WIDTH)
    generator = torch.get_rng_state()
    found = deletion(model, images, np.ones((3, HEIGHT, WIDTH)))
    assert torch.equal(generator, torch.get_rng_state())
    assert [module.training for module in model] == [True, False, True, True, True, True]
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    np.testing.assert_allclose(
        found.probabilities[:, 0], model.eval()(images).softmax(1).max(1).values.detach(), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(3, HEIGHT, WIDTH)}, r"images must be a batch \(B, C, H, W\)"),
        ({"maps": np.ones((2, HEIGHT, WIDTH + 1))}, r"maps must be \(2, 5, 7\), as the images are; got \(2, 5, 8\)"),
        ({"maps": np.ones((1, HEIGHT, WIDTH))}, r"maps must be \(2, 5, 7\)"),
        ({"maps": -np.ones((2, HEIGHT, WIDTH))}, "finite and not negative"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"steps": 36}, "steps must be at most the 35 pixels of an image; got 36"),
        ({"fill": "grey"}, "fill must be one of mean, blur; got 'grey'"),
    ],
)
@pytest.mark.parametrize("game", [deletion, insertion])
def test_bad_input_is_refused(game, change: dict, message: str) -> None:  # type: ignore[no-untyped-def]
    arguments = {"images": torch.zeros(2, 3, HEIGHT, WIDTH), "maps": np.ones((2, HEIGHT, WIDTH)), **change}
    with pytest.raises(ValueError, match=message):
        game(network(), **arguments)
