"""Small sets of made images, laid out on the disk as the published sets are."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["write_cifar10", "write_cifar100", "write_folder", "write_pets", "write_photo"]


def write_photo(path: Path, number: int = 0, size: tuple[int, int] = (37, 29)) -> Path:
    """Write a smooth, random, recognisable RGB image and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(number).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def write_folder(root: Path, counts: Mapping[str, int], classes: int = 2) -> Path:
    """Write a folder of images with ``counts`` images of each class by split, such as ``{"train": 4, "val": 2}``."""
    for split, count in counts.items():
        for label in range(classes):
            for i in range(count):
                write_photo(root / split / f"class{label}" / f"{i}.jpg", number=1000 * label + 100 * len(split) + i)
    return root


def write_pets(root: Path, counts: Mapping[str, Sequence[int]], breeds: Iterable[tuple[str, int]]) -> Path:
    """Write an Oxford-IIIT Pet in its published layout.

    Args:
        root: The folder that it is put in.
        counts: The number of images of each breed, by split: ``trainval`` and ``test``.
        breeds: Name of the files and species (1, cat; 2, dog) of each.
    """
    base = root / "oxford-iiit-pet"
    (base / "annotations").mkdir(parents=True)
    named = list(breeds)
    for split, numbers in counts.items():
        lines = []
        for label, ((breed, species), count) in enumerate(zip(named, numbers, strict=True), start=1):
            for i in range(count):
                write_photo(base / "images" / f"{breed}_{split}{i}.jpg", number=100 * label + i)
                lines.append(f"{breed}_{split}{i} {label} {species} 1")
        (base / "annotations" / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return root


def write_cifar10(root: Path, counts: Mapping[str, int], classes: int = 2) -> Path:
    """Write a CIFAR-10 in its published format, as `write_cifar100` does: the training images in five files."""
    base = root / "cifar-10-batches-py"
    base.mkdir(parents=True)
    files = {"test_batch": counts["test"]} | {f"data_batch_{number}": 0 for number in range(1, 6)}
    files["data_batch_1"] = counts["train"]
    for file, count in files.items():
        labels = [label for label in range(classes) for _ in range(count)]
        (base / file).write_bytes(pickle.dumps({"data": _pixels(len(labels)), "labels": labels}))
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class{label}" for label in range(10)]}))
    return root


def write_cifar100(root: Path, counts: Mapping[str, int], classes: int = 2) -> Path:
    """Write a CIFAR-100 in its published format: all names, but images of the first ``classes`` only.

    torchvision compares the files with the sums of the published ones; a test has to take those out of ``CIFAR100``.
    """
    base = root / "cifar-100-python"
    base.mkdir(parents=True)
    for split, count in counts.items():
        labels = [label for label in range(classes) for _ in range(count)]
        (base / split).write_bytes(pickle.dumps({"data": _pixels(len(labels)), "fine_labels": labels}))
    names = {"fine_label_names": [f"class{label}" for label in range(100)]}
    (base / "meta").write_bytes(pickle.dumps(names))
    return root


def _pixels(images: int) -> np.ndarray:
    return np.random.default_rng(images).integers(0, 256, (images, 3 * 32 * 32), dtype=np.uint8)
