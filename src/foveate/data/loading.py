"""Batches that are the same whichever process makes them, and that can be resumed inside an epoch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Subset, default_collate

from foveate import _checks
from foveate.data.boxes import InputBoxes
from foveate.data.decoding import BadImage, UnreadableImageError
from foveate.data.placement import check_resizable
from foveate.data.protocols import LabelledImages, SelfOrdered
from foveate.data.sampling import EpochSampler, SampleKey
from foveate.data.seeding import generators_kept, seed_generators
from foveate.data.transforms import Augmented, JointTransform, TransformConfig, make_transform
from foveate.data.worker_signals import begin_shielded

__all__ = ["ImageLoader", "make_loader"]

logger = logging.getLogger(__name__)


class ImageLoader(DataLoader[Any]):
    """Batches ``(images, labels)`` of one split, made by `make_loader`.

    ``images`` is ``(B, 3, H, W)`` and ``labels`` ``(B,)``; in place of labels come masks ``(B, H, W)``, or a list of
    what each image shows, where the data set gives those. An image that cannot be read is left out of its batch, which
    is then shorter, and is kept in `bad_images`; one more of them than ``max_bad_images`` ends the iteration with a
    `ValueError` that names them. A batch that is empty then is not given; with several ranks in training that is an
    error, as they take their steps together. At the end of an epoch, those that were new in it are logged as a warning.

    In training, the iteration after a whole one gives the next epoch, in another order; `set_epoch` chooses any. The
    epoch is read when the first batch is asked for, not in ``iter()``: Lightning calls `EpochSampler.set_epoch` in
    between. `state_dict` and `load_state_dict` are the interface by which Lightning resumes inside an epoch.
    """

    sampler: EpochSampler

    def __init__(self, *args: Any, max_bad_images: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.max_bad_images = max_bad_images
        self._bad: dict[str, BadImage] = {}
        self.bad_in_pass: list[BadImage] = []  # those of the last iteration alone
        self._position = (0, 0)

    @property
    def bad_images(self) -> tuple[BadImage, ...]:
        """The distinct images that could not be read so far, by this process."""
        return tuple(self._bad.values())

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0, that the next iteration gives."""
        self.sampler.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch, how many images of it all ranks have been through, and what this one could not read so far.

        Each rank has been through as many as this one.
        """
        epoch, start = self._position
        bad = [[item.path, item.reason] for item in self.bad_images]
        return {"epoch": epoch, "start": start * self.sampler.world_size, "bad_images": bad}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken, given the same data and seed; the number of ranks may be another."""
        if self.sampler.rank == 0:  # whose state it is; those of the others are read, and missed, again
            self._bad = {path: BadImage(path, reason) for path, reason in state.get("bad_images", ())}
        self.sampler.resume(state["epoch"], state["start"])
        self._position = (self.sampler.epoch, self.sampler.start)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, Any]]:  # type: ignore[override]
        epoch, start, known = self.sampler.epoch, self.sampler.start, len(self._bad)
        assert self.batch_size is not None
        self.bad_in_pass = []
        for number, (images, labels, bad) in enumerate(super().__iter__(), start=start // self.batch_size + 1):
            self._note(bad)
            start += len(images) + len(bad)  # targets may be of several parts
            self._position = (epoch, start)
            new = self.bad_images[known:]
            if number == len(self) and new:  # not after the loop: who counts batches, as Lightning does, stops before
                logger.warning("%d images could not be read and were left out:\n%s", len(new), _listing(new))
            if len(images):
                yield images, labels
            elif self.sampler.training and self.sampler.world_size > 1:
                raise ValueError(f"none of the images of a batch could be read, such as\n{_listing(bad, 1)}\nmend them")
        if self.sampler.training and self.sampler.epoch == epoch:
            self.set_epoch(epoch + 1)

    def _get_iterator(self) -> Any:
        return begin_shielded(self, super()._get_iterator)

    def _note(self, bad: Sequence[BadImage]) -> None:
        self._bad.update({item.path: item for item in bad})
        self.bad_in_pass.extend(bad)
        if len(self._bad) > self.max_bad_images:
            # Ends the workers now; with the loop that the traceback makes they would take seconds to die.
            self._iterator = None
            raise ValueError(
                f"could not read {len(self._bad)} image(s), and max_bad_images allows {self.max_bad_images}:\n"
                f"{_listing(self.bad_images)}\n"
                f"mend them, or leave them out with max_bad_images={len(self._bad)} or more: a run that has begun goes "
                "on with either, but not once images are removed"
            )


def make_loader(
    dataset: LabelledImages,
    *,
    transform: TransformConfig | Callable[[Image.Image], torch.Tensor] | JointTransform,
    batch_size: int,
    training: bool,
    workers: int = 0,
    seed: int = 0,
    epoch: int = 0,
    rank: int = 0,
    world_size: int = 1,
    max_bad_images: int = 0,
    pin_memory: bool = False,
) -> ImageLoader:
    """Build the loader of one split.

    In training the order is random, the augmentation is on and the last, incomplete batch of an epoch is left out; in
    evaluation the order is that of the data set and every image is given. Order and augmentation are functions of
    ``(seed, epoch, index)``: any number of workers gives the same bits, and nothing else draws from or changes the
    caller's random generators.

    Args:
        dataset: Images and labels.
        transform: What makes tensors of images; a `JointTransform` is given the target as well.
        batch_size: Images per batch and process.
        training: See above.
        workers: Processes that load images; 0 loads them in this one. They stay alive between epochs.
        seed: Seed of order and augmentation.
        epoch: The epoch, from 0, to begin with; `ImageLoader.set_epoch` chooses later ones.
        rank: Number of this process among ``world_size``.
        world_size: Number of processes that share the data set.
        max_bad_images: How many distinct images that cannot be read are left out before it is an error.
        pin_memory: Put batches where a GPU reads them fast.

    Raises:
        ValueError: A number is out of its range, or there are too few images for one batch of training.
    """
    _checks.integer("batch_size", batch_size)
    _checks.integer("world_size", world_size)
    for name, value in {"workers": workers, "seed": seed, "epoch": epoch, "max_bad_images": max_bad_images}.items():
        _checks.integer(name, value, minimum=0)
    if _checks.integer("rank", rank, minimum=0) >= world_size:
        raise ValueError(f"rank must be below world_size={world_size}; got {rank}")
    sampler = EpochSampler(
        len(dataset),
        training=training,
        seed=seed,
        rank=rank,
        world_size=world_size,
        shuffled=dataset.shuffled if isinstance(dataset, SelfOrdered) else None,
    )
    sampler.set_epoch(epoch)
    if training and len(sampler) < batch_size:
        raise ValueError(
            f"batch_size={batch_size} leaves no whole batch of the {len(sampler)} training images"
            f"{f' of each of {world_size} processes' if world_size > 1 else ''}; give at most {len(sampler)}"
        )
    whole = None
    if isinstance(transform, TransformConfig):
        whole = None if training and transform.crop == "resized" else transform
        transform = make_transform(transform, training=training)
    elif isinstance(transform, Augmented | JointTransform):
        whole = transform.config
    return ImageLoader(
        _Transformed(dataset, transform, seed=seed if training else None, whole=whole),
        batch_size=batch_size,
        sampler=sampler,
        drop_last=training,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=_collate,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # else each epoch would draw a worker seed from the caller's generator
        max_bad_images=max_bad_images,
    )


class _Transformed(Dataset[Any]):
    """Tensors of a data set's images; with a seed, by random transforms seeded per image and epoch.

    With ``whole``, the transform resizes them by it before it crops.
    """

    def __init__(
        self,
        images: LabelledImages,
        transform: Callable[[Image.Image], Any] | JointTransform,
        *,
        seed: int | None,
        whole: TransformConfig | None,
    ) -> None:
        self.images = images
        self.transform = transform
        self.seed = seed
        self.whole = whole

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, keys: list[SampleKey]) -> list[tuple[torch.Tensor, Any] | BadImage]:
        """Return one batch, as torch's loader asks for it: saving the generators for every image would take longer."""
        with generators_kept():
            return [self._item(key) for key in keys]

    def _item(self, key: SampleKey) -> tuple[torch.Tensor, Any] | BadImage:
        try:
            image, target = self.images[key.item]
            if self.whole is not None:
                check_resizable(self.whole, (image.height, image.width), "")
        except UnreadableImageError as error:
            return error.bad if error.bad.path else BadImage(_name(self.images, key.item), error.bad.reason)
        if self.seed is not None:
            seed_generators(self.seed, *key)
        if isinstance(self.transform, JointTransform):
            return self.transform(image, target)
        return self.transform(image), target


