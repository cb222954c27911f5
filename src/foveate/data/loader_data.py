"""Training on data loaders that a user has built."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, SubsetRandomSampler, WeightedRandomSampler

from foveate import _checks
from foveate.data.seeding import generators_kept, seed_generators
from foveate.data.transforms import TransformConfig
from foveate.data.worker_signals import shielded

__all__ = ["Described", "LoaderData", "Loaders", "checked_targets", "from_loaders"]


SHUFFLING = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)
"""PyTorch's samplers that give another order each time."""


class Loaders(NamedTuple):
    """One process's share of the training, validation and, if there are any, test batches."""

    train: Any
    val: Any
    test: Any | None


class Described:
    """Data with ``classes`` and an evaluation ``transform``."""

    classes: tuple[str, ...]
    transform: TransformConfig

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the tensors that `transform` makes."""
        return _checks.pair("img_size", self.transform.img_size)


@dataclass(frozen=True)
class LoaderData(Described):
    """Data loaders with the metadata that training needs; made by `from_loaders`.

    Attributes:
        name: What results call it.
        classes: Names of the classes; a label is an index into them.
        train: Batches to train on.
        val: Batches to choose by.
        test: Batches to report on; None if there are none.
        transform: How an image file has to be prepared to look like those of the loaders.
        target_dims: Dimensions of a batch's targets, where they are integers: 1 of class indices, 3 of masks.
    """

    name: str
    classes: tuple[str, ...]
    train: DataLoader[Any]
    val: DataLoader[Any]
    test: DataLoader[Any] | None
    transform: TransformConfig
    target_dims: int | None = None

    def split(self, name: str) -> Any:
        """Return the loader called ``train``, ``val`` or ``test``, or raise a `ValueError` if there is none."""
        _checks.one_of("split", name, ("train", "val", "test"))
        if getattr(self, name) is None:
            raise ValueError(f"{self.name} has no {name} loader; use its 'val' split")
        return getattr(self, name)

    def length(self, name: str) -> int:
        """Return the number of images of a split."""
        loader = self.split(name)
        return len(getattr(loader, "dataset", loader))

    def entries(self, split: str) -> Iterable[tuple[str, int | None]]:
        """Return no names: a loader does not tell them."""
        return ()

    identities = entries

    def loaders(self, *, seed: int, world_size: int = 1, **_: Any) -> Loaders:
        """Return the loaders, resumable; raise a `ValueError` if several processes are to share them."""
        if world_size > 1:
            raise ValueError("data loaders of your own are for one process; give a folder or a name, or leave torchrun")
        train = _Resumable(self.train, seed=seed, num_classes=self.num_classes)
        val, test = (None if one is None else _Checked(one, self.num_classes) for one in (self.val, self.test))
        return Loaders(train, val, test)


def from_loaders(
    train: DataLoader[Any],
    val: DataLoader[Any],
    test: DataLoader[Any] | None = None,
    *,
    classes: Sequence[str] | None = None,
    mean: Sequence[float],
    std: Sequence[float],
    crop_pct: float = 1.0,
    interpolation: str = "bicubic",
    fit: str = "crop",
    name: str = "loaders",
) -> LoaderData:
    """Take data loaders as data to train on.

    Each gives batches of images ``(B, 3, H, W)``, normalized, and class indices ``(B,)``, or masks ``(B, H, W)`` for
    segmentation. A training on them resumes
    inside an epoch by passing over the batches that it has seen. It resumes to the last bit if what a batch holds
    depends on the random generators of Python, NumPy and PyTorch alone: they are seeded by epoch and batch. In
    a training, workers ignore Ctrl-C and SIGTERM: the process that trains decides when to end, and saves.

    Args:
        train: Batches to train on, in random order.
        val: Batches to validate on.
        test: Batches to report on.
        classes: Names of the classes; those of ``train.dataset`` if it has ``classes``.
        mean: Of each channel, that was subtracted from images in [0, 1].
        std: Of each channel, by which they were divided.
        crop_pct: How a file is prepared for the trained network: part of its shorter side that is kept.
        interpolation: With which it is resized.
        fit: How one of other proportions comes into the size of the images, see `TransformConfig`; for segmentation it
            is padded unless the loaders ``squash``.
        name: What results call the data.

    Raises:
        ValueError: A loader gives no such batches, has no length, or the classes are not known; or ``val`` or ``test``
            is shuffled.
    """
    for split, loader in {"train": train, "val": val, **({} if test is None else {"test": test})}.items():
        try:
            usable = hasattr(loader, "__iter__") and min(len(loader), len(getattr(loader, "dataset", loader))) >= 0
        except (TypeError, NotImplementedError):  # such as of an IterableDataset
            usable = False
        if not usable:
            raise ValueError(f"{split} must be a DataLoader of known length; got {type(loader).__name__}")
        if not len(loader):
            raise ValueError(
                f"{split} has no batch: fewer images than batch_size where drop_last leaves out what is left, or none"
            )
        orders = (getattr(loader, "sampler", None), getattr(getattr(loader, "batch_sampler", None), "sampler", None))
        if split != "train" and any(isinstance(order, SHUFFLING) for order in orders):
            raise ValueError(
                f"{split} gives its images in another order each time, so that networks could not be compared image by "
                "image; leave out shuffle=True there"
            )
    known = getattr(getattr(train, "dataset", None), "classes", None) if classes is None else classes
    if known is None:
        raise ValueError("classes: the data set of the loader does not name them; give classes=[…]")
    with generators_kept():
        first = next(iter(val), None)
    if not (isinstance(first, list | tuple) and len(first) == 2 and all(isinstance(part, Tensor) for part in first)):
        raise ValueError(f"val must give batches (images, labels) of tensors; got {type(first).__name__}")
    images, labels = first
    if (
        images.ndim != 4
        or images.shape[1] != 3
        or not images.is_floating_point()
        or labels.shape[:1] != images.shape[:1]
    ):
        raise ValueError(
            f"val must give float images (B, 3, H, W) and labels (B,); got {images.dtype} of {tuple(images.shape)} and "
            f"{tuple(labels.shape)}"
        )
    transform = TransformConfig(
        img_size=(images.shape[2], images.shape[3]),
        mean=tuple(mean),  # type: ignore[arg-type]  # checked there
        std=tuple(std),  # type: ignore[arg-type]
        crop_pct=crop_pct,
        interpolation=interpolation,
        fit=fit,
    )
    dims = None if labels.is_floating_point() else labels.ndim
    return LoaderData(name, tuple(map(str, known)), train, val, test, transform, dims)


def checked_targets(batches: Iterable[Any], num_classes: int) -> Iterator[Any]:
    """Yield the batches, labels as 64-bit integers, and raise a `ValueError` at the first label that is no class.

    Targets of floating-point numbers are no labels, and are left as they are.
    """
    from foveate.data.dense.objects import VOID  # only here: that room imports this one

    for images, targets in batches:
        if isinstance(targets, Tensor) and targets.is_floating_point():
            yield images, targets
            continue
        for one in [targets] if isinstance(targets, Tensor) else targets:
            labels = one if isinstance(one, Tensor) else one["labels"]
            labels = labels[labels != VOID] if labels.ndim > 1 else labels
            low, high = (int(labels.min()), int(labels.max())) if labels.numel() else (0, 0)
            if low < 0 or high >= num_classes:
                wrong = low if low < 0 else high
                raise ValueError(f"data: there is a label {wrong}, and the network has {num_classes} classes, from 0")
        yield images, targets.long() if isinstance(targets, Tensor) else targets


def _floats(batches: Iterable[Any]) -> Iterator[Any]:
    """Yield the batches, images in single precision; those from NumPy are often in double."""
    for images, targets in batches:
        yield images.float() if isinstance(images, Tensor) and images.is_floating_point() else images, targets


class _Checked:
    """Batches of a data loader whose labels are looked at, and whose workers leave signals to the training."""

    def __init__(self, loader: DataLoader[Any], num_classes: int) -> None:
        self.loader, self.num_classes = loader, num_classes

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        return checked_targets(_floats(shielded(self.loader)), self.num_classes)

    @property
    def bad_images(self) -> tuple[str, ...]:
        return tuple(getattr(self.loader, "bad_images", ()))

    @property
    def bad_in_pass(self) -> tuple[Any, ...]:
        return tuple(getattr(self.loader, "bad_in_pass", ()))


class _Resumable(_Checked):
    """Those that are the same whether an epoch is interrupted or not."""

    def __init__(self, loader: DataLoader[Any], *, seed: int, num_classes: int) -> None:
        super().__init__(loader, num_classes)
        self.seed = seed
        self.epoch = self.start = self.position = 0

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0
        for sampler in self._samplers():
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(epoch)

    def _samplers(self) -> list[Any]:
        """Return what orders the images: a sampler, or one of batches and the sampler in it."""
        batches = getattr(self.loader, "batch_sampler", None)
        found = (getattr(self.loader, "sampler", None), batches, getattr(batches, "sampler", None))
        return list({id(one): one for one in found if one is not None}.values())

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "start": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.start = state["epoch"], state["start"]
        self.position = self.start

    def __iter__(self) -> Iterator[Any]:
        self._seed(0)  # the order of the epoch, and the seeds of workers
        if getattr(self.loader, "persistent_workers", False):
            self.loader._iterator = None  # workers are seeded when they start
        batches = checked_targets(_floats(shielded(self.loader)), self.num_classes)  # which draws the order now
        for number in range(1, len(self) + 1):
            self._seed(number)  # what was computed since the last batch leaves no trace
            batch = next(batches, None)
            if batch is None:
                raise ValueError(f"train gave {number - 1} batches, and its length is {len(self)}")
            self.position = number
            if number > self.start:
                yield batch

    def _seed(self, number: int) -> None:
        seed_generators(self.seed, self.epoch, number)
        for owner in (self.loader, *self._samplers()):
            generator = getattr(owner, "generator", None)
            if generator is not None and number == 0:
                generator.manual_seed(int(torch.randint(1 << 62, ())))
