"""Shards made from a folder of images, the same to the bit for the same folder and seed."""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from foveate.data.decoding import BadImage, UnreadableImageError, check_image
from foveate.data.files import image_ending
from foveate.data.folder import FolderImages, Labelled
from foveate.data.shards.index import BLOCK, MAX_MEMBER, RECORD, SPLITS, Shard
from foveate.data.splitting import Splits

__all__ = ["PlannedShard", "plan_shards", "source_digest", "write_records", "write_shard"]

END = bytes(2 * BLOCK)
STEM_LENGTH = 60


@dataclass(frozen=True)
class PlannedShard:
    """A shard that is to be written.

    Attributes:
        split: ``train``, ``val`` or ``test``.
        name: Its name.
        first: The number of its first image in the split.
        samples: The files that go into it.
    """

    split: str
    name: str
    first: int
    samples: Sequence[Labelled]


def plan_shards(
    splits: Splits, *, shard_size: int, images_per_shard: int | None = None, seed: int = 0
) -> list[PlannedShard]:
    """Decide which images go into which shard.

    The training images are shuffled, so that every shard is a sample of all classes: a reader mixes only the shards
    that it reads at the same time. The others stay in their order.

    Args:
        splits: A folder of images, opened with `open_folder`.
        shard_size: The most bytes of a shard; one with a single image may have more.
        images_per_shard: The number of images in each shard but the last, in place of ``shard_size``.
        seed: Decides the order.

    Raises:
        ValueError: A file is larger than readers take, or is a pipe or a device.
    """
    planned = []
    for split in SPLITS:
        images = getattr(splits, split)
        if images is None:
            continue
        assert isinstance(images, FolderImages)
        samples = images.samples
        if split == "train":
            samples = [samples[i] for i in np.random.default_rng(seed).permutation(len(samples))]
        sizes = [_size_in_tar(sample.path) for sample in samples]
        cuts = _cuts(sizes, shard_size) if images_per_shard is None else [*range(0, len(samples), images_per_shard)]
        for number, (first, after) in enumerate(zip(cuts, [*cuts[1:], len(samples)], strict=True)):
            planned.append(PlannedShard(split, f"{split}-{number:06d}.tar", first, samples[first:after]))
    return planned


def source_digest(planned: Sequence[PlannedShard], folder: Path) -> str:
    """Return a SHA-256 of the names, sizes and labels of the planned images: it tells whether a folder has changed."""
    hashed = hashlib.sha256()
    for shard in planned:
        for path, label in shard.samples:
            line = f"{shard.name}\0{os.path.relpath(path, folder)}\0{os.path.getsize(path)}\0{label}\n"
            hashed.update(line.encode("utf-8", "surrogateescape"))
    return hashed.hexdigest()


def write_shard(folder: Path, planned: PlannedShard, *, decode: bool = False) -> tuple[Shard | None, list[BadImage]]:
    """Write a shard and its records, whole or not at all; return its entry in the index, and the images left out.

    Args:
        folder: Where to.
        planned: What goes into it.
        decode: Decode every image, and leave those out that cannot be read. If that is all, there is no shard.

    Raises:
        OSError: An image cannot be read, or the shard cannot be written.
    """
    records: list[tuple[int, int, int]] = []
    bad = []
    hashed, offset = hashlib.sha256(), 0
    with _whole_file(folder / planned.name) as file:
        for number, (path, label) in enumerate(planned.samples, start=planned.first):
            content = Path(path).read_bytes()
            if decode:
                try:
                    check_image(content, name=path)
                except UnreadableImageError as error:
                    bad.append(error.bad)
                    continue
            stem = os.path.splitext(os.path.basename(path))[0]
            key = f"{number:08d}-{re.sub(r'[^A-Za-z0-9_-]+', '_', stem)[:STEM_LENGTH]}"
            both = _member(key + image_ending(path), content) + _member(f"{key}.cls", str(label).encode())
            records.append((offset + BLOCK, len(content), label))
            offset += len(both)
            hashed.update(both)
            file.write(both)
        hashed.update(END)
        file.write(END)
    if not records:
        (folder / planned.name).unlink()
        return None, bad
    shard = Shard(planned.name, len(records), offset + len(END), hashed.hexdigest())
    write_records(folder, shard, np.array(records))
    return shard, bad


def write_records(folder: Path, shard: Shard, records: np.ndarray) -> None:
    """Write the ``.idx`` file of a shard, whole or not at all."""
    with _whole_file(folder / shard.records) as file:
        file.write(records.astype(RECORD).tobytes())


def _member(name: str, content: bytes) -> bytes:
    """Return one member of a tar file; time, owner and mode are always the same."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % BLOCK)


def _size_in_tar(path: str) -> int:
    if not os.path.isfile(path):
        raise ValueError(f"{path} is a pipe or a device, not a file; remove it")  # which one would wait for
    size = os.path.getsize(path)
    if size > MAX_MEMBER:
        raise ValueError(f"{path} has {size} bytes; readers of shards take at most {MAX_MEMBER}")
    return BLOCK + size + -size % BLOCK + 2 * BLOCK  # its header, and that and the block of the .cls


def _cuts(sizes: Sequence[int], shard_size: int) -> list[int]:
    """Return where the shards begin."""
    cuts: list[int] = []
    room = 0
    for number, size in enumerate(sizes):
        if not cuts or size > room:
            cuts.append(number)
            room = shard_size - len(END)
        room -= size
    return cuts


@contextmanager
def _whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to write beside ``path``; move it there, once it is on the disk, at the end of the block."""
    temporary = path.with_name(f".{path.name}.tmp")  # one that a killed process left is written over
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        ours = error.filename in (None, str(temporary))
        raise OSError(error.errno, error.strerror, str(path) if ours else error.filename) from error
    finally:
        with suppress(OSError):  # not in place of what went wrong before
            temporary.unlink(missing_ok=True)
