"""The picture at the top of the README: ``python -m studies.picture [FILE]``, one command, half a minute.

The photographs come with scikit-image and are in the public domain: a cat (Stefan van der Walt), a cup (Rachel
Michetti), a rocket (SpaceX). The networks come with this library. They were trained on images of 32×32 pixels and see
these at 64×64, with the relative tables stretched; it is shown where they look, not what they take the images for.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw

import foveate
from foveate.data import make_transform, placement
from foveate.explain import AttentionRecord, Panel, Strip, contact_sheet, overlay
from foveate.io.files import write_bytes

FILE = Path("docs/assets/where.jpg")
SIZE, SIDE = 64, 256
"""Sides of the images that the networks see, and of those in the picture, in pixels."""
MARK = (255, 176, 0)


class Photograph(NamedTuple):
    """A photograph and the pixel whose attention is shown."""

    name: str
    """In `skimage.data`."""
    query: tuple[int, int]
    """Row and column in the square of `SIDE` pixels."""


PHOTOGRAPHS = (Photograph("chelsea", (85, 80)), Photograph("coffee", (100, 76)), Photograph("rocket", (236, 50)))
COLUMNS = {
    "ExpAtt: it attends by distance": ("expatt", "layer2.0.conv2.attention", "both"),
    "GSA: it attends by content": ("gsa", "layer2.0.conv2", "content"),
    "CRAM: one rectangle for all": ("cram", "layer3.attention", ""),
}
"""The heading of each mechanism, the family of its network, the module shown, and the part of its weights."""


def square(name: str) -> Image.Image:
    """Return the middle of a photograph as a square of `SIDE` pixels."""
    from skimage import data  # only here: nothing else needs scikit-image

    image = Image.fromarray(getattr(data, name)()).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def record_of(trained: foveate.TrainedNetwork, image: Image.Image, module: str) -> AttentionRecord:
    """Return what ``module`` attended to in ``image`` at `SIZE` pixels."""
    transform = make_transform(trained.transform.replace(img_size=SIZE), training=False)
    with torch.no_grad():
        return foveate.explain(trained.network, transform(image)[None], names=[module])[module]


def marked(image: Image.Image, query: tuple[int, int]) -> Image.Image:
    """Return the photograph with the pixel encircled."""
    picture, (row, column) = image.copy(), query
    draw = ImageDraw.Draw(picture)
    for radius, width, colour in ((9, 5, (0, 0, 0)), (8, 3, MARK)):
        draw.ellipse([column - radius, row - radius, column + radius, row + radius], outline=colour, width=width)
    return picture


def draw() -> Image.Image:
    """Draw the photographs, one a row, and what each mechanism attends to in them."""
    networks = {family: foveate.load(f"{family}_resnet_tiny.photographs") for family, _, _ in COLUMNS.values()}
    foveate.resize_relative_tables(networks["gsa"].network, SIZE)
    rows = []
    for photograph in PHOTOGRAPHS:
        image = square(photograph.name)
        pictures = [marked(image, photograph.query)]
        query = tuple(at * SIZE // SIDE for at in photograph.query)
        for family, module, part in COLUMNS.values():
            trained = networks[family]
            record = record_of(trained, image, module)
            if part:
                record = record.queried((query[0], query[1]), part=part)
            place = placement(trained.transform.replace(img_size=SIZE), (SIDE, SIDE))
            picture = overlay(image, record, placement=place)
            pictures.append(marked(picture, photograph.query) if part else picture)
        rows.append([Strip([Panel(picture)]) for picture in pictures])
    return contact_sheet(rows, headings=["One pixel of a photograph", *COLUMNS], side=SIDE)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(prog="python -m studies.picture", description=(__doc__ or "").split(":")[0])
    parser.add_argument("file", nargs="?", type=Path, default=FILE, help=f"where to write it (default: {FILE})")
    file = parser.parse_args(argv).file
    stream = io.BytesIO()
    draw().save(stream, "JPEG", quality=88, subsampling=0, optimize=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(file, stream.getvalue())
    print(f"{file}: {len(stream.getvalue()) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
