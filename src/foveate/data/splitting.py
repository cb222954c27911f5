"""Choosing images: parts of a labelled set with the same mixture of classes, and a few that stand for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foveate.data.protocols import LabelledImages

__all__ = ["Splits", "equally_spaced", "stratified_split"]


@dataclass(frozen=True)
class Splits:
    """A set of images as it was found, in parts.

    Attributes:
        classes: Names of the classes; a label is an index into them.
        train: Images to train on.
        val: Images to choose by.
        test: Images to report on, if there are any.
        img_size: Side in pixels at which the images are best used.
        flip: Whether a mirror image keeps its class.
    """

    classes: tuple[str, ...]
    train: LabelledImages
    val: LabelledImages
    test: LabelledImages | None
    img_size: int
    flip: bool = True


def equally_spaced(total: int, number: int | None) -> list[int]:
    """Return ``number`` of the indices below ``total`` at equal distances; all if it is None or above ``total``."""
    number = total if number is None else min(number, total)
    return np.linspace(0, total - 1, number).round().astype(int).tolist()


def stratified_split(
    labels: Sequence[int] | np.ndarray, fractions: Sequence[float], *, seed: int = 0
) -> list[np.ndarray]:
    """Divide the indices of ``labels`` into disjoint parts, class by class.

    Each class is shuffled and cut at the rounded cumulative fractions, so that a part's share of a class is off by
    less than one item. Unlike scikit-learn's splitters this accepts classes with a single item; that item goes to the
    first part whose cumulative fraction is above one half.

    Args:
        labels: The class of each item.
        fractions: Share of each part; they sum to 1.
        seed: The same seed gives the same parts.

    Returns:
        One increasing array of indices per fraction.
    """
    classes = np.asarray(labels)
    generator = np.random.default_rng(seed)
    cuts = np.cumsum(fractions)[:-1]
    parts: list[list[np.ndarray]] = [[] for _ in fractions]
    ends = np.cumsum(np.unique(classes, return_counts=True)[1])[:-1]
    for found in np.split(np.argsort(classes, kind="stable"), ends):
        members = generator.permutation(found)
        for part, piece in zip(parts, np.split(members, np.rint(cuts * len(members)).astype(int)), strict=True):
            part.append(piece)
    return [np.sort(np.concatenate(part)) for part in parts]
