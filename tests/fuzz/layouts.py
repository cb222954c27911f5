"""Plain folders of images, how they are written, and the harmless and wrong changes that are known."""

from __future__ import annotations

import csv
import io
import os
import random
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = {
    "train": ("train", "Train", "TRAIN", "training", "Training"),
    "val": ("val", "Val", "valid", "validation", "Validation", "dev", "VALID"),
    "test": ("test", "Test", "testing", "Testing", "eval", "evaluation"),
}


CLASSES = (
    *(
        "ant",
        "bee",
        "Bee",
        "cat",
        "dog",
        "0",
        "1",
        "2",
        "10",
        "007",
        "café",
        "naïve",
        "ÅNGSTRÖM",
        "한국",
        "東京",
        "with space",
    ),
    *(
        "train_station",
        "bullet train",
        "a.b",
        "x-ray",
        "n01440764",
        "images of it",
        "-",
        "O'Neil",
        "b\udcffd",
        "#1",
        "%s",
    ),
)


ENDINGS = (".png", ".PNG", ".jpg", ".JPEG", ".jfif", ".jpe", ".webp", ".gif", ".bmp", ".tif", "", ".jpg_large", ".1")


SNIFFED = ("", ".jpg_large", ".1")
"""Endings of which the content decides; formats without a clear signature are not written under them."""


KINDS = ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP")


@dataclass
class Layout:
    """A folder to be made.

    Attributes:
        splits: The name of the folder of each split; none if it is divided by the library.
        images: For each split and class, the paths of the images from the folder of the split.
    """

    splits: dict[str, str]
    images: dict[str, dict[str, list[str]]]
    others: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    refused: bool = False

    def place(self, split: str) -> str:
        """Return the folder of a split, with a slash."""
        return f"{self.splits[split]}/" if self.splits else ""


def plain(rng: random.Random) -> Layout:
    """Return a layout that is right: splits or none, some classes."""
    classes = rng.sample(CLASSES, rng.randint(2, 5))
    chosen = rng.choice([(), ("train",), ("train", "val"), ("train", "test"), ("train", "val", "test")])
    splits = {split: rng.choice(NAMES[split]) for split in chosen}
    images = {
        split: {name: [f"{name}/{i}{rng.choice(ENDINGS[:2])}" for i in range(rng.randint(5, 7))] for name in classes}
        for split in chosen or ("train",)
    }
    return Layout(splits, images)


def written(layout: Layout, top: Path, rng: random.Random) -> dict[str, dict[str, set[bytes]]]:
    """Write the folder; return the contents of the images of each class in each split."""
    contents: dict[str, dict[str, set[bytes]]] = {}
    for split, classes in layout.images.items():
        for name, paths in classes.items():
            for path in paths:
                content = picture(rng, os.path.splitext(path)[1])
                write(top / (layout.place(split) + path), content)
                of_class = unicodedata.normalize("NFC", name)
                contents.setdefault(split, {}).setdefault(of_class, set()).add(content)
    for path, content in layout.others.items():
        write(top / path, content)
    for path, place in layout.moved.items():
        if (top / path).exists():
            (top / place).parent.mkdir(parents=True, exist_ok=True)
            (top / path).rename(top / place)
    for path in layout.empty:
        (top / path).mkdir(parents=True, exist_ok=True)
    for path, target in layout.links.items():
        if (top / path).exists():
            continue  # the class is one that the split has without an image
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).symlink_to(target)
    return contents


def picture(rng: random.Random, ending: str) -> bytes:
    """Return an image like no other, in any format whatever its ending is."""
    pixels = np.random.default_rng(rng.getrandbits(32)).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    kind = rng.choice(KINDS[:-1] if ending in SNIFFED else KINDS)
    animated = {"save_all": True, "append_images": [Image.fromarray(255 - pixels)]} if kind in ("WEBP", "GIF") else {}
    Image.fromarray(pixels).save(buffer, kind, **animated)
    return buffer.getvalue()


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def change(function: Callable[[Layout, random.Random], None]) -> Callable[[Layout, random.Random], None]:
    """Note what was done, by the first line of the function's docstring."""

    def noted(layout: Layout, rng: random.Random) -> None:
        function(layout, rng)
        layout.done.append((function.__doc__ or "").partition("\n")[0].rstrip("."))

    return noted


def any_class(layout: Layout, rng: random.Random) -> tuple[str, str]:
    """Return the place of a split, and that of one of its classes."""
    split = rng.choice(list(layout.images))
    place = layout.place(split)
    return place, place + os.path.dirname(rng.choice([paths[0] for paths in layout.images[split].values()]))


def csv_of(header: tuple[str, ...], rows: list[tuple]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([header, *rows])
    return text.getvalue().encode()


def renamed_all(layout: Layout, rename: Callable[[str, str], str]) -> None:
    """Give each image of each split another path."""
    for split, classes in layout.images.items():
        for paths in classes.values():
            paths[:] = [rename(split, path) for path in paths]
