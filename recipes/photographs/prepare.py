"""Lays out the photographs of the experiment: ``python recipes/photographs/prepare.py SOURCE --out data``.

``SOURCE`` is a folder with 100 classes of Tiny ImageNet in tar files: ``train-0.tar`` to ``train-3.tar``, each with the
same number of images of every class (``train/CLASS/IMAGE``), ``val.tar`` (``val/CLASS/IMAGE``), ``classes.csv`` (a line
for each class) and ``boxes.csv`` (a box for each image). What comes of it is decided by their order alone:

    photographs/        every fifth class
      train/            train-0 and train-1
      val/              the first 25 images of each class in train-2, to watch the training by
      test/             val, and all of train-3, which nothing is trained on or chosen by
      boxes.csv
    photographs-pilot/  the same classes, to choose hyper-parameters by
      train/            train-0
      val/              the first 50 images of each class in train-1
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

EVERY = 5
"""Of the classes, in the order of ``classes.csv``, the first of so many is taken."""
PARTS: dict[str, dict[str, dict[str, int | None]]] = {
    "photographs": {
        "train": {"train-0": None, "train-1": None},
        "val": {"train-2": 25},
        "test": {"val": None, "train-3": None},
    },
    "photographs-pilot": {"train": {"train-0": None}, "val": {"train-1": 50}},
}
"""For each set and split the tar files that it is made of, and how many images of each class; None takes all."""


def main() -> int:
    """Lay out both sets; return the exit code."""
    parser = argparse.ArgumentParser(prog="prepare.py", description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder with the tar files, classes.csv and boxes.csv")
    parser.add_argument("--out", type=Path, default=Path("data"), help="where the two folders are put")
    given = parser.parse_args()
    try:
        for name, splits in PARTS.items():
            prepare(given.source, given.out / name, splits)
    except (OSError, ValueError, tarfile.TarError) as error:
        sys.stderr.write(f"prepare.py: error: {error}\n")
        return 2
    return 0


def prepare(source: Path, out: Path, splits: dict[str, dict[str, int | None]]) -> None:
    """Write one set, whole or not at all; one that is there already stays as it is."""
    if out.exists():
        sys.stdout.write(f"{out} is there already\n")
        return
    with (source / "classes.csv").open(newline="", encoding="utf-8") as file:
        classes = {row["wnid"] for row in list(csv.DictReader(file))[::EVERY]}
    with (source / "boxes.csv").open(newline="", encoding="utf-8") as file:
        boxes = {row["file"]: row for row in csv.DictReader(file)}
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    rows = []
    for split, archives in splits.items():
        for archive, most in archives.items():
            for path, content in images(source / f"{archive}.tar", classes, most):
                if str(path) not in boxes:
                    raise ValueError(f"boxes.csv has no box of {path}")
                name = f"{split}/{path.parent.name}/{path.name}"
                target = partial / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content())
                rows.append({**boxes[str(path)], "file": name})
    with (partial / "boxes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: row["file"]))
    partial.replace(out)
    counts = Counter(row["file"].split("/")[0] for row in rows)
    sys.stdout.write(f"{out}: {len(classes)} classes, {', '.join(f'{counts[split]} {split}' for split in splits)}\n")


def images(archive: Path, classes: set[str], most: int | None) -> Iterator[tuple[PurePosixPath, Callable[[], bytes]]]:
    """Yield the name of each image of ``classes``, at most so many of each in alphabetical order, and its reader.

    Nothing is unpacked by name, so that no archive can write anywhere.
    """
    taken: Counter[str] = Counter()
    with tarfile.open(archive) as tar:
        for member in sorted(tar.getmembers(), key=lambda member: member.name):
            path = PurePosixPath(member.name)
            if not member.isfile() or path.parent.name not in classes:
                continue
            taken[path.parent.name] += 1
            if most is None or taken[path.parent.name] <= most:
                yield path, lambda member=member: tar.extractfile(member).read()
    if missing := classes - set(taken):
        raise ValueError(f"{archive} has no image of {', '.join(sorted(missing))}")


if __name__ == "__main__":
    sys.exit(main())
