"""Lays out the flowers: ``python recipes/flowers/prepare.py SOURCE --out data/flowers``.

``SOURCE`` is a folder with ``train/CLASS/IMAGE``, ``val/CLASS/IMAGE`` and ``cat_to_name.json``, which has a name for
each class, as in the copies of Oxford Flowers 102 that courses use; one may lack classes. What comes of it has the
names in place of the numbers (``train/pink primrose/image_06734.jpg``); its images are hard links to those of
``SOURCE`` where the two are on one disk, else copies.

``--compare`` lays out what recipes/flowers-compare.yaml compares on: ``test``, the images of ``SOURCE/val``, is not
looked at while networks are trained; ``val`` is every tenth training image of a class. Images are reduced to `SIDE`
pixels at their shorter side, so that less is decoded in every epoch. The same without ``test`` is in a folder beside
it, ``flowers-compare-pilot``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

from PIL import Image

SPLITS = ("train", "val")
SIDE = 160
WATCHING = 10
"""Of so many training images of a class, in the order of their names, one watches the training of a comparison."""


def main() -> int:
    """Lay out the set; return the exit code."""
    parser = argparse.ArgumentParser(prog="prepare.py", description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder with train, val and cat_to_name.json")
    parser.add_argument("--out", type=Path, default=Path("data/flowers"), help="folder that is written")
    parser.add_argument("--compare", action="store_true", help="lay out train, val and test of a comparison")
    given = parser.parse_args()
    try:
        prepare(given.source, given.out, compare=given.compare)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"prepare.py: error: {error}\n")
        return 2
    return 0


def prepare(source: Path, out: Path, *, compare: bool = False) -> None:
    """Write the set, whole or not at all; one that is there already stays as it is."""
    if out.exists():
        sys.stdout.write(f"{out} is there already\n")
        return
    names = json.loads((source / "cat_to_name.json").read_text(encoding="utf-8"))
    names = {int(number): name for number, name in names.items()}
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    counts: Counter[str] = Counter()
    classes = set()
    for split in SPLITS:
        for folder in sorted(path for path in (source / split).iterdir() if path.is_dir()):
            if int(folder.name) not in names:
                raise ValueError(f"cat_to_name.json has no name for {folder}")
            name = names[int(folder.name)].replace("/", " ")
            if (partial / ("test" if compare and split == "val" else split) / name).exists():
                raise ValueError(f"two classes are called {name!r} in cat_to_name.json")
            classes.add(name)
            for index, image in enumerate(sorted(folder.iterdir())):
                chosen = _split_of_comparison(split, index) if compare else split
                target = partial / chosen / name / image.name
                target.parent.mkdir(parents=True, exist_ok=True)
                (_reduce if compare else _link)(image, target)
                counts[chosen] += 1
    if compare:
        _write_pilot(partial, out.with_name(f"{out.name}-pilot"))
    partial.replace(out)
    sys.stdout.write(
        f"{out}: {len(classes)} classes, {', '.join(f'{count} {split}' for split, count in counts.items())}\n"
    )


def _write_pilot(whole: Path, out: Path) -> None:
    """Link all that is trained on into a folder of its own."""
    shutil.rmtree(out, ignore_errors=True)
    for image in sorted(path for split in ("train", "val") for path in (whole / split).rglob("*.jpg")):
        target = out / image.relative_to(whole)
        target.parent.mkdir(parents=True, exist_ok=True)
        _link(image, target)


def _split_of_comparison(split: str, index: int) -> str:
    if split == "val":
        return "test"
    return "val" if index % WATCHING == WATCHING - 1 else "train"


def _reduce(image: Path, target: Path) -> None:
    with Image.open(image) as picture:
        factor = SIDE / min(picture.size)
        size = (round(picture.width * factor), round(picture.height * factor))
        picture.convert("RGB").resize(size, Image.Resampling.BICUBIC, reducing_gap=3).save(target, "JPEG", quality=95)


def _link(image: Path, target: Path) -> None:
    try:
        os.link(image, target)
    except OSError:  # another disk, or one without hard links
        shutil.copyfile(image, target)


if __name__ == "__main__":
    sys.exit(main())
