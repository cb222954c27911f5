"""``foveate shards``: image folders into tar files in the form of WebDataset, and what one does with those."""

from __future__ import annotations

import dataclasses
import io
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from foveate import _checks
from foveate.data.decoding import BadImage
from foveate.data.folder import SIZES_SAMPLED, native_size, open_folder
from foveate.data.shards import (
    INDEX,
    PlannedShard,
    Shard,
    ShardImages,
    ShardIndex,
    check_shard,
    find_shards,
    index_shard,
    plan_shards,
    read_index,
    source_digest,
    write_records,
    write_shard,
)
from foveate.io.files import writable_folder, write_json
from foveate.report.text import columns

__all__ = ["ShardsConfig", "run"]

UNITS = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
CLASSES = "classes.txt"


@dataclass(kw_only=True)
class ShardsConfig:
    """Write a folder of images into tar files (WebDataset); index and check such files.

    Attributes:
        task: make FOLDER writes the images of a folder into shards, and continues if it was interrupted; index FOLDER
            writes the index of shards that others made (names of classes are read from classes.txt, one a line); check
            FOLDER compares shards with their index.
        out: For make: the folder of the shards.
        shard_size: Size of a shard, as in 256MB or 1GiB.
        images_per_shard: Number of images in a shard, in place of shard_size.
        seed: Decides the order in which make lays out the training images.
        data_seed: As in train: decides which images make takes for validation if the folder has none for it.
        decode: Decode every image: make leaves out those that cannot be read; check reports them.
        max_bad_images: For make with decode: how many images may be left out; one more is an error.
    """

    task: list[str] = field(default_factory=list)
    out: Path | None = None
    shard_size: str = "256MB"
    images_per_shard: int | None = None
    seed: int = 0
    data_seed: int = 0
    decode: bool = False
    max_bad_images: int = 0

    def check(self) -> None:
        """Raise a `ValueError` that names the first setting that is out of its range."""
        if len(self.task) != 2:
            raise ValueError(f"give one of {', '.join(TASKS)} and a folder, as in `foveate shards check FOLDER`")
        _checks.one_of("task", self.task[0], TASKS)
        if self.task[0] == "make" and self.out is None:
            raise ValueError("out: say into which folder, as in --out shards")
        if self.images_per_shard is not None:
            _checks.integer("images_per_shard", self.images_per_shard)
        if self.bytes_per_shard < UNITS["kB"]:
            raise ValueError(f"shard_size must be at least 1kB; got {self.shard_size!r}")
        for name in ("seed", "data_seed", "max_bad_images"):
            _checks.integer(name, getattr(self, name), minimum=0)
        if self.max_bad_images and not self.decode:
            raise ValueError("max_bad_images is for --decode; without it images are copied as they are")

    @property
    def folder(self) -> Path:
        """The folder that the task is about."""
        return Path(self.task[1]).expanduser()

    @property
    def bytes_per_shard(self) -> int:
        """`shard_size` in bytes."""
        parts = re.fullmatch(r"(\d+(?:\.\d+)?) ?([A-Za-z]+)", self.shard_size)
        if parts is None or parts[2] not in UNITS:
            raise ValueError(f"shard_size must be a number and one of {', '.join(UNITS)}; got {self.shard_size!r}")
        return int(float(parts[1]) * UNITS[parts[2]])


def run(config: ShardsConfig) -> ShardIndex:
    """Do the task; return the index of the shards.

    Raises:
        ValueError: A setting is wrong, or the folder is not what it should be, or something is wrong with the shards.
        OSError: Something cannot be read or written.
        KeyboardInterrupt: Ctrl-C or SIGTERM; what was written is whole.
    """
    config.check()
    return TASKS[config.task[0]](config)


def _make(config: ShardsConfig) -> ShardIndex:
    """Write shards, those first that an interrupted run has not written."""
    assert config.out is not None
    splits = open_folder(config.folder, seed=config.data_seed)
    planned = plan_shards(
        splits, shard_size=config.bytes_per_shard, images_per_shard=config.images_per_shard, seed=config.seed
    )
    made_from = {
        "seed": config.seed,
        "per_shard": config.images_per_shard or config.shard_size,
        "decode": config.decode,
        "images": source_digest(planned, config.folder),
    }
    empty = ShardIndex(splits.classes, splits.img_size, {}, made_from, complete=False)
    index = _begun(config.out, empty)
    written = {shard.name for shards in index.shards.values() for shard in shards}
    writable_folder(config.out)
    write_json(config.out / INDEX, index.to_json())
    try:
        for number, shard in enumerate(planned, start=1):
            if shard.name not in written:
                print(
                    f"{number}/{len(planned)}  {shard.name}  {len(shard.samples)} images", file=sys.stderr, flush=True
                )
                index = _written(config, index, shard)
                write_json(config.out / INDEX, index.to_json())
    except KeyboardInterrupt as interrupt:
        interrupt.args = (f"the shards in {config.out} are whole, and the same command writes the others",)
        raise
    index = dataclasses.replace(index, complete=True)
    write_json(config.out / INDEX, index.to_json())
    print(_table(index))
    return index


def _begun(out: Path, empty: ShardIndex) -> ShardIndex:
    """Return the index of the interrupted run in ``out``, or the empty one."""
    if not (out / INDEX).exists():
        if out.is_dir() and any(out.glob("*.tar")):
            raise ValueError(f"out: {out} has tar files of others; give another folder")
        return empty
    index = read_index(out)
    if dataclasses.replace(index, shards={}, left_out=(), complete=False) != empty:
        raise ValueError(f"out: {out} holds shards of other images or settings; give another folder, or delete it")
    return index


