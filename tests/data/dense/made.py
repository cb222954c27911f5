"""Small sets with masks or boxes, laid out on the disk as the published ones are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tests.made_sets import write_photo

__all__ = ["write_coco", "write_mask", "write_masks", "write_voc", "xml"]

Box = tuple[float, float, float, float]


def write_mask(path: Path, values: np.ndarray, mode: str = "L") -> Path:
    """Write a PNG of these values, gray or with a palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values.astype(np.uint8))
    if mode == "P":
        image = Image.frombytes("P", image.size, image.tobytes())
        image.putpalette(list(range(255, -1, -1)) * 3)
    image.save(path)
    return path


def write_masks(root: Path, counts: Mapping[str, int], classes: int = 3, size: tuple[int, int] = (37, 29)) -> Path:
    """Write a folder of images, of this width and height, and masks: ``{"train": 5, "val": 2}``."""
    for split, count in counts.items():
        for number in range(count):
            write_photo(root / split / "images" / f"{number}.jpg", number=number + 100 * len(split), size=size)
            values = np.random.default_rng(number).integers(0, classes, size[::-1])
            write_mask(root / split / "masks" / f"{number}.png", values, mode="LP"[number % 2])
    return root


def xml(objects: Sequence[tuple[str, Box]], size: tuple[int, int] | None = (37, 29), difficult: Any = 0) -> str:
    """Return an annotation in VOC's form, for an image of this width and height."""
    given = "" if size is None else f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    items = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin>"
        f"<ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for name, box in objects
    )
    return f"<annotation><filename>any.jpg</filename>{given}{items}</annotation>"


def write_voc(root: Path, splits: Mapping[str, Mapping[str, str]], size: tuple[int, int] = (37, 29)) -> Path:
    """Write a folder in VOC's layout: for each split names of images and their XML."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for split, images in splits.items():
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in images))
        for number, (name, text) in enumerate(images.items()):
            write_photo(root / "JPEGImages" / f"{name}.jpg", number=number, size=size)
            (root / "Annotations" / f"{name}.xml").write_text(text, "utf-8")
    return root


def write_coco(root: Path, content: Mapping[str, Mapping[str, Any]], size: tuple[int, int] = (37, 29)) -> Path:
    """Write a folder in COCO's layout: for each split the content of its JSON file, whose images are made."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for split, parts in content.items():
        (root / "annotations" / f"{split}.json").write_text(json.dumps(parts))
        for number, image in enumerate(parts["images"]):
            write_photo(root / split / image["file_name"], number=number, size=size)
    return root
