"""The order of a data set's images in an epoch, shared by the processes of a training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

__all__ = ["EpochSampler", "SampleKey"]


class SampleKey(NamedTuple):
    """Index of an image and its epoch, which with the seed determine its augmentation."""

    epoch: int
    item: int


class EpochSampler(Sampler[SampleKey]):
    """The order of one rank's images in one epoch: a function of ``(seed, epoch, rank)`` alone.

    In training the order is random and the ranks are dealt its images in turn, equally many, the few left over being
    others in each epoch: whatever their number, the first so many images of all ranks are the first of the order. In
    evaluation each rank has a stretch of the data set, one after the other, so that each image is seen by exactly one
    rank; a rank may have one image less than another.

    Args:
        size: Number of images in the data set.
        training: Random order in equal shares, or each image once in the given order.
        seed: Seed of the order.
        rank: Number of this process among ``world_size``.
        world_size: Number of processes that share the data set.
        shuffled: What gives the images at some positions of the random order, if the data set has an order that suits
            it; see `SelfOrdered`.
    """

    def __init__(
        self,
        size: int,
        *,
        training: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        shuffled: Callable[..., Iterable[int]] | None = None,
    ) -> None:
        self.size = size
        self.training = training
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.shuffled = shuffled or self._permuted
        self.epoch = 0
        self._resumed = (0, 0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0, whose order the next iteration gives."""
        self.epoch = epoch

    def resume(self, epoch: int, start: int) -> None:
        """Choose ``epoch`` and leave out the first ``start`` images of it over all ranks; later epochs are whole."""
        if start % self.world_size:
            raise ValueError(f"{start} images cannot be shared by world_size={self.world_size} processes")
        self.epoch = epoch
        self._resumed = (epoch, start // self.world_size)

    @property
    def start(self) -> int:
        """Number of this rank's images skipped in the chosen epoch because they were seen before it was resumed."""
        epoch, start = self._resumed
        return start if epoch == self.epoch else 0

    def __len__(self) -> int:
        """Return this rank's number of images in a whole epoch."""
        return len(self._positions)

    def __iter__(self) -> Iterator[SampleKey]:
        epoch = self.epoch
        positions = self._positions[self.start :]
        for index in self.shuffled(positions, seed=self.seed, epoch=epoch) if self.training else positions:
            yield SampleKey(epoch, index)

    def _permuted(self, positions: range, *, seed: int, epoch: int) -> list[int]:
        order = np.random.default_rng([seed, epoch]).permutation(self.size)
        return order[positions.start : positions.stop : positions.step].tolist()

    @property
    def _positions(self) -> range:
        size, rank, world_size = self.size, self.rank, self.world_size
        if self.training:
            return range(rank, size - size % world_size, world_size)
        share, longer = divmod(size, world_size)  # the first ``longer`` ranks have one image more
        start = rank * share + min(rank, longer)
        return range(start, start + share + (rank < longer))
