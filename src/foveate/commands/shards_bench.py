"""How fast images are read from shards, from a folder, and through the library webdataset, measured side by side."""

from __future__ import annotations

import io
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import default_collate

from foveate._extras import require
from foveate.benchmark import Quartiles, paired_ratios, quartiles
from foveate.benchmark.interleaving import interleaved
from foveate.benchmark.machine import describe_machine
from foveate.commands._text import markdown
from foveate.data import (
    FolderImages,
    LabelledImages,
    ShardImages,
    TransformConfig,
    make_loader,
    make_transform,
    open_folder,
    read_image,
)
from foveate.data.folder import EXTENSIONS
from foveate.io.files import write_json, write_text

__all__ = ["measure", "to_markdown"]

BATCH = 64
BUFFER = 2048
"""Images among which webdataset shuffles."""
WARMUP = 1
OURS, FOLDER, WEBDATASET = "shards", "folder", "webdataset"
CASES = {
    "decoded": "read, decoded, resized, normalised, in batches; the files in memory",
    "warm": "read only, a whole epoch; the files in memory",
    "cold": "read only, a whole epoch; nothing of the files in memory",
}
Reader = Callable[[int], Iterable[Any]]
"""Gives the batches, or the bytes of the images, of an epoch."""
Transform = Callable[[Image.Image], torch.Tensor]


