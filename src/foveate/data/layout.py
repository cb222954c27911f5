"""Recognizing the layout of a folder of images: which folders are splits, and which are classes.

A guess that goes wrong here is trained on for days, so that what is ambiguous is an error, which shows what was found.
"""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from foveate.data.files import EXTENSIONS, check_inside, find_files, image_ending, is_image, is_junk

__all__ = ["SPLIT_NAMES", "Found", "check_classes", "check_labels", "find_splits", "scan", "split_of"]

logger = logging.getLogger(__name__)

SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""What folders of splits are called, in upper or lower case."""
PURPOSE = {"train": "train", "val": "validate", "test": "test"}
EXPECTED = "expected is train/CLASS/IMAGE, and val/CLASS/IMAGE and test/CLASS/IMAGE if there are such, or CLASS/IMAGE"
STRUCTURE = frozenset(
    {"image", "images", "img", "imgs", "jpegimages", "label", "labels", "annotations", "imagesets", "masks"}
)
"""Folders of sets for detection and segmentation, which are no classes."""


@dataclass
class Found:
    """The images below the folder ``root`` of a split.

    Attributes:
        root: The folder.
        classes: For each folder in it, under its name in Unicode's composed form: names of the images by the folders
            that they lie in, paths from that of the class; ``""`` is that itself.
        loose: Names of images that lie in ``root`` itself.
        others: Names of other files in ``root``.
    """

    root: Path
    classes: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    loose: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    """Name of each class's folder as it is spelled on the disk."""

    @property
    def filled(self) -> list[str]:
        """The classes that have an image."""
        return [name for name, folders in self.classes.items() if folders]

    def paths(self, name: str) -> list[str]:
        """Return the paths of the images of a class, in the order of their folders and names."""
        below = str(self.root / self.names[name])
        folders = {
            os.path.join(below, folder) if folder else below: names for folder, names in self.classes[name].items()
        }
        return [f"{folder}{os.sep}{image}" for folder in sorted(folders) for image in folders[folder]]

    def all_paths(self) -> list[str]:
        """Return the paths of all images."""
        loose = [str(self.root / image) for image in self.loose]
        return loose + [path for name in self.classes for path in self.paths(name)]


def scan(root: Path, top: Path) -> Found:
    """List the images below ``root``, a part of ``top``, in one pass and without opening those whose names tell.

    Raises:
        ValueError: A link leads out of ``top`` or in a circle, or two folders have the same name in different forms of
            Unicode.
    """
    found = Found(root)
    for folder, names in find_files(root, top):
        images = sorted(name for name in names if is_image(name) or image_ending(os.path.join(folder, name)))
        spelled, _, below = os.path.relpath(folder, root).partition(os.sep)
        if spelled == os.curdir:
            found.loose, found.others = images, sorted(set(names) - set(images))
            continue
        name = unicodedata.normalize("NFC", spelled)
        if found.names.setdefault(name, spelled) != spelled:
            raise ValueError(
                f"{root} has two folders {name!r}, one in Unicode's composed form and one in the decomposed; "
                "put their images into one"
            )
        folders = found.classes.setdefault(name, {})
        if images:
            folders[below] = images
    found.classes = dict(sorted(found.classes.items()))
    return found


def split_of(name: str) -> str | None:
    """Return of which split this is a usual name; None if of none."""
    return next((split for split, names in SPLIT_NAMES.items() if name.casefold() in names), None)


def find_splits(path: Path, *, top: Path | None = None, expected: str = "") -> dict[str, Path]:
    """Return the folders of the splits in ``path``, the training one among them; none if it holds class folders.

    Args:
        path: The folder.
        top: The folder that links may not lead out of, ``path`` by default.
        expected: What messages say of how the folder should be laid out, if it is not for class folders.

    Raises:
        ValueError: There is no folder to train on beside others, there are two of a split, one is a link to another or
            out of ``top``, or there are folders with images beside them.
    """
    top = top or path
    folders = sorted(entry.name for entry in os.scandir(path) if entry.is_dir() and not is_junk(entry.name))
    named: dict[str, list[str]] = {}
    for name in folders:
        if split := split_of(name):
            named.setdefault(split, []).append(name)
    for split, names in named.items():
        if len(names) > 1:
            raise ValueError(f"{path} has {' and '.join(names)}; keep the one to {PURPOSE[split]} on")
    splits = {split: path / named[split][0] for split in SPLIT_NAMES if split in named}
    for folder in splits.values():
        check_inside(str(folder), top)
    beside = [name for name in folders if splits and not split_of(name) and _has_images(path / name, top)]
    if splits and "train" not in splits:
        raise ValueError(
            f"{path} has {' and '.join(folder.name for folder in splits.values())}/ but no train/"
            f"{', and beside them ' * bool(beside)}{_listed(beside)}; put the images to train on in {path / 'train'}"
            + (f": {expected}" if expected else ", one folder per class, or rename a class that is called like a split")
        )
    if len({os.path.realpath(folder) for folder in splits.values()}) < len(splits):
        raise ValueError(f"of {_listed(splits.values())} one is a link to another; no image may be in two splits")
    if beside:
        raise ValueError(
            f"{path} has {_listed(folder.name + '/' for folder in splits.values())}, and beside them "
            f"{_listed(name + '/' for name in beside)} with images that are in no split; "
            f"{expected or EXPECTED}. Move them away"
            + ("" if expected else f", or classes, one called {splits['train'].name} included, into {path / 'train'}")
        )
    if splits and (loose := [entry.name for entry in os.scandir(path) if entry.is_file() and is_image(entry.name)]):
        logger.warning("%d images that lie in %s itself are in no split: %s", len(loose), path, _listed(sorted(loose)))
    return splits


