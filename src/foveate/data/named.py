"""Sets of images that timm and torchvision know by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torchvision
from PIL import Image
from timm.data import create_dataset
from torch.utils.data import Dataset, Subset

from foveate import _checks
from foveate._extras import MissingExtraError
from foveate._paths import expanded
from foveate.data.decoding import naming, to_rgb, without_orientation
from foveate.data.splitting import Splits, stratified_split

__all__ = ["NAMED_SETS", "NamedImages", "NamedSet", "build", "open_named"]

VAL_FRACTION = 0.1

FILES = ("samples", "_samples", "imgs", "_images", "_image_files")
LABELS = ("targets", "labels", "_labels", "y")
CLASSES = ("classes", "categories", "all_categories")
"""Where the classes of torchvision keep what they found; they have no common interface for it."""


@dataclass(frozen=True)
class NamedSet:
    """A named data set: the names of its splits, and whether its images may be mirrored.

    Attributes:
        train: Arguments that select the images to train on.
        val: Arguments for the validation images, if the set has its own.
        test: Arguments for the test images, if the set has its own, with labels.
        img_size: Side at which the images are best used; their own if they are small.
        flip: Whether a mirror image keeps its class.
        fetched: Whether the library that knows the set can download it.
        classes: Names of the classes, where the set itself holds neither names nor a list of labels.
    """

    train: Mapping[str, Any]
    val: Mapping[str, Any] | None = None
    test: Mapping[str, Any] | None = None
    img_size: int = 224
    flip: bool = True
    fetched: bool = True
    classes: tuple[str, ...] = ()


def _splits(train: str, val: str | None = None, test: str | None = None, **traits: Any) -> NamedSet:
    """Describe a set whose splits are chosen by ``split=``."""
    given = [None if name is None else {"split": name} for name in (val, test)]
    return NamedSet({"split": train}, given[0], given[1], **traits)


def _flag(**traits: Any) -> NamedSet:
    """Describe a set with ``train=True`` for training and ``train=False`` for test."""
    return NamedSet({"train": True}, test={"train": False}, **traits)


NAMED_SETS: Mapping[str, NamedSet] = {
    "torch/cifar10": _splits("train", None, "test", img_size=32),
    "torch/cifar100": _splits("train", None, "test", img_size=32),
    "torch/fashion_mnist": _splits("train", None, "test", img_size=28),
    "torch/imagenet": _splits("train", "val", fetched=False),
    "torch/inaturalist": _splits("train", "val"),
    "torch/kmnist": _splits("train", None, "test", img_size=28, flip=False),
    "torch/mnist": _splits("train", None, "test", img_size=28, flip=False),
    "torch/places365": _splits("train", "val"),
    "torch/qmnist": _splits("train", None, "test", img_size=28, flip=False),
    "torchvision/CIFAR10": _flag(img_size=32),
    "torchvision/CIFAR100": _flag(img_size=32),
    "torchvision/CLEVRClassification": _splits("train", "val"),
    "torchvision/Caltech101": NamedSet({}),
    "torchvision/Caltech256": NamedSet({}),
    "torchvision/Country211": _splits("train", "valid", "test"),
    "torchvision/DTD": _splits("train", "val", "test"),
    "torchvision/EMNIST": NamedSet(
        {"split": "balanced", "train": True}, test={"split": "balanced", "train": False}, img_size=28, flip=False
    ),
    "torchvision/EuroSAT": NamedSet({}, img_size=64),
    "torchvision/FER2013": _splits("train", None, "test", img_size=48, fetched=False),
    "torchvision/FGVCAircraft": _splits("train", "val", "test"),
    "torchvision/FashionMNIST": _flag(img_size=28),
    "torchvision/Flowers102": _splits("train", "val", "test"),
    "torchvision/Food101": _splits("train", None, "test"),
    "torchvision/GTSRB": _splits("train", None, "test", img_size=48, flip=False),
    "torchvision/INaturalist": NamedSet({"version": "2021_train"}, val={"version": "2021_valid"}),
    "torchvision/ImageNet": _splits("train", "val", fetched=False),
    "torchvision/Imagenette": _splits("train", "val"),
    "torchvision/KMNIST": _flag(img_size=28, flip=False),
    "torchvision/MNIST": _flag(img_size=28, flip=False),
    "torchvision/OxfordIIITPet": _splits("trainval", None, "test"),
    "torchvision/PCAM": _splits("train", "val", "test", img_size=96, classes=("normal", "tumour")),
    "torchvision/Places365": _splits("train-standard", "val"),
    "torchvision/QMNIST": _flag(img_size=28, flip=False),
    "torchvision/RenderedSST2": _splits("train", "val", "test", flip=False),
    "torchvision/SEMEION": NamedSet({}, img_size=16, flip=False),
    "torchvision/STL10": _splits("train", None, "test", img_size=96),
    "torchvision/SUN397": NamedSet({}),
    "torchvision/SVHN": _splits("train", None, "test", img_size=32, flip=False),
    "torchvision/StanfordCars": _splits("train", None, "test", fetched=False),
    "torchvision/USPS": _flag(img_size=16, flip=False),
}
"""Every set that can be opened by name. A set that comes in one piece has neither ``val`` nor ``test``."""


class NamedImages(Dataset[tuple[Image.Image, int]]):
    """One split of a named set as RGB images and integer labels; an image that cannot be read is named.

    Args:
        dataset: A data set of torchvision or timm whose items are ``(PIL.Image, label)``.
        name: What to call it where an image has no file of its own.
    """

    def __init__(self, dataset: Any, name: str) -> None:
        self.dataset = dataset
        self.name = name

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"index must be from 0 to {len(self) - 1}; got {index}")
        with naming(self.name_of(index)):
            image, label = self.dataset[index]
            return without_orientation(to_rgb(image)), int(label)

    @property
    def labels(self) -> np.ndarray:
        """The label of each image, without reading the images where the set allows that."""
        found = _attribute(self.dataset, LABELS)
        if found is None and (samples := _attribute(self.dataset, FILES)) is not None and isinstance(samples[0], tuple):
            found = [label for _, label in samples]
        if found is None:
            found = [self[index][1] for index in range(len(self))]
        return np.asarray(found).reshape(len(self), -1)[:, 0]  # QMNIST has eight numbers per image, the class first

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; their numbers where the set has no names."""
        names = _attribute(self.dataset, CLASSES)
        if names is None:
            names = range(int(self.labels.max()) + 1)
        first = tuple(str(name[0] if isinstance(name, tuple) else name) for name in names)  # ImageNet's have synonyms
        numbers = getattr(self.dataset, "wnids", None)  # of which two classes share a word: a crane is a bird, or lifts
        return first if numbers is None or len(set(first)) == len(first) else tuple(numbers)

    def name_of(self, index: int) -> str:
        """Return the path of an image where the set has one, else its number."""
        files = _attribute(self.dataset, FILES)
        file = None if files is None else files[index]
        if isinstance(file, tuple):
            file = file[0]
        return str(file) if isinstance(file, str | Path) else f"image {index} of {self.name}"


