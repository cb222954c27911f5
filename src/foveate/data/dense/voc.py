"""Detection: folders laid out as Pascal VOC, an XML file of boxes for each image."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

from foveate import _checks
from foveate.data.decoding import BadImage
from foveate.data.dense.annotated import AnnotatedSample, Box, checked
from foveate.data.dense.parts import TargetImages, divided, image_files, unread
from foveate.data.files import check_inside
from foveate.io.files import read_text

__all__ = ["annotated_samples", "class_names", "open_voc", "read_annotation", "read_xml"]

LISTS = Path("ImageSets", "Main")
EXPECTED = (
    "expected is JPEGImages/NAME.jpg, Annotations/NAME.xml and lists of names, ImageSets/Main/train.txt and, if there "
    "are such, val.txt and test.txt"
)
OPTIONS = ("classes",)


class XmlObject(NamedTuple):
    """An object as an annotation file has it."""

    name: str
    box: Box
    difficult: bool


class Annotation(NamedTuple):
    """What an annotation file says of an image; ``size`` is height and width."""

    size: tuple[int, int] | None
    objects: tuple[XmlObject, ...]


def open_voc(
    path: Path, *, seed: int, options: Mapping[str, Any], intensity_range: tuple[float, float] | None
) -> tuple[tuple[str, ...], list[TargetImages | None]]:
    """Return classes and splits of a folder in VOC's layout, see `foveate.data.dense.open_detection`."""
    for option in options:
        _checks.one_of("option of a VOC folder", option, OPTIONS)
    lists = {split: path / LISTS / f"{split}.txt" for split in ("train", "val", "test")}
    lists = {split: file for split, file in lists.items() if file.is_file()}
    if "train" not in lists:
        raise ValueError(f"there is no {path / LISTS / 'train.txt'}; {EXPECTED}")
    images = _by_stem(image_files(path / "JPEGImages", path), path / "JPEGImages")
    names = {split: _listed(file, path, images) for split, file in lists.items()}
    _check_disjoint(names)
    pairs = {
        split: [
            (images.get(name, str(path / "JPEGImages" / f"{name}.jpg")), str(path / "Annotations" / f"{name}.xml"))
            for name in listed
        ]
        for split, listed in names.items()
    }
    for _, xml in (pair for found in pairs.values() for pair in found):
        check_inside(xml, path)
    read = {split: [(image, xml, read_annotation(xml)) for image, xml in found] for split, found in pairs.items()}
    classes = class_names(options.get("classes"), [found for _, _, found in read["train"]])
    samples = {split: annotated_samples(found, classes, set(images.values())) for split, found in read.items()}
    if "val" not in samples:
        samples["train"], samples["val"] = divided(samples["train"], seed, lists["train"])
    parts = [
        TargetImages(samples[split], root=path, intensity_range=intensity_range) if split in samples else None
        for split in ("train", "val", "test")
    ]
    return classes, parts


def class_names(given: Any, found: Sequence[Annotation | BadImage]) -> tuple[str, ...]:
    """Return the names given, or those of the objects in order."""
    if given is None:
        names = {item.name for each in found if isinstance(each, Annotation) for item in each.objects}
        if not names:
            raise ValueError("no training image has an object that can be read, so that there are no classes")
        return tuple(sorted(names))
    if isinstance(given, str) or not isinstance(given, Sequence) or not given or len(set(given)) < len(given):
        raise ValueError(f"classes must be a list of different names; got {given!r}")
    return tuple(map(str, given))


def annotated_samples(
    read: Sequence[tuple[str, str, Annotation | BadImage]], classes: Sequence[str], there: set[str]
) -> list[AnnotatedSample]:
    """Return the images with their objects; those that cannot be used say why.

    Args:
        read: Image, annotation file, and what is in that, or why it could not be read.
        classes: The names that objects may have.
        there: The image files that exist.
    """
    numbers = {name: label for label, name in enumerate(classes)}
    samples = []
    for image, xml, found in read:
        bad = found if isinstance(found, BadImage) else unread(image)
        if image not in there:
            bad = BadImage(image, "there is no such image, though a list names it")
        objects = () if isinstance(found, BadImage) else found.objects
        for number, item in enumerate(objects, 1):
            if item.name not in numbers:
                hint = _checks.suggestion(item.name, numbers)
                bad = bad or BadImage(xml, f"object {number} is a {item.name!r}, which is none of the classes{hint}")
        if bad is not None:
            samples.append(AnnotatedSample(image, xml, bad=bad))
            continue
        assert isinstance(found, Annotation)
        samples.append(
            checked(
                AnnotatedSample(
                    image,
                    xml,
                    boxes=[item.box for item in objects],
                    labels=[numbers[item.name] for item in objects],
                    ignored=[item.difficult for item in objects],
                    names=[f"object {number}, {item.name}" for number, item in enumerate(objects, 1)],
                    size=found.size,
                )
            )
        )
    return samples


