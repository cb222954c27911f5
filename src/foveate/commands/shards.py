"""``foveate shards``: image folders into tar files in the form of WebDataset, and what one does with those."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from foveate import _checks
from foveate._paths import expanded
from foveate.data.shards import ShardIndex, check_shards, index_shards, make_shards
from foveate.report.text import columns

__all__ = ["ShardsConfig", "run"]

UNITS = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
TASKS = ("make", "index", "check")
USED = {
    "make": {"out", "shard_size", "images_per_shard", "seed", "data_seed", "decode", "max_bad_images"},
    "index": set[str](),
    "check": {"decode"},
}
"""Settings that a task heeds."""


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
        fresh, others = type(self)(), set(vars(self)) - {"task"} - USED[self.task[0]]
        if given := [name for name in sorted(others) if getattr(self, name) != getattr(fresh, name)]:
            raise ValueError(f"{given[0]} means nothing to `foveate shards {self.task[0]}`; leave it out")
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
        return expanded(self.task[1])

    @property
    def bytes_per_shard(self) -> int:
        """`shard_size` in bytes."""
        parts = re.fullmatch(r"(\d+(?:\.\d+)?) ?([A-Za-z]+)", self.shard_size)
        if parts is None or parts[2] not in UNITS:
            raise ValueError(f"shard_size must be a number and one of {', '.join(UNITS)}; got {self.shard_size!r}")
        return int(min(float(parts[1]) * UNITS[parts[2]], sys.maxsize))


def run(config: ShardsConfig) -> ShardIndex:
    """Do the task; return the index of the shards.

    Raises:
        ValueError: A setting is wrong, or the folder is not what it should be, or something is wrong with the shards.
        OSError: Something cannot be read or written.
        KeyboardInterrupt: Ctrl-C or SIGTERM; what was written is whole.
    """
    config.check()
    if config.task[0] == "make":
        assert config.out is not None
        index = make_shards(
            config.folder,
            config.out,
            bytes_per_shard=config.bytes_per_shard,
            images_per_shard=config.images_per_shard,
            size_name=config.shard_size,
            seed=config.seed,
            data_seed=config.data_seed,
            decode=config.decode,
            max_bad_images=config.max_bad_images,
            progress=_tell,
        )
    elif config.task[0] == "index":
        index = index_shards(config.folder, progress=_tell)
    else:
        index = check_shards(config.folder, decode=config.decode, progress=_tell)
    print(_table(index))
    return index


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _table(index: ShardIndex) -> str:
    rows = [
        [split, str(len(shards)), f"{index.count(split):,}", f"{sum(shard.bytes for shard in shards) / 1e6:,.1f}"]
        for split, shards in index.shards.items()
    ]
    left_out = f"\nleft out: {len(index.left_out)}" if index.left_out else ""
    return f"{len(index.classes)} classes\n\n{columns(['split', 'shards', 'images', 'MB'], rows)}{left_out}"
