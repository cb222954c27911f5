"""Folders of images, one sub-folder per class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from PIL import Image
from torch.utils.data import Dataset

from foveate.data.boxes import BOXES, FileBox, read_boxes
from foveate.data.decoding import UnreadableImageError, open_image, read_image, warn_of_narrow_range
from foveate.data.files import EXTENSIONS, check_inside, find_files, is_image, name_below
from foveate.data.labels import read_lists
from foveate.data.layout import check_classes, check_labels, find_splits, scan
from foveate.data.splitting import Splits, stratified_split
from foveate.data.transforms import SMALL

__all__ = ["EXTENSIONS", "BoxedFolderImages", "FolderImages", "find_files", "is_image", "native_size", "open_folder"]

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

    def __init__(
        self,
        samples: Sequence[Labelled],
        *,
        root: str | Path = "",
        intensity_range: tuple[float, float] | None = None,
    ) -> None:
        self.samples = list(samples)
        self.root = root
        self.intensity_range = intensity_range

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        path, label = self.samples[index]
        return read_image(path, intensity_range=self.intensity_range), label

    def entries(self) -> Iterator[tuple[str, int]]:
        """Yield the path of each image from the folder of the data, with ``/``, and its label."""
        for path, label in self.samples:
            yield name_below(path, self.root), label


class BoxedFolderImages(FolderImages):
    """RGB images read from files, each with the box of the thing in it."""

    def __init__(self, samples: Sequence[Labelled], boxes: Mapping[str, FileBox], **options: Any) -> None:
        super().__init__(samples, **options)
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


def open_folder(
    path: str | Path,
    *,
    seed: int = 0,
    boxes: str | Path | None = None,
    intensity_range: tuple[float, float] | None = None,
) -> Splits:
    """Open a folder of images.

    ``path`` holds ``train/`` and, if there are any, ``val/`` and ``test/`` (see `SPLIT_NAMES` for what else they may be
    called), each with one sub-folder per class; or it holds the class folders themselves. Images may lie deeper in a
    class folder. Without a validation folder, a fifth of each class is kept from training for it. What is ambiguous is
    an error. In place of class folders, a list may say which image is of which class, see `read_lists`.

    Hidden files and folders are passed over, and files that are no images by their ending, or, if that is an unusual
    one, by their first bytes. Images in formats that are not read, such as HEIC, are taken: they count as images that
    cannot be read. Links of files and folders are followed where they lead to something in ``path``, and refused where
    they lead out of it.

    Boxes are read from ``boxes``, or from ``boxes.csv`` in ``path`` if there is one, as `read_boxes` describes. A split
    whose images all have one is a `BoxedFolderImages`.

    `Splits.img_size` is 224, or the shorter side of the images if those looked at all have at most 64 pixels.

    Args:
        path: The folder.
        seed: Decides which images a missing validation folder is made of.
        boxes: A CSV file, its file names relative to ``path``.
        intensity_range: For 16-bit grayscale, what becomes black and what white, see `read_image`.

    Raises:
        ValueError: There is no such folder, no class folder, a class folder without an image in ``train/``, a class in
            ``val/`` or ``test/`` that is not in ``train/``, folders of which it is not clear whether they are classes
            or splits, too few images to divide, a link that leads out of the folder or in a circle, or a list of boxes
            or labels that is malformed.
    """
    path = Path(path)
    if not path.is_dir():
        raise ValueError(f"there is no folder of images at {path}")
    roots = find_splits(path)
    found = {split: scan(root, path) for split, root in (roots or {"train": path}).items()}
    labelled = read_lists(found, path)
    if labelled is None:
        check_classes(found, has_splits=bool(roots))
        labelled = {
            split: [(file, name) for name in images.classes for file in images.paths(name)]
            for split, images in found.items()
        }
    classes = tuple(sorted({name for _, name in labelled["train"]}))
    numbers = {name: label for label, name in enumerate(classes)}
    samples: dict[str, list[Labelled]] = {}
    for split, files in labelled.items():
        check_labels((name for _, name in files), classes, str(found[split].root), str(found["train"].root))
        samples[split] = [Labelled(file, numbers[name]) for file, name in files]
    if "val" not in samples:
        samples["train"], samples["val"] = _divide(samples["train"], found["train"].root, seed)
    if boxes is None and (path / BOXES).is_file():
        boxes = path / BOXES
        check_inside(str(boxes), path)
    boxed = {} if boxes is None else read_boxes(boxes, path, [file for part in samples.values() for file, _ in part])
    train = samples["train"]
    sampled = [file for file, _ in train[:: max(1, len(train) // SIZES_SAMPLED)]]
    if intensity_range is None:
        warn_of_narrow_range(sampled)
    images = {split: _images(part, path, boxed, intensity_range) for split, part in samples.items()}
    return Splits(classes, images["train"], images["val"], images.get("test"), native_size(sampled))


def _images(
    samples: list[Labelled], root: Path, boxes: Mapping[str, FileBox], intensity_range: tuple[float, float] | None
) -> FolderImages:
    if all(sample.path in boxes for sample in samples):
        return BoxedFolderImages(samples, boxes, root=root, intensity_range=intensity_range)
    return FolderImages(samples, root=root, intensity_range=intensity_range)


def _divide(samples: list[Labelled], root: Path, seed: int) -> tuple[list[Labelled], list[Labelled]]:
    kept, held = stratified_split([label for _, label in samples], (1 - VAL_FRACTION, VAL_FRACTION), seed=seed)
    if not len(held):
        raise ValueError(
            f"{root} has too few images per class to keep {VAL_FRACTION:.0%} of them for validation; "
            "add images, or a folder val/"
        )
    return [samples[i] for i in kept], [samples[i] for i in held]


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
