"""Indexing shards that others made, and checking shards against their index."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from foveate.data.folder import native_size
from foveate.data.shards.index import INDEX, Shard, ShardIndex, read_index
from foveate.data.shards.reading import ShardImages, some_files
from foveate.data.shards.scanning import check_shard, find_shards, index_shard
from foveate.data.shards.writing import write_records
from foveate.io.files import read_text, write_json

__all__ = ["check_shards", "index_shards"]

CLASSES = "classes.txt"


def index_shards(folder: Path, *, progress: Callable[[str], None] = lambda _: None) -> ShardIndex:
    """Write the index of the tar files in ``folder``; names of classes are read from ``classes.txt``, one a line.

    Raises:
        ValueError: There are no shards, or labels are missing or have no name.
    """
    known = read_index(folder) if (folder / INDEX).exists() else None
    names = _class_names(folder)
    shards: dict[str, tuple[Shard, ...]] = {}
    labels: set[int] = set()
    for split, files in find_shards(folder).items():
        for name in files:
            progress(name)
            shard, records = index_shard(folder / name)
            write_records(folder, shard, records)
            shards[split] = (*shards.get(split, ()), shard)
            labels.update(np.unique(records[:, 2]).tolist())
    classes = names or (_numbers(folder, labels) if known is None else known.classes)
    if max(labels) >= len(classes):
        raise ValueError(
            f"{folder} has the labels {_ranges(labels)}, and names of classes 0 to {len(classes) - 1} only; labels "
            "count from 0"
        )
    found = ShardIndex(classes, 1, shards)
    images = ShardImages(folder, next(iter(shards)), found)
    found = dataclasses.replace(found, img_size=native_size(some_files(images)))
    if known:
        found = dataclasses.replace(found, made_from=known.made_from, left_out=known.left_out, complete=known.complete)
    write_json(folder / INDEX, found.to_json())
    return found


def check_shards(folder: Path, *, decode: bool = False, progress: Callable[[str], None] = lambda _: None) -> ShardIndex:
    """Compare the shards in ``folder`` with their index; with ``decode``, decode every image.

    Raises:
        ValueError: Something is wrong; the message lists it.
    """
    found = read_index(folder)
    wrong = [] if found.complete else [f"not all shards of {folder} were written"]
    for shard in (shard for shards in found.shards.values() for shard in shards):
        progress(shard.name)
        wrong += check_shard(folder, shard, len(found.classes), decode=decode)
    if wrong:
        raise ValueError("\n  ".join([f"{len(wrong)} thing(s) wrong with the shards in {folder}:", *wrong]))
    return found


def _class_names(folder: Path) -> tuple[str, ...] | None:
    """Return the lines of ``classes.txt``, if it is there."""
    if not (folder / CLASSES).is_file():
        return None
    names = [name.strip() for name in read_text(folder / CLASSES).rstrip().split("\n")]
    if len(set(names)) < len(names) or "" in names:
        raise ValueError(f"{folder / CLASSES} must have a name in each line, and none twice")
    return tuple(names)


def _numbers(folder: Path, labels: set[int]) -> tuple[str, ...]:
    """Return the labels as names of classes."""
    if labels != set(range(len(labels))):
        raise ValueError(
            f"{folder} has the labels {_ranges(labels)}; they must count from 0 and leave none out, or there would be "
            f"classes without an image. Write the shards with labels 0 to {len(labels) - 1}, or name all classes in "
            f"{folder / CLASSES}, one a line, that of label 0 first"
        )
    return tuple(map(str, range(len(labels))))


def _ranges(labels: set[int], shown: int = 10) -> str:
    """Return ``1 to 4, 7`` for 1, 2, 3, 4, 7."""
    starts = sorted(label for label in labels if label - 1 not in labels)
    ends = sorted(label for label in labels if label + 1 not in labels)
    words = [str(a) if a == b else f"{a} to {b}" for a, b in zip(starts, ends, strict=True)]
    return ", ".join(words[:shown]) + ", …" * (len(words) > shown)
