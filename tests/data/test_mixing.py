from __future__ import annotations

import numpy as np
import pytest
import torch

from foveate.data import make_mixup


def batch(size: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(size)
    return torch.rand(size, 3, 11, 13, generator=generator), torch.randint(5, (size,), generator=generator)


def one_hot(labels: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    return torch.nn.functional.one_hot(labels, 5) * (1 - smoothing) + smoothing / 5


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixup_is_a_weighted_mean_with_the_reversed_batch(smoothing: float):
    mix = make_mixup(5, mixup=0.8, label_smoothing=smoothing, seed=3)
    weights = []
    for step in range(20):
        images, labels = batch(6)
        mixed, targets = mix(images.clone(), labels, epoch=0, step=step)
        flipped = images.flip(0)
        weight = (((mixed - flipped) * (images - flipped)).sum() / (images - flipped).square().sum()).item()
        torch.testing.assert_close(mixed, weight * images + (1 - weight) * flipped)
        soft = one_hot(labels, smoothing)
        torch.testing.assert_close(targets, weight * soft + (1 - weight) * soft.flip(0))
        weights.append(weight)
    assert len(set(weights)) == 20
    assert 0 <= min(weights) < 0.3 < 0.7 < max(weights) <= 1


def test_cutmix_pastes_a_rectangle_of_the_share_that_the_labels_say():
    mix = make_mixup(5, cutmix=1.0)
    for step in range(20):
        images, labels = batch(4)
        mixed, targets = mix(images.clone(), labels, epoch=1, step=step)
        pasted = (mixed == images.flip(0)).all(1) & ~(images == images.flip(0)).all(1)
        assert (pasted | (mixed == images).all(1)).all()
        rows, columns = np.flatnonzero(pasted[0].any(1)), np.flatnonzero(pasted[0].any(0))
        assert pasted[0].sum() == len(rows) * len(columns)  # one full rectangle
        share = len(rows) * len(columns) / (11 * 13)
        torch.testing.assert_close(targets, (1 - share) * one_hot(labels) + share * one_hot(labels).flip(0))


def test_what_is_drawn_depends_on_seed_epoch_and_step_only():
    def mixed(seed: int, epoch: int, step: int) -> torch.Tensor:
        mix = make_mixup(5, mixup=0.4, cutmix=1.0, seed=seed)
        return mix(*batch(6), epoch=epoch, step=step)[0]

    first = mixed(1, 2, 3)
    np.random.seed(0)  # noqa: NPY002
    state = np.random.get_state()[1].tobytes()  # noqa: NPY002
    torch.testing.assert_close(mixed(1, 2, 3), first, rtol=0, atol=0)
    assert np.random.get_state()[1].tobytes() == state  # noqa: NPY002
    for other in ((0, 2, 3), (1, 1, 3), (1, 2, 4)):
        assert not torch.equal(mixed(*other), first)


def test_the_last_image_of_an_odd_batch_stays():
    mix = make_mixup(5, mixup=1.0, label_smoothing=0.2)
    images, labels = batch(7)
    mixed, targets = mix(images.clone(), labels, epoch=0, step=0)
    torch.testing.assert_close(mixed[6], images[6])
    torch.testing.assert_close(targets[6], one_hot(labels, 0.2)[6])
    even, soft = mix(images[:6].clone(), labels[:6], epoch=0, step=0)
    torch.testing.assert_close(mixed[:6], even)
    torch.testing.assert_close(targets[:6], soft)
    single, target = mix(images[:1].clone(), labels[:1], epoch=0, step=0)
    torch.testing.assert_close(single, images[:1])
    torch.testing.assert_close(target, one_hot(labels[:1], 0.2))


def test_probabilities():
    images, labels = batch(6)
    never = make_mixup(5, mixup=1.0, prob=0.0)
    assert all(torch.equal(never(images.clone(), labels, epoch=0, step=i)[0], images) for i in range(10))
    only_cut = make_mixup(5, mixup=1.0, cutmix=1.0, switch_prob=1.0)
    for step in range(10):
        mixed, _ = only_cut(images.clone(), labels, epoch=0, step=step)
        assert ((mixed == images) | (mixed == images.flip(0))).all()


def test_nothing_to_mix():
    assert make_mixup(5) is None
    assert make_mixup(5, label_smoothing=0.1) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 1}, "num_classes must be at least 2; got 1"),
        ({"mixup": -0.1}, "mixup must be a finite number at least 0; got -0.1"),
        ({"cutmix": float("inf")}, "cutmix must be a finite number"),
        ({"prob": 1.1}, "prob must be .* at most 1; got 1.1"),
        ({"switch_prob": "half"}, "switch_prob must be .*; got 'half'"),
        ({"label_smoothing": 2}, "label_smoothing must be"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_bad_arguments(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        make_mixup(**{"num_classes": 5, "mixup": 0.2, **arguments})