def open_named(name: str, *, root: str | Path, download: bool = False, seed: int = 0) -> Splits:
    """Open a set that timm (``torch/cifar100``) or torchvision (``torchvision/OxfordIIITPet``) knows.

    A set without validation images of its own gets a tenth of each class of its training images, chosen by ``seed``;
    its test images are left alone.

    Args:
        name: One of `NAMED_SETS`.
        root: The folder that its files are in, laid out as torchvision expects it.
        download: Fetch the files if they are missing.
        seed: Decides which images missing validation images are made of.

    Raises:
        ValueError: The name is unknown, or the files are missing or damaged.
        MissingExtraError: The set needs a package that is not installed.
    """
    _checks.one_of("the name of a data set", name, NAMED_SETS)
    spelling = NAMED_SETS[name]
    root = expanded(root)
    if download and spelling.fetched:
        root.mkdir(parents=True, exist_ok=True)
    if not root.is_dir():  # some classes of torchvision would create it
        raise ValueError(_missing(name, root, "there is no such folder", download, spelling.fetched))
    train, val, test = (
        None
        if arguments is None
        else NamedImages(build(name, arguments, root, download=download, fetched=spelling.fetched), name)
        for arguments in (spelling.train, spelling.val, spelling.test)
    )
    assert train is not None
    if name == "torchvision/FER2013" and test and test.dataset[0][1] is None:
        test = None  # of train.csv and test.csv, which has no labels
    classes = spelling.classes or train.classes
    if val is not None:
        return Splits(classes, train, val, test, spelling.img_size, spelling.flip)
    kept, held = stratified_split(train.labels, (1 - VAL_FRACTION, VAL_FRACTION), seed=seed)
    parts = (Subset(train, kept.tolist()), Subset(train, held.tolist()))
    return Splits(classes, *parts, test, spelling.img_size, spelling.flip)


def build(name: str, arguments: Mapping[str, Any], root: Path, *, download: bool, fetched: bool) -> Any:
    """Return a data set of timm or torchvision; raise a `ValueError` if its files are missing or damaged."""
    library, _, short = name.partition("/")
    try:
        if library == "torch":
            return create_dataset(name, root=str(root), download=download and fetched, **arguments)
        fetch = {"download": download} if fetched else {}
        return getattr(torchvision.datasets, short)(str(root), **fetch, **arguments)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{name} needs {error.name!r}; install it with: pip install {error.name}") from error
    except (AssertionError, LookupError, RuntimeError, TypeError, OSError, ValueError) as error:
        reason = str(error).rstrip(".") or type(error).__name__
        raise ValueError(_missing(name, root, reason, download, fetched)) from error


def _missing(name: str, root: Path, reason: str, download: bool, fetched: bool) -> str:
    hint = "give the folder that holds it as root, or let it be fetched with --download (download=True)"
    if not fetched:
        hint = "it cannot be downloaded; lay its files out as torchvision's documentation of the set says"
    elif download:
        hint = "downloading it failed"
    return f"cannot open {name} in {root.absolute()}: {reason}; {hint}"


def _attribute(dataset: Any, names: tuple[str, ...]) -> Any:
    return next((value for name in names if (value := getattr(dataset, name, None)) is not None), None)
