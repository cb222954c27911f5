"""Looking through tar files that anybody may have made: where their images lie, and whether all is well with them."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

from foveate.data.decoding import UnreadableImageError, check_image
from foveate.data.files import is_image, is_junk
from foveate.data.layout import SPLIT_NAMES
from foveate.data.shards.index import BLOCK, MAX_MEMBER, Shard, read_records

__all__ = ["check_shard", "digest", "find_shards", "index_shard"]

MAX_HEADER = 2**16
"""The most bytes of a header that goes on over several blocks, as one with a long name does."""
MAX_LABEL = 20
"""The most bytes of a ``.cls``."""


class _Headers(io.BufferedReader):
    """A file out of which `tarfile` reads headers, and no header that would fill the memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= MAX_HEADER:
            raise tarfile.HeaderError(f"a header of {size} bytes")
        return super().read(size)


@dataclass
class _Sample:
    key: str
    image: tuple[int, int] | None = None
    label: int | None = None


def find_shards(folder: Path) -> dict[str, list[str]]:
    """Return the names of the tar files in ``folder``, by split and in their order.

    A name ends in the split and a number, as ``train-000000.tar`` and ``imagenet1k-validation-07.tar`` do.

    Raises:
        ValueError: There is none, the name of one tells no split, or one is a link that leads out of ``folder``.
    """
    splits = {name: split for split, names in SPLIT_NAMES.items() for name in names}
    found: dict[str, list[str]] = {split: [] for split in SPLIT_NAMES}
    paths = sorted(path for path in folder.glob("*.tar") if not is_junk(path.name))
    if not paths:
        raise ValueError(f"there is no tar file in {folder}")
    for path in paths:
        parts = re.fullmatch(rf"(?:.*[-_.])?({'|'.join(splits)})[-_.]?\d+\.tar", path.name.lower())
        if parts is None:
            raise ValueError(
                f"the name of {path} tells no split; call it {'-000000.tar, '.join(SPLIT_NAMES)}-000000.tar"
            )
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{path} is a link to {path.resolve()}, outside of the folder; put the file there instead")
        found[splits[parts[1]]].append(path.name)
    return found


def index_shard(path: Path) -> tuple[Shard, np.ndarray]:
    """Read through a tar file; return its entry in the index and its records, as `read_records` gives them.

    Raises:
        ValueError: It is no tar file or is truncated, a member is a link or a device, is too large, or has a name that
            leads out of the folder, or a sample has no image, more than one, or no ``.cls``.
    """
    samples = list(_samples(path))
    if not samples:
        raise ValueError(f"{path} holds no image")
    records = np.array([(*sample.image, sample.label) for sample in samples if sample.image], dtype=np.int64)
    return Shard(path.name, len(records), path.stat().st_size, digest(path)), records


def check_shard(folder: Path, shard: Shard, num_classes: int, *, decode: bool = False) -> list[str]:
    """Return a list of what is wrong with a shard; empty if it agrees with the index.

    Args:
        folder: The folder of the shards.
        shard: Its entry in the index.
        num_classes: Number of classes in the index.
        decode: Decode every image, too.
    """
    path = folder / shard.name
    try:
        found, records = index_shard(path)
        if found != shard:
            return [
                f"{path} is not the shard in the index: {found.images} images in {found.bytes} bytes with SHA-256 "
                f"{found.sha256}, in place of {shard.images}, {shard.bytes}, {shard.sha256}"
            ]
        if not np.array_equal(records, read_records(folder, shard, num_classes)):
            return [f"{folder / shard.records} does not fit {path}; `foveate shards index {folder}` writes it anew"]
    except (OSError, ValueError) as error:
        return [str(error)]
    wrong = []
    with path.open("rb") as file:
        for number, (offset, size, _) in enumerate(records.tolist() if decode else ()):
            file.seek(offset)
            try:
                check_image(file.read(size), name=f"{path}, image {number}")
            except UnreadableImageError as error:
                wrong.append(str(error))
    return wrong


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _samples(path: Path) -> Iterator[_Sample]:
    """Yield the samples of a tar file, each checked to be whole."""
    sample = None
    with path.open("rb") as content:
        for member in _members(path):
            folder, _, name = member.name.rpartition("/")
            if any(map(is_junk, PurePosixPath(member.name).parts)):
                continue
            stem, _, extension = name.partition(".")
            extension = extension.lower()
            key = f"{folder}/{stem}"
            if sample is None or key != sample.key:
                if sample is not None:
                    yield _whole(path, sample)
                sample = _Sample(key)
            if extension == "cls":
                content.seek(member.offset_data)
                sample.label = _label(path, member, content)
            elif "." not in extension and is_image(f"_.{extension}"):  # KEY.seg.png is another thing than KEY.png
                if sample.image is not None:
                    raise ValueError(f"{path}: the sample {key} has two images")
                sample.image = (member.offset_data, member.size)
    if sample is not None:
        yield _whole(path, sample)


def _members(path: Path) -> Iterator[tarfile.TarInfo]:
    """Yield the regular files in a tar file; `tarfile` itself takes one that breaks off for one that ends."""
    size, end = path.stat().st_size, 0
    try:
        with _Headers(path.open("rb", buffering=0)) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # of the many, none is needed again
                if member.isdir():
                    continue
                _check_member(path, member)
                if not end < member.offset_data <= size - member.size:
                    raise ValueError(f"{path} is truncated or damaged: {member.name!r} reaches beyond its end")
                end = member.offset_data + member.size
                yield member
            file.seek(tar.offset)
            if file.read(BLOCK) != bytes(BLOCK):
                raise ValueError(f"{path} is truncated or damaged after {tar.offset} bytes")
    except (tarfile.TarError, EOFError, RecursionError, OverflowError) as error:
        raise ValueError(f"{path} is no tar file, or is truncated or damaged: {error}") from error


def _check_member(path: Path, member: tarfile.TarInfo) -> None:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or not member.name.isprintable():
        raise ValueError(f"{path}: a member is called {member.name!r}; such a name is not read")
    if not member.isreg() or member.issparse():
        raise ValueError(f"{path}: {member.name!r} is a link, a device or the like; only plain files are read")
    if not 0 <= member.size <= MAX_MEMBER:
        raise ValueError(f"{path}: {member.name!r} has {member.size} bytes; at most {MAX_MEMBER} are read")


def _label(path: Path, member: tarfile.TarInfo, content: IO[bytes]) -> int:
    text = content.read(min(member.size, MAX_LABEL + 1))
    if member.size > MAX_LABEL or not re.fullmatch(rb"\s*\d{1,9}\s*", text):
        raise ValueError(f"{path}: {member.name!r} must hold the number of a class; it begins {text!r}")
    return int(text)


def _whole(path: Path, sample: _Sample) -> _Sample:
    if sample.image is None or sample.label is None:
        raise ValueError(f"{path}: the sample {sample.key} lacks {'an image' if sample.image is None else 'a .cls'}")
    return sample
