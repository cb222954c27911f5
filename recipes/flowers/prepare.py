"""Lays out the flowers: ``python recipes/flowers/prepare.py SOURCE --out data/flowers``.

``SOURCE`` is a folder with ``train/CLASS/IMAGE``, ``val/CLASS/IMAGE`` and ``cat_to_name.json``, which has a name for
each class, as in the copies of Oxford Flowers 102 that courses use; one may lack classes. What comes of it has the
names in place of the numbers (``train/pink primrose/image_06734.jpg``); its images are hard links to those of
``SOURCE`` where the two are on one disk, else copies.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

SPLITS = ("train", "val")


def main() -> int:
    """Lay out the set; return the exit code."""
    parser = argparse.ArgumentParser(prog="prepare.py", description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder with train, val and cat_to_name.json")
    parser.add_argument("--out", type=Path, default=Path("data/flowers"), help="folder that is written")
    given = parser.parse_args()
    try:
        prepare(given.source, given.out)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"prepare.py: error: {error}\n")
        return 2
    return 0


def prepare(source: Path, out: Path) -> None:
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
            target = partial / split / name
            target.mkdir(parents=True)  # fails where two classes have one name
            classes.add(name)
            for image in sorted(folder.iterdir()):
                _link(image, target / image.name)
                counts[split] += 1
    partial.replace(out)
    sys.stdout.write(f"{out}: {len(classes)} classes, {', '.join(f'{counts[split]} {split}' for split in SPLITS)}\n")


def _link(image: Path, target: Path) -> None:
    try:
        os.link(image, target)
    except OSError:  # another disk, or one without hard links
        shutil.copyfile(image, target)


if __name__ == "__main__":
    sys.exit(main())
