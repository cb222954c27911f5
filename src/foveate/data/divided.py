"""Data in three parts, read image by image: what a set of class labels and one of masks or boxes have in common."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from foveate import _checks
from foveate.data.loader_data import Described, Loaders
from foveate.data.loading import ImageLoader, make_loader
from foveate.data.protocols import ListedImages
from foveate.data.transforms import TransformConfig

__all__ = ["Divided"]


class Divided(Described, ABC):
    """Map-style data sets to train on, to choose by and, if there is one, to report on."""

    name: str
    train: Any
    val: Any
    test: Any | None
    max_bad_images: int

    @property
    def mean(self) -> tuple[float, float, float]:
        """Mean per channel for normalization, images being in [0, 1]."""
        return self.transform.mean

    @property
    def std(self) -> tuple[float, float, float]:
        """Standard deviation per channel for normalization."""
        return self.transform.std

    def length(self, name: str) -> int:
        """Return the number of images of a split."""
        return len(self.split(name))

    def loaders(
        self,
        *,
        batch_size: int,
        workers: int = 0,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        samples: Callable[[Any], Any] = lambda images: images,
        pin_memory: bool = False,
    ) -> Loaders:
        """Return one process's share of the batches of each split.

        Args:
            batch_size: Images per step, of all processes together.
            workers: Processes that load images; 0 loads them in this one.
            seed: Of order and augmentation.
            rank: Number of this process.
            world_size: Number of processes.
            samples: Turns the images of a split into a data set of pairs ``(image, target)``.
            pin_memory: See `make_loader`.

        Raises:
            ValueError: There are too few images for a batch, or the processes cannot share one equally.
        """
        if batch_size % world_size:
            near = max(batch_size // world_size, 1) * world_size
            raise ValueError(
                f"batch_size={batch_size} is of all {world_size} processes together, which cannot share it equally; "
                f"give a multiple of {world_size}, such as {near}"
            )
        share = self.length("train") // world_size
        if world_size > 1 and share < batch_size // world_size:
            raise ValueError(
                f"batch_size={batch_size} leaves no whole batch of the {self.length('train')} training images for "
                f"{world_size} processes; give at most {share * world_size}"
            )
        loader = partial(
            make_loader,
            batch_size=batch_size // world_size,
            workers=workers,
            seed=seed,
            rank=rank,
            world_size=world_size,
            max_bad_images=self.max_bad_images,
            pin_memory=pin_memory,
        )
        augmented, plain = self._transforms()
        val, test = (
            None if split is None else loader(samples(split), transform=plain, training=False)
            for split in (self.val, self.test)
        )
        return Loaders(loader(samples(self.train), transform=augmented, training=True), val, test)

    def evaluation_loader(
        self,
        split: str,
        *,
        transform: TransformConfig,
        batch_size: int,
        workers: int = 0,
        samples: Callable[[Any], Any] = lambda images: images,
        pin_memory: bool = False,
    ) -> ImageLoader:
        """Return the batches of a split in order, prepared by ``transform`` as in evaluation; the rest as in `loaders`.

        Raises:
            ValueError: There is no such split, or a number is out of its range.
        """
        plain = dataclasses.replace(self, transform=transform)._plain()  # type: ignore[type-var]
        return make_loader(
            samples(self.split(split)),
            transform=plain,
            batch_size=batch_size,
            training=False,
            workers=workers,
            max_bad_images=self.max_bad_images,
            pin_memory=pin_memory,
        )

    def entries(self, split: str) -> Iterable[tuple[str, int | None]]:
        """Return names and labels of the images of a split, see `ListedImages`; nothing where they have no names."""
        images = self.split(split)
        return images.entries() if isinstance(images, ListedImages) else ()

    def identities(self, split: str) -> Iterable[tuple[str, int | None]]:
        """Return what tells the images of a split and their targets from others; of class labels, the `entries`."""
        images = self.split(split)
        return images.identities() if hasattr(images, "identities") else self.entries(split)

    def split(self, name: str) -> Any:
        """Return the split called ``train``, ``val`` or ``test``, or raise a `ValueError` if it has none."""
        _checks.one_of("split", name, ("train", "val", "test"))
        images = getattr(self, name)
        if images is None:
            raise ValueError(f"{self.name} has no labelled test images; use its 'val' split")
        return images

    def _plain(self) -> Any:
        """Return what images are transformed with in evaluation."""
        return self._transforms()[1]

    @abstractmethod
    def _transforms(self) -> tuple[Any, Any]:
        """Return what `make_loader` transforms the images of training with, and those of evaluation."""
