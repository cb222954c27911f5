"""Shards from a folder of images, continued where an interrupted call stopped."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from foveate.data.decoding import BadImage
from foveate.data.folder import open_folder
from foveate.data.shards.index import INDEX, ShardIndex, read_index
from foveate.data.shards.writing import PlannedShard, plan_shards, source_digest, write_shard
from foveate.io.files import sole_writer, writable_folder, write_json

__all__ = ["make_shards"]


def make_shards(
    folder: Path,
    out: Path,
    *,
    bytes_per_shard: int = 256 * 10**6,
    images_per_shard: int | None = None,
    size_name: str | None = None,
    seed: int = 0,
    data_seed: int = 0,
    decode: bool = False,
    max_bad_images: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> ShardIndex:
    """Write the images of ``folder`` into shards in ``out``, those first that an interrupted call has not written.

    Args:
        folder: Folder of images, see `open_folder`.
        out: Folder of the shards.
        bytes_per_shard: Size of a shard.
        images_per_shard: Number of images in a shard, in place of its size.
        size_name: How the size is noted in the index, such as ``256MB``; the number of bytes if not given.
        seed: Decides the order of the training images.
        data_seed: Decides which images are taken for validation if the folder has none for it.
        decode: Decode every image, and leave out those that cannot be read.
        max_bad_images: How many images may be left out; one more is an error.
        progress: Called with a line for each shard.

    Raises:
        ValueError: ``folder`` holds no images, or ``out``; ``out`` holds other shards; or too many images cannot be
            read.
        OSError: Something cannot be read or written.
        KeyboardInterrupt: Ctrl-C or SIGTERM; what was written is whole.
    """
    if out.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"out: {out} is in the folder of the images, where it would be a class; give one beside it")
    splits = open_folder(folder, seed=data_seed)
    planned = plan_shards(splits, shard_size=bytes_per_shard, images_per_shard=images_per_shard, seed=seed)
    made_from = {
        "seed": seed,
        "per_shard": images_per_shard or size_name or bytes_per_shard,
        "decode": decode,
        "images": source_digest(planned, folder),
    }
    with sole_writer(writable_folder(out)):
        index = _begun(out, ShardIndex(splits.classes, splits.img_size, {}, made_from, complete=False))
        written = {shard.name for shards in index.shards.values() for shard in shards}
        write_json(out / INDEX, index.to_json())
        try:
            for number, shard in enumerate(planned, start=1):
                if shard.name not in written:
                    progress(f"{number}/{len(planned)}  {shard.name}  {len(shard.samples)} images")
                    index = _written(folder, out, index, shard, decode=decode, max_bad_images=max_bad_images)
                    write_json(out / INDEX, index.to_json())
        except KeyboardInterrupt as interrupt:
            interrupt.args = (f"the shards in {out} are whole, and the same command writes the others",)
            raise
        index = dataclasses.replace(index, complete=True)
        write_json(out / INDEX, index.to_json())
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


def _written(
    folder: Path, out: Path, index: ShardIndex, planned: PlannedShard, *, decode: bool, max_bad_images: int
) -> ShardIndex:
    """Write a shard and return the index with it.

    Raises:
        ValueError: More images cannot be read than are put up with.
    """
    shard, bad = write_shard(out, planned, decode=decode)
    # A shard of which no image could be read is not there, and is tried again when the command is.
    left_out = tuple(dict.fromkeys((*index.left_out, *(_relative(image, folder) for image in bad))))
    if len(left_out) > max_bad_images:
        raise ValueError(
            f"could not read {len(left_out)} image(s), and max_bad_images allows {max_bad_images}:\n  "
            + "\n  ".join(left_out)
            + f"\nmend or remove them, or leave them out with --max_bad_images {len(left_out)} or more"
        )
    added = () if shard is None else (shard,)
    shards = index.shards | {planned.split: (*index.shards.get(planned.split, ()), *added)}
    return dataclasses.replace(index, shards=shards, left_out=left_out)


def _relative(bad: BadImage, folder: Path) -> str:
    return str(BadImage(str(Path(bad.path).relative_to(folder)), bad.reason))
