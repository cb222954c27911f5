"""``python -m studies.shards``: how fast images are read from shards, a folder, and through the library webdataset."""

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

from foveate import _checks
from foveate._extras import require
from foveate.benchmark import Quartiles, paired_ratios, quartiles
from foveate.benchmark.interleaving import interleaved
from foveate.benchmark.machine import describe_machine
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
from foveate.io.files import writable_folder, write_json, write_text
from foveate.report.text import markdown

__all__ = ["ShardsConfig", "run", "to_markdown"]

BATCH = 64
SETTINGS = ("img_size", "count", "rounds", "seed")
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


@dataclass(kw_only=True)
class ShardsConfig:
    """Measure how fast images are read from tar shards, from a folder, and through the library webdataset.

    Attributes:
        shards: Folder of the shards, as `foveate shards make` writes it.
        images: Folder of the images that they were made from, to be timed beside; none if not given.
        img_size: Side in pixels of the images that come out.
        count: Images in a sample of those that are decoded.
        rounds: Samples of each reader.
        seed: Decides the orders.
        out: Folder for shards.json and shards.md.
    """

    shards: Path | None = None
    images: Path | None = None
    img_size: int = 224
    count: int = 512
    rounds: int = 15
    seed: int = 0
    out: Path = Path("runs/shards-bench")

    def check(self) -> None:
        """Raise a `ValueError` that names the first setting that is out of its range."""
        if self.shards is None:
            raise ValueError("no shards given; name the folder that `foveate shards make` has written")
        _checks.integer("img_size", self.img_size)
        _checks.integer("count", self.count)
        _checks.integer("rounds", self.rounds, minimum=3)  # for quartiles
        _checks.integer("seed", self.seed, minimum=0)


def run(config: ShardsConfig) -> dict[str, Any]:
    """Time the readers on the training images; write ``shards.json`` and ``shards.md``, print the table, return it.

    Everything runs in one thread of this process. The seconds are those of the processor, which other processes do not
    lengthen, except where the disk is waited for.

    Raises:
        ValueError: A setting is wrong, or a folder is not what it should be.
    """
    config.check()
    assert config.shards is not None
    out = writable_folder(config.out)
    ours = ShardImages(config.shards, "train")
    folder = None if config.images is None else open_folder(config.images).train
    assert folder is None or isinstance(folder, FolderImages)
    paths = [config.shards / shard.name for shard in ours.shards]
    batch = min(BATCH, len(ours))
    result: dict[str, Any] = {
        "machine": describe_machine(torch.device("cpu")),
        "settings": {name: getattr(config, name) for name in ("img_size", "count", "rounds", "seed")}
        | {"batch": batch},
        "images": len(ours),
        "bytes": sum(shard.bytes for shard in ours.shards),
        "shards": len(paths),
        "cases": {},
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    os.sync()  # what has not been written to the disk cannot be forgotten
    try:
        transform = make_transform(TransformConfig.suited_to(config.img_size), training=False)
        decoding = _decoding(ours, folder, paths, transform, config.seed, batch)
        batches = -(-config.count // batch)
        result["cases"]["decoded"] = _case("decoded", decoding, (), batches, batches * batch, config.rounds)
        reading = _reading(ours, folder, paths, config.seed)
        files = [*paths, *(Path(sample.path) for sample in (folder.samples if folder else ()))]
        cases = {"warm": (), "cold": files} if hasattr(os, "posix_fadvise") else {"warm": ()}  # macOS forgets no files
        for name, forgotten in cases.items():
            result["cases"][name] = _case(name, reading, forgotten, None, len(ours), config.rounds)
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
