"""Segmentation: images with masks, PNG files whose values are indices of classes."""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from foveate import _checks
from foveate.data.decoding import BadImage, naming, open_image
from foveate.data.dense.objects import VOID
from foveate.data.dense.parts import SIZES_TRIED, TargetImages, divided, image_files, unread
from foveate.data.layout import find_splits
from foveate.data.splitting import equally_spaced
from foveate.io.files import read_text

__all__ = ["MaskClasses", "MaskSample", "open_masks", "read_mask"]

logger = logging.getLogger(__name__)

OPTIONS = ("void", "classes")
EXPECTED = (
    "expected is train/images/NAME.jpg with train/masks/NAME.png, and the same in val/ and test/ if there are such, or "
    "images/train/NAME.jpg with masks/train/NAME.png, and so on"
)
TRUE = ("1", "true", "yes")
NO_CLASS = 256
"""In a table of values: this one is no class, and is not void."""


@dataclass(frozen=True)
class MaskClasses:
    """Names of classes, and which value in a mask is which.

    Attributes:
        names: Names of the classes.
        table: For each of the 256 values the index of its class, `VOID`, or `NO_CLASS`.
    """

    names: tuple[str, ...]
    table: np.ndarray = field(repr=False, compare=False)

    @classmethod
    def of(cls, names: Mapping[int, str], void: Iterable[int] = ()) -> MaskClasses:
        """Take classes in the order of their values; those that are void are left out."""
        table = np.full(256, NO_CLASS, np.uint16)
        values = [value for value in sorted(names) if value not in set(void)]
        table[values] = np.arange(len(values))
        table[[*void, VOID]] = VOID
        return cls(tuple(names[value] for value in values), table)

    def indices(self, values: np.ndarray) -> np.ndarray:
        """Return the mask ``(H, W)`` of indices; raise a `ValueError` if a value is of no class."""
        mask = self.table[values]
        if mask.max() == NO_CLASS:
            wrong = np.unique(values[mask == NO_CLASS])
            raise ValueError(
                f"value {', '.join(map(str, wrong[:5]))} is of none of the {len(self.names)} classes and not void"
            )
        return mask.astype(np.uint8)


@dataclass(frozen=True)
class MaskSample:
    """An image and the file of its mask; ``bad`` if there is none."""

    path: str
    mask: str
    classes: MaskClasses
    bad: BadImage | None = None

    @property
    def target_id(self) -> str:
        """The size of the mask's file, which hardly any change of a PNG leaves as it is."""
        return f"{os.path.getsize(self.mask)} B" if os.path.isfile(self.mask) else "no mask"

    def target(self, image: Image.Image) -> np.ndarray:
        """Read the mask; raise an `UnreadableImageError` if it is of another size or has values of no class."""
        values = read_mask(self.mask)
        with naming(self.mask):
            if values.shape != (image.height, image.width):
                raise ValueError(
                    f"the mask is {values.shape[1]}×{values.shape[0]} pixels, its image {image.width}×{image.height}"
                )
            return self.classes.indices(values)


def read_mask(path: str) -> np.ndarray:
    """Return the values ``(H, W)`` of a PNG mask: gray or palette, at most 8 bits.

    Raises:
        UnreadableImageError: The file is missing, damaged, or in color.
    """
    with open_image(path) as image:
        if image.format != "PNG":
            raise ValueError(f"a mask must be a PNG, which keeps every value; this is {image.format}")
        if image.mode not in ("1", "L", "P"):
            raise ValueError(
                f"a mask must be gray or have a palette, a value of 8 bits being an index of a class; its mode is "
                f"{image.mode}"
            )
        bits = 8
        if image.mode == "L":
            with open(path, "rb") as file:
                bits = file.read(25)[24]  # of the header, which is the first chunk
        values = np.array(image, np.uint8)
        return values // (255 // (2**bits - 1)) if bits < 8 else values  # Pillow makes 0 to 3, and 0 to 15, 0 to 255


def open_masks(
    path: Path,
    *,
    seed: int,
    options: Mapping[str, Any],
    intensity_range: tuple[float, float] | None,
) -> tuple[tuple[str, ...], list[TargetImages | None]]:
    """Return classes and splits of a folder of images and masks, see `foveate.data.dense.open_segmentation`."""
    for option in options:
        _checks.one_of("option of a folder of masks", option, OPTIONS)
    pairs = {split: _pairs(*folders, path) for split, folders in _folders(path).items()}
    classes = _classes(path, options, [mask for _, mask in pairs["train"] if mask])
    samples: dict[str, list[MaskSample]] = {
        split: [
            MaskSample(
                image, mask, classes, unread(image) if mask else BadImage(image, "there is no mask of this name")
            )
            for image, mask in found
        ]
        for split, found in pairs.items()
    }
    if "val" not in samples:
        samples["train"], samples["val"] = divided(samples["train"], seed, path)
    parts = [
        TargetImages(samples[split], root=path, intensity_range=intensity_range) if split in samples else None
        for split in ("train", "val", "test")
    ]
    return classes.names, parts


def _folders(path: Path) -> dict[str, tuple[Path, Path]]:
    """Return the folders of images and of masks of each split: ``train/images``, or ``images/train``; or of all."""
    if roots := find_splits(path, expected=EXPECTED):
        return {split: (root / "images", root / "masks") for split, root in roots.items()}
    images, masks = path / "images", path / "masks"
    inner = find_splits(images, top=path, expected=EXPECTED) if images.is_dir() else {}
    return {split: (root, masks / root.name) for split, root in inner.items()} or {"train": (images, masks)}


