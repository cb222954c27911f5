"""Detection: folders laid out as COCO, one JSON file of boxes and masks for each split."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from foveate import _checks, _extras
from foveate.data.decoding import BadImage
from foveate.data.dense.annotated import AnnotatedSample, checked
from foveate.data.dense.parts import TargetImages, divided, image_files, unread
from foveate.data.dense.segments import Segments, segment
from foveate.data.files import check_inside
from foveate.data.layout import split_of

__all__ = ["find_annotations", "open_coco"]

logger = logging.getLogger(__name__)

FILE = re.compile(r"(?:instances_)?(([a-z]+)(?:\d{4})?)\.json")
EXPECTED = "expected is annotations/train.json or annotations/instances_train2017.json, images in train/ or train2017/"
OPTIONS = ("masks",)


def open_coco(
    path: Path, *, seed: int, options: Mapping[str, Any], intensity_range: tuple[float, float] | None
) -> tuple[tuple[str, ...], list[TargetImages | None]]:
    """Return classes and splits of a folder in COCO's layout, see `foveate.data.dense.open_detection`."""
    for option in options:
        _checks.one_of("option of a COCO folder", option, OPTIONS)
    with_masks = _checks.one_of("masks", options.get("masks", True), (True, False))
    found = find_annotations(path)
    files = {split: _File(file) for split, (file, _) in found.items()}
    categories = files["train"].categories()
    for file in files.values():
        if file.categories() != categories:
            raise ValueError(f"{file.path} has other categories than {files['train'].path}; the same are needed")
    if "test" in files and not files["test"].parts["annotations"]:
        logger.warning("%s has no objects, as of a competition; it is left out", files.pop("test").path)
    has = [item for file in files.values() for item in file.have_masks()] if with_masks else []
    if any(has) and not all(has):
        logger.warning("%s: %d of %d objects have no mask, so that none is used", path, has.count(False), len(has))
    masks = bool(has) and all(has)
    if masks:
        _extras.check_installed("pycocotools", extra="dense")
    samples = {
        split: file.samples(image_files(found[split][1], path), found[split][1], categories, masks)
        for split, file in files.items()
    }
    if "val" not in samples:
        samples["train"], samples["val"] = divided(samples["train"], seed, files["train"].path)
    parts = [
        TargetImages(samples[split], root=path, intensity_range=intensity_range) if split in samples else None
        for split in ("train", "val", "test")
    ]
    return tuple(categories.values()), parts


def find_annotations(path: Path) -> dict[str, tuple[Path, Path]]:
    """Return the JSON file of each split, and the folder of its images; raise a `ValueError` if it is not clear."""
    found: dict[str, tuple[Path, Path]] = {}
    for file in sorted((path / "annotations").glob("*.json")):
        match = FILE.fullmatch(file.name) if file.is_file() else None
        split = split_of(match[2]) if match else None
        if match is None or split is None:
            continue
        if split in found:
            raise ValueError(f"{path / 'annotations'} has {found[split][0].name} and {file.name}; keep one")
        check_inside(str(file), path)
        folder = next((path / name for name in (match[1], match[2]) if (path / name).is_dir()), None)
        if folder is None:
            raise ValueError(f"there is no folder {path / match[1]} with the images of {file}; {EXPECTED}")
        found[split] = (file, folder)
    if "train" not in found:
        raise ValueError(f"{path / 'annotations'} has no file of the training images; {EXPECTED}")
    return found


