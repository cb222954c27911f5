"""Images read out of shards, without unpacking them."""

from __future__ import annotations

import bisect
import io
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from foveate import _checks
from foveate.data.decoding import BadImage, UnreadableImageError, read_image, warn_of_narrow_range
from foveate.data.files import check_inside
from foveate.data.shards.index import BLOCK, SPLITS, ShardIndex, check_records, read_index, read_records
from foveate.data.shards.order import LANES, ShardOrder
from foveate.data.splitting import Splits, equally_spaced

__all__ = ["ShardImages", "ShardSample", "open_shards", "some_files"]

MAX_OPEN = 2 * LANES
"""Shards that a process holds open: those that are being read, and those that they take over from."""


class _Open(NamedTuple):
    file: IO[bytes]
    records: np.ndarray


class ShardSample(NamedTuple):
    """An image as it lies in a shard.

    Attributes:
        name: Its shard and its name in it.
        content: The bytes of the file.
        label: The index of its class.
    """

    name: str
    content: bytes
    label: int


class ShardImages(Dataset[tuple[Image.Image, int]]):
    """RGB images of one split of a folder of shards, by number: in the order of the shards, and within them.

    Nothing is unpacked to the disk, and no more is held in memory than the image that is being decoded and the places
    of the images of a few shards. Any number of processes may read the same shards.

    Args:
        folder: The folder of the shards.
        split: ``train``, ``val`` or ``test``.
        index: What ``shards.json`` in ``folder`` holds, if it has been read.
        intensity_range: For 16-bit grayscale, what becomes black and what white, see `read_image`.

    Raises:
        ValueError: The index is missing or damaged, or a shard or what says where its images are is missing, has
            another size than it should, or is a link that leads out of the folder.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        index: ShardIndex | None = None,
        *,
        intensity_range: tuple[float, float] | None = None,
    ) -> None:
        self.folder = folder
        self.split = split
        self.intensity_range = intensity_range
        self.index = read_index(folder) if index is None else index
        self.shards = self.index.shards[_checks.one_of("split", split, self.index.shards)]
        self._ends = list(itertools.accumulate(shard.images for shard in self.shards))
        self._open: dict[int, _Open] = {}
        for shard in self.shards:
            path = folder / shard.name
            check_inside(str(path), folder)
            if not path.is_file():
                raise ValueError(f"the shard {path} is missing; fetch it again")
            if (size := path.stat().st_size) != shard.bytes:
                raise ValueError(
                    f"the shard {path} is {'truncated' if size < shard.bytes else 'not the one in the index'}: it has "
                    f"{size} bytes and should have {shard.bytes}; fetch it again"
                )
            check_records(folder, shard)

    def __reduce__(self) -> tuple[Callable[..., ShardImages], tuple[Path, str]]:
        # A process that is not forked opens the files itself.
        return partial(ShardImages, intensity_range=self.intensity_range), (self.folder, self.split)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        sample = self.sample(index)
        content = io.BytesIO(sample.content)
        return read_image(content, name=sample.name, intensity_range=self.intensity_range), sample.label

    def name_of(self, index: int) -> str:
        """Return the name of an image in its shard."""
        return self.sample(index).name

    def entries(self) -> Iterator[tuple[str, None]]:
        """Yield the name of each shard with its SHA-256; it has images of several labels."""
        for shard in self.shards:
            yield f"{shard.name} {shard.sha256}", None

    def shuffled(self, positions: range, *, seed: int, epoch: int) -> Iterator[int]:
        """Yield the numbers of the images at ``positions`` of the random order of ``epoch``, see `ShardOrder`."""
        return ShardOrder([shard.images for shard in self.shards], seed=seed, epoch=epoch).at(positions)

    def sample(self, index: int) -> ShardSample:
        """Return image ``index`` undecoded.

        Raises:
            IndexError: ``index`` is not from 0 to the number of images.
            UnreadableImageError: The shard cannot be read, or ends inside of the image.
            ValueError: The index of the shard is damaged.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"index must be from 0 to {len(self) - 1}; got {index}")
        number = bisect.bisect_right(self._ends, index)
        shard = self.shards[number]
        within = index - self._ends[number] + shard.images
        place = f"{self.folder / shard.name}, image {within}"
        try:
            opened = self._opened(number)
            offset, size, label = opened.records[within].tolist()
            found = os.pread(opened.file.fileno(), BLOCK + size, offset - BLOCK)  # of a file that others may share
        except OSError as error:
            raise UnreadableImageError(BadImage(place, str(error))) from error
        if len(found) < BLOCK + size:
            raise UnreadableImageError(BadImage(place, "the shard ends before or inside of it"))
        name = found[:100].rstrip(bytes(1)).decode("utf-8", "backslashreplace")
        return ShardSample(f"{self.folder / shard.name}/{name}", found[BLOCK:], label)

    def _opened(self, number: int) -> _Open:
        if number not in self._open:
            if len(self._open) == MAX_OPEN:
                self._open.pop(next(iter(self._open))).file.close()
            shard = self.shards[number]
            records = read_records(self.folder, shard, len(self.index.classes))
            self._open[number] = _Open((self.folder / shard.name).open("rb", buffering=0), records)
        return self._open[number]


def some_files(images: ShardImages, number: int = 16) -> Iterator[IO[bytes]]:
    """Yield the content of some files at equal distances, without those that cannot be read."""
    for index in equally_spaced(len(images), number):
        with suppress(UnreadableImageError):
            yield io.BytesIO(images.sample(index).content)


def open_shards(folder: Path, *, intensity_range: tuple[float, float] | None = None) -> Splits:
    """Open a folder of shards.

    Args:
        folder: The folder.
        intensity_range: For 16-bit grayscale, what becomes black and what white, see `read_image`.

    Raises:
        ValueError: The index is missing, damaged or incomplete, a shard is missing or truncated, or there are no images
            to train on or none to validate on.
    """
    index = read_index(folder)
    if not index.complete:
        raise ValueError(f"not all shards of {folder} were written; the command that began it continues it")
    if lacking := [split for split in ("train", "val") if not index.count(split)]:
        raise ValueError(
            f"{folder} has no shards called {' nor '.join(f'{split}-000000.tar' for split in lacking)}; "
            "make some, or rename those that are to serve as such and run `foveate shards index`"
        )
    train, val, test = (
        ShardImages(folder, split, index, intensity_range=intensity_range) if index.count(split) else None
        for split in SPLITS
    )
    assert train is not None
    assert val is not None
    if intensity_range is None:
        warn_of_narrow_range(some_files(train))
    return Splits(index.classes, train, val, test, index.img_size)