def _pairs(image_folder: Path, mask_folder: Path, top: Path) -> list[tuple[str, str]]:
    """Return image and mask of each pair; an empty name in place of a mask that is not there."""
    folders = [image_folder, mask_folder]
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        raise ValueError(f"there is no folder {' and no '.join(missing)}; {EXPECTED}")
    images, masks = (image_files(folder, top) for folder in folders)
    others = [name for name in masks if not name.lower().endswith(".png")]
    if others:
        raise ValueError(f"masks must be PNG files; {folders[1]} has {len(others)} others, such as {others[0]}")
    by_stem: dict[str, str] = {}
    for name in images:
        stem = os.path.splitext(name)[0]
        if stem in by_stem:
            raise ValueError(f"{folders[0]} has {by_stem[stem]} and {name}, with the same mask; rename one")
        by_stem[stem] = name
    mask_of = {name[:-4]: file for name, file in masks.items()}
    if alone := [name for name in masks if name[:-4] not in by_stem]:
        raise ValueError(f"{folders[1]} has {len(alone)} mask(s) without an image, such as {alone[0]}; {EXPECTED}")
    return [(images[name], mask_of.get(stem, "")) for stem, name in by_stem.items()]


def _classes(path: Path, options: Mapping[str, Any], masks: Sequence[str]) -> MaskClasses:
    void = _void(options.get("void"))
    given = options.get("classes")
    if given is not None:
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise ValueError(f"classes must be a list of names; got {given!r}")
        names, where = dict(enumerate(map(str, given))), "classes"
    elif (path / "classes.csv").is_file():
        names, more = _table(path / "classes.csv")
        void, where = {*void, *more}, str(path / "classes.csv")
    elif (path / "classes.txt").is_file():
        lines = read_text(path / "classes.txt").rstrip().splitlines()
        names, where = dict(enumerate(line.strip() for line in lines)), str(path / "classes.txt")
    else:
        values = _values(masks, void)
        names, where = {value: str(value) for value in range(max(values, default=0) + 1)}, "the training masks"
        if len(values) < 2:
            raise ValueError(
                f"{path}: the training masks do not have two classes: without void "
                f"({', '.join(map(str, sorted({*void, VOID})))}) their values are {values}; write foreground that is "
                f"{VOID} as 1, or name the classes in classes.txt"
            )
        if unused := len(names) - len(values) - len(void & set(names)):
            logger.warning(
                "%s: %d of the values up to %d are of no pixel of the training masks, and become classes; name the "
                "classes in classes.csv (index,name) if only those that occur are meant",
                path,
                unused,
                max(values),
            )
    kept = [name for value, name in sorted(names.items()) if value not in void]
    if not 2 <= len(kept) <= VOID or "" in kept or max(names) > VOID:
        raise ValueError(f"{where}: there must be 2 to {VOID} classes, each with a name; got {len(kept)}")
    if twice := sorted({name for name in kept if kept.count(name) > 1}):
        raise ValueError(f"{where}: two classes are called {twice[0]!r}")
    looked = _values([masks[index] for index in equally_spaced(len(masks), SIZES_TRIED)], void)
    if masks and len(set(looked) & set(names)) < 2:
        logger.warning(
            "%s: of the %d classes at most one is in the training masks that were looked at; foreground that is "
            "written as %d is void, and has to become 1",
            where,
            len(kept),
            VOID,
        )
    return MaskClasses.of(names, sorted(void))


def _void(value: Any) -> set[int]:
    if value is None:
        return set()
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    found = {_checks.integer("void", each, minimum=0) for each in values}
    if found and max(found) > VOID:
        raise ValueError(f"void must be a value of masks, at most {VOID}; got {value!r}")
    return found


def _table(path: Path) -> tuple[dict[int, str], set[int]]:
    """Read names, and the values that are void, from a CSV file with columns ``index,name`` and perhaps ``void``."""
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    try:
        rows = [(f"{path}, line {reader.line_num}", row) for row in reader]
    except csv.Error as error:
        raise ValueError(f"{path} is not a CSV file: {error}") from error
    if not {"index", "name"} <= set(reader.fieldnames or ()):
        raise ValueError(f"{path}: the first line must be index,name or index,name,void; got {reader.fieldnames}")
    names: dict[int, str] = {}
    void = set()
    for line, row in rows:
        if not (row["index"] or "").strip().isdecimal() or int(row["index"]) > VOID:
            raise ValueError(f"{line}: index must be a whole number from 0 to {VOID}; got {row['index']!r}")
        index = int(row["index"])
        if index in names:
            raise ValueError(f"{line}: index {index} is there twice")
        names[index] = (row["name"] or "").strip()
        if (row.get("void") or "").strip().lower() in TRUE or index == VOID:
            void.add(index)
    return names, void


def _values(masks: Iterable[str], void: set[int]) -> list[int]:
    """Return the values of the training masks that are not void; masks that cannot be read are named later."""
    seen = np.zeros(256, bool)
    for mask in masks:
        try:
            seen[np.unique(read_mask(mask))] = True
        except ValueError:
            continue
    seen[[*void, VOID]] = False
    return np.flatnonzero(seen).tolist()
