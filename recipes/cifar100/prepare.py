"""Lays out CIFAR-100 for the experiment: ``python recipes/cifar100/prepare.py SOURCE --out data``.

``SOURCE`` is a folder with ``train/CLASS/IMAGE``, 500 images of each class, and ``val/CLASS/IMAGE``, the 100 official
test images of each. What comes of it is decided by the names of the files alone:

    cifar100/         train: the first 450 of each class, val: the other 50, test: the official test images
    cifar100-pilot/   to choose learning rates by; train: the first 100 of each class, val: the next 50
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

PARTS: dict[str, dict[str, tuple[str, slice]]] = {
    "cifar100": {
        "train": ("train", slice(0, 450)),
        "val": ("train", slice(450, 500)),
        "test": ("val", slice(0, 100)),
    },
    "cifar100-pilot": {"train": ("train", slice(0, 100)), "val": ("train", slice(100, 150))},
}
"""For each set and split the folder of the source and which of a class's images, in the order of their names."""


def main() -> int:
    """Lay out both sets; return the exit code."""
    parser = argparse.ArgumentParser(prog="prepare.py", description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder with train and val, a folder for each class in both")
    parser.add_argument("--out", type=Path, default=Path("data"), help="where the two folders are put")
    given = parser.parse_args()
    try:
        for name, splits in PARTS.items():
            prepare(given.source, given.out / name, splits)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"prepare.py: error: {error}\n")
        return 2
    return 0


def prepare(source: Path, out: Path, splits: dict[str, tuple[str, slice]]) -> None:
    """Write one set, whole or not at all; one that is there already stays as it is."""
    if out.exists():
        sys.stdout.write(f"{out} is there already\n")
        return
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    counts = []
    for split, (part, chosen) in splits.items():
        counts.append(0)
        for folder in sorted(path for path in (source / part).iterdir() if path.is_dir()):
            images = sorted(folder.iterdir())[chosen]
            if len(images) != chosen.stop - chosen.start:
                raise ValueError(f"{folder} has too few images: {chosen.stop} are expected")
            target = partial / split / folder.name
            target.mkdir(parents=True)
            for image in images:
                shutil.copyfile(image, target / image.name)
            counts[-1] += len(images)
    partial.replace(out)
    described = ", ".join(f"{count} {split}" for count, split in zip(counts, splits, strict=True))
    sys.stdout.write(f"{out}: {described}\n")


if __name__ == "__main__":
    sys.exit(main())
