"""Mixup and CutMix over a batch, repeatable."""

from __future__ import annotations

import torch
from timm.data.mixup import Mixup, mixup_target

from foveate import _checks
from foveate.data.seeding import generators_kept, seed_generators

__all__ = ["BatchMixup", "make_mixup"]


class BatchMixup:
    """Mix each image of a batch with another one, and its label likewise.

    With λ drawn from Beta(α, α) and x' the batch in reverse order, Mixup (Zhang et al., arXiv 1710.09412) is
    ``λ x + (1 − λ) x'``; CutMix (Yun et al., arXiv 1905.04899) pastes a rectangle of x' with the share ``1 − λ`` of the
    area. Labels become ``λ y + (1 − λ) y'``. The mixing is timm's; what is drawn depends on
    ``(seed, epoch, step)`` alone. Made by `make_mixup`.
    """

    def __init__(self, mixup: Mixup, *, seed: int) -> None:
        self._mixup = mixup
        self._seed = seed

    def __call__(
        self, images: torch.Tensor, labels: torch.Tensor, *, epoch: int, step: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mixed batch.

        In a batch of odd length the last image stays as it is.

        Args:
            images: ``(B, C, H, W)``, float.
            labels: ``(B,)``, class indices.
            epoch: Number of the epoch, from 0.
            step: Number of the batch in the epoch, from 0.

        Returns:
            Images ``(B, C, H, W)`` and label distributions ``(B, num_classes)`` for a soft cross-entropy.
        """
        even = len(images) // 2 * 2
        targets = mixup_target(labels, self._mixup.num_classes, smoothing=self._mixup.label_smoothing)
        if even:
            with generators_kept():
                seed_generators(self._seed, epoch, step)
                images = images.clone()  # timm mixes in place, and the batch may be the caller's
                images[:even], targets[:even] = self._mixup(images[:even], labels[:even])
        return images, targets


def make_mixup(
    num_classes: int,
    *,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    prob: float = 1.0,
    switch_prob: float = 0.5,
    label_smoothing: float = 0.0,
    seed: int = 0,
) -> BatchMixup | None:
    """Build the mixing of batches, or return ``None`` when both ``mixup`` and ``cutmix`` are 0.

    Args:
        num_classes: Length of the label distributions.
        mixup: α of Mixup; 0 leaves it out. 0.2 and 0.8 are usual.
        cutmix: α of CutMix; 0 leaves it out. 1 is usual.
        prob: Probability that a batch is mixed at all.
        switch_prob: With both, the probability of CutMix in a batch that is mixed.
        label_smoothing: ε spread over all classes. It is part of the label distributions here, so leave it out of
            the loss.
        seed: The same seed draws the same mixtures. Give each rank of a distributed run its own.

    Raises:
        ValueError: A number is out of its range.
    """
    _checks.integer("num_classes", num_classes, minimum=2)
    _checks.number("mixup", mixup, minimum=0)
    _checks.number("cutmix", cutmix, minimum=0)
    _checks.number("prob", prob, minimum=0, maximum=1)
    _checks.number("switch_prob", switch_prob, minimum=0, maximum=1)
    _checks.number("label_smoothing", label_smoothing, minimum=0, maximum=1)
    _checks.integer("seed", seed, minimum=0)
    if mixup == 0 and cutmix == 0:
        return None
    mixing = Mixup(
        mixup_alpha=mixup,
        cutmix_alpha=cutmix,
        prob=prob,
        switch_prob=switch_prob,
        label_smoothing=label_smoothing,
        num_classes=num_classes,
    )
    return BatchMixup(mixing, seed=seed)