def read_xml(path: str) -> Annotation:
    """Read an annotation file of VOC's form.

    Coordinates in it count pixels from 1, the last included: a box from 1 to 1 is the first pixel. They are returned
    from 0, the last excluded.

    Raises:
        ValueError: The file is no such XML, declares entities, or lacks what an object needs.
        OSError: The file cannot be read.
    """
    if Path(path).exists() and not Path(path).is_file():
        raise ValueError("this is not a file")  # but a folder, or a pipe, which one would wait for
    text = Path(path).read_bytes().decode("utf-8-sig")
    for declaration in ("<!DOCTYPE", "<!ENTITY"):  # whose expansion can take any memory
        if declaration in text:
            raise ValueError(f"a {declaration}> is not read; remove it")
    try:
        root = ET.fromstring(text)
    except ET.ParseError as error:
        raise ValueError(f"this is not XML: {error}") from error
    size = tuple(_number(root, f"size/{side}", default=0) for side in ("height", "width"))
    height, width = (int(side) for side in size)
    objects = tuple(_object(item, number) for number, item in enumerate(root.findall("object"), 1))
    return Annotation((height, width) if height > 0 and width > 0 else None, objects)


def read_annotation(xml: str) -> Annotation | BadImage:
    """Return what `read_xml` does, or why the file cannot be read."""
    try:
        return read_xml(xml)
    except OSError as error:
        return BadImage(xml, error.strerror or str(error))
    except UnicodeDecodeError:
        return BadImage(xml, "this is not UTF-8; save it as such")
    except (ValueError, RecursionError) as error:
        return BadImage(xml, str(error))


def _object(item: ET.Element, number: int) -> XmlObject:
    name = (item.findtext("name") or "").strip()
    if not name:
        raise ValueError(f"object {number} has no name")
    called = f"object {number}, {name}, "
    x_min, y_min, x_max, y_max = (
        _number(item, f"bndbox/{side}", called=called) for side in ("xmin", "ymin", "xmax", "ymax")
    )
    if x_max < x_min or y_max < y_min:
        raise ValueError(f"{called}is upside down: ({x_min:g}, {y_min:g}) to ({x_max:g}, {y_max:g})")
    difficult = _number(item, "difficult", default=0, called=called) != 0
    return XmlObject(name, (x_min - 1, y_min - 1, x_max, y_max), difficult)


def _number(element: ET.Element, tag: str, *, default: float | None = None, called: str = "") -> float:
    text = element.findtext(tag)
    if text is None or not text.strip():
        if default is None:
            raise ValueError(f"{called}has no {tag}")
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) < 2**31:
        raise ValueError(f"{called}{tag} must be a number; got {text.strip()[:40]!r}")
    return value


def _listed(file: Path, top: Path, images: Collection[str]) -> list[str]:
    """Return the names in a list, one a line; what follows a space there is passed over, but where it is of a name."""
    check_inside(str(file), top)
    names = []
    for line in map(str.strip, read_text(file).splitlines()):
        if line:  # beside a name may stand whether a class is in the image
            whole = (name for name in (line, line.rpartition(" ")[0].rstrip()) if name in images)
            names.append(next(whole, line.split()[0]))
    if not names:
        raise ValueError(f"{file} is empty; {EXPECTED}")
    if len(set(names)) < len(names):
        raise ValueError(f"{file} names {next(name for name in names if names.count(name) > 1)} twice")
    if wrong := [name for name in names if os.path.basename(name) != name or name.startswith(".")]:
        raise ValueError(f"{file} must hold names of images without folder and ending; got {wrong[0]!r}")
    return names


def _check_disjoint(names: Mapping[str, Sequence[str]]) -> None:
    seen: dict[str, str] = {}
    for split, listed in names.items():
        for name in listed:
            if seen.setdefault(name, split) != split:
                raise ValueError(f"{name} is in {seen[name]}.txt and in {split}.txt; no image may be in two splits")


def _by_stem(files: Mapping[str, str], folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, file in files.items():
        stem = os.path.splitext(name)[0]
        if stem in found:
            raise ValueError(
                f"{folder} has {os.path.basename(found[stem])} and {name}, with the same boxes; rename one"
            )
        found[stem] = file
    return found
