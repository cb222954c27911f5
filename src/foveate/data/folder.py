"""Folders of images, one sub-folder per class."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from PIL import Image
from torch.utils.data import Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS

from foveate.data.boxes import BOXES, FileBox, read_boxes
from foveate.data.decoding import UnreadableImageError, open_image, read_image
from foveate.data.splitting import Splits, stratified_split
from foveate.data.transforms import SMALL

__all__ = ["EXTENSIONS", "BoxedFolderImages", "FolderImages", "find_files", "is_image", "native_size", "open_folder"]

EXTENSIONS = (*IMG_EXTENSIONS, ".gif")
"""Names of files that are taken for images, upper or lower case."""

SPLIT_NAMES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
VAL_FRACTION = 0.2
DEFAULT_SIZE = 224
SIZES_SAMPLED = 16


class Labelled(NamedTuple):
    """A file and the index of its class."""

    path: str
    label: int


class FolderImages(Dataset[tuple[Image.Image, int]]):
    """RGB images read from files.

    timm's ``ImageDataset`` puts the next readable image in the place of one that it cannot read; here the reading
    raises an `UnreadableImageError`, of which `make_loader` makes a count.
    """

    def __init__(self, samples: Sequence[Labelled]) -> None:
        self.samples = list(samples)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        path, label = self.samples[index]
        return read_image(path), label


class BoxedFolderImages(FolderImages):
    """RGB images read from files, each with the box of the thing in it."""

    def __init__(self, samples: Sequence[Labelled], boxes: Mapping[str, FileBox]) -> None:
        super().__init__(samples)
        self._boxes = [boxes[path] for path, _ in self.samples]

    def boxes(self, index: int) -> tuple[int, int, int, int]:
        """Return ``(x_min, y_min, x_max, y_max)`` in pixels of image ``index``, the last two exclusive.

        Raises:
            ValueError: The box lies outside of the image, or the size of the image cannot be read.
        """
        path = self.samples[index].path
        with open_image(path) as image:
            size = image.size
        return self._boxes[index].within(*size)


def open_folder(path: str | Path, *, seed: int = 0, boxes: str | Path | None = None) -> Splits:
    """Open a folder of images.

    ``path`` holds ``train/`` and, if there are any, ``val/`` (also ``valid/`` or ``validation/``) and ``test/``, each
    with one sub-folder per class; or it holds the class folders themselves. Images may lie deeper in a class folder.
    Without a validation folder, a fifth of each class is kept from training for it. Hidden files and folders, and files
    that do not end in one of `EXTENSIONS`, are passed over. Links of files and folders are followed where they lead to
    something in ``path``, and refused where they lead out of it.

    Boxes are read from ``boxes``, or from ``boxes.csv`` in ``path`` if there is one, as `read_boxes` describes. A split
    whose images all have one is a `BoxedFolderImages`.

    `Splits.img_size` is 224, or the shorter side of the images if those looked at all have at most 64 pixels.

    Args:
        path: The folder.
        seed: Decides which images a missing validation folder is made of.
        boxes: A CSV file, its file names relative to ``path``.

    Raises:
        ValueError: There is no such folder, no class folder, a class folder without an image, a class in ``val/`` or
            ``test/`` that is not in ``train/``, too few images to divide, a link that leads out of the folder or in a
            circle, or a CSV of boxes that is malformed.
    """
    path = Path(path)
    if not path.is_dir():
        raise ValueError(f"there is no folder of images at {path}")
    folders = {split: _split_folder(path, names) for split, names in SPLIT_NAMES.items()}
    root = folders["train"]
    if root is None:
        if found := [folder.name for folder in folders.values() if folder]:
            raise ValueError(
                f"{path} has {' and '.join(found)}/ but no train/; put the images to train on in {path / 'train'}"
            )
        root = path
    classes = _class_names(root)
    train = _scan(root, classes, path)
    val, test = (_scan_other(folders[split], classes, root, path) for split in ("val", "test"))
    if val is None:
        train, val = _divide(train, root, seed)
    if boxes is None and (path / BOXES).is_file():
        boxes = path / BOXES
        check_inside(str(boxes), path)
    files = [sample.path for sample in (*train, *val, *(test or ()))]
    boxed = {} if boxes is None else read_boxes(boxes, path, files)
    return Splits(
        classes=classes,
        train=_images(train, boxed),
        val=_images(val, boxed),
        test=_images(test, boxed) if test else None,
        img_size=native_size([path for path, _ in train[:: max(1, len(train) // SIZES_SAMPLED)]]),
    )


def _images(samples: list[Labelled], boxes: Mapping[str, FileBox]) -> FolderImages:
    if all(sample.path in boxes for sample in samples):
        return BoxedFolderImages(samples, boxes)
    return FolderImages(samples)


def _split_folder(path: Path, names: tuple[str, ...]) -> Path | None:
    found = [path / name for name in names if (path / name).is_dir()]
    if len(found) > 1:
        raise ValueError(f"{path} has {' and '.join(folder.name for folder in found)}; keep the one to validate on")
    for folder in found:
        check_inside(str(folder), path)
    return found[0] if found else None


def _class_names(root: Path) -> tuple[str, ...]:
    classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise ValueError(
            f"{root} has no class folder; put the images of each class in a folder of its own, {root}/CLASS/"
        )
    return tuple(classes)


def _scan(root: Path, classes: tuple[str, ...], top: Path) -> list[Labelled]:
    found = [
        Labelled(os.path.join(folder, name), label)
        for label, class_name in enumerate(classes)
        for folder, names in sorted(find_files(root / class_name, top))
        for name in sorted(names)
        if is_image(name)
    ]
    if empty := sorted(set(classes) - {classes[label] for _, label in found}):
        raise ValueError(
            f"no image in {', '.join(str(root / name) for name in empty)}; remove the folder or put images there, "
            f"with names that end in {', '.join(EXTENSIONS)}"
        )
    return found


def _scan_other(root: Path | None, classes: tuple[str, ...], train: Path, top: Path) -> list[Labelled] | None:
    """Scan ``val`` or ``test``, labelled by the classes of ``train``."""
    if root is None:
        return None
    present = _class_names(root)
    if unknown := sorted(set(present) - set(classes)):
        raise ValueError(
            f"{root} has the class {', '.join(unknown)}, which {train} has not; "
            f"the classes are {', '.join(classes[:10])}{', …' * (len(classes) > 10)}"
        )
    return [Labelled(path, classes.index(present[label])) for path, label in _scan(root, present, top)]


def _divide(samples: list[Labelled], root: Path, seed: int) -> tuple[list[Labelled], list[Labelled]]:
    kept, held = stratified_split([label for _, label in samples], (1 - VAL_FRACTION, VAL_FRACTION), seed=seed)
    if not len(held):
        raise ValueError(
            f"{root} has too few images per class to keep {VAL_FRACTION:.0%} of them for validation; "
            "add images, or a folder val/"
        )
    return [samples[i] for i in kept], [samples[i] for i in held]


def is_image(name: str) -> bool:
    """Tell whether a file of this name is taken for an image."""
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def find_files(folder: str | Path, top: str | Path) -> Iterator[tuple[str, list[str]]]:
    """Yield ``folder`` and the folders below it, each with the names of its files, in no particular order.

    Links are followed, unless they lead out of ``top``: a folder that somebody else packed could make any file of this
    machine an image of its own, whose content then stands in a picture or in a message.

    Raises:
        ValueError: A link leads out of ``top``, or to a folder that it stands in.
    """
    check_inside(str(folder), top)
    yield from _below(str(folder), top, (os.path.realpath(folder),))


def _below(folder: str, top: str | Path, above: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """Yield what `find_files` does; ``above`` are the true paths of ``folder`` and of those that it was reached by."""
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                check_inside(entry.path, top)
            if not entry.is_dir():
                names.append(entry.name)
                continue
            path = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(above[-1], entry.name)
            if path in above:
                raise ValueError(f"{entry.path} is a link to {path}, which it stands in; remove it")
            yield from _below(entry.path, top, (*above, path))
    yield folder, names


def check_inside(path: str, top: str | Path) -> None:
    """Raise a `ValueError` if links on the way lead from ``path`` out of ``top``."""
    target = Path(os.path.realpath(path))
    if not target.is_relative_to(os.path.realpath(top)):
        raise ValueError(
            f"{path} is, or is behind, a link to {target}, outside of {top}; "
            "links are followed inside of the folder only: put there what it leads to, or a hard link"
        )


def native_size(sources: Iterable[str | IO[bytes]]) -> int:
    """Return the side at which images like these are best used: their own if they are small, else 224."""
    sides = []
    for source in sources:
        try:
            with open_image(source) as image:
                sides.append(image.size)
        except UnreadableImageError:
            continue  # it will be named when it is read as an image
    if sides and max(map(max, sides)) <= SMALL:
        return min(map(min, sides))
    return DEFAULT_SIZE