def _name(images: Any, index: int) -> str:
    """Return the path of an image of a folder or a named set, its name in a shard, else its number."""
    while isinstance(images, Subset | InputBoxes):
        if isinstance(images, Subset):
            index = images.indices[index]
        images = images.dataset if isinstance(images, Subset) else images.images
    if (name_of := getattr(images, "name_of", None)) is not None:
        return str(name_of(index))
    samples = getattr(images, "samples", None)
    path = getattr(samples[index], "path", None) if isinstance(samples, list | tuple) else None
    return f"image number {index}" if path is None else str(path)


class _Batch(NamedTuple):
    images: torch.Tensor
    labels: Any
    bad: tuple[BadImage, ...]


def _collate(items: list[tuple[torch.Tensor, Any] | BadImage]) -> _Batch:
    bad = tuple(item for item in items if isinstance(item, BadImage))
    good = [item for item in items if not isinstance(item, BadImage)]
    if good and isinstance(good[0][1], dict):  # as many objects in each image as there happen to be
        return _Batch(default_collate([image for image, _ in good]), [target for _, target in good], bad)
    images, labels = default_collate(good) if good else (torch.empty(0), torch.empty(0, dtype=torch.long))
    return _Batch(images, labels, bad)


def _listing(bad: Sequence[BadImage], shown: int = 10) -> str:
    lines = [f"  {item}" for item in bad[:shown]]
    return "\n".join(lines + [f"  and {len(bad) - shown} more"] * (len(bad) > shown))