def measure(
    shards: Path, out: Path, *, images: Path | None, img_size: int, count: int, rounds: int, seed: int
) -> dict[str, Any]:
    """Time the readers on the training images; write ``shards.json`` and ``shards.md`` in ``out``, print the table.

    Everything runs in one thread of this process. The seconds are those of the processor, which other processes do not
    lengthen, except where the disk is waited for.

    Args:
        shards: Folder of the shards.
        out: Folder of the results.
        images: Folder that they were made from; if not given, no folder is read.
        img_size: Side of the images that come out.
        count: Images in a sample of those that are decoded.
        rounds: Samples of each reader.
        seed: Decides the orders.
    """
    ours = ShardImages(shards, "train")
    folder = None if images is None else open_folder(images).train
    assert folder is None or isinstance(folder, FolderImages)
    paths = [shards / shard.name for shard in ours.shards]
    batch = min(BATCH, len(ours))
    result: dict[str, Any] = {
        "machine": describe_machine(torch.device("cpu")),
        "settings": {"img_size": img_size, "count": count, "rounds": rounds, "seed": seed, "batch": batch},
        "images": len(ours),
        "bytes": sum(shard.bytes for shard in ours.shards),
        "shards": len(paths),
        "cases": {},
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    os.sync()  # what has not been written to the disk cannot be forgotten
    try:
        transform = make_transform(TransformConfig.suited_to(img_size), training=False)
        decoding = _decoding(ours, folder, paths, transform, seed, batch)
        batches = -(-count // batch)
        result["cases"]["decoded"] = _case("decoded", decoding, (), batches, batches * batch, rounds)
        reading = _reading(ours, folder, paths, seed)
        files = [*paths, *(Path(sample.path) for sample in (folder.samples if folder else ()))]
        for name, forgotten in {"warm": (), "cold": files}.items():
            result["cases"][name] = _case(name, reading, forgotten, None, len(ours), rounds)
    finally:
        torch.set_num_threads(threads)
    write_json(out / "shards.json", result)
    write_text(out / "shards.md", to_markdown(result))
    print(f"{to_markdown(result)}\nsaved in {out}: shards.json, shards.md")
    return result


def to_markdown(result: Mapping[str, Any]) -> str:
    """Return the tables: images a second, in the median with quartiles, and as often as the folder's."""
    machine, settings = result["machine"], result["settings"]
    side, size = settings["img_size"], result["bytes"] / result["images"] / 1e3
    parts = [
        "# Reading images",
        f"{machine['date']}; {machine['cpu']}; one thread; {result['images']:,} images of {size:.1f} kB in the mean, "
        f"in {result['shards']} shards; decoded ones come out at {side}×{side}. Medians and quartiles of "
        f"{settings['rounds']} rounds, in each of which every reader runs once. Seconds are those of the processor; "
        "where the files are not in memory, those of the clock.",
    ]
    for case, measured in result["cases"].items():
        clock = "wall" if case == "cold" else "cpu"
        seconds = {name: times[clock] for name, times in measured["readers"].items()}
        base = seconds.get(FOLDER, seconds[OURS])
        rows = [
            [
                name,
                _figures(quartiles(measured["count"] / x for x in values), "{:,.0f}"),
                _figures(paired_ratios(base, values), "{:.2f}"),
            ]
            for name, values in seconds.items()
        ]
        than = FOLDER if FOLDER in seconds else OURS
        parts += [f"## {CASES[case].capitalize()}", markdown(["reader", "images/s", f"times {than}"], rows)]
    return "\n\n".join(parts) + "\n"


def _figures(found: Quartiles, form: str) -> str:
    return f"{form.format(found.median)} ({form.format(found.q1)} to {form.format(found.q3)})"


def _case(
    name: str, readers: Mapping[str, Reader], forgotten: Sequence[Path], batches: int | None, count: int, rounds: int
) -> dict[str, Any]:
    """Time the readers of a case: so many batches in a sample, or a whole epoch."""
    print(f"{name}: {CASES[name]}", file=sys.stderr, flush=True)
    calls = {reader: _Timed(_samples(epoch, batches), forgotten) for reader, epoch in readers.items()}
    interleaved(calls, rounds=rounds, warmup=WARMUP, device=torch.device("cpu"))
    times = {reader: {"wall": call.wall[WARMUP:], "cpu": call.cpu[WARMUP:]} for reader, call in calls.items()}
    return {"count": count, "readers": times}


@dataclass
class _Timed:
    """A call that takes one sample, and notes how long that took; what precedes it does not count."""

    samples: Iterator[Iterable[Any]]
    forgotten: Sequence[Path]
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def __call__(self) -> None:
        for path in self.forgotten:
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in next(self.samples):
            pass
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)


def _samples(reader: Reader, batches: int | None) -> Iterator[Iterable[Any]]:
    """Yield epoch after epoch, or so many batches at a time of one epoch after the other."""
    epochs = map(reader, itertools.count())
    if batches is None:
        yield from epochs
    whole = itertools.chain.from_iterable(epochs)
    while True:
        yield itertools.islice(whole, batches)


def _decoding(
    ours: ShardImages, folder: FolderImages | None, paths: list[Path], transform: Transform, seed: int, batch: int
) -> dict[str, Reader]:
    """Return the readers that give batches of an epoch."""

    def loader(images: LabelledImages) -> Reader:
        loader = make_loader(
            images, transform=transform, batch_size=batch, training=True, seed=seed, max_bad_images=len(images)
        )

        def batches(epoch: int) -> Iterable[Any]:
            loader.set_epoch(epoch)
            return loader

        return batches

    def webdataset(epoch: int) -> Iterator[Any]:
        samples = _webdataset(paths, seed + epoch)
        decoded = ((transform(read_image(io.BytesIO(content))), int(label)) for content, label in samples)
        while len(items := list(itertools.islice(decoded, batch))) == batch:
            yield default_collate(items)

    readers = {OURS: loader(ours), WEBDATASET: webdataset}
    return readers | ({FOLDER: loader(folder)} if folder else {})


def _reading(ours: ShardImages, folder: FolderImages | None, paths: list[Path], seed: int) -> dict[str, Reader]:
    """Return the readers that give the bytes of the images of an epoch."""

    def shards(epoch: int) -> Iterator[bytes]:
        return (ours.sample(i).content for i in ours.shuffled(range(len(ours)), seed=seed, epoch=epoch))

    def files(epoch: int) -> Iterator[bytes]:
        assert folder is not None
        order = np.random.default_rng([seed, epoch]).permutation(len(folder))
        return (Path(folder.samples[i].path).read_bytes() for i in order)

    def webdataset(epoch: int) -> Iterator[bytes]:
        return (content for content, _ in _webdataset(paths, seed + epoch))

    readers: dict[str, Reader] = {OURS: shards, WEBDATASET: webdataset}
    return readers | ({FOLDER: files} if folder else {})


def _webdataset(paths: list[Path], seed: int) -> Iterable[tuple[bytes, bytes]]:
    """Return an epoch read as WebDataset's documentation advises: shards shuffled, images shuffled in a buffer."""
    library = require("webdataset", extra="dev")
    images = library.WebDataset([str(path) for path in paths], shardshuffle=len(paths), seed=seed)
    extensions = ";".join(extension.removeprefix(".") for extension in EXTENSIONS)
    return images.shuffle(BUFFER, seed=seed).to_tuple(extensions, "cls")
