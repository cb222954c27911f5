"""`open_data`: one way to every set of images that the library can train and test on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foveate import _checks
from foveate._paths import expanded
from foveate.data.digits import DEFAULT_SIZE, DIGITS_MEAN, DIGITS_STD, ClutteredDigits
from foveate.data.divided import Divided
from foveate.data.files import NOT_READ, is_image, is_junk
from foveate.data.folder import FolderImages, open_folder
from foveate.data.named import NAMED_SETS, open_named
from foveate.data.protocols import BoxedImages, LabelledImages
from foveate.data.shards import INDEX, open_shards
from foveate.data.splitting import Splits
from foveate.data.transforms import Augment, Augmented, TransformConfig

__all__ = ["ImageData", "checked_range", "open_data", "takes_intensity_range"]

NAMED_PREFIXES = ("torch/", "torchvision/")
DIGIT_OPTIONS = ("size", "clutter", "unit", "length", "val_length", "test_length")


@dataclass(frozen=True)
class ImageData(Divided):
    """A set of labelled images in three parts, with what is suitable for it.

    Attributes:
        name: What it was opened as.
        classes: Names of the classes; a label is an index into them.
        train: Images to train on.
        val: Images to choose by: epochs, settings.
        test: Images to report on, or ``None`` where there are none; report on ``val`` then, and say so.
        transform: The augmentation, size and normalization suitable for the set; adapt it with
            `TransformConfig.replace`.
        max_bad_images: How many images that cannot be read are tolerated, for `make_loader`.
        augment: Replaces the random part of ``transform`` in training: turns an RGB image into another one, which is
            then resized, cropped and normalized as in evaluation, or into the tensor ``(3, H, W)`` itself. It draws
            from the generators of Python, NumPy or PyTorch, which are seeded per image and epoch.
    """

    name: str
    classes: tuple[str, ...]
    train: LabelledImages
    val: LabelledImages
    test: LabelledImages | None
    transform: TransformConfig
    max_bad_images: int = 0
    augment: Augment | None = None

    @property
    def has_boxes(self) -> bool:
        """Whether each split is a `BoxedImages`: ``data.val.boxes(i)`` is the box of the object in image ``i``."""
        return all(isinstance(split, BoxedImages) for split in (self.train, self.val, self.test) if split is not None)

    def _transforms(self) -> tuple[Any, Any]:
        training = self.transform if self.augment is None else Augmented(self.augment, self.transform)
        return training, self.transform


def open_data(
    name: str | Path,
    *,
    root: str | Path | None = None,
    img_size: int | tuple[int, int] | None = None,
    download: bool = False,
    seed: int = 0,
    max_bad_images: int = 0,
    options: Mapping[str, Any] | None = None,
    boxes: str | Path | None = None,
    intensity_range: Sequence[float] | None = None,
) -> ImageData:
    """Open a set of images by name or by folder.

    Args:
        name: ``digits`` for the cluttered digits that come with the library; ``torch/cifar100`` and the like for what
            timm knows; ``torchvision/OxfordIIITPet`` and the like for what torchvision knows; else the path of a
            folder of images, see `open_folder`, or of shards, see `open_shards`.
        root: Where the files of a named set are, or are put (``./data`` if not given); the folder that a relative
            path of an image folder starts from (the current one if not given).
        img_size: Height and width of the tensors. If not given, what suits the set.
        download: Fetch the files of a named set if they are missing.
        seed: Decides how a set without a validation split is divided, and what digits are drawn.
        max_bad_images: How many images that cannot be read are left out before it is an error.
        options: For ``digits`` only: ``size``, ``clutter``, ``unit``, ``length`` (of the training split),
            ``val_length``, ``test_length``, see `ClutteredDigits`.
        boxes: For a folder of images only: a CSV file with the box of each image, see `open_folder`; ``boxes.csv`` in
            the folder is found without.
        intensity_range: For a folder of images or shards only: ``(black, white)``, the stored values of 16-bit
            grayscale that become black and white; thermal and microscopic images use a small part of theirs.

    Raises:
        ValueError: There is no such set, its files are missing or not laid out as they should be, or an option is
            unknown or out of its range, or more images than ``max_bad_images`` are in formats that are not read. The
            message says how to mend it.
    """
    _checks.integer("seed", seed, minimum=0)
    _checks.integer("max_bad_images", max_bad_images, minimum=0)
    if boxes is not None and (name == "digits" or str(name).startswith(NAMED_PREFIXES)):
        raise ValueError(f"boxes are for folders of images; got {str(boxes)!r} for {str(name)!r}; leave them out")
    if name == "digits":
        checked_range(name, intensity_range)
        return _open_digits(img_size, seed, dict(options or {}))
    if options:
        raise ValueError(f"options are for 'digits' only; {str(name)!r} takes none, got {', '.join(options)}")
    splits = _open_files(name, root, download, seed, boxes, checked_range(name, intensity_range))
    _check_formats(splits, str(name), max_bad_images)
    transform = TransformConfig.suited_to(splits.img_size if img_size is None else img_size, flip=splits.flip)
    return ImageData(str(name), splits.classes, splits.train, splits.val, splits.test, transform, max_bad_images)


def _open_files(
    name: str | Path,
    root: str | Path | None,
    download: bool,
    seed: int,
    boxes: str | Path | None,
    intensity_range: tuple[float, float] | None,
) -> Splits:
    if str(name).startswith(NAMED_PREFIXES):
        return open_named(str(name), root=root or "data", download=download, seed=seed)
    path = expanded(Path(root or "", name))
    if not path.is_dir():
        known = ("digits", *NAMED_SETS)
        raise ValueError(
            f"no data set is called {str(name)!r} and there is no folder {path}{_checks.suggestion(str(name), known)}; "
            f"give 'digits', a folder of images, or one of {', '.join(NAMED_SETS)}"
        )
    if _holds_shards(path):
        if boxes is not None:
            raise ValueError(f"boxes are for folders of images; got {str(boxes)!r} for shards; leave them out")
        return open_shards(path, intensity_range=intensity_range)
    return open_folder(path, seed=seed, boxes=boxes, intensity_range=intensity_range)


def _holds_shards(path: Path) -> bool:
    """Return whether a folder is one of shards, and not one of images in which their archive was left."""
    if (path / INDEX).is_file():
        return True
    entries = [entry for entry in path.iterdir() if not is_junk(entry.name)]
    images = any(entry.is_dir() or is_image(entry.name) for entry in entries)
    return any(entry.suffix == ".tar" for entry in entries) and not images


def takes_intensity_range(name: str | Path) -> bool:
    """Tell whether ``name`` is a folder, whose images may be 16-bit grayscale, rather than a named set."""
    return str(name) != "digits" and not str(name).startswith(NAMED_PREFIXES)


def checked_range(name: str | Path, intensity_range: Sequence[float] | None) -> tuple[float, float] | None:
    """Return black and white; raise a `ValueError` if they are none, or ``name`` is no folder."""
    if intensity_range is None:
        return None
    if not takes_intensity_range(name):
        raise ValueError(f"intensity_range is for folders of images and shards; {str(name)!r} takes none")
    values = tuple(intensity_range)
    if len(values) != 2:
        raise ValueError(f"intensity_range must be two numbers, black and white; got {intensity_range!r}")
    black = _checks.number("intensity_range", values[0])
    return black, _checks.number("intensity_range, white", values[1], above=black)


def _check_formats(splits: Splits, name: str, max_bad_images: int) -> None:
    """Raise a `ValueError` if more images of a part than ``max_bad_images`` are in unsupported formats."""
    parts = [part for part in (splits.train, splits.val, splits.test) if isinstance(part, FolderImages)]
    found = [[path for path, _ in part.samples if path.lower().endswith(NOT_READ)] for part in parts]
    unread = max(found, key=len, default=[])
    if len(unread) > max_bad_images:
        endings = Counter(Path(path).suffix.lower() for path in unread)
        counts = ", ".join(f"{count} {ending}" for ending, count in endings.most_common())
        raise ValueError(
            f"{name} has {len(unread)} images in formats that are not read ({counts}), such as {unread[0]}, "
            f"and max_bad_images allows {max_bad_images}; convert them to JPEG or PNG, or leave them out with "
            f"max_bad_images={len(unread)} or more"
        )


def _open_digits(img_size: int | tuple[int, int] | None, seed: int, options: dict[str, Any]) -> ImageData:
    for option in options:
        _checks.one_of("option of 'digits'", option, DIGIT_OPTIONS)
    if img_size is not None:
        height, width = _checks.pair("img_size", img_size)
        if height != width or options.get("size", height) != height:
            raise ValueError(
                f"the canvas of 'digits' is square and drawn at its final size; got img_size={img_size} and "
                f"size={options.get('size')}. Give one integer as either of them"
            )
        options["size"] = height
    canvas = {name: options[name] for name in ("size", "clutter", "unit") if name in options}
    lengths = {"train": options.get("length"), "val": options.get("val_length"), "test": options.get("test_length")}
    train, val, test = (ClutteredDigits(split, length=length, seed=seed, **canvas) for split, length in lengths.items())
    transform = TransformConfig(
        img_size=options.get("size", DEFAULT_SIZE),
        mean=DIGITS_MEAN,
        std=DIGITS_STD,
        crop="none",  # the generator has chosen place, size and angle; a mirrored digit is none
        hflip=0.0,
        color_jitter=0.0,
        crop_pct=1.0,
        interpolation="bilinear",
    )
    return ImageData("digits", train.classes, train, val, test, transform)