def check_classes(found: Mapping[str, Found], *, has_splits: bool) -> None:
    """Make sure that the folders in that of the training split are its classes, and those of other splits the same.

    Args:
        found: The images of each split.
        has_splits: Whether the folder has one for each split; else all of it is to train on.

    Raises:
        ValueError: They are not, or it is not clear.
    """
    train = found["train"]
    for split in found.values():
        _check_filled(split)
    _check_single(train, has_splits=has_splits)
    _check_subfolders(train)
    _check_names(found, has_splits=has_splits)
    if empty := [train.root / train.names[name] for name, folders in train.classes.items() if not folders]:
        raise ValueError(
            f"no image in {_listed(empty)}; remove the folder or put images there, with names that "
            f"end in {', '.join(EXTENSIONS)}"
        )


def check_labels(labels: Iterable[str], classes: Collection[str], where: str, train: str) -> None:
    """Raise a `ValueError` if some of the labels of a split are none of the classes of training."""
    unknown = sorted(set(labels) - set(classes))
    if not unknown:
        return
    alike = {_plain(name): name for name in classes}
    hints = [f"{name!r} is spelled {alike[_plain(name)]!r} there" for name in unknown if _plain(name) in alike]
    raise ValueError(
        f"{where} has the class {_listed(unknown)}, which {train} has not; the classes are {_listed(classes)}"
        + (f"; {_listed(hints)}: rename one of the two" if hints else "")
    )


def _check_filled(found: Found) -> None:
    root = found.root
    if not found.filled:
        seen = {f"{len(found.loose)} images": found.loose, _listed([n + "/" for n in found.classes]): found.classes}
        seen |= {_listed(found.others): found.others}
        raise ValueError(
            f"{root} has no class folder; put the images of each class in a folder of its own, "
            f"{root}/CLASS/, or list them with their labels in {root}/metadata.csv (file_name,label). "
            f"Found: {', '.join(text for text, there in seen.items() if there) or 'nothing'}"
        )
    if found.loose:
        raise ValueError(
            f"{len(found.loose)} images lie in {root} itself, beside its class folders, such as {found.loose[0]}; "
            f"put them into those, or elsewhere"
        )


def _check_single(found: Found, *, has_splits: bool) -> None:
    """Find out whether the classes lie further down."""
    if len(found.filled) != 1 or "" in found.classes[found.filled[0]]:
        return
    name = found.filled[0]
    common = Path(os.path.commonpath(found.classes[name]))
    if len(found.classes[name]) == 1 or split_of(common.name):
        common = common.parent
    inner = found.root / found.names[name] / common
    mend = f"move what is in {inner} to {found.root}" if has_splits else f"give {inner}"
    raise ValueError(f"all images in {found.root} lie below the one folder {name}; {EXPECTED}: {mend}")


def _check_subfolders(found: Found) -> None:
    """Find out whether the folders are not classes, but what the classes are divided by, or they by the splits."""
    firsts = {
        name: {folder.partition(os.sep)[0] for folder in folders if folder} for name, folders in found.classes.items()
    }
    for name, below in firsts.items():
        if splits := sorted(filter(split_of, below)):
            raise ValueError(
                f"{found.root / found.names[name]} has folders {_listed(splits)}, which are called like splits, in "
                f"a folder that would be a class; {EXPECTED}: move them, as in {splits[0]}/{name}"
            )
    deeper = [set(found.classes[name]) - {""} for name in found.filled]
    shared = set.intersection(*deeper) if len(deeper) > 1 else set()
    if len(shared) > 1:
        raise ValueError(
            f"{_listed(found.filled)} in {found.root} all have the folders {_listed(sorted(shared))}: either may be "
            f"the classes; {EXPECTED}, IMAGE not in folders that every class has"
        )


def _check_names(found: Mapping[str, Found], *, has_splits: bool) -> None:
    """Find out whether classes are called like something else."""
    train = found["train"]
    names = train.filled
    if all(name.casefold() in STRUCTURE for name in names):
        raise ValueError(
            f"{_listed(names)} in {train.root} look like parts of a set with masks or boxes, which is for "
            f"task=segmentation or task=detection; {EXPECTED}"
        )
    others = [split.classes for key, split in found.items() if key != "train"]
    for name in filter(split_of, names):
        if not train.classes[name].get("") or not any(name in classes for classes in others):
            raise ValueError(
                f"the folder {train.root / train.names[name]} is called like a split, but would be a class; {EXPECTED}"
                ". Move it, or, if it is a class, rename it, or let other splits have it too"
            )
    if has_splits:
        return  # whoever has a folder train/ has said what is in it
    like = {name: {split_of(word) for word in re.findall(r"[a-z]+", name.casefold())} - {None} for name in names}
    splits = set().union(*like.values())
    if len(splits) > 1 or all(like.values()):
        suspects = [name for name, alike in like.items() if alike]
        raise ValueError(
            f"{_listed(suspects)} in {train.root} look like splits rather than classes; {EXPECTED}. Call splits "
            f"{', '.join(SPLIT_NAMES)}; if they are classes, put all classes into {train.root / 'train'}"
        )


def _plain(name: str) -> str:
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def _has_images(folder: Path, top: Path) -> bool:
    return any(image_ending(os.path.join(below, name)) for below, names in find_files(folder, top) for name in names)


def _listed(names: Iterable[object], shown: int = 10) -> str:
    words = [str(name) for name in names]
    return ", ".join(words[:shown]) + ", …" * (len(words) > shown)
