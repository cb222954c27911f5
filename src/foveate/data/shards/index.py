"""Index files of shards: the list of shards (``shards.json``) and the byte ranges of their images (``*.idx``)."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from foveate import _checks
from foveate.data.files import check_inside

__all__ = [
    "BLOCK",
    "INDEX",
    "MAX_MEMBER",
    "SPLITS",
    "VERSION",
    "Shard",
    "ShardIndex",
    "check_records",
    "read_index",
    "read_records",
]

INDEX = "shards.json"
VERSION = 1
SPLITS = ("train", "val", "test")
BLOCK = 512
"""A tar file is made of blocks of so many bytes: a header, and then the content, filled up with zeros."""
MAX_MEMBER = 2**28
"""The most bytes that a member of a tar file may have."""
RECORD = np.dtype("<i8")
"""Type of the numbers in an ``.idx`` file, three for each image: offset, length and class."""


@dataclass(frozen=True)
class Shard:
    """One tar file.

    Attributes:
        name: Its name in the folder.
        images: How many images it holds.
        bytes: Its size.
        sha256: The SHA-256 of its bytes, in hexadecimal.
    """

    name: str
    images: int
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"\w[\w.-]*\.tar", self.name):
            raise ValueError(f"{self.name!r} is no name of a shard")
        _checks.integer(f"images of {self.name}", self.images)
        _checks.integer(f"bytes of {self.name}", self.bytes, minimum=2 * BLOCK * self.images)
        if not isinstance(self.sha256, str) or not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError(f"the sha256 of {self.name} must be 64 hexadecimal digits; got {self.sha256!r}")

    @property
    def records(self) -> str:
        """Name of the ``.idx`` file."""
        return f"{self.name.removesuffix('.tar')}.idx"


@dataclass(frozen=True)
class ShardIndex:
    """The content of ``shards.json``.

    Attributes:
        classes: Names of the classes; a label is an index into them.
        img_size: Side in pixels at which the images are best used.
        shards: The shards of each split, in their order.
        made_from: What decided the content of the shards; a run that continues must find the same.
        left_out: Images of the source that could not be read, and why.
        complete: Whether all shards are there.
    """

    classes: tuple[str, ...]
    img_size: int
    shards: dict[str, tuple[Shard, ...]]
    made_from: dict[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    complete: bool = True

    def __post_init__(self) -> None:
        _checks.integer("img_size", self.img_size)
        if not self.classes or not all(isinstance(name, str) for name in self.classes):
            raise ValueError("classes must be names, at least one")
        for split in self.shards:
            _checks.one_of("split", split, SPLITS)
        names = [shard.name for shards in self.shards.values() for shard in shards]
        if len(set(names)) < len(names):
            raise ValueError("a shard is named twice")

    def count(self, split: str) -> int:
        """Return how many images the split has."""
        return sum(shard.images for shard in self.shards.get(split, ()))

    def to_json(self) -> dict[str, Any]:
        """Return what the file holds."""
        return {"format": "foveate shards", "version": VERSION, **dataclasses.asdict(self)}


def read_index(folder: Path) -> ShardIndex:
    """Read and check ``shards.json`` in ``folder``.

    Raises:
        ValueError: It is not there, damaged, or of a newer version.
    """
    path = folder / INDEX
    if not path.is_file():
        raise ValueError(
            f"there is no {INDEX} in {folder}; `foveate shards index {folder}` writes one for its tar files"
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        version = found.pop("version")
        if found.pop("format") != "foveate shards":
            raise ValueError("the format is another")
        if version != VERSION:
            raise ValueError(f"it is of version {version}, and this foveate reads {VERSION}")
        for name in ("classes", "left_out"):
            found[name] = tuple(found[name])
        found["shards"] = {
            split: tuple(Shard(**shard) for shard in shards) for split, shards in found["shards"].items()
        }
        return ShardIndex(**found)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged, or not what `foveate shards` writes ({error}); fetch it again, or move it away and "
            f"write it anew with `foveate shards index {folder}`"
        ) from error


def check_records(folder: Path, shard: Shard) -> Path:
    """Return the file of `read_records`; raise a `ValueError` if it is missing, of another size, or a link out."""
    path = folder / shard.records
    check_inside(str(path), folder)
    if not path.is_file() or path.stat().st_size != 3 * RECORD.itemsize * shard.images:
        raise ValueError(f"{path} is missing or damaged; `foveate shards index {folder}` writes it anew")
    return path


def read_records(folder: Path, shard: Shard, num_classes: int) -> np.ndarray:
    """Return ``(images, 3)`` integers: where in the shard each image begins, its size in bytes, and its class.

    Raises:
        ValueError: The file is missing, damaged or a link that leads out of the folder, or points out of the shard.
    """
    path = check_records(folder, shard)
    records = np.fromfile(path, RECORD).reshape(shard.images, 3)
    offsets, sizes, labels = records.T
    inside = (offsets >= BLOCK) & (offsets < shard.bytes) & (sizes <= shard.bytes - offsets)
    inside &= (sizes >= 0) & (sizes <= MAX_MEMBER)
    if not (inside & (labels >= 0) & (labels < num_classes)).all():
        raise ValueError(f"{path} does not fit {shard.name}; `foveate shards index {folder}` writes it anew")
    return records
