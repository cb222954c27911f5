"""Boxes of things in images: read from a CSV file, and taken along to the tensors that networks see."""

from __future__ import annotations

import csv
import os
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch.utils.data import Dataset

from foveate._paths import expanded
from foveate.data.placement import placement
from foveate.data.protocols import BoxedImages
from foveate.data.transforms import TransformConfig

__all__ = ["BOXES", "COLUMNS", "FileBox", "InputBoxes", "read_boxes"]

BOXES = "boxes.csv"
"""Name under which `open_folder` looks for the boxes of a folder's images."""
COLUMNS = ("file", "x_min", "y_min", "x_max", "y_max")


class FileBox(NamedTuple):
    """One line of a CSV file of boxes."""

    box: tuple[int, int, int, int]
    """``(x_min, y_min, x_max, y_max)``, the last two exclusive."""
    line: str
    """Where it says so, for messages: the file and the number of the line."""

    def within(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Return the box if it lies in an image of this size, else raise a `ValueError` that names the line."""
        if self.box[2] > width or self.box[3] > height:
            last = f"x_max={self.box[2] - 1}, y_max={self.box[3] - 1}"
            raise ValueError(
                f"{self.line}: {last} lies outside of the image, which has {width}×{height} pixels; x_max and y_max "
                f"name the last column and row of the box, and are at most {width - 1} and {height - 1}"
            )
        return self.box


def read_boxes(path: str | Path, root: str | Path, images: Collection[str]) -> dict[str, FileBox]:
    """Read one box per image from a CSV file.

    Its first line is ``file,x_min,y_min,x_max,y_max``. A file is named by its path from ``root``, with ``/``; the four
    numbers are whole pixels counted from 0, **the last column and row included**, as in the annotations of PASCAL VOC,
    ImageNet and Tiny ImageNet. Empty lines are passed over. Where every image has its box, so are lines that name other
    images: a folder may hold a part of a set. Where an image has none, such a line is taken for a mistake in its name.

    Args:
        path: The CSV file.
        root: What its file names start from.
        images: The paths of the images that there are, each beginning with ``root``.

    Returns:
        By the path of the image.

    Raises:
        ValueError: There is no such file, or a line of it is malformed, has an empty box or one of negative
            coordinates, or names an image that was named before or, while some of ``images`` have no box, is not among
            them. It names file and line.
    """
    path = expanded(path)
    if not path.is_file():
        raise ValueError(f"there is no file of boxes at {path}; give a CSV with the columns {','.join(COLUMNS)}")
    known = dict.fromkeys(images)
    boxes: dict[str, FileBox] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file, strict=True)
            if tuple(next(rows, ())) != COLUMNS:
                raise ValueError(f"{path}, line 1: the columns must be {','.join(COLUMNS)}")
            for row in filter(None, rows):
                line = f"{path}, line {rows.line_num}"
                image, box = str(Path(root, row[0])), _box(row, line)
                if image in boxes:
                    raise ValueError(f"{line}: {row[0]!r} had its box in {boxes[image].line}; an image has one")
                boxes[image] = FileBox(box, line)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a CSV file in UTF-8: {error}") from error
    unknown = next((image for image in boxes if image not in known), None)
    without = next((image for image in known if image not in boxes), None)
    if unknown is not None and without is not None:
        raise ValueError(
            f"{boxes[unknown].line}: there is no image {os.path.relpath(unknown, root)!r} in {root}, where "
            f"{os.path.relpath(without, root)!r} has no box; correct the name, or remove the line"
        )
    return {image: boxes[image] for image in known if image in boxes}


def _box(row: list[str], line: str) -> tuple[int, int, int, int]:
    """Return the box that a row of the file describes."""
    try:
        _, x_min, y_min, x_max, y_max = row[0], *map(int, row[1:])
    except ValueError:  # one that is no whole number, or not four of them
        raise ValueError(
            f"{line}: expected {','.join(COLUMNS)}, the last four whole numbers; got {','.join(row)!r}"
        ) from None
    if not (0 <= x_min <= x_max and 0 <= y_min <= y_max):
        raise ValueError(
            f"{line}: 0 <= x_min <= x_max and 0 <= y_min <= y_max must hold; got {','.join(row[1:])} "
            "(the last column and row are included)"
        )
    return x_min, y_min, x_max + 1, y_max + 1


class InputBoxes(Dataset[tuple[Image.Image, torch.Tensor]]):
    """Images with, in place of the label, all that is known of each: ``[index, label, x_min, y_min, x_max, y_max]``.

    The box is that of the thing *in pixels of the tensor* that evaluation by ``config`` makes of the image: resized and
    cropped as the image is (`Placement.box_to_input`), with fractions. For use with `make_loader` in evaluation, where
    images that cannot be read are left out, so that a row says itself which image it is of.

    Args:
        images: A data set that knows its boxes.
        config: How evaluation prepares the images.
    """

    def __init__(self, images: BoxedImages, config: TransformConfig) -> None:
        self.images = images
        self.config = config

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Image.Image, torch.Tensor]:
        image, label = self.images[index]
        place = placement(self.config, (image.height, image.width))
        box = place.box_to_input(self.images.boxes(index))
        return image, torch.tensor([index, label, *box.tolist()], dtype=torch.float64)