def _written(config: ShardsConfig, index: ShardIndex, planned: PlannedShard) -> ShardIndex:
    """Write a shard and return the index with it.

    Raises:
        ValueError: More images cannot be read than are put up with.
    """
    assert config.out is not None
    shard, bad = write_shard(config.out, planned, decode=config.decode)
    # A shard of which no image could be read is not there, and is tried again when the command is.
    left_out = tuple(dict.fromkeys((*index.left_out, *(_relative(image, config.folder) for image in bad))))
    if len(left_out) > config.max_bad_images:
        raise ValueError(
            f"could not read {len(left_out)} image(s), and max_bad_images allows {config.max_bad_images}:\n  "
            + "\n  ".join(left_out)
            + f"\nmend or remove them, or leave them out with --max_bad_images {len(left_out)} or more"
        )
    added = () if shard is None else (shard,)
    shards = index.shards | {planned.split: (*index.shards.get(planned.split, ()), *added)}
    return dataclasses.replace(index, shards=shards, left_out=left_out)


def _relative(bad: BadImage, folder: Path) -> str:
    return str(BadImage(str(Path(bad.path).relative_to(folder)), bad.reason))


def _index(config: ShardsConfig) -> ShardIndex:
    """Write the index of the tar files in a folder."""
    folder = config.folder
    known = read_index(folder) if (folder / INDEX).exists() else None
    shards: dict[str, tuple[Shard, ...]] = {}
    labels: set[int] = set()
    for split, names in find_shards(folder).items():
        for name in names:
            print(name, file=sys.stderr, flush=True)
            shard, records = index_shard(folder / name)
            write_records(folder, shard, records)
            shards[split] = (*shards.get(split, ()), shard)
            labels.update(np.unique(records[:, 2]).tolist())
    classes = known.classes if known else _class_names(folder, labels)
    if max(labels) >= len(classes):
        raise ValueError(
            f"{folder} has the labels {_ranges(labels)}, and names of classes 0 to {len(classes) - 1} only; labels "
            "count from 0"
        )
    found = ShardIndex(classes, 1, shards)
    images = ShardImages(folder, next(iter(shards)), found)
    every = max(1, len(images) // SIZES_SAMPLED)
    size = native_size(io.BytesIO(images.sample(i).content) for i in range(0, len(images), every))
    found = dataclasses.replace(found, img_size=size)
    if known:
        found = dataclasses.replace(found, made_from=known.made_from, left_out=known.left_out, complete=known.complete)
    write_json(folder / INDEX, found.to_json())
    print(_table(found))
    return found


def _class_names(folder: Path, labels: set[int]) -> tuple[str, ...]:
    """Return the lines of ``classes.txt``, or numbers if it is not there."""
    if not (folder / CLASSES).is_file():
        if labels != set(range(len(labels))):
            raise ValueError(
                f"{folder} has the labels {_ranges(labels)}; they must count from 0 and leave none out, or "
                f"there would be classes without an image. Write the shards with labels 0 to {len(labels) - 1}, or "
                f"name all classes in {folder / CLASSES}, one a line, that of label 0 first"
            )
        return tuple(map(str, range(len(labels))))
    names = (folder / CLASSES).read_text(encoding="utf-8-sig").rstrip().split("\n")
    names = [name.strip() for name in names]
    if len(set(names)) < len(names) or "" in names:
        raise ValueError(f"{folder / CLASSES} must have a name in each line, and none twice")
    return tuple(names)


def _ranges(labels: set[int], shown: int = 10) -> str:
    """Return ``1 to 4, 7`` for 1, 2, 3, 4, 7."""
    starts = sorted(label for label in labels if label - 1 not in labels)
    ends = sorted(label for label in labels if label + 1 not in labels)
    words = [str(a) if a == b else f"{a} to {b}" for a, b in zip(starts, ends, strict=True)]
    return ", ".join(words[:shown]) + ", …" * (len(words) > shown)


def _check(config: ShardsConfig) -> ShardIndex:
    """Compare shards with their index; raise a `ValueError` that lists what is wrong."""
    found = read_index(config.folder)
    wrong = [] if found.complete else [f"not all shards of {config.folder} were written"]
    for shard in (shard for shards in found.shards.values() for shard in shards):
        print(shard.name, file=sys.stderr, flush=True)
        wrong += check_shard(config.folder, shard, len(found.classes), decode=config.decode)
    if wrong:
        raise ValueError("\n  ".join([f"{len(wrong)} thing(s) wrong with the shards in {config.folder}:", *wrong]))
    print(_table(found))
    return found


def _table(index: ShardIndex) -> str:
    rows = [
        [split, str(len(shards)), f"{index.count(split):,}", f"{sum(shard.bytes for shard in shards) / 1e6:,.1f}"]
        for split, shards in index.shards.items()
    ]
    left_out = f"\nleft out: {len(index.left_out)}" if index.left_out else ""
    return f"{len(index.classes)} classes\n\n{columns(['split', 'shards', 'images', 'MB'], rows)}{left_out}"


TASKS: dict[str, Callable[[ShardsConfig], ShardIndex]] = {
    "make": _make,
    "index": _index,
    "check": _check,
}
