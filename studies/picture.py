"""The picture at the top of the README: ``python -m studies.picture [FILE]``, one command, some seconds.

The photograph comes with scikit-learn: a dahlia (vultilion on Flickr, CC BY 2.0). The network comes with this
library, and knows 89 kinds of flowers. It is shown the photograph as it is, with the flower elsewhere, and
turned and nearer; of each it sees all that is in the picture. It is shown where it looks, not what it takes the flower
for: of this one it is unsure.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

import foveate
from foveate.data import make_transform, placement
from foveate.explain import Panel, Strip, contact_sheet, overlay
from foveate.io.files import write_bytes

FILE = Path("docs/assets/where.jpg")
NETWORK = "cram_tf_efficientnet_lite0.flowers"
SIDE = 256
"""Side of the squares in the picture, in pixels."""


class View(NamedTuple):
    """A square part of the photograph."""

    heading: str
    center: tuple[int, int]
    """x and y of its middle, in pixels of the photograph."""
    side: int
    angle: float = 0.0
    """By how many degrees the photograph is turned about that point first."""


VIEWS = (
    View("A photograph", (307, 213), 427),
    View("The flower elsewhere", (214, 213), 427),
    View("Nearer, and turned", (307, 213), 330, 35.0),
)


def square(view: View) -> Image.Image:
    """Return a part of the photograph as a square of `SIDE` pixels."""
    from sklearn.datasets import load_sample_image

    image = Image.fromarray(load_sample_image("flower.jpg"))
    image = image.rotate(view.angle, Image.Resampling.BICUBIC, center=view.center)
    (x, y), half = view.center, view.side / 2
    box = (max(0, x - half), max(0, y - half), x + half, y + half)
    return image.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=box)


def draw(trained: foveate.TrainedNetwork) -> Image.Image:
    """Draw the parts of the photograph above, and where the network looks in each below."""
    transform = trained.transform.replace(crop_pct=1.0)
    photographs, looked = [], []
    for view in VIEWS:
        image = square(view)
        prepared = make_transform(transform, training=False)(image)[None]
        (record,) = foveate.explain(trained.network, prepared).records
        picture = overlay(image, record, placement=placement(transform, (SIDE, SIDE)))
        photographs.append(Strip([Panel(image)]))
        looked.append(Strip([Panel(picture)]))
    return contact_sheet([photographs, looked], headings=[view.heading for view in VIEWS], side=SIDE)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(prog="python -m studies.picture", description=(__doc__ or "").split(":")[0])
    parser.add_argument("file", nargs="?", type=Path, default=FILE, help=f"where to write it (default: {FILE})")
    parser.add_argument("--network", default=NETWORK, help=f"as foveate.load takes it (default: {NETWORK})")
    given = parser.parse_args(argv)
    stream = io.BytesIO()
    with torch.no_grad():
        draw(foveate.load(given.network)).save(stream, "JPEG", quality=88, subsampling=0, optimize=True)
    given.file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(given.file, stream.getvalue())
    print(f"{given.file}: {len(stream.getvalue()) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
