"""`open_segmentation` and `open_detection`: one way to every set with masks or boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foveate import _checks
from foveate._paths import expanded
from foveate.data.decoding import warn_of_narrow_range
from foveate.data.dense.coco import open_coco
from foveate.data.dense.dense_data import DenseData
from foveate.data.dense.digits import BACKGROUND, DigitMasks, DigitObjects
from foveate.data.dense.masks import open_masks
from foveate.data.dense.named import NAMED_DETECTION, NAMED_SEGMENTATION, open_named_dense
from foveate.data.dense.parts import SCALES, SIZES_TRIED, TargetImages, check_bad, suited_transform
from foveate.data.dense.voc import open_voc
from foveate.data.image_data import checked_range, open_data
from foveate.data.splitting import equally_spaced

__all__ = ["open_detection", "open_segmentation"]


def open_segmentation(
    name: str | Path,
    *,
    root: str | Path | None = None,
    img_size: int | tuple[int, int] | None = None,
    download: bool = False,
    seed: int = 0,
    max_bad_images: int = 0,
    options: Mapping[str, Any] | None = None,
    intensity_range: Sequence[float] | None = None,
) -> DenseData:
    """Open a set of images with masks.

    A folder holds ``train/images/NAME.jpg`` with ``train/masks/NAME.png``, and the same in ``val/`` and ``test/``; or
    ``images/train/NAME.jpg`` with ``masks/train/NAME.png``, and so on; or ``images/`` and ``masks/`` alone. A fifth of
    the training images, chosen by ``seed``, is kept for a validation split that is missing. A mask is a gray or palette
    PNG of the size of its image; a value is the index of a class, `VOID` (255) of none. Names of classes are in
    ``classes.txt``, that of value 0 in the first line, or in ``classes.csv`` with the columns ``index``, ``name`` and,
    for values that are void, ``void``; without these they are the numbers up to the highest value in the training
    masks, which are all read for it. There are at least two classes: foreground that is written as 255 is void, and has
    to become 1.

    An image without a mask, a mask of another size, in color, or with a value of no class counts as an image that
    cannot be read.

    Args:
        name: ``digits``: the digit's ink is of the class of the digit, all else of the class ``background``;
            ``torchvision/VOCSegmentation``; ``torchvision/OxfordIIITPet`` with the classes pet, background and border;
            else the path of a folder.
        root: Where the files of a named set are, or are put (``./data`` if not given); the folder that a relative path
            starts from.
        img_size: Height and width of the tensors. If not given, those of the first training image, with the longer side
            at most 512 and each a multiple of 32.
        download: Fetch the files of a named set if they are missing.
        seed: Decides what images a missing validation split is made of, and what digits are drawn.
        max_bad_images: How many images that cannot be read, or whose mask cannot, are left out before it is an error.
        options: Of a folder: ``void``, a value or a list of values of masks that are of no class; ``classes``, a list
            of names, the first that of value 0. Of ``digits``: as in `open_data`.
        intensity_range: Of a folder with 16-bit grayscale images, see `open_data`.

    Raises:
        ValueError: There is no such set, its files are not laid out as they should be, an option is unknown, or more
            images than ``max_bad_images`` are known to be unusable.
    """
    return _open(name, root, img_size, download, seed, max_bad_images, options, intensity_range, masks=True)


def open_detection(
    name: str | Path,
    *,
    root: str | Path | None = None,
    img_size: int | tuple[int, int] | None = None,
    download: bool = False,
    seed: int = 0,
    max_bad_images: int = 0,
    options: Mapping[str, Any] | None = None,
    intensity_range: Sequence[float] | None = None,
) -> DenseData:
    """Open a set of images with boxes.

    A folder is laid out as Pascal VOC (``JPEGImages/NAME.jpg``, ``Annotations/NAME.xml`` and lists of names,
    ``ImageSets/Main/train.txt``, ``val.txt``, ``test.txt``) or as COCO (``annotations/train.json`` or
    ``instances_train2017.json``, images in ``train/`` or ``train2017/``, and so on). A fifth of the training images,
    chosen by ``seed``, is kept for a validation split that is missing. Classes are the names of the training objects in
    order, or COCO's categories in the order of their ids.

    An XML file is of the image of its own name, whatever its ``filename`` says. VOC's coordinates count from 1 and
    include the last pixel, COCO's ``x, y, width, height`` count from 0. A box that reaches out of its image by at most
    one pixel is cut off there, as tools differ by so much. One that reaches out further, has no area, is upside down,
    or is of no known class makes its image one that cannot be read, as does an image or annotation that is missing or
    an image of another size than its annotation says. But objects of COCO whose width or height is exactly 0, of which
    its training images have two, are left out and counted. A file of test images without a single object is left out.

    Args:
        name: ``digits``, with boxes and masks; ``torchvision/VOCDetection``; ``torchvision/CocoDetection``, whose
            ``root`` is a folder laid out as COCO; else the path of a folder.
        root: See `open_segmentation`.
        img_size: See `open_segmentation`.
        download: See `open_segmentation`.
        seed: See `open_segmentation`.
        max_bad_images: How many images that cannot be read, or whose boxes cannot, are left out before it is an error.
        options: Of a folder laid out as VOC: ``classes``, a list of names. Of one laid out as COCO: ``masks``, False to
            leave masks unread, which only instance segmentation needs. Of ``digits``: as in `open_data`.
        intensity_range: See `open_segmentation`.

    Raises:
        ValueError: As in `open_segmentation`.
        MissingExtraError: Masks of COCO need the extra "dense".
    """
    return _open(name, root, img_size, download, seed, max_bad_images, options, intensity_range, masks=False)


def _open(
    name: str | Path,
    root: str | Path | None,
    img_size: int | tuple[int, int] | None,
    download: bool,
    seed: int,
    max_bad_images: int,
    options: Mapping[str, Any] | None,
    intensity_range: Sequence[float] | None,
    *,
    masks: bool,
) -> DenseData:
    _checks.integer("seed", seed, minimum=0)
    _checks.integer("max_bad_images", max_bad_images, minimum=0)
    bounds = checked_range(name, intensity_range)
    if name == "digits":
        return _open_digits(img_size, seed, options, masks=masks)
    known = NAMED_SEGMENTATION if masks else NAMED_DETECTION
    if str(name) in known or str(name).startswith(("torch/", "torchvision/")):
        _checks.one_of("the name of a data set", str(name), known)
        if options:
            raise ValueError(
                f"options are for 'digits' and folders; {str(name)!r} takes none, got {', '.join(options)}"
            )
        classes, parts = open_named_dense(str(name), root=root or "data", download=download, seed=seed)
    else:
        classes, parts = _open_folder(expanded(Path(root or "", name)), name, seed, options or {}, bounds, masks)
    train, val, test = parts
    assert train is not None
    assert val is not None
    check_bad(parts, str(name), max_bad_images)
    if bounds is None:
        warn_of_narrow_range(train.samples[index].path for index in equally_spaced(len(train), SIZES_TRIED))
    transform = suited_transform(train, img_size)
    return DenseData(str(name), classes, train, val, test, transform, max_bad_images, target_dims=3 if masks else 0)


def _open_folder(
    path: Path,
    name: str | Path,
    seed: int,
    options: Mapping[str, Any],
    bounds: tuple[float, float] | None,
    masks: bool,
) -> tuple[tuple[str, ...], list[TargetImages | None]]:
    if not path.is_dir():
        known = ("digits", *(NAMED_SEGMENTATION if masks else NAMED_DETECTION))
        raise ValueError(
            f"no data set is called {str(name)!r} and there is no folder {path}{_checks.suggestion(str(name), known)}; "
            f"give a folder, or one of {', '.join(known)}"
        )
    if masks:
        return open_masks(path, seed=seed, options=options, intensity_range=bounds)
    entries = {entry.name for entry in path.iterdir()}  # some file systems do not tell upper from lower case
    if "Annotations" in entries:
        return open_voc(path, seed=seed, options=options, intensity_range=bounds)
    if "annotations" in entries:
        return open_coco(path, seed=seed, options=options, intensity_range=bounds)
    raise ValueError(
        f"{path} has neither Annotations/ with XML files, as Pascal VOC, nor annotations/ with JSON files, as COCO"
    )


def _open_digits(
    img_size: int | tuple[int, int] | None, seed: int, options: Mapping[str, Any] | None, *, masks: bool
) -> DenseData:
    data = open_data("digits", img_size=img_size, seed=seed, options=options)
    kind, classes = (DigitMasks, (BACKGROUND, *data.classes)) if masks else (DigitObjects, data.classes)
    train, val, test = (kind(split) for split in (data.train, data.val, data.test))  # type: ignore[arg-type]
    transform = data.transform.replace(fit="pad", scale=SCALES, ratio=(1.0, 1.0))
    return DenseData("digits", classes, train, val, test, transform, target_dims=3 if masks else 0)