class _File:
    """The content of an annotation file, whose entries are checked as they are asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            content = json.loads(path.read_text("utf-8-sig"), parse_constant=_no_number)
        except (ValueError, RecursionError) as error:  # not UTF-8 is a ValueError as well
            raise ValueError(f"{path} is not JSON: {error}") from error
        if not isinstance(content, dict):
            self._fail("the file", "an object with images, annotations and categories", content)
        self.parts: dict[str, list[dict[str, Any]]] = {}
        for name in ("images", "annotations", "categories"):
            entries = content.get(name)
            if not isinstance(entries, list) or (name != "annotations" and not entries):
                self._fail(name, "a list" if name == "annotations" else "a list that is not empty", entries)
            for number, entry in enumerate(entries):
                if not isinstance(entry, dict):
                    self._fail(f"{name}[{number}]", "an object", entry)
            self.parts[name] = entries

    def categories(self) -> dict[int, str]:
        """Return the names of the classes by their numbers, in the order of these."""
        found: dict[int, str] = {}
        for number, entry in enumerate(self.parts["categories"]):
            key, name = self._id("categories", number, "id"), entry.get("name")
            if not isinstance(name, str) or not name.strip():
                self._fail(f"categories[{number}].name", "a name", name)
            if key in found or name in found.values():
                raise ValueError(f"{self.path}: categories[{number}], {name!r} with id {key}, is there twice")
            found[key] = name
        return dict(sorted(found.items()))

    def have_masks(self) -> list[bool]:
        """Return for each object that is not left out whether it has a mask."""
        kept = (entry for entry in self.parts["annotations"] if not _is_flat(entry.get("bbox")))
        return [bool(entry.get("segmentation")) for entry in kept]

    def samples(
        self, there: Mapping[str, str], folder: Path, categories: Mapping[int, str], masks: bool
    ) -> list[AnnotatedSample]:
        """Return the images with their objects; those that cannot be used say why.

        Args:
            there: The image files that exist, by their names in ``folder``.
            folder: Where the images are.
            categories: The classes.
            masks: Whether objects have masks.
        """
        objects: dict[int, list[int]] = {}
        names: set[str] = set()
        for number, image in enumerate(self.parts["images"]):
            key, name = self._id("images", number, "id"), image.get("file_name")
            if not isinstance(name, str) or not name:
                self._fail(f"images[{number}].file_name", "the name of a file", name)
            if key in objects or name in names:
                raise ValueError(f"{self.path}: images[{number}], {name!r} with id {key}, is there twice")
            names.add(name)
            objects[key] = []
        seen: set[int] = set()
        for number, entry in enumerate(self.parts["annotations"]):
            if "id" in entry:
                key = self._id("annotations", number, "id")
                if key in seen:
                    raise ValueError(f"{self.path}: annotations[{number}].id {key} is there twice")
                seen.add(key)
            image_id = self._id("annotations", number, "image_id")
            if image_id not in objects:
                self._fail(f"annotations[{number}].image_id", "the id of one of its images", image_id)
            if self._id("annotations", number, "category_id") not in categories:
                self._fail(f"annotations[{number}].category_id", "one of its categories", entry["category_id"])
            objects[image_id].append(number)
        if flat := sum(_is_flat(entry.get("bbox")) for entry in self.parts["annotations"]):
            logger.warning("%s: %d object(s) are left out, whose box has no width or no height", self.path, flat)
        return [
            self._sample(number, there, folder, categories, objects[image["id"]], masks)
            for number, image in enumerate(self.parts["images"])
        ]

    def _sample(
        self,
        number: int,
        there: Mapping[str, str],
        folder: Path,
        categories: Mapping[int, str],
        objects: list[int],
        masks: bool,
    ) -> AnnotatedSample:
        image = self.parts["images"][number]
        name = image["file_name"]
        path = there.get(name, str(folder / name))
        source = f"{self.path}, image {image['id']} ({name})"
        if name not in there:
            return AnnotatedSample(
                path, source, bad=BadImage(path, f"there is no such image, though {source} names it")
            )
        objects = [item for item in objects if not _is_flat(self.parts["annotations"][item].get("bbox"))]
        found = [self.parts["annotations"][item] for item in objects]
        called = [
            f"annotations[{item}], {categories[entry['category_id']]}"
            for item, entry in zip(objects, found, strict=True)
        ]
        order = list(categories)
        try:
            size = _size(image)
            sample = AnnotatedSample(
                path,
                source,
                boxes=[_box(entry.get("bbox"), which) for entry, which in zip(found, called, strict=True)],
                labels=[order.index(entry["category_id"]) for entry in found],
                ignored=[_crowd(entry, which) for entry, which in zip(found, called, strict=True)],
                names=called,
                size=size,
                bad=unread(path),
            )
            if masks:
                shapes = [
                    segment(entry["segmentation"], size, f"{which}: segmentation")
                    for entry, which in zip(found, called, strict=True)
                ]
                sample = replace(sample, masks=Segments(shapes))
        except ValueError as error:
            return AnnotatedSample(path, source, bad=BadImage(source, str(error)))
        return checked(sample)

    def _id(self, part: str, number: int, name: str) -> int:
        value = self.parts[part][number].get(name)
        if isinstance(value, bool) or not isinstance(value, int):
            self._fail(f"{part}[{number}].{name}", "an integer", value)
        return value

    def _fail(self, what: str, wanted: str, got: Any) -> NoReturn:
        raise ValueError(f"{self.path}: {what} must be {wanted}; got {json.dumps(got)[:80]}")


def _is_flat(box: Any) -> bool:
    """Tell whether a box is a line or a point, as two of COCO's own are."""
    return isinstance(box, list) and len(box) == 4 and 0 in box[2:]


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON's")


def _size(image: Mapping[str, Any]) -> tuple[int, int]:
    return _checks.integer("height", image.get("height")), _checks.integer("width", image.get("width"))


def _box(value: Any, called: str) -> tuple[float, float, float, float]:
    numbers = isinstance(value, list) and len(value) == 4 and all(type(each) in (int, float) for each in value)
    if not numbers or not all(abs(each) < 2**31 for each in value):
        raise ValueError(f"{called}: bbox must be four numbers, x, y, width, height; got {json.dumps(value)[:80]}")
    x, y, width, height = map(float, value)
    return x, y, x + width, y + height


def _crowd(entry: Mapping[str, Any], called: str) -> bool:
    value = entry.get("iscrowd", 0)
    if value not in (0, 1):
        raise ValueError(f"{called}: iscrowd must be 0 or 1; got {json.dumps(value)[:80]}")
    return bool(value)
